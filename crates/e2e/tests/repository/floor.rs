//! Compares the source of the floor module with the calls of the gate, and with the table of the page.

use std::collections::BTreeSet;

use vkey::alerts::anomaly::{Observation, Sensitivity};
use vkey::decision::{Decision, Mode};
use vkey::limits::cell::{Cell, key_name, tenant_name};
use vkey::limits::gcra::Rate;
use vkey::limits::quota::{Period, Quota, QuotaScope, Unit};
use vkey::limits::{Amounts, Charge, Limit, Origin, Scope};
use vkey::record::{Name, Record, encode};

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

/// The gate has a timer and calls of its own too, which run beside requests.
#[test]
fn it_is_called_back_as_often_as_the_gate() {
    let source = text(SOURCE);
    let mut of_gate: BTreeSet<&str> =
        EXPORTS.into_iter().filter(|name| name.starts_with("proxy_on_")).collect();
    assert!(of_gate.remove("proxy_on_tick") && of_gate.remove("proxy_on_http_call_response"));
    assert_eq!(callbacks(&source), of_gate);
}

/// A cell that has counted a request with a rate and a quota.
fn counted(origin: Origin, scope: Scope, per: Period) -> Cell {
    let rate = Limit::Rate(Rate::new(1000, 1, 1000).unwrap());
    let quota =
        Limit::Quota(Quota { unit: Unit::Requests, limit: 1000, per, scope: QuotaScope::Proxy });
    let charges = [rate, quota].map(|limit| Charge { origin, scope, limit });
    let mut cell = Cell::fresh();
    let counted = cell.count(
        Decision::Allow,
        &charges,
        &Amounts::default(),
        None,
        1_790_000_000 << 30,
        Mode::Enforce,
    );
    assert!(counted.reservation.is_some());
    cell
}

/// The size that the source says that the cell of that name has.
fn size(source: &str, name: &Name) -> usize {
    let (_, rest) = source.split_once(&format!("(\"{}\", ", name.as_str())).expect("its name");
    rest.split_once(')').and_then(|(size, _)| size.parse().ok()).expect("its size")
}

#[test]
fn its_cells_are_as_large_as_those_of_the_gate() {
    let source = text(SOURCE);
    let mut of_key = counted(Origin::Tier, Scope::Tier, Period::Day);
    of_key.set_tier("default");
    let source_address = "127.0.0.1".parse().ok();
    let seen = Observation { source: source_address, refused: false, now_secs: 1_790_000_000 };
    of_key.observe(&seen, Sensitivity::Medium);
    let of_tenant = counted(Origin::Tenant, Scope::Tenant, Period::Month);
    for (name, cell) in [
        (key_name("tenant-00", "k_0000000000000001"), of_key),
        (tenant_name("tenant-00"), of_tenant),
    ] {
        let real = encode(&name, &cell).len();
        let size = size(&source, &name);
        assert!(size.abs_diff(real) <= real / 10, "{size}, and a real one has {real} bytes");
    }
}
