//! What `vkey config check --kubernetes` says about the deployment around each gate: its seal, what happens when the
//! module fails, which code it runs, and that no secret is in the file.

mod gateway;
mod istio;

use std::collections::BTreeSet;

use serde_json::Value;

use vkey::config::RoleConfig;
use vkey::upstream_tls::Policy;

use super::config_file::ConfigSource;
use super::document::{typed, walk};
use super::plugins::{Flag, Owner, Part, Plugin, parts};
use super::tls::{self, Chain};

/// The most objects that a note lists.
const MAX_LISTED: usize = 10;

/// The API group of Istio's plugins.
const EXTENSIONS: &str = "extensions.istio.io";

/// The API group of EnvoyFilters.
const NETWORKING: &str = "networking.istio.io";

/// The API group of Envoy Gateway.
const GATEWAY: &str = "gateway.envoyproxy.io";

/// What is around the gates of a file.
pub(super) struct Deployment<'a> {
    parts: Vec<Part<'a>>,
    source: &'a ConfigSource,
    /// What is wrong with filter chains of Envoy; `None` if no listener has the module.
    chains: Option<Vec<Chain>>,
    /// The parts of the gates that were checked.
    checked: BTreeSet<String>,
}

/// What is around one gate.
#[derive(Default)]
pub(super) struct Around {
    /// Mistakes.
    pub(super) faults: Vec<Flag>,
    /// What is to be known.
    pub(super) notes: Vec<Flag>,
}

/// Whether the seal is behind a gate.
#[derive(Default)]
struct Sealing {
    /// Why it is not.
    fault: Option<String>,
    /// What else is to be known about it.
    note: Option<String>,
}

impl<'a> Deployment<'a> {
    /// What is in the documents that `source` was read from.
    pub(super) fn new(
        documents: &'a [Value],
        source: &'a ConfigSource,
        policy: &Policy,
        now_secs: u64,
    ) -> Self {
        let parts = parts(documents);
        let of_envoy = parts.iter().filter(|part| is_of_envoy(part));
        let of_envoy = of_envoy.map(|part| (part.root.clone(), part.value.clone()));
        let chains = tls::chains(of_envoy, policy, now_secs);
        Self { parts, source, chains, checked: BTreeSet::new() }
    }

