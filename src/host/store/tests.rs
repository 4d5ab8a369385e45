//! Tests of records with two and with many workers, on hosts of both kinds and on hosts that misbehave.

use std::cell::Cell as Counter;
use std::sync::{Condvar, Mutex};
use std::thread;

use super::*;
use crate::decision::Decision;
use crate::decision::Mode;
use crate::host::{HostError, MemoryStore};
use crate::limits::Amounts;
use crate::limits::cell::{Cell, key_name};
use crate::record::{Writer, decode, encode};

/// Both kinds of host.
const BOTH: [Rules; 2] = [Rules::Envoy, Rules::Nginx];

fn count(store: &impl SharedData, rules: Rules, id: &str) -> Result<(), NotCounted> {
    let allow = |cell: &mut Cell| {
        cell.count(Decision::Allow, &[], &Amounts::default(), None, 0, Mode::Enforce)
    };
    RecordStore::new(store, rules).update(&key_name("acme", id), allow).map(drop)
}

/// Like a worker that has just started.
fn find_and_count(store: &impl SharedData, id: &str) -> Result<(), NotCounted> {
    count(store, Rules::find(store)?, id)
}

fn read(store: &MemoryStore, rules: Rules, id: &str) -> Result<Cell, NotCounted> {
    RecordStore::new(store, rules).read(&key_name("acme", id))
}

#[track_caller]
fn allowed(store: &MemoryStore, id: &str) -> u64 {
    read(store, store.rules(), id).unwrap().allowed()
}

// === two workers, one call at a time ===

/// The order in which two workers make their calls: one bit for each turn.
struct Turns {
    order: u32,
    taken: u32,
    finished: [bool; 2],
}

impl Turns {
    fn next(&self) -> usize {
        match self.finished {
            [true, _] => 1,
            [_, true] => 0,
            _ => {
                let bits = self.order.checked_shr(self.taken);
                usize::from(bits.is_some_and(|bits| bits & 1 == 1))
            }
        }
    }
}

/// A worker's view of a store. Every call waits for its turn.
struct Stepped<'a> {
    store: &'a MemoryStore,
    turns: &'a (Mutex<Turns>, Condvar),
    worker: usize,
}

impl Stepped<'_> {
    fn step<T>(&self, call: impl FnOnce() -> T) -> T {
        let (turns, changed) = self.turns;
        let waiting = |turns: &mut Turns| turns.next() != self.worker;
        let mut turns = changed.wait_while(turns.lock().unwrap(), waiting).unwrap();
        let answer = call();
        turns.taken += 1;
        changed.notify_all();
        answer
    }
}

impl Drop for Stepped<'_> {
    fn drop(&mut self) {
        let (turns, changed) = self.turns;
        turns.lock().unwrap().finished[self.worker] = true;
        changed.notify_all();
    }
}

impl SharedData for Stepped<'_> {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.step(|| self.store.shared_data(name))
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        self.step(|| self.store.set_shared_data(name, record, cas))
    }
}

/// The orders in which the first updates of two workers, with at most `calls` calls in total, do not add up
/// to two.
fn losses(host: Rules, calls: u32, update: impl Fn(&Stepped<'_>) + Sync) -> Vec<u32> {
    let lost = |order: &u32| {
        let (store, finished) = (MemoryStore::new(host), [false; 2]);
        let turns = (Mutex::new(Turns { order: *order, taken: 0, finished }), Condvar::new());
        thread::scope(|scope| {
            for worker in 0..2 {
                let stepped = Stepped { store: &store, turns: &turns, worker };
                let update = &update;
                scope.spawn(move || update(&stepped));
            }
        });
        assert!(turns.0.lock().unwrap().taken <= calls);
        allowed(&store, "k") != 2
    };
    (0..1 << calls).filter(lost).collect()
}

#[test]
fn two_first_writers_lose_nothing_in_any_order() {
    for rules in BOTH {
        let lost = losses(rules, 6, |store| count(store, rules, "k").unwrap());
        assert_eq!(lost, [0; 0], "{rules:?}");
    }
    for rules in BOTH {
        let lost = losses(rules, 10, |store| find_and_count(store, "k").unwrap());
        assert_eq!(lost, [0; 0], "{rules:?}, found");
    }
}

#[test]
fn creating_with_zero_loses_a_count() {
    let naive = |store: &Stepped<'_>| {
        let found = store.shared_data("vkey/k/acme/k").unwrap();
        let cas = found.as_ref().map_or(0, |(_, cas)| *cas);
        let name = key_name("acme", "k");
        let cell = found.map(|(record, _)| decode(&name, &record).unwrap());
        let mut cell: Cell = cell.unwrap_or_default();
        cell.count(Decision::Allow, &[], &Amounts::default(), None, 0, Mode::Enforce);
        store.set_shared_data("vkey/k/acme/k", &encode(&name, &cell), cas).unwrap();
    };
    assert_ne!(losses(Rules::Envoy, 4, naive), [0; 0]);
}

