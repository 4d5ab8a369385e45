//! What conditions want to know of the arguments of a call.

use crate::body::json::folded_hash;

use super::places::ARGUMENTS;
use super::{Pointer, Segment};

/// What to look for in the arguments of a call: the values at some pointers, and the names of the arguments.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The places that the pointers lead to and through, as a tree: each is after its parent. Their number is one more
    /// than their index, because [`ROOT`] is not among them.
    places: Vec<Place>,
    paths: Vec<Path>,
    needs_names: bool,
}

/// A place in arguments, reached by a step from another one.
#[derive(Clone, Debug)]
struct Place {
    parent: u8,
    step: Segment,
    /// Of the name of a member, to find it and those that are similar to it.
    hash: u64,
}

/// A pointer, and the numbers of the places that it leads through, from [`ROOT`] to its own.
#[derive(Clone, Debug)]
struct Path {
    pointer: Pointer,
    places: Box<[u8]>,
}

/// The number of the arguments themselves.
pub(super) const ROOT: u8 = 0;

/// The most places in arguments: the spots that are left for them.
pub const MAX_PLACES: usize = u8::MAX as usize - ARGUMENTS.0 as usize;

// === impl Wanted ===

impl Wanted {
    /// Looks for the values at these pointers. `needs_names`: and for the names of the arguments.
    ///
    /// `None` if the pointers lead through more than [`MAX_PLACES`] places. Those that begin with the same steps share
    /// the places of these steps.
    pub fn new(pointers: &[Pointer], needs_names: bool) -> Option<Self> {
        let mut wanted = Self { places: Vec::new(), paths: Vec::new(), needs_names };
        pointers.iter().try_for_each(|pointer| wanted.add(pointer))?;
        Some(wanted)
    }

    fn add(&mut self, pointer: &Pointer) -> Option<()> {
        if self.paths.iter().any(|path| path.pointer == *pointer) {
            return Some(());
        }
        let mut places = vec![ROOT];
        let mut place = ROOT;
        for step in pointer.segments() {
            place = self.step(place, step)?;
            places.push(place);
        }
        self.paths.push(Path { pointer: pointer.clone(), places: places.into() });
        Some(())
    }

    /// The place that a step leads to, a new one if there is none yet.
    fn step(&mut self, parent: u8, step: &Segment) -> Option<u8> {
        if let Some((place, _)) = self.steps(parent).find(|(_, other)| other.step == *step) {
            return Some(place);
        }
        if self.places.len() >= MAX_PLACES {
            return None;
        }
        let hash = match step {
            Segment::Member(name) => folded_hash(name.as_bytes()),
            Segment::Elements => 0,
        };
        self.places.push(Place { parent, step: step.clone(), hash });
        u8::try_from(self.places.len()).ok()
    }

    /// The places that steps from a place lead to, with their numbers.
    fn steps(&self, parent: u8) -> impl Iterator<Item = (u8, &Place)> {
        let numbered = (1..=u8::MAX).zip(&self.places);
        numbered.filter(move |(_, place)| place.parent == parent)
    }

    /// The members of interest of an object: their places, names, and the hashes of these.
    pub(super) fn members(&self, object: u8) -> impl Iterator<Item = (u8, &str, u64)> {
        self.steps(object).filter_map(|(number, place)| match &place.step {
            Segment::Member(name) => Some((number, &**name, place.hash)),
            Segment::Elements => None,
        })
    }

    /// The place of the elements of an array, if they are of interest.
    pub(super) fn elements(&self, array: u8) -> Option<u8> {
        let mut steps = self.steps(array);
        let place = steps.find(|(_, place)| matches!(place.step, Segment::Elements));
        place.map(|(number, _)| number)
    }

    /// The parent of a place, and whether it holds the elements of an array.
    pub(super) fn place(&self, place: u8) -> Option<(u8, bool)> {
        let place = self.places.get(usize::from(place).checked_sub(1)?)?;
        Some((place.parent, matches!(place.step, Segment::Elements)))
    }

    /// The number of the last place.
    pub(super) fn last(&self) -> u8 {
        u8::try_from(self.places.len()).unwrap_or(u8::MAX)
    }

    /// The number of pointers, each counted once.
    pub(super) fn len(&self) -> usize {
        self.paths.len()
    }

    /// The index of the pointer that ends at a place.
    pub(super) fn ends_at(&self, place: u8) -> Option<usize> {
        self.paths.iter().position(|path| path.places.last() == Some(&place))
    }

    /// Whether the pointer with an index leads through a place, or ends there.
    pub(super) fn leads_through(&self, pointer: usize, place: u8) -> bool {
        self.paths.get(pointer).is_some_and(|path| path.places.contains(&place))
    }

    pub(super) fn needs_names(&self) -> bool {
        self.needs_names
    }

    /// The pointers.
    pub(super) fn into_pointers(self) -> impl Iterator<Item = Pointer> {
        self.paths.into_iter().map(|path| path.pointer)
    }
}
