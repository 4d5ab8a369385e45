//! Watches what is stored for what is an alert.
//!
//! Requests count at the time at which they began, and those that are older than the window, or than the time in which
//! a cause is not reported again, do not count. So a collector that reads old files raises no alert about them. What does
//! not verify counts when it is found: a line may be changed long after its request, and its time may be what was changed.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use rusqlite::{Connection, params};

use vkey::alerts::anomaly::Anomaly;
use vkey::decision::{DenyClass, DenyReason};

use super::alerts::{self, AlertKind, Occurrence};
use super::{Id, Record, StoreError, Thresholds, counters, integer, unsigned, words};

/// The longest tenant and id of a key in a cause: those of keys are not longer.
const MAX_ID_CHARS: usize = 64;

/// The prefix of the counters of findings.
const FINDINGS: &str = "findings.";

const MICROS_PER_SEC: u64 = 1_000_000;

/// What is counted in a window, in the order of the counts.
const COUNTED: [AlertKind; 3] = [AlertKind::Authentication, AlertKind::Refusals, AlertKind::Errors];

/// Requests of each kind of [`COUNTED`].
type Counts = [u64; COUNTED.len()];

/// What is known between transactions.
pub(super) struct Watch {
    pub(super) thresholds: Thresholds,
    /// The requests of the last window by the second in which they began; `None` before they were read from the store.
    seconds: Option<BTreeMap<u64, Counts>>,
    /// Those that came after the last evaluation.
    new: Counts,
    /// The counters of findings.
    findings: BTreeMap<String, u64>,
    /// When the ends of chains were looked at last, Unix seconds, and where they were.
    ends: Option<(u64, HashMap<i64, u64>)>,
}

/// What was seen in a transaction.
#[derive(Default)]
pub(super) struct Seen {
    /// By the second.
    counts: BTreeMap<u64, Counts>,
    /// By cause.
    occurrences: BTreeMap<String, Occurrence>,
    /// The counters of findings at the end of it.
    findings: BTreeMap<String, u64>,
}

// === impl Watch ===

impl Watch {
    /// A watch over a store.
    pub(super) fn new(db: &Connection) -> Result<Self, StoreError> {
        Ok(Self {
            thresholds: Thresholds::default(),
            seconds: None,
            new: Counts::default(),
            findings: counters::with_prefix(db, FINDINGS)?,
            ends: None,
        })
    }

    /// Sees a new record.
    pub(super) fn see(&self, seen: &mut Seen, record: &Record, now_secs: u64) {
        let at = (record.ts_micros / MICROS_PER_SEC).min(now_secs);
        let is_within = |secs: u64| at > now_secs.saturating_sub(secs);
        if let Some(index) = index_of(record)
            && is_within(self.thresholds.window_secs)
        {
            let counts = seen.counts.entry(at).or_default();
            counts.iter_mut().skip(index).take(1).for_each(|count| *count += 1);
        }
        if is_within(self.thresholds.repeat_secs) {
            let occurrences = [anomaly(record), upstream(record)];
            occurrences.into_iter().flatten().for_each(|occurrence| seen.add(occurrence));
        }
    }

    /// Raises alerts for what was seen in a transaction, as a part of it. Returns how many.
    pub(super) fn raise(
        &self,
        db: &Connection,
        seen: &mut Seen,
        now_secs: u64,
    ) -> Result<u64, StoreError> {
        seen.findings = counters::with_prefix(db, FINDINGS)?;
        let known = |name| self.findings.get(name).copied().unwrap_or(0);
        let mut occurrences = Vec::new();
        for (name, count) in &seen.findings {
            if *count > known(name) {
                let kind = name.strip_prefix(FINDINGS).unwrap_or(name);
                occurrences.push(finding(kind, count - known(name)));
            }
        }
        raise_all(db, occurrences.iter().chain(seen.occurrences.values()), now_secs, self)
    }

    /// Takes what was seen in a transaction that was written.
    pub(super) fn take(&mut self, seen: Seen) {
        self.findings = seen.findings;
        let Some(seconds) = &mut self.seconds else { return };
        for (at, counts) in seen.counts {
            add(seconds.entry(at).or_default(), &counts);
            add(&mut self.new, &counts);
        }
    }

    /// Raises alerts for what is too much or is missing for too long. Returns how many.
    pub(super) fn evaluate(&mut self, db: &Connection, now_secs: u64) -> Result<u64, StoreError> {
        let too_many = self.too_many(db, now_secs)?;
        let missing = self.missing(db, now_secs)?;
        raise_all(db, too_many.iter().chain(&missing), now_secs, self)
    }

