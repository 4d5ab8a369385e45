//! The chains of the records that were taken.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Place, StoreError, findings, integer, unsigned};
use vkey::audit::Anchor;

/// The most chains that are held in memory. The others are read again when they go on.
const MAX_CHAINS: usize = 1024;

/// The chains that records came for lately.
#[derive(Default)]
pub(super) struct Chains {
    by_name: HashMap<String, Chain>,
}

/// A chain, as far as its records were taken.
struct Chain {
    id: i64,
    host: Option<String>,
    times: Option<(u64, u64)>,
    anchored: Option<u64>,
    closed: Option<u64>,
    /// In order, and never adjacent.
    spans: Vec<Span>,
    is_changed: bool,
}

/// Consecutive records that were taken.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    last: u64,
    /// The MAC that the first record follows.
    prev: String,
    /// The MAC of the last record.
    mac: String,
}

/// What a record is to its chain.
#[derive(Debug, PartialEq, Eq)]
enum Placed {
    /// It was taken before.
    Doubled,
    /// It is new.
    New,
    /// It is new, and contradicts a record next to it.
    Unlinked,
}

// === impl Chains ===

impl Chains {
    /// Takes the place of a record. Returns the row of its chain; `None` if the record was taken before.
    pub(super) fn take(
        &mut self,
        db: &Connection,
        place: &Place,
        ts_micros: u64,
    ) -> Result<Option<i64>, StoreError> {
        let chain = self.get(db, &place.chain)?;
        let placed = place_record(&mut chain.spans, place);
        if placed == Placed::Doubled {
            return Ok(None);
        }
        chain.see(ts_micros, place.host.as_deref());
        let (id, seq) = (chain.id, place.seq);
        if placed == Placed::Unlinked {
            let text = "the record does not follow the one next to it";
            findings::add(db, "unlinked", Some((&place.chain, Some(seq))), text)?;
        }
        check_anchor(db, id, place)?;
        Ok(Some(id))
    }

    /// Takes an anchor. Returns whether it is new.
    pub(super) fn take_anchor(
        &mut self,
        db: &Connection,
        anchor: &Anchor,
        line: &str,
    ) -> Result<bool, StoreError> {
        let chain = self.get(db, &anchor.chain)?;
        let is_new = db
            .prepare_cached("INSERT OR IGNORE INTO anchors VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![chain.id, integer(anchor.records), anchor.last, line])?
            > 0;
        chain.see(anchor.ts_micros, anchor.host.as_deref());
        chain.anchored = chain.anchored.max(Some(anchor.records));
        if anchor.is_end {
            chain.closed = chain.closed.max(Some(anchor.records));
        }
        if is_new && let Some(last) = anchor.records.checked_sub(1) {
            let contradicts = chain.mac_of(db, last)?.is_some_and(|mac| mac != anchor.last);
            if contradicts {
                add_contradiction(db, &anchor.chain, last)?;
            }
        }
        Ok(is_new)
    }

    /// Writes what has changed.
    pub(super) fn save(&mut self, db: &Connection) -> Result<(), StoreError> {
        for chain in self.by_name.values_mut().filter(|chain| chain.is_changed) {
            chain.save(db)?;
        }
        if self.by_name.len() > MAX_CHAINS {
            self.by_name.clear();
        }
        Ok(())
    }

    /// Forgets what was not written, because its transaction was undone.
    pub(super) fn forget(&mut self) {
        self.by_name.clear();
    }

    fn get(&mut self, db: &Connection, name: &str) -> Result<&mut Chain, StoreError> {
        if !self.by_name.contains_key(name) {
            self.by_name.insert(name.to_owned(), Chain::load(db, name)?);
        }
        self.by_name.get_mut(name).ok_or(StoreError::Damaged)
    }
}

// === impl Chain ===

impl Chain {
    fn load(db: &Connection, name: &str) -> Result<Self, StoreError> {
        db.prepare_cached("INSERT OR IGNORE INTO chains (name) VALUES (?1)")?.execute([name])?;
        let mut chain = db
            .prepare_cached(
                "SELECT id, host, first_ts, last_ts, anchored, closed FROM chains WHERE name = ?1",
            )?
            .query_row([name], |row| {
                let times = row.get::<_, Option<i64>>(2)?.zip(row.get::<_, Option<i64>>(3)?);
                Ok(Self {
                    id: row.get(0)?,
                    host: row.get(1)?,
                    times: times.map(|(first, last)| (unsigned(first), unsigned(last))),
                    anchored: row.get::<_, Option<i64>>(4)?.map(unsigned),
                    closed: row.get::<_, Option<i64>>(5)?.map(unsigned),
                    spans: Vec::new(),
                    is_changed: false,
                })
            })?;
        let mut spans = db.prepare_cached(
            "SELECT first, last, prev, mac FROM spans WHERE chain = ?1 ORDER BY first",
        )?;
        let spans = spans.query_map([chain.id], |row| {
            Ok(Span {
                first: unsigned(row.get(0)?),
                last: unsigned(row.get(1)?),
                prev: row.get(2)?,
                mac: row.get(3)?,
            })
        })?;
        chain.spans = spans.collect::<Result<_, _>>()?;
        Ok(chain)
    }

    fn save(&mut self, db: &Connection) -> Result<(), StoreError> {
        let (first, last) = self.times.unzip();
        db.prepare_cached(
            "UPDATE chains SET host = ?2, first_ts = ?3, last_ts = ?4, anchored = ?5, closed = ?6 WHERE id = ?1",
        )?
        .execute(params![
            self.id,
            self.host,
            first.map(integer),
            last.map(integer),
            self.anchored.map(integer),
            self.closed.map(integer),
        ])?;
        db.prepare_cached("DELETE FROM spans WHERE chain = ?1")?.execute([self.id])?;
        let mut insert = db.prepare_cached("INSERT INTO spans VALUES (?1, ?2, ?3, ?4, ?5)")?;
        for span in &self.spans {
            let (first, last) = (integer(span.first), integer(span.last));
            insert.execute(params![self.id, first, last, span.prev, span.mac])?;
        }
        self.is_changed = false;
        Ok(())
    }

