//! The seal of a gate on Istio: an EnvoyFilter that inserts it before the router, wherever the gate runs.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::document::{at, get, is_true, items, text, walk};
use super::super::plugins::{Part, Plugin, discovered_filter};
use super::super::tls;
use super::{NETWORKING, Sealing};

/// The namespace whose objects are for the whole mesh, unless Istio was installed with another.
const ROOT_NAMESPACE: &str = "istio-system";

const MANAGERS: [&str; 2] =
    ["envoy.filters.network.http_connection_manager", "envoy.http_connection_manager"];

const ROUTERS: [&str; 2] = ["envoy.filters.http.router", "envoy.router"];

/// The contexts of patches, apart from ANY.
const CONTEXTS: [&str; 3] = ["GATEWAY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND"];

/// Members of a match by which a patch is for some proxies or connections only.
const NARROWING: [(&[&str], &str); 7] = [
    (&["proxy"], "proxy"),
    (&["listener", "name"], "listener.name"),
    (&["listener", "filterChain", "name"], "listener.filterChain.name"),
    (&["listener", "filterChain", "sni"], "listener.filterChain.sni"),
    (&["listener", "filterChain", "transportProtocol"], "listener.filterChain.transportProtocol"),
    (
        &["listener", "filterChain", "applicationProtocols"],
        "listener.filterChain.applicationProtocols",
    ),
    (&["listener", "filterChain", "destinationPort"], "listener.filterChain.destinationPort"),
];

/// The workloads that an object is for.
struct Scope<'a> {
    namespace: Option<&'a str>,
    labels: BTreeMap<&'a str, &'a str>,
    targets: BTreeSet<Target<'a>>,
}

/// The group, the kind and the name of what an object is attached to.
type Target<'a> = (&'a str, &'a str, &'a str);

/// A patch that inserts a filter.
struct Patch<'a> {
    value: &'a Value,
    owner: &'a Part<'a>,
    index: usize,
}

/// Where a gate runs, as far as its seal has to be there too.
struct Needs<'a> {
    scope: Scope<'a>,
    /// The contexts: all of one of these lists.
    contexts: Vec<Vec<&'static str>>,
    /// The ports; none: all.
    ports: BTreeSet<u64>,
    /// The patch that inserts the gate before the router.
    before_router: Option<Order>,
}

/// When a patch is applied: the priority of its object, then the object, then its number in it.
struct Order {
    priority: i64,
    root: String,
    index: usize,
}

/// The seal of a WasmPlugin or a TrafficExtension.
pub(super) fn of_plugin<'a>(parts: &'a [Part<'a>], part: &'a Part<'a>) -> Sealing {
    let spec = get(part.value, "spec").unwrap_or(&Value::Null);
    let labels = at(spec, &["selector", "matchLabels"]);
    let matches = items(spec, "match");
    let scope = Scope::new(part, labels, spec);
    let is_only = |mode: &str| {
        !matches.is_empty() && matches.iter().all(|item| text(item, "mode") == Some(mode))
    };
    let contexts = if is_only("SERVER") {
        vec![vec!["SIDECAR_INBOUND"]]
    } else if is_only("CLIENT") {
        vec![vec!["GATEWAY"], vec!["SIDECAR_OUTBOUND"]]
    } else if scope.targets.is_empty() {
        vec![vec!["GATEWAY"], vec!["SIDECAR_INBOUND", "SIDECAR_OUTBOUND"]]
    } else {
        // A waypoint has the context of a sidecar.
        vec![vec!["GATEWAY"], vec!["SIDECAR_INBOUND"]]
    };
    let has_ports = matches.iter().all(|item| !items(item, "ports").is_empty());
    let ports = matches.iter().filter(|_| has_ports).flat_map(|item| items(item, "ports"));
    let ports = ports.filter_map(|port| get(port, "number").and_then(Value::as_u64)).collect();
    Needs { scope, contexts, ports, before_router: None }.sealing(parts)
}

