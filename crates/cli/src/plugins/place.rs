//! The path of a value in a file.

use std::fmt;

/// The path of a value in a file, and the names of what contains it.
pub(super) struct Place<'a> {
    /// The number of the document in its stream, from 1, if there are several.
    document: Option<usize>,
    steps: Vec<Step<'a>>,
    owners: Vec<&'a str>,
}

enum Step<'a> {
    Index(usize),
    Member(&'a str),
}

impl<'a> Place<'a> {
    /// The root of a document.
    pub(super) fn new(document: Option<usize>) -> Self {
        Self { document, steps: Vec::new(), owners: Vec::new() }
    }

    /// Runs a function at a member of the value here.
    pub(super) fn member<T>(&mut self, name: &'a str, run: impl FnOnce(&mut Self) -> T) -> T {
        self.step(Step::Member(name), run)
    }

    /// Runs a function at an item of the value here, counted from 0.
    pub(super) fn item<T>(&mut self, index: usize, run: impl FnOnce(&mut Self) -> T) -> T {
        self.step(Step::Index(index), run)
    }

    /// Runs a function inside what has a name, if it has one.
    pub(super) fn owned<T>(
        &mut self,
        name: Option<&'a str>,
        run: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let before = self.owners.len();
        self.owners.extend(name);
        let result = run(self);
        self.owners.truncate(before);
        result
    }

    /// The names of what contains the value, the outermost first.
    pub(super) fn owners(&self) -> impl Iterator<Item = &'a str> {
        self.owners.iter().copied()
    }

    fn step<T>(&mut self, step: Step<'a>, run: impl FnOnce(&mut Self) -> T) -> T {
        self.steps.push(step);
        let result = run(self);
        self.steps.pop();
        result
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(number) = self.document {
            write!(f, "document {number}")?;
        }
        for (index, step) in self.steps.iter().enumerate() {
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Member(name) if index > 0 => write!(f, ".{name}")?,
                Step::Member(name) if self.document.is_some() => write!(f, ", {name}")?,
                Step::Member(name) => f.write_str(name)?,
            }
        }
        Ok(())
    }
}
