//! The parameters of a request. One that is unknown, repeated or invalid is an error that names it.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use vkey::key::claims::is_id;
use vkey::ledger::AccountName;

use crate::store::{By, Cursor, Filter, Status, UsageFilter};

/// The most records of one answer.
const MAX_RECORDS: u64 = 1000;

/// The records of an answer, if the request does not say.
const DEFAULT_RECORDS: u64 = 100;

/// The most rows of totals of one answer.
const MAX_ROWS: u64 = 10_000;

/// The longest value, in bytes. No member of a record is longer.
pub(super) const MAX_VALUE_BYTES: usize = 4096;

/// The longest name that an error repeats, in bytes.
const MAX_NAME_BYTES: usize = 64;

const SECS_PER_DAY: u64 = 86_400;

/// The parameters of a request.
pub(super) struct Parameters {
    pairs: Vec<(String, String)>,
}

/// Accounts of the ledger.
pub(super) enum Accounts {
    /// One, in the present window unless another is named.
    One(AccountName, Option<u32>),
    /// Those of a tenant, or of one of its keys.
    OfTenant(String, Option<String>),
}

/// Why parameters are refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum BadParameter {
    /// There is none of that name.
    Unknown(String),
    /// It stands twice.
    Repeated(String),
    /// It has no such value.
    Invalid(&'static str, &'static str),
}

/// What the answer is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Csv,
}

// === impl Parameters ===

impl Parameters {
    /// Reads a query, in which only these names may stand. An empty value is that of an empty field of a form: it says
    /// nothing.
    pub(super) fn parse(query: Option<&str>, known: &[&str]) -> Result<Self, BadParameter> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                return Err(BadParameter::Unknown(shown(&name)));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(BadParameter::Repeated(shown(&name)));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self { pairs })
    }

    /// The value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.pairs.iter().find(|(other, _)| other == name)?;
        Some(value.as_str()).filter(|value| !value.is_empty())
    }

    fn text(&self, name: &'static str) -> Result<Option<String>, BadParameter> {
        match self.get(name) {
            Some(value) if value.len() > MAX_VALUE_BYTES => {
                Err(BadParameter::Invalid(name, "at most 4096 bytes"))
            }
            value => Ok(value.map(str::to_owned)),
        }
    }

    fn read<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, BadParameter> {
        let value = self.get(name).map(|value| read(value).ok_or(()));
        value.transpose().map_err(|()| BadParameter::Invalid(name, expected))
    }

    fn number(
        &self,
        name: &'static str,
        expected: &'static str,
        most: u64,
    ) -> Result<Option<u64>, BadParameter> {
        self.read(name, expected, |text| {
            text.parse().ok().filter(|number| (1..=most).contains(number))
        })
    }

    /// What the answer is written in: as the parameter says, or the header `accept`.
    pub(super) fn format(&self, accept: Option<&str>) -> Result<Format, BadParameter> {
        let format = self.read("format", "json or csv", |text| match text {
            "json" => Some(Format::Json),
            "csv" => Some(Format::Csv),
            _ => None,
        })?;
        let accepts_csv = accept.is_some_and(|accept| accept.trim().starts_with("text/csv"));
        Ok(format.unwrap_or(if accepts_csv { Format::Csv } else { Format::Json }))
    }

    /// Which records are asked for.
    pub(super) fn filter(&self) -> Result<Filter, BadParameter> {
        let time = "a time, e.g. 2026-01-31, 2026-01-31T12:00:00Z or 1790000000";
        Ok(Filter {
            status: self.read("status", "success or failed", |text| match text {
                "success" => Some(Status::Success),
                "failed" => Some(Status::Failed),
                _ => None,
            })?,
            code: self.number("code", "an HTTP status, 1 to 999", 999)?,
            tenant: self.text("tenant")?,
            key: self.text("key")?,
            user: self.text("user")?,
            reason: self.text("reason")?,
            model: self.text("model")?,
            tool: self.text("tool")?,
            method: self.text("method")?,
            path: self.text("path")?,
            request_id: self.text("request_id")?,
            anomalies: self.read("anomaly", "any", |text| (text == "any").then_some(()))?.is_some(),
            from_micros: self.read("from", time, micros)?,
            to_micros: self.read("to", time, micros)?,
            limit: self
                .number("limit", "a number, 1 to 1000", MAX_RECORDS)?
                .unwrap_or(DEFAULT_RECORDS),
            cursor: self.read("cursor", "the member next of an answer", Cursor::parse)?,
        })
    }

    /// Which accounts of the ledger are asked for.
    pub(super) fn accounts(&self) -> Result<Accounts, BadParameter> {
        let expected = "key/TENANT/JTI/UNIT/PERIOD or tenant/TENANT/UNIT/PERIOD";
        let account = self.read("account", expected, AccountName::parse)?;
        let window = self.read("window", "the number of a window", |text| text.parse().ok())?;
        let id = |text: &str| is_id(text).then(|| text.to_owned());
        let expected = "1 to 64 of A-Z a-z 0-9 _ -";
        let (tenant, jti) = (self.read("tenant", expected, id)?, self.read("jti", expected, id)?);
        match (account, tenant) {
            (Some(account), None) if jti.is_none() => Ok(Accounts::One(account, window)),
            (None, Some(tenant)) if window.is_none() => Ok(Accounts::OfTenant(tenant, jti)),
            _ => Err(BadParameter::Invalid(
                "account",
                "given, alone or with window; otherwise tenant, alone or with jti",
            )),
        }
    }

    /// Which requests count, and what they are grouped by.
    pub(super) fn usage(&self) -> Result<(By, UsageFilter), BadParameter> {
        let expected = "key, tenant, model, tool, reason, verdict or day";
        let by = self.read("by", expected, |text| {
            By::ALL.iter().find(|(name, _)| *name == text).map(|(_, by)| *by)
        })?;
        let by = by.ok_or(BadParameter::Invalid("by", expected))?;
        let day = "a day, e.g. 2026-01-31";
        let filter = UsageFilter {
            tenant: self.text("tenant")?,
            key: self.text("key")?,
            model: self.text("model")?,
            tool: self.text("tool")?,
            reason: self.text("reason")?,
            from_day: self.read("from", day, micros)?.map(day_of),
            to_day: self.read("to", day, micros)?.map(day_of),
            limit: self.number("limit", "a number, 1 to 10000", MAX_ROWS)?.unwrap_or(MAX_ROWS),
        };
        Ok((by, filter))
    }
}

