//! The caches of an engine: verified keys, so that a key's MACs are computed only once, and signing
//! keys.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::decision::DenyReason;
use crate::key::keyring::Ring;
use crate::key::mac::{SigningKey, Tag};
use crate::key::token::{Kid, parse_tag, split_tag};

use super::known::KnownKey;

/// The most memory of one generation, in bytes: about five thousand typical keys.
const GENERATION_BYTES: usize = 4 << 20;

/// A key that takes more than this is not cached, so that it cannot evict many others.
const MAX_KEY_BYTES: usize = 64 << 10;

/// The estimated size of an entry without its token and its key, in bytes.
const ENTRY_BYTES: usize = 256;

/// A bounded cache of verified keys.
///
/// A key is found by its whole token: by the part before the tag, which is not secret, then by the
/// tag, which is compared in constant time. A tree instead of a hash table, because clients that
/// attenuate keys choose the entries.
///
/// When the young generation is full it replaces the old one, which is dropped. A key found in the
/// old one moves to the young one. So keys in use stay cached, and memory is bounded: a flood of
/// new keys costs the others one verification each.
#[derive(Default)]
pub(super) struct VerifiedKeys {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    entries: BTreeMap<Box<[u8]>, Entry>,
    bytes: usize,
}

struct Entry {
    tag: Tag,
    key: Rc<KnownKey>,
}

/// Derived signing keys by kid. Only those of a few epochs are in use at a time.
#[derive(Default)]
pub(super) struct SigningKeys(Vec<(Rc<Kid>, SigningKey)>);

/// The most signing keys that are cached. When the cache is full, it is cleared.
const MAX_SIGNING_KEYS: usize = 8;

impl SigningKeys {
    /// The signing key of a ring for one of its kids, and that kid, which keys share.
    ///
    /// # Errors
    ///
    /// As [`Ring::signing_key`].
    pub(super) fn get(
        &mut self,
        ring: &Ring,
        kid: &Kid,
    ) -> Result<&(Rc<Kid>, SigningKey), DenyReason> {
        let Self(keys) = self;
        let index = match keys.iter().position(|(cached, _)| **cached == *kid) {
            Some(index) => index,
            None => {
                let derived = ring.signing_key(kid)?;
                if keys.len() >= MAX_SIGNING_KEYS {
                    keys.clear();
                }
                keys.push((Rc::new(kid.clone()), derived));
                keys.len() - 1
            }
        };
        keys.get(index).ok_or(DenyReason::NotReady)
    }
}

impl VerifiedKeys {
    /// The key that was verified from exactly this token.
    pub(super) fn get(&mut self, token: &[u8]) -> Option<Rc<KnownKey>> {
        let (body, tag) = split_tag(token)?;
        if let Some(entry) = self.young.entries.get(body) {
            return entry.open(tag);
        }
        let key = self.old.entries.get(body)?.open(tag)?;
        let (body, entry) = self.old.entries.remove_entry(body)?;
        self.store(body, entry);
        Some(key)
    }

    /// Caches a verified token.
    pub(super) fn insert(&mut self, token: &[u8], key: Rc<KnownKey>) {
        let Some((body, tag)) = split_tag(token) else {
            return;
        };
        if let Ok(tag) = parse_tag(tag) {
            self.store(body.into(), Entry { tag, key });
        }
    }

    fn store(&mut self, body: Box<[u8]>, entry: Entry) {
        let bytes = body.len() + entry.key.footprint() + ENTRY_BYTES;
        if bytes > MAX_KEY_BYTES {
            return;
        }
        if self.young.bytes + bytes > GENERATION_BYTES {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += bytes;
        self.young.entries.insert(body, entry);
    }
}

impl Entry {
    fn open(&self, tag: &[u8]) -> Option<Rc<KnownKey>> {
        let tag = parse_tag(tag).ok()?;
        self.tag.matches(&tag).then(|| Rc::clone(&self.key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::Engine;
    use crate::key::Key;
    use crate::key::keyring::{RingState, Rotation, Secret};
    use crate::key::token::{Unverified, mint};

    const SECRET: &str = "Caches-1-remember-verified-keys";

    #[test]
    fn a_signing_key_does_not_depend_on_earlier_lookups() {
        let secret = Secret::parse(SECRET).unwrap();
        let rotation = Rotation::new(10, 100, false).ok();
        let ring = |name| Ring::new(name, &secret, RingState::Active, rotation).unwrap();
        let mut keys = SigningKeys::default();
        for epoch in [1, 1, 2, 1, 3, 4, 5, 6, 7, 8, 1, 2, 5, 5] {
            for ring in [ring("main"), ring("other")] {
                let kid = Kid::new(ring.name(), epoch).unwrap();
                let expected = ring.signing_key(&kid).unwrap().sign(&[b"text"]);
                assert!(
                    keys.get(&ring, &kid).unwrap().1.sign(&[b"text"]).matches(&expected),
                    "{kid}"
                );
                assert!(keys.0.len() <= MAX_SIGNING_KEYS);
            }
        }
    }

    fn token(number: usize, more: &str) -> (String, Rc<KnownKey>) {
        let secret = Secret::parse(SECRET).unwrap();
        let ring = Ring::new("main", &secret, RingState::Active, None).unwrap();
        let claims = format!(r#"{{"jti":"k{number}","tenant":"t","iat":1,"exp":2{more}}}"#);
        let kid = ring.kid_at(0).unwrap();
        let token = mint(&ring.signing_key(&kid).unwrap(), &kid, claims.as_bytes());
        let config = br#"{"keyring": [{"name": "main", "secret": "${S}"}]}"#;
        let config = Config::parse(config).unwrap();
        let engine = Engine::new(config.compile(|_| Some(SECRET.to_owned())).unwrap());
        let unverified = Unverified::parse(token.as_bytes()).unwrap();
        (token.clone(), Rc::new(engine.prepare(Key::verify(unverified, engine.keyring()).unwrap())))
    }

    #[test]
    fn only_the_whole_token_is_found() {
        let (token, key) = token(1, "");
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
    fn memory_is_bounded_and_keys_in_use_stay_cached() {
        let mut keys = VerifiedKeys::default();
        let (used, used_key) = token(0, "");
        keys.insert(used.as_bytes(), used_key);
        let (_, key) = token(1, "");
        let fill = |number| format!("vk1.main-0.k{number}.{}", "A".repeat(43));
        for number in 0..40_000 {
            keys.insert(fill(number).as_bytes(), Rc::clone(&key));
            assert!(keys.young.bytes <= GENERATION_BYTES && keys.old.bytes <= GENERATION_BYTES);
            assert!(keys.get(used.as_bytes()).is_some());
        }
        assert!(keys.get(fill(0).as_bytes()).is_none());
        assert!(keys.young.entries.len() > 1_000 || keys.old.entries.len() > 1_000);
    }

    #[test]
    fn a_key_of_many_small_parts_is_not_cached() {
        let alternatives = "{},".repeat(900);
        let only = format!(r#","only":{{"any_of":[{}]}}"#, alternatives.trim_end_matches(','));
        let (token, key) = token(1, &only);
        assert!(key.footprint() > MAX_KEY_BYTES);
        let mut keys = VerifiedKeys::default();
        keys.insert(token.as_bytes(), key);
        assert!(keys.get(token.as_bytes()).is_none());
    }
}
