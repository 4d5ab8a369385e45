//! Provider credentials: the upstream gate holds them, and the listener's gate grants them by name.

use std::collections::BTreeSet;

use vkey::config::RoleConfig;
use vkey::json::{Invalid, Json, Members, Node};

use super::{RenderPlan, Source, Yaml};

/// The provider credential of one upstream.
pub(super) struct Credential {
    /// The name by which it is granted.
    pub(super) name: String,
    /// Its entry in the configuration of the upstream gate.
    entry: Json,
    /// The environment variables in its value.
    variables: Box<[String]>,
}

// === impl Credential ===

impl Credential {
    /// Parses the credential of the upstream with that name and host, by the rules of the gate that will hold
    /// it.
    pub(super) fn read(node: &Node<'_>, upstream: &str, host: &str) -> Result<Self, Invalid> {
        let members = node.members(&["name", "header", "value"])?;
        let name = members.read("name", Node::string)?.unwrap_or(upstream);
        let entry = Json::object([
            ("name", name.into()),
            ("hosts", Json::Array(vec![host.into()])),
            ("header", members.require("header")?.string()?.into()),
            ("value", members.require("value")?.string()?.into()),
        ]);
        let gate =
            Json::Object(vec![("role".to_owned(), "upstream_tls".into()), member(entry.clone())]);
        let variables = match RoleConfig::parse(gate.to_string().as_bytes()) {
            Ok(RoleConfig::UpstreamTls(gate)) => gate.variables().map(str::to_owned).collect(),
            Ok(RoleConfig::Gate(_)) => Box::default(), // not of this role
            Err(invalid) => return Err(relocated(&invalid, &members, node)),
        };
        Ok(Self { name: name.to_owned(), entry, variables })
    }
}

/// Translates an error in the gate's configuration to the list of upstreams. Neither quotes a value.
fn relocated(invalid: &Invalid, members: &Members<'_>, node: &Node<'_>) -> Invalid {
    let text = invalid.to_string();
    let reason = text.strip_prefix(invalid.path()).and_then(|text| text.strip_prefix(": "));
    let reason = reason.unwrap_or(&text);
    let name = ["name", "header", "value"].into_iter().find(|name| invalid.path().ends_with(name));
    match name.map(|name| (name, members.get(name))) {
        Some((_, Some(member))) => member.unusable(reason),
        // The name is that of the upstream, which may be too long.
        Some((name, None)) => node.unusable(format!("{name}: {reason}")),
        None => node.unusable(reason),
    }
}

/// The member of the gate's configuration with a credential.
fn member(entry: Json) -> (String, Json) {
    ("credentials".to_owned(), Json::Array(vec![entry]))
}

// === what is rendered ===

/// The member of the gate's configuration with the upstream's credential.
pub(super) fn of_gate(plan: &RenderPlan<'_>) -> Option<(String, Json)> {
    plan.upstream.credential.as_ref().map(|credential| member(credential.entry.clone()))
}

/// The environment variables that the module sees, without duplicates. Every gate sees all of them, because a
/// gate with other variables would have its own VM.
pub(super) fn environment<'a>(listed: &'a [String], plans: &[RenderPlan<'a>]) -> Vec<&'a str> {
    let named = held(plans).flat_map(|credential| &*credential.variables);
    unique(listed.iter().chain(named).map(String::as_str))
}

/// What the listener's gate needs, if upstream gates hold credentials. `environment` is what the format calls
/// its variables, and their list.
pub(super) fn front(source: &Source<'_>, environment: (&str, Option<Yaml>)) -> String {
    let grant = |name| Json::object([("name", Json::from(name))]);
    let grants = Vec::from_iter(names(source).into_iter().map(grant));
    if grants.is_empty() {
        return String::new();
    }
    let credentials = Json::object([("credentials", Json::Array(grants))]);
    let (member, variables) = environment;
    format!(
        "\nThe gates of the clusters hold credentials. The module on the request path grants them by name,\n\
         and has to see the same variables:\n  {}\n  {member}: {}",
        Json::object([("forward", credentials)]),
        variables.and_then(|variables| variables.flow()).unwrap_or_default()
    )
}

/// The credentials that the listener's configuration does not grant, if there is one.
pub(super) fn ungranted<'a>(source: &Source<'a>) -> Vec<&'a str> {
    let Some(config) = source.config else { return Vec::new() };
    let granted = config.get("forward").and_then(|forward| forward.get("credentials"));
    let entries = match granted {
        Some(Json::Array(entries)) => entries.as_slice(),
        _ => &[],
    };
    let granted = entries.iter().filter_map(|entry| entry.get("name").and_then(Json::as_str));
    let granted = BTreeSet::from_iter(granted);
    names(source).into_iter().filter(|name| !granted.contains(name)).collect()
}

/// The names of all credentials, without duplicates.
fn names<'a>(source: &Source<'a>) -> Vec<&'a str> {
    unique(held(&source.plans).map(|credential| credential.name.as_str()))
}

fn held<'a>(plans: &[RenderPlan<'a>]) -> impl Iterator<Item = &'a Credential> {
    plans.iter().filter_map(|plan| plan.upstream.credential.as_ref())
}

fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).collect()
}
