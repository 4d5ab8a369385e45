//! Which requests are followed to their end although nothing known depends on it.
//!
//! A route may rewrite the authority to a known host, and a cluster may have a gate that this proxy does not know of.
//! Only the end of a request shows either, and asking for it costs as much as deciding. So of the requests to one place
//! the first is followed, and one every [`EVERY_SECS`] from then on.

use std::cell::RefCell;

/// How often a request to a place is followed, in seconds.
const EVERY_SECS: u64 = 10;

/// How many places are remembered. Two that meet in one slot are followed more often, never less.
const SLOTS: usize = 64;

/// The longest text of a place that is compared, in bytes.
const MAX_BYTES: usize = 256;

/// The segments of a path that belong to a place.
const SEGMENTS: usize = 2;

/// The places to which requests were followed: no slots, or all of them.
#[derive(Default)]
pub(super) struct Followed(RefCell<Vec<Option<Slot>>>);

/// A place: an authority and the beginning of a path. Texts are compared, not digests: clients choose them.
struct Slot {
    authority: Box<str>,
    path: Box<str>,
    at_secs: u64,
}

impl Followed {
    /// Whether to follow a request to its end.
    pub(super) fn is_due(&self, authority: &str, path: &str, now_secs: u64) -> bool {
        let (authority, path) = (cut(authority), cut(beginning(path)));
        let Ok(mut slots) = self.0.try_borrow_mut() else {
            return true;
        };
        if slots.is_empty() {
            slots.resize_with(SLOTS, || None);
        }
        let Some(slot) = slots.get_mut(index(authority, path)) else {
            return true;
        };
        let is_known = slot.as_ref().is_some_and(|slot| {
            *slot.authority == *authority
                && *slot.path == *path
                // A clock that went back shows nothing.
                && now_secs.checked_sub(slot.at_secs).is_some_and(|secs| secs < EVERY_SECS)
        });
        if !is_known {
            *slot =
                Some(Slot { authority: authority.into(), path: path.into(), at_secs: now_secs });
        }
        !is_known
    }
}

/// The first segments of a path.
fn beginning(path: &str) -> &str {
    let mut slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
    let end = slashes.nth(SEGMENTS).map_or(path.len(), |(at, _)| at);
    path.get(..end).unwrap_or(path)
}

fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(MAX_BYTES)).rev().find(|end| text.is_char_boundary(*end));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

/// The slot of a place, by its FNV-1a hash.
fn index(authority: &str, path: &str) -> usize {
    let bytes = authority.bytes().chain([0]).chain(path.bytes());
    let hash = bytes
        .fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    usize::try_from(hash ^ hash >> 16).unwrap_or(0) % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_request_to_a_place_is_followed_and_one_every_ten_seconds() {
        let followed = Followed::default();
        let due: Vec<u64> =
            (100..131).filter(|now| followed.is_due("gw.example", "/v1/chat", *now)).collect();
        assert_eq!(due, [100, 110, 120, 130]);
        assert!(!followed.is_due("gw.example", "/v1/chat", 139));
        assert!(followed.is_due("gw.example", "/v1/chat", 129), "the clock went back");
    }

    #[test]
    fn a_place_is_an_authority_and_two_segments() {
        let followed = Followed::default();
        assert!(followed.is_due("a.example", "/v1/chat/completions", 0));
        for path in ["/v1/chat", "/v1/chat/", "/v1/chat/more/of/it"] {
            assert!(!followed.is_due("a.example", path, 1), "{path}");
        }
        for (authority, path) in [
            ("b.example", "/v1/chat"),
            ("a.example", "/v1/models"),
            ("a.example", "/v2/chat"),
            ("a.example", "/v1"),
            ("", ""),
        ] {
            assert!(followed.is_due(authority, path, 1), "{authority}{path}");
        }
    }

    /// Two places in one slot take turns, so no client can hide the requests of another.
    #[test]
    fn places_that_meet_in_a_slot_are_both_followed() {
        let followed = Followed::default();
        let paths: Vec<String> = (0..500).map(|number| format!("/v1/{number}")).collect();
        let slot = index("a.example", "/v1/0");
        let mut meeting = paths.iter().filter(|path| index("a.example", path) == slot);
        let (one, other) = (meeting.next().unwrap(), meeting.next().unwrap());
        for _ in 0..3 {
            assert!(followed.is_due("a.example", one, 0) && followed.is_due("a.example", other, 0));
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let followed = Followed::default();
        let long = "é".repeat(1_000);
        assert!(followed.is_due(&long, &long, 0) && !followed.is_due(&long, &long, 0));
        let slots = followed.0.borrow();
        assert!(slots.iter().flatten().all(|slot| slot.path.len() <= MAX_BYTES));
    }
}