    fn too_many(&mut self, db: &Connection, now_secs: u64) -> Result<Vec<Occurrence>, StoreError> {
        let Thresholds { authentication, refusals, errors, window_secs, repeat_secs, .. } =
            self.thresholds;
        let from = now_secs.saturating_sub(window_secs);
        let mut seconds = match self.seconds.take() {
            Some(seconds) => seconds,
            None => read_seconds(db, from, now_secs)?,
        };
        seconds = seconds.split_off(&from.saturating_add(1));
        let mut sums = Counts::default();
        seconds.values().for_each(|counts| add(&mut sums, counts));
        self.seconds = Some(seconds);
        let new = std::mem::take(&mut self.new);
        let mut found = Vec::new();
        let thresholds = [authentication, refusals, errors];
        for (((kind, threshold), sum), new) in
            COUNTED.into_iter().zip(thresholds).zip(sums).zip(new)
        {
            if threshold == 0 || sum < threshold {
                continue;
            }
            let is_raised = alerts::is_raised(db, kind, now_secs, repeat_secs)?;
            let count = if is_raised { new } else { sum };
            if count > 0 {
                found.push(Occurrence {
                    kind,
                    detail: String::new(),
                    key: None,
                    count,
                    text: text_of(kind, sum, window_secs),
                });
            }
        }
        Ok(found)
    }

    /// Records that were missing when ends of chains were looked at last, and still are. Whatever is missing before an
    /// end that was known then, was missing then.
    fn missing(
        &mut self,
        db: &Connection,
        now_secs: u64,
    ) -> Result<Option<Occurrence>, StoreError> {
        let Thresholds { missing_secs, repeat_secs, .. } = self.thresholds;
        let is_due = |at: u64| now_secs >= at.saturating_add(missing_secs) || now_secs < at;
        if self.ends.as_ref().is_some_and(|(at, _)| !is_due(*at)) {
            return Ok(None);
        }
        let since = now_secs.saturating_sub(repeat_secs).saturating_mul(MICROS_PER_SEC);
        let ends = ends(db, since)?;
        let before = self.ends.take().map(|(_, before)| before).unwrap_or_default();
        let mut found: Option<Occurrence> = None;
        for chain in &ends {
            let Some(end) = before.get(&chain.id) else { continue };
            let (missing, first) = missing_before(db, chain.id, *end)?;
            if missing > chain.alerted {
                let count = missing - chain.alerted;
                match &mut found {
                    Some(found) => found.count = found.count.saturating_add(count),
                    None => found = Some(missing_records(&chain.name, count, first)),
                }
            }
            if missing != chain.alerted {
                db.prepare_cached("UPDATE chains SET alerted = ?2 WHERE id = ?1")?
                    .execute(params![chain.id, integer(missing)])?;
            }
        }
        let ends = ends.into_iter().map(|chain| (chain.id, chain.end)).collect();
        self.ends = Some((now_secs, ends));
        Ok(found)
    }
}

fn raise_all<'a>(
    db: &Connection,
    occurrences: impl Iterator<Item = &'a Occurrence>,
    now_secs: u64,
    watch: &Watch,
) -> Result<u64, StoreError> {
    let mut raised = 0;
    for occurrence in occurrences {
        let is_new = alerts::raise(db, occurrence, now_secs, watch.thresholds.repeat_secs)?;
        raised += u64::from(is_new);
    }
    Ok(raised)
}

// === impl Seen ===

impl Seen {
    fn add(&mut self, occurrence: Occurrence) {
        let count = occurrence.count;
        self.occurrences
            .entry(occurrence.cause())
            .and_modify(|known| known.count += count)
            .or_insert(occurrence);
    }
}

/// Which count a record adds to.
fn index_of(record: &Record) -> Option<usize> {
    if !record.is_failed {
        return None;
    }
    let kind = match record.is_refused() {
        false => AlertKind::Errors,
        true if record.reason.is_some_and(is_authentication) => AlertKind::Authentication,
        true => AlertKind::Refusals,
    };
    COUNTED.iter().position(|counted| *counted == kind)
}

fn is_authentication(reason: &str) -> bool {
    DenyReason::from_code(reason).is_some_and(|reason| {
        reason.is_failed_authentication() || reason == DenyReason::SourceBlocked
    })
}

fn text_of(kind: AlertKind, count: u64, window_secs: u64) -> String {
    let window = humantime::format_duration(Duration::from_secs(window_secs));
    let what = match kind {
        AlertKind::Authentication => "requests were refused for invalid credentials",
        AlertKind::Refusals => "requests were refused",
        _ => "requests were forwarded and failed",
    };
    format!("{count} {what} within {window}")
}

/// What a record says about its key.
fn anomaly(record: &Record) -> Option<Occurrence> {
    let word = record.anomaly.as_deref()?;
    // A line without a MAC may say anything.
    let word = Anomaly::ALL.into_iter().map(Anomaly::word).find(|known| *known == word)?;
    let (tenant, key) = (shown_id(record.tenant.as_deref()), shown_id(record.key.as_deref()));
    let text = match word {
        "rate" => "far more requests than usual",
        "source" => "a client in a new network",
        _ => "many requests are refused",
    };
    Some(Occurrence {
        kind: AlertKind::Anomaly,
        detail: word.to_owned(),
        text: format!("unusual use of key {key} of tenant {tenant}: {text}"),
        key: Some((tenant, key)),
        count: 1,
    })
}

