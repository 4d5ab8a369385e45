//! Random restrictions, claims and requests.

use super::*;

/// Members are drawn from few values, so that they match about half of the requests.
pub(crate) fn restriction() -> impl Strategy<Value = Value> {
    let any_of = sometimes(vec(flat_restriction(), 0..3));
    (flat_restriction(), any_of, sometimes(1..9_u32), sometimes(0..9_u64)).prop_map(
        |(mut flat, any_of, rate, quota)| {
            if let Some(any_of) = any_of {
                flat["any_of"] = Value::Array(any_of);
            }
            if let Some(requests) = rate {
                flat["rate"] = json!({"requests": requests, "per": "1h"});
            }
            if let Some(requests) = quota {
                flat["quotas"] = json!([{"requests": requests, "per": "total"}]);
            }
            flat
        },
    )
}

/// Present in one of five cases, so that a key with several restrictions still allows about half of the
/// requests.
pub(crate) fn sometimes<T: Strategy>(strategy: T) -> impl Strategy<Value = Option<T::Value>> {
    proptest::option::weighted(0.2, strategy)
}

pub(crate) fn flat_restriction() -> impl Strategy<Value = Value> {
    let list = |items: &'static [&'static str]| sometimes(vec(select(items), 1..4));
    (
        (sometimes(NOW - 5..NOW + 5), sometimes(NOW - 5..NOW + 5)),
        list(&["GET", "POST", "DELETE"]),
        list(&["gw.example", "*.example", "a.b.example", "other"]),
        list(&["/v1/**", "/v1/*", "/v1/models", "/**", "/v2/*", "/*/chat"]),
        list(&["gpt-*", "*", "o3"]),
        list(&["10.0.0.0/8", "10.1.0.0/16", "::/0", "192.0.2.1"]),
        sometimes(mcp_restriction()),
        sometimes(vec(select(&["ab", "cd"][..]), 0..2)),
    )
        .prop_map(|((nbf, exp), methods, hosts, paths, models, sources, mcp, certs)| {
            let certs = certs.map(|certs| certs.iter().map(|c| c.repeat(32)).collect::<Vec<_>>());
            present([
                ("nbf", json!(nbf)),
                ("exp", json!(exp)),
                ("methods", json!(methods)),
                ("hosts", json!(hosts)),
                ("paths", json!(paths)),
                ("models", json!(models)),
                ("sources", json!(sources)),
                ("mcp", json!(mcp)),
                ("client_cert", json!(certs)),
            ])
        })
}

pub(crate) fn present<const N: usize>(members: [(&str, Value); N]) -> Value {
    let present = members.into_iter().filter(|(_, value)| !value.is_null());
    Value::Object(present.map(|(name, value)| (name.to_owned(), value)).collect::<Map<_, _>>())
}

pub(crate) fn access() -> impl Strategy<Value = Access<'static>> {
    (
        NOW - 6..NOW + 6,
        select(&["GET", "POST", "DELETE", "get"][..]),
        of(select(&["gw.example", "a.b.example", "other", "example"][..])),
        select(&["/v1/models", "/v1/chat/completions", "/v2/x", "/", "/v1", "/v1/chat"][..]),
        of(select(&["10.1.2.3", "10.9.9.9", "2001:db8::1", "192.0.2.1"][..])),
        of(select(&["ab", "cd"][..])),
        models(),
        mcp(),
    )
        .prop_map(|(now_secs, method, host, path, source, cert, models, mcp)| Access {
            now_secs,
            method,
            host: host.and_then(|host| exact_host(host.as_bytes())),
            path: CanonicalPath::parse(path.as_bytes()).unwrap(),
            source: source.map(|source| source.parse::<IpAddr>().unwrap()),
            client_cert: cert.map(|cert| match cert {
                "ab" => "abababababababababababababababababababababababababababababababab",
                _ => "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",
            }),
            models,
            mcp,
        })
}

pub(crate) fn claims() -> impl Strategy<Value = Value> {
    (
        "[A-Za-z0-9_-]{1,64}",
        "[A-Za-z0-9_-]{1,64}",
        of("\\PC{1,40}"),
        of(vec("[a-z.]{1,20}", 0..3)),
        of(restriction()),
        of("\\PC{0,40}"),
    )
        .prop_map(|(jti, tenant, sub, aud, only, note)| {
            let meta = note.map(|note| json!({"note": note}));
            present([
                ("jti", json!(jti)),
                ("tenant", json!(tenant)),
                ("sub", json!(sub)),
                ("iat", json!(NOW - 60)),
                ("exp", json!(NOW + 60)),
                ("aud", json!(aud)),
                ("only", json!(only)),
                ("meta", json!(meta)),
            ])
        })
}
