//! Numbers, times and texts as people read them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use maud::{Markup, html};

/// Separates groups of digits, and a number from its unit: a narrow space at which no line ends.
const SPACE: char = '\u{202f}';

/// From here on, numbers are rounded.
const FIRST_ROUNDED: u64 = 1_000_000;

/// The units of rounded numbers, the largest first.
const UNITS: [(u64, &str); 4] = [
    (1_000_000_000_000_000_000, "quintillion"),
    (1_000_000_000_000, "T"),
    (1_000_000_000, "B"),
    (1_000_000, "M"),
];

/// The longest text of a cell, in characters.
const MAX_CELL_CHARS: usize = 120;

/// The longest text that is a link, in bytes. What gates write is shorter.
const MAX_LINKED_BYTES: usize = 512;

const MICROS_PER_CENT: u64 = 10_000;
const MICROS_PER_DOLLAR: u64 = 1_000_000;
const SECS_PER_HOUR: u64 = 3600;
const SECS_PER_DAY: u64 = 86_400;

/// A number with its digits in groups: `12 345`.
pub(super) fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3 * SPACE.len_utf8());
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(SPACE);
        }
        text.push(digit);
    }
    text
}

/// A number that is rounded if it is long: `12 345`, `1.2 M`.
pub(super) fn rounded(value: u64) -> String {
    if value < FIRST_ROUNDED {
        return number(value);
    }
    let unit = UNITS.iter().find(|(unit, _)| value >= *unit);
    let Some((unit, name)) = unit else { return number(value) };
    let tenths = value / (unit / 10);
    let text = match tenths {
        1000.. => number(tenths / 10),
        _ => format!("{}.{}", tenths / 10, tenths % 10),
    };
    format!("{text}{SPACE}{name}")
}

/// An amount of money: `$1.23`. Less than a dollar has more digits, so that it is never shown as nothing.
pub(super) fn dollars(micro_usd: u64) -> String {
    match micro_usd {
        0 => "$0".to_owned(),
        1..100 => format!("$0.{micro_usd:06}"),
        100..MICROS_PER_DOLLAR => format!("$0.{:04}", micro_usd / 100),
        _ => {
            let cents = (micro_usd.saturating_add(MICROS_PER_CENT / 2)) / MICROS_PER_CENT;
            match cents / 100 {
                whole @ FIRST_ROUNDED.. => format!("${}", rounded(whole)),
                whole => format!("${}.{:02}", number(whole), cents % 100),
            }
        }
    }
}

/// A part of a whole: `1.2 %`.
pub(super) fn percent(part: u64, whole: u64) -> String {
    match permille(part, whole) {
        0 if part > 0 => format!("<{SPACE}0.1{SPACE}%"),
        0 => format!("0{SPACE}%"),
        1000.. => format!("100{SPACE}%"),
        permille => format!("{}.{}{SPACE}%", permille / 10, permille % 10),
    }
}

/// How many thousandths of a whole a part is, at most 1000.
pub(super) fn permille(part: u64, whole: u64) -> u64 {
    let permille = (u128::from(part) * 1000).checked_div(u128::from(whole)).unwrap_or(0);
    u64::try_from(permille).unwrap_or(1000).min(1000)
}

/// A number of things: `1 key`, `2 keys`.
pub(super) fn counted(count: u64, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {what}{plural}", number(count))
}

/// A time in UTC to the millisecond; Unix microseconds.
pub(super) fn time(micros: u64) -> Markup {
    let text = humantime::format_rfc3339_micros(at(Duration::from_micros(micros))).to_string();
    let shown = text.get(..23).unwrap_or_default().replace('T', " ");
    html! { time datetime=(text) { (shown) } }
}

/// A time in UTC to the second; Unix seconds.
pub(super) fn time_of_secs(secs: u64) -> Markup {
    let text = rfc3339(Duration::from_secs(secs));
    let shown = text.get(..19).unwrap_or_default().replace('T', " ");
    html! { time datetime=(text) { (shown) } }
}

/// A day: `2026-01-31`; days since 1970-01-01.
pub(super) fn day(days: u64) -> String {
    let text = rfc3339(Duration::from_secs(days.saturating_mul(SECS_PER_DAY)));
    text.get(..10).unwrap_or_default().to_owned()
}

/// An hour: `2026-01-31 07:00`; hours since 1970-01-01T00:00Z.
pub(super) fn hour(hours: u64) -> String {
    let text = rfc3339(Duration::from_secs(hours.saturating_mul(SECS_PER_HOUR)));
    text.get(..16).unwrap_or_default().replace('T', " ")
}

fn rfc3339(since: Duration) -> String {
    humantime::format_rfc3339_seconds(at(since)).to_string()
}

/// RFC 3339 has no year after 9999.
fn at(since: Duration) -> SystemTime {
    const LAST: Duration = Duration::from_secs(253_402_300_799);
    UNIX_EPOCH + since.min(LAST)
}

/// A text that others chose, in one cell.
pub(super) fn text(text: &str) -> Markup {
    html! { bdi { (cut(text, MAX_CELL_CHARS)) } }
}