// === many workers ===

#[test]
fn many_workers_count_exactly() {
    const UPDATES: u64 = 500;
    for rules in BOTH {
        let store = MemoryStore::new(rules);
        store
            .set_shared_data("vkey/k/acme/b", &encode(&key_name("acme", "b"), &OtherCell), 0)
            .unwrap();
        let work = || {
            let own = store.clone();
            let ids = ["a", "b"].into_iter().cycle().take(1000);
            ids.filter(|id| count(&own, rules, id).is_err()).count()
        };
        let failed: usize = thread::scope(|scope| {
            let workers = [(); 6].map(|()| scope.spawn(work));
            workers.map(|worker| worker.join().unwrap()).iter().sum()
        });
        let counted = allowed(&store, "a") + allowed(&store, "b");
        assert_eq!(counted + failed as u64, 6 * 2 * UPDATES, "{rules:?}");
        assert_eq!(store.len(), 2);
    }
}

// === what a host does wrong ===

/// A store in which another worker always writes first.
struct Contended {
    store: MemoryStore,
    writes: Counter<usize>,
}

impl SharedData for Contended {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.store.shared_data(name)
    }

    fn set_shared_data(&self, _: &str, _: &[u8], _: u32) -> Result<(), WriteError> {
        self.writes.set(self.writes.get() + 1);
        Err(WriteError::CasMismatch)
    }
}

#[test]
fn updates_under_contention_give_up_and_change_nothing() {
    for rules in BOTH {
        let store = MemoryStore::new(rules);
        count(&store, rules, "present").unwrap();
        let contended = Contended { store: store.clone(), writes: Counter::new(0) };
        for id in ["present", "absent"] {
            let refused = count(&contended, rules, id);
            assert_eq!(refused, Err(NotCounted::Contention), "{rules:?} {id}");
            assert!((MAX_TRIES..=2 * MAX_TRIES).contains(&contended.writes.take()));
        }
        assert_eq!((store.len(), allowed(&store, "present")), (1, 1));
    }
}

/// Another layout of cells.
struct OtherCell;

impl Record for OtherCell {
    const VERSION: u8 = 1;

    fn fresh() -> Self {
        Self
    }

    fn write(&self, record: &mut Writer<'_>) {
        record.put(*b"whatever");
    }

    fn read(_: &mut &[u8]) -> Option<Self> {
        None
    }
}

/// Bytes that are not a cell, and the reason that is reported.
fn unreadable() -> [(Vec<u8>, ResetReason); 6] {
    let (name, whole) = (key_name("acme", "k"), encode(&key_name("acme", "k"), &Cell::default()));
    let other = encode(&name, &OtherCell);
    [
        (Vec::new(), ResetReason::Garbage),
        (b"another module's".to_vec(), ResetReason::Garbage),
        (whole[1..].to_vec(), ResetReason::Garbage),
        (whole[..whole.len() - 9].to_vec(), ResetReason::Garbage),
        ([&*whole, b"x"].concat(), ResetReason::Garbage),
        (other, ResetReason::Layout),
    ]
}

#[test]
fn an_unreadable_cell_is_reset_and_reported_once() {
    for (bytes, reason) in unreadable() {
        for rules in BOTH {
            let store = MemoryStore::new(rules);
            store.set_shared_data("vkey/k/acme/k", &bytes, 0).unwrap();
            let records = RecordStore::new(&store, rules);
            let allow = |cell: &mut Cell| {
                cell.count(Decision::Allow, &[], &Amounts::default(), None, 0, Mode::Enforce)
            };
            records.update(&key_name("acme", "k"), allow).unwrap();
            let name = "vkey/k/acme/k".to_owned();
            assert_eq!(records.take_resets(), [Reset { name, reason }], "{rules:?} {bytes:?}");
            records.update(&key_name("acme", "k"), allow).unwrap();
            assert_eq!(records.read::<Cell>(&key_name("acme", "k")).unwrap().allowed(), 2);
            assert_eq!(records.take_resets(), []);
        }
    }
}

/// On nginx they may be the record of another name with the same checksum.
#[test]
fn bytes_that_may_belong_to_another_module_are_not_changed() {
    for (bytes, _) in unreadable() {
        for rules in BOTH {
            let store = MemoryStore::new(rules);
            store.set_shared_data("vkey/k/acme/k", &bytes, 0).unwrap();
            count(&store, rules, "k").unwrap();
            let (after, _) = store.shared_data("vkey/k/acme/k").unwrap().unwrap();
            let may_be_of_another = rules == Rules::Nginx && !bytes.starts_with(b"vkey");
            assert_eq!(after == bytes, may_be_of_another, "{rules:?} {bytes:?}");
            let place = if may_be_of_another { "vkey/k/acme/k/1" } else { "vkey/k/acme/k" };
            let (record, _) = store.shared_data(place).unwrap().unwrap();
            let cell: Cell = decode(&key_name("acme", "k"), &record).unwrap();
            assert_eq!(cell.allowed(), 1);
        }
    }
}

