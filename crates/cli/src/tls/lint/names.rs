//! Which name a connection asks for, and which a certificate must bear.

use serde_json::Value;

use super::super::document::{get, is_true, text};
use super::context::{Case, is_name};
use super::finding::{Finding, Rule};
use super::hosts::{Named, Source, endpoint_names};
use super::socket::PerRequest;
use super::trust::Validation;

/// Where names are set up that follow each request.
const OPTIONS: &str = "typed_extension_protocol_options[\"envoy.extensions.upstreams.http.v3\
                       .HttpProtocolOptions\"].upstream_http_protocol_options";

/// What one matcher of names lets in.
enum Match<'a> {
    /// Certificates that bear this name.
    Exact(&'a str),
    /// Certificates that bear a name that ends so, from a dot on.
    Suffix(&'a str),
    /// Certificates that bear something else than a name or an address.
    Other,
    /// More than can be said, by the kind of matcher.
    Wide(&'static str),
}

/// Holds the names against the policy.
pub(super) fn judge<'a>(
    case: &Case<'a, '_>,
    context: &'a Value,
    place: &str,
    findings: &mut Vec<Finding>,
) {
    let per_request = PerRequest::new(case.cluster);
    let mut found = sni(case, context, &per_request, place);
    found.extend(header(case, &per_request));
    let validation = Validation::new(context, case.scene);
    let automatic = per_request.san || is_true(context, "auto_sni_san_validation");
    // Without a chain there is nothing to match: that is another finding.
    if !automatic && validation.has_ca() {
        found.extend(san(case, &validation, place));
    }
    findings.extend(found);
}

/// A request header that names what is verified would let a caller choose.
fn header(case: &Case<'_, '_>, per_request: &PerRequest<'_>) -> Option<Finding> {
    let header = per_request.header?;
    let reason = format!(
        "the server name, and what the certificate must bear, come from the request header {header}"
    );
    let fix = "remove override_auto_sni_header from upstream_http_protocol_options";
    Some(case.finding(Rule::SniFromHeader, reason, fix))
}

fn sni(
    case: &Case<'_, '_>,
    context: &Value,
    per_request: &PerRequest<'_>,
    place: &str,
) -> Vec<Finding> {
    let expected = case.expected();
    // RFC 6066, section 3: addresses are not sent.
    if per_request.sni || !expected.iter().any(|named| is_name(named)) {
        return Vec::new();
    }
    let written = text(context, "sni");
    let of_endpoints = if is_true(context, "auto_host_sni") {
        endpoint_names(case.cluster, case.scene)
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
        return vec![case.finding(Rule::SniMissing, reason, fix)];
    }
    let is_wrong = |name: &&str| {
        let named = Named::new(name, Source::Sni);
        !named.is_some_and(|named| expected.iter().any(|expected| expected.is_or_holds(&named)))
    };
    let is_known = expected.iter().all(|named| named.source != Source::Nothing);
    let wrong = sent.into_iter().find(is_wrong).filter(|_| is_known);
    let finding = wrong.map(|name| {
        let reason = format!("the server name that is sent is {name}");
        case.finding(Rule::SniWrong, reason, fix)
    });
    finding.into_iter().collect()
}

fn san(case: &Case<'_, '_>, validation: &Validation<'_>, place: &str) -> Vec<Finding> {
    let expected = case.expected();
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
        return vec![case.finding(Rule::SanMatchMissing, reason, fix)];
    }
    let mut findings: Vec<Finding> = Vec::new();
    for matcher in matchers {
        let Some((rule, reason)) = defect(&matcher, &expected) else { continue };
        if !findings.iter().any(|earlier| earlier.rule == rule) {
            findings.push(case.finding(rule, reason, fix.clone()));
        }
    }
    findings
}

/// The matchers that count: the older list only where the newer one is empty.
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
    /// Reads a `StringMatcher`.
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

/// What is wrong with a matcher, if anything is.
fn defect(matcher: &Match<'_>, expected: &[&Named]) -> Option<(Rule, String)> {
    let name = match matcher {
        Match::Exact(name) => (*name).to_owned(),
        Match::Suffix(suffix) => format!("*{suffix}"),
        Match::Other => {
            let reason = "the match is for another type of name than DNS or IP_ADDRESS".to_owned();
            return Some((Rule::SanMatchWrong, reason));
        }
        Match::Wide(kind) => {
            let reason = format!("the match of names is {kind}: it lets in other hosts");
            return Some((Rule::SanMatchWide, reason));
        }
    };
    let is_exact = matches!(matcher, Match::Exact(_));
    // What a cluster is for is not known, so nothing is said about whose name it has to be.
    if expected.iter().any(|named| named.source == Source::Nothing) {
        return None;
    }
    let named = Named::new(&name, Source::Sni);
    let is_good = |expected: &&Named| {
        named.as_ref().is_some_and(|named| {
            expected.is_or_holds(named) || is_exact && is_its_wildcard(expected, &name)
        })
    };
    if expected.iter().any(is_good) {
        return None;
    }
    if is_exact {
        return Some((Rule::SanMatchWrong, format!("the match of names is for {name}")));
    }
    Some((Rule::SanMatchWide, format!("the match of names lets in every {name}")))
}

/// Whether a name is that of a certificate for all names beside a host, which is good for the host too
/// (RFC 9525, section 6.3).
fn is_its_wildcard(named: &Named, name: &str) -> bool {
    let parent = named.name.split_once('.').map(|(_, parent)| parent);
    let suffix = name.strip_prefix("*.").map(str::to_ascii_lowercase);
    parent.zip(suffix).is_some_and(|(parent, suffix)| parent == suffix)
}

fn san_fix(expected: &[&Named], validation: &Validation<'_>, place: &str) -> String {
    let Some(named) = expected.first().filter(|named| !named.is_pattern()) else {
        return format!("write auto_sni: true and auto_san_validation: true in {OPTIONS}");
    };
    let kind = if is_name(named) { "DNS" } else { "IP_ADDRESS" };
    let name = name_to_write(named);
    let matcher = format!("{{san_type: {kind}, matcher: {{exact: \"{name}\"}}}}");
    validation.to_write(place, &format!("match_typed_subject_alt_names: [{matcher}]"))
}

/// The name that would be right.
fn name_to_write(named: &Named) -> &str {
    if named.source == Source::Nothing { "<the host>" } else { &named.name }
}
