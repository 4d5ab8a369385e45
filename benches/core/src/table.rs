//! Tables of counts, and their CSV form.

use std::fmt::Write as _;

/// The columns before the kinds of host calls.
const COLUMNS: [&str; 4] = ["scenario", "instructions", "allocations", "host_calls"];

/// The start of the first line, which names the machine and the tools.
const COUNTED_ON: &str = "# counted on ";

/// The counts of all scenarios.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// The machine, a comma, and the tools: what the counts depend on besides the sources.
    pub(crate) counted_on: String,
    /// The kinds of host calls.
    pub(crate) kinds: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// The counts of one scenario.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) instructions: u64,
    pub(crate) allocations: u64,
    /// Host calls by kind.
    pub(crate) calls: Vec<u64>,
}

impl Table {
    /// Parses CSV.
    ///
    /// # Errors
    ///
    /// The problem and its line.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = (1..).zip(text.lines()).peekable();
        let first = lines.next_if(|(_, line)| line.starts_with('#'));
        let counted_on = first.and_then(|(_, line)| line.strip_prefix(COUNTED_ON));
        let columns = lines.next().map(|(_, line)| line.split(',')).into_iter().flatten();
        let columns: Vec<&str> = columns.collect();
        let Some(kinds) = columns.strip_prefix(COLUMNS.as_slice()) else {
            return Err(format!("expected the columns {}", COLUMNS.join(",")));
        };
        let row = |(number, line): (usize, &str)| {
            Row::parse(line, kinds.len()).ok_or_else(|| format!("line {number}: not a row: {line}"))
        };
        Ok(Self {
            counted_on: counted_on.unwrap_or_default().to_owned(),
            kinds: kinds.iter().copied().map(str::to_owned).collect(),
            rows: lines.map(row).collect::<Result<_, _>>()?,
        })
    }

    /// As CSV. The first line names the machine and the tools, the second the columns.
    pub(crate) fn to_csv(&self) -> String {
        let kinds = self.kinds.iter().map(String::as_str);
        let columns: Vec<&str> = COLUMNS.into_iter().chain(kinds).collect();
        let mut csv = format!("{COUNTED_ON}{}\n{}\n", self.counted_on, columns.join(","));
        for row in &self.rows {
            let Row { scenario, instructions, allocations, calls } = row;
            _ = write!(csv, "{scenario},{instructions},{allocations},{}", row.host_calls());
            for calls in calls {
                _ = write!(csv, ",{calls}");
            }
            csv.push('\n');
        }
        csv
    }

    /// The table for a terminal.
    pub(crate) fn to_text(&self) -> String {
        let width = self.rows.iter().map(|row| row.scenario.len()).max().unwrap_or_default();
        let mut text = format!("{:width$} instructions allocations host calls\n", COLUMNS[0]);
        for row in &self.rows {
            let Row { scenario, instructions, allocations, .. } = row;
            let line = format!(
                "{scenario:width$} {instructions:>12} {allocations:>11} {:>10} {}",
                row.host_calls(),
                self.calls_by_kind(row)
            );
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn calls_by_kind(&self, row: &Row) -> String {
        let kinds = self.kinds.iter().zip(&row.calls).filter(|(_, calls)| **calls > 0);
        let shown: Vec<String> = kinds.map(|(kind, calls)| format!("{kind} {calls}")).collect();
        shown.join(", ")
    }
}

impl Row {
    /// All host calls.
    pub(crate) fn host_calls(&self) -> u64 {
        self.calls.iter().sum()
    }

    fn parse(line: &str, kinds: usize) -> Option<Self> {
        let (scenario, counts) = line.split_once(',')?;
        let counts: Vec<u64> = counts.split(',').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [instructions, allocations, host_calls, calls @ ..] = counts.as_slice() else {
            return None;
        };
        let row = Self {
            scenario: scenario.to_owned(),
            instructions: *instructions,
            allocations: *allocations,
            calls: calls.to_vec(),
        };
        let adds_up = calls.len() == kinds && row.host_calls() == *host_calls;
        (adds_up && !scenario.is_empty()).then_some(row)
    }
}
