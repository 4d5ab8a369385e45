//! Conversion of times (Unix nanoseconds on the request path, Unix seconds in keys and windows) and parsing
//! of durations.

mod calendar;

pub(crate) use calendar::push_rfc3339;

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;

/// The last second of the year 9999, in Unix seconds: RFC 3339 cannot express a later time. A higher number
/// is usually in milliseconds by mistake.
pub const LAST_SECS: u64 = 253_402_300_799;

/// Microseconds in a second.
const MICROS_PER_SEC: u64 = 1_000_000;

/// Nanoseconds in a millisecond.
const NANOS_PER_MILLI: u64 = 1_000_000;

/// Unix nanoseconds to Unix seconds, rounded down.
pub fn secs(ns: u64) -> u64 {
    ns / NANOS_PER_SEC
}

/// Unix seconds to Unix nanoseconds, saturating.
pub fn nanos(secs: u64) -> u64 {
    secs.saturating_mul(NANOS_PER_SEC)
}

/// Seconds until a time, rounded up, so that waiting for that long is enough; 0 if it has passed.
pub fn secs_until(until_ns: u64, now_ns: u64) -> u64 {
    until_ns.saturating_sub(now_ns).div_ceil(NANOS_PER_SEC)
}

/// Milliseconds until a time, rounded up; 0 if it has passed.
pub fn millis_until(until_ns: u64, now_ns: u64) -> u64 {
    until_ns.saturating_sub(now_ns).div_ceil(NANOS_PER_MILLI)
}

/// A time in RFC 3339, or in Unix seconds after the year 9999.
pub fn rfc3339(unix_secs: u64) -> String {
    const WHOLE_SECS: usize = "2026-01-31T12:00:00".len();
    if unix_secs > LAST_SECS {
        return unix_secs.to_string();
    }
    let mut text = String::new();
    push_rfc3339(&mut text, unix_secs * MICROS_PER_SEC);
    text.truncate(WHOLE_SECS);
    text.push('Z');
    text
}

/// Parses a duration and returns seconds: one or more numbers, each with a unit `s`, `m`, `h` or `d`, and
/// optional spaces between them, e.g. `90s` or `1h 30m`. `None` for anything else, including capital units:
/// `M` could mean minutes or months.
pub fn parse_duration(text: &str) -> Option<u64> {
    let (mut secs, mut number, mut is_empty) = (0_u64, None, true);
    for byte in text.bytes() {
        let unit_secs = match byte {
            b'0'..=b'9' => {
                let tens = number.unwrap_or(0_u64).checked_mul(10)?;
                number = Some(tens.checked_add(u64::from(byte - b'0'))?);
                continue;
            }
            b' ' if number.is_none() => continue,
            b's' => 1,
            b'm' => 60,
            b'h' => 3600,
            b'd' => 86_400,
            _ => return None,
        };
        secs = secs.checked_add(number.take()?.checked_mul(unit_secs)?)?;
        is_empty = false;
    }
    (number.is_none() && !is_empty).then_some(secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_four_units() {
        let read = [
            ("0s", 0),
            ("90s", 90),
            ("15m", 900),
            ("168h", 604_800),
            ("30d", 2_592_000),
            ("1h30m", 5400),
            ("1h 30m", 5400),
            ("18446744073709551615s", u64::MAX),
        ];
        for (text, secs) in read {
            assert_eq!(parse_duration(text), Some(secs), "{text}");
        }
        for wrong in [
            "",
            " ",
            "s",
            "1",
            "0",
            "1 h",
            "1 0s",
            "1h 30",
            "-1s",
            "+1s",
            "1.5h",
            "15M",
            "1H",
            "1D",
            "90S",
            "1w",
            "1y",
            "500ms",
            "1min",
            "1hour",
            "2days",
            "1 fortnight",
            "1\u{a0}h",
            "1h\n",
            "18446744073709551616s",
            "213503982334602d",
            "18446744073709551615s 1s",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn seconds_to_wait_are_rounded_up() {
        assert_eq!(secs_until(NANOS_PER_SEC + 1, 0), 2);
        assert_eq!(secs_until(NANOS_PER_SEC, 0), 1);
        assert_eq!(secs_until(0, NANOS_PER_SEC), 0);
        assert_eq!(millis_until(NANOS_PER_SEC + 1, 0), 1_001);
    }
}
