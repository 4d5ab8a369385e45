//! The globs against a simple matcher, and the work they do.

use super::*;

/// The definition, in as many steps as it likes.
#[cfg(not(target_arch = "wasm32"))]
fn reference(pattern: &[u8], text: &[u8]) -> bool {
    match pattern {
        [] => text.is_empty(),
        [b'*', b'*', rest @ ..] => {
            let rest = &rest[rest.iter().take_while(|b| **b == b'*').count()..];
            (0..=text.len()).any(|n| reference(rest, &text[n..]))
        }
        [b'*', rest @ ..] => (0..=text.len())
            .take_while(|n| !text[..*n].contains(&b'/'))
            .any(|n| reference(rest, &text[n..])),
        [byte, rest @ ..] => text.first() == Some(byte) && reference(rest, &text[1..]),
    }
}

fn path(pattern: &str, text: &str) -> bool {
    Globs::paths(&[pattern]).matches(text)
}

fn name(pattern: &str, text: &str) -> bool {
    Globs::names(&[pattern]).matches(text)
}

#[test]
fn a_star_stays_inside_its_segment() {
    assert!(path("/v1/*", "/v1/models"));
    assert!(!path("/v1/*", "/v1/chat/completions"));
    assert!(path("/v1/**", "/v1/chat/completions"));
    assert!(path("/v1/*/completions", "/v1/chat/completions"));
    assert!(!path("/v1/**", "/v1"));
    assert!(!path("/v1/**", "/v10/x"));
    assert!(!path("", "/"));
}

#[test]
fn a_star_of_a_name_takes_slashes_too() {
    assert!(name("gpt-4o*", "gpt-4o-mini"));
    assert!(name("meta/*", "meta/llama/3"));
    assert!(!name("gpt-4o", "gpt-4o-mini"));
}

#[test]
fn two_ends_that_overlap_match_nothing_shorter_than_both() {
    assert!(path("/a*/a", "/a/a") && !path("/a*/a", "/a") && !name("aba*ba", "aba"));
    assert!(name("aba*ba", "ababa"));
}

#[test]
fn the_slashes_at_both_ends_are_not_those_of_the_star() {
    assert!(path("/v1/*/messages", "/v1/x/messages"));
    assert!(!path("/v1/*/messages", "/v1/x/y/messages"));
    assert!(path("/v1/**/messages", "/v1/x/y/messages"));
}

#[test]
fn patterns_longer_than_a_word_match_as_well() {
    let long = format!("/{}*{}*", "a".repeat(100), "b".repeat(100));
    let text = |stars: &str| long.replace('*', stars);
    assert!(path(&long, &text("xyz")) && path(&long, &text("")));
    assert!(!path(&long, &text("/")) && !path(&long, text("").trim_start_matches('/')));
}

#[test]
fn a_pattern_does_not_run_on_into_the_next() {
    let globs = Globs::paths(&["/a*a*b", "c*d*e"]);
    assert!(globs.matches("/aab") && globs.matches("cde") && !globs.matches("/aabcde"));
}

/// The bound that callers rely on.
#[test]
fn a_byte_of_a_text_takes_as_many_steps_as_there_are_words() {
    let text = format!("/v1/{}", "a".repeat(4_090));
    let units = ["/**a*a", "/v1/**a*", "*a", "**a*"].map(|unit| unit.repeat(500) + "b");
    let all: Vec<&str> = units.iter().map(String::as_str).collect();
    for patterns in all.chunks(1).chain([&*all]) {
        let globs = Globs::paths(patterns);
        let literals = patterns.concat().replace('*', "").len() + patterns.len();
        assert_eq!(globs.words(), literals.div_ceil(64));
        work::take();
        assert!(!globs.matches(&text));
        assert!((1..=globs.words() * text.len()).contains(&work::take()));
    }
}

#[test]
fn what_its_ends_decide_takes_no_steps_but_for_slashes() {
    let text = format!("/v1/{}", "a".repeat(4_090));
    for (pattern, words) in [("/v1/**", 0), ("**/b", 0), ("/v1/a", 0), ("/v1/*", 1), ("*", 1)] {
        let globs = Globs::paths(&[pattern; 50]);
        assert_eq!(globs.words(), words, "{pattern}");
        work::take();
        globs.matches(&text);
        assert!(work::take() <= words * text.len(), "{pattern}");
    }
    assert_eq!(Globs::names(&["gpt-*", "*"]).words(), 0);
}

#[cfg(not(target_arch = "wasm32"))]
proptest::proptest! {
    #[test]
    fn agrees_with_the_definition(
        patterns in proptest::collection::vec("[ab/*]{0,9}", 1..4),
        text in "[ab/]{0,9}",
        pad in 0..2_usize,
    ) {
        // A common beginning moves the rest to the next word.
        let pad = "x".repeat(pad * 62);
        let patterns: Vec<String> = patterns.iter().map(|p| pad.clone() + p).collect();
        let text = pad + &text;
        let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
        proptest::prop_assert_eq!(
            Globs::paths(&patterns).matches(&text),
            patterns.iter().any(|p| reference(p.as_bytes(), text.as_bytes()))
        );
    }
}
