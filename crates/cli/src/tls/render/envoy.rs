//! Renders Envoy clusters.

use std::net::IpAddr;

use vkey::json::Json;
use vkey::upstream_tls::{Stamp, TlsVersion, UpstreamPattern};

use super::super::error::TlsError;
use super::upstreams::{Anchors, Identity, Sds};
use super::{RenderPlan, Source, Yaml, credentials, tightening};

/// The system's trusted authorities in Envoy's images, which are based on Debian and Ubuntu.
const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The name of the gate's filter and root context.
const GATE: &str = "vkey.upstream_tls";

/// The extension that holds the gate.
pub(super) const PROTOCOL_OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// The member of a VM's configuration with environment variables.
const ENVIRONMENT: &str = "environment_variables";

/// The member of an `UpstreamTlsContext` for [`session_keys`].
pub(super) const SESSION_KEYS: &str = "max_session_keys";

/// The text after the heading.
const USE: &str = "\
Envoy reads this file, and every later version of it that is moved to its place, by\n\
  dynamic_resources: {cds_config: {path_config_source: {path: FILE}, resource_api_version: V3}}\n\
In static_resources.clusters the clusters stand without their @type. With sds, Envoy needs a node id\n\
and a node cluster.";

/// The file for Envoy's `cds_config`.
pub(super) fn document(source: &Source<'_>) -> Result<Yaml, TlsError> {
    let clusters: Result<Vec<_>, _> =
        source.plans.iter().map(|plan| cluster(source, plan)).collect();
    let document = Yaml::map([("resources", clusters?.into())]);
    let front = credentials::front(source, (ENVIRONMENT, environment(source)));
    Ok(document.noted(source.heading("envoy", &format!("{USE}{front}"))))
}

fn cluster(source: &Source<'_>, plan: &RenderPlan<'_>) -> Result<Yaml, TlsError> {
    let upstream = plan.upstream;
    let name: Yaml = upstream.name.as_str().into();
    let resolved = matches!(upstream.destination(), UpstreamPattern::Name(_));
    let family = resolved.then_some("V4_PREFERRED");
    let route =
        Yaml::map([("cluster", name.clone()), ("host_rewrite_literal", plan.authority().into())]);
    let route = format!("Routes: {}", route.flow().unwrap_or_default());
    let notes = [plan.notes(), route].join("\n");
    let options = Yaml::map([
        ("@type", message(PROTOCOL_OPTIONS)),
        ("explicit_http_config", http_config(plan)),
        ("http_filters", filters(source, plan, Some("vkey"))),
    ]);
    let cluster = Yaml::map([
        ("@type", message("envoy.config.cluster.v3.Cluster")),
        ("name", name.clone()),
        ("type", if resolved { "LOGICAL_DNS" } else { "STATIC" }.into()),
    ]);
    let cluster = cluster
        .and("dns_lookup_family", family)
        .and("connect_timeout", Some("5s"))
        .and("load_assignment", Some(endpoints(plan, name)))
        .and("transport_socket", Some(transport_socket(tls_context(plan)?)))
        .and("typed_extension_protocol_options", Some(Yaml::map([(PROTOCOL_OPTIONS, options)])))
        .and("metadata", Some(metadata(source, plan)));
    Ok(cluster.noted(notes.trim_start()))
}

fn endpoints(plan: &RenderPlan<'_>, name: Yaml) -> Yaml {
    let address = Yaml::map([
        ("address", bare(plan.upstream.destination()).into()),
        ("port_value", plan.upstream.port.into()),
    ]);
    let endpoint = Yaml::map([
        ("hostname", plan.upstream.host.to_string().into()),
        ("address", Yaml::map([("socket_address", address)])),
    ]);
    let endpoints =
        Yaml::map([("lb_endpoints", Yaml::list([Yaml::map([("endpoint", endpoint)])]))]);
    Yaml::map([("cluster_name", name), ("endpoints", Yaml::list([endpoints]))])
}

/// A name or an address, IPv6 without brackets.
pub(super) fn bare(host: &UpstreamPattern) -> String {
    match host {
        UpstreamPattern::Address(IpAddr::V6(v6)) => v6.to_string(),
        host => host.to_string(),
    }
}

/// The type of a message in a `google.protobuf.Any`.
pub(super) fn message(name: &str) -> Yaml {
    format!("type.googleapis.com/{name}").into()
}

pub(super) fn http_config(plan: &RenderPlan<'_>) -> Yaml {
    let protocol =
        if plan.upstream.http2 { "http2_protocol_options" } else { "http_protocol_options" };
    Yaml::map([(protocol, Yaml::Map(vec![]))])
}

pub(super) fn transport_socket(context: Yaml) -> Yaml {
    Yaml::map([("name", "envoy.transport_sockets.tls".into()), ("typed_config", context)])
}