/// The seal of a gate in an EnvoyFilter.
pub(super) fn of_filter<'a>(parts: &'a [Part<'a>], part: &'a Part<'a>, plugin: &Plugin) -> Sealing {
    let mut own = patches(part);
    let of_plugin =
        own.find(|patch| plugin.place.contains(&format!("configPatches[{}].", patch.index)));
    let Some(mut patch) = of_plugin else { return Sealing::missing("its patch is not known") };
    if patch.applies_to("EXTENSION_CONFIG") {
        let name = text(patch.filter(), "name").unwrap_or_default().to_owned();
        let is_discovery = |patch: &Patch<'_>| {
            patch.applies_to("HTTP_FILTER")
                && discovered_filter(patch.filter()).is_some_and(|filter| filter.filter == name)
        };
        match patches(part).find(is_discovery) {
            Some(discovery) => patch = discovery,
            None => {
                return Sealing::missing(
                    "no HTTP_FILTER patch of the object has its name and a config_discovery with the type of Wasm filters, so that it runs nowhere",
                );
            }
        }
    }
    if !patch.applies_to("HTTP_FILTER") {
        return Sealing::missing(
            "its patch inserts more than a filter; insert the module by an HTTP_FILTER patch",
        );
    }
    let (operation, before) = (patch.operation(), patch.sub_filter());
    let is_at_router = before.is_some_and(|name| ROUTERS.contains(&name));
    if matches!(operation, "ADD") || operation == "INSERT_AFTER" && is_at_router {
        return Sealing::missing("its patch puts it after the router; expected INSERT_FIRST");
    }
    let contexts = match patch.context() {
        Some(context) => vec![CONTEXTS.into_iter().filter(|known| *known == context).collect()],
        None => vec![CONTEXTS.to_vec()],
    };
    let is_before_router = operation == "INSERT_BEFORE" && is_at_router;
    let needs = Needs {
        scope: patch.scope(),
        contexts,
        ports: patch.port().into_iter().collect(),
        before_router: is_before_router.then(|| patch.order()),
    };
    needs.sealing(parts)
}

impl<'a> Scope<'a> {
    fn new(part: &'a Part<'a>, labels: Option<&'a Value>, spec: &'a Value) -> Self {
        let labels = labels.and_then(Value::as_object).into_iter().flatten();
        let labels = labels.map(|(name, value)| (&**name, value.as_str().unwrap_or_default()));
        let listed = items(spec, "targetRefs").iter().chain(get(spec, "targetRef"));
        let word = |target, name| text(target, name).unwrap_or_default();
        let target = |target| (word(target, "group"), word(target, "kind"), word(target, "name"));
        Self {
            namespace: part.namespace(),
            labels: labels.collect(),
            targets: listed.map(target).collect(),
        }
    }

    /// Why an object with this scope is not for all workloads of another, or for one of its targets.
    fn gap(&self, other: &Self, target: Option<&Target<'_>>) -> Option<String> {
        if self.namespace != other.namespace && self.namespace != Some(ROOT_NAMESPACE) {
            return Some(match other.namespace {
                Some(_) => "it is in another namespace".to_owned(),
                None => "it has a namespace, and the plugin has none".to_owned(),
            });
        }
        match target {
            Some(target) if !self.targets.contains(target) => {
                Some("its targetRefs lack one of the plugin's".to_owned())
            }
            None if !self.targets.is_empty() => {
                Some("it has targetRefs, and the plugin has none".to_owned())
            }
            None => {
                let is_other =
                    |(name, value): &(&&str, &&str)| other.labels.get(*name) != Some(*value);
                let narrower = self.labels.iter().find(is_other);
                narrower.map(|(name, _)| {
                    format!("its workloadSelector asks for the label {name}, which the plugin's selector does not")
                })
            }
            Some(_) => None,
        }
    }

    /// Whether it is for more than another.
    fn is_wider(&self, other: &Self) -> bool {
        self.namespace != other.namespace
            || self.labels.len() < other.labels.len()
            || self.targets.len() > other.targets.len()
    }
}

