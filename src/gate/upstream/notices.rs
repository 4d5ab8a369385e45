//! What all workers of a process learn once: that a cluster has a gate, and which warnings are in the log.

use crate::digest::sha256;
use crate::host::{Host, RecordStore};
use crate::record::{Name, Record, Writer, take};

/// The most notices that are remembered. Only configurations make new ones.
const MAX_NOTICES: usize = 64;

/// Bytes of the SHA-256 of a text that identify it.
const TEXT_BYTES: usize = 8;

/// The notices of a process, by digest.
#[derive(Default)]
struct Notices(Vec<[u8; TEXT_BYTES]>);

/// Makes a notice. Returns whether no worker has made it yet. Without shared data each worker makes it, and once the list
/// is full nobody remembers it.
pub(super) fn notice<H: Host>(store: &RecordStore<'_, H>, text: &str) -> bool {
    let digest = digest(text);
    // Reading is cheaper, and after the first time it is enough.
    !store.is_available()
        || (!is_noticed(store, text)
            && store.update(&name(), |notices: &mut Notices| notices.add(digest)).unwrap_or(true))
}

/// Whether a worker has made a notice.
pub(super) fn is_noticed<H: Host>(store: &RecordStore<'_, H>, text: &str) -> bool {
    let digest = digest(text);
    store.is_available()
        && store.read(&name()).is_ok_and(|notices: Notices| notices.0.contains(&digest))
}

fn name() -> Name {
    Name::new("g", "notices")
}

fn digest(text: &str) -> [u8; TEXT_BYTES] {
    sha256(text.as_bytes()).first_chunk().copied().unwrap_or_default()
}

impl Notices {
    /// Adds a notice. Returns whether it is new.
    fn add(&mut self, digest: [u8; TEXT_BYTES]) -> bool {
        let is_new = !self.0.contains(&digest);
        if is_new && self.0.len() < MAX_NOTICES {
            self.0.push(digest);
        }
        is_new
    }
}

impl Record for Notices {
    const VERSION: u8 = 15;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Writer<'_>) {
        self.0.iter().for_each(|digest| record.put(*digest));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut notices = Vec::new();
        while !bytes.is_empty() && notices.len() < MAX_NOTICES {
            notices.push(take(bytes)?);
        }
        Some(Self(notices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{MemoryHost, MemoryStore, Rules};

    #[test]
    fn a_notice_is_new_once_and_full_lists_forget_nothing() {
        let shared = MemoryStore::new(Rules::Envoy);
        let hosts = [(); 2].map(|()| MemoryHost::new(shared.clone()));
        let is_new =
            |host: usize, text: &str| notice(&RecordStore::new(&hosts[host], Rules::Envoy), text);
        for number in 0..MAX_NOTICES {
            let text = number.to_string();
            assert!(is_new(number % 2, &text) && !is_new(0, &text) && !is_new(1, &text));
        }
        assert!(is_new(0, "one more") && is_new(1, "one more"));
        assert!(!is_new(0, "0") && !is_new(1, "63"));
    }
}
