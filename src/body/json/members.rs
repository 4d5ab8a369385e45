//! The names of the members of open objects, to find one that an object has twice.

use super::Unreadable;

/// Hashes of the names of the members of all open objects: those of an object follow those of the one that contains
/// it, because an object ends before the next member of the outer one begins.
///
/// Names with the same 64-bit hash count as the same. Whoever looks for such names only gets the own body refused.
#[derive(Debug, Default)]
pub(super) struct Members {
    hashes: Vec<u64>,
}

impl Members {
    /// In an object with fewer members, a new one is compared with each of them. The others are sorted when the object
    /// ends: no choice of names makes that slow.
    const MAX_COMPARED: usize = 32;

    /// Few documents have more members in open objects. Memory for them is asked for once.
    const USUAL: usize = 16;

    /// The number of members of all open objects.
    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The memory that they take, in bytes.
    #[cfg(test)]
    pub(super) fn memory_bytes(&self) -> usize {
        size_of::<u64>() * self.hashes.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.hashes.clear();
    }

    /// Adds a member to the innermost object, whose first member is the one at `first`.
    #[expect(clippy::manual_contains, reason = "`contains` is four times the code")]
    pub(super) fn push(&mut self, first: usize, hash: u64) -> Result<(), Unreadable> {
        let members = self.hashes.get(first..).unwrap_or_default();
        if members.len() < Self::MAX_COMPARED && members.iter().any(|member| *member == hash) {
            return Err(Unreadable::DuplicateMember);
        }
        if self.hashes.capacity() == 0 {
            self.hashes.reserve(Self::USUAL);
        }
        self.hashes.push(hash);
        Ok(())
    }

    /// Ends the innermost object, whose first member is the one at `first`.
    pub(super) fn end(&mut self, first: usize) -> Result<(), Unreadable> {
        let members = self.hashes.get_mut(first..).unwrap_or_default();
        if members.len() > Self::MAX_COMPARED {
            sort(members);
            if members.iter().zip(members.iter().skip(1)).any(|(a, b)| a == b) {
                return Err(Unreadable::DuplicateMember);
            }
        }
        self.hashes.truncate(first);
        Ok(())
    }
}

/// Heapsort: a hundred times less code than that of the standard library, and as fast for any input.
fn sort(values: &mut [u64]) {
    for root in (0..values.len() / 2).rev() {
        sift_down(values, root);
    }
    for end in (1..values.len()).rev() {
        values.swap(0, end);
        sift_down(values.get_mut(..end).unwrap_or_default(), 0);
    }
}

/// Moves a value of a heap down until no value below it is larger.
fn sift_down(heap: &mut [u64], mut root: usize) {
    loop {
        let left = 2 * root + 1;
        let larger = if heap.get(left + 1) > heap.get(left) { left + 1 } else { left };
        match (heap.get(root), heap.get(larger)) {
            (Some(above), Some(below)) if below > above => heap.swap(root, larger),
            _ => return,
        }
        root = larger;
    }
}