impl<'a> Patch<'a> {
    /// The patch's filter.
    fn filter(&self) -> &'a Value {
        at(self.value, &["patch", "value"]).unwrap_or(&Value::Null)
    }

    fn applies_to(&self, what: &str) -> bool {
        text(self.value, "applyTo") == Some(what)
    }

    fn operation(&self) -> &'a str {
        get(self.value, "patch").and_then(|patch| text(patch, "operation")).unwrap_or_default()
    }

    fn in_match(&self, path: &[&str]) -> Option<&'a Value> {
        at(get(self.value, "match")?, path)
    }

    /// The context; `None` if it is any.
    fn context(&self) -> Option<&'a str> {
        let context = self.in_match(&["context"]).and_then(Value::as_str);
        context.filter(|context| *context != "ANY")
    }

    fn port(&self) -> Option<u64> {
        self.in_match(&["listener", "portNumber"]).and_then(Value::as_u64)
    }

    /// The network filter that it is for.
    fn manager(&self) -> Option<&'a str> {
        self.in_match(&["listener", "filterChain", "filter", "name"]).and_then(Value::as_str)
    }

    /// The HTTP filter at which it inserts.
    fn sub_filter(&self) -> Option<&'a str> {
        let path = ["listener", "filterChain", "filter", "subFilter", "name"];
        self.in_match(&path).and_then(Value::as_str)
    }

    fn scope(&self) -> Scope<'a> {
        let spec = get(self.owner.value, "spec").unwrap_or(&Value::Null);
        Scope::new(self.owner, at(spec, &["workloadSelector", "labels"]), spec)
    }

    fn order(&self) -> Order {
        let priority = at(self.owner.value, &["spec", "priority"]).and_then(Value::as_i64);
        Order {
            priority: priority.unwrap_or_default(),
            root: self.owner.root.clone(),
            index: self.index,
        }
    }

    /// Why its filter is no seal behind every module, although it means to be one.
    fn flaw(&self) -> Option<String> {
        let filter = self.filter();
        if !self.applies_to("HTTP_FILTER") {
            return Some("applyTo: expected HTTP_FILTER".to_owned());
        }
        if !tls::is_seal(filter) {
            return Some(format!(
                "patch.value does not refuse every request without the filter state {} = allow; expected the action ALLOW \
                 and policies with that principal alone",
                tls::SEAL
            ));
        }
        if is_true(filter, "disabled") {
            return Some("patch.value.disabled: expected false".to_owned());
        }
        if self.operation() != "INSERT_BEFORE" {
            return Some(
                "patch.operation: expected INSERT_BEFORE the router, which is behind the module"
                    .to_owned(),
            );
        }
        if !self.sub_filter().is_some_and(|name| ROUTERS.contains(&name)) {
            return Some(format!(
                "match.listener.filterChain.filter.subFilter.name: expected {}: any other place may be before the module",
                ROUTERS[0]
            ));
        }
        if self.manager().is_some_and(|name| !MANAGERS.contains(&name)) {
            return Some(format!(
                "match.listener.filterChain.filter.name: expected {}",
                MANAGERS[0]
            ));
        }
        let narrowing = NARROWING.iter().find(|(path, _)| self.in_match(path).is_some());
        narrowing.map(|(_, name)| format!("match.{name}: other requests have no seal; remove it"))
    }
}

