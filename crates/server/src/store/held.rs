//! What a store has of a chain, to compare it with a backup.

use rusqlite::{Connection, OptionalExtension};

use super::{Gap, StoreError, unsigned};

/// What a store has of a chain. Deleted records count: their places are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    /// The numbers of consecutive records, first and last, in order, and never adjacent.
    pub(super) spans: Vec<(u64, u64)>,
    /// The number of records that its last anchor counts.
    pub(super) anchored: u64,
}

// === impl Held ===

impl Held {
    /// What a store has of a chain; nothing if it does not know it.
    pub(super) fn read(db: &Connection, chain: &str) -> Result<Self, StoreError> {
        let row = db
            .prepare_cached("SELECT id, anchored FROM chains WHERE name = ?1")?
            .query_row([chain], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((id, anchored)) = row else { return Ok(Self::default()) };
        let (id, anchored): (i64, Option<i64>) = (id, anchored);
        let mut spans =
            db.prepare_cached("SELECT first, last FROM spans WHERE chain = ?1 ORDER BY first")?;
        let spans =
            spans.query_map([id], |row| Ok((unsigned(row.get(0)?), unsigned(row.get(1)?))))?;
        let spans = spans.collect::<Result<_, _>>()?;
        Ok(Self { spans, anchored: unsigned(anchored.unwrap_or(0)) })
    }

    /// The number of records that the chain is known to have.
    fn known(&self) -> u64 {
        let next = self.spans.last().map_or(0, |(_, last)| last.saturating_add(1));
        next.max(self.anchored)
    }

    /// The records before `end` that are missing.
    fn gaps(&self, end: u64) -> impl Iterator<Item = Gap> {
        let ends = self.spans.iter().map(|(_, last)| last.saturating_add(1));
        let firsts = self.spans.iter().map(|(first, _)| *first);
        let starts = std::iter::once(0).chain(ends);
        starts
            .zip(firsts.chain([end]))
            .filter_map(move |(from, to)| Gap::between(from, to.min(end)))
    }

    /// The first of the records that an anchor in another copy counts and this one lacks, and how many there are. What
    /// both lack does not count, if this one knows that it is missing.
    pub(super) fn lacks(&self, seen: &Self) -> Option<(u64, u64)> {
        let known = self.known();
        let both =
            seen.spans.iter().map(|(first, last)| (*first, (*last).min(known.saturating_sub(1))));
        let both = both.filter(|(first, _)| *first < known);
        // Of records after those that this one knows of, it does not even know that they are missing.
        let later = Gap::between(known, seen.anchored).map(|gap| (gap.first, gap.last));
        let mut counted = both.chain(later).peekable();
        let mut lacking = None;
        for gap in self.gaps(seen.anchored) {
            while let Some((first, last)) = counted.peek().copied() {
                if let Some(common) = Gap::between(first.max(gap.first), last.min(gap.last) + 1) {
                    let (_, count) = lacking.get_or_insert((common.first, 0));
                    *count += common.last - common.first + 1;
                }
                if last > gap.last {
                    break;
                }
                counted.next();
            }
        }
        lacking
    }
}
