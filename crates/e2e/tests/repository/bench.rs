//! The parts of `make bench` that reckon and read, without a measurement.

use std::collections::BTreeMap;

use crate::callgrind::{Code, Count};
use crate::functions::Names;
use crate::pieces::{self, BARE, FEW, MANY, Streamed, UNMETERED};
use crate::process::{cpu_ns, resident, resident_bytes, run_ns, used_ticks};
use crate::stats::{Spread, added, ratio};
use crate::table::Table;
use crate::tally::Tally;
use crate::targets::{
    Cost, INSTRUCTIONS, MAX_MODULE_BYTES, PIECES, Piece, Rule, TIMES, judge, judge_pieces,
};
use crate::wrk::Outcome;
use crate::{callgrind, functions, machine, support, tally as tallying, targets, text, wrk};

// === numbers ===

#[test]
fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
    let odd = Spread::of(&[3.0, 9.0, 1.0]).unwrap();
    assert_eq!(odd, Spread { median: 3.0, min: 1.0, max: 9.0 });
    let even = Spread::of(&[4.0, 1.0, 8.0, 2.0]).unwrap();
    assert_eq!(even, Spread { median: 3.0, min: 1.0, max: 8.0 });
    assert_eq!(Spread::of(&[]), None);
}

#[test]
fn what_is_added_is_over_the_base_of_the_same_round() {
    assert_eq!(added(&[15.0, 26.0], &[10.0, 20.0]), [5.0, 6.0]);
}

#[test]
fn nothing_is_a_multiple_of_nothing() {
    assert_eq!(ratio(6.0, 3.0), Some(2.0));
    assert_eq!(ratio(6.0, 0.0), None);
    assert_eq!(ratio(6.0, -1.0), None);
}

// === processes ===

#[test]
fn the_name_of_a_process_may_look_like_fields() {
    let stat = "7 (a) R 1 2) S 1 7 7 0 -1 4194560 90 0 1 0 250 31 9 9 20 0 5 0 1234 1 2";
    assert_eq!(used_ticks(stat), Some(281));
}

#[test]
fn a_stat_that_ends_early_is_not_read() {
    assert_eq!(used_ticks("7 (envoy) S 1 7 7 0 -1 4194560 90 0 1 0 250"), None);
    assert_eq!(used_ticks(""), None);
}

#[test]
fn the_time_of_a_thread_comes_first() {
    assert_eq!(run_ns("123456789 42 7\n"), Some(123_456_789));
    assert_eq!(run_ns(""), None);
}

#[test]
fn memory_is_told_in_units_of_1024_bytes() {
    assert_eq!(resident("Name:\tenvoy\nVmRSS:\t   2048 kB\n"), Some(2_097_152));
    assert_eq!(resident("Name:\tenvoy\n"), None);
}

#[test]
fn a_process_that_works_uses_time_and_memory() {
    let pid = std::process::id();
    let before = cpu_ns(pid).unwrap();
    support::wait_for(|| (cpu_ns(pid).unwrap() > before).then_some(()), String::new);
    assert!(resident_bytes(pid).unwrap() > 100_000);
    assert!(cpu_ns(u32::MAX).is_err());
}

#[test]
fn a_machine_says_what_it_is() {
    let text = "processor\t: 0\nmodel name\t: Some CPU @ 2.00GHz\nmodel name\t: Other\n";
    assert_eq!(machine::field(text, "model name"), "Some CPU @ 2.00GHz");
    assert_eq!(machine::field("", "model name"), "an unknown processor");
    assert_eq!(
        machine::envoy_version("/opt/envoy  version: 0a1b/1.40.0/Clean/RELEASE/BoringSSL"),
        "1.40.0"
    );
    assert_eq!(machine::envoy_version("/opt/envoy"), "of unknown version");
}

// === wrk ===

const PRINTED: &str = "\
Running 2s test @ http://127.0.0.1:4000/v1/models
  1 threads and 32 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   605.28us    1.02ms  15.62ms   92.42%
    Req/Sec    67.91k    11.20k   88.75k    80.00%
  135129 requests in 2.00s, 18.69MB read
";