impl Needs<'_> {
    /// Whether the seals in a file are wherever the gate is.
    fn sealing(&self, parts: &[Part<'_>]) -> Sealing {
        let filters = parts.iter().filter(|part| part.spec(NETWORKING, "EnvoyFilter").is_some());
        let candidates = Vec::from_iter(filters.flat_map(patches).filter(is_meant_as_seal));
        if candidates.is_empty() {
            return Sealing::missing(format!(
                "no EnvoyFilter in the file inserts an RBAC filter before the router that refuses what lacks the filter \
                 state {} = allow, so that every request passes if the module is not there",
                tls::SEAL
            ));
        }
        let mut reasons = BTreeSet::new();
        let mut seals = Vec::new();
        for patch in &candidates {
            match patch.flaw().or_else(|| self.too_early(patch)) {
                Some(flaw) => _ = reasons.insert(at_patch(patch, &flaw)),
                None => seals.push(patch),
            }
        }
        let targets = Vec::from_iter(self.scope.targets.iter().map(Some));
        let units = if targets.is_empty() { vec![None] } else { targets };
        let mut is_sealed = true;
        let mut is_wider = false;
        for target in units {
            let covering = Vec::from_iter(seals.iter().filter(|seal| {
                let gap = seal.scope().gap(&self.scope, target);
                reasons.extend(gap.as_ref().map(|gap| at_patch(seal, gap)));
                gap.is_none()
            }));
            is_wider |= !covering.is_empty()
                && covering.iter().all(|seal| seal.scope().is_wider(&self.scope));
            is_sealed &= !covering.is_empty() && self.is_everywhere(&covering, &mut reasons);
        }
        if !is_sealed {
            return Sealing::missing(Vec::from_iter(reasons).join("; "));
        }
        let note = "the seal is for more workloads than the plugin: those without the module refuse every request";
        Sealing { fault: None, note: is_wider.then(|| note.to_owned()) }
    }

    /// Whether seals are in all contexts and on all ports of the gate.
    fn is_everywhere(&self, seals: &[&&Patch<'_>], reasons: &mut BTreeSet<String>) -> bool {
        let ports = match self.ports.len() {
            0 => vec![None],
            _ => self.ports.iter().copied().map(Some).collect(),
        };
        let is_on =
            |seal: &Patch<'_>, port: Option<u64>| seal.port().is_none_or(|own| Some(own) == port);
        let is_in =
            |seal: &Patch<'_>, context: &str| seal.context().is_none_or(|own| own == context);
        let is_sealed = |context: &&str, port| {
            seals.iter().any(|seal| is_on(seal, port) && is_in(seal, context))
        };
        let is_complete = |contexts: &Vec<&'static str>| {
            contexts.iter().all(|context| ports.iter().all(|port| is_sealed(context, *port)))
        };
        let is_everywhere = self.contexts.iter().any(is_complete);
        if !is_everywhere {
            let words = self.contexts.iter().map(|contexts| contexts.join(" and "));
            let words = Vec::from_iter(words).join(", or ");
            for seal in seals {
                let flaw = match seal.port() {
                    Some(_) if !ports.iter().all(|port| is_on(seal, *port)) => {
                        "match.listener.portNumber: other ports have no seal; remove it".to_owned()
                    }
                    _ => format!(
                        "match.context: the module runs in {words}, and has no seal in each of them"
                    ),
                };
                reasons.insert(at_patch(seal, &flaw));
            }
        }
        is_everywhere
    }

    /// Why a seal is before a gate that is inserted before the router too.
    fn too_early(&self, seal: &Patch<'_>) -> Option<String> {
        let (gate, own) = (self.before_router.as_ref()?, seal.order());
        let is_later = if gate.root == own.root {
            gate.index < own.index
        } else {
            gate.priority < own.priority
        };
        let text = "it may be before the module, which would refuse every request; insert the module by INSERT_FIRST, or \
                    the seal by a later patch of the same object";
        (!is_later).then(|| text.to_owned())
    }
}

/// The patches of an EnvoyFilter.
fn patches<'a>(part: &'a Part<'a>) -> impl Iterator<Item = Patch<'a>> {
    let listed =
        part.spec(NETWORKING, "EnvoyFilter").map_or(&[][..], |spec| items(spec, "configPatches"));
    listed.iter().enumerate().map(move |(index, value)| Patch { value, owner: part, index })
}

/// Whether a patch inserts a filter that mentions the filter state of the seal.
fn is_meant_as_seal(patch: &Patch<'_>) -> bool {
    let mut names_state = false;
    walk(patch.filter(), &mut |object| names_state |= text(object, "key") == Some(tls::SEAL));
    names_state
}

fn at_patch(patch: &Patch<'_>, flaw: &str) -> String {
    format!("{}: spec.configPatches[{}]: {flaw}", patch.owner, patch.index)
}
