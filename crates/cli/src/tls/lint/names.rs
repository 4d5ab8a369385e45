//! Checks the server name of connections, and which names their certificates must have.

use serde_json::Value;

use super::super::document::{get, is_true, text};
use super::context::{ClusterContext, is_name};
use super::finding::{Finding, LintRule};
use super::hosts::{ClusterHost, Source, endpoint_names};
use super::socket::PerRequest;
use super::trust::Validation;

/// Where per-request names are configured.
const OPTIONS: &str = "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3\
                       .HttpProtocolOptions\"].upstream_http_protocol_options";

/// What one name matcher accepts.
enum Match<'a> {
    /// Certificates with this name.
    Exact(&'a str),
    /// Certificates with a name that ends with this suffix, which begins with a dot.
    Suffix(&'a str),
    /// Certificates with something other than a host name or an address.
    Other,
    /// An unbounded set, by this kind of matcher.
    Wide(&'static str),
}

/// Checks the names against the policy.
pub(super) fn check<'a>(
    cx: &ClusterContext<'a, '_>,
    context: &'a Value,
    place: &str,
    findings: &mut Vec<Finding>,
) {
    let per_request = PerRequest::new(cx.cluster);
    let mut found = sni(cx, context, &per_request, place);
    found.extend(header(cx, &per_request));
    let validation = Validation::new(context, cx.proxy_config);
    let automatic = per_request.san || is_true(context, "auto_sni_san_validation");
    // Without a verified chain, names do not matter; that is a finding of its own.
    if !automatic && validation.has_ca() {
        found.extend(san(cx, &validation, place));
    }
    findings.extend(found);
}

/// A request header that determines the verified name would let a caller choose it.
fn header(cx: &ClusterContext<'_, '_>, per_request: &PerRequest<'_>) -> Option<Finding> {
    let header = per_request.header?;
    let reason = format!(
        "the server name, and what the certificate must bear, come from the request header {header}"
    );
    let fix = "remove override_auto_sni_header from upstream_http_protocol_options";
    Some(cx.finding(LintRule::SniFromHeader, reason, fix))
}

fn sni(
    cx: &ClusterContext<'_, '_>,
    context: &Value,
    per_request: &PerRequest<'_>,
    place: &str,
) -> Vec<Finding> {
    let expected = cx.expected();
    // RFC 6066, section 3: addresses are not sent.
    if per_request.sni || !expected.iter().any(|named| is_name(named)) {
        return Vec::new();
    }
    let written = text(context, "sni");
    let of_endpoints = if is_true(context, "auto_host_sni") {
        endpoint_names(cx.cluster, cx.proxy_config)
    } else {
        Vec::new()
    };
    let sent = if of_endpoints.is_empty() { written.into_iter().collect() } else { of_endpoints };
    let fix = match expected.first().filter(|named| !named.is_pattern()) {
        Some(named) => format!("in {place} write sni: {}", name_to_write(named)),
        None => format!("write auto_sni: true in {OPTIONS}"),
    };
    if sent.is_empty() {
        let reason = "no server name is sent, so the upstream may show another host's certificate";
        return vec![cx.finding(LintRule::SniMissing, reason, fix)];
    }
    let is_wrong = |name: &&str| {
        let named = ClusterHost::new(name, Source::Sni);
        !named.is_some_and(|named| expected.iter().any(|expected| expected.is_or_holds(&named)))
    };
    let is_known = expected.iter().all(|named| named.source != Source::Nothing);
    let wrong = sent.into_iter().find(is_wrong).filter(|_| is_known);
    let finding = wrong.map(|name| {
        let reason = format!("the server name that is sent is {name}");
        cx.finding(LintRule::SniWrong, reason, fix)
    });
    finding.into_iter().collect()
}

fn san(cx: &ClusterContext<'_, '_>, validation: &Validation<'_>, place: &str) -> Vec<Finding> {
    let expected = cx.expected();
    let fix = san_fix(&expected, validation, place);
    let matchers = matchers(validation);
    if matchers.is_empty() {
        let reason = match validation.unseen {
            None => "the chain is verified, but any certificate of these authorities is accepted, \
                     whoever it is for"
                .to_owned(),
            Some(secret) => format!(
                "no match of names stands here, and the secret {secret} is not in this \
                 configuration; write it into default_validation_context"
            ),
        };
        return vec![cx.finding(LintRule::SanMatchMissing, reason, fix)];
    }
    let mut findings: Vec<Finding> = Vec::new();
    for matcher in matchers {
        let Some((rule, reason)) = defect(&matcher, &expected) else { continue };
        if !findings.iter().any(|earlier| earlier.rule == rule) {
            findings.push(cx.finding(rule, reason, fix.clone()));
        }
    }
    findings
}

/// The matchers in effect: the older list is used only if the newer one is empty.
fn matchers<'a>(validation: &Validation<'a>) -> Vec<Match<'a>> {
    let typed = validation.items("match_typed_subject_alt_names");
    let typed = Vec::from_iter(typed.map(|item| {
        let kind = get(item, "san_type");
        let is_host = match kind {
            Some(Value::String(word)) => matches!(word.as_str(), "DNS" | "IP_ADDRESS"),
            Some(number) => matches!(number.as_u64(), Some(2 | 4)),
            None => false,
        };
        let matcher = get(item, "matcher").filter(|_| is_host);
        matcher.map_or(Match::Other, Match::new)
    }));
    if typed.is_empty() {
        validation.items("match_subject_alt_names").map(Match::new).collect()
    } else {
        typed
    }
}

