//! Filters that may be the module, whose configurations discovery delivers and the input lacks.

use std::collections::BTreeSet;

use serde_json::Value;

use super::super::super::plugins::{self, Discovered};
use super::super::document::items;
use super::finding::{Element, Finding, InFile, LintRule, Note};
use super::plugin::Extensions;
use super::source::Input;
use super::{managers, seal};

/// The part of a filter's name by which it is taken for the module.
const MODULE: &str = "vkey";

/// A listener whose filters may include the module, which was not read.
pub(super) struct Unread<'a> {
    /// The name of the listener.
    listener: &'a str,
    /// The input that contains it.
    file: usize,
    /// The filter.
    filter: Discovered,
    /// The filters after it.
    behind: &'a [Value],
}

/// The listeners without the module that have an unread filter which may be it: one whose name says so, one before a
/// seal, or the only one.
pub(super) fn unread<'a>(inputs: &'a [Input], extensions: &Extensions<'a>) -> Vec<Unread<'a>> {
    let mut found = Vec::new();
    managers::visit(inputs, &mut |file, config, listener| {
        let filters = items(config, "http_filters");
        if filters.iter().any(|filter| extensions.front(filter).is_some()) {
            return;
        }
        let unread = filters.iter().enumerate().filter_map(|(position, filter)| {
            let discovered = plugins::discovered_filter(filter)?;
            let behind = filters.get(position.saturating_add(1)..).unwrap_or_default();
            let is_unread = extensions.filter(filter).is_none();
            is_unread.then_some(Unread { listener, file, filter: discovered, behind })
        });
        found.extend(unread);
    });
    let names = BTreeSet::from_iter(found.iter().map(|unread| unread.filter.filter.clone()));
    let may_be_module = |unread: &Unread<'a>| {
        names.len() == 1 || unread.filter.filter.contains(MODULE) || unread.is_sealed(extensions)
    };
    found.retain(may_be_module);
    found
}

/// The first input that has an HTTP connection manager.
pub(super) fn first_manager(inputs: &[Input]) -> Option<usize> {
    let mut first = None;
    managers::visit(inputs, &mut |file, _, _| first = first.or(Some(file)));
    first
}

/// A note about listeners of which none has the module.
pub(super) fn note_without_module() -> Note {
    Note { place: "listeners".to_owned(), text: "no listener has the module".to_owned() }
}

impl<'a> Unread<'a> {
    /// The findings about the filter.
    pub(super) fn findings(
        &self,
        inputs: &[Input],
        extensions: &Extensions<'a>,
    ) -> Vec<InFile<Finding>> {
        let file = inputs.get(self.file).map_or("", |input| &input.name);
        let found = [Some(self.not_read(file)), self.unsealed(extensions)];
        found.into_iter().flatten().map(|item| InFile::new(self.file, item)).collect()
    }

    /// Whether a seal is after the filter.
    fn is_sealed(&self, extensions: &Extensions<'a>) -> bool {
        self.behind.iter().any(|filter| seal::is_seal(filter, extensions))
    }

    fn not_read(&self, file: &str) -> Finding {
        let name = &self.filter.filter;
        let (source, fix) = match &self.filter.path {
            Some(path) => {
                (path.as_str(), format!("give that file too: `vkey tls lint {file} {path}`"))
            }
            None => (
                "a server",
                "lint the running Envoy: `vkey tls lint URL` of its admin interface".to_owned(),
            ),
        };
        Finding {
            element: Element::Listener(self.listener.to_owned()),
            rule: LintRule::ModuleUnread,
            reason: format!(
                "the filter {name} comes by ECDS from {source}, which is not in the input: if it is the module, \
                 what it needs around it was not checked"
            ),
            fix,
        }
    }

    fn unsealed(&self, extensions: &Extensions<'a>) -> Option<Finding> {
        if self.is_sealed(extensions) {
            return None;
        }
        Some(seal::missing(
            self.listener,
            format!("if the filter {} is the module: {}", self.filter.filter, seal::absent()),
        ))
    }
}
