//! Renders objects of the Gateway API and of Envoy Gateway.

use vkey::upstream_tls::UpstreamPattern;

use super::super::error::TlsError;
use super::envoy::{
    PROTOCOL_OPTIONS, SESSION_KEYS, alpn, bare, crl, filters, identity, message, pins,
    session_keys, stamp, tls_context, tls_context_trusting, tls_params, transport_socket,
};
use super::upstreams::{Anchors, Fetch, Sds};
use super::{RenderPlan, Source, Yaml, credentials};

const GATEWAY_API: &str = "gateway.networking.k8s.io";

const ENVOY_GATEWAY: &str = "gateway.envoyproxy.io";

/// The text after the heading.
const USE: &str = "\
For Envoy Gateway, with enableBackend and enableEnvoyPatchPolicy in its configuration. The gate is a\n\
file in the container of the proxy (wasm.file): an EnvoyProxy mounts it there, the same module that\n\
the EnvoyExtensionPolicy fetches. Client certificates are files there too.";

/// The comment on the patches.
const PATCHES: &str = "\
What no other kind says: pins, the gate, the stamp, and for each upstream by itself the versions and\n\
the client certificate (an EnvoyProxy's backendTLS is for all of them). A cluster is called as its\n\
HTTPRoute: one that is renamed, or has other rules before it, needs other names here, and a patch\n\
without its cluster shows in the status of this object. From Envoy Gateway 1.3 on, clusters have the\n\
metadata that the stamp is added to. The transport socket of a cluster itself, for endpoints that\n\
none of its matches is for, would verify nothing.";

/// All objects.
pub(super) fn documents(source: &Source<'_>) -> Result<Vec<Yaml>, TlsError> {
    let mut documents = Vec::new();
    for plan in &source.plans {
        documents.push(backend(source, plan)?.noted(plan.notes()));
        documents.extend(backend_tls_policy(source, plan)?);
        documents.push(http_route(source, plan)?);
    }
    documents.push(envoy_patch_policy(source)?);
    documents.extend(envoy_extension_policy(source));
    if let Some(first) = documents.first_mut() {
        let front = credentials::front(source, ("env", environment(source)));
        *first = first.clone().noted(source.heading("gateway-api", &format!("{USE}{front}")));
    }
    Ok(documents)
}

/// The name of a host.
fn host<'a>(plan: &RenderPlan<'a>) -> Result<&'a str, TlsError> {
    let reason =
        "a BackendTLSPolicy takes only names here; give the name, and the address in address";
    plan.upstream.host_name().ok_or_else(|| plan.refused("host", reason))
}

fn namespace<'a>(source: &Source<'a>) -> &'a str {
    source.list.kubernetes.namespace.as_deref().unwrap_or("default")
}

fn object(source: &Source<'_>, version: String, kind: &str, name: &str, spec: Yaml) -> Yaml {
    let metadata = [("name", name.into()), ("namespace", namespace(source).into())];
    Yaml::map([
        ("apiVersion", version.into()),
        ("kind", kind.into()),
        ("metadata", Yaml::map(metadata)),
        ("spec", spec),
    ])
}

fn object_name(plan: &RenderPlan<'_>) -> String {
    format!("vkey-{}", plan.upstream.name)
}

fn reference(group: &str, kind: &str, name: &str) -> Yaml {
    Yaml::map([("group", group.into()), ("kind", kind.into()), ("name", name.into())])
}

fn gateway(source: &Source<'_>) -> Yaml {
    let name = source.list.kubernetes.gateway.as_deref().unwrap_or("eg");
    reference(GATEWAY_API, "Gateway", name)
}

