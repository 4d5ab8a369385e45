//! The tables of `make bench-core` (`benches/core`): how they are read, compared and held against the baseline.

#[path = "../../../../benches/core/src/comparison.rs"]
mod comparison;
#[path = "../../../../benches/core/src/profile.rs"]
mod profile;
#[path = "../../../../benches/core/src/table.rs"]
mod table;

use std::collections::BTreeSet;
use std::fs;

use self::comparison::Comparison;
use self::profile::Profile;
use self::table::{Row, Table};
use vkey::json::Json;

use crate::{root, text};

const BASE: &str = "\
# counted on x86_64 with AVX2, rustc 1.95.0
scenario,instructions,allocations,host_calls,clock,property
gate/cached/request,10000,50,5,2,3
keys/plain/verify,40000,32,0,0,0
";

fn table(text: &str) -> Table {
    Table::parse(text).unwrap()
}

/// What is said against a table that differs from the base in one text.
fn problems(right: &str, wrong: &str) -> Vec<String> {
    let changed = BASE.replace(right, wrong);
    assert_ne!(changed, BASE, "{right}");
    Comparison::new(&table(BASE), &table(&changed)).problems()
}

#[test]
fn a_table_reads_back() {
    let base = table(BASE);
    assert_eq!(base.to_csv(), BASE);
    assert_eq!(base.counted_on, "x86_64 with AVX2, rustc 1.95.0");
    assert_eq!(base.kinds, ["clock", "property"]);
    assert_eq!(base.rows[0].calls, [2, 3]);
}

#[test]
fn a_table_that_is_wrong_is_refused() {
    for (right, wrong, said) in [
        (BASE, "", "expected the columns scenario,instructions,allocations,host_calls"),
        ("instructions,", "", "expected the columns scenario,instructions,allocations,host_calls"),
        ("10000", "many", "line 3: not a row: gate/cached/request,many,50,5,2,3"),
        ("5,2,3", "6,2,3", "line 3: not a row: gate/cached/request,10000,50,6,2,3"),
        ("5,2,3", "5,5", "line 3: not a row: gate/cached/request,10000,50,5,5"),
        ("keys/plain/verify", "", "line 4: not a row: ,40000,32,0,0,0"),
    ] {
        let error = Table::parse(&BASE.replace(right, wrong)).unwrap_err();
        assert_eq!(error, said);
    }
}

#[test]
fn a_terminal_shows_calls_by_kind() {
    assert_eq!(
        table(BASE).to_text(),
        "scenario            instructions allocations host calls\n\
         gate/cached/request        10000          50          5 clock 2, property 3\n\
         keys/plain/verify          40000          32          0\n"
    );
}

#[test]
fn instructions_may_rise_by_five_percent() {
    for (instructions, accepted) in
        [("1", true), ("10000", true), ("10500", true), ("10501", false), ("20000", false)]
    {
        let now = table(&BASE.replace("10000", instructions));
        let problems = Comparison::new(&table(BASE), &now).problems();
        assert_eq!(problems.is_empty(), accepted, "{instructions}: {problems:?}");
    }
    assert_eq!(
        problems("10000", "11000"),
        ["gate/cached/request: 10000 -> 11000 instructions; at most 5 % more are allowed"]
    );
}

#[test]
fn allocations_may_rise_by_five_percent() {
    for (allocations, accepted) in [(",0,", true), (",52,", true), (",53,", false)] {
        assert_eq!(problems(",50,", allocations).is_empty(), accepted, "{allocations}");
    }
    let none = BASE.replace(",32,", ",0,");
    let problems =
        Comparison::new(&table(&none), &table(&none.replace("40000,0", "40000,1"))).problems();
    assert_eq!(problems, ["keys/plain/verify: 0 -> 1 allocations; at most 5 % more are allowed"]);
}

#[test]
fn no_host_call_may_be_added() {
    assert_eq!(
        problems("5,2,3", "6,2,4"),
        ["gate/cached/request: 5 -> 6 host calls; none may be added"]
    );
    assert_eq!(problems("0,0,0", "1,1,0").len(), 1);
    for fewer in ["4,2,2", "5,1,4"] {
        assert_eq!(problems("5,2,3", fewer), [""; 0], "{fewer}");
    }
}

#[test]
fn a_scenario_that_only_one_table_has_is_a_problem() {
    let gone = "keys/plain/verify: in the baseline, and was not counted";
    let new = "keys/plain/sign: was counted, and is not in the baseline";
    assert_eq!(problems("keys/plain/verify,40000,32,0,0,0\n", ""), [gone]);
    assert_eq!(problems("keys/plain/verify", "keys/plain/sign"), [gone, new]);
}

#[test]
fn tables_of_other_machines_are_told_apart() {
    let base = table(BASE);
    let of_other_tools = table(&BASE.replace("1.95.0", "1.96.0"));
    assert!(Comparison::new(&base, &of_other_tools).is_of_one_machine());
    for other in ["aarch64", "x86_64", "x86_64 with SSE2"] {
        let now = table(&BASE.replace("x86_64 with AVX2", other));
        assert!(!Comparison::new(&base, &now).is_of_one_machine(), "{other}");
    }
}

