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

// === without TLS ===

/// The end of the exception: midnight after 2027-03-31, as in the policy.
const PLAINTEXT: &str = r#", "credentials": [
    {"name": "corp", "hosts": ["*.mesh", "127.0.0.1", "[::1]", "pinned.example", "dev.example"],
     "header": "x-corp-key", "value": "${CORP}",
     "plaintext": {"reason": "sidecar", "owner": "platform", "until": "2027-03-31"}},
    {"name": "other", "hosts": ["*.mesh"], "header": "x-other", "value": "${OTHER}"}
]"#;

fn corp_key(bench: &Bench, id: u32) -> Option<String> {
    bench.proxy.header(id, "x-corp-key")
}

fn ended(bench: &Bench) -> usize {
    let log = bench.proxy.memory.log.borrow();
    log.iter().filter(|(_, line)| line.contains("its plaintext ended at 2027-04-01")).count()
}

#[test]
fn an_exception_lets_a_credential_go_without_tls_until_its_day_ends() {
    let bench = Bench::with(PLAINTEXT);
    for (id, host) in (1..).zip(["llm.mesh", "a.b.mesh", "127.0.0.1", "[::1]", "[::1]:8080"]) {
        bench.send(id, Facts::of(host).unencrypted().grants("corp"));
        bench.passed(id, "plaintext", 0);
        assert_eq!(corp_key(&bench, id).as_deref(), Some("value-of-CORP"), "{host}");
        assert_eq!(bench.answer(id, Facts::of(host).unencrypted()), Action::Continue);
    }
    let shown = bench.proxy.metric("vkey_upstream_tls_skip_until_seconds.upstream.llm");
    assert_eq!(shown, Some(SKIP_UNTIL_SECS));
    bench.at(SKIP_UNTIL_SECS - START_SECS - 1, 0);
    bench.send(8, Facts::of("llm.mesh").unencrypted().grants("corp"));
    bench.passed(8, "plaintext", 0);
    assert_eq!(ended(&bench), 0);
    for id in [9, 10] {
        bench.at(SKIP_UNTIL_SECS - START_SECS, 0);
        bench.send(id, Facts::of("llm.mesh").unencrypted().grants("corp"));
        bench.refused(id, Reason::UpstreamUnproven);
        assert_eq!(corp_key(&bench, id), None);
    }
    assert_eq!(ended(&bench), 1, "said once");
    // With TLS it goes on as before.
    bench.send(11, Facts::of("llm.mesh").grants("corp"));
    bench.passed(11, "verified", 0);
    assert_eq!(corp_key(&bench, 11).as_deref(), Some("value-of-CORP"));
}

#[test]
fn without_a_clock_no_exception_is_in_force() {
    let bench = Bench::with(PLAINTEXT);
    bench.proxy.memory.now_ns.set(None);
    bench.send(1, Facts::of("llm.mesh").unencrypted().grants("corp"));
    bench.refused(1, Reason::UpstreamUnproven);
}

#[test]
fn an_exception_is_for_its_credential_and_for_plaintext_alone() {
    let bench = Bench::with(PLAINTEXT);
    let mesh = || Facts::of("llm.mesh").unencrypted();
    let refused = [
        ("another credential", mesh().grants("other"), Reason::UpstreamPlaintext),
        ("attached in front", mesh().grants("+attached corp"), Reason::UpstreamPlaintext),
        ("a mirrored request", mesh().mirrored(), Reason::UpstreamPlaintext),
        (
            "another name in the certificate",
            Facts::of("llm.mesh").digest(SPARE).name("b.test").grants("corp"),
            Reason::UpstreamName,
        ),
        ("old TLS", Facts::of("llm.mesh").version("TLSv1").grants("corp"), Reason::UpstreamVersion),
    ];
    for (id, (about, facts, reason)) in (1..).zip(refused) {
        bench.send(id, facts);
        bench.refused(id, reason);
        assert_eq!(corp_key(&bench, id), None, "{about}");
    }
    // A request that gets none is only observed, and so is one for another host.
    for (id, host) in (11..).zip(["llm.mesh", "mesh", "127.0.0.2"]) {
        let granted = if host == "llm.mesh" { "no-such" } else { "corp" };
        bench.send(id, Facts::of(host).unencrypted().grants(granted));
        bench.passed(id, "unlisted", 0);
        assert_eq!(corp_key(&bench, id), None);
    }
}