#[test]
fn the_answers_are_counted() {
    let outcome = wrk::parse(PRINTED).unwrap();
    assert_eq!(outcome, Outcome { requests: 135_129, refused: 0 });
    let refused = format!("{PRINTED}  Non-2xx or 3xx responses: 17\nRequests/sec:  67490.05\n");
    assert_eq!(wrk::parse(&refused).unwrap(), Outcome { requests: 135_129, refused: 17 });
}

#[test]
fn an_answer_of_the_other_kind_is_wrong() {
    let outcome = Outcome { requests: 10, refused: 3 };
    assert_eq!((outcome.other_than(200), outcome.other_than(401)), (3, 7));
}

#[test]
fn a_load_that_failed_is_no_outcome() {
    let broken = format!("{PRINTED}  Socket errors: connect 0, read 3, write 0, timeout 0\n");
    assert!(wrk::parse(&broken).unwrap_err().contains("read 3"));
    assert!(wrk::parse(&PRINTED.replace("135129", "0")).is_err());
    assert!(wrk::parse("").is_err());
    assert!(wrk::parse(&format!("{PRINTED}  Non-2xx or 3xx responses: many\n")).is_err());
}

// === callgrind ===

/// 40 instructions in the file, of which 10 in a section that callgrind does not know, and 7 in no
/// file. What was called stands behind `calls=` once more.
const DUMP: &str = "\
# callgrind format
pid: 11
desc: Timerange: Basic block 0 - 9
positions: line
events: Ir
summary: 47

ob=(2) /opt/envoy
fl=(1) ???
fn=(1) 0x0000000004001000
16 20
cob=(3) ???
cfn=(2) 0x0000396f040e1000
calls=2 0
17 500
+3 4
-2 5

ob=(3)
fn=(2)
0 6
* 1
fn=(4) 0x0000000004002000
0 10

ob=(2)
fn=(1)
0 1
0

totals: 47
";

#[test]
fn instructions_are_counted_once_and_told_apart_by_their_address() {
    let files = [0x0400_0000..0x0400_2000, 0x0400_2000..0x0400_3000];
    let counted = |files| callgrind::parse(DUMP, files).unwrap().count;
    assert_eq!(counted(&files), Count { all: 47, compiled: 7 });
    assert_eq!(counted(&[]), Count { all: 47, compiled: 17 });
}

#[test]
fn a_dump_that_does_not_add_up_is_not_read() {
    let refused = |text: &str| callgrind::parse(text, &[]).unwrap_err();
    assert!(refused(&DUMP.replace("totals: 47", "totals: 48")).contains("Some(48)"));
    assert!(refused(&DUMP.replace("totals: 47", "")).contains("None"));
    assert!(refused(&DUMP.replace("16 20", "16 many")).contains("16 many"));
    assert!(refused("").contains("None"));
}

#[test]
fn a_mapping_with_a_name_is_a_file() {
    let maps = "\
04000000-0607d000 r--p 00000000 fe:00 1234                     /opt/an envoy
0607d000-0607e000 r-xp 0000000a fe:00 1234                     /opt/an envoy
396f04000000-396f04100000 rwxp 00000000 00:00 0 
7ffd1000-7ffd2000 r-xp 00000000 00:00 0                        [vdso]
";
    let files = [0x0400_0000..0x0607_d000, 0x0607_d000..0x0607_e000, 0x7ffd_1000..0x7ffd_2000];
    assert_eq!(callgrind::mapped_files(maps), files);
    assert!(callgrind::mapped_files("").is_empty());
}

#[test]
fn code_without_a_file_is_known_by_the_address_that_is_called() {
    let files = [0x0400_0000..0x0400_2000, 0x0400_2000..0x0400_3000];
    let code = Code { instructions: 7, calls: 2 };
    let counted = callgrind::parse(DUMP, &files).unwrap().code;
    assert_eq!(counted, BTreeMap::from([(0x396f_040e_1000, code)]));
}

/// The code of a module begins with a jump of 8 bytes for each function that it does not import.
#[test]
fn functions_of_the_module_have_names() {
    let code = |address: u64, instructions| (address, Code { instructions, calls: 20 });
    let dump = callgrind::Dump {
        count: Count { all: 0, compiled: 0 },
        code: [code(0x1000, 1000), code(0x1008, 3000), code(0x1010, 200), code(0x1804, 200)].into(),
        code_spaces: vec![0x800..0x900, 0x1000..0x2000],
    };
    let list = "0:proxy_log\n1:vkey_on_log\n2:_ZN4vkey4gate4Gate2on17h0123456789abcdefE\n";
    let table = functions::table(&dump, &Names::parse(list, 1), 10).markdown();
    assert_eq!(
        table.lines().skip(2).collect::<Vec<_>>(),
        [
            "| vkey::gate::Gate::on | 300 | 2.0 |",
            "| vkey_on_log | 100 | 2.0 |",
            "| (calls between host and module) | 40 | 4.0 |",
        ]
    );
}

