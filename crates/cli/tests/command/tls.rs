//! The policy in force, and how upstreams stand.

use serde_json::{Value, json};

use crate::harness::{Gate, Vkey, root, text};
use crate::usage::{NOBODY, Server, fails};

fn policy() -> String {
    text(root().join("testdata/lint/policy.json"))
}

fn show(args: &[&str]) -> Vkey {
    let fixed = ["tls", "show", "--policy", &policy(), "--now", "2026-11-22T00:00:00Z"];
    Vkey::new(&[&fixed, args].concat())
}

fn json(vkey: Vkey) -> Value {
    serde_json::from_str(&vkey.ok().out).expect("JSON")
}

const PINS: &str = "1111111111111111111111111111111111111111111111111111111111111111 \
                    2222222222222222222222222222222222222222222222222222222222222222";

#[test]
fn the_policy_in_force_is_shown() {
    let out = show(&[]).ok().out;
    let shown = "\
default      TLSv1.2 or later
unlisted     observed: recorded, without a provider credential
known host   api.openai.com
known host   *.openai.azure.com
rule         llm.corp.example: TLSv1.3 or later, 2 pins, with a client certificate
rule         dev-llm.example: not verified until 2027-04-01T00:00:00Z (owner: platform; reason: \
self-signed lab box)
rule         old-llm.example: verified again since 2026-04-01T00:00:00Z: the exception has expired \
(owner: platform; reason: was to be renewed)
";
    let (digest, rest) = out.split_once('\n').expect("lines");
    assert_eq!(rest, shown);
    let shown = json(show(&["--json"]));
    assert_eq!(digest, format!("digest       {}", shown["digest"].as_str().expect("text")));
    assert_eq!(shown["upstreams"][2]["skip"]["expired"], json!(true));
    assert_eq!(shown["upstreams"][1]["skip"]["expired"], json!(false));
}

#[test]
fn without_a_file_it_is_the_policy_compiled_in() {
    let shown = json(Vkey::new(&["tls", "show", "--json"]));
    let compiled = std::fs::read(env!("VKEY_UPSTREAM_TLS_POLICY")).expect("readable");
    assert_eq!(shown["digest"], vkey::digest::sha256_hex(&compiled));
    let known = shown["known_hosts"].as_array().expect("a list");
    assert!(known.contains(&json!("api.openai.com")));
}

#[test]
fn the_requirements_for_a_host_are_shown_with_reasons() {
    let shown = |host: &str, lines: &str| {
        assert_eq!(show(&["--host", host]).ok().out, lines, "{host}");
    };
    shown(
        "LLM.corp.example.:8443",
        &format!(
            "host         llm.corp.example\n\
             demand       a certificate for the host's name\n\
             version      TLSv1.3 or later\n\
             pins         {PINS}\n\
             certificate  a client certificate of the proxy\n\
             because      rule llm.corp.example: TLSv1.3 or later, 2 pins, with a client \
             certificate\n"
        ),
    );
    shown(
        "eu.api.openai.com",
        "host         eu.api.openai.com\n\
         demand       a certificate for the host's name\n\
         version      TLSv1.2 or later\n\
         because      api.openai.com is a known host\n",
    );
    shown(
        "echo",
        "host         echo\n\
         demand       none: recorded as unlisted, without a provider credential\n\
         because      no rule is for it\n",
    );
    let demand = |host: &str| json(show(&["--json", "--host", host]))["demand"].clone();
    assert_eq!(demand("dev-llm.example"), "skip");
    assert_eq!(demand("old-llm.example"), "verify");
    assert_eq!(demand("user@api.openai.com"), "refuse");
    assert_eq!(demand("echo"), "unlisted");
}

#[test]
fn a_host_that_cannot_be_read_is_refused() {
    for host in ["", "127.1", "http://api.openai.com/", "user@x"] {
        let out = show(&["--host", host]).ok().out;
        let expected = "host         unreadable\n\
                        demand       cannot be satisfied: every connection is refused (upstream_name)\n\
                        because      it can be read in more than one way, so it could be any host\n";
        assert_eq!(out, expected, "{host}");
    }
    for pattern in ["*.x", "*"] {
        show(&["--host", pattern]).refused(2, "expected a host, not a pattern");
    }
}

