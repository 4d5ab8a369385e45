//! The rules of a host: found by what its shared data does, not believed.
//!
//! Hosts disagree on how a record is created, and a wrong belief loses counts without a sign. So the first
//! request of a root context writes a record of its own by a value that is never issued: a host of Envoy's
//! kind stores it and then refuses it, one of nginx's kind refuses it and still has none. One that stores it
//! twice compares nothing. There, and where the configuration says otherwise, nothing is let through.

use std::cell::{Cell, OnceCell};
use std::fmt;

use crate::record::{Name, Record, encode};

use super::store::{MAX_NAMES, NEVER_ISSUED, NotCounted, tried_name};
use super::{Host, Level, Property, SharedData, WriteError};

/// The rules that a host follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Those of Envoy, and of whatever hosts modules as it does.
    Envoy,
    /// Those of nginx with WasmX.
    Nginx,
    /// There is no shared data: nothing is counted.
    Bare,
}

/// The host's rules for shared data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Found out at the first write, without a risk on hosts of either rule.
    Auto,
    /// No shared data: nothing is counted.
    Bare,
    /// An absent record is created by a compare-and-swap value that is never issued.
    Envoy,
    /// An absent record is created by the compare-and-swap value 0.
    Nginx,
}

/// Why the rules of a host are not known, or not the ones that were expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownRules {
    /// The configuration names a host of another kind.
    Contradicted(Rules),
    /// The configuration says that there is no shared data, on a host that has some and needs more care.
    NotBare,
    /// The module lacks callbacks that nginx calls without asking whether they are there.
    OtherModule,
    /// The shared data cannot be used.
    Unreadable(NotCounted),
}

/// What one root context knows of its host.
pub(crate) struct FoundRules {
    told: Dialect,
    found: OnceCell<Result<Rules, UnknownRules>>,
    /// Whether it was said that the shared data cannot be used.
    unreadable_is_logged: Cell<bool>,
}

/// A record that exists only where it could be created with a value that was never issued.
struct Probe;

// === impl Rules ===

impl Rules {
    /// Finds out which rules shared data follows, by a record that is written for that.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] when it cannot be told.
    pub fn find<S: SharedData + ?Sized>(shared: &S) -> Result<Self, NotCounted> {
        let name = probe_name();
        let probe = encode(&name, &Probe);
        for attempt in 0..MAX_NAMES {
            let tried = tried_name(&name, attempt);
            let create = || shared.set_shared_data(&tried, &probe, NEVER_ISSUED);
            match create() {
                // Now it is there, so whoever compares refuses it.
                Ok(()) => {
                    return match create() {
                        Ok(()) => Err(NotCounted::HostOverwrites),
                        Err(WriteError::CasMismatch) => Ok(Self::Envoy),
                        Err(WriteError::Host(_)) => Err(NotCounted::HostRefuses),
                    };
                }
                Err(WriteError::Host(_)) => return Err(NotCounted::HostRefuses),
                Err(WriteError::CasMismatch) => {}
            }
            match shared.shared_data(&tried).map_err(|_| NotCounted::HostRefuses)? {
                // Nothing is ever deleted on a host of Envoy's kind, so a record that one refused to create
                // would be there.
                None => return Ok(Self::Nginx),
                Some((found, _)) if found == probe => return Ok(Self::Envoy),
                // Another module's.
                Some(_) => {}
            }
        }
        Err(NotCounted::Contention)
    }

    fn word(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::Nginx => "nginx",
            Self::Bare => "bare",
        }
    }
}

/// The record by which hosts of Envoy's kind are known.
pub fn probe_name() -> Name {
    Name::new("h", "envoy")
}

// === impl FoundRules ===

impl FoundRules {
    /// Nothing is known yet but what the configuration says.
    pub(crate) fn new(told: Dialect) -> Self {
        Self { told, found: OnceCell::new(), unreadable_is_logged: Cell::new(false) }
    }

    /// Whether the configuration names nginx.
    pub(crate) fn names_nginx(&self) -> bool {
        self.told == Dialect::Nginx
    }

    /// Rules to read records by before they are found: reading is alike on all hosts that have any.
    pub(crate) fn for_reading(&self) -> Rules {
        if self.told == Dialect::Bare { Rules::Bare } else { Rules::Envoy }
    }

    /// The rules, as far as they are known; none that count before.
    pub(crate) fn known(&self) -> Rules {
        self.found.get().and_then(|found| found.ok()).unwrap_or(Rules::Bare)
    }

    /// The rules of the host before its first request, as far as they can be found out then: what a
    /// configuration takes for a host without shared data says only in a request that it is nginx.
    pub(crate) fn at_start<H: Host>(&self, host: &H) -> Option<Rules> {
        if self.told == Dialect::Bare { None } else { self.of(host).ok() }
    }

