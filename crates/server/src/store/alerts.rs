//! The alerts of the store.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{StoreError, counters, integer, unsigned};

/// The most alerts that are kept. The counters have all of them.
const MAX_ALERTS: i64 = 1000;

/// The most causes of one kind within the time in which a cause is not reported again. Those after them share one.
const MAX_CAUSES: i64 = 100;

/// How long an alert may wait for its delivery, in seconds.
pub const DELIVERED_FOR_SECS: u64 = 86_400;

/// Stands for the causes after the first 100 of their kind.
const OTHERS: &str = "others";

/// What kinds of alerts there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AlertKind {
    /// Many requests were refused for credentials that are not valid.
    Authentication,
    /// Many requests were refused for other reasons.
    Refusals,
    /// Many responses are errors.
    Errors,
    /// The use of a key is unusual.
    Anomaly,
    /// Requests were refused because the connection to an upstream violates the policy.
    UpstreamTls,
    /// Something in the trail does not verify.
    Chain,
    /// Records of a chain are missing.
    Missing,
}

/// An alert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alert {
    /// Its number. Later alerts have higher ones.
    pub id: i64,
    /// The word of its [`AlertKind`].
    pub kind: String,
    /// What it is about: the kind, and what tells it from others of its kind, separated by `:`.
    pub cause: String,
    /// The tenant of the key that it is about.
    pub tenant: Option<String>,
    /// The id of the key that it is about.
    pub key: Option<String>,
    /// When it was raised, Unix seconds.
    pub first_at_secs: u64,
    /// When its cause occurred last, Unix seconds.
    pub last_at_secs: u64,
    /// How often its cause occurred: requests, findings or missing records.
    pub count: u64,
    /// What happened, in a sentence without a full stop.
    pub text: String,
    /// When the receiver of alerts took it, Unix seconds; `None` if it has not.
    pub delivered_at_secs: Option<u64>,
}

/// Something that raises an alert, or adds to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Occurrence {
    pub(super) kind: AlertKind,
    /// What tells it from others of its kind; empty if nothing does.
    pub(super) detail: String,
    /// The tenant and the id of the key that it is about.
    pub(super) key: Option<(String, String)>,
    pub(super) count: u64,
    pub(super) text: String,
}

// === impl AlertKind ===

impl AlertKind {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Authentication,
        Self::Refusals,
        Self::Errors,
        Self::Anomaly,
        Self::UpstreamTls,
        Self::Chain,
        Self::Missing,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Authentication => "authentication",
            Self::Refusals => "refusals",
            Self::Errors => "errors",
            Self::Anomaly => "anomaly",
            Self::UpstreamTls => "upstream_tls",
            Self::Chain => "chain",
            Self::Missing => "missing",
        }
    }

    /// The counter of the alerts of this kind.
    pub(crate) fn counter(self) -> String {
        format!("alerts.{}", self.word())
    }
}

// === impl Occurrence ===

impl Occurrence {
    /// The cause: two occurrences with the same one share an alert.
    pub(super) fn cause(&self) -> String {
        let mut cause = self.kind.word().to_owned();
        let key = self.key.iter().flat_map(|(tenant, key)| [tenant, key]);
        for part in [&self.detail].into_iter().filter(|detail| !detail.is_empty()).chain(key) {
            cause.push(':');
            cause.push_str(part);
        }
        cause
    }
}

/// Adds to the alert of a cause that was raised within the last `repeat_secs`, or raises one. Returns whether it raised
/// one.
pub(super) fn raise(
    db: &Connection,
    occurrence: &Occurrence,
    now_secs: u64,
    repeat_secs: u64,
) -> Result<bool, StoreError> {
    let since = integer(now_secs.saturating_sub(repeat_secs));
    let cause = occurrence.cause();
    if add(db, &cause, occurrence.count, now_secs, since)? {
        return Ok(false);
    }
    let causes: i64 = db
        .prepare_cached("SELECT count(*) FROM alerts WHERE kind = ?1 AND first_at > ?2")?
        .query_row(params![occurrence.kind.word(), since], |row| row.get(0))?;
    if causes < MAX_CAUSES {
        insert(db, occurrence, &cause, now_secs)?;
        return Ok(true);
    }
    let others = Occurrence {
        detail: OTHERS.to_owned(),
        key: None,
        text: format!("more than {MAX_CAUSES} alerts of the kind {}", occurrence.kind.word()),
        ..occurrence.clone()
    };
    let cause = others.cause();
    let is_new = !add(db, &cause, others.count, now_secs, since)?;
    if is_new {
        insert(db, &others, &cause, now_secs)?;
    }
    Ok(is_new)
}

