//! The chain of a gate's records.

use super::*;
use crate::audit::{AuditKey, Line, Mask, Outcome};
use crate::decision::Decision;
use crate::host::FilterState;

const AUDIT_SECRET: &str = "Chained-1-in-every-order-2";

/// A gate whose records form a chain with an anchor after every second.
fn chained(sink: &str, host: &MemoryHost) -> Gate {
    let config = format!(
        r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}],
            "audit": {{"sink": "{sink}", "secret": "${{A}}", "anchor_every": 2}}}}"#
    );
    let config = Config::parse(config.as_bytes()).unwrap();
    let secret = |name: &str| Some(if name == "A" { AUDIT_SECRET } else { SECRET }.to_owned());
    let policy = include_bytes!("../../../filters/vkey/upstream-tls.json");
    let gate = Gate::configure(config, Policy::parse(policy).unwrap(), secret, host);
    host.log.take();
    gate
}

/// The line that the host has after a request, and whether an anchor follows it.
fn line_and_anchor(host: &MemoryHost) -> (Option<String>, Option<String>) {
    let record = host.filter_state.borrow_mut().remove(FilterState::Audit.key());
    let mut log = host.log.take().into_iter().filter(|(_, line)| line.starts_with('{'));
    let spliced = record.map(|record| Line::splice(&record, &Outcome::default(), &Mask::default()));
    let line = spliced.or_else(|| Some(log.next()?.1));
    let anchor = log.next().map(|(level, line)| {
        assert_eq!(level, Level::Warn);
        line
    });
    assert_eq!(log.next(), None);
    (line, anchor)
}

fn verify(line: &str) {
    let key = AuditKey::new(&Secret::parse(AUDIT_SECRET).unwrap());
    assert_eq!(key.verifies(line), Some(true), "{line}");
}

/// In every order of callbacks a request has one record in the chain, and it is the one that is shown.
#[test]
fn every_request_is_in_the_chain_once_in_whatever_order_it_ends() {
    let token = token();
    for sink in ["access_log", "log"] {
        let store = MemoryStore::new(Rules::Envoy);
        let gate = chained(sink, &MemoryHost::new(store));
        let (mut seq, mut last, mut id) = (0, String::new(), None);
        for sequence in sequences(4) {
            for key in [Some(token.as_str()), None] {
                let (host, mut exchange) = (host(key), Exchange::default());
                for callback in sequence.iter().chain([&Callback::Log]) {
                    match callback {
                        Callback::Headers => {
                            gate.on_request_headers(&host, &mut exchange, Opening::default());
                        }
                        Callback::Body => {
                            gate.on_request_body(&host, &mut exchange, 7, false);
                        }
                        Callback::Trailers => {
                            gate.on_request_trailers(&host, &mut exchange);
                        }
                        Callback::Response => {
                            gate.on_response_headers(&host, &mut exchange);
                        }
                        Callback::Log => gate.on_log(&host, &mut exchange),
                    }
                }
                let (line, anchor) = line_and_anchor(&host);
                let Some(line) = line else {
                    assert!(sequence.first().is_none_or(|first| *first != Callback::Headers));
                    continue;
                };
                verify(&line);
                let link = Line::parse(&line).unwrap().record.unwrap().link.unwrap();
                assert_eq!((link.seq, &*link.prev), (seq, &*last), "{sequence:?}");
                assert_eq!(&*id.get_or_insert(link.chain.clone()), &link.chain);
                (seq, last) = (seq + 1, link.mac.into_owned());
                assert_eq!(anchor.is_some(), seq.is_multiple_of(2), "{sequence:?}");
                if let Some(anchor) = anchor {
                    verify(&anchor);
                    let come_to = format!(r#""records":{seq},"last":"{last}""#);
                    assert!(anchor.contains(&come_to), "{anchor}");
                }
            }
        }
        assert!(seq > 500, "{seq}");
    }
}

/// Nothing is in a chain that can be taken back: the record is set at the end.
#[test]
fn a_record_is_not_set_before_the_end() {
    let (host, mut exchange) = (host(None), Exchange::default());
    let gate = chained("access_log", &host);
    gate.on_request_headers(&host, &mut exchange, Opening::default());
    assert!(host.filter_state.borrow().is_empty());
    gate.on_log(&host, &mut exchange);
    assert!(host.filter_state.borrow().contains_key(FilterState::Audit.key()));
    let metrics = host.store().metrics();
    let counts = metrics.iter().filter(|(name, _)| name.starts_with("vkey_requests_total"));
    assert_eq!(counts.map(|(_, value)| value).sum::<u64>(), 1);
}

#[test]
fn a_line_that_the_access_loggers_cannot_get_is_in_the_chain_once() {
    let host = host(None);
    let gate = chained("access_log", &host);
    for seq in 0..3 {
        let mut exchange = Exchange::default();
        host.lacks_filter_state.set(true);
        gate.on_request_headers(&host, &mut exchange, Opening::default());
        gate.on_log(&host, &mut exchange);
        let (line, _) = line_and_anchor(&host);
        let record = Line::parse(&line.unwrap()).unwrap().record.unwrap();
        assert_eq!(record.link.unwrap().seq, seq);
    }
}

#[test]
fn a_chain_ends_with_an_anchor() {
    let (host, mut exchange) = (host(None), Exchange::default());
    let gate = chained("log", &host);
    gate.on_delete(&host);
    assert!(host.log.take().is_empty(), "it has no record");
    gate.on_request_headers(&host, &mut exchange, Opening::default());
    gate.on_log(&host, &mut exchange);
    host.log.take();
    gate.on_delete(&host);
    let log = host.log.take();
    let [(Level::Warn, anchor)] = &*log else { panic!("{log:?}") };
    verify(anchor);
    assert!(anchor.contains(r#""records":1,"#) && anchor.contains(r#""end":true"#), "{anchor}");
}

/// Proxies with the same clock and without randomness differ by their nodes.
#[test]
fn chains_of_different_proxies_have_different_ids() {
    let id = |node: &str| {
        let host = host(None);
        host.show("xds\0node\0id", node);
        let (gate, mut exchange) = (chained("log", &host), Exchange::default());
        gate.on_request_headers(&host, &mut exchange, Opening::default());
        gate.on_log(&host, &mut exchange);
        let line = line_and_anchor(&host).0.unwrap();
        Line::parse(&line).unwrap().record.unwrap().link.unwrap().chain
    };
    assert_ne!(id("a"), id("b"));
}

#[test]
fn without_its_audit_secret_a_gate_refuses_everything() {
    let config =
        br#"{"keyring": [{"name": "main", "secret": "${S}"}], "audit": {"secret": "${A}"}}"#;
    for (value, said) in [
        (None, "environment variable A is not set or empty"),
        (Some("short"), "environment variable A: the secret is too short"),
    ] {
        let (host, mut exchange) = (host(Some(&token())), Exchange::default());
        let secret = |name: &str| match name {
            "A" => value.map(str::to_owned),
            _ => Some(SECRET.to_owned()),
        };
        let config = Config::parse(config).unwrap();
        let gate = Gate::configure(config, Policy::strictest(), secret, &host);
        gate.on_request_headers(&host, &mut exchange, Opening::default());
        let decision = exchange.decided().unwrap().decision();
        assert_eq!(decision, Decision::Deny(DenyReason::NotReady));
        let log = host.log.take();
        assert!(log.iter().any(|(_, line)| line.contains(said)), "{log:?}");
    }
}
