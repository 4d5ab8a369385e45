//! The cache of verified keys: a key is not verified again while it is remembered.

mod slots;

use std::rc::Rc;

use crate::bytes::same_bytes;
use crate::key::keyring::Keyring;
use crate::key::mac::same_tag_text;
use crate::key::token::TAG_CHARS;

use super::known::{KnownKey, allocated};
use slots::{Entry, NONE, Queue, Room, Slots};

/// What is remembered until other keys are used more. With [`PROBATION`], this is all that a worker remembers.
///
/// The memory of a worker never shrinks, and is to stay below 64 MiB. 54 MiB are for entries: 100 000 of 566 bytes. Up to
/// 3.5 MiB are for the tables, and the rest is for the module itself and for gaps between allocations.
const MAIN: Room = Room { bytes: 48 << 20, entries: 7 << 14 };

/// What is forgotten unless it is used again before as much else has come.
const PROBATION: Room = Room { bytes: 6 << 20, entries: 1 << 14 };

/// A key that takes more than this is not remembered, so that about a hundred of any size fit on probation. A key with as
/// many restrictions as fit into a token mostly takes less: to verify it costs more than all else.
const MAX_KEY_BYTES: u16 = 63 << 10;

/// The most entries that are looked at to make room for a key. If that makes none, the key is not remembered this time.
/// So the work for one request is bounded.
const MAX_STEPS: usize = 64;

/// The number of buckets at first. It is doubled when there are more entries.
const MIN_BUCKETS: usize = 256;

/// A bounded cache of verified keys.
///
/// A key is found by its whole token. A hash of its tag finds the entry; then what is before the tag is compared, which
/// is not secret, and then the tag, in constant time. The holder of a key can attenuate it in many ways and choose a tag, so the hash
/// depends on the secrets of the rings: nobody else knows which tags share a bucket.
///
/// New keys go to the main queue until it is full, and from then on to probation. At the end of the probation, a key that was
/// used again moves to the main queue, and any other is forgotten. For room there, the oldest key is forgotten that was
/// not used since it was looked at last. So keys that are used once, however many, displace no key that is used again
/// within its probation.
pub(super) struct VerifiedKeys {
    seed: [u64; 2],
    /// The first entry of each chain, by hash.
    buckets: Box<[u32]>,
    slots: Slots,
    main: Queue,
    probation: Queue,
}

impl VerifiedKeys {
    /// An empty cache for the keys of a keyring.
    pub(super) fn new(keyring: &Keyring) -> Self {
        Self::with_room(keyring, MAIN, PROBATION)
    }

    fn with_room(keyring: &Keyring, main: Room, probation: Room) -> Self {
        Self {
            seed: keyring.hash_seed(),
            buckets: vec![NONE; MIN_BUCKETS].into(),
            slots: Slots::default(),
            main: Queue::new(main),
            probation: Queue::new(probation),
        }
    }

    /// The key that was verified from exactly this token.
    pub(super) fn get(&mut self, token: &[u8]) -> Option<&Rc<KnownKey>> {
        let (body, tag) = split(token)?;
        let mut index = *self.buckets.get(self.bucket(tag)?)?;
        loop {
            let slot = self.slots.get(index)?;
            let (own_body, own_tag) = split(&slot.entry.as_ref()?.token)?;
            if same_bytes(own_body, body) && same_tag_text(own_tag, tag) {
                break;
            }
            index = slot.chain;
        }
        let slot = self.slots.get_mut(index)?;
        slot.used = true;
        slot.entry.as_ref().map(|entry| &entry.key)
    }

    /// Remembers a verified key that is not remembered yet.
    pub(super) fn insert(&mut self, token: &[u8], key: Rc<KnownKey>) {
        let bytes = u16::try_from(allocated(token.len()) + key.footprint());
        let Some(bytes) = bytes.ok().filter(|bytes| *bytes <= MAX_KEY_BYTES) else {
            return;
        };
        if !self.make_room(bytes.into()) {
            return;
        }
        let to_main = self.fits_main(bytes.into());
        let queue = if to_main { &mut self.main } else { &mut self.probation };
        let entry = Entry { token: token.into(), key };
        if let Some(index) = self.slots.add(queue, entry, bytes) {
            self.link(index);
        }
    }