/// Whether an alert of a kind that has one cause was raised within the last `repeat_secs`.
pub(super) fn is_raised(
    db: &Connection,
    kind: AlertKind,
    now_secs: u64,
    repeat_secs: u64,
) -> Result<bool, StoreError> {
    let since = integer(now_secs.saturating_sub(repeat_secs));
    let mut found = db.prepare_cached("SELECT 1 FROM alerts WHERE cause = ?1 AND first_at > ?2")?;
    Ok(found.exists(params![kind.word(), since])?)
}

/// Adds to the latest alert of a cause, if it is not too old. Returns whether it did.
fn add(
    db: &Connection,
    cause: &str,
    count: u64,
    now_secs: u64,
    since: i64,
) -> Result<bool, StoreError> {
    let changed = db
        .prepare_cached(
            "UPDATE alerts SET count = count + ?2, last_at = max(last_at, ?3)
             WHERE id = (SELECT max(id) FROM alerts WHERE cause = ?1 AND first_at > ?4)",
        )?
        .execute(params![cause, integer(count), integer(now_secs), since])?;
    Ok(changed > 0)
}

fn insert(
    db: &Connection,
    occurrence: &Occurrence,
    cause: &str,
    now_secs: u64,
) -> Result<(), StoreError> {
    let Occurrence { kind, key, count, text, .. } = occurrence;
    let (tenant, key) = key.as_ref().map(|(tenant, key)| (tenant, key)).unzip();
    db.prepare_cached(
        "INSERT INTO alerts (kind, cause, tenant, key, first_at, last_at, count, text)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, ?7)",
    )?
    .execute(params![
        kind.word(),
        cause,
        tenant,
        key,
        integer(now_secs),
        integer(*count),
        text
    ])?;
    let last = db.last_insert_rowid();
    db.prepare_cached("DELETE FROM alerts WHERE id <= ?1")?.execute([last - MAX_ALERTS])?;
    counters::add(db, &kind.counter(), 1)
}

/// Writes that the receiver of alerts has taken one.
pub(super) fn deliver(db: &Connection, id: i64, now_secs: u64) -> Result<(), StoreError> {
    let changed = db
        .prepare_cached(
            "UPDATE alerts SET delivered_at = ?2 WHERE id = ?1 AND delivered_at IS NULL",
        )?
        .execute(params![id, integer(now_secs)])?;
    counters::add(db, "alerts_delivered", u64::from(changed > 0))
}

/// The alerts, the latest first.
pub(super) fn latest(db: &Connection, limit: u64) -> Result<Vec<Alert>, StoreError> {
    let mut rows = db.prepare_cached("SELECT * FROM alerts ORDER BY id DESC LIMIT ?1")?;
    let rows = rows.query_map([integer(limit)], Alert::read)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The first alert after another one that the receiver has yet to take.
pub(super) fn undelivered(
    db: &Connection,
    after: i64,
    now_secs: u64,
) -> Result<Option<Alert>, StoreError> {
    let since = integer(now_secs.saturating_sub(DELIVERED_FOR_SECS));
    let mut rows = db.prepare_cached(
        "SELECT * FROM alerts WHERE delivered_at IS NULL AND id > ?1 AND first_at >= ?2 ORDER BY id LIMIT 1",
    )?;
    Ok(rows.query_row(params![after, since], Alert::read).optional()?)
}

/// The number of alerts that the receiver has yet to take.
pub(super) fn count_undelivered(db: &Connection, now_secs: u64) -> Result<u64, StoreError> {
    let since = integer(now_secs.saturating_sub(DELIVERED_FOR_SECS));
    let mut count = db.prepare_cached(
        "SELECT count(*) FROM alerts WHERE delivered_at IS NULL AND first_at >= ?1",
    )?;
    Ok(unsigned(count.query_row([since], |row| row.get(0))?))
}

// === impl Alert ===

impl Alert {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let number = |name| row.get(name).map(unsigned);
        Ok(Self {
            id: row.get("id")?,
            kind: row.get("kind")?,
            cause: row.get("cause")?,
            tenant: row.get("tenant")?,
            key: row.get("key")?,
            first_at_secs: number("first_at")?,
            last_at_secs: number("last_at")?,
            count: number("count")?,
            text: row.get("text")?,
            delivered_at_secs: row.get::<_, Option<i64>>("delivered_at")?.map(unsigned),
        })
    }
}

#[cfg(test)]
mod tests;
