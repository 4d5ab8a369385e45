//! Reads a JSON value member by member, and knows the path of each.

use std::fmt;

use crate::time::{LAST_SECS, parse_duration};

use super::{Json, find};

/// How a document may spell an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// Digits only. Programs that write keys have integers.
    Digits,
    /// Any spelling of a whole number, including `5.0` and `1e3`: Istio delivers the configuration as a
    /// protobuf `Struct`, in which all numbers are doubles.
    Whole,
}

/// What is wrong with a document, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid(Box<Fault>); // small: every member that is read can return one

#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    path: String,
    problem: Problem,
}

/// What is wrong with one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The value has another type or is out of range. The text says what is expected.
    Expected(&'static str),
    /// A required member is absent.
    Missing,
    /// The text is not JSON, or an object has two members of one name; with the line, counted from 1.
    Syntax(String, usize),
    /// The member is unknown. The text lists the known ones.
    Unknown(String),
    /// The value is invalid for this reason, which never quotes the value.
    Unusable(String),
}

/// A value and its path in the document.
#[derive(Clone, Copy)]
pub struct Node<'a> {
    value: &'a Json,
    path: Path<'a>,
    integers: Integers,
}

/// The members of one object.
pub struct Members<'a> {
    members: &'a [(String, Json)],
    parent: &'a Node<'a>,
}

#[derive(Clone, Copy)]
enum Path<'a> {
    Index(&'a Path<'a>, usize),
    Member(&'a Path<'a>, &'a str),
    Root,
}

// === impl Node ===

