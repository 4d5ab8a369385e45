//! Every order of callbacks, on a request with a good key and on one without.

mod bodies;
mod finality;
mod recorded;

use super::*;
use crate::config::Config;
use crate::host::{MemoryHost, MemoryStore, Rules};
use crate::key::keyring::{Ring, RingState, Secret};
use crate::key::token::mint;

const SECRET: &str = "Gated-1-in-every-order-2";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callback {
    Headers,
    Body,
    Trailers,
    Response,
    Log,
}

const CALLBACKS: [Callback; 5] =
    [Callback::Headers, Callback::Body, Callback::Trailers, Callback::Response, Callback::Log];

/// All sequences of this many callbacks.
fn sequences(length: usize) -> Vec<Vec<Callback>> {
    (0..length).fold(vec![Vec::new()], |shorter, _| {
        let longer = shorter.iter().flat_map(|sequence| {
            CALLBACKS.map(|callback| [sequence.as_slice(), &[callback]].concat())
        });
        longer.collect()
    })
}

fn token() -> String {
    let secret = Secret::parse(SECRET).unwrap();
    let ring = Ring::new("main", &secret, RingState::Active, None).unwrap();
    let kid = ring.kid_at(0).unwrap();
    let claims = br#"{"jti":"k","tenant":"acme","iat":0,"exp":1900000000}"#;
    mint(&ring.signing_key(&kid).unwrap(), &kid, claims)
}

fn gate() -> Gate {
    let config = br#"{"keyring": [{"name": "main", "secret": "${S}"}],
        "tiers": {"default": {"rate": {"requests": 100, "per": "1s"}}}}"#;
    let plan = Config::parse(config).unwrap().compile(|_| Some(SECRET.to_owned())).unwrap();
    let policy = include_bytes!("../../filters/vkey/upstream-tls.json");
    Gate::open(plan, Policy::parse(policy).unwrap())
}

fn host(token: Option<&str>) -> MemoryHost {
    let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
    let headers = [(":method", "POST"), (":path", "/v1"), (":authority", "upstream.example")];
    let key = token.map(|token| ("x-api-key", token));
    let headers = headers.into_iter().chain(key);
    let headers = headers.map(|(name, value)| (name.into(), value.into())).collect();
    host.headers.replace(Some(headers));
    host.trailers.replace(Some(Vec::new()));
    host
}

/// A request that is shown twice is refused by the second time: its key is gone.
#[test]
fn no_order_of_callbacks_passes_what_was_not_allowed() {
    let token = token();
    for sequence in sequences(5) {
        for key in [Some(token.as_str()), None] {
            let (gate, host) = (gate(), host(key));
            let (mut exchange, mut passes, mut is_logged) = (Exchange::default(), false, false);
            for callback in &sequence {
                let passed = match callback {
                    Callback::Headers => {
                        let first = matches!(exchange, Exchange::Unseen);
                        passes = key.is_some() && first;
                        gate.on_request_headers(&host, &mut exchange, Opening::default())
                            == Action::Continue
                    }
                    Callback::Body => {
                        gate.on_request_body(&host, &mut exchange, 7, false) == Action::Continue
                    }
                    Callback::Trailers => {
                        gate.on_request_trailers(&host, &mut exchange) == Action::Continue
                    }
                    Callback::Response => {
                        let action = gate.on_response_headers(&host, &mut exchange);
                        assert_eq!(action == Action::Continue, !is_logged, "{sequence:?}");
                        passes
                    }
                    Callback::Log => {
                        gate.on_log(&host, &mut exchange);
                        (passes, is_logged) = (false, true);
                        false
                    }
                };
                assert_eq!(passed, passes, "{sequence:?} {callback:?}");
            }
            let lines = host.log.borrow();
            let lines = lines.iter().filter(|(_, line)| line.starts_with('{')).count();
            assert_eq!(lines, usize::from(is_logged), "{sequence:?}");
        }
    }
}

#[test]
fn the_client_is_told_its_limits_once() {
    let (gate, host, mut exchange) = (gate(), host(Some(&token())), Exchange::default());
    gate.on_request_headers(&host, &mut exchange, Opening::default());
    gate.on_response_headers(&host, &mut exchange);
    assert!(!host.response_headers.take().is_empty());
    gate.on_response_headers(&host, &mut exchange);
    assert!(host.response_headers.take().is_empty());
}

#[test]
fn the_body_is_counted_as_the_host_reports_it() {
    for (key, bytes_in) in [(Some(token()), 5 + 7), (None, 7)] {
        let (gate, host, mut exchange) = (gate(), host(key.as_deref()), Exchange::default());
        gate.on_request_headers(&host, &mut exchange, Opening::default());
        gate.on_request_body(&host, &mut exchange, 5, false);
        gate.on_request_body(&host, &mut exchange, 7, true);
        assert_eq!(exchange.decided().unwrap().seen().body_bytes(), bytes_in);
    }
}

/// The line of a request with this property and these headers on the way.
fn line_of(gate: &Gate, call: Option<&str>, header: Option<(&str, &str)>) -> String {
    let host = host(Some(&token()));
    host.headers.borrow_mut().iter_mut().for_each(|list| {
        list.extend(header.map(|(name, value)| (name.into(), value.into())));
    });
    if let Some(call) = call {
        host.show(Property::McpCall.path(), call);
    }
    let mut exchange = Exchange::default();
    gate.on_request_headers(&host, &mut exchange, Opening::default());
    gate.on_log(&host, &mut exchange);
    let lines = host.log.take().into_iter().map(|(_, line)| line);
    lines.filter(|line| line.starts_with('{')).collect()
}

#[test]
fn the_mcp_call_comes_from_the_host_alone() {
    let gate = gate();
    for (call, shown) in [
        ("tools/call search - -", r#""tools/call search - -""#),
        ("-", "null"),
        ("tools/call \u{e9}\"\n - -", r#""tools/call \u00e9\"\u000a - -""#),
        ("tools/call vk1.main-0.e30.x - -", r#""***REDACTED***""#),
        ("prompts/get p - -", r#""prompts/get p - -""#),
    ] {
        let line = line_of(&gate, Some(call), None);
        assert!(line.contains(&format!(r#""mcp":{shown},"#)), "{call}: {line}");
    }
    let tag = token();
    let tag = tag.get(tag.len() - 20..).unwrap();
    let line = line_of(&gate, Some(&format!("tools/call {tag} - -")), None);
    assert!(line.contains(r#""mcp":"***REDACTED***""#) && !line.contains(tag), "{line}");
    for name in ["vkey.mcp", "wasm.vkey.mcp", "mcp-method", "mcp-name", "filter_state"] {
        let line = line_of(&gate, None, Some((name, "tools/call search - -")));
        assert!(line.contains(r#""mcp":null,"#), "{name}: {line}");
    }
}

/// A property costs as much as deciding.
#[test]
fn a_host_without_mcp_calls_is_asked_for_them_once() {
    let gate = gate();
    line_of(&gate, None, None);
    let line = line_of(&gate, Some("tools/call search - -"), None);
    assert!(line.contains(r#""mcp":null,"#), "{line}");
}
