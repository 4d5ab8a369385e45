//! Renders Istio objects, for a gateway that originates TLS.

use vkey::json::Json;
use vkey::upstream_tls::UpstreamPattern;

use super::super::error::TlsError;
use super::envoy::{
    PROTOCOL_OPTIONS, SESSION_KEYS, alpn, bare, filters, http_config, message, metadata, pins,
    session_keys, tls_context_type, tls_params, transport_socket,
};
use super::upstreams::{Anchors, Fetch, Identity, Sds};
use super::{RenderPlan, Source, Yaml, credentials};

const NETWORKING: &str = "networking.istio.io/v1";

/// The text after the heading.
const USE: &str = "\
The gate is a file in the container of the gateway's proxy (wasm.file): mount it there, the same\n\
module that the WasmPlugin fetches. The EnvoyFilter of deploy/istio/wasmplugin.yaml stays necessary:\n\
it holds the seal, and the gate of all other clusters, which has to see the same variables.";

/// The comment on the patches.
const PATCHES: &str = "\
What a DestinationRule cannot say: the lowest version, pins, the gate, the stamp. Istio merges a\n\
patch that has a transport socket into nothing else, so there are two for each cluster. The second\n\
replaces the protocol options of the cluster as a whole, a connection pool's of a DestinationRule\n\
too.";

/// All objects.
pub(super) fn documents(source: &Source<'_>) -> Result<Vec<Yaml>, TlsError> {
    let mut documents = Vec::new();
    for plan in &source.plans {
        refuse_second_of_host(source, plan)?;
        documents.push(service_entry(source, plan)?.noted(plan.notes()));
        documents.push(destination_rule(source, plan)?);
    }
    documents.push(virtual_service(source));
    documents.push(envoy_filter(source)?);
    documents.extend(wasm_plugin(source));
    if let Some(first) = documents.first_mut() {
        let front = credentials::front(source, ("vmConfig", environment(source)));
        *first = first.clone().noted(source.heading("istio", &format!("{USE}{front}")));
    }
    Ok(documents)
}

/// Istio identifies a cluster by its host and port.
fn refuse_second_of_host(source: &Source<'_>, plan: &RenderPlan<'_>) -> Result<(), TlsError> {
    let same = |earlier: &RenderPlan<'_>| earlier.upstream.host == plan.upstream.host;
    if source.plans.iter().take(plan.index).any(same) {
        let reason = "an earlier upstream has this host already, and Istio tells them apart by it; \
                      leave one out";
        return Err(plan.refused("host", reason));
    }
    Ok(())
}

/// The name of a host.
fn host<'a>(plan: &RenderPlan<'a>) -> Result<&'a str, TlsError> {
    plan.upstream.host_name().ok_or_else(|| {
        plan.refused(
            "host",
            "Istio takes only names here; give the name, and the address in address",
        )
    })
}

fn namespace<'a>(source: &Source<'a>) -> &'a str {
    source.list.kubernetes.namespace.as_deref().unwrap_or("istio-system")
}

fn object(source: &Source<'_>, version: &str, kind: &str, name: &str, spec: Yaml) -> Yaml {
    let metadata = [("name", name.into()), ("namespace", namespace(source).into())];
    Yaml::map([
        ("apiVersion", version.into()),
        ("kind", kind.into()),
        ("metadata", Yaml::map(metadata)),
        ("spec", spec),
    ])
}

/// The labels of the gateway's pods.
fn workload(source: &Source<'_>) -> Yaml {
    let label = source.list.kubernetes.workload.as_deref().unwrap_or("ingressgateway");
    Yaml::map([("istio", label.into())])
}

fn service_entry(source: &Source<'_>, plan: &RenderPlan<'_>) -> Result<Yaml, TlsError> {
    let upstream = plan.upstream;
    let port = Yaml::map([
        ("number", upstream.port.into()),
        ("name", "https".into()),
        ("protocol", "HTTPS".into()),
    ]);
    let fixed = matches!(upstream.destination(), UpstreamPattern::Address(_));
    let endpoint = |address| Yaml::list([Yaml::map([("address", bare(address).into())])]);
    let spec = Yaml::map([
        ("hosts", Yaml::list([host(plan)?.into()])),
        ("exportTo", Yaml::list([".".into()])),
        ("location", "MESH_EXTERNAL".into()),
        ("resolution", if fixed { "STATIC" } else { "DNS" }.into()),
        ("ports", Yaml::list([port])),
    ]);
    let spec = spec.and("endpoints", upstream.address.as_ref().map(endpoint));
    Ok(object(source, NETWORKING, "ServiceEntry", &object_name(plan), spec))
}

