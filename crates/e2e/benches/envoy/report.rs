//! The results as text: for the terminal, as Markdown for docs/performance.md, as CSV.

use crate::machine::Machine;
use crate::start::Start;
use crate::stats::Spread;
use crate::summary::{Line, Summary};
use crate::table::Table;

/// A group for the terminal and for docs/performance.md.
pub(crate) fn group(summary: &Summary) -> Table {
    let mut head = vec!["CPU per request".to_owned(), "µs".to_owned(), "added".to_owned()];
    head.push("from – to".to_owned());
    head.extend(summary.references.iter().map(|title| format!("× {title}")));
    let rows = summary.lines.iter().map(|line| {
        let mut row = vec![line.title.to_owned(), format!("{:.1}", line.us.median)];
        row.push(or_dash(line.added, |added| format!("+{:.1}", added.median).replace("+-", "-")));
        row.push(or_dash(line.added, |Spread { min, max, .. }| format!("{min:.1} – {max:.1}")));
        row.extend(line.times.iter().map(|times| or_dash(*times, |times| format!("{times:.2}"))));
        row
    });
    Table::new(head, rows.collect())
}

/// What it takes to start.
pub(crate) fn start(starts: &[Start], machine: &Machine) -> Table {
    let head =
        ["Envoy with", "bytes", "ready after, ms", "added", "memory, MiB", "per worker, MiB"];
    let sizes = [None, Some(machine.noop_bytes), Some(machine.module_bytes)];
    let rows = starts.iter().zip(sizes).map(|(start, bytes)| {
        vec![
            start.title.to_owned(),
            or_dash(bytes, |bytes| bytes.to_string()),
            format!("{:.0}", start.ms.median),
            or_dash(start.added_ms, |ms| format!("{ms:+.0}")),
            format!("{:.1}", start.mib.median),
            or_dash(start.worker_mib, |mib| format!("{mib:+.2}")),
        ]
    });
    Table::new(head.map(str::to_owned).to_vec(), rows.collect())
}

/// All numbers of the cases: what they were measured on, then a line for each case.
pub(crate) fn csv(summaries: &[Summary], machine: &Machine) -> String {
    let mut text = format!(
        "# {machine}\n# times in microseconds of CPU per request; added: over the case without a filter in the same round\n\
         group,case,title,us,us_min,us_max,added,added_min,added_max,requests_per_s,cores,compared,us_of_rounds,requests_of_rounds\n",
    );
    for summary in summaries {
        for line in &summary.lines {
            text.push_str(&csv_line(summary, line));
        }
    }
    text
}

fn csv_line(summary: &Summary, line: &Line) -> String {
    let spread = |Spread { median, min, max }| format!("{median:.3},{min:.3},{max:.3}");
    let compared = summary
        .references
        .iter()
        .zip(&line.times)
        .filter_map(|(title, times)| times.map(|times| format!("{times:.3} x {title}")));
    let rounds: Vec<_> = line.rounds.iter().map(|us| format!("{us:.3}")).collect();
    let requests: Vec<_> = line.requests.iter().map(|count| format!("{count:.0}")).collect();
    let fields = [
        summary.name.to_owned(),
        line.id.to_owned(),
        format!("\"{}\"", line.title),
        spread(line.us),
        line.added.map_or_else(|| ",,".to_owned(), spread),
        format!("{:.0}", line.rate.median),
        format!("{:.2}", line.cores.median),
        compared.collect::<Vec<_>>().join("; "),
        rounds.join(" "),
        requests.join(" "),
    ];
    fields.join(",") + "\n"
}

/// What it takes to start, as CSV.
pub(crate) fn start_csv(starts: &[Start], machine: &Machine) -> String {
    let mut text = format!(
        "# {machine}\nenvoy_with,ready_ms,ready_ms_min,ready_ms_max,added_ms,mib,mib_min,mib_max,mib_per_worker\n"
    );
    for Start { title, ms, added_ms, mib, worker_mib } in starts {
        let spread =
            |Spread { median, min, max }: &Spread| format!("{median:.2},{min:.2},{max:.2}");
        let optional =
            |number: &Option<f64>| number.map_or_else(String::new, |n| format!("{n:.2}"));
        let (ms, mib) = (spread(ms), spread(mib));
        text.push_str(&format!(
            "\"{title}\",{ms},{},{mib},{}\n",
            optional(added_ms),
            optional(worker_mib)
        ));
    }
    text
}

fn or_dash<T>(value: Option<T>, text: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), text)
}
