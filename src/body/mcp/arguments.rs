//! The arguments of a call, as far as conditions ask for them.

use super::Pointer;

/// What was found at the pointers that the conditions of a key name, and the names of the arguments.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Arguments {
    found: Vec<(Pointer, Vec<Found>)>,
    /// `None` if they were not looked for.
    names: Option<Vec<Box<str>>>,
}

/// What was found where a pointer leads. A pointer with a segment `*` finds one of these for each element.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// Nothing: a member is absent, an array is empty, or `null` is where the pointer needs an object or an array.
    Missing,
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number, as it is written.
    Number(Box<str>),
    /// A string, decoded; `None` if it is longer than any that a condition can allow.
    Text(Option<Box<str>>),
    /// An object or an array, or whatever else there is where the pointer needs an object or an array: some servers read
    /// JSON in a string, or take an object for an array of one.
    Container,
}

// === impl Arguments ===

impl Arguments {
    /// The arguments in which `found` was found, one entry for each pointer that was looked for, and whose names are
    /// `names`, if they were looked for.
    pub fn new(found: Vec<(Pointer, Vec<Found>)>, names: Option<Vec<Box<str>>>) -> Self {
        Self { found, names }
    }

    /// What was found at a pointer; `None` if it was not looked for. It has at least one item.
    pub fn at(&self, pointer: &Pointer) -> Option<&[Found]> {
        let found = self.found.iter().find(|(other, _)| other == pointer);
        found.map(|(_, found)| &**found)
    }

    /// The names of the arguments; `None` if they were not looked for.
    pub fn names(&self) -> Option<&[Box<str>]> {
        self.names.as_deref()
    }

    /// The most items and the most bytes of strings that are at one pointer. The names are items too.
    pub fn most_at_once(&self) -> (usize, usize) {
        let text = |found: &Found| match found {
            Found::Text(Some(text)) => text.len(),
            _ => 0,
        };
        let bytes = |found: &[Found]| found.iter().map(text).sum::<usize>();
        let names = self.names.as_ref().map_or(0, Vec::len);
        self.found.iter().fold((names, 0), |(items, most), (_, found)| {
            (items.max(found.len()), most.max(bytes(found)))
        })
    }
}
