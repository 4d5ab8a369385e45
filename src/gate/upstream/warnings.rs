//! Which warnings are in the log already, whichever worker wrote them.

use crate::digest::sha256;
use crate::host::{Host, RecordStore};
use crate::record::{Name, Record, take};

/// The most warnings that are remembered. Only configurations make new ones.
const MAX_WARNINGS: usize = 64;

/// Bytes of the SHA-256 of a text that identify it.
const TEXT_BYTES: usize = 8;

/// The warnings of a process, by digest.
#[derive(Default)]
struct Warnings(Vec<[u8; TEXT_BYTES]>);

/// Whether no worker has logged a text yet. Without shared data, each worker logs it.
pub(super) fn is_first<H: Host>(store: &RecordStore<'_, H>, text: &str) -> bool {
    let digest = sha256(text.as_bytes()).first_chunk().copied().unwrap_or_default();
    let is_logged = |warnings: Warnings| warnings.0.contains(&digest);
    if !store.is_available() {
        return true;
    }
    let name = Name::new("g", "warnings");
    // Reading is cheaper, and after the first time it is enough.
    !store.read(&name).is_ok_and(is_logged)
        && store.update(&name, |warnings: &mut Warnings| warnings.add(digest)).unwrap_or(true)
}

impl Warnings {
    /// Adds a warning. Returns whether it is new.
    fn add(&mut self, digest: [u8; TEXT_BYTES]) -> bool {
        let is_new = !self.0.contains(&digest);
        if is_new && self.0.len() < MAX_WARNINGS {
            self.0.push(digest);
        }
        is_new
    }
}

impl Record for Warnings {
    const VERSION: u8 = 15;

    fn fresh() -> Self {
        Self::default()
    }

    fn write(&self, record: &mut Vec<u8>) {
        self.0.iter().for_each(|digest| record.extend_from_slice(digest));
    }

    fn read(bytes: &mut &[u8]) -> Option<Self> {
        let mut warnings = Vec::new();
        while !bytes.is_empty() && warnings.len() < MAX_WARNINGS {
            warnings.push(take(bytes)?);
        }
        Some(Self(warnings))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{MemoryHost, MemoryStore, Rules};

    #[test]
    fn a_warning_is_new_once_and_full_lists_forget_nothing() {
        let shared = MemoryStore::new(Rules::Envoy);
        let hosts = [(); 2].map(|()| MemoryHost::new(shared.clone()));
        let is_new =
            |host: usize, text: &str| is_first(&RecordStore::new(&hosts[host], Rules::Envoy), text);
        for number in 0..MAX_WARNINGS {
            let text = number.to_string();
            assert!(is_new(number % 2, &text) && !is_new(0, &text) && !is_new(1, &text));
        }
        assert!(is_new(0, "one more") && is_new(1, "one more"));
        assert!(!is_new(0, "0") && !is_new(1, "63"));
    }
}
