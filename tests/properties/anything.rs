//! Arbitrary bytes as input of parsers, and as keys, requests and configurations.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// A configuration with every member.
const WHOLE_CONFIGURATION: &[u8] = br#"{
    "audience": "gw", "clock_skew": "5s", "host": "auto", "mode": "shadow", "upgrades": false,
    "keyring": [{"name": "main", "secret": "${A}", "state": "retiring",
                 "rotation": {"interval": "1h", "max_age": "2h", "keep_expired": true}}],
    "key_sources": [{"header": "authorization", "scheme": "Bearer"}],
    "tiers": {"default": {"only": {"methods": ["GET"], "any_of": [{"sources": ["::/0"]}]},
                          "rate": {"requests": 5, "per": "1s", "burst": 9},
                          "quotas": [{"requests": 9, "per": "day"}], "usage_of_others": true}},
    "tenants": {"acme": {"only": {"paths": ["/v1/**"]}, "quotas": [{"requests": 9, "per": "total"}],
                         "rate": {"requests": 5, "per": "1s"}}}, "unlisted_tenants": "deny",
    "auth_failures": {"threshold": 5, "window": "300s", "block_for": "1s"},
    "anomaly": {"sensitivity": "low"}, "limits": {"headers": "refused"},
    "revoked": {"version": 1, "keys": ["k", {"tenant": "acme", "jti": "k"}], "tenants": {"acme": {"issued_before": 1.0}}},
    "forward": {"identity_headers": true, "credentials_in_front": true,
                "credentials": [{"hosts": ["*.a"], "header": "b", "value": "Bearer ${C}"},
                                {"name": "c", "hosts": ["*.d"]}]},
    "upstream_tls": {"require_stamp": true, "require_gate": false,
                     "tighten": [{"host": "a.b", "min_version": "TLSv1.3"}]},
    "client": {"trusted_hops": 1, "allow": ["10.0.0.0/8"], "deny": []},
    "usage": {"path": "/usage"},
    "audit": {"sink": "log", "level": "warn", "mask": ["sub"], "mask_value": "?"}
}"#;

/// Bytes, and texts that resemble valid input.
pub(crate) fn anything() -> impl Strategy<Value = Vec<u8>> {
    let near = "(vk1|eyJ[a-zA-Z0-9]{0,8})?[.a-zA-Z0-9_-]{0,60}";
    let json = r#"[{}\[\]":,a-z0-9.\\-]{0,60}"#;
    prop_oneof![
        vec(any::<u8>(), 0..200),
        near.prop_map(String::into_bytes),
        json.prop_map(String::into_bytes),
        restriction().prop_map(|json| json.to_string().into_bytes()),
    ]
}

pub(crate) fn host(headers: Vec<(Vec<u8>, Vec<u8>)>, peer: Vec<u8>) -> MemoryHost {
    let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
    host.now_ns.set(Some(NOW * 1_000_000_000));
    *host.headers.borrow_mut() = Some(headers);
    host.show("source\0address", peer);
    host
}

pub(crate) fn gate() -> Gate {
    gate_under(Policy::strictest())
}

