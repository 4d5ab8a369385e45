//! The results: of each case the numbers of its rounds, summed up and compared.

use crate::cases::{Case, Group};
use crate::rounds::{Row, Sample};
use crate::stats::{Spread, added, ratio};
use crate::targets::Cost;

/// With less of a core than this the proxy was not kept busy: by the load generator, or because
/// something else ran there.
const BUSY_CORES: f64 = 0.8;

/// The results of a group.
pub(crate) struct Summary {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What the cases are compared with.
    pub(crate) references: Vec<&'static str>,
    pub(crate) lines: Vec<Line>,
}

/// The results of a case.
pub(crate) struct Line {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// CPU time per request in each round, in microseconds.
    pub(crate) rounds: Vec<f64>,
    /// Requests in each round.
    pub(crate) requests: Vec<f64>,
    /// The times, summed up.
    pub(crate) us: Spread,
    /// What of it is more than without a filter, in the same round; `None` for a case without one.
    pub(crate) added: Option<Spread>,
    /// How many times what each reference adds that is.
    pub(crate) times: Vec<Option<f64>>,
    /// Requests per second.
    pub(crate) rate: Spread,
    /// How many cores the proxy used.
    pub(crate) cores: Spread,
}

impl Summary {
    pub(crate) fn new(group: &Group, rows: &[Row]) -> Self {
        let references = group.references.iter().map(|(title, _)| *title).collect();
        let lines = rows.iter().filter_map(|row| line(group, rows, row)).collect();
        Self { name: group.name, title: group.title, references, lines }
    }

    /// The cases in which the proxy was not kept busy. What they cost is not to be trusted.
    pub(crate) fn idle(&self) -> Vec<&'static str> {
        let idle = self.lines.iter().filter(|line| line.cores.median < BUSY_CORES);
        idle.map(|line| line.id).collect()
    }

    /// What a case costs.
    pub(crate) fn cost(&self, id: &str) -> Option<Cost> {
        let line = self.lines.iter().find(|line| line.id == id)?;
        let added = line.added.map_or(0.0, |added| added.median);
        Some(Cost { whole: line.us.median, added })
    }
}

fn line(group: &Group, rows: &[Row], row: &Row) -> Option<Line> {
    let Case { id, title, base, .. } = row.case;
    let own = added_by(rows, &row.case)?;
    let times = group.references.iter().map(|(_, reference)| {
        let reference = if *reference == "noop" { row.case.noop } else { reference };
        let reference = rows.iter().find(|row| row.case.id == reference)?;
        ratio(own.median, added_by(rows, &reference.case)?.median)
    });
    let rounds = each(row, Sample::us);
    Some(Line {
        id,
        title,
        us: Spread::of(&rounds)?,
        requests: each(row, |sample| sample.requests),
        rounds,
        added: (id != base).then_some(own),
        times: times.map(|times| times.filter(|_| id != base)).collect(),
        rate: Spread::of(&each(row, Sample::rate))?,
        cores: Spread::of(&each(row, Sample::cores))?,
    })
}

fn added_by(rows: &[Row], case: &Case) -> Option<Spread> {
    let rounds = |id| Some(each(rows.iter().find(|row| row.case.id == id)?, Sample::us));
    Spread::of(&added(&rounds(case.id)?, &rounds(case.base)?))
}

fn each(row: &Row, of: impl Fn(&Sample) -> f64) -> Vec<f64> {
    row.samples.iter().map(of).collect()
}
