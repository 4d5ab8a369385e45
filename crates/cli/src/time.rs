//! Parsing and formatting of times, and the command's clock.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(super) use vkey::time::rfc3339;

use super::error::Failure;
use super::exit::Exit;

/// The last second of the year 9999, the latest that RFC 3339 can express.
pub(super) const LAST: u64 = vkey::time::LAST_SECS;

/// The machine's clock, or a stopped one.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    held_ns: Option<u64>,
}

/// Measures elapsed time.
#[derive(Clone, Copy)]
pub(super) struct Stopwatch(Instant);

/// The machine's clock is set before 1970.
#[derive(Debug)]
pub(super) struct ClockError;

impl Clock {
    /// A clock that is stopped at `held_ns`, Unix nanoseconds, if given.
    pub(super) fn new(held_ns: Option<u64>) -> Self {
        Self { held_ns }
    }

    /// The time, Unix nanoseconds.
    #[expect(clippy::disallowed_methods, reason = "the edge where the command reads the clock")]
    pub(super) fn now_ns(self) -> Result<u64, ClockError> {
        if let Some(held_ns) = self.held_ns {
            return Ok(held_ns);
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        since.and_then(|since| u64::try_from(since.as_nanos()).ok()).ok_or(ClockError)
    }
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the edge where the command reads the clock")]
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    /// The time since the start.
    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}

/// The given time, or the current one. Unix seconds.
pub(super) fn now(given: Option<u64>) -> Result<u64, ClockError> {
    match given {
        Some(now) => Ok(now),
        None => Ok(Clock::new(None).now_ns()? / 1_000_000_000),
    }
}

/// Parses a time: RFC 3339, or Unix seconds. Fractions of a second are dropped.
pub(super) fn parse(text: &str) -> Result<u64, &'static str> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text
            .parse()
            .ok()
            .filter(|secs| *secs <= LAST)
            .ok_or("expected a time before the year 10000");
    }
    let time = parse_rfc3339(text).filter(|secs| *secs <= LAST);
    time.ok_or(
        "expected a time, e.g. 2026-12-31T23:59:59Z, 2027-01-01T01:59:59+02:00 or 1798761599",
    )
}

/// RFC 3339, section 5.6: a numeric offset may replace `Z`, and `t` and `z` may be lower-case.
fn parse_rfc3339(text: &str) -> Option<u64> {
    const OFFSET_BYTES: usize = "+00:00".len();
    let text = text.to_ascii_uppercase();
    let (local, offset) = match text.strip_suffix('Z') {
        Some(local) => (local, "+00:00"),
        None => text.split_at_checked(text.len().checked_sub(OFFSET_BYTES)?)?,
    };
    // A fraction needs digits.
    if !local.ends_with(|last: char| last.is_ascii_digit()) {
        return None;
    }
    // Parsed as if it were UTC.
    let local = secs(humantime::parse_rfc3339(&format!("{local}Z")).ok()?)?;
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let offset_secs = two_digits(hours, 23)? * 3600 + two_digits(minutes, 59)? * 60;
    match offset.as_bytes().first() {
        Some(b'+') => local.checked_sub(offset_secs),
        Some(b'-') => local.checked_add(offset_secs),
        _ => None,
    }
}

fn two_digits(text: &str, most: u64) -> Option<u64> {
    let digits = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number <= most)
}

/// Parses a time into nanoseconds, like hosts report it. The latest is in 2554.
pub(super) fn parse_ns(text: &str) -> Result<u64, &'static str> {
    let now_ns = parse(text)?.checked_mul(1_000_000_000);
    now_ns.ok_or("expected a time up to 2554-07-21T23:34:33Z")
}

/// Parses a duration of whole seconds, at least one.
pub(super) fn parse_duration(text: &str) -> Result<u64, &'static str> {
    let duration = vkey::time::parse_duration(text).filter(|secs| *secs > 0);
    duration.ok_or("expected a duration in whole seconds, e.g. 90s, 15m, 1h or 30d")
}

/// Parses a timeout: a duration of whole seconds, or only milliseconds (`500ms`).
pub(super) fn parse_wait(text: &str) -> Option<Duration> {
    match text.strip_suffix("ms") {
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            digits.parse().ok().map(Duration::from_millis)
        }
        Some(_) => None,
        None => vkey::time::parse_duration(text).map(Duration::from_secs),
    }
}