fn backend(source: &Source<'_>, plan: &RenderPlan<'_>) -> Result<Yaml, TlsError> {
    let upstream = plan.upstream;
    let (kind, member) = match upstream.destination() {
        UpstreamPattern::Address(_) => ("ip", "address"),
        _ => ("fqdn", "hostname"),
    };
    host(plan)?;
    let endpoint = [(member, bare(upstream.destination()).into()), ("port", upstream.port.into())];
    let endpoints = Yaml::list([Yaml::map([(kind, Yaml::map(endpoint))])]);
    let unverified = (!plan.verifies()).then(|| Yaml::map([("insecureSkipVerify", true.into())]));
    let spec = Yaml::map([("endpoints", endpoints)]).and("tls", unverified);
    let version = format!("{ENVOY_GATEWAY}/v1alpha1");
    Ok(object(source, version, "Backend", &object_name(plan), spec))
}

fn backend_tls_policy(
    source: &Source<'_>,
    plan: &RenderPlan<'_>,
) -> Result<Option<Yaml>, TlsError> {
    if !plan.verifies() {
        return Ok(None);
    }
    let host = host(plan)?;
    let name = Yaml::map([("type", "Hostname".into()), ("hostname", host.into())]);
    let validation = Yaml::map([("hostname", host.into())]);
    let validation = match config_map(plan)? {
        Some(map) => {
            let maps = Yaml::list([reference("", "ConfigMap", &map.name)]);
            validation.and("caCertificateRefs", Some(maps))
        }
        None => validation.and("wellKnownCACertificates", Some("System")),
    };
    let target = reference(ENVOY_GATEWAY, "Backend", &object_name(plan));
    let spec = Yaml::map([
        ("targetRefs", Yaml::list([target])),
        ("validation", validation.and("subjectAltNames", Some(Yaml::list([name])))),
    ]);
    let version = format!("{GATEWAY_API}/v1");
    Ok(Some(object(source, version, "BackendTLSPolicy", &object_name(plan), spec)))
}

/// The ConfigMap with the authorities; `None` for those of the system.
fn config_map<'a>(plan: &RenderPlan<'a>) -> Result<Option<&'a Sds>, TlsError> {
    match plan.upstream.trust.as_ref().map(|trust| &trust.anchors) {
        None | Some(Anchors::System) => Ok(None),
        Some(Anchors::Sds(map)) => Ok(Some(map)),
        Some(Anchors::File(_)) => {
            let reason = "the Gateway API takes authorities from a ConfigMap, in its ca.crt; write \
                          {sds: {name: NAME}}";
            Err(plan.refused("trust.file", reason))
        }
    }
}

fn http_route(source: &Source<'_>, plan: &RenderPlan<'_>) -> Result<Yaml, TlsError> {
    let path = |kind: &str, value: Yaml| Yaml::map([("type", kind.into()), ("value", value)]);
    let prefix = path("PathPrefix", format!("/{}/", plan.upstream.name).into());
    let replaced = [("type", "ReplacePrefixMatch".into()), ("replacePrefixMatch", "/".into())];
    let rewrite = [("hostname", host(plan)?.into()), ("path", Yaml::map(replaced))];
    let filter = [("type", "URLRewrite".into()), ("urlRewrite", Yaml::map(rewrite))];
    let rule = Yaml::map([
        ("matches", Yaml::list([Yaml::map([("path", prefix)])])),
        ("filters", Yaml::list([Yaml::map(filter)])),
        ("backendRefs", Yaml::list([reference(ENVOY_GATEWAY, "Backend", &object_name(plan))])),
    ]);
    let parent = [("name", source.list.kubernetes.gateway.as_deref().unwrap_or("eg").into())];
    let spec =
        Yaml::map([("parentRefs", Yaml::list([Yaml::map(parent)])), ("rules", Yaml::list([rule]))]);
    let version = format!("{GATEWAY_API}/v1");
    Ok(object(source, version, "HTTPRoute", &object_name(plan), spec))
}

