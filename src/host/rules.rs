//! Detects the rules of a host by the behaviour of its shared data.
//!
//! Hosts differ in how a record is created, and a wrong assumption loses counts silently. So the first
//! request of a root context writes a probe record with a compare-and-swap value that is never issued. A
//! host like Envoy stores it, and refuses to do so again. A host like nginx refuses, and then has no
//! record. A host that stores it twice does not compare at all. On such a host, and if the configuration
//! contradicts the result, every request is refused.

use std::cell::{Cell, OnceCell};
use std::fmt;

use crate::record::{Name, Record, Writer, encode};

use super::store::{MAX_NAMES, NEVER_ISSUED, NotCounted, tried_name};
use super::{Host, Level, Property, SharedData, WriteError};

/// The rules of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Those of Envoy, and of hosts like it.
    Envoy,
    /// Those of nginx with WasmX.
    Nginx,
    /// No shared data: nothing is counted.
    Bare,
}

/// The host's rules for shared data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Detected at the first write, which is safe on all hosts.
    Auto,
    /// No shared data: nothing is counted.
    Bare,
    /// A new record is created with a compare-and-swap value that is never issued.
    Envoy,
    /// A new record is created with the compare-and-swap value 0.
    Nginx,
}

/// Why the rules of a host are unknown, or cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownRules {
    /// The configuration names another kind of host.
    Contradicted(Rules),
    /// The configuration says that there is no shared data, but the host is nginx, whose requests must be
    /// read differently.
    NotBare,
    /// The host is nginx, and the module lacks callbacks that nginx calls without checking that they exist.
    OtherModule,
    /// The shared data cannot be used.
    Unreadable(NotCounted),
}

/// What one root context knows about its host.
pub(crate) struct FoundRules {
    dialect: Dialect,
    found: OnceCell<Result<Rules, UnknownRules>>,
    /// Whether it was logged that the shared data cannot be used.
    unreadable_is_logged: Cell<bool>,
}

/// The probe record. It exists only on hosts that create a record with a value that was never issued.
struct Probe;

// === impl Rules ===

impl Rules {
    /// Detects the rules of shared data by writing the probe record.
    ///
    /// # Errors
    ///
    /// [`NotCounted`] if the shared data cannot be used.
    pub fn find<S: SharedData + ?Sized>(shared: &S) -> Result<Self, NotCounted> {
        let name = probe_name();
        let probe = encode(&name, &Probe);
        for attempt in 0..MAX_NAMES {
            let tried = tried_name(&name, attempt);
            let create = || shared.set_shared_data(&tried, &probe, NEVER_ISSUED);
            match create() {
                // Now the record exists, so a host that compares refuses.
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
                // A host like Envoy never deletes anything, so it would still have a record that it refused
                // to create.
                None => return Ok(Self::Nginx),
                Some((found, _)) if found == probe => return Ok(Self::Envoy),
                // Another module's record.
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

/// The name of the probe record.
pub fn probe_name() -> Name {
    Name::new("h", "envoy")
}

// === impl FoundRules ===

impl FoundRules {
    /// Starts with what the configuration says.
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self { dialect, found: OnceCell::new(), unreadable_is_logged: Cell::new(false) }
    }

    /// Whether the configuration names nginx.
    pub(crate) fn names_nginx(&self) -> bool {
        self.dialect == Dialect::Nginx
    }

    /// The rules; [`Rules::Bare`] if they are not known.
    pub(crate) fn known(&self) -> Rules {
        self.found.get().and_then(|found| found.ok()).unwrap_or(Rules::Bare)
    }

    /// The rules of the host before its first request. `None` if they are unknown: with `"host": "bare"`,
    /// only a request shows whether the host is nginx.
    ///
    /// # Errors
    ///
    /// As [`FoundRules::of`].
    pub(crate) fn at_start<H: Host>(&self, host: &H) -> Result<Option<Rules>, UnknownRules> {
        if self.dialect == Dialect::Bare { Ok(None) } else { self.of(host).map(Some) }
    }

    /// The rules of the host during a request. They are detected on the first call. The reason why every
    /// request is refused is logged once. If the shared data could not be used at first, that is logged
    /// once too.
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
            // It may be usable later.
            Err(UnknownRules::Unreadable(_)) => {}
            // Not set with `get_or_init`: the host may call back during its initialisation.
            _ => _ = self.found.set(found),
        }
        match found {
            Ok(Rules::Nginx) => host.log(Level::Info, "vkey: this host follows the rules of nginx"),
            Ok(_) => {}
            // Detection is repeated for every request, so this is logged only once. All other errors were
            // stored above and do not come here again.
            Err(UnknownRules::Unreadable(_)) if self.unreadable_is_logged.replace(true) => {}
            Err(unknown) => {
                host.log(Level::Error, &format!("vkey: every request is refused: {unknown}"));
            }
        }
        found
    }

    fn find<H: Host>(&self, host: &H) -> Result<Rules, UnknownRules> {
        let found = match self.dialect {
            Dialect::Bare if host.property(Property::NginxVersion).is_some() => {
                return Err(UnknownRules::NotBare);
            }
            Dialect::Bare => Rules::Bare,
            Dialect::Auto | Dialect::Envoy | Dialect::Nginx => {
                Rules::find(host).map_err(UnknownRules::Unreadable)?
            }
        };
        match (self.dialect, found) {
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

    fn write(&self, _: &mut Writer<'_>) {}

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

    /// Shared data that is always overwritten, for any compare-and-swap value.
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
    fn every_worker_detects_the_same_rules() {
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
    fn records_of_other_modules_are_not_changed() {
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

    /// Two workers that read the same count would both write the next number.
    #[test]
    fn a_host_that_does_not_compare_is_detected() {
        let store = Overwriting(MemoryStore::new(Rules::Envoy));
        for worker in 0..3 {
            assert_eq!(Rules::find(&store), Err(NotCounted::HostOverwrites), "{worker}");
        }
    }

    /// The operator must act on the last reason.
    #[test]
    fn a_contradiction_is_logged_after_an_error_of_shared_data() {
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
