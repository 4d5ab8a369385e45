//! Checks one cluster against the policy.

use serde_json::Value;

use vkey::upstream_tls::{Demand, EffectivePolicy, Skip, TlsVersion};

use super::super::document::{get, is_choice, text, typed};
use super::super::show::{rule_for, skip_text};
use super::context::ClusterContext;
use super::finding::{Element, Finding, LintRule, Note};
use super::graph::parts;
use super::hosts::{ClusterHost, CoveredHost, hosts, subjects};
use super::proxy_config::ProxyConfig;
use super::socket::{Branch, Channel, branches, http_options};
use super::socket_match::DefaultSocket;
use super::{names, no_endpoints, trust, upstream_gate};

/// How the names of Istio's clusters from a sidecar to its own workload begin: their requests do not leave the
/// machine.
const INBOUND: [&str; 2] = ["InboundPassthroughCluster", "inbound|"];

/// The member of a cluster that makes it speak HTTP/2.
const HTTP2: &str = "http2_protocol_options";

/// The results for one cluster.
#[derive(Default)]
pub(super) struct ClusterReport {
    /// The findings.
    pub(super) findings: Vec<Finding>,
    /// The notes.
    pub(super) notes: Vec<Note>,
    /// Whether the policy covers the cluster.
    pub(super) is_judged: bool,
    /// How many names were checked.
    pub(super) names: usize,
}

/// Checks a cluster against the policy.
pub(super) fn check<'a>(
    cluster: &'a Value,
    proxy_config: &ProxyConfig<'a>,
    policy: &EffectivePolicy,
    now_secs: u64,
) -> ClusterReport {
    let name = text(cluster, "name").unwrap_or_default();
    // It makes no connections itself; its parts are checked.
    if !parts(cluster).is_empty() {
        return ClusterReport::default();
    }
    let hosts = hosts(cluster, proxy_config);
    let mut judged = ClusterReport { names: hosts.len(), ..ClusterReport::default() };
    let host = hosts.first().map_or(Element::UNKNOWN_HOST, |host| &host.name);
    judged.findings.extend(no_endpoints::finding(cluster, host, proxy_config));
    judged.notes.extend(unseen_note(cluster, proxy_config));
    let subjects = subjects(hosts, policy, now_secs);
    judged.is_judged = !subjects.is_empty();
    judged.notes.extend(open_note(cluster, proxy_config));
    judged.notes.extend(http2_note(cluster));
    let mut asked = Vec::new();
    for CoveredHost { named, demand } in subjects {
        match demand {
            Demand::Skip(skip) => judged.note_skip(name, &named, skip, now_secs),
            Demand::Unlisted => {}
            Demand::Verify(requirement) => {
                judged.find_expired(name, &named, policy, now_secs);
                asked.push((named, requirement));
            }
        }
    }
    if !asked.is_empty() {
        let digest = policy.file().digest();
        ClusterContext { cluster, proxy_config, digest, asked }.check(&mut judged.findings);
    }
    judged
}

impl ClusterReport {
    fn note_skip(&mut self, cluster: &str, named: &ClusterHost, skip: &Skip, now_secs: u64) {
        let text = format!("{}: {}", named.name, skip_text(skip, now_secs));
        let note = Note { place: cluster.to_owned(), text };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// An exception that has expired, but is still in the policy.
    fn find_expired(
        &mut self,
        cluster: &str,
        named: &ClusterHost,
        policy: &EffectivePolicy,
        now_secs: u64,
    ) {
        let skip = rule_for(policy.file(), &named.host).and_then(|rule| rule.skip.as_ref());
        let Some(skip) = skip.filter(|skip| !skip.is_in_force(now_secs)) else {
            return;
        };
        let finding = Finding {
            element: Element::Cluster { name: cluster.to_owned(), host: named.name.clone() },
            rule: LintRule::SkipExpired,
            reason: skip_text(skip, now_secs),
            fix:
                "let the upstream be verified and remove insecure_skip_verify from the policy, or \
                  agree on a later day with its owner"
                    .to_owned(),
        };
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }
}

impl<'a> ClusterContext<'a, '_> {
    fn check(&self, findings: &mut Vec<Finding>) {
        upstream_gate::check(self, findings);
        if let Some(finding) = self.obsolete() {
            return findings.push(finding);
        }
        let default = DefaultSocket::of(self.cluster, self.proxy_config);
        let is_used = |branch: &Branch<'_>| !branch.is_default || default == DefaultSocket::Used;
        for branch in branches(self.cluster).into_iter().filter(is_used) {
            let mut found = Vec::new();
            self.check_branch(&branch, &mut found);
            for finding in found {
                if !findings.contains(&finding) {
                    findings.push(finding);
                }
            }
        }
    }

    fn check_branch(&self, branch: &Branch<'a>, findings: &mut Vec<Finding>) {
        let place = &branch.place;
        let tls = |place: &str| {
            format!("in {place} write envoy.transport_sockets.tls with an UpstreamTlsContext")
        };
        match branch.channel {
            Channel::Plain(why) => {
                let reason = format!("requests leave without TLS: {why}, in {place}");
                findings.push(self.finding(LintRule::Plaintext, reason, tls(place)));
            }
            Channel::Unknown(kind) => {
                let reason = format!("nothing is known of the transport socket {kind} in {place}");
                findings.push(self.finding(LintRule::TransportSocketUnknown, reason, tls(place)));
            }
            Channel::Quic(context) => {
                self.check_context(context, place, findings);
            }
            Channel::Tls(context) => {
                findings.extend(self.low_version(context, place));
                findings.extend(self.capped_version(context, place));
                self.check_context(context, place, findings);
            }
        }
    }

