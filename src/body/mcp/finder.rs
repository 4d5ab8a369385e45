//! Looks for what is wanted of arguments.

use crate::body::json::{Text, Unreadable, Value, folded_hash};

use super::wanted::ROOT;
use super::{Arguments, Found, Wanted};

/// Collects what is found in the arguments of a call.
#[derive(Debug)]
pub(super) struct Finder {
    wanted: Wanted,
    /// What was found at each pointer.
    found: Vec<Vec<Found>>,
    /// Whether each place has had a value since its parent began.
    seen: Vec<bool>,
    names: Vec<Box<str>>,
    /// How many values may still be found.
    left: usize,
    /// How many bytes they and the names may still have.
    bytes_left: usize,
    /// Why the arguments cannot be read. That matters only for some methods, and the method may come last.
    error: Option<Unreadable>,
}

/// The most values that are found at all pointers together, [`Found::Missing`] included.
pub const MAX_FOUND: usize = 1024;

/// The most bytes of all texts and numbers that are found, and of the names that are needed.
pub const MAX_FOUND_BYTES: usize = 128 << 10;

/// The most arguments of which the names are needed.
pub const MAX_NAMES: usize = 256;

// === impl Finder ===

impl Finder {
    pub(super) fn new(wanted: Wanted) -> Self {
        Self {
            found: vec![Vec::new(); wanted.len()],
            seen: vec![false; usize::from(wanted.last()) + 1],
            wanted,
            names: Vec::new(),
            left: MAX_FOUND,
            bytes_left: MAX_FOUND_BYTES,
            error: None,
        }
    }

    /// The place of a member of the object at a place, if it is wanted.
    pub(super) fn member(&mut self, object: u8, name: &Text<'_>) -> Option<u8> {
        if self.error.is_some() {
            return None;
        }
        if object == ROOT && self.wanted.needs_names() {
            self.error = self.add_name(name).err();
        }
        let mut members = self.wanted.members(object).peekable();
        members.peek()?;
        let member = match (name.is_cut, name.is_flawed) {
            // It may be so long only because of characters that another reader ignores or folds.
            (true, _) => Err(Unreadable::TooLong),
            (false, is_flawed) => find(members, name.bytes, is_flawed),
        };
        match member {
            Ok(place) => place,
            Err(error) => {
                self.error = self.error.or(Some(error));
                None
            }
        }
    }

    /// The place of the elements of the array at a place, if they are wanted.
    pub(super) fn elements(&self, array: u8) -> Option<u8> {
        self.wanted.elements(array)
    }

    /// Receives the value at a place.
    pub(super) fn value(&mut self, place: u8, value: Value<'_>) {
        if self.error.is_some() {
            return;
        }
        if place == ROOT && !matches!(value, Value::OpenObject | Value::CloseObject) {
            // `null` is no arguments.
            self.error = (value != Value::Null).then_some(Unreadable::WrongType);
            return;
        }
        self.see(place, true);
        match value {
            Value::Null => self.scalar(place, Found::Null),
            Value::Bool(value) => self.scalar(place, Found::Bool(value)),
            Value::Number(text) => {
                self.scalar(place, Found::Number(String::from_utf8_lossy(text).into()));
            }
            Value::Text(text) => self.scalar(place, Found::Text(text.exact().ok().map(Box::from))),
            Value::OpenObject => self.open(place, false),
            Value::OpenArray => self.open(place, true),
            Value::CloseObject => self.close(place, false),
            Value::CloseArray => self.close(place, true),
        }
    }

    /// What was found in all arguments.
    ///
    /// # Errors
    ///
    /// Why they cannot be read.
    pub(super) fn finish(mut self) -> Result<Arguments, Unreadable> {
        if !self.is_seen(ROOT) {
            self.fill(ROOT, &Found::Missing);
        }
        match self.error {
            Some(error) => Err(error),
            None => {
                let names = self.wanted.needs_names().then_some(self.names);
                let found = self.wanted.into_pointers().zip(self.found).collect();
                Ok(Arguments::new(found, names))
            }
        }
    }

