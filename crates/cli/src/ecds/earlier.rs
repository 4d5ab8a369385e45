//! What earlier files say about the filter that is written.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::super::config_file::ConfigFile;
use super::super::output::Output;
use super::super::plugins::{Environment, Plugin, Vm};
use super::super::private::OutArgs;

/// What earlier files say about the filter: the file that is replaced, then the one of `--config`.
pub(super) struct Earlier<'a> {
    replaced: Option<Plugin>,
    given: &'a Plugin,
}

impl<'a> Earlier<'a> {
    /// Reads the file that `out` replaces. A note says if it has no gate.
    pub(super) fn read(given: &'a Plugin, to: &OutArgs, out: &mut Output) -> Self {
        let path = to.replaced();
        let read = |path| ConfigFile::at(path).read().ok()?.gate().ok().cloned();
        let replaced = path.and_then(read);
        if path.is_some() && replaced.is_none() {
            out.note(
                "nothing is taken from the file that is replaced: it has no configuration of a \
                 listener's gate",
            );
        }
        Self { replaced, given }
    }

    /// A setting of the VM.
    pub(super) fn vm(&self, setting: impl Fn(&Vm) -> Option<&String>) -> Option<String> {
        self.plugins().find_map(|plugin| setting(&plugin.vm)).cloned()
    }

    /// The values of variables that the files contain.
    pub(super) fn literals(&self) -> BTreeMap<String, Zeroizing<String>> {
        let mut literals = self.replaced_literals();
        literals.extend(self.given.environment.iter().flat_map(|given| given.literal.clone()));
        literals
    }

    /// Whether only the file that is replaced has the value of a variable.
    pub(super) fn is_kept(&self, name: &str) -> bool {
        let given = self.given.environment.as_ref();
        self.replaced_literals().contains_key(name)
            && !given.is_some_and(|given| given.literal.contains_key(name))
    }

    /// Whether the module already gets the variable from Envoy's environment.
    pub(super) fn inherits(&self, name: &str) -> bool {
        let mut environments = self.plugins().filter_map(|plugin| plugin.environment.as_ref());
        environments.any(|environment| environment.inherited.contains(name))
    }

    fn replaced_literals(&self) -> BTreeMap<String, Zeroizing<String>> {
        let environment = self.replaced.as_ref().and_then(|plugin| plugin.environment.as_ref());
        environment.map(|Environment { literal, .. }| literal.clone()).unwrap_or_default()
    }

    /// The plugins, the most recent first.
    fn plugins(&self) -> impl Iterator<Item = &Plugin> {
        self.replaced.iter().chain([self.given])
    }
}
