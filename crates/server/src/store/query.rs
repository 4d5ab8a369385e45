//! Questions to the store.

use std::path::Path;

use rusqlite::{Connection, OpenFlags, Row, params_from_iter};

use super::usage::{self, SUMS};
use super::{
    Alert, By, Cursor, Filter, Id, StoreError, Usage, UsageFilter, UsageRow, UsedKey, alerts,
    connect, counters, files, integer, schema, unsigned,
};

/// The most chains that are shown, the latest first.
const MAX_CHAINS: i64 = 1000;

/// The most gaps that are shown of one chain.
const MAX_GAPS: usize = 100;

/// The bytes of lines after which an answer ends before its limit: a line can be a thousand times as long as usual.
const MAX_ANSWER_BYTES: usize = 8 << 20;

/// How many instructions of SQLite run before it is asked whether a question may go on.
const STEPS: i32 = 10_000;

/// Reads a store. Any number of readers may, beside the writer.
pub struct Reader {
    pub(super) db: Connection,
}

/// Records, the latest first.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// The records.
    pub records: Vec<StoredRecord>,
    /// Where to go on; `None` if these are the last.
    pub next: Option<Cursor>,
}

/// A record of the store: see [`super::Record`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the members are those of Record")]
pub struct StoredRecord {
    pub ts_micros: u64,
    pub is_failed: bool,
    pub decision: String,
    pub reason: Option<String>,
    pub tenant: Option<String>,
    pub key: Option<String>,
    pub user: Option<String>,
    pub model: Option<String>,
    pub tool: Option<String>,
    pub method: Option<String>,
    pub path: Option<String>,
    pub code: Option<u64>,
    pub request_id: Option<String>,
    pub tokens: Option<u64>,
    pub cost: Option<u64>,
    pub verdict: Option<String>,
    pub anomaly: Option<String>,
    pub line: String,
}

/// A chain, as far as its records were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainState {
    /// The id.
    pub name: String,
    /// The node id of the proxy.
    pub host: Option<String>,
    /// When its first and its last record were written, Unix microseconds.
    pub times: Option<(u64, u64)>,
    /// The number of records from the first one without a gap.
    pub verified: u64,
    /// The number of records that the chain is known to have.
    pub records: u64,
    /// The records that are missing, in order; at most 100 gaps.
    pub gaps: Vec<Gap>,
    /// The number of records that are missing.
    pub missing: u64,
    /// The number of records that its last anchor counts.
    pub anchored: Option<u64>,
    /// Whether an anchor ended it.
    pub is_closed: bool,
}

/// Missing records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The number of the first.
    pub first: u64,
    /// The number of the last.
    pub last: u64,
}

/// Something that does not verify.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingRow {
    /// When it was found, Unix seconds.
    pub at_secs: u64,
    /// The kind, as [`crate::Finding::word`] has it.
    pub kind: String,
    /// The chain.
    pub chain: Option<String>,
    /// The number of the record.
    pub seq: Option<u64>,
    /// What it is.
    pub text: String,
}

/// What an hour comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// The hour, in hours since 1970-01-01T00:00Z.
    pub hour: u64,
    /// Requests.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Tokens that were charged.
    pub tokens: u64,
    /// What they cost, micro-USD.
    pub cost: u64,
}

// === impl Reader ===