pub(super) fn tls_context_type() -> Yaml {
    message("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext")
}

/// The whole `UpstreamTlsContext`.
pub(super) fn tls_context(plan: &RenderPlan<'_>) -> Result<Yaml, TlsError> {
    let anchors = plan.upstream.trust.as_ref().map_or(&Anchors::System, |trust| &trust.anchors);
    tls_context_trusting(plan, anchors)
}

/// The whole `UpstreamTlsContext`, with these authorities.
pub(super) fn tls_context_trusting(
    plan: &RenderPlan<'_>,
    anchors: &Anchors,
) -> Result<Yaml, TlsError> {
    let common = Yaml::map([("tls_params", tls_params(plan)), ("alpn_protocols", alpn(plan))]);
    let common = common_identity(plan, common)?;
    let (kind, validation) = validation(plan, anchors)?;
    let common = common.and(kind, Some(validation));
    Ok(Yaml::map([("@type", tls_context_type())])
        .and("sni", plan.upstream.host_name())
        .and("allow_renegotiation", Some(false))
        .and(SESSION_KEYS, session_keys(plan))
        .and("common_tls_context", Some(common)))
}

/// How many sessions are kept for resumption: none if certificates are pinned, because a resumed session
/// keeps the certificate of its first handshake (RFC 8446, section 2.2).
pub(super) fn session_keys(plan: &RenderPlan<'_>) -> Option<Yaml> {
    (!plan.pins.is_empty()).then_some(0.into())
}

pub(super) fn alpn(plan: &RenderPlan<'_>) -> Yaml {
    Yaml::list([if plan.upstream.http2 { "h2" } else { "http/1.1" }.into()])
}

pub(super) fn tls_params(plan: &RenderPlan<'_>) -> Yaml {
    let min = match plan.min_version {
        TlsVersion::Unknown | TlsVersion::V1_0 => "TLSv1_0",
        TlsVersion::V1_1 => "TLSv1_1",
        TlsVersion::V1_2 => "TLSv1_2",
        TlsVersion::V1_3 => "TLSv1_3",
    };
    Yaml::map([
        ("tls_minimum_protocol_version", min.into()),
        ("tls_maximum_protocol_version", "TLSv1_3".into()),
    ])
}

/// The proxy's certificate, with the name of its member.
pub(super) fn identity(plan: &RenderPlan<'_>) -> Result<Option<(&'static str, Yaml)>, TlsError> {
    let file = |path: &str| Yaml::map([("filename", path.into())]);
    Ok(match &plan.upstream.identity {
        None => None,
        Some(Identity::Files { certificate, key }) => {
            let files = [("certificate_chain", file(certificate)), ("private_key", file(key))];
            Some(("tls_certificates", Yaml::list([Yaml::map(files)])))
        }
        Some(Identity::Sds(sds)) => {
            let config = sds_config(plan, "client_certificate", sds)?;
            Some(("tls_certificate_sds_secret_configs", Yaml::list([config])))
        }
    })
}

fn common_identity(plan: &RenderPlan<'_>, common: Yaml) -> Result<Yaml, TlsError> {
    Ok(match identity(plan)? {
        Some((name, value)) => common.and(name, Some(value)),
        None => common,
    })
}

fn sds_config(plan: &RenderPlan<'_>, member: &str, sds: &Sds) -> Result<Yaml, TlsError> {
    let Some(path) = &sds.path else {
        let reason = "missing; name the file that holds the secret, as Envoy sees it";
        return Err(plan.refused(&format!("{member}.sds.path"), reason));
    };
    let source = Yaml::map([("path", path.as_str().into())]);
    let config = Yaml::map([("path_config_source", source), ("resource_api_version", "V3".into())]);
    Ok(Yaml::map([("name", sds.name.as_str().into()), ("sds_config", config)]))
}

/// The requirements for the upstream's certificate, with the name of their member.
fn validation(plan: &RenderPlan<'_>, anchors: &Anchors) -> Result<(&'static str, Yaml), TlsError> {
    const WHOLE: &str = "validation_context";
    if !plan.verifies() {
        let unverified = [("trust_chain_verification", "ACCEPT_UNTRUSTED".into())];
        return Ok((WHOLE, Yaml::map(unverified)));
    }
    let trusted = |path: &str| Some(Yaml::map([("filename", path.into())]));
    let own = Yaml::Map(vec![]);
    Ok(match anchors {
        Anchors::System => (WHOLE, checks(plan, own.and("trusted_ca", trusted(SYSTEM_BUNDLE)))),
        Anchors::File(file) => (WHOLE, checks(plan, own.and("trusted_ca", trusted(file)))),
        Anchors::Sds(sds) => {
            let combined = Yaml::map([
                ("default_validation_context", checks(plan, own)),
                ("validation_context_sds_secret_config", sds_config(plan, "trust", sds)?),
            ]);
            ("combined_validation_context", combined)
        }
    })
}

