//! Checks which authorities are trusted, and what is accepted without them.

use serde_json::Value;

use super::super::document::{at, get, is_choice, is_true, items, text};
use super::context::ClusterContext;
use super::finding::{Finding, LintRule};
use super::proxy_config::ProxyConfig;

/// Where validation is configured.
const CONTEXT: &str = "common_tls_context.validation_context";

/// Where it is configured together with a secret. Envoy takes only one of the two, or only a secret.
const COMBINED: &str = "common_tls_context.combined_validation_context.default_validation_context";

/// How a connection validates the upstream's certificate.
pub(super) struct Validation<'a> {
    /// Every `CertificateValidationContext` in effect; Envoy merges them.
    contexts: Vec<Part<'a>>,
    /// The name of a secret that is not in the configuration.
    pub(super) unseen: Option<&'a str>,
    /// Where more can be written, and what else that takes.
    home: (&'static str, &'static str),
}

/// One `CertificateValidationContext`.
struct Part<'a> {
    place: String,
    context: &'a Value,
}

impl<'a> Validation<'a> {
    /// Collects the validation of an `UpstreamTlsContext`.
    pub(super) fn new(context: &'a Value, proxy_config: &ProxyConfig<'a>) -> Self {
        let combined = ["common_tls_context", "combined_validation_context"];
        let combined = at(context, &combined);
        let common = get(context, "common_tls_context");
        let own = common.and_then(|common| get(common, "validation_context"));
        let default = combined.and_then(|both| get(both, "default_validation_context"));
        let sds = [common, combined].into_iter().flatten();
        let sds = sds.filter_map(|of| get(of, "validation_context_sds_secret_config")).next();
        let secret = sds.and_then(|config| proxy_config.secret(config));
        let seen = secret.and_then(|secret| get(secret, "validation_context"));
        let unseen = sds.filter(|_| seen.is_none());
        let unseen = unseen.map(|config| text(config, "name").unwrap_or("without a name"));
        let named = sds.and_then(|config| text(config, "name")).unwrap_or_default();
        let secret = format!("validation_context of the secret {named}");
        let places = [(CONTEXT.to_owned(), own), (COMBINED.to_owned(), default), (secret, seen)];
        let parts = places.into_iter();
        let parts = parts.filter_map(|(place, context)| Some(Part { place, context: context? }));
        let home = match (combined, sds) {
            (Some(_), _) => (COMBINED, ""),
            (None, Some(_)) => (
                COMBINED,
                ", and move validation_context_sds_secret_config into combined_validation_context",
            ),
            (None, None) => (CONTEXT, ""),
        };
        Self { contexts: parts.collect(), unseen, home }
    }

    /// The advice to write something where Envoy reads it.
    pub(super) fn to_write(&self, place: &str, what: &str) -> String {
        let (home, more) = self.home;
        format!("in {place} write {home}.{what}{more}")
    }

    /// The location of the first context that satisfies a condition.
    fn place(&self, has: impl Fn(&Value) -> bool) -> Option<&str> {
        self.contexts.iter().find(|part| has(part.context)).map(|part| part.place.as_str())
    }

    /// Whether one of the contexts satisfies a condition.
    pub(super) fn any(&self, has: impl Fn(&Value) -> bool) -> bool {
        self.contexts.iter().any(|part| has(part.context))
    }

    /// The items of a list in all contexts.
    pub(super) fn items(&self, name: &'a str) -> impl Iterator<Item = &'a Value> {
        self.contexts.iter().flat_map(move |part| items(part.context, name))
    }

    /// Whether a chain is verified. `system_root_certs` and certificate providers are in the API, but Envoy
    /// does not implement them: with these alone it verifies nothing.
    pub(super) fn has_ca(&self) -> bool {
        let has_ca = |context: &Value| get(context, "trusted_ca").is_some_and(holds_data);
        self.unseen.is_some() || self.any(has_ca)
    }
}

/// Checks the trusted authorities against the policy.
pub(super) fn check<'a>(
    cx: &ClusterContext<'a, '_>,
    context: &'a Value,
    place: &str,
    findings: &mut Vec<Finding>,
) {
    let validation = Validation::new(context, cx.proxy_config);
    findings.extend(missing_ca(cx, &validation, place));
    findings.extend(accepted(cx, &validation, place));
    findings.extend(renegotiation(cx, context, place));
    findings.extend(pins(cx, &validation, place));
    findings.extend(resumption(cx, context, place));
    findings.extend(client_certificate(cx, context, place));
}

fn missing_ca(
    cx: &ClusterContext<'_, '_>,
    validation: &Validation<'_>,
    place: &str,
) -> Option<Finding> {
    if validation.has_ca() {
        return None;
    }
    let pinned = |context: &Value| {
        let lists = ["verify_certificate_hash", "verify_certificate_spki"];
        lists.iter().any(|list| !items(context, list).is_empty())
    };
    let reason = if validation.any(|context| get(context, "system_root_certs").is_some()) {
        "Envoy does not implement system_root_certs, so no chain is verified"
    } else if validation.any(pinned) {
        "certificates are pinned, but no authority is trusted, so no chain is verified"
    } else {
        "no authority is trusted, so every certificate is accepted"
    };
    let what = "trusted_ca: {filename: /etc/ssl/certs/ca-certificates.crt}, or the authorities of your \
                own, and match_typed_subject_alt_names";
    let fix = validation.to_write(place, what);
    Some(cx.finding(LintRule::CaMissing, reason, fix))
}

