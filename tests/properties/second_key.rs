//! A second key in a header that is not a key source.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// Another key, valid or forged, in either form.
fn second_key() -> impl Strategy<Value = String> {
    let forms = (any::<bool>(), vec(restriction(), 0..3), any::<Index>(), any::<Index>());
    forms.prop_map(|(is_jwt, caveats, at, forgery)| {
        let claims = json!({"jti": "other", "tenant": "t", "iat": NOW - 60, "exp": NOW + 60});
        let mut key = match is_jwt {
            true => jwt(&claims),
            false => caveats.iter().fold(sign(&claims), |token, caveat| attenuate(&token, caveat)),
        };
        match forgery.index(3) {
            // With a wrong tag.
            0 => {
                let start = key.rfind('.').unwrap() + 1;
                let index = start + at.index(key.len() - start - 1);
                let other = if &key[index..=index] == "A" { "B" } else { "A" };
                key.replace_range(index..=index, other);
                key
            }
            // With the claims of another key.
            1 => {
                let mut segments: Vec<&str> = key.split('.').collect();
                let claims =
                    sign(&json!({"jti": "more", "tenant": "t", "iat": NOW, "exp": NOW + 9}));
                let claims = claims.split('.').nth(2).unwrap().to_owned();
                segments[if is_jwt { 1 } else { 2 }] = &claims;
                segments.join(".")
            }
            _ => key,
        }
    })
}

#[test]
fn a_jwt_of_the_tests_is_a_valid_key() {
    let claims = json!({"jti": "other", "tenant": "t", "iat": NOW - 60, "exp": NOW + 60});
    assert!(verify(&jwt(&claims)).is_some());
}

/// A text with some of its bytes escaped.
fn escaped(text: &str, which: &[bool]) -> Vec<u8> {
    let bytes = text.bytes().zip(which.iter().cycle());
    let escape = |(byte, escapes): (u8, &bool)| match escapes {
        true => format!("%{byte:02x}").into_bytes(),
        false => vec![byte],
    };
    bytes.flat_map(escape).collect()
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_second_key_in_any_other_header_is_refused(
        second in second_key(),
        name in prop_oneof!["[a-z][a-z0-9_-]{0,12}", select(&[
            "cookie", "referer", "x-forwarded-for", "x-request-id", "upgrade", "forwarded", "x-vkey-key",
            "x-envoy-retry-on", "proxy-authorization",
        ][..]).prop_map(str::to_owned)],
        before in "[ -,/:-@\\[-^`{-~]{0,20}",
        after in "[ -,/:-@\\[-^`{-~]{0,20}",
        which in vec(any::<bool>(), 1..5),
        escapes: bool,
        first: bool,
    ) {
        let sources = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];
        prop_assume!(!sources.contains(&&*name));
        let good = sign(&json!({"jti": "k", "tenant": "t", "iat": NOW - 60, "exp": NOW + 60}));
        let second = if escapes { escaped(&second, &which) } else { second.into_bytes() };
        let value = [before.as_bytes(), &second, after.as_bytes()].concat();
        let mut headers: Vec<(Vec<u8>, Vec<u8>)> = vec![
            (b":method".to_vec(), b"GET".to_vec()),
            (b":path".to_vec(), b"/v1/models".to_vec()),
            (b":authority".to_vec(), b"gw.example".to_vec()),
            (b"x-api-key".to_vec(), good.into_bytes()),
        ];
        headers.insert(if first { 0 } else { 4 }, (name.into_bytes(), value));
        let (gate, host, mut exchange) = (gate(), host(headers, Vec::new()), Exchange::default());
        prop_assert_eq!(gate.on_request_headers(&host, &mut exchange, Opening::default()), Action::Pause);
        gate.on_log(&host, &mut exchange);
        let line = host.log.borrow()[0].1.clone();
        let decision = Line::parse(&line).unwrap().record.unwrap().decision;
        prop_assert_eq!(decision, Some(Decision::Deny(DenyReason::KeyConflict)), "{}", line);
    }
}
