//! `vkey audit query`: prints records of the store of `vkey serve`.

use std::path::PathBuf;

use vkey_server::store::{By, Filter, Reader, Status, StoredRecord, Usage, UsageFilter};

use super::store::StoreFailure;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{Output, OutputError};
use crate::text::{ascii_line, escape_line, escape_word};
use crate::time;
use crate::usage::id;

/// The records that are read at a time.
const PAGE: u64 = 1000;

const SECS_PER_DAY: u64 = 86_400;

/// The columns of the table of records.
const COLUMNS: [&str; 8] = ["time", "status", "code", "tenant", "key", "method", "path", "reason"];

const AFTER_HELP: &str = "\
Records are printed as a table, the latest first. TIME is RFC 3339, Unix seconds, or how long ago, e.g. 24h.

Exit codes: 0 success, also if no record matches; 1 the file is not a store, or damaged; 2 invalid usage; 3 a file or \
the system failed.";

#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The store
    #[arg(long, value_name = "FILE")]
    store: PathBuf,
    /// Only requests that were refused or whose response is an error, or only the others
    #[arg(long, value_enum)]
    status: Option<Outcome>,
    /// Only requests with this HTTP status
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=999))]
    code: Option<u64>,
    /// Only requests with a key of this tenant
    #[arg(long, value_name = "ID", value_parser = id)]
    tenant: Option<String>,
    /// Only requests with the key of this id
    #[arg(long, value_name = "ID", value_parser = id)]
    key: Option<String>,
    /// Only requests with a key that was given to this app, user or agent
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Only requests that were refused for this reason
    #[arg(long, value_name = "REASON")]
    reason: Option<String>,
    /// Only requests to this model
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Only calls of this MCP tool
    #[arg(long, value_name = "NAME")]
    tool: Option<String>,
    /// Only requests with this method
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only requests to this path; with * at its end, to all that begin with what is before it
    #[arg(long, value_name = "PATH")]
    path: Option<String>,
    /// Only the request with this id
    #[arg(long, value_name = "ID")]
    request_id: Option<String>,
    /// Only requests with which the use of a key became unusual
    #[arg(long)]
    anomalies: bool,
    /// Only requests from this time on
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    from: Option<When>,
    /// Only requests before this time
    #[arg(long, value_name = "TIME", value_parser = When::parse)]
    to: Option<When>,
    /// The most records or rows
    #[arg(long, value_name = "N", default_value = "50", value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Print the audit lines
    #[arg(long)]
    lines: bool,
    /// Print what the requests of whole days (UTC) come to, by key, tenant, model, tool, reason, verdict or day
    #[arg(long, value_name = "BY", value_parser = parse_by, conflicts_with_all = NOT_OF_TOTALS)]
    usage_by: Option<By>,
}

/// The options for which there are no totals.
const NOT_OF_TOTALS: [&str; 8] =
    ["status", "code", "user", "method", "path", "request_id", "anomalies", "lines"];

/// How a request ended.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Outcome {
    Failed,
    Success,
}

/// A time.
#[derive(Clone, Copy)]
enum When {
    /// Unix seconds.
    At(u64),
    /// This many seconds ago.
    Ago(u64),
}

/// A table that is printed while it is read: a column becomes wider, never narrower.
struct Table<const N: usize> {
    widths: [usize; N],
}

/// Runs `vkey audit query`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let failure = |error| StoreFailure::new("the file named by --store", error);
    let reader = Reader::open(&args.store).map_err(failure)?;
    if let Some(by) = args.usage_by {
        let rows = reader.usage(by, &args.usage_filter()?).map_err(failure)?;
        let rows = rows.iter().map(|row| usage_row(&row.name, &row.usage));
        print_usage(by, &Vec::from_iter(rows), out)?;
        return Ok(Exit::Success);
    }
    let mut filter = args.filter()?;
    let (mut left, mut table) = (args.limit, Table::new());
    let mut is_first = true;
    while left > 0 && !out.is_closed() {
        filter.limit = left.min(PAGE);
        let found = reader.records(&filter).map_err(failure)?;
        args.print(&found.records, is_first, &mut table, out)?;
        (filter.cursor, is_first) = (found.next, false);
        left = left.saturating_sub(filter.limit);
        if filter.cursor.is_none() {
            return Ok(Exit::Success);
        }
    }
    if !out.is_closed() {
        out.note("there are more records; --limit says how many are printed");
    }
    Ok(Exit::Success)
}

fn parse_by(text: &str) -> Result<By, &'static str> {
    let found = By::ALL.into_iter().find(|(name, _)| *name == text);
    let by = found.map(|(_, by)| by);
    by.ok_or("expected key, tenant, model, tool, reason, verdict or day")
}

fn print_usage(by: By, rows: &[[String; 8]], out: &mut Output) -> Result<(), OutputError> {
    if rows.is_empty() {
        return out.line("no request matches");
    }
    let sums = ["requests", "failed", "refused", "tokens_in", "tokens_out", "tokens", "micro_usd"];
    let mut names = [by.name(); 8];
    names.iter_mut().skip(1).zip(sums).for_each(|(name, sum)| *name = sum);
    Table::new().print(Some(names), rows, out)
}

