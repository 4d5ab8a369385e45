//! The module of unavoidable calls, as its source is: it stands for what the gate does and for what the page says.

use std::collections::BTreeSet;

use crate::module::{EXPORTS, HOST_CALLS};
use crate::text;

const SOURCE: &str = "benches/floor/src/lib.rs";

/// Called once, when the module is configured.
const DEFINE_METRIC: &str = "proxy_define_metric";

/// The names that begin with that word and come after a text.
fn names_after<'a>(source: &'a str, before: &str, word: &str) -> BTreeSet<&'a str> {
    let names = source.split(before).skip(1).filter_map(|rest| rest.split('(').next());
    names.filter(|name| name.starts_with(word)).collect()
}

fn host_calls(source: &str) -> BTreeSet<&str> {
    names_after(source, "pub(super) fn ", "proxy_")
}

fn callbacks(source: &str) -> BTreeSet<&str> {
    names_after(source, "extern \"C\" fn ", "proxy_on_")
}

#[test]
fn the_documentation_says_what_each_call_is_for() {
    let page = text("docs/performance.md");
    let table = page.split("| call |").nth(1).expect("a table of calls");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let told: BTreeSet<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
    let source = text(SOURCE);
    let mut made: BTreeSet<&str> = host_calls(&source);
    assert!(made.remove(DEFINE_METRIC));
    let called_back = ["proxy_on_request_headers", "proxy_on_response_headers", "proxy_on_log"];
    assert_eq!(told, &made | &BTreeSet::from(called_back));
}

#[test]
fn it_makes_no_call_that_the_gate_does_not_make() {
    let source = text(SOURCE);
    assert!(host_calls(&source).is_subset(&HOST_CALLS.into()));
}

/// The gate has a timer too, which runs beside requests.
#[test]
fn it_is_called_back_as_often_as_the_gate() {
    let source = text(SOURCE);
    let mut of_gate: BTreeSet<&str> =
        EXPORTS.into_iter().filter(|name| name.starts_with("proxy_on_")).collect();
    assert!(of_gate.remove("proxy_on_tick"));
    assert_eq!(callbacks(&source), of_gate);
}