    fn check_context(&self, context: &'a Value, place: &str, findings: &mut Vec<Finding>) {
        trust::check(self, context, place, findings);
        names::check(self, context, place, findings);
    }

    /// TLS as in version 2 of the API. Envoy ignores it, so the connection is plaintext.
    fn obsolete(&self) -> Option<Finding> {
        let is_obsolete = get(self.cluster, "tls_context").is_some()
            && get(self.cluster, "transport_socket").is_none();
        let reason =
            "tls_context is no longer part of Envoy's API, and there is no transport_socket";
        let fix = "move what is in tls_context to transport_socket.typed_config, with the @type \
                   type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
        is_obsolete.then(|| self.finding(LintRule::TlsContextObsolete, reason, fix))
    }

    /// The highest version that a host requires, and the host.
    fn min_version(&self) -> Option<(&ClusterHost, TlsVersion)> {
        let versions = self.asked.iter().map(|(named, asked)| (named, asked.min_version));
        versions.max_by_key(|(_, version)| *version)
    }

    fn low_version(&self, context: &Value, place: &str) -> Option<Finding> {
        let (named, wanted) = self.min_version()?;
        let lowest = version(context, "tls_minimum_protocol_version");
        (lowest < wanted).then(|| {
            let reason = format!("{lowest} is allowed; the policy asks for {wanted} or later");
            let fix = format!(
                "in {place} write common_tls_context.tls_params.tls_minimum_protocol_version: {}",
                spelled(wanted)
            );
            self.finding_for(named, LintRule::VersionLow, reason, fix)
        })
    }

    fn capped_version(&self, context: &Value, place: &str) -> Option<Finding> {
        let (named, wanted) = self.min_version()?;
        let highest = version(context, "tls_maximum_protocol_version");
        (highest < wanted).then(|| {
            let reason = format!(
                "no connection can satisfy the policy, which asks for {wanted}: the highest version \
                 is {highest} (Envoy's default for clients is TLSv1.2)"
            );
            let fix = format!(
                "in {place} write common_tls_context.tls_params.tls_maximum_protocol_version: {}",
                spelled(TlsVersion::V1_3)
            );
            self.finding_for(named, LintRule::VersionCapped, reason, fix)
        })
    }
}

/// A cluster that connects to a host of each request. The configuration does not say which hosts.
fn open_note<'a>(cluster: &'a Value, proxy_config: &ProxyConfig<'a>) -> Option<Note> {
    let name = text(cluster, "name").unwrap_or_default();
    let kind = get(cluster, "cluster_type").and_then(|kind| get(kind, "typed_config"));
    let kind = kind.map_or("", |config| typed(config).0);
    let is_inbound = INBOUND.iter().any(|start| name.starts_with(start));
    let to_original = is_choice(cluster, "type", "ORIGINAL_DST", 4) && !is_inbound;
    let is_open = to_original || kind.contains(".dynamic_forward_proxy.");
    let defect =
        upstream_gate::defects(cluster, proxy_config).into_iter().next().filter(|_| is_open)?;
    let text = format!(
        "it connects to whatever host a request names; only the gate can judge that, and {}",
        defect.in_short()
    );
    Some(Note { place: name.to_owned(), text })
}

/// A cluster whose endpoints are not in the input.
fn unseen_note<'a>(cluster: &'a Value, proxy_config: &ProxyConfig<'a>) -> Option<Note> {
    if !proxy_config.lacks_endpoints(cluster) {
        return None;
    }
    let mut said =
        "its endpoints are not in the input: which hosts they name is not known".to_owned();
    let has_default = branches(cluster).iter().any(|branch| branch.is_default);
    if has_default && DefaultSocket::of(cluster, proxy_config) == DefaultSocket::Unknown {
        said += ", nor whether one uses the default transport_socket, which is not checked";
    }
    Some(Note { place: text(cluster, "name").unwrap_or_default().to_owned(), text: said })
}

/// HTTP/2 as in the cluster's own options, which Envoy ignores beside `HttpProtocolOptions`.
fn http2_note(cluster: &Value) -> Option<Note> {
    let explicit = get(http_options(cluster)?, "explicit_http_config")?;
    let is_ignored =
        get(cluster, HTTP2).is_some() && get(explicit, "http_protocol_options").is_some();
    is_ignored.then(|| Note {
        place: text(cluster, "name").unwrap_or_default().to_owned(),
        text: format!(
            "Envoy ignores its {HTTP2} beside HttpProtocolOptions, so it speaks HTTP/1.1; move them to \
             explicit_http_config"
        ),
    })
}

/// A version in `tls_params`. Envoy's client default for both bounds is TLS 1.2.
fn version(context: &Value, name: &str) -> TlsVersion {
    let params = get(context, "common_tls_context").and_then(|common| get(common, "tls_params"));
    match params.and_then(|params| get(params, name)) {
        None => TlsVersion::V1_2,
        Some(Value::Number(number)) => number.as_u64().map_or(TlsVersion::Unknown, numbered),
        Some(Value::String(text)) if text == "TLS_AUTO" => TlsVersion::V1_2,
        Some(Value::String(text)) => TlsVersion::parse(&text.replace('_', ".")),
        Some(_) => TlsVersion::Unknown,
    }
}

/// A version by its number in Envoy's API.
fn numbered(number: u64) -> TlsVersion {
    match number {
        0 | 3 => TlsVersion::V1_2,
        1 => TlsVersion::V1_0,
        2 => TlsVersion::V1_1,
        4 => TlsVersion::V1_3,
        _ => TlsVersion::Unknown,
    }
}

/// A version in the spelling of Envoy's API.
fn spelled(version: TlsVersion) -> String {
    version.as_str().replace('.', "_")
}