fn object_name(plan: &RenderPlan<'_>) -> String {
    format!("vkey-{}", plan.upstream.name)
}

fn destination_rule(source: &Source<'_>, plan: &RenderPlan<'_>) -> Result<Yaml, TlsError> {
    let spec = Yaml::map([
        ("host", host(plan)?.into()),
        ("exportTo", Yaml::list([".".into()])),
        ("trafficPolicy", Yaml::map([("tls", tls(plan)?)])),
    ]);
    Ok(object(source, NETWORKING, "DestinationRule", &object_name(plan), spec))
}

/// The `ClientTLSSettings`.
fn tls(plan: &RenderPlan<'_>) -> Result<Yaml, TlsError> {
    let mode = if plan.upstream.identity.is_some() { "MUTUAL" } else { "SIMPLE" };
    let tls = Yaml::map([("mode", mode.into()), ("sni", host(plan)?.into())]);
    let tls = credentials(plan, tls)?;
    if !plan.verifies() {
        return Ok(tls.and("insecureSkipVerify", Some(true)));
    }
    let names = Yaml::list([host(plan)?.into()]);
    let crl = plan.upstream.trust.as_ref().and_then(|trust| trust.crl.as_deref());
    Ok(tls.and("subjectAltNames", Some(names)).and("caCrl", crl))
}

/// Adds the authorities and the proxy's certificate. Istio takes both from files, or both from one secret.
fn credentials(plan: &RenderPlan<'_>, tls: Yaml) -> Result<Yaml, TlsError> {
    let trust = plan.upstream.trust.as_ref().map(|trust| &trust.anchors);
    let authorities = match trust {
        None if plan.verifies() => Some("system"),
        None => None,
        Some(Anchors::System) => Some("system"),
        Some(Anchors::File(file)) => Some(file.as_str()),
        Some(Anchors::Sds(secret)) => return credential_name(plan, tls, secret),
    };
    match &plan.upstream.identity {
        None => Ok(tls.and("caCertificates", authorities)),
        Some(Identity::Files { certificate, key }) => Ok(tls
            .and("clientCertificate", Some(certificate.as_str()))
            .and("privateKey", Some(key.as_str()))
            .and("caCertificates", authorities)),
        Some(Identity::Sds(_)) => {
            let reason = "Istio takes the authorities from the secret of client_certificate; write \
                          the same sds here";
            Err(plan.refused("trust", reason))
        }
    }
}

fn credential_name(plan: &RenderPlan<'_>, tls: Yaml, secret: &Sds) -> Result<Yaml, TlsError> {
    let one = match &plan.upstream.identity {
        None => true,
        Some(Identity::Sds(own)) => own.name == secret.name,
        Some(Identity::Files { .. }) => false,
    };
    if one {
        return Ok(tls.and("credentialName", Some(secret.name.as_str())));
    }
    let reason = "Istio takes the certificate from the secret of trust; write the same sds here";
    Err(plan.refused("client_certificate", reason))
}

fn virtual_service(source: &Source<'_>) -> Yaml {
    let gateway = source.list.kubernetes.gateway.as_deref().unwrap_or("vkey");
    let routes = Vec::from_iter(source.plans.iter().map(route));
    let spec = Yaml::map([
        ("hosts", Yaml::list(["*".into()])),
        ("gateways", Yaml::list([gateway.into()])),
        ("http", routes.into()),
    ]);
    object(source, NETWORKING, "VirtualService", "vkey-upstreams", spec).noted(
        "Which requests go where is yours to say. The authority has to be that of the upstream: the \
         gate\njudges by it.",
    )
}