    fn see(&mut self, ts_micros: u64, host: Option<&str>) {
        let (first, last) = self.times.unwrap_or((ts_micros, ts_micros));
        self.times = Some((first.min(ts_micros), last.max(ts_micros)));
        if self.host.is_none() {
            self.host = host.map(str::to_owned);
        }
        self.is_changed = true;
    }

    /// The MAC of a record, if it is known without its line, or its line is still kept.
    fn mac_of(&self, db: &Connection, seq: u64) -> Result<Option<String>, StoreError> {
        let ends = |span: &&Span| span.last == seq;
        if let Some(span) = self.spans.iter().find(ends) {
            return Ok(Some(span.mac.clone()));
        }
        let line: Option<String> = db
            .prepare_cached("SELECT line FROM records WHERE chain = ?1 AND seq = ?2")?
            .query_row(params![self.id, integer(seq)], |row| row.get(0))
            .optional()?;
        Ok(line.and_then(|line| {
            let (_, rest) = line.split_once(",\"mac\":\"")?;
            rest.split_once('"').map(|(mac, _)| mac.to_owned())
        }))
    }
}

/// Compares a record with the anchor that says that it is the last, if that came before it.
fn check_anchor(db: &Connection, chain: i64, place: &Place) -> Result<(), StoreError> {
    let last: Option<String> = db
        .prepare_cached("SELECT last FROM anchors WHERE chain = ?1 AND records = ?2")?
        .query_row(params![chain, integer(place.seq.saturating_add(1))], |row| row.get(0))
        .optional()?;
    match last {
        Some(last) if last != place.mac => add_contradiction(db, &place.chain, place.seq),
        _ => Ok(()),
    }
}

fn add_contradiction(db: &Connection, chain: &str, seq: u64) -> Result<(), StoreError> {
    let text = "an anchor says that another record is at this place";
    findings::add(db, "contradiction", Some((chain, Some(seq))), text)
}

/// Adds a record to the spans of its chain.
fn place_record(spans: &mut Vec<Span>, place: &Place) -> Placed {
    let seq = place.seq;
    let next = spans.partition_point(|span| span.first <= seq);
    let before = next.checked_sub(1);
    let before = before.and_then(|index| Some((index, spans.get(index)?)));
    if before.is_some_and(|(_, span)| span.last >= seq) {
        return Placed::Doubled;
    }
    let left = before.filter(|(_, span)| span.last.checked_add(1) == Some(seq));
    let right = spans.get(next).filter(|span| seq.checked_add(1) == Some(span.first));
    let is_linked = left.is_none_or(|(_, span)| span.mac == place.prev)
        && right.is_none_or(|span| span.prev == place.mac)
        && (seq > 0 || place.prev.is_empty());
    let joined = Span {
        first: left.map_or(seq, |(_, span)| span.first),
        last: right.map_or(seq, |span| span.last),
        prev: left.map_or_else(|| place.prev.clone(), |(_, span)| span.prev.clone()),
        mac: right.map_or_else(|| place.mac.clone(), |span| span.mac.clone()),
    };
    let from = left.map_or(next, |(index, _)| index);
    let to = if right.is_some() { next + 1 } else { next };
    spans.splice(from..to, [joined]);
    if is_linked { Placed::New } else { Placed::Unlinked }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn place(seq: u64) -> Place {
        let mac = |seq: u64| format!("m{seq}");
        let prev = seq.checked_sub(1).map(mac).unwrap_or_default();
        Place { chain: "c".to_owned(), seq, prev, mac: mac(seq), host: None }
    }

    proptest! {
        /// In whatever order they come, each record is new once, and the spans are what a set of numbers says.
        #[test]
        fn records_are_taken_once_in_any_order(order in proptest::collection::vec(0_u64..40, 0..120)) {
            let (mut spans, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
            for seq in order {
                let expected = if seen.insert(seq) { Placed::New } else { Placed::Doubled };
                prop_assert_eq!(place_record(&mut spans, &place(seq)), expected);
                let held: Vec<u64> = spans.iter().flat_map(|span| span.first..=span.last).collect();
                prop_assert_eq!(held, seen.iter().copied().collect::<Vec<_>>());
                let gaps = spans.windows(2).all(|two| two[0].last + 1 < two[1].first);
                prop_assert!(gaps, "adjacent spans are one");
                let ends = spans.iter().all(|span| {
                    span.prev == place(span.first).prev && span.mac == place(span.last).mac
                });
                prop_assert!(ends);
            }
        }
    }

    #[test]
    fn a_record_that_contradicts_its_neighbour_is_noticed_from_both_sides() {
        for (order, wrong) in [([0, 1], 1), ([1, 0], 0)] {
            let mut spans = Vec::new();
            let other = |seq| {
                let mut place = place(seq);
                if seq == wrong && wrong == 1 {
                    place.prev = "x".to_owned();
                } else if seq == wrong {
                    place.mac = "x".to_owned();
                }
                place
            };
            assert_eq!(place_record(&mut spans, &other(order[0])), Placed::New);
            assert_eq!(place_record(&mut spans, &other(order[1])), Placed::Unlinked);
        }
        let first = Place { prev: "x".to_owned(), ..place(0) };
        assert_eq!(place_record(&mut Vec::new(), &first), Placed::Unlinked);
    }
}