fn envoy_patch_policy(source: &Source<'_>) -> Result<Yaml, TlsError> {
    let mut patches = Vec::new();
    for plan in &source.plans {
        let cluster = format!("httproute/{}/{}/rule/0", namespace(source), object_name(plan));
        let patch = |(path, value): (String, Yaml)| {
            let operation = [("op", "add".into()), ("path", path.into()), ("value", value)];
            Yaml::map([
                ("type", message("envoy.config.cluster.v3.Cluster")),
                ("name", cluster.as_str().into()),
                ("operation", Yaml::map(operation)),
            ])
        };
        patches.extend(additions(source, plan)?.into_iter().map(patch));
    }
    let spec = Yaml::map([
        ("targetRef", gateway(source)),
        ("type", "JSONPatch".into()),
        ("jsonPatches", patches.into()),
    ]);
    let version = format!("{ENVOY_GATEWAY}/v1alpha1");
    Ok(object(source, version, "EnvoyPatchPolicy", "vkey-upstreams", spec).noted(PATCHES))
}

/// The additions to the cluster, with their paths.
fn additions(source: &Source<'_>, plan: &RenderPlan<'_>) -> Result<Vec<(String, Yaml)>, TlsError> {
    // This is how Envoy Gateway names the VM of a policy's filter.
    let vm_id = format!("envoyextensionpolicy/{}/vkey/wasm/0", namespace(source));
    let mut additions = vec![
        ("/metadata/filter_metadata/vkey".to_owned(), stamp(source, plan)),
        (
            format!("/typed_extension_protocol_options/{PROTOCOL_OPTIONS}/http_filters"),
            filters(source, plan, Some(&vm_id)),
        ),
    ];
    let typed = "/transport_socket_matches/0/transport_socket/typed_config".to_owned();
    let fallback = match config_map(plan)? {
        None => {
            let whole = tls_context(plan)?;
            additions.push((typed, whole.clone()));
            whole
        }
        Some(_) => {
            let keys = session_keys(plan);
            additions.extend(keys.map(|keys| (format!("{typed}/{SESSION_KEYS}"), keys)));
            additions.extend(tls_additions(plan, &format!("{typed}/common_tls_context"))?);
            tls_context_trusting(plan, &Anchors::System)?
        }
    };
    additions.push(("/transport_socket".to_owned(), transport_socket(fallback)));
    Ok(additions)
}

/// The additions to a `CommonTlsContext` with the authorities of a ConfigMap.
fn tls_additions(plan: &RenderPlan<'_>, common: &str) -> Result<Vec<(String, Yaml)>, TlsError> {
    let checks = format!("{common}/combined_validation_context/default_validation_context");
    let additions = [
        Some((format!("{common}/tls_params"), tls_params(plan))),
        Some((format!("{common}/alpn_protocols"), alpn(plan))),
        identity(plan)?.map(|(name, value)| (format!("{common}/{name}"), value)),
        pins(plan).map(|pins| (format!("{checks}/verify_certificate_hash"), pins)),
        crl(plan).map(|crl| (format!("{checks}/crl"), crl)),
    ];
    Ok(additions.into_iter().flatten().collect())
}

/// The environment variables that the module sees, if any.
fn environment(source: &Source<'_>) -> Option<Yaml> {
    let names = Vec::from_iter(source.environment.iter().map(|name| Yaml::from(*name)));
    (!names.is_empty()).then(|| Yaml::map([("hostKeys", names.into())]))
}

/// The listener's module, if the list says where to fetch it and there is a configuration for it.
fn envoy_extension_policy(source: &Source<'_>) -> Option<Yaml> {
    let Fetch { url, sha256 } = source.list.wasm.fetch.as_ref()?;
    let http = [("url", url.as_str().into()), ("sha256", sha256.as_str().into())];
    let code = Yaml::map([("type", "HTTP".into()), ("http", Yaml::map(http))]);
    let wasm = Yaml::map([
        ("name", "vkey".into()),
        ("code", code),
        ("failOpen", false.into()),
        ("config", Yaml::from(source.config?)),
    ]);
    let spec = Yaml::map([
        ("targetRefs", Yaml::list([gateway(source)])),
        ("wasm", Yaml::list([wasm.and("env", environment(source))])),
    ]);
    let version = format!("{ENVOY_GATEWAY}/v1alpha1");
    let policy = object(source, version, "EnvoyExtensionPolicy", "vkey", spec);
    Some(policy.noted("The module on the request path."))
}
