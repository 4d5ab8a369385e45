//! The entries of the cache, and the queues that they are in.

use std::rc::Rc;

use super::super::known::KnownKey;

/// No slot.
pub(super) const NONE: u32 = u32::MAX;

/// How much a queue may hold.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) bytes: usize,
    pub(super) entries: usize,
}

/// Places for entries. An entry keeps its place, so it can be named by a number.
#[derive(Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    /// Places without an entry.
    free: Links,
}

/// A place for an entry.
pub(super) struct Slot {
    pub(super) entry: Option<Entry>,
    /// The next entry of the same bucket.
    pub(super) chain: u32,
    /// The next entry of the same queue.
    next: u32,
    /// What the entry takes.
    bytes: u16,
    /// Whether the entry was used since it came into its queue.
    pub(super) used: bool,
}

/// A verified key, with its token.
pub(super) struct Entry {
    pub(super) token: Box<[u8]>,
    pub(super) key: Rc<KnownKey>,
}

/// Entries in the order in which they came.
pub(super) struct Queue {
    room: Room,
    links: Links,
    bytes: usize,
    entries: usize,
}

/// The ends of a list of slots.
struct Links {
    first: u32,
    last: u32,
}

impl Slots {
    /// How many places there are, free ones included.
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn get(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Slot> {
        self.slots.get_mut(index as usize)
    }

    /// Puts an entry of a size into a queue. Returns its number.
    pub(super) fn add(&mut self, queue: &mut Queue, entry: Entry, bytes: u16) -> Option<u32> {
        let slot = Slot { entry: Some(entry), chain: NONE, next: NONE, bytes, used: false };
        let index = match self.free.pop(&mut self.slots) {
            Some(index) => {
                *self.slots.get_mut(index as usize)? = slot;
                index
            }
            None => {
                let index = u32::try_from(self.slots.len()).ok()?;
                self.slots.push(slot);
                index
            }
        };
        self.push(queue, index);
        Some(index)
    }

    /// Removes an entry that is in no queue and no bucket.
    pub(super) fn remove(&mut self, index: u32) {
        if let Some(slot) = self.get_mut(index) {
            slot.entry = None;
            self.free.push(&mut self.slots, index);
        }
    }

    /// Whether the oldest entry of a queue was used, and what it takes.
    pub(super) fn oldest(&self, queue: &Queue) -> Option<(bool, usize)> {
        self.get(queue.links.first).map(|slot| (slot.used, slot.bytes.into()))
    }

    /// Takes the oldest entry out of a queue. It counts as not used from now on.
    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<u32> {
        let index = queue.links.pop(&mut self.slots)?;
        let slot = self.get_mut(index)?;
        slot.used = false;
        queue.bytes = queue.bytes.saturating_sub(slot.bytes.into());
        queue.entries = queue.entries.saturating_sub(1);
        Some(index)
    }

    /// Appends an entry to a queue.
    pub(super) fn push(&mut self, queue: &mut Queue, index: u32) {
        if let Some(slot) = self.get(index) {
            queue.bytes += usize::from(slot.bytes);
            queue.entries += 1;
            queue.links.push(&mut self.slots, index);
        }
    }
}

impl Queue {
    pub(super) fn new(room: Room) -> Self {
        Self { room, links: Links::default(), bytes: 0, entries: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Whether there is room for one more entry of a size.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.bytes + bytes <= self.room.bytes && self.entries < self.room.entries
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.bytes, self.entries)
    }
}

impl Links {
    fn push(&mut self, slots: &mut [Slot], index: u32) {
        match slots.get_mut(self.last as usize) {
            Some(last) => last.next = index,
            None => self.first = index,
        }
        self.last = index;
    }

    fn pop(&mut self, slots: &mut [Slot]) -> Option<u32> {
        let index = self.first;
        let slot = slots.get_mut(index as usize)?;
        self.first = std::mem::replace(&mut slot.next, NONE);
        if self.first == NONE {
            self.last = NONE;
        }
        Some(index)
    }
}

impl Default for Links {
    fn default() -> Self {
        Self { first: NONE, last: NONE }
    }
}