/// What was counted in 10 requests.
fn tally(id: &'static str, base: &'static str, noop: &'static str, all: u64) -> Tally {
    let count = Count { all, compiled: all / 10 };
    Tally { id, title: id, base, noop, requests: 10, count }
}

#[test]
fn instructions_are_compared_per_request() {
    let tallies = [
        tally("bare", "bare", "noop", 1_000_000),
        tally("noop", "bare", "noop", 1_200_000),
        tally("floor", "bare", "noop", 1_320_000),
        tally("native", "bare", "noop", 1_800_000),
        tally("all-h10", "bare-h10", "noop-h10", 2_000_000),
        tally("all", "bare", "noop", 1_400_000),
    ];
    let printed = tallying::table(&tallies).markdown();
    let lines: Vec<_> = printed.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "| bare | 100.0 | – | 10.0 | – | – | – |",
            "| noop | 120.0 | +20.0 | 12.0 | 1.00 | 0.62 | 0.25 |",
            "| floor | 132.0 | +32.0 | 13.2 | 1.60 | 1.00 | 0.40 |",
            "| native | 180.0 | +80.0 | 18.0 | 4.00 | 2.50 | 1.00 |",
            "| all-h10 | 200.0 | – | 20.0 | – | – | – |",
            "| all | 140.0 | +40.0 | 14.0 | 2.00 | 1.25 | 0.50 |",
        ]
    );
    let csv = tallying::csv(&tallies, "a machine");
    assert!(csv.starts_with("# a machine\n"));
    assert!(csv.contains("\nbare,\"bare\",100000,,10000,,,,10\n"));
    assert!(csv.ends_with("\nall,\"all\",140000,40000,14000,2.000,1.250,0.500,10\n"));
}

// === what is printed ===

#[test]
fn columns_are_as_wide_as_their_widest_cell() {
    let words = |words: &[&str]| words.iter().copied().map(str::to_owned).collect::<Vec<_>>();
    let rows = vec![words(&["none", "9.5"]), words(&["a filter", "–"])];
    let table = Table::new(words(&["case", "µs"]), rows);
    assert_eq!(table.to_string(), "case       µs\nnone      9.5\na filter    –\n");
    let markdown = "| case | µs |\n|---|---:|\n| none | 9.5 |\n| a filter | – |\n";
    assert_eq!(table.markdown(), markdown);
}

/// The costs of a run in which some targets are met and some are missed.
fn cost(group: &str, case: &str) -> Option<Cost> {
    let (whole, added) = match (group, case) {
        ("filters", "native") => (12.0, 2.0),
        ("filters", "all") => (12.6, 2.6),
        ("scaling", "keys-1") => (20.0, 4.0),
        ("scaling", "keys-100000") => (22.0, 6.0),
        ("scaling", "keys-1000") => (20.0, 4.0),
        ("scaling", "keys-1000-w2") => (23.0, 7.0),
        _ => return None,
    };
    Some(Cost { whole, added })
}

fn judged(rules: &[Rule], cost: impl Fn(&str, &str) -> Option<Cost>, bytes: u32) -> Vec<String> {
    judge(rules, cost, bytes).iter().map(ToString::to_string).collect()
}

#[test]
fn a_target_is_met_up_to_its_limit() {
    assert_eq!(
        judged(&TIMES, cost, MAX_MODULE_BYTES + 1),
        [
            "met: everything on, cached key, to the native filters: 1.30, at most 1.30",
            "missed by 0.30: 100 000 keys to one key: 1.50, at most 1.20",
            "met: two workers to one, 1 000 keys: 1.15, at most 1.15",
            "missed by 1: bytes of the module: 795001, at most 795000",
        ]
    );
    assert!(judge(&TIMES, |_, _| None, MAX_MODULE_BYTES).iter().all(targets::Target::is_met));
}