    fn add_name(&mut self, name: &Text<'_>) -> Result<(), Unreadable> {
        let name = name.exact()?;
        if self.names.len() >= MAX_NAMES {
            return Err(Unreadable::TooManyArguments);
        }
        self.take(name.len())?;
        self.names.push(name.into());
        Ok(())
    }

    /// A value that contains no others.
    fn scalar(&mut self, place: u8, found: Found) {
        let below = if found == Found::Null { Found::Missing } else { Found::Container };
        self.find(place, found);
        self.below(place, None, Some(&below));
    }

    /// An object or array begins.
    fn open(&mut self, place: u8, is_array: bool) {
        self.find(place, Found::Container);
        self.below(place, Some(is_array), Some(&Found::Container));
    }

    /// An object or array ends.
    fn close(&mut self, place: u8, is_array: bool) {
        self.below(place, Some(is_array), None);
    }

    /// Fills the places right below another one that it cannot have with `other`, and, when it has ended, misses those
    /// that it had not. `other`: `None` if it has ended.
    fn below(&mut self, parent: u8, is_array: Option<bool>, other: Option<&Found>) {
        for child in 1..=self.wanted.last() {
            let Some((above, is_element)) = self.wanted.place(child) else { return };
            let is_possible = is_array == Some(is_element);
            if above != parent {
                continue;
            }
            match (is_possible, other) {
                (true, Some(_)) => self.see(child, false),
                (true, None) if !self.is_seen(child) => self.fill(child, &Found::Missing),
                (false, Some(other)) => self.fill(child, other),
                _ => {}
            }
        }
    }

    /// The same is found at a place and everywhere below it.
    fn fill(&mut self, place: u8, found: &Found) {
        for pointer in 0..self.wanted.len() {
            if self.wanted.leads_through(pointer, place) {
                self.add(pointer, found.clone());
            }
        }
    }

    fn find(&mut self, place: u8, found: Found) {
        if let Some(pointer) = self.wanted.ends_at(place) {
            self.add(pointer, found);
        }
    }

    fn add(&mut self, pointer: usize, found: Found) {
        let bytes = match &found {
            Found::Text(Some(text)) | Found::Number(text) => text.len(),
            _ => 0,
        };
        if self.left == 0 || self.take(bytes).is_err() {
            self.error = Some(Unreadable::TooManyArguments);
            return;
        }
        self.left -= 1;
        if let Some(list) = self.found.get_mut(pointer) {
            list.push(found);
        }
    }

    /// Takes memory for as many bytes.
    fn take(&mut self, bytes: usize) -> Result<(), Unreadable> {
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or(Unreadable::TooManyArguments)?;
        Ok(())
    }

    fn see(&mut self, place: u8, is_seen: bool) {
        if let Some(seen) = self.seen.get_mut(usize::from(place)) {
            *seen = is_seen;
        }
    }

    fn is_seen(&self, place: u8) -> bool {
        self.seen.get(usize::from(place)) == Some(&true)
    }
}

/// The place of a member with a name. Names are compared by their hashes first, so that many long ones are not slow.
/// Whoever makes different names with the same hash only gets the own body refused.
///
/// # Errors
///
/// [`Unreadable::SimilarMember`] if another reader could take it for one of those that are wanted.
fn find<'a>(
    members: impl Iterator<Item = (u8, &'a str, u64)>,
    name: &[u8],
    is_flawed: bool,
) -> Result<Option<u8>, Unreadable> {
    let hash = folded_hash(name);
    // Servers in JavaScript may take the members of the prototype for those of the object.
    let mut has_similar = name == b"__proto__";
    for (place, known, _) in members.filter(|(.., known)| *known == hash) {
        if !is_flawed && known.as_bytes() == name {
            return Ok(Some(place));
        }
        has_similar = true;
    }
    if has_similar { Err(Unreadable::SimilarMember) } else { Ok(None) }
}
