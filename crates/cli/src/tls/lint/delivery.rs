//! Provider credentials that can never go out.

use serde_json::Value;

use vkey::config::{Cause, Hindrance, RoleConfig, UpstreamConfig, upstream_hindrances};
use vkey::json::Json;
use vkey::upstream_tls::Policy;

use super::super::document::text;
use super::finding::{Element, Finding, LintRule, Note};
use super::managers::Manager;
use super::proxy_config::ProxyConfig;
use super::socket::{Channel, branches};
use super::upstream_gate;

/// Findings and notes about the credentials of one configuration of the module.
#[derive(Default)]
pub(super) struct Delivery {
    /// Credentials that can never go out.
    pub(super) findings: Vec<Finding>,
    /// Credentials that go out under a condition.
    pub(super) notes: Vec<Note>,
    /// The conditions.
    conditional: Vec<Hindrance>,
}

/// Checks the credentials of a cluster's gate. Without TLS, a condition that asks for TLS never holds.
pub(super) fn of_cluster<'a>(
    cluster: &'a Value,
    proxy_config: &ProxyConfig<'a>,
    policy: &Policy,
    now_secs: u64,
) -> Delivery {
    let Some(role) = gate(cluster, proxy_config) else { return Delivery::default() };
    let name = text(cluster, "name").unwrap_or_default();
    let is_plain = branches(cluster).iter().all(|b| matches!(b.channel, Channel::Plain(_)));
    let element = |host: &str| Element::Cluster { name: name.to_owned(), host: host.to_owned() };
    let never = |hindrance: &Hindrance| {
        let needs_tls = matches!(hindrance.cause, Cause::TlsOnly | Cause::Ended(_));
        hindrance.is_final() || (is_plain && needs_tls)
    };
    // The connection of this cluster is known, so a condition that it fulfils says nothing.
    let shown = |hindrance: &Hindrance| hindrance.cause == Cause::Verified;
    Delivery::of(&role, policy, now_secs, element, never).noting(name, shown)
}

/// Checks the credentials that the module of a listener holds or names.
pub(super) fn of_listener(manager: &Manager<'_>, policy: &Policy, now_secs: u64) -> Delivery {
    let role = RoleConfig::parse(manager.front.to_text().as_bytes());
    let element = |_: &str| Element::Listener(manager.listener.to_owned());
    role.map_or_else(
        |_| Delivery::default(),
        |role| {
            let delivery = Delivery::of(&role, policy, now_secs, element, Hindrance::is_final);
            delivery.noting(manager.listener, |_| true)
        },
    )
}

/// Checks the credentials of the configuration that an option names, also against the gates of the clusters.
pub(super) fn of_option(
    config: &Json,
    proxy_config: &ProxyConfig<'_>,
    policy: &Policy,
    now_secs: u64,
) -> Delivery {
    let Ok(role) = RoleConfig::parse(config.to_string().as_bytes()) else {
        return Delivery::default();
    };
    let element = |_: &str| Element::Configuration;
    let mut delivery = Delivery::of(&role, policy, now_secs, element, Hindrance::is_final);
    let gates =
        proxy_config.clusters.iter().filter_map(|cluster| match gate(cluster.item, proxy_config) {
            Some(RoleConfig::UpstreamTls(config)) => Some(config),
            Some(RoleConfig::Gate(_)) | None => None,
        });
    let gates: Vec<UpstreamConfig> = gates.collect();
    if let RoleConfig::Gate(front) = &role
        && !gates.is_empty()
    {
        let managers = &proxy_config.managers;
        let is_named = |name: &str| {
            managers.iter().any(|manager| manager.front.credential_names().any(|n| n == name))
        };
        let between = upstream_hindrances(front, &gates).into_iter();
        delivery.conditional.extend(between.filter(|hindrance| {
            hindrance.cause != Cause::NotGranted || !is_named(&hindrance.credential)
        }));
    }
    delivery.noting("--config", |_| true)
}

impl Delivery {
    fn of(
        role: &RoleConfig,
        policy: &Policy,
        now_secs: u64,
        element: impl Fn(&str) -> Element,
        never: impl Fn(&Hindrance) -> bool,
    ) -> Self {
        let refused = role.check_policy(policy).err();
        let refused = refused.map(|invalid| {
            finding(element("-"), invalid.to_string(), "remove plaintext, or the known host")
        });
        let hindrances = role.hindrances(policy, now_secs);
        let (never, conditional): (Vec<_>, Vec<_>) = hindrances.into_iter().partition(never);
        let never = never.iter().map(|hindrance| {
            let element = element(hindrance.host.as_deref().unwrap_or("-"));
            finding(element, hindrance.reason(), hindrance.remedy())
        });
        let findings = refused.into_iter().chain(never).collect();
        Self { findings, conditional, notes: Vec::new() }
    }

    /// Makes notes of those conditions that are shown.
    fn noting(mut self, place: &str, shown: impl Fn(&Hindrance) -> bool) -> Self {
        let conditions = self.conditional.iter().filter(|hindrance| shown(hindrance));
        let note =
            |hindrance: &Hindrance| Note { place: place.to_owned(), text: hindrance.to_string() };
        self.notes.extend(conditions.map(note));
        self
    }
}

fn gate<'a>(cluster: &'a Value, proxy_config: &ProxyConfig<'a>) -> Option<RoleConfig> {
    let configuration = upstream_gate::configuration(cluster, proxy_config)?;
    RoleConfig::parse(configuration.to_string().as_bytes()).ok()
}

fn finding(element: Element, reason: String, fix: &str) -> Finding {
    Finding { element, rule: LintRule::CredentialNeverSent, reason, fix: fix.to_owned() }
}
