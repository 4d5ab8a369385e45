//! Tests every order in which the calls of several workers can reach the shared data, for requests with one
//! key, with keys of one tenant, and with children of one key.
//!
//! A worker runs the library's own code. For each step it runs again from the start, with the results of
//! its calls so far, up to the first call without a result. That call is made, and its result is kept. So
//! the search needs no threads and misses no order. A round of the update loop that failed because another
//! worker was first leaves only the count of tries, so its results are dropped. States that were seen
//! before are not searched again.

#![cfg(not(target_arch = "wasm32"))]
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]
#[path = "interleavings/keys.rs"]
mod keys;
#[path = "interleavings/replay.rs"]
mod replay;
#[path = "interleavings/search.rs"]
mod search;
#[path = "interleavings/settle.rs"]
mod settle;
#[path = "interleavings/work.rs"]
mod work;

use vkey::decision::{Decision, DenyReason};
use vkey::gate::Admission;
use vkey::host::{HostError, MemoryStore, RecordStore, Rules, SharedData, WriteError};
use vkey::limits::cell::{Cell, key_name};
use vkey::limits::sessions::{Sessions, sessions_name};
use vkey::record::{Record, encode};

use self::keys::{
    child, micro_usd_a_day, of_both, of_tier, quota, rate, token, tokens_a_day, using,
};
use self::search::{NOW_NS, Search};
use self::settle::{
    admit_and_settle_late, expect_settled_late, read_then_settle, settle_twice,
    settle_without_reservation, settled,
};
use self::work::{
    Work, admit_and_withdraw, check_then_count, end, keep_the_charge, read_then_end, session,
};

/// The rules of the host, and those that workers assume; `None`: they detect them.
const ASSUMED: [(Rules, Option<Rules>); 2] =
    [(Rules::Envoy, Some(Rules::Envoy)), (Rules::Nginx, Some(Rules::Nginx))];
const DETECTED: [(Rules, Option<Rules>); 2] = [(Rules::Envoy, None), (Rules::Nginx, None)];

#[test]
fn two_workers_on_one_key() {
    for rules in ASSUMED.into_iter().chain(DETECTED) {
        for limit in [rate(1), quota(1)] {
            let keys = [token("k"), token("k")];
            Search::new(&of_tier(&limit), &keys, 1).over(rules).hold();
        }
    }
}

#[test]
fn three_workers_on_one_key_and_its_tenant() {
    for rules in ASSUMED {
        for (key, tenant) in [(1, 2), (2, 1), (2, 2), (3, 1)] {
            let keys = [token("k"), token("k"), token("k")];
            let room = key.min(tenant) as usize;
            Search::new(&of_both(&rate(key), &quota(tenant)), &keys, room).over(rules).hold();
            Search::new(&of_both(&quota(key), &rate(tenant)), &keys, room).over(rules).hold();
        }
    }
}

#[test]
fn three_workers_on_three_keys_of_a_tenant() {
    let keys = [token("a"), token("b"), token("c")];
    for room in 1..=3 {
        let config = of_both(&quota(2), &rate(room));
        Search::new(&config, &keys, room as usize).hold();
    }
}

#[test]
fn two_keys_of_a_tenant_that_has_less_than_either() {
    let keys = [token("a"), token("a"), token("b")];
    Search::new(&of_both(&rate(2), &quota(1)), &keys, 1).hold();
}

