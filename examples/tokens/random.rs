//! Keys that look random, and are the same in every run.

use serde_json::{Map, Value, json};
use vkey::key::mac::hkdf_sha256;

use super::{NOW, Signers, attenuate, case, claims};

/// The seed of all numbers.
const SEED: &[u8] = b"vkey token vectors, version 1";

/// Pseudorandom numbers, the same in every run.
struct Random {
    counter: u64,
}

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        let mut bytes = [0; 8];
        self.counter += 1;
        hkdf_sha256(SEED, &self.counter.to_le_bytes(), b"number", &mut bytes).unwrap();
        usize::try_from(u64::from_le_bytes(bytes) % u64::try_from(bound).unwrap()).unwrap()
    }
}

/// The cases of `count` keys.
pub(crate) fn cases(signers: &Signers, count: usize) -> Vec<Value> {
    let mut random = Random { counter: 0 };
    (0..count).flat_map(|number| random_cases(signers, &mut random, number)).collect()
}

/// A valid key with at least two caveats, and four manipulations of it that must be refused.
fn random_cases(signers: &Signers, random: &mut Random, number: usize) -> Vec<Value> {
    let (token, other) = (random_key(signers, random), random_key(signers, random));
    let segments: Vec<&str> = token.split('.').collect();
    let caveats = segments.len() - 4;
    let first = 3 + random.below(caveats - 1);
    let edited = 2 + random.below(caveats + 1);
    let letter = change_letter(segments[edited], random);
    let (mut without, mut swapped, mut spliced, mut changed) =
        (segments.clone(), segments.clone(), segments.clone(), segments.clone());
    without.remove(first);
    swapped.swap(first, first + 1);
    spliced.insert(first, other.split('.').nth(3).unwrap());
    changed[edited] = &letter;
    let tampered = [
        ("a caveat removed", without),
        ("two caveats swapped", swapped),
        ("a caveat spliced in", spliced),
        ("a letter changed", changed),
    ];
    let mut cases = vec![case(&format!("random key {number}"), &token, NOW, "ok")];
    for (what, segments) in tampered {
        let name = format!("random key {number}, {what}");
        cases.push(case(&name, &segments.join("."), NOW, "key_signature"));
    }
    cases
}

fn random_key(signers: &Signers, random: &mut Random) -> String {
    let claims = claims(json!({
        "jti": format!("k_{:08x}", random.below(1 << 31)),
        "tenant": format!("tenant-{}", random.below(1000)),
        "sub": format!("app {}", random.below(1000)),
    }));
    let days = i64::try_from(random.below(3)).unwrap();
    let mut token = match random.below(2) {
        0 => signers.stays(&claims),
        _ => signers.rotates(-days, &claims),
    };
    for number in 0..2 + random.below(6) {
        // All caveats differ, so that every swap changes the key.
        token = attenuate(
            &token,
            &random_caveat(random, NOW + 10_000 + u64::try_from(number).unwrap()),
        );
    }
    token
}

fn random_caveat(random: &mut Random, exp: u64) -> Value {
    let members: [(&str, Value); 4] = [
        ("methods", json!(["GET", "POST"])),
        ("paths", json!([format!("/v{}/**", random.below(9))])),
        ("sources", json!([format!("10.{}.0.0/16", random.below(256))])),
        ("hosts", json!(["*.example"])),
    ];
    let mut caveat = Map::from_iter([("exp".to_owned(), json!(exp))]);
    let (name, value) = members[random.below(members.len())].clone();
    caveat.insert(name.to_owned(), value);
    Value::Object(caveat)
}

/// The segment with one letter changed. Never the last, whose unused bits would make it malformed.
fn change_letter(segment: &str, random: &mut Random) -> String {
    let at = random.below(segment.len() - 1);
    let letter = if segment.as_bytes()[at] == b'A' { "B" } else { "A" };
    format!("{}{letter}{}", &segment[..at], &segment[at + 1..])
}
