//! Verified keys that are remembered, so that a key's MACs are computed at its first sight only.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::key::Key;
use crate::mac::Tag;
use crate::token::{parse_tag, split_tag};

/// Keys of one generation. Two generations of the longest tokens take about 10 MiB; usual ones, with
/// some 250 bytes, take one.
const GENERATION_KEYS: usize = 1024;

/// A bounded memory of verified keys.
///
/// A key is found by its whole token: all that stands before the tag, which everybody may know, and
/// then the tag, which is compared in constant time. A tree instead of a hash table, because those
/// who attenuate keys choose what is stored.
///
/// When the young generation is full it becomes the old one and the old one is forgotten; a key that
/// is found in the old one moves to the young. So what is in use stays, and nobody can make the
/// memory grow: a flood of fresh keys costs the others one verification each.
#[derive(Default)]
pub(super) struct VerifiedKeys {
    young: Generation,
    old: Generation,
}

type Generation = BTreeMap<Box<[u8]>, Entry>;

struct Entry {
    tag: Tag,
    key: Rc<Key>,
}

impl VerifiedKeys {
    /// The key that exactly this token was verified as.
    pub(super) fn get(&mut self, token: &[u8]) -> Option<Rc<Key>> {
        let (body, tag) = split_tag(token)?;
        if let Some(entry) = self.young.get(body) {
            return entry.open(tag);
        }
        let key = self.old.get(body)?.open(tag)?;
        let (body, entry) = self.old.remove_entry(body)?;
        self.store(body, entry);
        Some(key)
    }

    /// Remembers a token that was verified.
    pub(super) fn insert(&mut self, token: &[u8], key: Rc<Key>) {
        let Some((body, tag)) = split_tag(token) else {
            return;
        };
        if let Ok(tag) = parse_tag(tag) {
            self.store(body.into(), Entry { tag, key });
        }
    }

    fn store(&mut self, body: Box<[u8]>, entry: Entry) {
        if self.young.len() >= GENERATION_KEYS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(body, entry);
    }
}

impl Entry {
    fn open(&self, tag: &[u8]) -> Option<Rc<Key>> {
        let tag = parse_tag(tag).ok()?;
        self.tag.matches(&tag).then(|| Rc::clone(&self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::{Keyring, Ring, RingState, Secret};
    use crate::token::{Unverified, mint};

    fn token(number: usize) -> (String, Rc<Key>) {
        let secret = Secret::parse("Sample-Secret-1-never-deploy").unwrap();
        let ring = Ring::new("main", &secret, RingState::Active, None).unwrap();
        let claims = format!(r#"{{"jti":"k{number}","tenant":"t","iat":1,"exp":2}}"#);
        let kid = ring.kid_at(0).unwrap();
        let token = mint(&ring.signing_key(&kid), &kid, claims.as_bytes());
        let keyring = Keyring::new(vec![ring], 0);
        let key = Key::verify(Unverified::parse(token.as_bytes()).unwrap(), &keyring).unwrap();
        (token, Rc::new(key))
    }

    #[test]
    fn only_the_whole_token_is_found() {
        let (token, key) = token(1);
        let mut keys = VerifiedKeys::default();
        keys.insert(token.as_bytes(), key);
        assert!(keys.get(token.as_bytes()).is_some());
        let body = token.rsplit_once('.').unwrap().0;
        assert!(keys.get(body.as_bytes()).is_none());
        let forged = format!("{body}.{}", "A".repeat(43));
        assert!(keys.get(forged.as_bytes()).is_none());
        assert!(keys.get(format!("{token}A").as_bytes()).is_none());
    }

    #[test]
    fn the_memory_is_bounded_and_keeps_what_is_in_use() {
        let mut keys = VerifiedKeys::default();
        let (used, used_key) = token(0);
        keys.insert(used.as_bytes(), used_key);
        let (_, key) = token(1);
        for number in 0..GENERATION_KEYS * 5 {
            keys.insert(
                format!("vk1.main-0.k{number}.{}", "A".repeat(43)).as_bytes(),
                Rc::clone(&key),
            );
            assert!(keys.young.len() + keys.old.len() <= GENERATION_KEYS * 2);
            assert!(keys.get(used.as_bytes()).is_some());
        }
        assert!(keys.get(format!("vk1.main-0.k0.{}", "A".repeat(43)).as_bytes()).is_none());
    }
}
