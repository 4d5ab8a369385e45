//! What reaches the upstream, and what must not reach anybody.

use serde_json::json;

use crate::gateways::{KNOWN, proven};
use crate::keys::{Minter, options};
use crate::support::tls::{Authority, Serve};
use crate::support::{Envoy, Request};

/// Envoy removes what a client says of these before it chooses a route.
#[test]
fn forged_identity_is_replaced_by_the_keys_own() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("forged", &main, json!({})));
    let key = main.key("k1", json!({"sub": "Zoë\r\nx-admin: 1"}));
    let request = Request::new("GET", "/v1/models")
        .bearer(&key)
        .header("x-vkey-key", "forged")
        .header("X-VKEY-Tenant", "forged")
        .header("x-vkey-sub", "forged");
    let arrived = envoy.send(&request).text();
    assert!(!arrived.contains("forged"), "{arrived}");
    for line in ["x-vkey-key: k1", "x-vkey-tenant: acme", "x-vkey-sub: Zo%C3%AB%0D%0Ax-admin:%201"]
    {
        assert!(arrived.lines().any(|arrived| arrived == line), "{line} in {arrived}");
    }
}

#[test]
fn the_providers_credential_takes_the_place_of_the_key() {
    let main = Minter::new("main", None);
    let plugin = json!({
        "forward": {
            "identity_headers": false,
            "credentials_in_front": true,
            "credentials": [
                {"hosts": [KNOWN], "header": "authorization", "value": "Bearer ${PROVIDER}"},
            ],
        },
    });
    let authority = Authority::new("upstreams");
    let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
    let cluster = proven(&upstream, &authority, KNOWN);
    let options = options("credential", &main, plugin).env("PROVIDER", "a-provider-key");
    let envoy = Envoy::start(options.edit(|config| cluster.install_for(config, KNOWN)));
    let key = main.key("k1", json!({}));
    let to = |host: &str| {
        let request = Request::new("GET", "/v1/models").header("host", host);
        envoy.send(&request.header("x-api-key", &key)).text()
    };
    let provider = to(KNOWN);
    assert!(provider.contains("authorization: Bearer a-provider-key"), "{provider}");
    assert!(!provider.contains("x-vkey-") && !provider.contains(&key), "{provider}");
    let other = to("other.example");
    assert!(!other.contains("authorization") && !other.contains(&key), "{other}");
}

#[test]
fn the_key_comes_out_nowhere() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("nowhere", &main, json!({})));
    let key = main.key("k1", json!({"only": {"paths": ["/v1/**"]}}));
    let expired = main.key("k2", json!({"exp": 1}));
    let mut shown = String::new();
    let mut lines = 0;
    for key in [&key, &expired] {
        for request in [
            Request::new("GET", "/v1/models").header("x-other", format!("my {key}!")).bearer(key),
            Request::new("GET", format!("/v1/models?a={}", key.replacen('k', "%6b", 1)))
                .bearer(key),
            Request::new("GET", format!("/v1/models?a={}", &key[4..])).bearer(key),
            Request::new("GET", "/v1/models").header("x-other", &key[4..]).bearer(key),
            Request::new("GET", format!("/v1/models?key={key}")).bearer(key),
            Request::new("GET", "/v1/models").bearer(key),
            Request::new("GET", "/admin").bearer(key).header("x-request-id", key),
            Request::new("GET", "/v1/models").header("x-api-key", key).bearer(key),
            Request::new("GET", "/.vkey/usage").bearer(key),
            Request::new("GET", format!("/admin/{key}")).bearer(key),
            Request::new("GET", format!("/admin?{key}=1&b={key}")).bearer(key),
            Request::new(key, "/v1/models").bearer(key),
        ] {
            shown += &envoy.send(&request).text();
            lines += 1;
        }
    }
    envoy.wait_for_access_log(lines);
    envoy.stop();
    shown += &envoy.access_log().join("\n");
    shown += &envoy.proxy_log();
    for key in [&key, &expired] {
        let (body, tag) = key.rsplit_once('.').unwrap();
        let claims = body.rsplit_once('.').unwrap().1;
        for part in [key.as_str(), tag, claims, &tag[..16]] {
            assert!(!shown.contains(part), "{part} in {shown}");
        }
    }
    assert!(!shown.contains(&main.secret));
}