#[test]
fn what_moved_is_shown_and_the_rest_is_not() {
    let base = table(BASE);
    let shown = |now: &str| Comparison::new(&base, &table(now)).to_text();
    assert_eq!(
        shown(&BASE.replace("10000,50,5,2,3", "9000,50,4,2,2")),
        "1 of 2 scenarios moved by 1 % or more, or in allocations or host calls\n\
         gate/cached/request     10000 ->      9000   -10.0 %  allocations 50  host calls 5 -> 4\n"
    );
    assert_eq!(shown(&BASE.replace("10000", "10099")).lines().count(), 1);
    assert_eq!(shown(&BASE.replace("10000", "10100")).lines().count(), 2);
    assert_eq!(shown(&BASE.replace(",50,", ",51,")).lines().count(), 2);
    // One kind of call for another.
    assert_eq!(shown(&BASE.replace("5,2,3", "5,3,2")).lines().count(), 2);
    let other_tools = shown(&BASE.replace("1.95.0", "1.96.0"));
    assert!(other_tools.contains("was counted on x86_64 with AVX2, rustc 1.96.0\n"));
}

#[test]
fn markdown_lists_what_is_new_and_gone_too() {
    let now = BASE.replace("10000", "12500").replace("keys/plain/verify", "keys/plain/sign");
    assert_eq!(
        Comparison::new(&table(BASE), &table(&now)).to_markdown(),
        "| scenario | instructions | | allocations | host calls |\n\
         |---|---:|---:|---:|---:|\n\
         | gate/cached/request | 10000 -> 12500 | +25.0 % | 50 | 5 |\n\
         | keys/plain/sign | new | | | |\n\
         | keys/plain/verify | gone | | | |\n\
         \n\
         0 scenarios moved by less than 1 %, and in nothing else.\n"
    );
}

#[test]
fn a_profile_is_summed_up_by_function() {
    let text = "\
# callgrind format
positions: line
events: Ir

fl=(1) src/engine.rs
fn=(1) vkey::engine::Engine::identify
10 100
+2 20
cfi=(2) src/key.rs
cfn=(2) vkey::key::Key::verify
calls=3 1
12 700
fi=(3) core/num.rs
* 5

fn=(2)
1 690
-1 10

fn=(3) main
cfn=(1)
calls=0 9
1 825

totals: 825
";
    let profile = Profile::read(text).unwrap();
    assert_eq!(profile.total(), 825);
    assert_eq!(
        profile.to_text(),
        "\ninstructions of functions, by themselves:\n\
         \x20     700  84.8 %  vkey::key::Key::verify\n\
         \x20     125  15.2 %  vkey::engine::Engine::identify\n\
         \ninstructions of functions, with what they call:\n\
         \x20     825 100.0 %  vkey::engine::Engine::identify\n\
         \x20     700  84.8 %  vkey::key::Key::verify\n"
    );
    for (right, wrong) in [("totals: 825", "totals: 0"), ("totals: 825", ""), ("+2 20", "+2")] {
        assert!(Profile::read(&text.replace(right, wrong)).is_none(), "{wrong}");
    }
}

/// What the cheapest host call costs on Envoy, in instructions: others cost two to eight times as much.
const HOST_CALL_INSTRUCTIONS: u64 = 1_500;

/// What keeps a key from costing more by being refused than by being served, whatever it says. At first sight a refused
/// request may cost two and a quarter: it is about a key with as many restrictions as fit, which are read once.
#[test]
fn no_refused_request_costs_more_than_two_allowed_ones() {
    let baseline = table(&text("benches/core/baseline.csv"));
    let named = |row: &Row| {
        row.scenario.strip_prefix("refusals/")?.strip_suffix("/request").map(str::to_owned)
    };
    let cost = |row: &Row| row.instructions + row.host_calls() * HOST_CALL_INSTRUCTIONS;
    let of_refusals = || baseline.rows.iter().filter_map(|row| Some((named(row)?, cost(row))));
    let allowed = |name: &str| {
        let like = ["-long-path", "-first-sight"].into_iter().find(|like| name.ends_with(like));
        let wanted = format!("allowed{}", like.unwrap_or_default());
        of_refusals().find(|(name, _)| *name == wanted).unwrap().1
    };
    for (name, instructions) in of_refusals() {
        let quarters = if name.ends_with("-first-sight") { 9 } else { 8 };
        let most = quarters * allowed(&name) / 4;
        assert!(instructions <= most, "{name}: {instructions} instructions, at most {most}");
    }
    assert!(of_refusals().count() > 15);
}

/// Also without valgrind it shows that a scenario was added or renamed.
#[test]
fn the_baseline_has_the_scenarios_that_there_are() {
    let mut measured = BTreeSet::new();
    for file in fs::read_dir(root().join("testdata/bench")).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap();
        let scenario = Json::parse(&fs::read(&file).unwrap()).unwrap();
        let Some(Json::Array(steps)) = scenario.get("steps") else { panic!("{name}: no steps") };
        for step in steps {
            let step_name = step.get("name").and_then(Json::as_str).unwrap();
            let Some(Json::Array(parts)) = step.get("bench") else { continue };
            let scenario = |part: &Json| format!("{name}/{step_name}/{}", part.as_str().unwrap());
            measured.extend(parts.iter().map(scenario));
        }
    }
    let baseline = table(&text("benches/core/baseline.csv"));
    let known: BTreeSet<_> = baseline.rows.iter().map(|row| row.scenario.clone()).collect();
    assert_eq!(known.len(), baseline.rows.len());
    assert_eq!(known, measured, "make bench-core ACCEPT=1 brings the baseline up to date");
}