/// A text of which no character is invisible or changes how its neighbours are shown. A long one is cut.
pub(super) fn cut(text: &str, max_chars: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(max_chars * 4));
    for (index, char) in text.chars().enumerate() {
        if index == max_chars {
            shown.push('…');
            break;
        }
        match is_shown(char) {
            true => shown.push(char),
            false => shown.extend(char.escape_unicode()),
        }
    }
    shown
}

/// Whether a character has a glyph of its own, and leaves its neighbours as they are.
fn is_shown(char: char) -> bool {
    let is_invisible = matches!(
        char,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
        | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    );
    !char.is_control() && !is_invisible
}

/// A path and the parameters behind it, those without a value left out.
pub(super) fn link(path: &str, parameters: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    let said = parameters.iter().filter(|(_, value)| !value.is_empty());
    query.extend_pairs(said);
    match query.finish() {
        query if query.is_empty() => path.to_owned(),
        query => format!("{path}?{query}"),
    }
}

/// Whether a text is short enough for a link.
pub(super) fn is_linked(value: &str) -> bool {
    value.len() <= MAX_LINKED_BYTES
}

/// A text that others chose, as a link to the records with it. A very long one is no link, because pages are bounded.
pub(super) fn linked(link_of: impl FnOnce(&str) -> String, value: &str) -> Markup {
    html! {
        @if is_linked(value) { a href=(link_of(value)) { (text(value)) } } @else { (text(value)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With ordinary spaces.
    fn plain(text: &str) -> String {
        text.replace(SPACE, " ")
    }

    #[test]
    fn numbers_have_groups_and_long_ones_are_rounded() {
        for (value, whole, short) in [
            (0, "0", "0"),
            (999, "999", "999"),
            (1000, "1 000", "1 000"),
            (12_345, "12 345", "12 345"),
            (999_999, "999 999", "999 999"),
            (1_250_000, "1 250 000", "1.2 M"),
            (123_456_789, "123 456 789", "123 M"),
            (7_000_000_000, "7 000 000 000", "7.0 B"),
            (u64::MAX, "18 446 744 073 709 551 615", "18.4 quintillion"),
        ] {
            assert_eq!(
                (plain(&number(value)).as_str(), plain(&rounded(value)).as_str()),
                (whole, short)
            );
        }
    }

    #[test]
    fn money_is_never_shown_as_nothing_unless_it_is() {
        for (micro_usd, text) in [
            (0, "$0"),
            (7, "$0.000007"),
            (5_575, "$0.0055"),
            (10_000, "$0.0100"),
            (999_999, "$0.9999"),
            (1_234_567, "$1.23"),
            (1_235_000, "$1.24"),
            (12_345_670_000, "$12 345.67"),
            (u64::MAX, "$18.4 T"),
        ] {
            assert_eq!(plain(&dollars(micro_usd)), text);
        }
    }

    #[test]
    fn parts_of_nothing_and_of_much_are_percentages() {
        for (part, whole, text) in [
            (0, 0, "0 %"),
            (5, 0, "< 0.1 %"),
            (1, 3, "33.3 %"),
            (1, 1_000_000, "< 0.1 %"),
            (u64::MAX, u64::MAX, "100 %"),
            (u64::MAX, 1, "100 %"),
        ] {
            assert_eq!(plain(&percent(part, whole)), text, "{part} of {whole}");
        }
    }

    #[test]
    fn times_say_what_they_are_to_programs_too() {
        assert_eq!(
            time(1_796_000_000_123_456).into_string(),
            r#"<time datetime="2026-11-30T00:53:20.123456Z">2026-11-30 00:53:20.123</time>"#
        );
        assert_eq!(time(u64::MAX).into_string().matches("9999-12-31").count(), 2);
        assert_eq!(
            (day(20_787), hour(498_888)),
            ("2026-11-30".to_owned(), "2026-11-30 00:00".to_owned())
        );
        assert_eq!((day(u64::MAX).len(), hour(u64::MAX).len()), (10, 16));
    }

    #[test]
    fn no_character_of_a_text_hides_or_turns_others() {
        assert_eq!(cut("a\u{202e}b\u{0}\u{1b}[31m\n", 99), r"a\u{202e}b\u{0}\u{1b}[31m\u{a}");
        assert_eq!(cut("\u{200b}\u{e0041}שלום", 99), r"\u{200b}\u{e0041}שלום");
        assert_eq!(cut(&"é".repeat(200), 3), "ééé…");
        assert_eq!(cut("ééé", 3), "ééé");
        assert_eq!(text("<b>&\"").into_string(), "<bdi>&lt;b&gt;&amp;&quot;</bdi>");
        let huge = "\u{202e}".repeat(1 << 20);
        assert!(text(&huge).into_string().len() < 2000);
    }

    #[test]
    fn links_encode_what_others_chose() {
        assert_eq!(link("/logs", &[]), "/logs");
        let link = link("/logs", &[("key", "a&b=\"<é"), ("user", "")]);
        assert_eq!(link, "/logs?key=a%26b%3D%22%3C%C3%A9");
    }
}