#[test]
fn children_of_one_key() {
    let one = format!("{{{}}}", quota(1));
    let other = format!(r#"{{"methods": ["GET"], {}}}"#, rate(2));
    let keys = [child("k", &one), child("k", &one), child("k", &other)];
    Search::new(&of_tier(&quota(2)), &keys, 2).hold();
    Search::new(&of_both(&quota(3), &quota(2)), &keys, 2).hold();
}

#[test]
fn a_withdrawn_request_leaves_room_for_others() {
    let keys = [token("a"), token("taken_back"), token("taken_back")];
    for (tier, tenant, room) in [(quota(1), rate(2), 2), (rate(2), quota(1), 1)] {
        let mut search = Search::new(&of_both(&tier, &tenant), &keys, room);
        search.work = admit_and_withdraw;
        search.hold();
    }
}

#[test]
fn a_request_that_was_sent_stays_charged() {
    let keys = [token("a"), token("sent"), token("sent")];
    for (tier, tenant, room) in [(quota(2), rate(2), 2), (rate(2), quota(1), 1)] {
        let mut search = Search::new(&of_both(&tier, &tenant), &keys, room);
        search.work = admit_and_withdraw;
        search.hold();
    }
}

/// `room`: the room of the limits, and the one session end that is free.
fn ending_one_session(key: u32, tenant: u32, room: usize, work: Work) -> Search {
    let keys = [token("k"), token("k"), token("k")];
    let mut search = Search::new(&of_both(&quota(key), &rate(tenant)), &keys, room);
    let mut open = Sessions::default();
    open.open(session());
    let name = sessions_name("acme", "k");
    search.planted = Some(("vkey/s/acme/k", encode(&name, &open)));
    search.work = work;
    search
}

#[test]
fn only_one_end_of_a_session_is_free() {
    for rules in ASSUMED {
        for (key, tenant, room) in [(1, 2, 2), (3, 3, 4)] {
            ending_one_session(key, tenant, room, end).over(rules).hold();
        }
    }
}

#[test]
fn ending_by_an_earlier_read_is_caught() {
    ending_one_session(1, 2, 2, read_then_end).fail("more got in");
}

/// Bytes that are not a cell: another module's, torn, and in another layout.
fn unreadable() -> [Vec<u8>; 3] {
    struct OtherCell;
    impl Record for OtherCell {
        const VERSION: u8 = 1;
        fn fresh() -> Self {
            Self
        }
        fn write(&self, _: &mut vkey::record::Writer<'_>) {}
        fn read(_: &mut &[u8]) -> Option<Self> {
            None
        }
    }
    let name = key_name("acme", "k");
    let torn = encode(&name, &Cell::default()).split_last().unwrap().1.to_vec();
    [b"another module's".to_vec(), torn, encode(&name, &OtherCell)]
}

#[test]
fn two_workers_on_a_key_whose_cell_cannot_be_read() {
    for rules in ASSUMED.into_iter().chain(DETECTED) {
        for record in unreadable() {
            let keys = [token("k"), token("k")];
            let mut search = Search::new(&of_tier(&quota(1)), &keys, 1).over(rules);
            search.planted = Some(("vkey/k/acme/k", record));
            search.hold();
        }
    }
}

#[test]
fn two_workers_on_a_tenant_whose_cell_cannot_be_read() {
    for rules in ASSUMED {
        let keys = [token("a"), token("b")];
        let mut search = Search::new(&of_both(&rate(2), &quota(1)), &keys, 1).over(rules);
        search.planted = Some(("vkey/t/acme", b"another module's".to_vec()));
        search.hold();
    }
}

#[test]
fn three_workers_on_a_key_whose_cell_has_another_layout() {
    let [.., record] = unreadable();
    for rules in ASSUMED {
        let keys = [token("k"), token("k"), token("k")];
        let mut search = Search::new(&of_tier(&quota(2)), &keys, 2).over(rules);
        search.planted = Some(("vkey/k/acme/k", record.clone()));
        search.hold();
    }
}

#[test]
fn resetting_with_zero_is_caught() {
    let [.., record] = unreadable();
    let mut search = Search::new(&of_tier(&quota(1)), &[token("k"), token("k")], 1);
    search.planted = Some(("vkey/k/acme/k", record));
    search.reset_with_zero = true;
    search.fail("more got in than there is room for");
}

#[test]
fn creating_with_zero_is_caught() {
    let keys = [token("k"), token("k")];
    let mut search = Search::new(&of_tier(&quota(1)), &keys, 1);
    search.create_with_zero = true;
    search.fail("more got in than there is room for");
}

#[test]
fn assuming_that_the_host_is_nginx_is_caught() {
    let keys = [token("k"), token("k")];
    let believed = (Rules::Envoy, Some(Rules::Nginx));
    let search = Search::new(&of_tier(&quota(1)), &keys, 1).over(believed);
    search.fail("more got in than there is room for");
}

#[test]
fn deciding_outside_the_loop_is_caught() {
    let keys = [token("k"), token("k")];
    let mut search = Search::new(&of_tier(&quota(1)), &keys, 1);
    search.work = check_then_count;
    search.counts_tenants = false;
    search.fail("more got in than there is room for");
}

#[test]
fn keeping_the_charge_of_a_refused_request_is_caught() {
    let keys = [token("a"), token("b")];
    let mut search = Search::new(&of_both(&quota(2), &quota(1)), &keys, 1);
    search.work = keep_the_charge;
    search.fail("the counts are not those of the decisions");
}

/// Two requests reserve 10 tokens each and 20 micro-USD, of 29 or 59.
#[test]
fn as_many_get_in_as_can_be_reserved() {
    let keys = [token("k"), token("k"), token("k")];
    for rules in ASSUMED {
        Search::new(&of_tier(&tokens_a_day(29)), &keys, 2).over(rules).hold();
        Search::new(&of_tier(&micro_usd_a_day(40)), &keys, 2).over(rules).hold();
    }
    let both = of_both(&tokens_a_day(30), &micro_usd_a_day(59));
    Search::new(&both, &keys, 2).hold();
    let three = [token("a"), token("b"), token("b")];
    Search::new(&of_both(&tokens_a_day(19), &tokens_a_day(20)), &three, 2).hold();
    let tokens = format!("{{{}}}", tokens_a_day(10));
    let children = [child("k", &tokens), child("k", &tokens), token("k")];
    Search::new(&of_tier(&tokens_a_day(20)), &children, 2).hold();
}

#[test]
fn withdrawn_tokens_leave_room_for_others() {
    let keys = [token("a"), token("taken_back"), token("taken_back")];
    for (tier, tenant, room) in
        [(tokens_a_day(19), micro_usd_a_day(40), 2), (rate(2), tokens_a_day(10), 1)]
    {
        let mut search = Search::new(&of_both(&tier, &tenant), &keys, room);
        search.work = admit_and_withdraw;
        search.hold();
    }
}

/// One uses less than it reserved, one as much, and one more than there is.
#[test]
fn what_is_settled_is_what_was_used() {
    let keys = [using("k", 3), using("k", 10), using("k", 47)];
    for rules in ASSUMED {
        for limit in [tokens_a_day(10), tokens_a_day(25), micro_usd_a_day(60)] {
            settled(&of_tier(&limit), &keys).over(rules).hold();
        }
    }
}

#[test]
fn what_is_settled_is_what_was_used_of_the_tenant_too() {
    for keys in [[using("a", 0), using("a", 33)], [using("a", 4), using("b", 33)]] {
        for (key, tenant) in [
            (tokens_a_day(20), tokens_a_day(15)),
            (tokens_a_day(10), micro_usd_a_day(40)),
            (rate(2), tokens_a_day(10)),
            (micro_usd_a_day(30), quota(2)),
        ] {
            settled(&of_both(&key, &tenant), &keys).hold();
        }
    }
}

#[test]
fn what_children_used_is_settled_for_their_parents_too() {
    let of_child = format!("{{{}}}", tokens_a_day(15));
    let keys = [child("k", &of_child), child("k", &of_child), using("k", 12)];
    settled(&of_tier(&tokens_a_day(30)), &keys).hold();
}

/// Each request ends a day later, when others may still begin on the day before.
#[test]
fn what_is_settled_in_the_next_window_is_what_was_used_too_much() {
    let keys = [using("k", 3), using("k", 14), using("k", 31)];
    let mut search = settled(&of_tier(&tokens_a_day(25)), &keys);
    (search.work, search.expect) = (admit_and_settle_late, expect_settled_late);
    search.hold();
}

#[test]
fn settling_outside_the_loop_is_caught() {
    let mut search = settled(&of_tier(&tokens_a_day(30)), &[using("k", 3), using("k", 5)]);
    search.work = read_then_settle;
    search.fail("what is used is not what was settled");
}

#[test]
fn settling_twice_is_caught() {
    let mut search = settled(&of_tier(&tokens_a_day(30)), &[using("k", 3), using("k", 5)]);
    search.work = settle_twice;
    search.fail("what is used is not what was settled");
}

#[test]
fn reserving_nothing_is_caught() {
    let keys = [using("k", 10), using("k", 10)];
    let mut search = Search::new(&of_tier(&tokens_a_day(19)), &keys, 1);
    search.work = settle_without_reservation;
    search.fail("more got in than there is room for");
}

/// A host on which another worker is always first.
struct Contended(MemoryStore);

impl SharedData for Contended {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.0.shared_data(name)
    }

    fn set_shared_data(&self, _: &str, _: &[u8], _: u32) -> Result<(), WriteError> {
        Err(WriteError::CasMismatch)
    }
}

#[test]
fn a_host_that_always_reports_a_mismatch_allows_nothing() {
    let search = Search::new(&of_both(&quota(9), &quota(9)), &[token("k")], 9);
    let host = Contended(MemoryStore::new(Rules::Envoy));
    for rules in [Rules::Envoy, Rules::Nginx] {
        let records = RecordStore::new(&host, rules);
        let admission = Admission::new(&records, &search.engine, &search.keys[0], None, NOW_NS);
        let decision = admission.admit(Decision::Allow).decision;
        assert_eq!(decision, Decision::Deny(DenyReason::Contention), "{rules:?}");
        assert!(records.retries() >= 64);
    }
    assert!(host.0.is_empty());
}