impl Reader {
    /// Opens a store that is there.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let reader = Self::open_earlier(path)?;
        schema::check(&reader.db)?;
        Ok(reader)
    }

    /// Opens a store that is there, also one of an earlier version.
    pub(super) fn open_earlier(path: &Path) -> Result<Self, StoreError> {
        files::check_readable(path).map_err(|error| StoreError::File(path.to_owned(), error))?;
        // Readable and writable, because a reader of a WAL writes into its shared memory.
        let db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.pragma_update(None, "query_only", true)?;
        schema::recognize(&db)?;
        Ok(Self { db })
    }

    /// Ends questions with [`StoreError::Interrupted`] when this says so. It is asked often.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn interrupt_when(
        &mut self,
        is_over: impl FnMut() -> bool + Send + 'static,
    ) -> Result<(), StoreError> {
        Ok(self.db.progress_handler(STEPS, Some(is_over))?)
    }

    /// The records that a filter lets through, the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn records(&self, filter: &Filter) -> Result<Found, StoreError> {
        let (sql, values) = filter.statement(&self.db)?;
        let mut rows = self.db.prepare_cached(&sql)?;
        let rows = rows.query_map(params_from_iter(values), |row| {
            Ok((Cursor(Id::read(row)?), StoredRecord::read(row)?))
        })?;
        let (mut found, mut bytes) = (Found::default(), 0_usize);
        for row in rows {
            let (cursor, record) = row?;
            if found.records.len() as u64 == filter.limit || bytes > MAX_ANSWER_BYTES {
                return Ok(found);
            }
            bytes = bytes.saturating_add(record.line.len());
            found.next = Some(cursor);
            found.records.push(record);
        }
        found.next = None;
        Ok(found)
    }

    /// What the requests that a filter lets through come to, the largest first; days in their order.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn usage(&self, by: By, filter: &UsageFilter) -> Result<Vec<UsageRow>, StoreError> {
        usage::usage(&self.db, by, filter)
    }

    /// The keys that were used since a day, those with the most requests first.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn used_keys(&self, from_day: u64, limit: u64) -> Result<Vec<UsedKey>, StoreError> {
        usage::keys(&self.db, from_day, limit)
    }

    /// What all requests since a day come to.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn total(&self, from_day: u64) -> Result<Usage, StoreError> {
        let sql = format!("SELECT {SUMS} FROM days WHERE day >= ?1");
        let mut total = self.db.prepare_cached(&sql)?;
        Ok(total.query_row([integer(from_day)], |row| Usage::read(row, 0))?)
    }

    /// What each hour from one on comes to; hours without a request are left out.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn hours(&self, from_hour: u64) -> Result<Vec<Overview>, StoreError> {
        let mut rows =
            self.db.prepare_cached("SELECT * FROM hours WHERE hour >= ?1 ORDER BY hour")?;
        let rows = rows.query_map([integer(from_hour)], |row| {
            let number = |name| row.get(name).map(unsigned);
            Ok(Overview {
                hour: number("hour")?,
                requests: number("requests")?,
                failed: number("failed")?,
                refused: number("refused")?,
                tokens: number("tokens")?,
                cost: number("cost")?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The chains, the latest first; at most 1000.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn chains(&self) -> Result<Vec<ChainState>, StoreError> {
        let mut chains = self.db.prepare_cached(
            "SELECT id, name, host, first_ts, last_ts, anchored, closed FROM chains ORDER BY last_ts DESC, id DESC LIMIT ?1",
        )?;
        let mut rows = chains.query([MAX_CHAINS])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            found.push(self.chain(row)?);
        }
        Ok(found)
    }

    fn chain(&self, row: &Row<'_>) -> Result<ChainState, StoreError> {
        let number = |name| row.get::<_, Option<i64>>(name).map(|number| number.map(unsigned));
        let anchored = number("anchored")?;
        let mut spans = self
            .db
            .prepare_cached("SELECT first, last FROM spans WHERE chain = ?1 ORDER BY first")?;
        let spans = spans.query_map([row.get::<_, i64>("id")?], |row| {
            Ok((unsigned(row.get(0)?), unsigned(row.get(1)?)))
        })?;
        let (mut next, mut gaps) = (0, Vec::new());
        for span in spans {
            let (first, last) = span?;
            gaps.extend(Gap::between(next, first));
            next = last.saturating_add(1);
        }
        let records = next.max(anchored.unwrap_or(0));
        gaps.extend(Gap::between(next, records));
        let verified = gaps.first().map_or(records, |gap| gap.first);
        let missing = gaps.iter().map(|gap| gap.last - gap.first + 1).sum();
        gaps.truncate(MAX_GAPS);
        Ok(ChainState {
            name: row.get("name")?,
            host: row.get("host")?,
            times: number("first_ts")?.zip(number("last_ts")?),
            verified,
            records,
            gaps,
            missing,
            anchored,
            is_closed: number("closed")? == Some(records),
        })
    }

    /// What does not verify, the latest first.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn findings(&self, limit: u64) -> Result<Vec<FindingRow>, StoreError> {
        let mut rows = self.db.prepare_cached(
            "SELECT at, kind, chain, seq, text FROM findings ORDER BY id DESC LIMIT ?1",
        )?;
        let rows = rows.query_map([integer(limit)], |row| {
            Ok(FindingRow {
                at_secs: unsigned(row.get(0)?),
                kind: row.get(1)?,
                chain: row.get(2)?,
                seq: row.get::<_, Option<i64>>(3)?.map(unsigned),
                text: row.get(4)?,
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// The alerts, the latest first; at most the latest 1000 are kept.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn alerts(&self, limit: u64) -> Result<Vec<Alert>, StoreError> {
        alerts::latest(&self.db, limit)
    }

    /// The first alert after one with the id `after` that the receiver of alerts has yet to take, and that is not older
    /// than a day.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn undelivered_alert(
        &self,
        after: i64,
        now_secs: u64,
    ) -> Result<Option<Alert>, StoreError> {
        alerts::undelivered(&self.db, after, now_secs)
    }

    /// The number of alerts that the receiver of alerts has yet to take, and that are not older than a day.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn undelivered_alerts(&self, now_secs: u64) -> Result<u64, StoreError> {
        alerts::count_undelivered(&self.db, now_secs)
    }

    /// What was counted since the store was made: `records`, `doubled`, `pruned`, `anchors`, `findings.KIND`, …
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn counters(&self) -> Result<Vec<(String, u64)>, StoreError> {
        counters::all(&self.db)
    }
}

// === impl Gap ===

impl Gap {
    /// What is missing between a number that is expected and one that is there.
    pub(super) fn between(expected: u64, found: u64) -> Option<Self> {
        (expected < found).then(|| Self { first: expected, last: found - 1 })
    }
}

// === impl StoredRecord ===

impl StoredRecord {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        let number = |name| row.get::<_, Option<i64>>(name).map(|number| number.map(unsigned));
        Ok(Self {
            ts_micros: Id::read(row)?.micros(),
            is_failed: row.get("failed")?,
            decision: row.get("decision")?,
            reason: row.get("reason")?,
            tenant: row.get("tenant")?,
            key: row.get("key")?,
            user: row.get("user")?,
            model: row.get("model")?,
            tool: row.get("tool")?,
            method: row.get("method")?,
            path: row.get("path")?,
            code: number("code")?,
            request_id: row.get("request_id")?,
            tokens: number("tokens")?,
            cost: number("cost")?,
            verdict: row.get("verdict")?,
            anomaly: row.get("anomaly")?,
            line: row.get("line")?,
        })
    }
}
