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
    /// The span that grew last. The others are only in the table: one that lacks every other record has very many.
    span: Option<Span>,
    /// The first record of the span after it.
    next: Option<u64>,
    is_changed: bool,
    is_grown: bool,
}

/// Consecutive records that were taken. Two are never adjacent.
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
        match chain.place(db, place)? {
            Placed::Doubled => {
                chain.compare(db, place)?;
                return Ok(None);
            }
            Placed::New => {}
            Placed::Unlinked => {
                let text = "the record does not follow the one next to it";
                findings::add(db, "unlinked", Some((&place.chain, Some(place.seq))), text)?;
            }
        }
        chain.see(ts_micros, place.host.as_deref());
        chain.check_anchor(db, place)?;
        Ok(Some(chain.id))
    }

    /// Takes an anchor. Returns whether it is new.
    pub(super) fn take_anchor(
        &mut self,
        db: &Connection,
        anchor: &Anchor,
        line: &str,
    ) -> Result<bool, StoreError> {
        let chain = self.get(db, &anchor.chain)?;
        let known = chain.anchor(db, anchor.records)?;
        if known.as_ref().is_some_and(|last| *last != anchor.last) {
            add_contradiction(db, &anchor.chain, anchor.records.saturating_sub(1))?;
            return Ok(false);
        }
        if known.is_none() || anchor.is_end {
            db.prepare_cached("REPLACE INTO anchors VALUES (?1, ?2, ?3, ?4)")?.execute(params![
                chain.id,
                integer(anchor.records),
                anchor.last,
                line
            ])?;
        }
        chain.see(anchor.ts_micros, anchor.host.as_deref());
        chain.anchored = chain.anchored.max(Some(anchor.records));
        if anchor.is_end {
            chain.closed = chain.closed.max(Some(anchor.records));
        }
        if known.is_none()
            && let Some(last) = anchor.records.checked_sub(1)
        {
            let contradicts = chain.mac_of(db, last)?.is_some_and(|mac| mac != anchor.last);
            if contradicts {
                add_contradiction(db, &anchor.chain, last)?;
            }
        }
        Ok(known.is_none())
    }

    /// Writes what has changed.
    pub(super) fn save(&mut self, db: &Connection) -> Result<(), StoreError> {
        for chain in self.by_name.values_mut() {
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
        let chain = db
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
                    span: None,
                    next: None,
                    is_changed: false,
                    is_grown: false,
                })
            })?;
        Ok(chain)
    }

    fn save(&mut self, db: &Connection) -> Result<(), StoreError> {
        self.save_span(db)?;
        if std::mem::take(&mut self.is_changed) {
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
        }
        Ok(())
    }

    fn save_span(&mut self, db: &Connection) -> Result<(), StoreError> {
        if std::mem::take(&mut self.is_grown)
            && let Some(Span { first, last, prev, mac }) = &self.span
        {
            db.prepare_cached("REPLACE INTO spans VALUES (?1, ?2, ?3, ?4, ?5)")?
                .execute(params![self.id, integer(*first), integer(*last), prev, mac])?;
        }
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

    /// Adds a record to the spans.
    fn place(&mut self, db: &Connection, place: &Place) -> Result<Placed, StoreError> {
        let Place { seq, prev, mac, .. } = place;
        if let Some(span) = &mut self.span {
            if (span.first..=span.last).contains(seq) {
                return Ok(Placed::Doubled);
            }
            let is_next = span.last.checked_add(1) == Some(*seq);
            // The usual case: no table is asked.
            if is_next && self.next.is_none_or(|next| next - 1 > *seq) {
                let is_linked = span.mac == *prev;
                span.last = *seq;
                span.mac.clone_from(mac);
                self.is_grown = true;
                return Ok(if is_linked { Placed::New } else { Placed::Unlinked });
            }
        }
        self.save_span(db)?;
        let (before, after) = (self.span_to(db, *seq)?, self.span_after(db, *seq)?);
        if before.as_ref().is_some_and(|span| span.last >= *seq) {
            self.next = after.map(|span| span.first);
            self.span = before;
            return Ok(Placed::Doubled);
        }
        let left = before.filter(|span| span.last.checked_add(1) == Some(*seq));
        let right = after.as_ref().filter(|span| seq.checked_add(1) == Some(span.first));
        if let Some(right) = right {
            db.prepare_cached("DELETE FROM spans WHERE chain = ?1 AND first = ?2")?
                .execute(params![self.id, integer(right.first)])?;
        }
        let (span, is_linked) = joined(left.as_ref(), right, place);
        self.next = match right {
            Some(right) => self.span_after(db, right.last)?,
            None => after,
        }
        .map(|span| span.first);
        self.span = Some(span);
        self.is_grown = true;
        Ok(if is_linked { Placed::New } else { Placed::Unlinked })
    }

    /// The last span that begins at a record or before it.
    fn span_to(&self, db: &Connection, seq: u64) -> Result<Option<Span>, StoreError> {
        let sql = "SELECT first, last, prev, mac FROM spans WHERE chain = ?1 AND first <= ?2 ORDER BY first DESC LIMIT 1";
        self.find_span(db, sql, seq)
    }

    /// The first span that begins after a record.
    fn span_after(&self, db: &Connection, seq: u64) -> Result<Option<Span>, StoreError> {
        let sql = "SELECT first, last, prev, mac FROM spans WHERE chain = ?1 AND first > ?2 ORDER BY first LIMIT 1";
        self.find_span(db, sql, seq)
    }

    fn find_span(&self, db: &Connection, sql: &str, seq: u64) -> Result<Option<Span>, StoreError> {
        let mut span = db.prepare_cached(sql)?;
        let span = span.query_row(params![self.id, integer(seq)], |row| {
            Ok(Span {
                first: unsigned(row.get(0)?),
                last: unsigned(row.get(1)?),
                prev: row.get(2)?,
                mac: row.get(3)?,
            })
        });
        Ok(span.optional()?)
    }

    /// Compares a record with the one that was taken with its number, as far as that is kept.
    fn compare(&self, db: &Connection, place: &Place) -> Result<(), StoreError> {
        if self.mac_of(db, place.seq)?.is_none_or(|mac| mac == place.mac) {
            return Ok(());
        }
        let text = "another record has this number";
        findings::add(db, "contradiction", Some((&place.chain, Some(place.seq))), text)
    }

    /// The MAC of a record, if it is known without its line, or its line is still kept.
    fn mac_of(&self, db: &Connection, seq: u64) -> Result<Option<String>, StoreError> {
        let ends = |span: &Span| span.last == seq;
        if let Some(span) = self.span.clone().filter(ends) {
            return Ok(Some(span.mac));
        }
        if let Some(span) = self.span_to(db, seq)?.filter(ends) {
            return Ok(Some(span.mac));
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

    /// The MAC that an anchor for this number of records has for the last of them.
    fn anchor(&self, db: &Connection, records: u64) -> Result<Option<String>, StoreError> {
        let mut last =
            db.prepare_cached("SELECT last FROM anchors WHERE chain = ?1 AND records = ?2")?;
        Ok(last.query_row(params![self.id, integer(records)], |row| row.get(0)).optional()?)
    }

    /// Compares a record with the anchor that says that it is the last, if that came before it.
    fn check_anchor(&self, db: &Connection, place: &Place) -> Result<(), StoreError> {
        let records = place.seq.saturating_add(1);
        if self.anchored < Some(records) {
            return Ok(());
        }
        match self.anchor(db, records)? {
            Some(last) if last != place.mac => add_contradiction(db, &place.chain, place.seq),
            _ => Ok(()),
        }
    }
}

fn add_contradiction(db: &Connection, chain: &str, seq: u64) -> Result<(), StoreError> {
    let text = "an anchor says that another record is at this place";
    findings::add(db, "contradiction", Some((chain, Some(seq))), text)
}

/// The span of a record and of those before and after it, and whether they follow one another.
fn joined(left: Option<&Span>, right: Option<&Span>, place: &Place) -> (Span, bool) {
    let Place { seq, prev, mac, .. } = place;
    let is_linked = left.is_none_or(|span| span.mac == *prev)
        && right.is_none_or(|span| span.prev == *mac)
        && (*seq > 0 || prev.is_empty());
    let span = Span {
        first: left.map_or(*seq, |span| span.first),
        last: right.map_or(*seq, |span| span.last),
        prev: left.map_or(prev, |span| &span.prev).clone(),
        mac: right.map_or(mac, |span| &span.mac).clone(),
    };
    (span, is_linked)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::super::schema;
    use super::*;

    fn place(seq: u64) -> Place {
        let mac = |seq: u64| format!("m{seq}");
        let prev = seq.checked_sub(1).map(mac).unwrap_or_default();
        Place { chain: "c".to_owned(), seq, prev, mac: mac(seq), host: None }
    }

    fn store() -> Connection {
        let mut db = Connection::open_in_memory().unwrap();
        schema::migrate(&mut db).unwrap();
        db
    }

    fn chain(db: &Connection) -> Chain {
        Chain::load(db, "c").unwrap()
    }

    fn spans(db: &Connection) -> Vec<Span> {
        let mut rows =
            db.prepare("SELECT first, last, prev, mac FROM spans ORDER BY first").unwrap();
        let rows = rows.query_map((), |row| {
            let (first, last) = (unsigned(row.get(0)?), unsigned(row.get(1)?));
            Ok(Span { first, last, prev: row.get(2)?, mac: row.get(3)? })
        });
        rows.unwrap().map(Result::unwrap).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// In whatever order they come, each record is new once, and the spans are what a set of numbers says; also if
        /// the chain is forgotten in between.
        #[test]
        fn records_are_taken_once_in_any_order(
            order in proptest::collection::vec((0_u64..40, proptest::bool::weighted(0.1)), 0..120),
        ) {
            let db = store();
            let (mut chain, mut seen) = (chain(&db), BTreeSet::new());
            for (seq, is_forgotten) in order {
                let expected = if seen.insert(seq) { Placed::New } else { Placed::Doubled };
                prop_assert_eq!(chain.place(&db, &place(seq)).unwrap(), expected);
                if is_forgotten {
                    chain.save(&db).unwrap();
                    chain = Chain::load(&db, "c").unwrap();
                }
            }
            chain.save(&db).unwrap();
            let spans = spans(&db);
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

    #[test]
    fn a_record_that_contradicts_its_neighbour_is_noticed_from_both_sides() {
        for (order, wrong) in [([0, 1], 1), ([1, 0], 0)] {
            let db = store();
            let mut chain = chain(&db);
            let other = |seq| {
                let mut place = place(seq);
                if seq == wrong && wrong == 1 {
                    place.prev = "x".to_owned();
                } else if seq == wrong {
                    place.mac = "x".to_owned();
                }
                place
            };
            assert_eq!(chain.place(&db, &other(order[0])).unwrap(), Placed::New);
            assert_eq!(chain.place(&db, &other(order[1])).unwrap(), Placed::Unlinked);
        }
        let first = Place { prev: "x".to_owned(), ..place(0) };
        let db = store();
        assert_eq!(chain(&db).place(&db, &first).unwrap(), Placed::Unlinked);
    }
}