#[test]
fn records_that_are_only_read_are_reset_too() {
    for rules in BOTH {
        let store = MemoryStore::new(rules);
        store.set_shared_data("vkey/k/acme/k", b"garbage", 0).unwrap();
        assert_eq!(read(&store, rules, "k").unwrap(), Cell::default());
    }
}

/// A store that returns torn copies for a while, each torn at another position.
struct Torn {
    store: MemoryStore,
    reads: Counter<usize>,
}

impl SharedData for Torn {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        let torn = self.reads.get();
        self.reads.set(torn.saturating_sub(1));
        let mut read = self.store.shared_data(name)?;
        if let Some((record, _)) = read.as_mut().filter(|_| torn > 0) {
            let place = record.len() - 5 - torn / 2;
            record[place] ^= 1;
        }
        Ok(read)
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        self.store.set_shared_data(name, record, cas)
    }
}

#[test]
fn a_torn_copy_is_not_garbage() {
    for torn in 0..=9 {
        for rules in BOTH {
            let store = MemoryStore::new(rules);
            count(&store, rules, "k").unwrap();
            let lent = Torn { store: store.clone(), reads: Counter::new(torn) };
            count(&lent, rules, "k").unwrap();
            assert_eq!(allowed(&store, "k"), 2, "{torn} torn copies, {rules:?}");
        }
    }
}

/// A store that returns the record of another name once, like nginx when that record has reused the memory.
struct Lent {
    store: MemoryStore,
    other: Counter<Option<Vec<u8>>>,
}

impl SharedData for Lent {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        let read = self.store.shared_data(name)?;
        Ok(read.map(|(record, cas)| (self.other.take().unwrap_or(record), cas)))
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        self.store.set_shared_data(name, record, cas)
    }
}

#[test]
fn a_record_of_another_name_that_is_returned_once_is_ignored() {
    for rules in BOTH {
        let store = MemoryStore::new(rules);
        count(&store, rules, "k").unwrap();
        let other = Counter::new(Some(encode(&key_name("acme", "other"), &Cell::default())));
        count(&Lent { store: store.clone(), other }, rules, "k").unwrap();
        assert_eq!((allowed(&store, "k"), store.len()), (2, 1), "{rules:?}");
    }
}

/// A host that loses all records just before the first write.
struct Forgetful {
    before: MemoryStore,
    after: MemoryStore,
    has_lost: Counter<bool>,
}

impl SharedData for Forgetful {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        if self.has_lost.get() { &self.after } else { &self.before }.shared_data(name)
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        match self.has_lost.replace(true) {
            true => self.after.set_shared_data(name, record, cas),
            false => Err(WriteError::CasMismatch),
        }
    }
}

#[test]
fn a_record_that_is_lost_before_the_write_begins_again() {
    for rules in BOTH {
        let (before, after) = (MemoryStore::new(rules), MemoryStore::new(rules));
        count(&before, rules, "k").unwrap();
        let host = Forgetful { before, after: after.clone(), has_lost: Counter::new(false) };
        count(&host, rules, "k").unwrap();
        assert_eq!(allowed(&after, "k"), 1, "{rules:?}");
    }
}

#[test]
fn names_with_the_same_checksum_have_separate_records() {
    let ids = ["k_dDeEhO", "k_2nav2x", "k_CRQBya", "k_JDILoD", "k_HxLR6Y"];
    let store = MemoryStore::new(Rules::Nginx);
    for (times, id) in (1..).zip(&ids[..MAX_NAMES]) {
        (0..times).for_each(|_| count(&store, Rules::Nginx, id).unwrap());
    }
    for (times, id) in (1..).zip(&ids[..MAX_NAMES]) {
        assert_eq!(allowed(&store, id), times);
    }
    assert_eq!(count(&store, Rules::Nginx, ids[MAX_NAMES]), Err(NotCounted::Contention));
}

#[test]
fn nothing_is_counted_without_shared_data() {
    let store = MemoryStore::new(Rules::Bare);
    assert!(!RecordStore::new(&store, Rules::Bare).is_available());
    for rules in [Rules::Bare, Rules::Envoy, Rules::Nginx] {
        assert!(rules == Rules::Bare || RecordStore::new(&store, rules).is_available());
        assert_eq!(count(&store, rules, "k"), Err(NotCounted::HostRefuses));
        assert_eq!(read(&store, rules, "k"), Err(NotCounted::HostRefuses));
    }
}
