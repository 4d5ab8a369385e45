//! Checks what an HTTP connection manager does to requests before the module and the route selection.

use serde_json::Value;

use super::super::document::{at, get, is_choice, is_true, items, text, typed};
use super::finding::{Element, Finding, LintRule, Note};
use super::managers::Manager;

/// The headers that identify the caller to the upstream. Only the module may set them.
const IDENTITY: [&str; 3] = ["x-vkey-key", "x-vkey-tenant", "x-vkey-sub"];

/// The member that removes headers before route selection.
const EARLY: &str = "early_header_mutation_extensions";

/// An option that must be on.
struct Switch {
    rule: LintRule,
    member: &'static str,
    /// The consequence if it is off.
    reason: &'static str,
}

const SWITCHES: [Switch; 3] = [
    Switch {
        rule: LintRule::PathNotNormalized,
        member: "normalize_path",
        reason: "a path with . or .. in it goes on as the client spells it, and is another path to \
                 other readers",
    },
    Switch {
        rule: LintRule::SlashesNotMerged,
        member: "merge_slashes",
        reason: "a path with // in it goes on as the client spells it, and is another path to other \
                 readers",
    },
    Switch {
        rule: LintRule::HostDotKept,
        member: "strip_trailing_host_dot",
        reason: "api.example. with a dot at the end can choose another virtual host than api.example, \
                 and both are one host to the module",
    },
];

/// Checks the options.
pub(super) fn findings(manager: &Manager<'_>) -> Vec<Finding> {
    let make = |(rule, reason, fix)| Finding {
        element: Element::Listener(manager.listener.to_owned()),
        rule,
        reason,
        fix,
    };
    let config = manager.config;
    let off = SWITCHES.iter().filter(|switch| !is_true(config, switch.member));
    let switches = off.map(|Switch { rule, member, reason }| {
        (*rule, format!("{member} is not true: {reason}"), write(&format!("{member}: true")))
    });
    let others =
        [remote_address(manager), escaped_slashes(manager), host_port(config), identity(config)];
    switches.chain(others.into_iter().flatten()).map(make).collect()
}

/// A note about a listener whose module reads `x-forwarded-for` itself.
pub(super) fn note(manager: &Manager<'_>) -> Option<Note> {
    let is_noted = manager.front.trusts_hops() && !is_true(manager.config, "use_remote_address");
    is_noted.then(|| Note {
        place: manager.listener.to_owned(),
        text: "use_remote_address is not true, so the client's address is the one that \
               client.trusted_hops picks from x-forwarded-for: good only where trusted proxies are \
               all that can connect"
            .to_owned(),
    })
}

type Defect = (LintRule, String, String);

fn write(what: &str) -> String {
    format!("in the HTTP connection manager write {what}")
}

fn remote_address(manager: &Manager<'_>) -> Option<Defect> {
    let is_set = is_true(manager.config, "use_remote_address") || manager.front.trusts_hops();
    let reason = "use_remote_address is not true: Envoy takes the client's address from the \
                  x-forwarded-for that the client itself can write";
    let fix =
        write("use_remote_address: true, and xff_num_trusted_hops where proxies stand in front");
    (!is_set).then(|| (LintRule::RemoteAddressUnset, reason.to_owned(), fix))
}

/// Two of the actions leave only one spelling. If Envoy unescapes the path itself, it differs from what
/// proxies before it saw; if Envoy keeps it, it differs from what servers see that unescape it.
///
/// If the module keeps escaped slashes for a tier, Envoy must too: requests with other keys are denied then.
fn escaped_slashes(manager: &Manager<'_>) -> Option<Defect> {
    let member = "path_with_escaped_slashes_action";
    let is = |word, number| is_choice(manager.config, member, word, number);
    let keeps = manager.front.keeps_escaped_slashes() && is("KEEP_UNCHANGED", 1);
    if keeps || is("REJECT_REQUEST", 2) || is("UNESCAPE_AND_REDIRECT", 3) {
        return None;
    }
    let reason = if is("UNESCAPE_AND_FORWARD", 4) {
        format!(
            "{member} is UNESCAPE_AND_FORWARD: the path that is judged and sent is another one than \
             the client, and each proxy before this one, has seen"
        )
    } else {
        format!(
            "{member} leaves %2F and %5C in the path, which separate segments for some readers only"
        )
    };
    let fix = write(&format!("{member}: REJECT_REQUEST, or UNESCAPE_AND_REDIRECT"));
    Some((LintRule::EscapedSlashesKept, reason, fix))
}

fn host_port(config: &Value) -> Option<Defect> {
    if is_true(config, "strip_any_host_port") {
        return None;
    }
    let reason = if is_true(config, "strip_matching_host_port") {
        "strip_matching_host_port removes the listener's own port only: api.example with any other \
         port can choose another virtual host than api.example, and both are one host to the module"
    } else {
        "strip_any_host_port is not true: api.example with a port can choose another virtual host \
         than api.example, and both are one host to the module"
    };
    let fix = write("strip_any_host_port: true, and no strip_matching_host_port");
    Some((LintRule::HostPortKept, reason.to_owned(), fix))
}

/// Headers that are removed later have already influenced the route selection.
fn identity(config: &Value) -> Option<Defect> {
    let mutations = Vec::from_iter(items(config, EARLY).iter().flat_map(mutations));
    let is_kept = |name: &&str| !mutations.iter().any(|mutation| removes(mutation, name));
    let kept = Vec::from_iter(IDENTITY.into_iter().filter(is_kept));
    if kept.is_empty() {
        return None;
    }
    let names = kept.join(", ");
    let reason =
        format!("{EARLY} does not remove {names}: a client's own reach the choice of a route");
    let removals = Vec::from_iter(kept.iter().map(|name| format!("{{remove: {name}}}")));
    let fix = write(&format!(
        "{EARLY} with an envoy.http.early_header_mutation.header_mutation that has mutations: [{}]",
        removals.join(", ")
    ));
    Some((LintRule::IdentityHeadersKept, reason, fix))
}

/// Whether a client's own identity headers reach the choice of a route.
pub(super) fn keeps_identity(config: &Value) -> bool {
    identity(config).is_some()
}

fn mutations(extension: &Value) -> &[Value] {
    let (kind, config) = get(extension, "typed_config").map_or(("", extension), typed);
    if kind.ends_with(".HeaderMutation") { items(config, "mutations") } else { &[] }
}

/// Whether a mutation removes a header, by its name or by a match of names.
fn removes(mutation: &Value, name: &str) -> bool {
    if let Some(removed) = text(mutation, "remove") {
        return removed.eq_ignore_ascii_case(name);
    }
    let Some(matcher) = at(mutation, &["remove_on_match", "key_matcher"]) else { return false };
    let matches = |member, is_match: fn(&str, &str) -> bool| {
        text(matcher, member).is_some_and(|text| is_match(name, &text.to_ascii_lowercase()))
    };
    matches("exact", |name, text| name == text)
        || matches("prefix", |name, text| name.starts_with(text))
        || matches("contains", |name, text| name.contains(text))
        || matches("suffix", |name, text| name.ends_with(text))
}
