//! Credentials go to the host that they are for, over a connection that was judged, and nowhere else.

use crate::host::HostError;

use super::*;

const CREDENTIALS: &str = r#", "credentials": [
    {"name": "openai", "hosts": ["api.openai.com"], "header": "authorization", "value": "Bearer ${KEY}"},
    {"name": "corp", "hosts": ["*.example"], "header": "x-corp-key", "value": "${CORP}"}
]"#;

fn bench() -> Bench {
    Bench::with(CREDENTIALS)
}

fn authorization(bench: &Bench, id: u32) -> Option<String> {
    bench.proxy.header(id, "authorization")
}

#[test]
fn a_credential_goes_to_its_host_over_a_connection_that_was_verified() {
    let bench = bench();
    bench.send(1, Facts::good().grants("openai"));
    bench.passed(1, "verified", 0);
    assert_eq!(authorization(&bench, 1).as_deref(), Some("Bearer value-of-KEY"));
    // Whatever else the front says beside it.
    bench.send(2, Facts::good().grants("other openai corp"));
    assert_eq!(authorization(&bench, 2).as_deref(), Some("Bearer value-of-KEY"));
    assert_eq!(bench.proxy.header(2, "x-corp-key"), None);
}

#[test]
fn an_attempt_that_waits_gets_it_when_it_was_judged() {
    let bench = bench();
    let connecting = Facts::connecting("api.openai.com").grants("openai");
    assert_eq!(bench.send(1, connecting), Action::Pause);
    assert_eq!(authorization(&bench, 1), None);
    bench.proxy.show(1, Facts::good().grants("openai"));
    bench.tick();
    bench.passed(1, "verified", 1);
    assert_eq!(authorization(&bench, 1).as_deref(), Some("Bearer value-of-KEY"));
}

#[test]
fn nothing_else_gets_a_credential() {
    let bench = bench();
    let cases = [
        ("not granted", Facts::good()),
        ("another granted", Facts::good().grants("corp")),
        ("part of a name", Facts::good().grants("open openai2 +openai")),
        ("a mirrored request", Facts::good().mirrored()),
        ("another host", Facts::of("other.test").grants("openai")),
        ("a skipped host", Facts::of("dev.example").unencrypted().grants("corp")),
    ];
    for (id, (about, facts)) in (1..).zip(cases) {
        bench.send(id, facts);
        assert_eq!(bench.proxy.outcome(id).1, 0, "{about} is not refused");
        assert_eq!(authorization(&bench, id), None, "{about}");
        assert_eq!(bench.proxy.header(id, "x-corp-key"), None, "{about}");
    }
    let refused = [
        ("plaintext", Facts::plaintext().grants("openai"), Reason::UpstreamPlaintext),
        (
            "another name",
            Facts::good().digest(SPARE).name("b.test").grants("openai"),
            Reason::UpstreamName,
        ),
    ];
    for (id, (about, facts, reason)) in (11..).zip(refused) {
        bench.send(id, facts);
        bench.refused(id, reason);
        assert_eq!(authorization(&bench, id), None, "{about}");
    }
}

/// A credential makes the gate judge a host that no rule is for.
#[test]
fn an_unlisted_host_is_verified_before_it_gets_a_credential() {
    let bench = bench();
    bench.send(1, Facts::of("llm.example").grants("corp"));
    bench.passed(1, "verified", 0);
    assert_eq!(bench.proxy.header(1, "x-corp-key").as_deref(), Some("value-of-CORP"));
    bench.send(2, Facts::of("llm.example").unencrypted().grants("corp"));
    bench.refused(2, Reason::UpstreamPlaintext);
    bench.send(3, Facts::of("llm.example").digest(SPARE).name("b.example").grants("corp"));
    bench.refused(3, Reason::UpstreamName);
    // Without one it is only observed.
    bench.send(4, Facts::of("llm.example").unencrypted());
    bench.passed(4, "unlisted", 0);
}

/// The attempts of a request share one header map.
#[test]
fn what_an_earlier_attempt_carried_is_removed() {
    let bench = bench();
    bench.proxy.give(1, "authorization", "Bearer value-of-KEY");
    bench.send(1, Facts::of("other.test").grants("openai"));
    bench.passed(1, "unlisted", 0);
    assert_eq!(authorization(&bench, 1), None);
    // What the module granted nothing for is the client's own.
    bench.proxy.give(2, "authorization", "Basic YTpi");
    bench.send(2, Facts::of("other.test"));
    assert_eq!(authorization(&bench, 2).as_deref(), Some("Basic YTpi"));
}

#[test]
fn a_host_that_edits_nothing_gets_nothing() {
    let bench = bench();
    bench.proxy.edits.set(Some(HostError::UNIMPLEMENTED));
    bench.send(1, Facts::good().grants("openai"));
    bench.refused(1, Reason::NotReady);
}

#[test]
fn a_gate_without_its_secret_lets_nothing_pass() {
    let proxy = Proxy::default();
    let text = format!(r#"{{"role": "upstream_tls"{CREDENTIALS}}}"#);
    let RoleConfig::UpstreamTls(config) = RoleConfig::parse(text.as_bytes()).unwrap() else {
        panic!("the role is upstream_tls");
    };
    let unset = |name: &str| (name == "KEY").then(|| "sk".to_owned());
    let gate = UpstreamGate::new(policy(), &config, unset, &proxy);
    proxy.show(1, Facts::good());
    let mut attempt = Attempt::default();
    assert_eq!(gate.on_request_headers(&proxy, 1, &mut attempt), Action::Pause);
    assert_eq!(proxy.reply(1), reply(Reason::NotReady, Refusal::default()));
    let log = proxy.memory.log.take();
    let said = |(_, line): &(_, String)| line.contains("CORP is not set or empty");
    assert!(log.iter().any(said) && !log.iter().any(|(_, line)| line.contains("sk")), "{log:?}");
}

#[test]
fn the_verdict_says_whether_anything_has_left() {
    let bench = bench();
    let state = |id: u32, facts: Facts| {
        bench.send(id, facts);
        bench.proxy.state(id).unwrap()
    };
    let plaintext = Facts::plaintext;
    assert_eq!(state(1, plaintext()), "upstream_plaintext unsent");
    let earlier = "upstream_plaintext unsent";
    assert_eq!(state(2, plaintext().after(earlier)), "upstream_plaintext unsent");
    assert_eq!(state(3, plaintext().after("upstream_pin sent")), "upstream_plaintext sent");
    let released = "verified 192.0.2.1:40001";
    assert_eq!(state(4, plaintext().after(released)), "upstream_plaintext sent");
    bench.send(5, Facts::good());
    bench.answer(5, Facts::good().digest(SPARE));
    assert_eq!(bench.proxy.state(5).unwrap(), "upstream_unproven sent");
}