/// An id as alerts show it. Ids of keys that the gate verified are not changed by it.
fn shown_id(id: Option<&str>) -> String {
    let shown = |char: char| if char.is_ascii_graphic() && char != ':' { char } else { '?' };
    id.unwrap_or_default().chars().take(MAX_ID_CHARS).map(shown).collect()
}

/// What a record says about the connection to its upstream.
fn upstream(record: &Record) -> Option<Occurrence> {
    let reason = DenyReason::from_code(record.reason?)?;
    let is_refused = record.is_refused() && reason.class() == DenyClass::Upstream;
    is_refused.then(|| Occurrence {
        kind: AlertKind::UpstreamTls,
        detail: reason.code().to_owned(),
        key: None,
        count: 1,
        text: format!("requests are refused: {}", reason.message()),
    })
}

/// Findings of a kind. The text has nothing of the line, which may be anything.
fn finding(kind: &str, count: u64) -> Occurrence {
    let text = match kind {
        "unreadable" => "a line of the audit trail cannot be read",
        "changed" => "a record or an anchor does not match its MAC",
        "unlinked" => "a record does not follow the one before it",
        "contradiction" => "an anchor and a record contradict each other",
        _ => "something in the audit trail does not verify",
    };
    Occurrence {
        kind: AlertKind::Chain,
        detail: kind.to_owned(),
        key: None,
        count,
        text: text.to_owned(),
    }
}

fn missing_records(chain: &str, count: u64, first: u64) -> Occurrence {
    let text = match count {
        1 => format!("record {first} of chain {chain} is missing"),
        _ => format!("{count} records of chain {chain} are missing, the first is {first}"),
    };
    Occurrence { kind: AlertKind::Missing, detail: String::new(), key: None, count, text }
}

/// The failures of the last window that the store has.
fn read_seconds(
    db: &Connection,
    from: u64,
    now_secs: u64,
) -> Result<BTreeMap<u64, Counts>, StoreError> {
    let mut rows = db.prepare_cached(
        "SELECT id, decision, reason FROM words CROSS JOIN records ON id = words.rowid
         WHERE words MATCH ?1 AND words.rowid >= ?2 AND failed = 1",
    )?;
    let Id(first) = Id::first(from.saturating_mul(MICROS_PER_SEC));
    let mut rows = rows.query(params![words::failed(true), first])?;
    let mut seconds: BTreeMap<u64, Counts> = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let decision = row.get_ref("decision")?.as_str().unwrap_or_default();
        let reason = row.get_ref("reason")?.as_str().unwrap_or_default();
        let record = Record {
            is_failed: true,
            decision: if decision == "deny" { "deny" } else { "" },
            reason: DenyReason::from_code(reason).map(DenyReason::code),
            ..Record::default()
        };
        let at = Id::read(row)?.micros() / MICROS_PER_SEC;
        let counts = seconds.entry(at.min(now_secs)).or_default();
        if let Some(count) = index_of(&record).and_then(|index| counts.get_mut(index)) {
            *count += 1;
        }
    }
    Ok(seconds)
}

/// A chain, and how far it is known to go.
struct End {
    id: i64,
    name: String,
    /// The number of its records.
    end: u64,
    /// The missing records that alerts have counted.
    alerted: u64,
}

/// The chains that had a record or an anchor since a time.
fn ends(db: &Connection, since_micros: u64) -> Result<Vec<End>, StoreError> {
    let mut rows = db.prepare_cached(
        "SELECT id, name, anchored, alerted, (SELECT max(last) FROM spans WHERE chain = id) AS last
         FROM chains WHERE last_ts >= ?1 ORDER BY id",
    )?;
    let rows = rows.query_map([integer(since_micros)], |row| {
        let number = |name| row.get::<_, Option<i64>>(name).map(|number| number.map(unsigned));
        let next = number("last")?.map_or(0, |last| last.saturating_add(1));
        Ok(End {
            id: row.get("id")?,
            name: row.get("name")?,
            end: next.max(number("anchored")?.unwrap_or(0)),
            alerted: number("alerted")?.unwrap_or(0),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// How many records of a chain are missing before a number, and the first of them.
fn missing_before(db: &Connection, chain: i64, end: u64) -> Result<(u64, u64), StoreError> {
    let mut spans = db.prepare_cached(
        "SELECT first, last FROM spans WHERE chain = ?1 AND first < ?2 ORDER BY first",
    )?;
    let spans = spans.query_map(params![chain, integer(end)], |row| {
        Ok((unsigned(row.get(0)?), unsigned(row.get(1)?)))
    })?;
    let (mut next, mut missing, mut first_missing) = (0_u64, 0_u64, None);
    let mut skip = |next: u64, to: u64| {
        if next < to {
            missing += to - next;
            first_missing.get_or_insert(next);
        }
    };
    for span in spans {
        let (first, last) = span?;
        skip(next, first);
        next = last.saturating_add(1);
    }
    skip(next, end);
    Ok((missing, first_missing.unwrap_or(0)))
}

fn add(to: &mut Counts, counts: &Counts) {
    for (to, count) in to.iter_mut().zip(counts) {
        *to = to.saturating_add(*count);
    }
}
