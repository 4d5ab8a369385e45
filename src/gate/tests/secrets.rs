//! Secrets in filter states, and what changes with them.

use super::*;
use crate::time::NANOS_PER_SEC;

const KEY: &str = "filter_state\0vkey.secret.main";

const CONFIG: &str = r#"{"keyring": [
    {"name": "main", "secret": {"filter_state": "vkey.secret.main"}},
    {"name": "next", "secret": {"filter_state": "vkey.secret.next"}}]}"#;

const SECRETS: [&str; 2] = ["Gated-1-in-every-order-2", "Another-3-of-the-same-ring"];

/// A gate whose secrets are not in its environment.
fn gate(host: &MemoryHost) -> Gate {
    let policy = include_bytes!("../../../filters/vkey/upstream-tls.json");
    let config = Config::parse(CONFIG.as_bytes()).unwrap();
    Gate::configure(config, Policy::parse(policy).unwrap(), |_| None, host)
}

fn key(ring: &str, secret: &str) -> String {
    let secret = Secret::parse(secret).unwrap();
    let ring = Ring::new(ring, &secret, RingState::Active, None).unwrap();
    let kid = ring.kid_at(0).unwrap();
    let claims = br#"{"jti":"k","tenant":"acme","iat":0,"exp":1900000000}"#;
    mint(&ring.signing_key(&kid).unwrap(), &kid, claims)
}

/// The reason that a request is refused for; `None` if it passes.
fn refused(gate: &Gate, host: &MemoryHost, key: &str) -> Option<DenyReason> {
    let headers = [
        (":method", "POST"),
        (":path", "/v1"),
        (":authority", "upstream.example"),
        ("x-api-key", key),
    ];
    let headers = headers.map(|(name, value)| (name.into(), value.into()));
    host.headers.replace(Some(headers.into()));
    let mut exchange = Exchange::default();
    gate.on_request_headers(host, &mut exchange, Opening::default());
    exchange.decided().and_then(|decided| decided.decision().reason())
}

fn pass_a_second(host: &MemoryHost) {
    let now_ns = host.now_ns().unwrap();
    host.now_ns.set(Some(now_ns + NANOS_PER_SEC));
}

fn log(host: &MemoryHost) -> String {
    host.log.take().into_iter().map(|(_, line)| line + "\n").collect()
}

#[test]
fn a_secret_that_changes_holds_within_a_second() {
    let host = host(None);
    host.show(KEY, SECRETS[0]);
    let gate = gate(&host);
    let [old, new] = SECRETS.map(|secret| key("main", secret));
    assert_eq!(refused(&gate, &host, &old), None);
    assert_eq!(refused(&gate, &host, &new), Some(DenyReason::KeySignature));
    host.show(KEY, SECRETS[1]);
    assert_eq!(refused(&gate, &host, &old), None, "it was read less than a second ago");
    pass_a_second(&host);
    assert_eq!(refused(&gate, &host, &old), Some(DenyReason::KeySignature), "nor from the cache");
    assert_eq!(refused(&gate, &host, &new), None, "although it was remembered as forged");
}

#[test]
fn a_secret_that_goes_takes_its_keys_with_it_and_not_those_of_other_rings() {
    let host = host(None);
    let gate = gate(&host);
    let main = key("main", SECRETS[0]);
    let next = key("next", SECRETS[1]);
    assert_eq!(refused(&gate, &host, &main), Some(DenyReason::NotReady));
    host.show(KEY, SECRETS[0]);
    assert_eq!(
        refused(&gate, &host, &main),
        None,
        "while no ring is ready, each request is looked at"
    );
    assert_eq!(refused(&gate, &host, &next), Some(DenyReason::NotReady));
    host.show("filter_state\0vkey.secret.next", SECRETS[1]);
    pass_a_second(&host);
    assert_eq!(refused(&gate, &host, &next), None);
    assert_eq!(refused(&gate, &host, &main), None);
    host.show(KEY, "");
    pass_a_second(&host);
    assert_eq!(refused(&gate, &host, &main), Some(DenyReason::NotReady));
    assert_eq!(refused(&gate, &host, &next), None);
}

