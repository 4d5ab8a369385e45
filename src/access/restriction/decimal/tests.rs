//! Tests of decimal numbers.

use super::*;
use crate::json::Json;

#[track_caller]
fn order(left: &str, right: &str) -> Ordering {
    let [left, right] = [left, right].map(|text| Decimal::parse(text).unwrap());
    assert_eq!(left == right, left.cmp(&right).is_eq());
    assert_eq!(left.cmp(&right), right.cmp(&left).reverse());
    left.cmp(&right)
}

/// As a restriction has it.
fn kept(text: &str) -> Option<Decimal> {
    let Json::Number(number) = Json::parse(text.as_bytes()).unwrap() else { panic!("{text}") };
    Decimal::of(&number)
}

#[test]
fn spellings_of_one_number_are_equal() {
    for spellings in [
        &[
            "100",
            "1e2",
            "100.0",
            "1E+2",
            "0.1e3",
            "1000e-1",
            "100.000",
            "1e0000000000000000000000002",
        ][..],
        &["0", "-0", "0.0", "0e5", "-0.00e-7", "0e99999999999999999999999999"],
        &["-1.5", "-15e-1", "-0.15E1", "-1.50"],
        &["9007199254740993", "9007199254740993.0", "9.007199254740993e15"],
        &["1e999999999999999999", "10e999999999999999998", "0.1e1000000000000000000"][..2],
    ] {
        for left in spellings {
            for right in spellings {
                assert_eq!(order(left, right), Ordering::Equal, "{left} {right}");
            }
        }
    }
}

#[test]
fn numbers_are_in_their_order() {
    let ascending = [
        "-1e999999999999999999",
        "-1e3",
        "-101",
        "-100",
        "-99.9",
        "-1e-9",
        "-1e-999999999999999999",
        "0",
        "1e-999999999999999999",
        "1e-400",
        "0.09",
        "0.1",
        "0.10000000000000000000000000000000001",
        "0.11",
        "1",
        "9",
        "9.01",
        "10",
        "99",
        "9007199254740992",
        "9007199254740993",
        "18446744073709551616",
        "18446744073709551617",
        "1e400",
        "1.1e400",
        "1e999999999999999999",
    ];
    for (index, left) in ascending.iter().enumerate() {
        for (other, right) in ascending.iter().enumerate() {
            assert_eq!(order(left, right), index.cmp(&other), "{left} {right}");
        }
    }
}

#[test]
fn what_is_no_number_or_has_too_long_an_exponent_is_not_compared() {
    for text in [
        "",
        "-",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "1e1.5",
        "0x1",
        "NaN",
        "Infinity",
        " 1",
        "1 ",
        "1,0",
        "--1",
        "1e-+1",
        "0e",
        "0ex",
        "\u{0661}",
        "1e1000000000000000000",
        "1e-1000000000000000000",
        "1_0",
    ] {
        assert_eq!(Decimal::parse(text), None, "{text}");
    }
}

#[test]
fn numbers_of_restrictions_are_read_as_written() {
    for text in [
        "0",
        "1",
        "-1",
        "1000",
        "18446744073709551615",
        "-9223372036854775808",
        "9007199254740993",
        "0.1",
        "-0.1",
        "0.3",
        "1.005",
        "123456789.012345",
        "0.000001",
        "1e-22",
        "-1.5e-10",
        "1e20",
        "1e22",
        "5e30",
        "123456789012345e22",
        "100.0",
        "1e2",
        "-0",
        "-0.0",
        "0e10",
        "999999999999999.0",
        "0.999999999999999",
    ] {
        assert_eq!(kept(text), Decimal::parse(text), "{text}");
        assert!(kept(text).is_some(), "{text}");
    }
}

#[test]
fn a_double_that_stands_for_no_short_number_is_refused() {
    for text in [
        "0.1234567890123456",
        "18446744073709551616",
        "1e38",
        "1e300",
        "1e-30",
        "1.7976931348623157e308",
        "5e-324",
        "9007199254740993.5",
        "1234567890123456.0",
    ] {
        assert_eq!(kept(text), None, "{text}");
    }
}
