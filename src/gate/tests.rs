//! Every order of callbacks, on a request with a good key and on one without.

mod bodies;
mod budgets;
mod cluster;
mod finality;
mod recorded;
mod secrets;
mod trail;

use super::*;
use crate::config::Config;
use crate::host::{HeaderList, MemoryHost, MemoryStore, Rules};
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

#[test]
fn no_header_and_no_property_names_an_mcp_call() {
    let call = "tools/call search - -";
    for name in ["vkey.mcp", "wasm.vkey.mcp", "mcp-method", "mcp-name", "filter_state"] {
        let (gate, host, mut exchange) = (gate(), host(Some(&token())), Exchange::default());
        let add = |list: &mut HeaderList| list.push((name.into(), call.into()));
        host.headers.borrow_mut().iter_mut().for_each(add);
        host.show("filter_state\0vkey.mcp", call);
        gate.on_request_headers(&host, &mut exchange, Opening::default());
        gate.on_log(&host, &mut exchange);
        let log = host.log.take();
        assert!(log.iter().any(|(_, line)| line.contains(r#""mcp":null,"#)), "{name}: {log:?}");
    }
}
