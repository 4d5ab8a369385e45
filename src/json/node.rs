//! Reading a JSON value member by member, with the place of each in hand.

use std::fmt;

use crate::time::{LAST_SECS, parse_duration};

use super::{Json, find};

/// How a document may spell an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Integers {
    /// Digits only. Keys are written by programs that know their integers.
    Digits,
    /// Any spelling of a whole number, `5.0` and `1e3` too: Istio delivers the configuration as a
    /// protobuf `Struct`, whose numbers are all doubles.
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
    /// The value is of another type or outside its range; the text says what is expected.
    Expected(&'static str),
    /// A required member is absent.
    Missing,
    /// The text is not JSON, or names a member twice; with the line.
    Syntax(String, usize),
    /// The member is not one of those the text lists.
    Unknown(String),
    /// The value cannot be used for the reason given; the reason never quotes the value.
    Unusable(String),
}

/// A value together with its place in the document.
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

// Documents are read at configuration and at a key's first sight. What is called from everywhere is not
// inlined there: it would double the size of the reading code.
impl<'a> Node<'a> {
    pub(super) fn root(value: &'a Json, integers: Integers) -> Self {
        Self { value, path: Path::Root, integers }
    }

    /// The value that stands here.
    pub fn value(&self) -> &'a Json {
        self.value
    }

    /// The members of the object here, all of which must be among `known`.
    ///
    /// # Errors
    ///
    /// When this is not an object, or one of its members is not listed.
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

    /// The members of the object here, whatever else it has: it may be from a newer writer.
    ///
    /// # Errors
    ///
    /// When this is not an object.
    pub fn open_members(&'a self) -> Result<Members<'a>, Invalid> {
        Ok(Members { members: self.object()?, parent: self })
    }

    /// The entries of the object here, whose names are data: tiers, tenants.
    ///
    /// # Errors
    ///
    /// When this is not an object.
    pub fn entries(&'a self) -> Result<impl Iterator<Item = (&'a str, Node<'a>)>, Invalid> {
        let entry = |(name, value): &'a (String, Json)| (name.as_str(), self.child(name, value));
        Ok(self.object()?.iter().map(entry))
    }

    /// The items of the list here.
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

    /// Every item of the list here, read by `read`.
    ///
    /// # Errors
    ///
    /// When this is not a list, and whatever `read` finds.
    pub fn list<T>(
        &'a self,
        read: impl Fn(&Node<'_>) -> Result<T, Invalid>,
    ) -> Result<Box<[T]>, Invalid> {
        self.items()?.map(|item| read(&item)).collect()
    }

    /// The string here.
    ///
    /// # Errors
    ///
    /// When this is not a string.
    #[inline(never)]
    pub fn string(&self) -> Result<&'a str, Invalid> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    /// The truth value here.
    ///
    /// # Errors
    ///
    /// When this is neither `true` nor `false`.
    #[inline(never)]
    pub fn bool(&self) -> Result<bool, Invalid> {
        match self.value {
            Json::Bool(value) => Ok(*value),
            _ => Err(self.expected("true or false")),
        }
    }

    /// The whole number here, from 0 to 2^53 (what every JSON reader keeps exactly).
    ///
    /// # Errors
    ///
    /// When this is not such a number, or not spelled as [`Integers`] asks.
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

    /// The time here: whole Unix seconds, up to [`LAST_SECS`].
    ///
    /// # Errors
    ///
    /// When this is not such a number.
    #[inline(never)]
    pub fn time(&self) -> Result<u64, Invalid> {
        match self.integer()? {
            secs @ 0..=LAST_SECS => Ok(secs),
            _ => Err(self.expected("Unix seconds before the year 10000, not milliseconds")),
        }
    }

    /// The duration here, in seconds: text as [`parse_duration`] reads it.
    ///
    /// # Errors
    ///
    /// When this is not such a text.
    #[inline(never)]
    pub fn seconds(&self) -> Result<u64, Invalid> {
        parse_duration(self.string()?)
            .ok_or_else(|| self.expected("a duration in whole seconds, as 90s, 15m, 168h or 30d"))
    }

    /// The one of `choices` that the string here names.
    ///
    /// # Errors
    ///
    /// When this is not a string, or names none of them.
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

    /// The error that something else belongs here.
    #[inline(never)]
    pub fn expected(&self, what: &'static str) -> Invalid {
        Invalid::new(self.path, Problem::Expected(what))
    }

    /// The error that the value here cannot be used. The reason must not quote the value: it may
    /// be a secret in the wrong place.
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
    /// The member of that name, where present.
    #[inline(never)]
    pub fn get(&self, name: &'a str) -> Option<Node<'a>> {
        find(self.members, name).map(|value| self.parent.child(name, value))
    }

    /// The member of that name.
    ///
    /// # Errors
    ///
    /// [`Problem::Missing`] when it is absent.
    #[inline(never)]
    pub fn require(&self, name: &'a str) -> Result<Node<'a>, Invalid> {
        let missing = || Invalid::new(Path::Member(&self.parent.path, name), Problem::Missing);
        self.get(name).ok_or_else(missing)
    }

    /// The member of that name read by `read`, where present.
    ///
    /// # Errors
    ///
    /// Whatever `read` finds.
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

    #[cfg(test)]
    pub(super) fn at(path: &str) -> Self {
        Self(Box::new(Fault { path: path.to_owned(), problem: Problem::Missing }))
    }

    /// The place of the offending member, as in `keyring[0].rotation`; empty for the whole document.
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

/// The integer that a double spells, where it spells one exactly.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be exact")]
fn whole(number: f64) -> Option<u64> {
    (number.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&number))
        .then_some(number as u64)
}
