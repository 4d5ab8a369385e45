//! What the requests of a day and of an hour come to.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use rusqlite::{Connection, params};

use super::{Record, StoreError, counters, integer};

/// The most rows of totals of one day. After them a request counts without its model and its tool, which clients choose.
const MAX_GROUPS_OF_A_DAY: i64 = 100_000;

/// Stands for the models and the tools after those.
const OTHER: &str = "(other)";

/// The prefix of the counters of requests by the reason of their refusal.
pub(crate) const REQUESTS: &str = "requests.";

/// Stands for the reason of requests that have none.
const NO_REASON: &str = "none";

const MICROS_PER_HOUR: u64 = 3_600_000_000;
const HOURS_PER_DAY: u64 = 24;

/// Totals of a transaction, before they are written.
#[derive(Default)]
pub(super) struct Totals<'a> {
    days: HashMap<Group<'a>, Sums>,
    hours: HashMap<u64, Sums>,
    reasons: HashMap<&'static str, u64>,
    all: Sums,
}

#[derive(PartialEq, Eq, Hash)]
struct Group<'a> {
    day: u64,
    tenant: &'a str,
    key: &'a str,
    model: &'a str,
    tool: &'a str,
    reason: &'static str,
    verdict: &'a str,
}

#[derive(Clone, Copy, Default)]
struct Sums {
    requests: u64,
    failed: u64,
    refused: u64,
    tokens_in: u64,
    tokens_out: u64,
    tokens: u64,
    cost: u64,
}

// === impl Totals ===

impl<'a> Totals<'a> {
    /// Adds a record.
    pub(super) fn add(&mut self, record: &'a Record) {
        let hour = record.ts_micros / MICROS_PER_HOUR;
        let text = |member: &'a Option<String>| member.as_deref().unwrap_or_default();
        let group = Group {
            day: hour / HOURS_PER_DAY,
            tenant: text(&record.tenant),
            key: text(&record.key),
            model: text(&record.model),
            tool: text(&record.tool),
            reason: record.reason.unwrap_or_default(),
            verdict: text(&record.verdict),
        };
        self.days.entry(group).or_default().add(record);
        self.hours.entry(hour).or_default().add(record);
        *self.reasons.entry(record.reason.unwrap_or(NO_REASON)).or_default() += 1;
        self.all.add(record);
    }

    /// Writes what was added.
    pub(super) fn save(self, db: &Connection) -> Result<(), StoreError> {
        let mut groups = HashMap::new();
        for (mut group, sums) in self.days {
            if add_to_day(db, &group, &sums)? {
                continue;
            }
            let day = group.day;
            let groups = match groups.entry(day) {
                Entry::Occupied(groups) => groups.into_mut(),
                Entry::Vacant(groups) => groups.insert(groups_of(db, day)?),
            };
            if *groups >= MAX_GROUPS_OF_A_DAY {
                for text in [&mut group.model, &mut group.tool] {
                    if !text.is_empty() {
                        *text = OTHER;
                    }
                }
            }
            *groups += 1;
            if !add_to_day(db, &group, &sums)? {
                insert_day(db, &group, &sums)?;
            }
        }
        for (hour, sums) in self.hours {
            save_hour(db, hour, &sums)?;
        }
        for (reason, count) in self.reasons {
            counters::add(db, &format!("{REQUESTS}{reason}"), count)?;
        }
        for (name, count) in self.all.named() {
            counters::add(db, name, count)?;
        }
        Ok(())
    }
}

fn groups_of(db: &Connection, day: u64) -> Result<i64, StoreError> {
    let mut groups = db.prepare_cached("SELECT count(*) FROM days WHERE day = ?1")?;
    Ok(groups.query_row([integer(day)], |row| row.get(0))?)
}

/// Adds to the totals of a group. Returns whether the group was there.
fn add_to_day(db: &Connection, group: &Group<'_>, sums: &Sums) -> Result<bool, StoreError> {
    write_day(
        db,
        "UPDATE days SET requests = requests + ?8, failed = failed + ?9, refused = refused + ?10,
            tokens_in = min(tokens_in + ?11, 1 << 61), tokens_out = min(tokens_out + ?12, 1 << 61),
            tokens = min(tokens + ?13, 1 << 61), cost = min(cost + ?14, 1 << 61)
         WHERE day = ?1 AND tenant = ?2 AND key = ?3 AND model = ?4 AND tool = ?5 AND reason = ?6 AND verdict = ?7",
        group,
        sums,
    )
}

fn insert_day(db: &Connection, group: &Group<'_>, sums: &Sums) -> Result<bool, StoreError> {
    let sql =
        "INSERT INTO days VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";
    write_day(db, sql, group, sums)
}

fn write_day(
    db: &Connection,
    sql: &str,
    group: &Group<'_>,
    sums: &Sums,
) -> Result<bool, StoreError> {
    let rows = db.prepare_cached(sql)?.execute(params![
        integer(group.day),
        group.tenant,
        group.key,
        group.model,
        group.tool,
        group.reason,
        group.verdict,
        integer(sums.requests),
        integer(sums.failed),
        integer(sums.refused),
        amount(sums.tokens_in),
        amount(sums.tokens_out),
        amount(sums.tokens),
        amount(sums.cost),
    ])?;
    Ok(rows > 0)
}

/// An amount as it is stored: two of them can be added in 64 bits.
fn amount(sum: u64) -> i64 {
    integer(sum.min(1 << 61))
}

fn save_hour(db: &Connection, hour: u64, sums: &Sums) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO hours VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
            failed = failed + excluded.failed, refused = refused + excluded.refused,
            tokens = min(tokens + excluded.tokens, 1 << 61), cost = min(cost + excluded.cost, 1 << 61)",
    )?
    .execute(params![
        integer(hour),
        integer(sums.requests),
        integer(sums.failed),
        integer(sums.refused),
        amount(sums.tokens),
        amount(sums.cost),
    ])?;
    Ok(())
}

// === impl Sums ===

impl Sums {
    /// The counters of these sums. Requests are counted by reason.
    fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("failed", self.failed),
            ("refused", self.refused),
            ("tokens_in", self.tokens_in),
            ("tokens_out", self.tokens_out),
            ("tokens", self.tokens),
            ("cost", self.cost),
        ]
    }

    fn add(&mut self, record: &Record) {
        let tokens = record.tokens.unwrap_or_default();
        self.requests += 1;
        self.failed += u64::from(record.is_failed);
        self.refused += u64::from(record.is_refused());
        self.tokens_in = self.tokens_in.saturating_add(tokens.input);
        self.tokens_out = self.tokens_out.saturating_add(tokens.output);
        self.tokens = self.tokens.saturating_add(tokens.total);
        self.cost = self.cost.saturating_add(record.cost.unwrap_or(0));
    }
}