#[test]
fn the_policy_is_shown_with_the_rules_of_a_configuration() {
    let gate = Gate::new();
    let config = r#"{"keyring":[],"upstream_tls":{"tighten":[
        {"host":"*","min_version":"TLSv1.3"},{"host":"echo","client_certificate":true}]}}"#;
    let config = gate.file("config.json", config);
    let shown = json(show(&["--json", "--host", "echo", "--config", &config]));
    assert_eq!(shown["min_version"], "TLSv1.3");
    assert_eq!(shown["client_certificate"], true);
    let why = ["tightened *: TLSv1.3 or later", "tightened echo: with a client certificate"];
    assert_eq!(shown["because"], json!(why));
    let out = show(&["--config", &config]).ok().out;
    assert!(out.contains("\ntightened    *: TLSv1.3 or later\n"), "{out}");
    let nothing = gate.file("nothing.json", "{}");
    assert_eq!(show(&["--config", &nothing]).ok().out, show(&[]).ok().out);
    let skip = r#"{"upstream_tls":{"tighten":[{"host":"a","insecure_skip_verify":{}}]}}"#;
    let skip = gate.file("skip.json", skip);
    show(&["--config", &skip]).refused(1, "upstream_tls.tighten[0].insecure_skip_verify: unknown");
}

#[test]
fn an_invalid_policy_is_reported_with_its_line() {
    let gate = Gate::new();
    let show = |policy: &str| Vkey::new(&["tls", "show", "--policy", policy]);
    let wrong = "{\"version\": 1,\n\"default\": {\"min_version\": \"TLSv1.2\"},\n\
                 \"known_hosts\": [\"a\",\n\"B\"]}";
    let wrong = gate.file("wrong.json", wrong);
    show(&wrong).refused(1, "wrong.json:4: known_hosts[1]: expected a host name");
    show(&gate.file("empty.json", "")).refused(1, "empty.json:1: not valid JSON");
    show(&gate.file("huge.json", vec![b' '; (1 << 20) + 1])).refused(1, "longer than");
    show(&text(gate.dir.file("missing"))).refused(3, "--policy cannot be read");
    show(&text(gate.dir.path().to_owned())).refused(3, "--policy cannot be read");
    let both = Vkey::new(&["tls", "show", "--policy", "-", "--config", "-"]);
    both.refused(2, "cannot both be read from standard input");
}

fn stats(stats: &[(&str, u64)]) -> String {
    let stat = |(name, value): &(&str, u64)| json!({"name": format!("wasmcustom.vkey_upstream_tls_{name}"), "value": value});
    let stats: Vec<Value> = stats.iter().map(stat).collect();
    json!({"stats": stats}).to_string()
}

fn status(body: &str, args: &[&str]) -> (i32, String) {
    let server = Server::answering("200 OK", body);
    let url = format!("http://{}/", server.address);
    let done = Vkey::new(&[&["tls", "status", &url], args].concat()).run();
    assert_eq!(done.err, "");
    let asked = server.asked();
    assert_eq!(asked[0], "GET /stats?format=json&filter=vkey_upstream_tls_ HTTP/1.1");
    (done.code, done.out)
}

const JUDGED: &[(&str, u64)] = &[
    ("policy_info.digest.0a1b", 1),
    ("policy_info.digest.old", 0),
    ("total.verdict.verified.upstream.openai", 120),
    ("since_seconds.verdict.verified.upstream.openai", 1_790_000_000),
    ("total.verdict.upstream_pin.upstream.openai", 3),
    ("since_seconds.verdict.upstream_pin.upstream.openai", 0),
    ("total.verdict.skip.upstream.dev", 4),
    ("since_seconds.verdict.skip.upstream.dev", 1_790_000_000),
    ("skip_until_seconds.upstream.dev", 4_102_444_800),
    ("total.verdict.plaintext.upstream.local", 5),
    ("since_seconds.verdict.plaintext.upstream.local", 1_790_000_000),
    ("skip_until_seconds.upstream.local", 4_102_444_800),
    ("since_seconds.verdict.stamped.upstream.outbound|443||a.b", 1_790_000_000),
    ("since_seconds.verdict.unlisted.upstream.echo", 1_790_000_000),
    ("something_new.of.a.newer.module", 7),
];

