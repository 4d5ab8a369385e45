//! Tools whose arguments are restricted.

use crate::body::mcp::{Arguments, Found, Pointer};
use crate::glob::Globs;
use crate::json::{Invalid, Json, Node};

use super::decimal::Decimal;
use super::globs::GlobWords;
use super::needs::ArgumentNeeds;
use super::places::PlaceGlobs;

/// An entry of `tools` with conditions: it allows calls of the tools that it names whose arguments meet all of them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ToolEntry {
    name: Globs,
    args: Box<[Condition]>,
    /// The names that arguments may have.
    only_args: Option<Box<[Box<str>]>>,
}

/// What the arguments must have at a pointer. Every value that is found there must pass all tests.
#[derive(Clone, Debug, PartialEq)]
struct Condition {
    at: Pointer,
    tests: Box<[Test]>,
}

#[derive(Clone, Debug, PartialEq)]
enum Test {
    /// It is one of these.
    In(Box<[Scalar]>),
    /// It is a string that matches.
    Glob(PlaceGlobs),
    /// It is a number, at least this.
    Min(Decimal),
    /// It is a number, at most this.
    Max(Decimal),
    /// There is none, nor anything in the way to it but objects, arrays and `null`.
    Absent,
}

/// A value that conditions compare with. Values of different types differ.
#[derive(Clone, Debug, PartialEq)]
enum Scalar {
    Null,
    Bool(bool),
    Number(Decimal),
    Text(Box<str>),
}

/// What a test sees of a value.
enum Value<'a> {
    Missing,
    Null,
    Bool(bool),
    Number(Decimal),
    Text(&'a str),
    /// Nothing that is compared: an object, an array, a string that is too long, a number whose exponent is.
    Other,
}

pub(super) const ENTRY_MEMBERS: [&str; 3] = ["name", "args", "only_args"];

const CONDITION_MEMBERS: [&str; 7] = ["at", "equals", "in", "glob", "min", "max", "absent"];

const POINTER: &str = "a JSON pointer into the arguments, as /limit or /items/*/name, of at most 256 bytes and 16 steps";

const NUMBER: &str = "a whole number from -2^63 to 2^64, or a number of at most 15 digits";

// === impl ToolEntry ===

impl ToolEntry {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let [name, args, only_args] = node.members_of(&ENTRY_MEMBERS)?;
        let name = name.ok_or_else(|| node.missing("name"))?;
        let args = args.map(|args| args.list(Condition::read)).transpose()?;
        let names = |names: Node<'_>| names.list(|name| name.string().map(Box::from));
        Ok(Self {
            name: Globs::names(&[name.string()?]),
            args: args.unwrap_or_default(),
            only_args: only_args.map(names).transpose()?,
        })
    }

    /// Whether it allows calls of a tool at all.
    pub(super) fn names(&self, tool: &str) -> bool {
        self.name.matches(tool)
    }

    /// Whether the arguments meet all conditions. What was not looked for meets none.
    pub(super) fn accepts(&self, arguments: &Arguments) -> bool {
        let are_listed = self.only_args.as_deref().is_none_or(|listed| {
            let names = arguments.names();
            names.is_some_and(|names| names.iter().all(|name| listed.contains(name)))
        });
        are_listed && self.args.iter().all(|condition| condition.holds(arguments))
    }

    /// Adds what it needs to know of the arguments.
    pub(super) fn add_needs(&self, needs: &mut ArgumentNeeds) {
        self.args.iter().for_each(|condition| needs.add(&condition.at));
        needs.names |= self.only_args.is_some();
    }

    /// What its globs and lists take.
    pub(super) fn words(&self) -> GlobWords {
        let listed = self.only_args.as_ref().map_or(0, |names| names.len());
        let own = GlobWords { mcp: self.name.words(), compared: listed, ..GlobWords::default() };
        self.args
            .iter()
            .flat_map(|condition| &condition.tests)
            .map(Test::words)
            .fold(own, GlobWords::plus)
    }

    /// Approximate memory on the heap, in bytes.
    pub(super) fn footprint(&self) -> usize {
        let listed = self.only_args.iter().flatten().map(|name| size_of_val(name) + name.len());
        let conditions = self.args.iter().map(Condition::footprint);
        self.name.footprint() + listed.sum::<usize>() + conditions.sum::<usize>()
    }

    /// Why no arguments meet all conditions of an entry that is about to be written.
    pub(super) fn mistake(&self) -> Option<&'static str> {
        let excludes = |condition: &Condition| {
            let listed = self.only_args.as_ref().map(|names| names.iter());
            !condition.accepts_none()
                && listed.is_some_and(|mut names| !names.any(|name| condition.at.is_in(name)))
        };
        if !self.args.iter().all(Condition::can_hold) {
            Some("conditions that a value can meet")
        } else if self.args.iter().any(excludes) {
            Some("only_args with the arguments that the conditions need")
        } else {
            None
        }
    }
}

// === impl Condition ===

