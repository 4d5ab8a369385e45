//! Tests of the cache of verified keys, with small queues.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::config::Config;
use crate::digest::sha256_hex;
use crate::engine::{Engine, Identity};
use crate::key::Key;
use crate::key::keyring::{Ring, RingState, Secret};
use crate::key::token::{Unverified, mint};

const SECRET: &str = "Caches-1-remember-verified-keys";

const NOW_SECS: u64 = 1_790_000_000;

fn engine() -> Engine {
    let config = br#"{"keyring": [{"name": "main", "secret": "${S}"}]}"#;
    let config = Config::parse(config).unwrap();
    Engine::new(config.compile(|_| Some(SECRET.to_owned())).unwrap())
}

/// The token of a key, with more claims.
fn token(number: usize, more: &str) -> String {
    let secret = Secret::parse(SECRET).unwrap();
    let ring = Ring::new("main", &secret, RingState::Active, None).unwrap();
    let claims =
        format!(r#"{{"jti":"k{number}","tenant":"t","iat":1780000000,"exp":1900000000{more}}}"#);
    let kid = ring.kid_at(0).unwrap();
    mint(&ring.signing_key(&kid).unwrap(), &kid, claims.as_bytes())
}

fn known(engine: &Engine, token: &str) -> Rc<KnownKey> {
    let unverified = Unverified::parse(token.as_bytes()).unwrap();
    Rc::new(engine.prepare(Key::verify(unverified, engine.keyring()).unwrap()))
}

/// A tag without any order, the same each time for a seed. Its last character has no stray bits.
fn tag(seed: &str) -> String {
    let digits = sha256_hex(seed.as_bytes());
    digits.chars().take(TAG_CHARS - 1).chain(['A']).collect()
}

/// A cache of some usual keys of one size, and what it needs to take more.
struct Small {
    keys: VerifiedKeys,
    key: Rc<KnownKey>,
    main: usize,
    probation: usize,
}

impl Small {
    fn new(main: usize, probation: usize) -> Self {
        let engine = engine();
        let key = known(&engine, &token(1, ""));
        let bytes = allocated(Self::token(0, 0).len()) + key.footprint();
        let room = |entries: usize| Room { bytes: entries * bytes, entries: usize::MAX };
        let keys = VerifiedKeys::with_room(engine.keyring(), room(main), room(probation));
        Self { keys, key, main, probation }
    }

    /// Something of the form of a token, of a fixed length.
    fn token(kind: u8, number: usize) -> String {
        format!("vk1.main-0.{kind:02}{number:08}.{}", tag(&format!("{kind} {number}")))
    }

    /// Uses a key: finds it, or remembers it. Whether it was found.
    fn use_key(&mut self, token: &str) -> bool {
        let found = self.keys.get(token.as_bytes()).is_some();
        if !found {
            self.keys.insert(token.as_bytes(), Rc::clone(&self.key));
        }
        found
    }

    fn entries(&self) -> usize {
        self.keys.main.size().1 + self.keys.probation.size().1
    }
}

#[test]
fn only_the_whole_token_is_found() {
    let (engine, token) = (engine(), token(1, ""));
    let mut keys = VerifiedKeys::new(engine.keyring());
    keys.insert(token.as_bytes(), known(&engine, &token));
    assert_eq!(keys.get(token.as_bytes()).unwrap().jti(), "k1");
    let (body, tag) = token.rsplit_once('.').unwrap();
    for number in 0..token.len() {
        let mut other = token.clone().into_bytes();
        other[number] ^= 1;
        assert!(keys.get(&other).is_none(), "byte {number}");
        assert!(keys.get(&token.as_bytes()[..number]).is_none(), "{number} bytes");
    }
    // The tag alone finds the entry, and is not enough.
    let other_body = format!("{}.{tag}", body.replace("main", "mine"));
    assert!(keys.get(other_body.as_bytes()).is_none());
    assert!(keys.get(format!("A{token}").as_bytes()).is_none());
    assert!(keys.get(format!("{token}A").as_bytes()).is_none());
    assert!(keys.get(b"").is_none());
    assert!(keys.get("é".repeat(40).as_bytes()).is_none());
}

#[test]
fn forged_keys_do_not_enter() {
    let mut engine = engine();
    let token = token(1, "");
    let (body, _) = token.rsplit_once('.').unwrap();
    for number in 0..100 {
        let forged = format!("{body}.{}", tag(&number.to_string()));
        assert!(matches!(engine.identify(forged.as_bytes(), NOW_SECS), Identity::Stranger(_)));
    }
    assert_eq!((engine.verified.slots.len(), engine.verified.main.size()), (0, (0, 0)));
    engine.identify(token.as_bytes(), NOW_SECS);
    assert_eq!(engine.verified.main.size().1, 1);
}

#[test]
fn all_keys_are_remembered_that_fit() {
    let mut small = Small::new(700, 100);
    let tokens = Vec::from_iter((0..800).map(|number| Small::token(0, number)));
    assert!(tokens.iter().all(|token| !small.use_key(token)));
    for _ in 0..3 {
        assert!(tokens.iter().all(|token| small.use_key(token)));
    }
    assert_eq!(small.entries(), 800);
}

/// Most of them find their key, even if it comes again only after all others.
#[test]
fn of_keys_that_do_not_fit_those_stay_that_do() {
    let mut small = Small::new(700, 100);
    let tokens = Vec::from_iter((0..1_600).map(|number| Small::token(0, number)));
    let found = |small: &mut Small| tokens.iter().filter(|token| small.use_key(token)).count();
    assert_eq!(found(&mut small), 0);
    for _ in 0..3 {
        let found = found(&mut small);
        assert!(found >= 600, "{found}");
    }
}

#[test]
fn memory_is_bounded() {
    let engine = engine();
    let mut keys = VerifiedKeys::with_room(
        engine.keyring(),
        Room { bytes: 400_000, entries: 700 },
        Room { bytes: 50_000, entries: 100 },
    );
    let key = known(&engine, &token(1, ""));
    for number in 0..20_000 {
        let token = format!("{}{}", "A".repeat(number * 7 % 900), Small::token(0, number));
        keys.insert(token.as_bytes(), Rc::clone(&key));
        if number % 3 == 0 {
            keys.get(token.as_bytes());
        }
        let ((main, main_len), (probation, probation_len)) =
            (keys.main.size(), keys.probation.size());
        assert!(main <= 400_000 && main_len <= 700, "{main} {main_len}");
        assert!(probation <= 50_000 && probation_len <= 100, "{probation} {probation_len}");
        assert!(keys.slots.len() <= 800 && keys.buckets.len() <= 1_024);
    }
    assert!(keys.main.size().1 + keys.probation.size().1 > 400);
}

#[test]
fn a_key_of_many_small_parts_is_not_remembered() {
    let engine = engine();
    let alternatives = "{},".repeat(900);
    let only = format!(r#","only":{{"any_of":[{}]}}"#, alternatives.trim_end_matches(','));
    let token = token(1, &only);
    let key = known(&engine, &token);
    assert!(key.footprint() > MAX_KEY_BYTES.into());
    let mut keys = VerifiedKeys::new(engine.keyring());
    keys.insert(token.as_bytes(), key);
    assert!(keys.get(token.as_bytes()).is_none());
}

/// No choice of tags by someone without the secret fills a bucket: the seed is another one for another secret, and the
/// chains are as short as those of random numbers.
#[test]
fn chains_are_short() {
    let mut small = Small::new(40_000, 100);
    for number in 0..32_768 {
        // All tags end and begin alike.
        let tag = format!("AAAA{number:08}{}", "A".repeat(TAG_CHARS - 12));
        small.use_key(&format!("vk1.main-0.{number:010}.{tag}"));
    }
    let chain = |first: &u32| {
        let next = |index: &u32| small.keys.slots.get(*index).map(|slot| slot.chain);
        std::iter::successors(Some(*first), next).take_while(|index| *index != NONE).count()
    };
    let longest = small.keys.buckets.iter().map(chain).max().unwrap();
    assert!(longest <= 16, "{longest}");
    let other = Keyring::new(vec![], 0);
    assert_ne!(small.keys.seed, other.hash_seed());
    assert!(small.keys.seed.iter().all(|number| number % 2 == 1));
}

/// What happens in a step of the property below.
#[derive(Clone, Debug)]
enum Use {
    /// A key in use, by number.
    Own(usize),
    /// So many keys that are used once.
    Strangers(usize),
}

fn uses() -> impl Strategy<Value = Vec<Use>> {
    let one = prop_oneof![
        3 => (0..MOST_IN_USE).prop_map(Use::Own),
        1 => (0..3 * PROBATION_LEN).prop_map(Use::Strangers),
    ];
    proptest::collection::vec(one, 1..200)
}

const MOST_IN_USE: usize = 40;

const MAIN_LEN: usize = 64;

const PROBATION_LEN: usize = 16;

proptest! {
    /// A key that is used again before as many others came as fit on probation is remembered from then on, whatever
    /// keys come that are used once.
    #[test]
    fn keys_that_are_used_once_displace_no_key_in_use(uses in uses()) {
        let mut small = Small::new(MAIN_LEN, PROBATION_LEN);
        let (mut strangers, mut clock) = (0, 0);
        // When each key was used last, and whether it must be remembered.
        let mut own: BTreeMap<usize, (usize, bool)> = BTreeMap::new();
        for step in uses {
            match step {
                Use::Strangers(count) => {
                    for _ in 0..count {
                        small.use_key(&Small::token(1, strangers));
                        strangers += 1;
                        clock += 1;
                    }
                }
                Use::Own(number) => {
                    let found = small.use_key(&Small::token(0, number));
                    let earlier = own.get(&number).copied();
                    let again = earlier.is_some_and(|(last, _)| clock - last < PROBATION_LEN);
                    let in_use = again || earlier.is_some_and(|(_, in_use)| in_use);
                    prop_assert!(found || !in_use, "key {number} at {clock}");
                    own.insert(number, (clock, in_use));
                    clock += 1;
                }
            }
            prop_assert!(small.entries() <= small.main + small.probation);
        }
    }
}