// Documents are read when a configuration or a new key arrives, so speed matters little. Functions with
// many callers are not inlined, which would double the size of the reading code.
impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Json, integers: Integers) -> Self {
        Self { value, path: Path::Root, integers }
    }

    /// The value.
    pub fn value(&self) -> &'a Json {
        self.value
    }

    /// The members of this object, all of which must be in `known`.
    ///
    /// # Errors
    ///
    /// If this is not an object, or has a member that is not in `known`.
    #[inline(never)]
    pub fn members(&'a self, known: &[&str]) -> Result<Members<'a>, Invalid> {
        let members = self.object()?;
        for (name, _) in members {
            if !known.contains(&name.as_str()) {
                let place = Path::Member(&self.path, name);
                return Err(Invalid::new(place, Problem::Unknown(known.join(", "))));
            }
        }
        Ok(Members { members, parent: self })
    }

    /// The members of this object in the order of `known`, which has all that it may have. For objects of few members that
    /// are read often.
    ///
    /// # Errors
    ///
    /// As [`Node::members`].
    pub fn members_of<const N: usize>(
        &'a self,
        known: &[&str; N],
    ) -> Result<[Option<Node<'a>>; N], Invalid> {
        let mut found = [None; N];
        for (name, value) in self.object()? {
            let same = |other: &&str| other.as_bytes() == name.as_bytes();
            let place = known.iter().position(same).and_then(|index| found.get_mut(index));
            match place {
                Some(place) => *place = Some(self.child(name, value)),
                // It names the member.
                None => return self.members(known).map(|_| found),
            }
        }
        Ok(found)
    }

    /// The error that this object lacks a member.
    #[inline(never)]
    pub fn missing(&self, name: &str) -> Invalid {
        Invalid::new(Path::Member(&self.path, name), Problem::Missing)
    }

    /// The members of this object. Unknown ones are ignored: a newer version may have written it.
    ///
    /// # Errors
    ///
    /// When this is not an object.
    pub fn open_members(&'a self) -> Result<Members<'a>, Invalid> {
        Ok(Members { members: self.object()?, parent: self })
    }

    /// The entries of this object, whose names are data, e.g. tiers and tenants.
    ///
    /// # Errors
    ///
    /// When this is not an object.
    pub fn entries(&'a self) -> Result<impl Iterator<Item = (&'a str, Node<'a>)>, Invalid> {
        let entry = |(name, value): &'a (String, Json)| (name.as_str(), self.child(name, value));
        Ok(self.object()?.iter().map(entry))
    }

    /// The items of this list.
    ///
    /// # Errors
    ///
    /// When this is not a list.
    pub fn items(&'a self) -> Result<impl ExactSizeIterator<Item = Node<'a>>, Invalid> {
        let Json::Array(items) = self.value else {
            return Err(self.expected("a list"));
        };
        Ok(items.iter().enumerate().map(|(index, value)| Node {
            value,
            path: Path::Index(&self.path, index),
            integers: self.integers,
        }))
    }

    /// Every item of this list, read by `read`.
    ///
    /// # Errors
    ///
    /// If this is not a list, or `read` fails.
    pub fn list<T>(
        &'a self,
        read: impl Fn(&Node<'_>) -> Result<T, Invalid>,
    ) -> Result<Box<[T]>, Invalid> {
        // A loop, because the code that collects results is larger.
        let mut list = Vec::new();
        for item in self.items()? {
            list.push(read(&item)?);
        }
        Ok(list.into())
    }

    /// This string.
    ///
    /// # Errors
    ///
    /// If this is not a string.
    #[inline(never)]
    pub fn string(&self) -> Result<&'a str, Invalid> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// This boolean.
    ///
    /// # Errors
    ///
    /// If this is neither `true` nor `false`.
    #[inline(never)]
    pub fn bool(&self) -> Result<bool, Invalid> {
        match self.value {
            Json::Bool(value) => Ok(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    /// This whole number, from 0 to 2^53: every JSON reader represents these exactly (RFC 8259, section 6).
    ///
    /// # Errors
    ///
    /// If this is not such a number, or not spelled as [`Integers`] requires.
    #[inline(never)]
    pub fn integer(&self) -> Result<u64, Invalid> {
        const MAX_EXACT: u64 = 1 << 53;
        let number = match self.value {
            Json::Number(number) => number,
            _ => return Err(self.expected("a whole number")),
        };
        let exact = match self.integers {
            Integers::Digits => number.as_u64(),
            Integers::Whole => number.as_u64().or_else(|| whole(number.as_f64()?)),
        };
        exact.filter(|n| *n <= MAX_EXACT).ok_or_else(|| self.expected("a whole number, 0 to 2^53"))
    }

    /// This count: a whole number in digits, of any size that fits into 64 bits. What adds up or multiplies what others
    /// say can be larger than [`Node::integer`] reads.
    ///
    /// # Errors
    ///
    /// If this is not such a number.
    #[inline(never)]
    pub fn count(&self) -> Result<u64, Invalid> {
        match self.value {
            Json::Number(number) => number.as_u64(),
            _ => None,
        }
        .ok_or_else(|| self.expected("a whole number, 0 to 2^64 - 1"))
    }

    /// This time: whole Unix seconds, at most [`LAST_SECS`].
    ///
    /// # Errors
    ///
    /// If this is not such a number.
    #[inline(never)]
    pub fn time(&self) -> Result<u64, Invalid> {
        match self.integer()? {
            secs @ 0..=LAST_SECS => Ok(secs),
            _ => Err(self.expected("Unix seconds before the year 10000, not milliseconds")),
        }
    }

    /// This duration in seconds, parsed by [`parse_duration`].
    ///
    /// # Errors
    ///
    /// If this is not a duration.
    #[inline(never)]
    pub fn seconds(&self) -> Result<u64, Invalid> {
        parse_duration(self.string()?)
            .ok_or_else(|| self.expected("a duration in whole seconds, e.g. 90s, 15m, 168h or 30d"))
    }

    /// The one of `choices` that this string names.
    ///
    /// # Errors
    ///
    /// If this is not a string, or names none of them.
    #[inline(never)]
    pub fn choice<T: Copy>(&self, choices: &[(&str, T)]) -> Result<T, Invalid> {
        let text = self.string()?;
        let named = choices.iter().find(|(name, _)| *name == text);
        let names = || choices.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        named.map(|(_, choice)| *choice).ok_or_else(|| self.no_choice(&names()))
    }

    #[inline(never)]
    fn no_choice(&self, names: &[&str]) -> Invalid {
        self.unusable(format!("expected one of {}", names.join(", ")))
    }

    /// Where this value stands, as [`Invalid::path`] returns it.
    pub fn place(&self) -> String {
        self.path.to_string()
    }

    /// The error that `what` is expected here.
    #[inline(never)]
    pub fn expected(&self, what: &'static str) -> Invalid {
        Invalid::new(self.path, Problem::Expected(what))
    }

    /// The error that this value is invalid. The reason must not quote it: it may be a secret in the wrong
    /// place.
    #[inline(never)]
    pub fn unusable(&self, reason: impl fmt::Display) -> Invalid {
        Invalid::new(self.path, Problem::Unusable(reason.to_string()))
    }

    fn object(&self) -> Result<&'a [(String, Json)], Invalid> {
        match self.value {
            Json::Object(members) => Ok(members),
            _ => Err(self.expected("an object")),
        }
    }

    fn child(&'a self, name: &'a str, value: &'a Json) -> Node<'a> {
        Node { value, path: Path::Member(&self.path, name), integers: self.integers }
    }
}

// === impl Members ===

impl<'a> Members<'a> {
    /// The member of that name, if present.
    #[inline(never)]
    pub fn get(&self, name: &'a str) -> Option<Node<'a>> {
        find(self.members, name).map(|value| self.parent.child(name, value))
    }

    /// The member of that name.
    ///
    /// # Errors
    ///
    /// [`Problem::Missing`] if it is absent.
    #[inline(never)]
    pub fn require(&self, name: &'a str) -> Result<Node<'a>, Invalid> {
        self.get(name).ok_or_else(|| self.parent.missing(name))
    }

    /// The member of that name, read by `read`, if present.
    ///
    /// # Errors
    ///
    /// If `read` fails.
    pub fn read<T>(
        &self,
        name: &'a str,
        read: impl FnOnce(&Node<'a>) -> Result<T, Invalid>,
    ) -> Result<Option<T>, Invalid> {
        self.get(name).map(|node| read(&node)).transpose()
    }
}

// === impl Path ===

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Member(Self::Root, name) => write!(f, "{}", name.escape_debug()),
            Self::Member(parent, name) => write!(f, "{parent}.{}", name.escape_debug()),
        }
    }
}

// === impl Invalid ===

impl Invalid {
    pub(super) fn syntax(error: &serde_json::Error) -> Self {
        Self::new(Path::Root, Problem::Syntax(error.to_string(), error.line()))
    }

    #[inline(never)]
    fn new(place: Path<'_>, problem: Problem) -> Self {
        Self(Box::new(Fault { path: place.to_string(), problem }))
    }

    /// The line of a syntax error.
    pub(super) fn syntax_line(&self) -> Option<usize> {
        match self.0.problem {
            Problem::Syntax(_, line) => Some(line),
            _ => None,
        }
    }

    /// The error that the value at a path, as [`Invalid::path`] returns it, is invalid. The reason must not quote it.
    pub fn unusable(path: &str, reason: impl fmt::Display) -> Self {
        let problem = Problem::Unusable(reason.to_string());
        Self(Box::new(Fault { path: path.to_owned(), problem }))
    }

    #[cfg(test)]
    pub(super) fn at(path: &str) -> Self {
        Self(Box::new(Fault { path: path.to_owned(), problem: Problem::Missing }))
    }

    /// The path of the offending member, e.g. `keyring[0].rotation`; empty for the whole document.
    pub fn path(&self) -> &str {
        &self.0.path
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { path, problem } = &*self.0;
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        match problem {
            Problem::Expected(what) => write!(f, "expected {what}"),
            Problem::Missing => f.write_str("missing"),
            Problem::Syntax(error, _) => write!(f, "not valid JSON: {error}"),
            Problem::Unknown(known) => write!(f, "unknown member (known here: {known})"),
            Problem::Unusable(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Invalid {}

/// The integer that a double represents, if it represents one exactly.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be exact")]
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number))
        .then_some(number as u64)
}
