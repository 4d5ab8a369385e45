//! The instructions that were counted, per request, compared and as text.

use crate::callgrind::Count;
use crate::stats::ratio;
use crate::table::Table;
use crate::targets::Cost;

/// What the cases are compared with, besides the module that does nothing.
const FLOOR: &str = "floor";
const NATIVE: &str = "native";

/// What was counted of a case.
pub(crate) struct Tally {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// The case without a filter that this one is measured over.
    pub(crate) base: &'static str,
    /// The case with the module that does nothing.
    pub(crate) noop: &'static str,
    pub(crate) requests: u32,
    /// For all these requests.
    pub(crate) count: Count,
}

/// A case beside the others, per request.
struct Line {
    all: f64,
    compiled: f64,
    /// What of it is more than without a filter; `None` for a case without one.
    added: Option<f64>,
    /// How many times what the module that does nothing adds that is.
    to_noop: Option<f64>,
    /// The same with the module that makes only the calls that the job needs.
    to_floor: Option<f64>,
    /// The same with Envoy's own filters.
    to_native: Option<f64>,
}

/// For the terminal and for docs/performance.md, in thousands.
pub(crate) fn table(tallies: &[Tally]) -> Table {
    let head = [
        "thousand instructions per request",
        "all",
        "added",
        "JIT code",
        "× no-op",
        "× floor",
        "× native",
    ];
    let rows = tallies.iter().map(|tally| {
        let line = line(tallies, tally);
        let times = |times: Option<f64>| or(times, "–", |times| format!("{times:.2}"));
        vec![
            tally.title.to_owned(),
            format!("{:.1}", line.all / 1e3),
            or(line.added, "–", |added| format!("{:+.1}", added / 1e3)),
            format!("{:.1}", line.compiled / 1e3),
            times(line.to_noop),
            times(line.to_floor),
            times(line.to_native),
        ]
    });
    Table::new(head.map(str::to_owned).to_vec(), rows.collect())
}

/// All numbers: what they were counted on, then a line for each case.
pub(crate) fn csv(tallies: &[Tally], machine: &str) -> String {
    let mut text = format!(
        "# {machine}\n# instructions per request in user space; added: over the case without a filter\n\
         case,title,instructions,added,jit_code,times_noop,times_floor,times_native,requests\n",
    );
    for tally in tallies {
        let line = line(tallies, tally);
        let times = |times: Option<f64>| or(times, "", |times| format!("{times:.3}"));
        let fields = [
            tally.id.to_owned(),
            format!("\"{}\"", tally.title),
            format!("{:.0}", line.all),
            or(line.added, "", |added| format!("{added:.0}")),
            format!("{:.0}", line.compiled),
            times(line.to_noop),
            times(line.to_floor),
            times(line.to_native),
            tally.requests.to_string(),
        ];
        text.push_str(&(fields.join(",") + "\n"));
    }
    text
}

fn line(tallies: &[Tally], tally: &Tally) -> Line {
    let added = added(tallies, tally.id);
    let times = |other| ratio(added?, self::added(tallies, other)?);
    Line {
        all: tally.each(tally.count.all),
        compiled: tally.each(tally.count.compiled),
        added,
        to_noop: times(tally.noop),
        to_floor: times(FLOOR),
        to_native: times(NATIVE),
    }
}

/// What a case costs, in instructions.
pub(crate) fn cost(tallies: &[Tally], id: &str) -> Option<Cost> {
    let tally = tallies.iter().find(|tally| tally.id == id)?;
    let added = added(tallies, id).unwrap_or(0.0);
    Some(Cost { whole: tally.each(tally.count.all), added })
}

/// What a case takes more than the one without a filter.
fn added(tallies: &[Tally], id: &str) -> Option<f64> {
    let find = |id: &str| tallies.iter().find(|tally| tally.id == id);
    let tally = find(id).filter(|tally| tally.base != id)?;
    let base = find(tally.base)?;
    Some(tally.each(tally.count.all) - base.each(base.count.all))
}

fn or(value: Option<f64>, nothing: &str, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| nothing.to_owned(), text)
}

// === impl Tally ===

impl Tally {
    #[allow(clippy::cast_precision_loss, reason = "counts of a benchmark are far below 2^52")]
    fn each(&self, instructions: u64) -> f64 {
        instructions as f64 / f64::from(self.requests)
    }
}
