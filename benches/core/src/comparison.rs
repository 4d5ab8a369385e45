//! Compares two tables and checks for regressions.

use std::fmt::Write as _;

use super::table::{Row, Table};

/// The most that instructions and allocations may rise above the baseline, in percent.
const MAX_RISE: u64 = 5;

/// Smaller changes of instructions are not shown, in percent: any change of the sources affects unrelated
/// counts a little.
const MIN_SHOWN: f64 = 1.0;

/// Two tables, scenario by scenario.
pub(crate) struct Comparison<'a> {
    base: &'a Table,
    now: &'a Table,
    pairs: Vec<Pair<'a>>,
}

/// A scenario that both tables have.
struct Pair<'a> {
    base: &'a Row,
    now: &'a Row,
}

impl<'a> Comparison<'a> {
    pub(crate) fn new(base: &'a Table, now: &'a Table) -> Self {
        let pair = |now| Some(Pair { base: find(base, now)?, now });
        Self { base, now, pairs: now.rows.iter().filter_map(pair).collect() }
    }

    /// Whether both were counted on the same kind of machine, i.e. with the same instruction set.
    pub(crate) fn is_of_one_machine(&self) -> bool {
        let machine = |table: &'a Table| table.counted_on.split(',').next();
        machine(self.base) == machine(self.now)
    }

    /// Why the new table is not accepted, one line for each problem.
    pub(crate) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.pairs.iter().flat_map(Pair::problems).collect();
        let gone = missing(self.base, self.now);
        problems.extend(gone.map(|name| format!("{name}: in the baseline, and was not counted")));
        let new = missing(self.now, self.base);
        problems.extend(new.map(|name| format!("{name}: was counted, and is not in the baseline")));
        problems
    }

    /// The changes, for a terminal.
    pub(crate) fn to_text(&self) -> String {
        let moved: Vec<_> = self.moved().collect();
        let width = moved.iter().map(|pair| pair.now.scenario.len()).max().unwrap_or_default();
        let mut text = format!(
            "{} of {} scenarios moved by {MIN_SHOWN} % or more, or in allocations or host calls\n",
            moved.len(),
            self.pairs.len()
        );
        for Pair { base, now } in moved {
            let (was, is) = (base.instructions, now.instructions);
            _ = writeln!(
                text,
                "{:width$} {was:>9} -> {is:>9} {:>+7.1} %  allocations {}  host calls {}",
                now.scenario,
                change(was, is),
                arrow(base.allocations, now.allocations),
                arrow(base.host_calls(), now.host_calls()),
            );
        }
        if self.base.counted_on != self.now.counted_on {
            _ = writeln!(text, "the baseline was counted on {}", self.base.counted_on);
            _ = writeln!(text, "what is here was counted on {}", self.now.counted_on);
        }
        text
    }

    /// The changes, as a Markdown table.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = "| scenario | instructions | | allocations | host calls |\n".to_owned();
        text.push_str("|---|---:|---:|---:|---:|\n");
        for Pair { base, now } in self.moved() {
            let (was, is) = (base.instructions, now.instructions);
            _ = writeln!(
                text,
                "| {} | {was} -> {is} | {:+.1} % | {} | {} |",
                now.scenario,
                change(was, is),
                arrow(base.allocations, now.allocations),
                arrow(base.host_calls(), now.host_calls()),
            );
        }
        for name in missing(self.now, self.base) {
            _ = writeln!(text, "| {name} | new | | | |");
        }
        for name in missing(self.base, self.now) {
            _ = writeln!(text, "| {name} | gone | | | |");
        }
        let still = self.pairs.len() - self.moved().count();
        _ = writeln!(
            text,
            "\n{still} scenarios moved by less than {MIN_SHOWN} %, and in nothing else."
        );
        text
    }

    fn moved(&self) -> impl Iterator<Item = &Pair<'a>> {
        self.pairs.iter().filter(|pair| pair.moved())
    }
}

impl Pair<'_> {
    fn moved(&self) -> bool {
        let Self { base, now } = self;
        change(base.instructions, now.instructions).abs() >= MIN_SHOWN
            || base.allocations != now.allocations
            || base.calls != now.calls
    }

    fn problems(&self) -> Vec<String> {
        let Self { base, now } = self;
        let name = &now.scenario;
        let mut problems = Vec::new();
        for (what, was, is) in [
            ("instructions", base.instructions, now.instructions),
            ("allocations", base.allocations, now.allocations),
        ] {
            if is * 100 > was * (100 + MAX_RISE) {
                problems.push(format!(
                    "{name}: {was} -> {is} {what}; at most {MAX_RISE} % more are allowed"
                ));
            }
        }
        if now.host_calls() > base.host_calls() {
            let calls = arrow(base.host_calls(), now.host_calls());
            problems.push(format!("{name}: {calls} host calls; none may be added"));
        }
        problems
    }
}

fn find<'a>(table: &'a Table, row: &Row) -> Option<&'a Row> {
    table.rows.iter().find(|found| found.scenario == row.scenario)
}

/// The scenarios of one table that the other lacks.
fn missing<'a>(of: &'a Table, other: &Table) -> impl Iterator<Item = &'a str> {
    let lacks = |row: &&Row| find(other, row).is_none();
    of.rows.iter().filter(lacks).map(|row| row.scenario.as_str())
}

/// The change in percent.
fn change(was: u64, is: u64) -> f64 {
    (is as f64 / was as f64 - 1.0) * 100.0
}

fn arrow(was: u64, is: u64) -> String {
    if was == is { is.to_string() } else { format!("{was} -> {is}") }
}