    /// A note about the objects that say nothing about a gate.
    pub(super) fn unread(&self) -> Option<String> {
        let is_unread = |part: &&Part<'_>| {
            let owner = part.owner.as_ref();
            let has_plugin = self.source.all().iter().any(|plugin| plugin.root == part.root);
            !has_plugin && !is_of_envoy(part) && owner.is_some_and(|owner| !is_known(owner))
        };
        let names = Vec::from_iter(self.parts.iter().filter(is_unread).map(ToString::to_string));
        let more = names.len().checked_sub(MAX_LISTED).filter(|more| *more > 0);
        let more = more.map(|more| format!("{more} more"));
        let listed = Vec::from_iter(names.iter().take(MAX_LISTED).cloned().chain(more));
        (!names.is_empty()).then(|| format!("not checked: {}", listed.join(", ")))
    }

    /// What is around a gate.
    pub(super) fn around(&mut self, plugin: &Plugin) -> Around {
        let mut around =
            Around { faults: plugin.flags.faults.clone(), notes: plugin.flags.notes.clone() };
        around.faults.extend(self.literal_secrets(plugin));
        if plugin.is_upstream_gate() {
            return around;
        }
        let place = plugin.owner.as_ref().map_or_else(|| plugin.root.clone(), ToString::to_string);
        let is_first = self.checked.insert(plugin.root.clone());
        let part = self.parts.iter().find(|part| part.root == plugin.root);
        let Some(part) = part else { return around };
        if plugin.owner.is_none() || is_of_envoy(part) {
            let chains = self.chains.as_deref();
            let faults = match chains {
                None => vec![NO_LISTENER.to_owned()],
                Some(_) if !is_first => Vec::new(),
                Some(chains) => of_document(chains, &part.root).collect(),
            };
            let faults = faults.into_iter().map(|text| Flag { place: place.clone(), text });
            around.faults.extend(faults);
            return around;
        }
        let Sealing { fault, note } = self.sealing(part, plugin);
        let flag = |text| Flag { place: place.clone(), text };
        around.faults.extend(fault.map(|why| flag(format!("it has no seal: {why}"))));
        around.notes.extend(note.map(flag));
        around
    }

    /// What is wrong in documents of Envoy that have no gate, e.g. a seal without the module.
    pub(super) fn rest(self) -> Vec<Flag> {
        let chains = self.chains.into_iter().flatten();
        let rest = chains.filter(|chain| !self.checked.contains(&chain.document));
        let place = |root: &str| {
            let part = self.parts.iter().find(|part| part.root == root);
            part.map_or_else(String::new, ToString::to_string)
        };
        rest.map(|chain| Flag { place: place(&chain.document), text: chain.text }).collect()
    }

    fn sealing(&self, part: &Part<'a>, plugin: &Plugin) -> Sealing {
        let is = |group, kind| part.owner.as_ref().is_some_and(|owner| owner.is(group, kind));
        if is(EXTENSIONS, "WasmPlugin") || is(EXTENSIONS, "TrafficExtension") {
            istio::of_plugin(&self.parts, part)
        } else if is(NETWORKING, "EnvoyFilter") {
            istio::of_filter(&self.parts, part, plugin)
        } else if is(GATEWAY, "EnvoyExtensionPolicy") || is(GATEWAY, "EnvoyPatchPolicy") {
            gateway::of_policy(&self.parts, part)
        } else {
            let why = "the kind and the apiVersion are not among those that this command knows, so that it cannot look \
                       for one";
            Sealing::missing(why)
        }
    }

    /// The secrets of a gate that are in the file.
    fn literal_secrets(&self, plugin: &Plugin) -> Option<Flag> {
        let environment = plugin.environment.as_ref()?;
        let named: BTreeSet<String> = match self.source.parse(plugin).ok()? {
            RoleConfig::Gate(config) => config.variables().map(str::to_owned).collect(),
            RoleConfig::UpstreamTls(config) => config.variables().map(str::to_owned).collect(),
        };
        let literal = named.iter().filter(|name| environment.literal.contains_key(*name));
        let literal = Vec::from_iter(literal.map(String::as_str));
        (!literal.is_empty()).then(|| Flag {
            place: plugin.place.clone(),
            text: format!(
                "the file has the value of {}, and so a secret: let the proxy's environment have it, and name it in {}",
                literal.join(", "),
                environment.member
            ),
        })
    }
}

impl Sealing {
    fn missing(why: impl Into<String>) -> Self {
        Self { fault: Some(why.into()), note: None }
    }
}

const NO_LISTENER: &str = "its listener is not in the file, so that it is not known whether it has a seal; add the \
                           configuration of the listener to the file";

/// Whether it is configuration of Envoy: a document, or the texts of a ConfigMap.
fn is_of_envoy(part: &Part<'_>) -> bool {
    let is_candidate = part.owner.as_ref().is_none_or(|owner| owner.is("", "ConfigMap"));
    let mut is_envoy = false;
    if is_candidate {
        walk(part.value, &mut |object| is_envoy |= typed(object).0.starts_with("envoy."));
    }
    is_envoy
}

/// Whether objects of this kind are read for seals and gates.
fn is_known(owner: &Owner) -> bool {
    let kinds = [
        (EXTENSIONS, "WasmPlugin"),
        (EXTENSIONS, "TrafficExtension"),
        (NETWORKING, "EnvoyFilter"),
        (GATEWAY, "EnvoyExtensionPolicy"),
        (GATEWAY, "EnvoyPatchPolicy"),
        (GATEWAY, "SecurityPolicy"),
        (gateway::GATEWAY_API, "HTTPRoute"),
        (gateway::GATEWAY_API, "GRPCRoute"),
    ];
    kinds.iter().any(|(group, kind)| owner.is(group, kind))
}

fn of_document<'c>(chains: &'c [Chain], root: &'c str) -> impl Iterator<Item = String> + 'c {
    chains.iter().filter(move |chain| chain.document == root).map(|chain| chain.text.clone())
}
