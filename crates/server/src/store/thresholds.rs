//! When something is an alert.

use std::fmt;

use vkey::time::parse_duration;

/// The longest window, in seconds: a count is kept for each of them.
const MAX_WINDOW_SECS: u64 = 86_400;

/// The longest of the other durations, in seconds.
const MAX_SECS: u64 = 31 * 86_400;

/// When something is an alert. Counts are of requests that began within the last `window_secs`; 0 is no alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Requests that were refused for a credential that is not valid, or because its source is blocked.
    pub authentication: u64,
    /// Requests that were refused for another reason.
    pub refusals: u64,
    /// Requests that were not refused, and whose response is an error: status 400 and above.
    pub errors: u64,
    /// How long requests count, 1 s to a day.
    pub window_secs: u64,
    /// How long a cause is not reported again, 1 s to 31 days. What is older when it is collected is not reported.
    pub repeat_secs: u64,
    /// How long records of a chain may be missing, 1 s to 31 days: a slower source may have them.
    pub missing_secs: u64,
}

/// Why a text sets no threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidThreshold {
    /// It is not a known name, `=` and a value.
    Name,
    /// A count is not a number.
    Count,
    /// A duration is not a number with a unit, or not within its range.
    Duration,
}

// === impl Thresholds ===

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            authentication: 50,
            refusals: 500,
            errors: 500,
            window_secs: 300,
            repeat_secs: 3600,
            missing_secs: 120,
        }
    }
}

impl Thresholds {
    /// The names for [`Self::set`].
    pub const NAMES: [&'static str; 6] =
        ["authentication", "refusals", "errors", "window", "repeat", "missing"];

    /// Sets one of them, as `NAME=VALUE`, e.g. `authentication=50` or `window=5m`.
    ///
    /// # Errors
    ///
    /// [`InvalidThreshold`]; then nothing has changed.
    pub fn set(&mut self, text: &str) -> Result<(), InvalidThreshold> {
        let (name, value) = text.split_once('=').ok_or(InvalidThreshold::Name)?;
        let (member, max) = match name {
            "authentication" => (&mut self.authentication, None),
            "refusals" => (&mut self.refusals, None),
            "errors" => (&mut self.errors, None),
            "window" => (&mut self.window_secs, Some(MAX_WINDOW_SECS)),
            "repeat" => (&mut self.repeat_secs, Some(MAX_SECS)),
            "missing" => (&mut self.missing_secs, Some(MAX_SECS)),
            _ => return Err(InvalidThreshold::Name),
        };
        *member = match max {
            None => count(value).ok_or(InvalidThreshold::Count)?,
            Some(max) => parse_duration(value)
                .filter(|secs| (1..=max).contains(secs))
                .ok_or(InvalidThreshold::Duration)?,
        };
        Ok(())
    }
}

fn count(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

// === impl InvalidThreshold ===

impl fmt::Display for InvalidThreshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => write!(
                f,
                "expected a name, = and a value, e.g. authentication=50; names are {}",
                Thresholds::NAMES.join(", ")
            ),
            Self::Count => f.write_str("expected a number of requests, 0 for no alert"),
            Self::Duration => f.write_str(
                "expected a duration of at least 1s, e.g. 5m; window is at most 1d, repeat and missing 31d",
            ),
        }
    }
}

impl std::error::Error for InvalidThreshold {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_threshold_is_set_by_its_name() {
        let mut set = Thresholds::default();
        for text in ["authentication=1", "refusals=2", "errors=0"] {
            set.set(text).unwrap();
        }
        for text in ["window=1d", "repeat=31d", "missing=1m 30s"] {
            set.set(text).unwrap();
        }
        let expected = Thresholds {
            authentication: 1,
            refusals: 2,
            errors: 0,
            window_secs: 86_400,
            repeat_secs: 31 * 86_400,
            missing_secs: 90,
        };
        assert_eq!(set, expected);
        for name in Thresholds::NAMES {
            let invalid = set.set(&format!("{name}=x")).unwrap_err();
            assert_ne!(invalid, InvalidThreshold::Name, "{name}");
        }
    }

    #[test]
    fn what_sets_no_threshold_is_named_and_changes_nothing() {
        let mut set = Thresholds::default();
        for (text, invalid) in [
            ("", InvalidThreshold::Name),
            ("errors", InvalidThreshold::Name),
            ("Errors=1", InvalidThreshold::Name),
            ("errors=", InvalidThreshold::Count),
            ("errors=+1", InvalidThreshold::Count),
            ("errors=99999999999999999999", InvalidThreshold::Count),
            ("window=5", InvalidThreshold::Duration),
            ("window=0s", InvalidThreshold::Duration),
            ("window=25h", InvalidThreshold::Duration),
            ("repeat=32d", InvalidThreshold::Duration),
        ] {
            assert_eq!(set.set(text), Err(invalid), "{text}");
        }
        assert_eq!(set, Thresholds::default());
    }
}
