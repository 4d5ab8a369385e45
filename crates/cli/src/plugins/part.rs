//! The parts of a file: objects of Kubernetes, and other documents.

use std::fmt;

use serde_json::Value;

use super::super::document::{at, get, items, text};
use super::super::text::escape_word;
use super::place::Place;

/// An object of Kubernetes, or another document.
pub(crate) struct Part<'a> {
    /// The path in the file, by which the plugins in it name it.
    pub(crate) root: String,
    /// What it is called, if it is an object of Kubernetes.
    pub(crate) owner: Option<Owner>,
    /// Its content.
    pub(crate) value: &'a Value,
}

/// What an object of Kubernetes is called.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The group of its API, without the version.
    pub(crate) group: String,
    /// Its kind.
    pub(crate) kind: String,
    /// Its namespace; `None` if that is left to who applies it.
    pub(crate) namespace: Option<String>,
    /// Its name.
    name: String,
}

/// The parts of documents. Lists of objects are taken apart.
pub(crate) fn parts(documents: &[Value]) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let mut place = Place::new((documents.len() > 1).then_some(index + 1));
        add(document, &mut place, &mut parts);
    }
    parts
}

fn add<'a>(value: &'a Value, place: &mut Place<'a>, parts: &mut Vec<Part<'a>>) {
    let owner = Owner::of(value);
    if !owner.as_ref().is_some_and(Owner::is_list) {
        return parts.push(Part { root: place.to_string(), owner, value });
    }
    place.member("items", |place| {
        for (index, item) in items(value, "items").iter().enumerate() {
            place.item(index, |place| add(item, place, parts));
        }
    });
}

impl Owner {
    /// That of a value, if it is an object of Kubernetes.
    pub(super) fn of(value: &Value) -> Option<Self> {
        let (kind, version) = (text(value, "kind")?, text(value, "apiVersion")?);
        let metadata = get(value, "metadata").unwrap_or(&Value::Null);
        Some(Self {
            group: version.rsplit_once('/').map_or("", |(group, _)| group).to_owned(),
            kind: kind.to_owned(),
            namespace: text(metadata, "namespace").map(str::to_owned),
            name: text(metadata, "name").unwrap_or_default().to_owned(),
        })
    }

    /// Whether it is a list of objects.
    pub(super) fn is_list(&self) -> bool {
        self.kind.ends_with("List")
    }

    /// Whether it is of this kind.
    pub(crate) fn is(&self, group: &str, kind: &str) -> bool {
        self.group == group && self.kind == kind
    }
}

impl<'a> Part<'a> {
    /// What an object of this kind specifies.
    pub(crate) fn spec(&self, group: &str, kind: &str) -> Option<&'a Value> {
        let is_kind = self.owner.as_ref().is_some_and(|owner| owner.is(group, kind));
        at(self.value, &["spec"]).filter(|_| is_kind)
    }

    /// Its namespace.
    pub(crate) fn namespace(&self) -> Option<&str> {
        self.owner.as_ref()?.namespace.as_deref()
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        self.owner.as_ref().map_or("", |owner| &owner.name)
    }
}

impl fmt::Display for Part<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => owner.fmt(f),
            None => f.write_str(&self.root),
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", escape_word(&self.kind))?;
        if let Some(namespace) = &self.namespace {
            write!(f, "{}/", escape_word(namespace))?;
        }
        f.write_str(&escape_word(&self.name))
    }
}