/// Law: no configuration weakens the policy that is compiled in.
#[test]
fn an_exception_loosens_no_rule() {
    let bench = Bench::with(PLAINTEXT);
    bench.send(1, Facts::of("pinned.example").unencrypted().grants("corp"));
    bench.refused(1, Reason::UpstreamPlaintext);
    bench.send(2, Facts::of("dev.example").unencrypted().grants("corp"));
    bench.passed(2, "skip", 0);
    for rule in [r#"{"host": "*"}"#, r#"{"host": "llm.mesh"}"#] {
        let tightened =
            Bench::with(&format!(r#"{PLAINTEXT}, "upstream_tls": {{"tighten": [{rule}]}}"#));
        tightened.send(3, Facts::of("llm.mesh").unencrypted().grants("corp"));
        tightened.refused(3, Reason::UpstreamPlaintext);
    }
    let stamped =
        Bench::with(&format!(r#"{PLAINTEXT}, "upstream_tls": {{"require_stamp": true}}"#));
    stamped.send(4, Facts::of("llm.mesh").unencrypted().grants("corp"));
    stamped.refused(4, Reason::UpstreamUnproven);
    for (id, bench) in [(1, &bench), (2, &bench), (4, &stamped)] {
        assert_eq!(corp_key(bench, id), None, "{id}");
    }
}

/// A response over another connection than the one without TLS is withheld.
#[test]
fn the_response_must_come_over_the_same_connection() {
    let bench = Bench::with(PLAINTEXT);
    bench.send(1, Facts::of("llm.mesh").unencrypted().grants("corp"));
    assert_eq!(bench.answer(1, Facts::of("llm.mesh")), Action::Pause);
    assert_eq!(bench.proxy.reply(1), reply(Reason::UpstreamUnproven, Refusal::default()));
}

/// The gate in front attaches the credential, and says until when and to which host it may go without TLS.
#[test]
fn a_credential_in_front_brings_its_exception_along() {
    let bench = Bench::new();
    let mesh = |words: &str| Facts::of("llm.mesh").unencrypted().grants(words);
    let good = format!("+attached +plaintext={SKIP_UNTIL_SECS}=llm.mesh");
    bench.send(1, mesh(&good));
    bench.passed(1, "plaintext", 0);
    for (id, words) in (2..).zip([
        "+attached".to_owned(),
        format!("+attached +plaintext={SKIP_UNTIL_SECS}=other.mesh"),
        format!("+attached +plaintext={SKIP_UNTIL_SECS}"),
        format!("+attached +plaintext=x{SKIP_UNTIL_SECS}=llm.mesh"),
    ]) {
        bench.send(id, mesh(&words));
        bench.refused(id, Reason::UpstreamPlaintext);
    }
    // A route has replaced the host.
    bench.send(8, Facts::of("other.mesh").unencrypted().grants(&good));
    bench.refused(8, Reason::UpstreamPlaintext);
    bench.at(SKIP_UNTIL_SECS - START_SECS, 0);
    bench.send(9, mesh(&good));
    bench.refused(9, Reason::UpstreamUnproven);
}

/// What can never go out is in the log at the start, once for all workers.
#[test]
fn a_credential_that_does_not_go_out_is_in_the_log_once() {
    let store = MemoryStore::new(Rules::Envoy);
    let said = |store: &MemoryStore, members: &str| {
        let host = MemoryHost::new(store.clone());
        host.now_ns.set(Some(START_NS));
        let text = format!(r#"{{"role": "upstream_tls"{members}}}"#);
        let RoleConfig::UpstreamTls(config) = RoleConfig::parse(text.as_bytes()).unwrap() else {
            panic!("the role is upstream_tls");
        };
        UpstreamGate::new(policy(), &config, |_| Some("secret".to_owned()), &host);
        let log = host.log.take().into_iter();
        log.map(|(level, line)| (level == Level::Warn).then_some(line).unwrap()).collect::<Vec<_>>()
    };
    // Some host of the suffix has a rule.
    assert_eq!(said(&store, CREDENTIALS), [""; 0]);
    let unlisted = CREDENTIALS.replace("*.example", "*.mesh");
    let first = said(&store, &unlisted);
    let [line] = &*first else { panic!("{first:?}") };
    assert!(line.starts_with("vkey: credential corp: no rule of the policy is for *.mesh, "));
    assert_eq!(said(&store, &unlisted), [""; 0], "another worker");
    assert_eq!(said(&store, PLAINTEXT).len(), 3, "two hosts with rules, and a host of the other");
}