impl<'a> Match<'a> {
    /// Parses a `StringMatcher`.
    fn new(matcher: &'a Value) -> Self {
        if let Some(exact) = text(matcher, "exact") {
            return Self::Exact(exact);
        }
        match text(matcher, "suffix") {
            Some(suffix) if suffix.starts_with('.') => Self::Suffix(suffix),
            Some(_) => Self::Wide("a suffix that does not begin at a dot"),
            None if get(matcher, "prefix").is_some() => Self::Wide("a prefix"),
            None if get(matcher, "contains").is_some() => Self::Wide("contains"),
            None if get(matcher, "safe_regex").is_some() => Self::Wide("a regular expression"),
            None => Self::Wide("of an unknown kind"),
        }
    }
}

/// What is wrong with a matcher, if anything.
fn defect(matcher: &Match<'_>, expected: &[&ClusterHost]) -> Option<(LintRule, String)> {
    let name = match matcher {
        Match::Exact(name) => (*name).to_owned(),
        Match::Suffix(suffix) => format!("*{suffix}"),
        Match::Other => {
            let reason = "the match is for another type of name than DNS or IP_ADDRESS".to_owned();
            return Some((LintRule::SanMatchWrong, reason));
        }
        Match::Wide(kind) => {
            let reason = format!("the match of names is {kind}: it lets in other hosts");
            return Some((LintRule::SanMatchWide, reason));
        }
    };
    let is_exact = matches!(matcher, Match::Exact(_));
    // The cluster's hosts are unknown, so any name may be right.
    if expected.iter().any(|named| named.source == Source::Nothing) {
        return None;
    }
    let named = ClusterHost::new(&name, Source::Sni);
    let is_good = |expected: &&ClusterHost| {
        named.as_ref().is_some_and(|named| {
            expected.is_or_holds(named) || is_exact && is_its_wildcard(expected, &name)
        })
    };
    if expected.iter().any(is_good) {
        return None;
    }
    if is_exact {
        return Some((LintRule::SanMatchWrong, format!("the match of names is for {name}")));
    }
    Some((LintRule::SanMatchWide, format!("the match of names lets in every {name}")))
}

/// Whether a name is the wildcard at the level of a host, whose certificate is valid for the host too (RFC
/// 9525, section 6.3).
fn is_its_wildcard(named: &ClusterHost, name: &str) -> bool {
    let parent = named.name.split_once('.').map(|(_, parent)| parent);
    let suffix = name.strip_prefix("*.").map(str::to_ascii_lowercase);
    parent.zip(suffix).is_some_and(|(parent, suffix)| parent == suffix)
}

fn san_fix(expected: &[&ClusterHost], validation: &Validation<'_>, place: &str) -> String {
    let Some(named) = expected.first().filter(|named| !named.is_pattern()) else {
        return format!("write auto_sni: true and auto_san_validation: true in {OPTIONS}");
    };
    let kind = if is_name(named) { "DNS" } else { "IP_ADDRESS" };
    let name = name_to_write(named);
    let matcher = format!("{{san_type: {kind}, matcher: {{exact: \"{name}\"}}}}");
    validation.to_write(place, &format!("match_typed_subject_alt_names: [{matcher}]"))
}

/// The correct name.
fn name_to_write(named: &ClusterHost) -> &str {
    if named.source == Source::Nothing { "<the host>" } else { &named.name }
}