#[test]
fn upstreams_stand_as_the_metrics_say() {
    let (code, out) = status(&stats(JUDGED), &[]);
    let since = "2026-09-21T14:13:20Z";
    let expected = format!(
        "dev: skipped until 2100-01-01T00:00:00Z; skip 4\n\
         echo: unlisted since {since}, so not verified; no requests\n\
         local: plaintext since {since}, which a credential allows until 2100-01-01T00:00:00Z; plaintext 5\n\
         openai: verified since {since}; upstream_pin 3, verified 120\n\
         \"outbound|443||a.b\": verified since {since}, in part by its stamp; no requests\n\
         policy 0a1b\n"
    );
    assert_eq!((code, out), (0, expected));
}

#[test]
fn an_upstream_that_is_refused_fails_the_command() {
    let failing = stats(&[
        ("total.verdict.upstream_version.upstream.a.b", 2),
        ("since_seconds.verdict.upstream_version.upstream.a.b", 1_790_000_000),
        ("since_seconds.verdict.verified.upstream.a.b", 1_780_000_000),
    ]);
    let (code, out) = status(&failing, &[]);
    let expected = "a.b: failing since 2026-09-21T14:13:20Z, upstream_version: the upstream speaks \
                    a version of TLS that the policy does not allow; upstream_version 2\n";
    assert_eq!((code, out.as_str()), (1, expected));
    let (code, out) = status(&failing, &["--json"]);
    let out: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, 1);
    assert_eq!(
        out["upstreams"],
        json!([{"upstream": "a.b", "verdict": "upstream_version", "since_secs": 1_790_000_000,
                "skip_until_secs": null, "failing": true, "requests": {"upstream_version": 2}}])
    );
}

#[test]
fn a_skip_that_is_over_is_said_to_be() {
    let over = stats(&[
        ("since_seconds.verdict.skip.upstream.dev", 1_600_000_000),
        ("skip_until_seconds.upstream.dev", 1_700_000_000),
    ]);
    let (code, out) = status(&over, &[]);
    let expected =
        "dev: skipped since 2020-09-13T12:26:40Z; the exception is over by now; no requests\n";
    assert_eq!((code, out.as_str()), (0, expected));
}

#[test]
fn without_metrics_no_upstream_has_been_checked() {
    let none = "no upstream has been checked yet\n";
    assert_eq!(status(r#"{"stats":[]}"#, &[]), (0, none.to_owned()));
    let empty = "{\"upstreams\":[],\"policies\":[]}\n";
    assert_eq!(status(r#"{"stats":[]}"#, &["--json"]), (0, empty.to_owned()));
    let known = format!("policy a\n{none}");
    assert_eq!(status(&stats(&[("policy_info.digest.a", 1)]), &[]), (0, known));
}

#[test]
fn a_response_without_metrics_is_rejected() {
    let answer = |body: &str, says: &str| {
        let server = Server::answering("200 OK", body);
        Vkey::new(&["tls", "status", &format!("http://{}", server.address)]).refused(1, says);
    };
    answer("", "the response has no metrics of Envoy");
    answer("{}", "the response has no metrics of Envoy; check the URL");
    answer("{\"stats\": [}", "the response has no metrics of Envoy: not valid JSON, line 1");
    answer(&" ".repeat((8 << 20) + 1), "longer than 8388608 bytes");
    Vkey::new(&["tls", "status", NOBODY]).refused(3, "cannot connect to the admin interface");
    Vkey::new(&["tls", "status", "http://gw.example:9901"]).refused(2, "--allow-http");
    Vkey::new(&["tls", "status", "127.0.0.1:9901"]).refused(2, "expected an http or https URL");
    Vkey::new(&["tls", "status", "http://127.0.0.1:1/stats?a"]).refused(2, "no query");
    let refusal = Server::answering("403 Forbidden", "");
    let says = "the admin interface returned 403 without a reason; check the URL";
    fails(Vkey::new(&["tls", "status", &format!("http://{}", refusal.address)]), 1, says);
}