fn route(plan: &RenderPlan<'_>) -> Yaml {
    let upstream = plan.upstream;
    let prefix = Yaml::map([("prefix", format!("/{}/", upstream.name).into())]);
    let destination = Yaml::map([
        ("host", upstream.host.to_string().into()),
        ("port", Yaml::map([("number", upstream.port.into())])),
    ]);
    let rewrite = [("uri", "/".into()), ("authority", plan.authority().into())];
    Yaml::map([
        ("match", Yaml::list([Yaml::map([("uri", prefix)])])),
        ("rewrite", Yaml::map(rewrite)),
        ("route", Yaml::list([Yaml::map([("destination", destination)])])),
    ])
}

fn envoy_filter(source: &Source<'_>) -> Result<Yaml, TlsError> {
    let mut patches = Vec::new();
    for plan in &source.plans {
        let socket = Yaml::map([("transport_socket", transport_socket(tls_patch(plan)))]);
        patches.push(patch(plan, socket)?);
        let options = Yaml::map([
            ("@type", message(PROTOCOL_OPTIONS)),
            ("explicit_http_config", http_config(plan)),
            ("http_filters", filters(source, plan, None)),
        ]);
        let value = Yaml::map([
            ("metadata", metadata(source, plan)),
            ("typed_extension_protocol_options", Yaml::map([(PROTOCOL_OPTIONS, options)])),
        ]);
        patches.push(patch(plan, value)?);
    }
    let spec = Yaml::map([
        ("workloadSelector", Yaml::map([("labels", workload(source))])),
        ("configPatches", patches.into()),
    ]);
    let version = "networking.istio.io/v1alpha3";
    Ok(object(source, version, "EnvoyFilter", "vkey-upstreams", spec).noted(PATCHES))
}

fn patch(plan: &RenderPlan<'_>, value: Yaml) -> Result<Yaml, TlsError> {
    let cluster = [("service", host(plan)?.into()), ("portNumber", plan.upstream.port.into())];
    let matched = [("context", "GATEWAY".into()), ("cluster", Yaml::map(cluster))];
    Ok(Yaml::map([
        ("applyTo", "CLUSTER".into()),
        ("match", Yaml::map(matched)),
        ("patch", Yaml::map([("operation", "MERGE".into()), ("value", value)])),
    ]))
}

/// The patch for the `UpstreamTlsContext` that Istio makes of the DestinationRule. Istio reads files by SDS
/// too, so the checks go into the default of a combined context.
fn tls_patch(plan: &RenderPlan<'_>) -> Yaml {
    let checks = pins(plan).map(|pins| {
        let default = Yaml::map([("verify_certificate_hash", pins)]);
        Yaml::map([("default_validation_context", default)])
    });
    let common = Yaml::map([("tls_params", tls_params(plan)), ("alpn_protocols", alpn(plan))]);
    let common = common.and("combined_validation_context", checks);
    Yaml::map([("@type", tls_context_type())])
        .and(SESSION_KEYS, session_keys(plan))
        .and("common_tls_context", Some(common))
}

/// The environment variables that the module sees, if any.
fn environment(source: &Source<'_>) -> Option<Yaml> {
    let variable =
        |name: &&str| Yaml::map([("name", Yaml::from(*name)), ("valueFrom", "HOST".into())]);
    let variables = Vec::from_iter(source.environment.iter().map(variable));
    (!variables.is_empty()).then(|| Yaml::map([("env", variables.into())]))
}

/// The listener's module, if the list says where to fetch it and there is a configuration for it.
fn wasm_plugin(source: &Source<'_>) -> Option<Yaml> {
    let Fetch { url, sha256 } = source.list.wasm.fetch.as_ref()?;
    let config: &Json = source.config?;
    let spec = Yaml::map([
        ("selector", Yaml::map([("matchLabels", workload(source))])),
        ("url", url.as_str().into()),
        ("sha256", sha256.as_str().into()),
        ("phase", "AUTHN".into()),
        ("failStrategy", "FAIL_CLOSE".into()),
    ]);
    let spec =
        spec.and("vmConfig", environment(source)).and("pluginConfig", Some(Yaml::from(config)));
    let plugin = object(source, "extensions.istio.io/v1alpha1", "WasmPlugin", "vkey", spec);
    Some(plugin.noted("The module on the request path."))
}
