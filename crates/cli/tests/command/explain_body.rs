//! What `vkey explain` makes of the body of a request.

use serde_json::json;

use crate::harness::{Gate, NOW, attenuate};

const CHAT: [&str; 4] = ["--method", "POST", "--path", "/v1/chat/completions"];

/// The arguments for a chat with this body in a file.
fn chat(gate: &Gate, body: &str) -> Vec<String> {
    let file = gate.file("body.json", body);
    CHAT.iter().map(|arg| (*arg).to_owned()).chain(["--body".to_owned(), file]).collect()
}

#[test]
fn explain_decides_by_all_models_of_a_body() {
    let gate = Gate::new();
    let only = |restriction: &str| gate.mint(&["--only", restriction]);
    let models = only(r#"{"models":["gpt-4o*"]}"#);
    let either = only(r#"{"any_of":[{"paths":["/v2/x"]},{"models":["gpt-4o"]}]}"#);
    let narrowed = attenuate(&gate.mint(&[]), r#"{"models":["gpt-4o*","o3"]}"#);
    for (key, body, is_allowed) in [
        (&models, r#"{"model":"gpt-4o-mini"}"#, true),
        (&models, r#"{"model":"o3"}"#, false),
        (&models, r#"{"model":"gpt-4o","fallbacks":["o3"]}"#, false),
        (&models, r#"{"messages":[]}"#, false),
        (&either, r#"{"model":"gpt-4o"}"#, true),
        (&narrowed, r#"{"model":"gpt-4o","models":["o3"]}"#, true),
        (&narrowed, r#"{"model":"gpt-4o","models":["o4"]}"#, false),
    ] {
        let args = chat(&gate, body);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if is_allowed {
            let report = gate.allows(key, &args);
            assert_eq!(report["stages"].as_array().unwrap().last().unwrap()["stage"], "body");
        } else {
            gate.denies(key, &args, "model");
        }
    }
    let apart = only(r#"{"any_of":[{"models":["a"]},{"models":["b"]}]}"#);
    for (key, body, says) in [
        (
            &narrowed,
            r#"{"model":"gpt-4o","fallbacks":["o3","o4"]}"#,
            "the key may not use this model: o4",
        ),
        (&narrowed, r#"{"messages":[]}"#, "and the request names none"),
        (&narrowed, r#"{"model":"o3","fallbacks":"default"}"#, "lets the server choose a model"),
        (&apart, r#"{"model":"a","fallbacks":["b"]}"#, "no alternative allows all models"),
    ] {
        let args = chat(&gate, body);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let report = gate.explain(key, &args).1;
        let stages = report["stages"].as_array().unwrap();
        let message =
            stages.iter().find(|stage| stage["verdict"] == "model").unwrap()["message"].to_string();
        assert!(message.contains(says), "{message}");
    }
    let model = |name| [&CHAT[..], &["--model", name]].concat();
    gate.allows(&models, &model("gpt-4o"));
    gate.denies(&models, &model("o3"), "model");
    let args = ["explain", "--now", NOW, "--model", "a", "--body", "b"];
    gate.vkey(&[&args[..], &CHAT].concat()).refused(2, "cannot be used with '--body");
}

/// The headers decide before the body is read. A body that decides and is not known leaves the decision open, and an empty
/// one cannot be read.
#[test]
fn explain_reads_a_body_where_the_gate_does() {
    let gate = Gate::new();
    let models = gate.mint(&["--only", r#"{"models":["gpt-4o"],"hosts":["gw"]}"#]);
    let plain = gate.mint(&[]);
    let model = ["--model", "gpt-4o"];
    gate.denies(&models, &[&CHAT[..], &["--model", "o3"]].concat(), "host");
    let notes =
        gate.undecided(&models, &[&CHAT[..], &["--host", "gw"]].concat())["notes"].to_string();
    assert!(notes.contains("pass it with --body"), "{notes}");
    let empty = gate.file("empty", "");
    let empty = [&CHAT[..], &["--host", "gw", "--body", &empty]].concat();
    gate.denies(&models, &empty, "body_unreadable");
    // No model is named there, and the list of models needs none.
    gate.denies(&models, &["--host", "gw", "--path", "/v1/files"], "model");
    gate.allows(&models, &["--host", "gw", "--path", "/v1/models"]);
    for (key, args, note) in [
        (&plain, [&CHAT[..], &model].concat(), "nothing that limits this key depends on the body"),
        (&models, [&["--host", "gw"][..], &model].concat(), "llm.unmetered lists the path"),
    ] {
        let notes = gate.allows(key, &args)["notes"].to_string();
        assert!(notes.contains(note), "{notes}");
    }
    assert_eq!(gate.allows(&plain, &CHAT)["notes"], json!([]));
}

/// The gate never admits a request that is larger than a whole quota, and sees nothing of a batch in a file.
#[test]
fn explain_refuses_what_no_quota_admits() {
    let gate = Gate::new();
    let key = gate.mint(&["--caveat", r#"{"quotas":[{"tokens":100,"per":"day"}]}"#]);
    for (max_tokens, is_allowed) in [(97, true), (99, false)] {
        let args = chat(&gate, &format!(r#"{{"model":"gpt-4o","max_tokens":{max_tokens}}}"#));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        if is_allowed {
            gate.allows(&key, &args);
            continue;
        }
        gate.denies(&key, &args, "child_quota");
        let report = gate.explain(&key, &args).1;
        let last = report["stages"].as_array().unwrap().last().unwrap();
        assert_eq!(last["stage"], "limit");
        let says =
            "the request alone is larger than a quota, and is never admitted: caveat_1_tokens_day";
        assert_eq!(last["message"], says);
    }
    gate.denies(&key, &["--method", "POST", "--path", "/v1/batches", "--model", "gpt-4o"], "path");
}

#[test]
fn explain_says_why_a_body_cannot_be_read() {
    let gate = Gate::new();
    let key = gate.mint(&["--only", r#"{"models":["*"]}"#]);
    for (body, header, says) in [
        (r#"{"model":"a","model":"b"}"#, None, "send each member once: at model"),
        (r#"{"model":"#, None, "ends too early"),
        (r#"{"model":"a"}"#, Some("Content-Encoding: gzip"), "has a content-encoding"),
        (r#"{"model":"a"}"#, Some("content-type:text/plain"), "is not declared as JSON"),
    ] {
        let mut args = chat(&gate, body);
        args.extend(header.map(|header| format!("--header={header}")));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        gate.denies(&key, &args, "body_unreadable");
        let report = gate.explain(&key, &args).1;
        let message = report["stages"].as_array().unwrap().last().unwrap()["message"].to_string();
        assert!(message.contains(says), "{message}");
        assert!(report["body"]["error"].as_str().unwrap().contains(says), "{report}");
    }
    let missing = [&["explain", "--now", NOW, "--body", "/no/such/file"][..], &CHAT].concat();
    gate.vkey(&missing).stdin(&key).refused(3, "--body");
    let twice = [&["explain", "--now", NOW, "--body", "-"][..], &CHAT].concat();
    gate.vkey(&twice).stdin(&key).refused(2, "standard input");
    let header = [&["explain", "--now", NOW, "--header", "no colon"][..], &CHAT].concat();
    gate.vkey(&header).stdin(&key).refused(2, "expected a name, a colon and a value");
}

#[test]
fn explain_shows_what_a_body_asks_for() {
    let llm = json!({
        "hosted_mcp": ["https://mcp.example/*"],
        "prices": {"gpt-4o": {"input_usd_per_mtok": "2.50", "output_usd_per_mtok": "10", "reserve_tokens": 500}},
    });
    let keyring = json!([{"name": "main", "secret": "${MAIN}"}]);
    let gate = Gate::with(&json!({"keyring": keyring, "llm": llm}));
    let key = gate.mint(&[]);
    let body = r#"{"model":"gpt-4o","stream":true,"n":2,"messages":[{"content":"four four"}],
        "tools":[{"type":"mcp","server_url":"https://mcp.example/a"}]}"#;
    let args = chat(&gate, body);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let asks = &gate.allows(&key, &args)["body"];
    // 41 bytes of text: the model, the content, the type and the URL.
    let expected = json!({
        "format": "openai.chat", "models": ["gpt-4o"], "open_ended": false, "stream": true,
        "max_output": null, "candidates": 2, "input_tokens": 10, "reserve_tokens": 1010,
        "reserve_micro_usd": 10_025, "hosted_mcp": ["https://mcp.example/a"], "deferred": false,
    });
    assert_eq!(asks, &expected);
    let people = [&["explain", "--now", NOW][..], &args].concat();
    let people = gate.vkey(&people).stdin(&key).ok().out;
    assert!(people.contains("\nasks for    {\"format\":\"openai.chat\",\"models\""), "{people}");
}

#[test]
fn explain_checks_mcp_servers_and_prices_of_a_body() {
    let llm = json!({
        "hosted_mcp": ["https://mcp.example/*"],
        "prices": {"gpt-4o": {"input_usd_per_mtok": "2.50", "output_usd_per_mtok": "10"}},
    });
    let keyring = json!([{"name": "main", "secret": "${MAIN}"}]);
    let gate = Gate::with(&json!({"keyring": keyring, "llm": llm}));
    let both = gate.mint(&["--only", r#"{"any_of":[{"models":["*"]},{"mcp":{"tools":["a"]}}]}"#]);
    let server = |url: &str| {
        let tool = format!(r#"{{"type":"mcp","server_url":"{url}"}}"#);
        chat(&gate, &format!(r#"{{"model":"gpt-4o","tools":[{tool}]}}"#))
    };
    let asked = |key: &str, args: Vec<String>, reason: Option<&str>| {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        match reason {
            Some(reason) => gate.denies(key, &args, reason),
            None => drop(gate.allows(key, &args)),
        }
    };
    asked(&both, server("https://mcp.example/a"), None);
    asked(&both, server("https://other.example/a"), Some("mcp_call"));
    asked(&gate.mint(&[]), server("https://other.example/a"), None);
    let paid = gate.mint(&["--only", r#"{"quotas":[{"cost_usd":"5","per":"day"}]}"#]);
    asked(&paid, chat(&gate, r#"{"model":"gpt-4o"}"#), None);
    asked(&paid, chat(&gate, r#"{"model":"o3"}"#), Some("model"));
    let args = ["--method", "POST", "--path", "/v1/files"];
    gate.denies(&paid, &args, "path");
}