/// A time: a day or a time as RFC 3339 writes them, or Unix seconds. In Unix microseconds.
fn micros(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let secs: u64 = text.parse().ok()?;
        return secs.checked_mul(1_000_000).filter(|micros| i64::try_from(*micros).is_ok());
    }
    let day = text.len() == "2026-01-31".len();
    let text = if day { format!("{text}T00:00:00Z") } else { text.to_owned() };
    let time: SystemTime = humantime::parse_rfc3339(&text).ok()?;
    u64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()
}

fn day_of(micros: u64) -> u64 {
    micros / 1_000_000 / SECS_PER_DAY
}

/// A name as an error repeats it.
fn shown(name: &str) -> String {
    let name = name.get(..name.floor_char_boundary(MAX_NAME_BYTES)).unwrap_or_default();
    name.escape_default().to_string()
}

// === impl BadParameter ===

impl fmt::Display for BadParameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => write!(f, "there is no parameter `{name}` here"),
            Self::Repeated(name) => write!(f, "the parameter `{name}` is repeated"),
            Self::Invalid(name, expected) => {
                write!(f, "the parameter `{name}` must be {expected}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["status", "limit", "user", "from", "cursor"];

    fn filter(query: &str) -> Result<Filter, BadParameter> {
        Parameters::parse(Some(query), &KNOWN)?.filter()
    }

    #[test]
    fn parameters_that_cannot_be_meant_are_named() {
        for (query, expected) in [
            ("stat=failed", "there is no parameter `stat` here"),
            ("limit=1&limit=2", "the parameter `limit` is repeated"),
            ("limit=0", "the parameter `limit` must be a number, 1 to 1000"),
            ("limit=1001", "the parameter `limit` must be a number, 1 to 1000"),
            ("limit=-1", "the parameter `limit` must be a number, 1 to 1000"),
            ("status=failure", "the parameter `status` must be success or failed"),
            ("cursor=x", "the parameter `cursor` must be the member next of an answer"),
            ("%1b%5b31m=1", "there is no parameter `\\u{1b}[31m` here"),
        ] {
            let error = filter(query).map(|_| ()).unwrap_err();
            assert_eq!(error.to_string(), expected, "{query}");
        }
        let error = filter("from=yesterday").map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with("the parameter `from` must be a time"), "{error}");
    }

    #[test]
    fn an_empty_field_of_a_form_says_nothing() {
        let filter = filter("status=failed&limit=50&user=&from=").unwrap();
        assert_eq!((filter.status, filter.limit), (Some(Status::Failed), 50));
        assert_eq!((filter.user, filter.from_micros), (None, None));
    }

    #[test]
    fn times_are_days_times_or_seconds() {
        for (text, expected) in [
            ("1970-01-02", Some(86_400_000_000)),
            ("1970-01-01T00:00:01Z", Some(1_000_000)),
            ("2", Some(2_000_000)),
            ("99999999999999999999", None),
            ("9999999999999999", None),
            ("1969-01-01", None),
            ("2026-13-01", None),
            ("", None),
        ] {
            assert_eq!(
                Some(micros(text)).filter(|_| !text.is_empty()),
                Some(expected).filter(|_| !text.is_empty()),
                "{text}"
            );
        }
    }
}