    /// The rules of the host that shows a request, which are found out the first time. Why nothing can be let
    /// through is logged once, and once before if the shared data could not be used at first.
    ///
    /// # Errors
    ///
    /// [`UnknownRules`]
    pub(crate) fn of<H: Host>(&self, host: &H) -> Result<Rules, UnknownRules> {
        if let Some(found) = self.found.get() {
            return *found;
        }
        let found = self.find(host);
        match found {
            // It may be another time.
            Err(UnknownRules::Unreadable(_)) => {}
            // The host is not called inside the cell's own initialisation: it may call back.
            _ => _ = self.found.set(found),
        }
        match found {
            Ok(Rules::Nginx) => host.log(Level::Info, "vkey: this host follows the rules of nginx"),
            Ok(_) => {}
            // It is tried again for every request. What else is wrong was set above, and so is said here once.
            Err(UnknownRules::Unreadable(_)) if self.unreadable_is_logged.replace(true) => {}
            Err(unknown) => {
                host.log(Level::Error, &format!("vkey: every request is refused: {unknown}"));
            }
        }
        found
    }

    fn find<H: Host>(&self, host: &H) -> Result<Rules, UnknownRules> {
        let found = match self.told {
            Dialect::Bare if host.property(Property::NginxVersion).is_some() => {
                return Err(UnknownRules::NotBare);
            }
            Dialect::Bare => Rules::Bare,
            Dialect::Auto | Dialect::Envoy | Dialect::Nginx => {
                Rules::find(host).map_err(UnknownRules::Unreadable)?
            }
        };
        match (self.told, found) {
            (Dialect::Envoy, Rules::Nginx) | (Dialect::Nginx, Rules::Envoy) => {
                Err(UnknownRules::Contradicted(found))
            }
            (_, Rules::Nginx) if !H::SERVES_NGINX => Err(UnknownRules::OtherModule),
            _ => Ok(found),
        }
    }
}

impl Record for Probe {
    const VERSION: u8 = 6;

    fn fresh() -> Self {
        Self
    }

    fn write(&self, _: &mut Vec<u8>) {}

    fn read(_: &mut &[u8]) -> Option<Self> {
        Some(Self)
    }
}

impl fmt::Display for UnknownRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contradicted(found) => write!(
                f,
                "\"host\" names another kind of host: shared data follows the rules of {found}; set \
                 \"host\": \"{found}\", or leave it out",
                found = found.word()
            ),
            Self::NotBare => f.write_str(
                "\"host\" says bare, and this is nginx: give it shared data (shm_kv) and set \"host\": \
                 \"nginx\"",
            ),
            Self::OtherModule => f.write_str(
                "this is nginx, which calls callbacks that this module does not have: load \
                 vkey-nginx.wasm",
            ),
            Self::Unreadable(not_counted) => not_counted.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{HostError, MemoryHost, MemoryStore};

    /// Shared data that is overwritten whatever the value says.
    struct Overwriting(MemoryStore);

    impl SharedData for Overwriting {
        fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
            self.0.shared_data(name)
        }

        fn set_shared_data(&self, name: &str, record: &[u8], _: u32) -> Result<(), WriteError> {
            self.0.set_shared_data(name, record, 0)
        }
    }

    #[test]
    fn every_worker_finds_the_same_rules() {
        for rules in [Rules::Envoy, Rules::Nginx] {
            let store = MemoryStore::new(rules);
            for _ in 0..2 {
                assert_eq!(Rules::find(&store), Ok(rules));
            }
            assert_eq!(store.len(), usize::from(rules == Rules::Envoy), "{rules:?}");
        }
        let bare = MemoryStore::new(Rules::Bare);
        assert_eq!(Rules::find(&bare), Err(NotCounted::HostRefuses));
    }

    #[test]
    fn records_of_others_are_left_alone() {
        for rules in [Rules::Envoy, Rules::Nginx] {
            let (store, name) = (MemoryStore::new(rules), probe_name());
            let names = || (0..MAX_NAMES).map(|attempt| tried_name(&name, attempt));
            for (planted, tried) in names().enumerate() {
                let found = Rules::find(&store.fork());
                assert_eq!(found, Ok(rules), "{planted} planted");
                store.set_shared_data(&tried, b"another's", 0).unwrap();
            }
            assert_eq!(Rules::find(&store), Err(NotCounted::Contention), "{rules:?}");
            for tried in names() {
                assert_eq!(store.shared_data(&tried).unwrap().unwrap().0, b"another's");
            }
        }
    }

    /// Two workers that read the same count would both write the next one.
    #[test]
    fn a_host_that_does_not_compare_is_not_counted_on() {
        let store = Overwriting(MemoryStore::new(Rules::Envoy));
        for worker in 0..3 {
            assert_eq!(Rules::find(&store), Err(NotCounted::HostOverwrites), "{worker}");
        }
    }

    /// The last reason is the one that the operator must act on.
    #[test]
    fn a_contradiction_is_logged_although_shared_data_could_not_be_used_before() {
        let rules = FoundRules::new(Dialect::Nginx);
        let unusable = MemoryHost::new(MemoryStore::new(Rules::Bare));
        let usable = MemoryHost::new(MemoryStore::new(Rules::Envoy));
        for _ in 0..3 {
            let found = rules.of(&unusable);
            assert_eq!(found, Err(UnknownRules::Unreadable(NotCounted::HostRefuses)));
        }
        for _ in 0..3 {
            assert_eq!(rules.of(&usable), Err(UnknownRules::Contradicted(Rules::Envoy)));
        }
        for (host, reason) in [(unusable, "shared data"), (usable, "names another kind of host")] {
            let log = host.log.take();
            assert!(matches!(&*log, [(Level::Error, line)] if line.contains(reason)), "{log:?}");
        }
    }
}