/// Options that make Envoy accept invalid certificates.
fn accepted(cx: &ClusterContext<'_, '_>, validation: &Validation<'_>, place: &str) -> Vec<Finding> {
    let untrusted =
        |context: &Value| is_choice(context, "trust_chain_verification", "ACCEPT_UNTRUSTED", 1);
    let defects = [
        (
            validation.place(untrusted),
            LintRule::AcceptUntrusted,
            "trust_chain_verification is ACCEPT_UNTRUSTED: what fails verification is accepted",
            "trust_chain_verification",
        ),
        (
            validation.place(|context| is_true(context, "allow_expired_certificate")),
            LintRule::ExpiredAccepted,
            "allow_expired_certificate is true: a certificate is good for ever",
            "allow_expired_certificate",
        ),
        (
            validation.place(|context| get(context, "custom_validator_config").is_some()),
            LintRule::CustomValidator,
            "custom_validator_config takes the place of all other verification, and what it verifies \
             is not known here",
            "custom_validator_config",
        ),
    ];
    let finding = |(from, rule, reason, member): (Option<&str>, _, &str, _)| {
        Some(cx.finding(rule, reason, format!("in {place} remove {member} from {}", from?)))
    };
    defects.into_iter().filter_map(finding).collect()
}

fn renegotiation(cx: &ClusterContext<'_, '_>, context: &Value, place: &str) -> Option<Finding> {
    is_true(context, "allow_renegotiation").then(|| {
        let reason = "allow_renegotiation is true: the upstream may change what was agreed on";
        cx.finding(
            LintRule::Renegotiation,
            reason,
            format!("in {place} remove allow_renegotiation"),
        )
    })
}

fn pins(cx: &ClusterContext<'_, '_>, validation: &Validation<'_>, place: &str) -> Vec<Finding> {
    let hashes = validation.items("verify_certificate_hash").filter_map(Value::as_str);
    let hashes = Vec::from_iter(hashes.map(|hash| hash.replace(':', "").to_ascii_lowercase()));
    let keys = validation.items("verify_certificate_spki").next().is_some();
    let mut findings: Vec<Finding> = Vec::new();
    for (named, asked) in &cx.asked {
        for pins in &asked.pins {
            let (rule, reason) = if hashes.is_empty() {
                (LintRule::PinsMissing, "the policy pins the certificate, and nothing here does")
            } else if keys {
                let reason = "verify_certificate_spki lets certificates in that are not pinned: one \
                              match of either list is enough";
                (LintRule::PinsWrong, reason)
            } else if hashes.iter().all(|hash| pins.contains(hash)) {
                continue;
            } else {
                (LintRule::PinsWrong, "verify_certificate_hash has what the policy does not pin")
            };
            let what = format!(
                "verify_certificate_hash: [\"{}\"] and no verify_certificate_spki",
                pins.join("\", \"")
            );
            let fix = validation.to_write(place, &what);
            // One finding stands for all hosts with the same defect.
            if !findings.iter().any(|earlier| earlier.rule == rule && earlier.fix == fix) {
                findings.push(cx.finding_for(named, rule, reason.to_owned(), fix));
            }
        }
    }
    findings
}

/// A resumed session keeps the certificate of its first handshake, whatever the pin is now.
fn resumption(cx: &ClusterContext<'_, '_>, context: &Value, place: &str) -> Option<Finding> {
    let (named, _) = cx.asked.iter().find(|(_, asked)| !asked.pins.is_empty())?;
    let kept = get(context, "max_session_keys").and_then(Value::as_u64);
    (kept != Some(0)).then(|| {
        let reason = "the policy pins the certificate, and a session that is resumed goes by the one \
                      of its first handshake";
        let fix = format!("in {place} write max_session_keys: 0");
        cx.finding_for(named, LintRule::SessionsResumed, reason.to_owned(), fix)
    })
}

fn client_certificate(
    cx: &ClusterContext<'_, '_>,
    context: &Value,
    place: &str,
) -> Option<Finding> {
    let (named, _) = cx.asked.iter().find(|(_, asked)| asked.client_certificate)?;
    let common = get(context, "common_tls_context");
    let has = |common: &Value| {
        let lists = ["tls_certificates", "tls_certificate_sds_secret_configs"];
        lists.iter().any(|list| items(common, list).iter().any(|item| !is_empty(item)))
            || get(common, "custom_tls_certificate_selector").is_some()
    };
    (!common.is_some_and(has)).then(|| {
        let reason = "the policy asks for a client certificate, and the connection has none";
        let fix = format!(
            "in {place} write common_tls_context.tls_certificates with certificate_chain and \
             private_key, or tls_certificate_sds_secret_configs"
        );
        cx.finding_for(named, LintRule::ClientCertificateMissing, reason.to_owned(), fix)
    })
}

/// Whether a `DataSource` has data.
fn holds_data(source: &Value) -> bool {
    let kinds = ["filename", "inline_bytes", "inline_string", "environment_variable"];
    kinds.iter().any(|kind| text(source, kind).is_some())
}

fn is_empty(item: &Value) -> bool {
    item.as_object().is_none_or(serde_json::Map::is_empty)
}
