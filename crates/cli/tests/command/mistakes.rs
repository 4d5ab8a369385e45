//! Keys and configurations that would never work, or never end: refused where they are written.

use serde_json::{Value, json};
use vkey::key::token::Unverified;

use crate::harness::{Gate, NOW, Vkey, attenuate, one_line, secret};

/// What no request can match, and where the error says it is.
const NEVER: [(&str, &str); 15] = [
    (r#"{"paths":["/v1","/v1/"]}"#, "paths[1]: expected a glob that a path can match"),
    (r#"{"paths":["v1/**"]}"#, "paths[0]: expected a glob"),
    (r#"{"paths":["/v1/models?x=1"]}"#, "paths[0]: expected a glob"),
    (r#"{"paths":["/v1/modèle"]}"#, "paths[0]: expected a glob"),
    (r#"{"paths":["/v1/a%2Fb"]}"#, "paths[0]: expected a glob"),
    (r#"{"paths":["/v1/%41"]}"#, "paths[0]: expected a glob"),
    (r#"{"paths":["/v1/../v2"]}"#, "paths[0]: expected a glob"),
    (r#"{"methods":["get"]}"#, "methods[0]: expected a method in upper case"),
    (r#"{"hosts":["gw.example:443"]}"#, "hosts[0]: expected a host name without port"),
    (r#"{"hosts":["*.[::1]"]}"#, "hosts[0]: expected a host name without port"),
    (r#"{"sources":[]}"#, "sources: expected at least one entry"),
    (r#"{"any_of":[{},{"methods":["Get"]}]}"#, "any_of[1].methods[0]: expected a method"),
    (r#"{"nbf":1900000000,"exp":1800000000}"#, "exp: expected a time after nbf"),
    (r#"{"exp":1900000000000}"#, "exp: expected Unix seconds before the year 10000"),
    (
        r#"{"any_of":[{"nbf":1900000000000}]}"#,
        "any_of[0].nbf: expected Unix seconds before the year",
    ),
];

const MINT: [&str; 7] = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW];

#[test]
fn a_restriction_that_never_holds_is_not_written() {
    let gate = Gate::new();
    let key = gate.mint(&[]);
    for (restriction, says) in NEVER {
        Vkey::new(&["attenuate", "--caveat", "{}", "--caveat", restriction])
            .stdin(&key)
            .refused(1, &format!("--caveat 2: {says}"));
        for option in ["--only", "--caveat"] {
            gate.vkey(&[&MINT[..], &[option, restriction]].concat()).refused(1, says);
        }
        let only: Value = serde_json::from_str(restriction).expect("JSON");
        for of in ["tiers", "tenants"] {
            let config = json!({
                "keyring": [{"name": "main", "secret": "${MAIN}"}], of: {"acme": {"only": &only}}
            });
            let place = format!("invalid configuration: {of}.acme.only.{says}");
            let file = gate.file("c.json", config.to_string());
            Vkey::new(&["config", "check", &file]).refused(1, &place);
            // Every command that reads a configuration reads the same.
            let args = [&MINT[..], &["--config", &file]].concat();
            Vkey::new(&args).env("MAIN", &gate.secret).refused(1, &place);
        }
    }
    let clients = json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}], "client": {"allow": [], "deny": []},
    });
    Vkey::new(&["config", "check", "-"])
        .stdin(clients.to_string())
        .refused(1, "client.allow: expected at least one network");
    let gate_of_a_cluster = json!({
        "role": "upstream_tls", "credentials": [
            {"name": "a", "hosts": ["*.[::1]"], "header": "authorization", "value": "Bearer ${A}"}],
    });
    Vkey::new(&["config", "check", "-"])
        .stdin(gate_of_a_cluster.to_string())
        .refused(1, "credentials[0].hosts[0]: expected a host name without port");
}

#[test]
fn a_restriction_that_can_hold_is_written_as_it_stands() {
    let gate = Gate::new();
    let caveat = r#"{"methods":["GET","M-SEARCH"],"paths":["/v1/**","/","**.json","/v1/a%20b"],"hosts":["*.example","[::1]","gw"],"sources":["10.0.0.0/8"],"exp":253402300799}"#;
    let key = attenuate(&gate.mint(&["--only", caveat]), caveat);
    gate.allows(&key, &["--host", "gw", "--source", "10.1.2.3"]);
}

/// Only who knows the key's tier knows whether its paths may have an escaped slash.
#[test]
fn an_escaped_slash_is_written_where_the_tier_keeps_it() {
    const GLOB: &str = r#"{"paths":["/models/meta%2Fllama"]}"#;
    const SAYS: &str = "paths[0]: expected a glob without %2F, which no path has unless the key's tier \
                        says \"escaped_slashes\": \"keep\"";
    let gate = Gate::new();
    let only: Value = serde_json::from_str(GLOB).expect("JSON");
    let config = json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"models": {"escaped_slashes": "keep", "only": &only}, "others": {}},
        "tenants": {"acme": {"only": &only}},
    });
    let file = gate.file("c.json", config.to_string());
    Vkey::new(&["config", "check", &file]).ok();
    let of_nobody = config.to_string().replace("keep", "refuse");
    Vkey::new(&["config", "check", "-"]).stdin(of_nobody).refused(1, SAYS);

    let mint = |more: &[&str]| {
        let args = [&MINT[..], &["--config", &file], more].concat();
        Vkey::new(&args).env("MAIN", &gate.secret)
    };
    for option in ["--only", "--caveat"] {
        one_line(&mint(&["--tier", "models", option, GLOB]).ok());
        mint(&["--tier", "others", option, GLOB]).refused(1, SAYS);
        mint(&[option, GLOB]).refused(1, SAYS);
        let alone = [&MINT[..], &["--ring", "main", "--secret-env", "MAIN", option, GLOB]].concat();
        let alone =
            |more: &[&str]| Vkey::new(&[&alone[..], more].concat()).env("MAIN", &gate.secret);
        alone(&[]).refused(1, SAYS);
        one_line(&alone(&["--keep-escaped-slashes"]).ok());
    }
    mint(&["--keep-escaped-slashes"]).refused(2, "--keep-escaped-slashes");

    let key = one_line(&mint(&["--tier", "models"]).ok());
    let narrowed =
        Vkey::new(&["attenuate", "--now", NOW, "--keep-escaped-slashes", "--caveat", GLOB]);
    let narrowed = one_line(&narrowed.stdin(&key).ok());
    let path = ["--method", "GET", "--path", "/models/meta%2fllama", "--now", NOW];
    let explain = [&["explain", "--config", &file][..], &path].concat();
    Vkey::new(&explain).env("MAIN", &gate.secret).stdin(&narrowed).ok();
    // Nobody is told that such a key is dead, or one with a slash at the end of a glob, which it is not.
    let slash = Unverified::parse(narrowed.as_bytes()).expect("a key");
    let slash = slash.attenuate(br#"{"paths":["/models/meta%2Fllama/"]}"#).expect("room");
    assert_eq!(Vkey::new(&["inspect"]).stdin(&slash).ok().err, "");
    Vkey::new(&explain).env("MAIN", &gate.secret).stdin(&slash).ok();
}

/// The holder of a key can see its limits.
#[test]
fn inspect_shows_dates_and_what_no_request_can_match() {
    let gate = Gate::new();
    let key = gate.mint(&["--only", r#"{"exp":1800000000}"#, "--not-before", NOW]);
    let key = attenuate(
        &key,
        r#"{"nbf":1790000060,"exp":1790000120,"any_of":[{"exp":1790003600},{"paths":["/v1/**"]}]}"#,
    );
    let shown = Vkey::new(&["inspect"]).stdin(&key).ok();
    for line in [
        "issued      2026-09-21T14:13:20Z",
        "not before  2026-09-21T14:13:20Z",
        "expires     2026-09-21T15:13:20Z",
        "expires     2027-01-15T08:00:00Z  (only)",
        "not before  2026-09-21T14:14:20Z  (caveat 1)",
        "expires     2026-09-21T14:15:20Z  (caveat 1)",
        "expires     2026-09-21T15:13:20Z  (caveat 1, any_of[0])",
    ] {
        assert!(shown.out.lines().any(|shown| shown == line), "{} lacks {line}", shown.out);
    }
    assert_eq!(shown.err, "");

    let out_there = |caveat: &str| {
        let key = Unverified::parse(key.as_bytes()).expect("a key");
        key.attenuate(caveat.as_bytes()).expect("room")
    };
    let never = Vkey::new(&["inspect"]).stdin(out_there(r#"{"paths":["/v1/models?x=1"]}"#)).ok();
    assert!(never.err.contains("caveat 2: paths[0]: expected a glob that a path can match"));
    assert!(never.err.contains("no request can match it"), "{}", never.err);
    let late = Vkey::new(&["inspect"]).stdin(out_there(r#"{"exp":1900000000000}"#)).run();
    assert_eq!(late.code, 1);
    assert!(
        late.err.contains(
            "caveat 2: exp: expected Unix seconds before the year 10000, not milliseconds; a gate \
             refuses the key"
        ),
        "{}",
        late.err
    );
    gate.denies(&out_there(r#"{"exp":1900000000000}"#), &[], "caveat_unsupported");
}

#[test]
fn durations_are_in_four_units() {
    let gate = Gate::new();
    let options: [&[&str]; 9] = [
        &["mint", "--tenant", "acme", "--lifetime"],
        &["mcp", "--setup", "none", "--lifetime"],
        &["run", "--deadline"],
        &[
            "mint", "--tenant", "a", "--ring", "main", "--secret-env", "MAIN", "--lifetime", "1h",
            "--interval",
        ],
        &["mcp", "--deadline"],
        &["mcp", "--timeout"],
        &["mcp", "--max-time"],
        &["usage", "--url", "https://gw.example", "--timeout"],
        &["tls", "status", "http://127.0.0.1:1", "--timeout"],
    ];
    for option in options {
        let name = option.last().copied().unwrap_or_default();
        for wrong in
            ["15M", "1H", "1D", "90S", "1w", "1 month", "2 hours", "1min", "60", "1h 30", "1.5h"]
        {
            let args = [option, &[wrong][..]].concat();
            let says = format!("for '{name} <DURATION>': expected a duration");
            Vkey::new(&args).env("MAIN", &gate.secret).refused(2, &says);
        }
    }
    let expires = |lifetime: &str| {
        let args = ["mint", "--tenant", "acme", "--now", NOW, "--lifetime", lifetime];
        let done = gate.vkey(&args).ok();
        done.err.trim_end().rsplit_once("expires ").expect("a time").1.to_owned()
    };
    assert_eq!(expires("15m"), "2026-09-21T14:28:20Z");
    assert_eq!(expires("1d 2h 3m 4s"), "2026-09-22T16:16:24Z");
    assert_eq!(expires("1h30m"), expires("5400s"));
}

#[test]
fn times_have_offsets_and_small_letters() {
    let gate = Gate::new();
    let expires = |now: &str, more: &[&str]| {
        let args = [&["mint", "--tenant", "acme", "--lifetime", "1h", "--now", now], more].concat();
        let done = gate.vkey(&args).ok();
        done.err.trim_end().rsplit_once("expires ").expect("a time").1.to_owned()
    };
    for now in [
        "2026-09-21T14:13:20Z",
        "2026-09-21t14:13:20z",
        "2026-09-21T16:13:20+02:00",
        "2026-09-21T09:43:20-04:30",
        NOW,
    ] {
        assert_eq!(expires(now, &[]), "2026-09-21T15:13:20Z", "{now}");
        assert_eq!(expires(now, &["--not-before", now]), "2026-09-21T15:13:20Z", "{now}");
        gate.allows(&gate.mint(&[]), &["--now", now]);
    }
    for wrong in ["2026-09-21T14:13:20", "2026-09-21T14:13:20+25:00", "1790000000000"] {
        gate.vkey(&["mint", "--tenant", "a", "--lifetime", "1h", "--now", wrong])
            .refused(2, "--now");
        gate.vkey(&["mint", "--tenant", "a", "--lifetime", "1h", "--not-before", wrong])
            .refused(2, "--not-before");
        gate.vkey(&["run", "--now", wrong]).refused(2, "--now");
    }
}

/// Also a line that is no request has a result that says which one it was.
#[test]
fn the_time_of_a_line_is_read_alike_and_a_wrong_one_keeps_its_id() {
    let gate = Gate::with(&json!({"keyring": [{"name": "main", "secret": "${MAIN}"}]}));
    let key = gate.mint(&[]);
    let line = |id: &str, now: Value| json!({"id": id, "path": "/", "key": key, "now": now});
    let lines = [
        line("offset", json!("2026-09-21T16:13:20+02:00")),
        line("small", json!("2026-09-21t14:13:20z")),
        line("over", json!("2026-09-21T14:13:20-01:00")),
        line("wrong", json!("2026-09-21T14:13:20")),
        json!({"id": {"a": [1]}, "path": "/", "colour": "red"}),
    ];
    let lines: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let done = gate.vkey(&["run", "--now", NOW]).stdin(lines).run();
    let results: Vec<Value> =
        done.out.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let brief = |result: &Value| json!([result["id"], result["decision"], result["reason"]]);
    assert_eq!(
        results.iter().map(brief).collect::<Vec<_>>(),
        [
            json!(["offset", "allow", null]),
            json!(["small", "allow", null]),
            json!(["over", "deny", "key_expired"]),
            json!(["wrong", null, null]),
            json!([{"a": [1]}, null, null]),
        ]
    );
    let error = results[3]["error"].as_str().expect("an error");
    assert!(error.starts_with("now: expected a time, e.g. 2026-12-31T23:59:59Z"), "{error}");
}

#[test]
fn a_secret_with_invisible_characters_is_refused_by_name() {
    let gate = Gate::with(&json!({
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "forward": {"credentials_in_front": true,
                    "credentials": [{"hosts": ["api.example"], "header": "authorization",
                                     "value": "Bearer ${PROVIDER}"}]},
    }));
    let good = secret();
    let (start, end) = good.split_at(20);
    let secrets = [
        (format!("\u{feff}{good}"), "the secret holds U+FEFF, a character that cannot be seen"),
        (format!("{good}\u{200b}"), "the secret holds U+200B"),
        (format!("{good}\u{a0}"), "the secret holds U+00A0"),
        (format!("{start}\u{2060}{end}"), "the secret holds U+2060"),
        (format!(" {good}"), "the secret begins or ends with a space"),
        (format!("{good} "), "the secret begins or ends with a space"),
        (format!("{good}\t"), "the secret holds a control character"),
        (format!("{good}\r\n\n"), "the secret holds a control character"),
    ];
    let by_name = ["mint", "--tenant", "acme", "--lifetime", "1h", "--ring", "main"];
    for (secret, says) in &secrets {
        let file = gate.file("secret", secret);
        let mint = |from: &[&str]| Vkey::new(&[&by_name[..], from].concat());
        mint(&["--secret-file", &file]).refused(1, says);
        mint(&["--secret-file", "-"]).stdin(secret).refused(1, says);
        mint(&["--secret-env", "SECRET"]).env("SECRET", secret).refused(1, says);
        let config = crate::harness::text(gate.dir.file("config.json"));
        let named = |args: &[&str]| {
            Vkey::new(&[args, &["--config", &config]].concat())
                .env("MAIN", secret)
                .env("PROVIDER", "sk-1")
        };
        let says = format!("environment variable MAIN: {says}");
        named(&["mint", "--tenant", "acme", "--lifetime", "1h"]).refused(3, &says);
        let checked = named(&["config", "check", "--env"]).run();
        assert!(checked.code == 1 && checked.err.contains(&says), "{}", checked.err);
        assert!(checked.out.contains("main: not ready, its keys are refused\n"));
        named(&["run"]).refused(3, &says);
        named(&["explain", "--method", "GET", "--path", "/"]).stdin("k").refused(3, &says);
    }
    // What a file ends in is its own.
    let file = gate.file("secret", format!("{good}\r\n"));
    one_line(&Vkey::new(&[&by_name[..], &["--secret-file", &file]].concat()).ok());
    for provider in ["\u{feff}sk-1", "sk-1 ", " sk-1", "sk\u{200b}-1", "sk-1\n"] {
        let says = "environment variable PROVIDER holds characters that a header cannot carry, or begins \
                    or ends with a space";
        gate.vkey(&["config", "check", "--env"]).env("PROVIDER", provider).refused(1, says);
        gate.vkey(&["run"]).env("PROVIDER", provider).refused(3, says);
    }
}

#[test]
fn an_address_stands_in_brackets_or_without() {
    let gate = Gate::new();
    let key = gate.mint(&["--only", r#"{"sources":["2001:db8::/32"]}"#]);
    for source in ["[2001:db8::5]", "[2001:db8::5]:443", "2001:db8::5"] {
        gate.allows(&key, &["--source", source]);
    }
    gate.vkey(&["explain", "--method", "GET", "--path", "/", "--source", "[10.0.0.1]"])
        .refused(2, "--source");
}