/// Adds everything but the authorities to a `CertificateValidationContext`.
fn checks(plan: &RenderPlan<'_>, context: Yaml) -> Yaml {
    let kind = if plan.upstream.host_name().is_some() { "DNS" } else { "IP_ADDRESS" };
    let name = Yaml::map([
        ("san_type", kind.into()),
        ("matcher", Yaml::map([("exact", bare(&plan.upstream.host).into())])),
    ]);
    let context = context
        .and("trust_chain_verification", Some("VERIFY_TRUST_CHAIN"))
        .and("match_typed_subject_alt_names", Some(Yaml::list([name])));
    context.and("verify_certificate_hash", pins(plan)).and("crl", crl(plan))
}

/// The pinned certificates, if any.
pub(super) fn pins(plan: &RenderPlan<'_>) -> Option<Yaml> {
    let pins = Vec::from_iter(plan.pins.iter().map(|pin| Yaml::from(*pin)));
    (!pins.is_empty()).then_some(pins.into())
}

/// The revocation lists.
pub(super) fn crl(plan: &RenderPlan<'_>) -> Option<Yaml> {
    let crl = plan.upstream.trust.as_ref().and_then(|trust| trust.crl.as_deref());
    crl.map(|path| Yaml::map([("filename", path.into())]))
}

/// The gate, and the filter that forwards the request to the connection.
pub(super) fn filters(source: &Source<'_>, plan: &RenderPlan<'_>, vm_id: Option<&str>) -> Yaml {
    let codec = Yaml::map([(
        "@type",
        message("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"),
    )]);
    Yaml::list([
        gate(source, plan, vm_id),
        Yaml::map([("name", "envoy.filters.http.upstream_codec".into()), ("typed_config", codec)]),
    ])
}

/// The environment variables that the module sees, if any.
fn environment(source: &Source<'_>) -> Option<Yaml> {
    let names = Vec::from_iter(source.environment.iter().map(|name| Yaml::from(*name)));
    (!names.is_empty()).then(|| Yaml::map([("host_env_keys", names.into())]))
}

fn gate(source: &Source<'_>, plan: &RenderPlan<'_>, vm_id: Option<&str>) -> Yaml {
    let local = Yaml::map([("filename", source.module.into())]);
    let vm = Yaml::Map(vec![])
        .and("vm_id", vm_id)
        .and("runtime", Some("envoy.wasm.runtime.v8"))
        .and("code", Some(Yaml::map([("local", local)])))
        .and(ENVIRONMENT, environment(source));
    let note = match vm_id {
        Some(_) => "The same as the filter's on the request path: one VM serves both.",
        None => "The same as a WasmPlugin's, which has no vm_id: one VM serves both.",
    };
    let configuration = Yaml::map([
        ("@type", message("google.protobuf.StringValue")),
        ("value", gate_configuration(source, plan).to_string().into()),
    ]);
    let config = Yaml::map([
        ("name", GATE.into()),
        ("failure_policy", "FAIL_RELOAD".into()),
        ("vm_config", vm.noted(note)),
        ("configuration", configuration),
    ]);
    let wasm = Yaml::map([
        ("@type", message("envoy.extensions.filters.http.wasm.v3.Wasm")),
        ("config", config),
    ]);
    let gate = Yaml::map([("name", GATE.into()), ("typed_config", wasm)]);
    gate.noted("The gate: no byte of a request leaves before the connection is judged.")
}

/// The gate's plugin configuration, including rules of the listener's configuration that tighten the policy.
fn gate_configuration(source: &Source<'_>, plan: &RenderPlan<'_>) -> Json {
    let tighten = Vec::from_iter(source.policy.tighten().iter().map(tightening));
    let role = ("role".to_owned(), Json::from("upstream_tls"));
    let upstream_tls = (!tighten.is_empty())
        .then(|| ("upstream_tls".to_owned(), Json::object([("tighten", Json::Array(tighten))])));
    let credentials = credentials::of_gate(plan);
    Json::Object([role].into_iter().chain(upstream_tls).chain(credentials).collect())
}

/// The cluster's metadata: the stamp.
pub(super) fn metadata(source: &Source<'_>, plan: &RenderPlan<'_>) -> Yaml {
    let own = Yaml::map([(Stamp::NAMESPACE, stamp(source, plan))]);
    Yaml::map([("filter_metadata", own)])
}

/// The stamp: the policy that the cluster was rendered from, and the cluster's hosts.
pub(super) fn stamp(source: &Source<'_>, plan: &RenderPlan<'_>) -> Yaml {
    let hosts: Yaml = plan.stamped_hosts().into();
    let hosts = if plan.verifies() { hosts } else { hosts.noted("None: nothing is verified.") };
    Yaml::map([(Stamp::POLICY, source.digest().into()), (Stamp::HOSTS, hosts)])
}