    /// Forgets keys until one of a size has room. `false` if it still has none.
    fn make_room(&mut self, bytes: usize) -> bool {
        for _ in 0..MAX_STEPS {
            if self.fits_main(bytes) || self.probation.has_room(bytes) {
                return true;
            }
            self.step();
        }
        false
    }

    /// Whether a new key may go to the main queue at once: room that is made there later is for keys on probation.
    fn fits_main(&self, bytes: usize) -> bool {
        self.probation.is_empty() && self.main.has_room(bytes)
    }

    /// Looks at one entry: forgets it, moves it to the main queue, or keeps it for another round there.
    fn step(&mut self) {
        let Self { slots, main, probation, .. } = self;
        let Some((used, bytes)) = slots.oldest(probation) else {
            return;
        };
        let forgotten = if !used {
            slots.pop(probation)
        } else if main.has_room(bytes) {
            slots.pop(probation).and_then(|index| {
                slots.push(main, index);
                None
            })
        } else {
            let used = slots.oldest(main).is_some_and(|(used, _)| used);
            slots.pop(main).filter(|index| {
                if used {
                    slots.push(main, *index);
                }
                !used
            })
        };
        if let Some(index) = forgotten {
            self.unlink(index);
            self.slots.remove(index);
        }
    }
    /// Adds an entry to its bucket.
    fn link(&mut self, index: u32) {
        if self.slots.len() > self.buckets.len() {
            self.grow();
        } else if let Some(bucket) = self.bucket_of(index) {
            let first = self.buckets.get_mut(bucket).map(|first| std::mem::replace(first, index));
            if let Some(slot) = self.slots.get_mut(index) {
                slot.chain = first.unwrap_or(NONE);
            }
        }
    }

    /// Removes an entry from its bucket.
    fn unlink(&mut self, index: u32) {
        let after = self.slots.get(index).map_or(NONE, |slot| slot.chain);
        let bucket = self.bucket_of(index);
        let Some(first) = bucket.and_then(|bucket| self.buckets.get_mut(bucket)) else {
            return;
        };
        if *first == index {
            *first = after;
            return;
        }
        let mut earlier = *first;
        while let Some(slot) = self.slots.get_mut(earlier) {
            if slot.chain == index {
                slot.chain = after;
                return;
            }
            earlier = slot.chain;
        }
    }

    /// Doubles the number of buckets, and links all entries again.
    fn grow(&mut self) {
        self.buckets = vec![NONE; self.buckets.len() * 2].into();
        for index in (0..self.slots.len()).filter_map(|index| u32::try_from(index).ok()) {
            self.link(index);
        }
    }

    fn bucket_of(&self, index: u32) -> Option<usize> {
        let entry = self.slots.get(index)?.entry.as_ref()?;
        self.bucket(split(&entry.token)?.1)
    }

    /// The bucket of a tag. The seed is odd, so two tags share a bucket with a probability of at most two in the number of
    /// buckets (Dietzfelbinger and others, 1997: multiply-shift).
    fn bucket(&self, tag: &[u8]) -> Option<usize> {
        let (first, rest) = tag.split_first_chunk()?;
        let [a, b] = self.seed;
        let hash = u64::from_le_bytes(*first).wrapping_mul(a);
        let hash = hash.wrapping_add(u64::from_le_bytes(*rest.first_chunk()?).wrapping_mul(b));
        let bits = self.buckets.len().trailing_zeros();
        usize::try_from(hash.checked_shr(u64::BITS - bits)?).ok()
    }
}

/// Splits a token into its tag, as text, and what is before that.
fn split(token: &[u8]) -> Option<(&[u8], &[u8])> {
    token.split_at_checked(token.len().checked_sub(TAG_CHARS)?)
}

#[cfg(test)]
mod tests;