#[test]
fn a_weak_secret_is_none_and_a_line_end_is_not_part_of_one() {
    for weak in ["-", "short", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "\u{0}\u{1}", "\n"] {
        let host = host(None);
        host.show(KEY, weak);
        let gate = gate(&host);
        assert_eq!(refused(&gate, &host, &key("main", SECRETS[0])), Some(DenyReason::NotReady));
        let log = log(&host);
        assert!(log.contains("ring main is not ready: "), "{log}");
    }
    for end in ["\n", "\r\n"] {
        let host = host(None);
        host.show(KEY, [SECRETS[0], end].concat());
        assert_eq!(refused(&gate(&host), &host, &key("main", SECRETS[0])), None);
    }
}

#[test]
fn no_log_has_a_part_of_a_secret() {
    let host = host(None);
    let gate = gate(&host);
    for secret in [SECRETS[0], "short-one", SECRETS[1], ""] {
        host.show(KEY, secret);
        refused(&gate, &host, &key("main", SECRETS[0]));
        pass_a_second(&host);
    }
    let log = log(&host);
    assert!(log.contains("ring main has another secret (filter state vkey.secret.main)"), "{log}");
    assert!(log.contains("ring main is not ready: the state is absent or empty"), "{log}");
    for secret in [SECRETS[0], "short-one", SECRETS[1]] {
        assert!(!log.contains(secret.get(..8).unwrap()), "{log}");
    }
}

/// A secret of an environment must not be in force where a state is asked for.
#[test]
fn no_variable_stands_for_a_state() {
    let host = host(None);
    let policy = include_bytes!("../../../filters/vkey/upstream-tls.json");
    let config = Config::parse(CONFIG.as_bytes()).unwrap();
    let environment = |name: &str| (!name.contains('\0')).then(|| SECRETS[0].to_owned());
    let gate = Gate::configure(config, Policy::parse(policy).unwrap(), environment, &host);
    assert_eq!(refused(&gate, &host, &key("main", SECRETS[0])), Some(DenyReason::NotReady));
    let log = log(&host);
    assert!(log.contains("ring main is not ready: the state is absent or empty"), "{log}");
}

/// Reading a property costs as much as all else that a request needs.
#[test]
fn the_states_are_read_once_a_second() {
    let host = host(None);
    host.show(KEY, SECRETS[0]);
    let (gate, main) = (gate(&host), key("main", SECRETS[0]));
    let reads = || {
        let before = host.property_reads.get();
        assert_eq!(refused(&gate, &host, &main), None);
        host.property_reads.get() - before
    };
    let first = reads();
    let second = reads();
    assert_eq!(first - second, 2, "one for each ring");
    pass_a_second(&host);
    assert_eq!(reads(), first);
}

#[test]
fn a_configuration_names_a_filter_state_or_a_variable() {
    let of = |secret: &str| {
        let text = format!(r#"{{"keyring": [{{"name": "main", "secret": {secret}}}]}}"#);
        Config::parse(text.as_bytes())
    };
    let config = of(r#"{"filter_state": "vkey.secret.main"}"#).unwrap();
    assert_eq!(config.rings()[0].filter_state(), Some("vkey.secret.main"));
    assert_eq!(config.variables().count(), 0);
    for (secret, message) in [
        (r#"{"filter_state": ""}"#, "keyring[0].secret.filter_state: expected vkey.secret."),
        (r#"{"filter_state": "a b"}"#, "keyring[0].secret.filter_state: expected vkey.secret."),
        (r#"{"filter_state": "${S}"}"#, "keyring[0].secret.filter_state: expected vkey.secret."),
        (r#"{"filter_state": 1}"#, "keyring[0].secret.filter_state: expected a string"),
        ("{}", "keyring[0].secret.filter_state: missing"),
        (r#"{"file": "x"}"#, "keyring[0].secret.file: unknown member"),
        (
            r#"{"filter_state": "wasm.vkey.decision"}"#,
            "keyring[0].secret.filter_state: expected vkey.secret.",
        ),
        (
            r#"{"filter_state": "vkey.secret."}"#,
            "keyring[0].secret.filter_state: expected vkey.secret.",
        ),
        ("1", "keyring[0].secret: expected a string"),
        (r#""a literal secret""#, "keyring[0].secret: a secret does not belong"),
    ] {
        let error = of(secret).unwrap_err().to_string();
        assert!(error.starts_with(message), "{secret}: {error}");
    }
}