fn usage_row(name: &str, usage: &Usage) -> [String; 8] {
    let Usage { requests, failed, refused, tokens_in, tokens_out, tokens, cost } = *usage;
    let name = shown(Some(name).filter(|name| !name.is_empty()));
    let [requests, failed, refused] = [requests, failed, refused].map(|sum| sum.to_string());
    let [tokens_in, tokens_out, tokens] =
        [tokens_in, tokens_out, tokens].map(|sum| sum.to_string());
    [name, requests, failed, refused, tokens_in, tokens_out, tokens, cost.to_string()]
}

fn record_row(record: &StoredRecord) -> [String; COLUMNS.len()] {
    let status = if record.is_failed { "failed" } else { "success" };
    [
        time::rfc3339(record.ts_micros / 1_000_000),
        status.to_owned(),
        record.code.map_or("-".to_owned(), |code| code.to_string()),
        shown(record.tenant.as_deref()),
        shown(record.key.as_deref()),
        shown(record.method.as_deref()),
        shown(record.path.as_deref()),
        shown(record.reason.as_deref()),
    ]
}

/// Untrusted text as one word of a line.
fn shown(text: Option<&str>) -> String {
    let Some(text) = text else { return "-".to_owned() };
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\');
    let is_word = !matches!(text, "" | "-") && text.bytes().all(plain);
    if is_word { escape_line(text) } else { escape_word(text) }
}

// === impl Args ===

impl Args {
    fn filter(&self) -> Result<Filter, Error> {
        let micros = |when: Option<When>| Ok::<_, Error>(secs(when)?.map(|secs| secs * 1_000_000));
        Ok(Filter {
            status: self.status.map(|status| match status {
                Outcome::Failed => Status::Failed,
                Outcome::Success => Status::Success,
            }),
            code: self.code,
            tenant: self.tenant.clone(),
            key: self.key.clone(),
            user: self.user.clone(),
            reason: self.reason.clone(),
            model: self.model.clone(),
            tool: self.tool.clone(),
            method: self.method.clone(),
            path: self.path.clone(),
            request_id: self.request_id.clone(),
            anomalies: self.anomalies,
            from_micros: micros(self.from)?,
            to_micros: micros(self.to)?,
            limit: self.limit,
            cursor: None,
        })
    }

    fn usage_filter(&self) -> Result<UsageFilter, Error> {
        let last_day = |secs: u64| secs.saturating_sub(1) / SECS_PER_DAY;
        Ok(UsageFilter {
            tenant: self.tenant.clone(),
            key: self.key.clone(),
            model: self.model.clone(),
            tool: self.tool.clone(),
            reason: self.reason.clone(),
            from_day: secs(self.from)?.map(|secs| secs / SECS_PER_DAY),
            to_day: secs(self.to)?.map(last_day),
            limit: self.limit,
        })
    }

    fn print(
        &self,
        records: &[StoredRecord],
        is_first: bool,
        table: &mut Table<{ COLUMNS.len() }>,
        out: &mut Output,
    ) -> Result<(), OutputError> {
        match (self.lines, records) {
            // The rest was deleted meanwhile.
            (_, []) if !is_first => {}
            (true, []) => out.note("no record matches"),
            (false, []) => out.line("no record matches")?,
            (true, _) => {
                records.iter().try_for_each(|record| out.line(ascii_line(&record.line)))?;
            }
            (false, _) => {
                let rows = Vec::from_iter(records.iter().map(record_row));
                table.print(is_first.then_some(COLUMNS), &rows, out)?;
            }
        }
        Ok(())
    }
}

// === impl When ===

impl When {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let at = time::parse(text).map(Self::At);
        let when = at.or_else(|_| time::parse_duration(text).map(Self::Ago));
        when.map_err(|_| {
            "expected a time, e.g. 2026-12-31T23:59:59Z or 1798761599, or how long ago, e.g. 24h"
        })
    }
}

/// A time in Unix seconds.
fn secs(when: Option<When>) -> Result<Option<u64>, Error> {
    Ok(match when {
        None => None,
        Some(When::At(secs)) => Some(secs),
        Some(When::Ago(secs)) => Some(time::now(None)?.saturating_sub(secs)),
    })
}

// === impl Table ===

impl<const N: usize> Table<N> {
    fn new() -> Self {
        Self { widths: [0; N] }
    }

    fn print(
        &mut self,
        names: Option<[&str; N]>,
        rows: &[[String; N]],
        out: &mut Output,
    ) -> Result<(), OutputError> {
        let names = names.map(|names| names.map(str::to_owned));
        let rows = || names.iter().chain(rows);
        for row in rows() {
            for (width, cell) in self.widths.iter_mut().zip(row) {
                *width = (*width).max(cell.len());
            }
        }
        for row in rows() {
            let cells = row.iter().zip(self.widths).map(|(cell, width)| format!("{cell:<width$}"));
            out.line(Vec::from_iter(cells).join("  ").trim_end())?;
        }
        Ok(())
    }
}