/// A duration in the configuration's format. The largest unit is days, because months differ in length.
pub(super) fn format_duration(secs: u64) -> String {
    let (minutes, hours, days) = (secs / 60, secs / 3600, secs / 86_400);
    let parts = [(days, 'd'), (hours % 24, 'h'), (minutes % 60, 'm'), (secs % 60, 's')];
    let parts = parts.into_iter().filter(|(number, _)| *number > 0);
    let parts = Vec::from_iter(parts.map(|(number, unit)| format!("{number}{unit}")));
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

fn secs(time: SystemTime) -> Option<u64> {
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs())
}

impl Failure for ClockError {
    fn exit(&self) -> Exit {
        Exit::Environment
    }
}

impl fmt::Display for ClockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the system clock is set before 1970; set it, or use --now")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_parsed_in_both_formats() {
        assert_eq!(parse("1798761599"), Ok(1_798_761_599));
        assert_eq!(parse("2026-12-31T23:59:59Z"), Ok(1_798_761_599));
        for wrong in ["", "now", "-1", "2026-12-31", "253402300800", "99999999999999999999"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_may_have_offsets_and_lower_case_letters() {
        for text in [
            "2026-12-31T23:59:59Z",
            "2026-12-31t23:59:59z",
            "2026-12-31T23:59:59.999Z",
            "2026-12-31T23:59:59+00:00",
            "2026-12-31T23:59:59-00:00",
            "2027-01-01T01:59:59+02:00",
            "2027-01-01t05:44:59.5+05:45",
            "2026-12-31T00:00:59-23:59",
        ] {
            assert_eq!(parse(text), Ok(1_798_761_599), "{text}");
        }
        assert_eq!(parse("1969-12-31T23:00:00-01:00"), Err(parse("now").unwrap_err()));
        assert_eq!(parse("9999-12-31T23:59:59+00:00"), Ok(LAST));
        for wrong in [
            "1970-01-01T00:59:59+01:00",
            "9999-12-31T23:59:59-00:01",
            "2026-12-31T23:59:59",
            "2026-12-31T23:59:59.Z",
            "2026-12-31T23:59:59ZZ",
            "2026-12-31T23:59:59+02",
            "2026-12-31T23:59:59+0200",
            "2026-12-31T23:59:59+24:00",
            "2026-12-31T23:59:59+02:60",
            "2026-12-31T23:59:59 02:00",
            "2026-12-31T23:59:59++2:00",
            "2026-12-31T23:59:59Z+02:00",
            "2026-12-31T23:59:59+02:00Z",
            "2026-12-31+02:00",
            "+02:00",
            "é02:00",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn waits_may_be_in_milliseconds() {
        assert_eq!(parse_wait("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_wait("1m 30s"), Some(Duration::from_secs(90)));
        for wrong in
            ["", "ms", "1", "1M", "500MS", "1s 500ms", "+5ms", "1 ms", "99999999999999999999ms"]
        {
            assert_eq!(parse_wait(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_after_the_year_9999_are_numbers() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(LAST), "9999-12-31T23:59:59Z");
        assert_eq!(rfc3339(LAST + 1), "253402300800");
        assert_eq!(rfc3339(u64::MAX), u64::MAX.to_string());
    }

    #[test]
    fn durations_are_whole_seconds() {
        assert_eq!(parse_duration("1h"), Ok(3600));
        assert_eq!(parse_duration("1h 30m"), Ok(5400));
        for wrong in ["", "0s", "1500ms", "1", "-1s", "1 fortnight", "15M", "1H", "1w", "2 hours"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_have_days_as_their_largest_unit() {
        let spelled = [
            (0, "0s"),
            (59, "59s"),
            (3600, "1h"),
            (5400, "1h 30m"),
            (724_324, "8d 9h 12m 4s"),
            (31 * 86_400, "31d"),
            (366 * 86_400, "366d"),
            (u64::MAX, "213503982334601d 7h 15s"),
        ];
        for (secs, text) in spelled {
            assert_eq!(format_duration(secs), text);
        }
    }
}