pub(crate) fn gate_under(policy: Policy) -> Gate {
    let text =
        br#"{"keyring": [{"name": "main", "secret": "${SECRET}"}], "client": {"trusted_hops": 1},
             "tiers": {"default": {"rate": {"requests": 5, "per": "1s"}, "usage_of_others": true}},
             "auth_failures": {"threshold": 2, "block_for": "1h"},
             "anomaly": {"sensitivity": "high"}}"#;
    let secret = |_: &str| Some(secret());
    let plan: Plan = Config::parse(text).unwrap().compile(secret).unwrap();
    Gate::open(plan, policy)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in anything()) {
        _ = Unverified::parse(&bytes).map(|token| verify(&String::from_utf8_lossy(token.untrusted_content().0)));
        _ = Kid::parse(&bytes);
        _ = Claims::parse(&bytes);
        _ = Restriction::parse(&bytes);
        _ = Json::parse(&bytes);
        _ = Config::parse(&bytes);
        _ = CanonicalPath::parse(&bytes);
        _ = canonical_host(&bytes);
        _ = query_keys(&bytes).count();
        _ = decode::<Cell>(&key_name("acme", "k1"), &bytes);
        _ = Cell::read(&mut &*bytes);
        _ = Shard::read(&mut &*bytes);
        _ = Headers::from_pairs(bytes.clone()).map(|headers| headers.iter().count());
        _ = Line::parse(&String::from_utf8_lossy(&bytes));
        _ = Secret::parse(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn a_valid_tag_over_any_bytes_is_harmless(claims in anything(), caveat in anything()) {
        let kid = Kid::new("main", 0).unwrap();
        let token = mint(&ring().signing_key(&kid).unwrap(), &kid, &claims);
        let Ok(unverified) = Unverified::parse(token.as_bytes()) else { return Ok(()) };
        let token = unverified.attenuate(&caveat).unwrap();
        let identity = engine().identify(token.as_bytes(), NOW);
        let is_good = matches!(identity, Identity::Known { validity: Ok(()), .. });
        prop_assert!(!is_good || Restriction::parse(&caveat).is_ok());
    }

    #[test]
    fn no_request_without_a_key_panics_or_passes(
        mut headers in vec(("[a-z:-]{1,12}", anything()), 0..8),
        credential in anything(),
        target in anything(),
        peer in anything(),
    ) {
        headers.push(("authorization".to_owned(), [b"Bearer ", &*credential].concat()));
        headers.push((":path".to_owned(), target));
        let headers = headers.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        let (gate, host, mut exchange) = (gate(), host(headers, peer), Exchange::default());
        gate.on_request_headers(&host, &mut exchange, Opening::default());
        gate.on_log(&host, &mut exchange);
        prop_assert!(host.reply.borrow().is_some());
        prop_assert!(host.filter_state.borrow().is_empty());
        prop_assert_eq!(host.log.borrow().len(), 1);
        Line::parse(&host.log.borrow()[0].1).unwrap();
    }

    #[test]
    fn a_request_with_a_valid_key_is_decided_once(
        mut headers in vec(("[a-z:-]{1,12}", anything()), 0..8),
        target in prop_oneof![anything(), Just(b"/v1/models".to_vec())],
        peer in anything(),
        caveats in vec(restriction(), 0..2),
    ) {
        let key = sign(&json!({"jti": "k", "tenant": "t", "iat": NOW - 60, "exp": NOW + 60}));
        let key = caveats.iter().fold(key, |token, caveat| attenuate(&token, caveat));
        headers.push(("x-api-key".to_owned(), key.into_bytes()));
        headers.push((":method".to_owned(), b"GET".to_vec()));
        headers.push((":path".to_owned(), target));
        let headers = headers.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        let (gate, host, mut exchange) = (gate(), host(headers, peer), Exchange::default());
        gate.on_request_headers(&host, &mut exchange, Opening::default());
        gate.on_log(&host, &mut exchange);
        let sealed = host.filter_state.borrow().contains_key("vkey.decision");
        prop_assert!(sealed != host.reply.borrow().is_some());
        let lines = host.log.borrow();
        prop_assert_eq!(lines.len(), 1);
        let record = Line::parse(&lines[0].1).unwrap().record.unwrap();
        prop_assert_eq!(record.decision.is_some_and(Decision::forwards), sealed);
    }

    #[test]
    fn a_configuration_with_a_changed_byte_is_accepted_or_rejected(at in any::<Index>(), byte: u8) {
        let mut text = WHOLE_CONFIGURATION.to_vec();
        Config::parse(&text).unwrap();
        let index = at.index(text.len());
        text[index] = byte;
        _ = Config::parse(&text);
    }
}
