//! What the store comes to, in numbers that are cheap to read.

use std::collections::BTreeMap;

use super::{Id, Reader, StoreError, alerts, counters, integer, unsigned};

/// What the store comes to, all of it at one time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// What was counted since the store was made: see [`Reader::counters`].
    pub counters: BTreeMap<String, u64>,
    /// The chains that no anchor has ended.
    pub open_chains: u64,
    /// The records that are missing, of all chains.
    pub missing: u64,
    /// When the latest request began, Unix microseconds.
    pub latest_micros: Option<u64>,
    /// The alerts that the receiver of alerts has yet to take, and that are not older than a day.
    pub undelivered: u64,
}

impl Reader {
    /// What the store comes to.
    ///
    /// # Errors
    ///
    /// [`StoreError`]
    pub fn measures(&self, now_secs: u64) -> Result<Measures, StoreError> {
        // One transaction, so that the numbers are of one time.
        let db = self.db.unchecked_transaction()?;
        let latest: Option<i64> =
            db.query_row("SELECT max(id) FROM records", (), |row| row.get(0))?;
        let mut measures = Measures {
            counters: counters::all(&db)?.into_iter().collect(),
            latest_micros: latest.map(|id| Id(id).micros()),
            undelivered: alerts::count_undelivered(&db, now_secs)?,
            ..Measures::default()
        };
        let mut chains = db.prepare_cached(
            "SELECT anchored, closed, max(last), sum(last - first + 1)
             FROM chains LEFT JOIN spans ON spans.chain = chains.id GROUP BY chains.id",
        )?;
        let mut rows = chains.query(())?;
        while let Some(row) = rows.next()? {
            let number = |index| row.get::<_, Option<i64>>(index).map(|found| found.map(unsigned));
            let next = number(2)?.map_or(0, |last| last.saturating_add(1));
            let records = next.max(number(0)?.unwrap_or(0));
            let missing = records.saturating_sub(number(3)?.unwrap_or(0));
            measures.missing = measures.missing.saturating_add(missing);
            measures.open_chains += u64::from(number(1)? != Some(records));
        }
        measures.missing = measures.missing.min(unsigned(integer(u64::MAX)));
        Ok(measures)
    }
}