#[test]
fn counts_are_judged_by_what_is_added() {
    let tallies = [
        tally("bare", "bare", "noop", 1_000_000),
        tally("floor", "bare", "noop", 2_000_000),
        tally("all", "bare", "noop", 2_250_000),
        tally("all-first", "bare", "noop", 2_600_000),
        tally("missing", "bare", "noop", 1_550_000),
        tally("invalid", "bare", "noop", 1_760_000),
        tally("direct", "direct", "noop", 3_000_000),
        tally("gated", "direct", "noop", 4_900_000),
    ];
    let cost = |_: &str, case: &str| tallying::cost(&tallies, case);
    assert_eq!(
        judged(&INSTRUCTIONS, cost, MAX_MODULE_BYTES),
        [
            "met: everything on, cached key, to the floor: 1.25, at most 1.25",
            "missed by 0.10: everything on, first sight, to the floor: 1.60, at most 1.50",
            "met: no key, to the floor: 0.55, at most 0.55",
            "met: no key, to an allowed request: 0.44, at most 0.60",
            "missed by 0.01: a forged key again, to the floor: 0.76, at most 0.75",
            "missed by 0.01: a forged key again, to an allowed request: 0.61, at most 0.60",
            "met: cached key, credential attached by the cluster, to the floor: 1.90, at most 1.90",
            "met: bytes of the module: 795000, at most 795000",
        ]
    );
}

/// A piece of 125 bytes: 15 000 instructions are unavoidable.
const PIECE: Piece = Piece { bytes: 125 };

fn streamed(id: &'static str, piece: f64, rest: f64) -> Streamed {
    let all = |pieces: u32| rest + piece * f64::from(pieces);
    Streamed { id, title: id, few: all(FEW), many: all(MANY) }
}

fn streams() -> [Streamed; 4] {
    [
        streamed(BARE, 10_000.0, 100_000.0),
        streamed(UNMETERED, 11_500.0, 250_000.0),
        streamed("stream-metered", 29_500.0, 400_000.0),
        streamed("stream-stripped", 31_000.0, 410_000.0),
    ]
}

#[test]
fn a_piece_of_a_stream_is_told_apart_from_the_rest() {
    let printed = pieces::table(&streams(), &PIECE).markdown();
    let lines: Vec<_> = printed.lines().skip(2).collect();
    assert_eq!(
        lines,
        [
            "| stream-bare | 10.0 | – | – | 100.0 | – | – |",
            "| stream-unmetered | 11.5 | +1.5 | 0.10 | 250.0 | +150.0 | – |",
            "| stream-metered | 29.5 | +19.5 | 1.30 | 400.0 | +300.0 | +150.0 |",
            "| stream-stripped | 31.0 | +21.0 | 1.40 | 410.0 | +310.0 | +160.0 |",
        ]
    );
    let csv = pieces::csv(&streams(), "a machine");
    assert!(csv.starts_with("# a machine\n"));
    assert!(csv.contains("\nstream-bare,\"stream-bare\",200000,1200000\n"));
}

#[test]
fn a_piece_is_judged_by_what_it_adds() {
    let streams = streams();
    let judged = judge_pieces(&PIECE, |case| pieces::added(&streams, case));
    let unavoidable = "to a callback, a read and 12 instructions per byte";
    assert_eq!(
        judged.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            format!("met: a piece of a metered stream, {unavoidable}: 1.30, at most 1.30"),
            format!(
                "missed by 0.10: a piece of a stream from which the usage is removed, \
                 {unavoidable}: 1.40, at most 1.30"
            ),
        ]
    );
    assert!(judge_pieces(&PIECE, |_| None).is_empty());
}

/// What a case must be called so that a rule finds it.
#[test]
fn every_target_is_about_cases_that_are_counted() {
    let cases = |rule: &Rule| [rule.case, rule.other];
    let groups = text("crates/e2e/benches/envoy/groups.rs");
    let telling = groups.split("const TELLING").nth(1).unwrap().split("];").next().unwrap();
    for id in INSTRUCTIONS.iter().flat_map(cases) {
        assert!(telling.contains(&format!("\"{id}\"")), "{id}");
    }
    let pieces = PIECES.iter().map(|(_, id)| *id);
    for id in TIMES.iter().flat_map(cases).chain(pieces) {
        assert!(groups.contains(&format!("\"{id}\"")), "{id}");
    }
}
