//! Revocations shared by all configurations of one proxy: see [`crate::key::revocations`].

use std::cell::Cell;

use crate::engine::Engine;
use crate::host::{Host, Level, NotCounted, RecordStore};
use crate::key::revocations::{Newer, NewestVersion, RevocationList, list_name, version_name};
use crate::time::NANOS_PER_SEC;

use super::metrics::Metrics;
use super::resets::Resets;

/// How long a version that was read holds. Reading it costs a tenth of a request.
const LOOK_NS: u64 = NANOS_PER_SEC;

/// The newest version, and when it was read.
#[derive(Default)]
pub(super) struct Revocations {
    looked_at_ns: Cell<Option<u64>>,
    /// `None` if the version or its list could not be read.
    newest: Cell<Option<u64>>,
}

impl Revocations {
    /// Shares the revocations in force with all workers, including those under older configurations.
    pub(super) fn publish<H: Host>(host: &H, list: &RevocationList) {
        let store = RecordStore::new(host, host.rules());
        if list.version() == 0 || !store.is_available() {
            return;
        }
        if let Err(not_counted) = write(&store, list) {
            let text = format!(
                "vkey: revocations {} are in force, but connections under an older configuration \
                 cannot be told: {not_counted}",
                list.version()
            );
            host.log(Level::Error, &text);
        }
    }

    /// Gives the engine revocations that are newer than its own. They are at most a second old.
    pub(super) fn refresh<H: Host>(
        &self,
        host: &H,
        engine: &mut Engine,
        (metrics, resets): (&Metrics, &Resets),
        now_ns: u64,
    ) {
        let store = RecordStore::new(host, host.rules());
        let looked = self.looked_at_ns.get();
        let fresh = looked.is_some_and(|at_ns| now_ns.abs_diff(at_ns) < LOOK_NS);
        if fresh || !store.is_available() {
            return;
        }
        self.looked_at_ns.set(Some(now_ns));
        let own = engine.settings().revoked.version.unwrap_or(0);
        let newest = store.read(&version_name()).map(|NewestVersion(version)| version);
        match newest {
            Ok(newest) if Some(newest) == self.newest.get() => {}
            Ok(newest) if newest > own => {
                let list = store.read(&list_name()).map(|list: RevocationList| list.newer(newest));
                let newer = list.as_ref().unwrap_or(&Newer::Unknown);
                host.log(Level::Error, &text(own, newest, newer));
                self.newest.set(list.is_ok().then_some(newest));
                engine.set_newer_revocations(list.unwrap_or(Newer::Unknown));
            }
            Ok(newest) => {
                engine.set_newer_revocations(Newer::None);
                self.newest.set(Some(newest));
                // The proxy has lost the list, or it could not be shared.
                if newest < own {
                    Self::publish(host, &RevocationList::new(&engine.settings().revoked));
                }
            }
            Err(_) => {
                self.newest.set(None);
                engine.set_newer_revocations(Newer::Unknown);
            }
        }
        metrics.show_newest_revocations(host, self.newest.get().unwrap_or(own).max(own));
        resets.report(host, &store);
    }
}

/// The list is written first, so a reader of the version finds a list at least as new.
fn write<H: Host>(store: &RecordStore<'_, H>, list: &RevocationList) -> Result<(), NotCounted> {
    store.update(&list_name(), |kept: &mut RevocationList| {
        if kept.version() < list.version() {
            kept.clone_from(list);
        }
    })?;
    store.update(&version_name(), |NewestVersion(newest)| *newest = list.version().max(*newest))
}

fn text(own: u64, newest: u64, newer: &Newer) -> String {
    let consequence = match newer {
        Newer::Unknown => "every key is refused, because that list is not known here",
        Newer::List(_) | Newer::None => "the keys that it names are refused",
    };
    format!(
        "vkey: the revocations of this configuration, version {own}, are older than version {newest}, \
         which this proxy has seen: {consequence}. Connections that were open before an update end by \
         themselves; a configuration that was rolled back needs a version above {newest}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::host::view::HostView;
    use crate::host::{MemoryHost, MemoryStore, Rules};
    use crate::key::revocations::Revoked;

    fn engine(version: u64) -> Engine {
        let config = format!(
            r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}], "host": "envoy",
                 "revoked": {{"version": {version}}}}}"#
        );
        let config = Config::parse(config.as_bytes()).unwrap();
        Engine::new(config.compile(|_| Some("Revoked-1-is-in-a-list".to_owned())).unwrap())
    }

    fn refresh(revocations: &Revocations, store: &MemoryStore, engine: &mut Engine, secs: u64) {
        let host = MemoryHost::new(store.clone());
        // It was found to follow these rules, whatever has become of it.
        let host = HostView::new(&host, Rules::Envoy);
        let seen = (&Metrics::default(), &Resets::default());
        revocations.refresh(&host, engine, seen, secs * NANOS_PER_SEC);
    }

    #[test]
    fn a_look_that_fails_is_taken_again() {
        let (good, failing) = (MemoryStore::new(Rules::Envoy), MemoryStore::new(Rules::Bare));
        let (revocations, mut engine) = (Revocations::default(), engine(8));
        refresh(&revocations, &good, &mut engine, 1);
        assert!(!engine.is_outdated());
        refresh(&revocations, &failing, &mut engine, 2);
        assert!(engine.is_outdated());
        refresh(&revocations, &good, &mut engine, 3);
        assert!(!engine.is_outdated());
    }

    #[test]
    fn newer_revocations_are_known_within_a_second() {
        let store = MemoryStore::new(Rules::Envoy);
        let (revocations, mut engine) = (Revocations::default(), engine(8));
        refresh(&revocations, &store, &mut engine, 1);
        let newer = RevocationList::new(&Revoked { version: Some(9), ..Revoked::default() });
        Revocations::publish(&MemoryHost::new(store.clone()), &newer);
        refresh(&revocations, &store, &mut engine, 1);
        assert!(!engine.is_outdated(), "it was looked up a moment ago");
        refresh(&revocations, &store, &mut engine, 2);
        assert!(engine.is_outdated());
        // An older list does not replace the newest.
        let older = RevocationList::new(&Revoked { version: Some(3), ..Revoked::default() });
        Revocations::publish(&MemoryHost::new(store.clone()), &older);
        refresh(&revocations, &store, &mut engine, 3);
        assert!(engine.is_outdated());
    }
}
