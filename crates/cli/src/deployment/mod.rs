//! What `vkey config check --kubernetes` says about the deployment around each gate: its seal, what happens when the
//! module fails, which code it runs, and that no secret is in the file.

mod gateway;
mod istio;

use std::collections::BTreeSet;

use serde_json::Value;

use vkey::config::RoleConfig;
use vkey::upstream_tls::Policy;

use super::config_file::ConfigSource;
use super::document::{get, typed, walk};
use super::plugins::{Flag, Owner, Part, Plugin, discovered_filter, parts};
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
    /// The documents of Envoy of which was told what is wrong.
    checked: BTreeSet<String>,
}

/// What is around one gate.
pub(super) struct Around {
    /// Mistakes that were not told before.
    pub(super) faults: Vec<Flag>,
    /// What is to be known.
    pub(super) notes: Vec<Flag>,
    /// Whether there is no mistake, told before or not.
    pub(super) is_good: bool,
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
        let of_envoy = of_envoy.flat_map(|part| {
            let documents = envoy_documents(part).into_iter();
            documents.map(|document| (part.root.clone(), document.clone()))
        });
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
        let mut faults = plugin.flags.faults.clone();
        let mut notes = plugin.flags.notes.clone();
        faults.extend(self.literal_secrets(plugin));
        let part = self.parts.iter().find(|part| part.root == plugin.root);
        let Some(part) = part.filter(|_| !plugin.is_upstream_gate()) else {
            return Around { is_good: faults.is_empty(), faults, notes };
        };
        if plugin.owner.is_none() || is_of_envoy(part) {
            return self.around_in_envoy(plugin, faults, notes);
        }
        let Sealing { fault, note } = self.sealing(part, plugin);
        let flag = |text| Flag { place: part.to_string(), text };
        faults.extend(fault.map(|why| flag(format!("it has no seal: {why}"))));
        notes.extend(note.map(flag));
        Around { is_good: faults.is_empty(), faults, notes }
    }

    /// What is around a gate in configuration of Envoy. What is wrong in a document is told once.
    fn around_in_envoy(
        &mut self,
        plugin: &Plugin,
        mut faults: Vec<Flag>,
        notes: Vec<Flag>,
    ) -> Around {
        let listeners = Vec::from_iter(self.listeners(plugin).map(|part| part.root.clone()));
        let Some(chains) = self.chains.as_ref().filter(|_| !listeners.is_empty()) else {
            faults.push(Flag { place: plugin.place.clone(), text: NO_LISTENER.to_owned() });
            return Around { is_good: false, faults, notes };
        };
        let is_of = |chain: &&Chain| listeners.contains(&chain.document);
        let is_good = faults.is_empty() && !chains.iter().any(|chain| is_of(&chain));
        let new =
            chains.iter().filter(is_of).filter(|chain| !self.checked.contains(&chain.document));
        faults.extend(new.map(|chain| self.flag(chain)));
        self.checked.extend(listeners);
        Around { is_good, faults, notes }
    }

    /// The documents with the listeners that run a gate of Envoy.
    fn listeners(&self, plugin: &Plugin) -> impl Iterator<Item = &Part<'a>> {
        let is_listener = |part: &&Part<'a>| {
            let mut runs = false;
            walk(part.value, &mut |object| {
                runs |= match &plugin.vm.filter {
                    Some(name) => {
                        discovered_filter(object).is_some_and(|found| found.filter == *name)
                    }
                    None => {
                        part.root == plugin.root
                            && typed(object).0.ends_with(".HttpConnectionManager")
                    }
                };
            });
            runs
        };
        self.parts.iter().filter(|part| is_of_envoy(part)).filter(is_listener)
    }

    /// What is wrong in documents of Envoy that have no gate, e.g. a seal without the module.
    pub(super) fn rest(&self) -> Vec<Flag> {
        let chains = self.chains.iter().flatten();
        let rest = chains.filter(|chain| !self.checked.contains(&chain.document));
        rest.map(|chain| self.flag(chain)).collect()
    }

    fn flag(&self, chain: &Chain) -> Flag {
        let part = self.parts.iter().find(|part| part.root == chain.document);
        let place = part.map_or_else(String::new, ToString::to_string);
        Flag { place, text: chain.text.clone() }
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

/// The documents of Envoy in a part.
fn envoy_documents<'a>(part: &Part<'a>) -> Vec<&'a Value> {
    if part.owner.is_none() {
        return vec![part.value];
    }
    let data = get(part.value, "data").and_then(Value::as_object).into_iter().flatten();
    data.filter_map(|(_, member)| member.as_array()).flatten().collect()
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