impl Condition {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let [at, equals, one_of, glob, min, max, absent] = node.members_of(&CONDITION_MEMBERS)?;
        let at = at.ok_or_else(|| node.missing("at"))?;
        let mut tests = Vec::new();
        if let Some(value) = equals {
            tests.push(Test::In([Scalar::read(&value)?].into()));
        }
        if let Some(values) = one_of {
            tests.push(Test::In(values.list(Scalar::read)?));
        }
        if let Some(glob) = glob {
            tests.push(Test::Glob(PlaceGlobs::new(&[glob.string()?])));
        }
        if let Some(min) = min {
            tests.push(Test::Min(number(&min)?));
        }
        if let Some(max) = max {
            tests.push(Test::Max(number(&max)?));
        }
        if let Some(absent) = absent {
            match absent.bool()? {
                true => tests.push(Test::Absent),
                false => return Err(absent.expected("true: every other condition needs a value")),
            }
        }
        if tests.is_empty() {
            return Err(node.expected("a condition: equals, in, glob, min, max or absent"));
        }
        let at = Pointer::parse(at.string()?).ok_or_else(|| at.expected(POINTER))?;
        Ok(Self { at, tests: tests.into() })
    }

    /// Nothing holds of values that were not looked for.
    fn holds(&self, arguments: &Arguments) -> bool {
        let found = arguments.at(&self.at).unwrap_or_default();
        let passes = |found: &Found| self.passes(&Value::of(found));
        !found.is_empty() && found.iter().all(passes)
    }

    fn passes(&self, value: &Value<'_>) -> bool {
        self.tests.iter().all(|test| test.passes(value))
    }

    /// Whether it holds of a value that is missing.
    fn accepts_none(&self) -> bool {
        self.passes(&Value::Missing)
    }

    /// Whether a value passes all tests, as far as that can be told without looking for a text that two globs match.
    fn can_hold(&self) -> bool {
        let lists = self.tests.iter().filter_map(|test| match test {
            Test::In(list) => Some(list),
            _ => None,
        });
        let has = |is_such: fn(&Test) -> bool| self.tests.iter().any(is_such);
        if let Some(list) = lists.into_iter().next() {
            return list.iter().any(|scalar| self.passes(&scalar.value()));
        }
        if has(|test| matches!(test, Test::Absent)) {
            return self.accepts_none();
        }
        // Without a list, the bounds themselves are the first numbers to try.
        let bounds = self.tests.iter().filter_map(|test| match test {
            Test::Min(bound) | Test::Max(bound) => Some(bound),
            _ => None,
        });
        let mut bounds = bounds.peekable();
        bounds.peek().is_none() || bounds.any(|bound| self.passes(&Value::Number(bound.clone())))
    }

    fn footprint(&self) -> usize {
        // The text of the pointer and its steps.
        let pointer = 2 * self.at.as_str().len() + size_of_val(self.at.segments());
        let tests = self.tests.iter().map(Test::footprint).sum::<usize>();
        size_of::<Self>() + pointer + tests
    }
}

// === impl Test ===

impl Test {
    fn passes(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::In(list), value) => list.iter().any(|scalar| scalar.equals(value)),
            (Self::Glob(glob), Value::Text(text)) => glob.matches(text),
            (Self::Min(bound), Value::Number(number)) => number >= bound,
            (Self::Max(bound), Value::Number(number)) => number <= bound,
            (Self::Absent, Value::Missing) => true,
            (Self::Glob(_) | Self::Min(_) | Self::Max(_) | Self::Absent, _) => false,
        }
    }

    fn words(&self) -> GlobWords {
        let (args, compared, looks) = match self {
            Self::In(list) => (0, list.len(), 0),
            Self::Glob(glob) => (glob.words(), 1, glob.looks()),
            Self::Min(_) | Self::Max(_) | Self::Absent => (0, 1, 0),
        };
        GlobWords { args, compared, looks, ..GlobWords::default() }
    }

    fn footprint(&self) -> usize {
        let heap = match self {
            Self::In(list) => list.iter().map(Scalar::footprint).sum(),
            Self::Glob(glob) => glob.footprint(),
            Self::Min(bound) | Self::Max(bound) => bound.footprint(),
            Self::Absent => 0,
        };
        size_of::<Self>() + heap
    }
}

// === impl Scalar ===

impl Scalar {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        match node.value() {
            Json::Null => Ok(Self::Null),
            Json::Bool(value) => Ok(Self::Bool(*value)),
            Json::Number(_) => number(node).map(Self::Number),
            Json::String(text) => Ok(Self::Text(text.as_str().into())),
            Json::Array(_) | Json::Object(_) => {
                Err(node.expected("a string, a number, true, false or null"))
            }
        }
    }

    fn equals(&self, value: &Value<'_>) -> bool {
        match (self, value) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(own), Value::Bool(other)) => own == other,
            (Self::Number(own), Value::Number(other)) => own == other,
            (Self::Text(own), Value::Text(other)) => **own == **other,
            _ => false,
        }
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(value) => Value::Bool(*value),
            Self::Number(number) => Value::Number(number.clone()),
            Self::Text(text) => Value::Text(text),
        }
    }

    fn footprint(&self) -> usize {
        let heap = match self {
            Self::Null | Self::Bool(_) => 0,
            Self::Number(number) => number.footprint(),
            Self::Text(text) => text.len(),
        };
        size_of::<Self>() + heap
    }
}

// === impl Value ===

impl<'a> Value<'a> {
    fn of(found: &'a Found) -> Self {
        match found {
            Found::Missing => Self::Missing,
            Found::Null => Self::Null,
            Found::Bool(value) => Self::Bool(*value),
            Found::Number(text) => Decimal::parse(text).map_or(Self::Other, Self::Number),
            Found::Text(Some(text)) => Self::Text(text),
            Found::Text(None) | Found::Container => Self::Other,
        }
    }
}

fn number(node: &Node<'_>) -> Result<Decimal, Invalid> {
    let Json::Number(number) = node.value() else {
        return Err(node.expected("a number"));
    };
    Decimal::of(number).ok_or_else(|| node.expected(NUMBER))
}

#[cfg(test)]
mod tests;
