//! A gate that `vkey mcp --setup` makes, end to end.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use serde_json::{Value, json};

use crate::harness::{Gate, Vkey, attenuate, one_line, secret, text};

use super::session::{Session, audit_lines};

const SERVER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/command/mcp/server.py");

/// What `--setup` has made in a directory.
struct Made {
    folder: String,
    entry: Value,
}

impl Made {
    fn new(gate: &Gate, name: &str) -> Self {
        let (folder, record) = (text(gate.dir.file(name)), text(gate.dir.file("record")));
        let args = ["mcp", "--setup", &folder, "--", "python3", SERVER, &record];
        let done = Vkey::new(&args).ok();
        let printed: Value = serde_json::from_str(&done.out).expect(&done.out);
        let entry = printed["mcpServers"][name].clone();
        Self { folder, entry }
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).expect("a file")
    }

    /// What a client starts by the entry, with a change.
    fn vkey(&self, change: impl Fn(&str) -> String) -> Vkey {
        let own = fs::canonicalize(env!("CARGO_BIN_EXE_vkey")).expect("a file");
        assert_eq!((&self.entry["command"], &self.entry["env"]), (&json!(own), &Value::Null));
        let args = self.entry["args"].as_array().expect("a list").iter();
        let args = Vec::from_iter(args.map(|word| change(word.as_str().expect("a text"))));
        let path = std::env::var_os("PATH").expect("a path").into_string().expect("text");
        Vkey::new(&Vec::from_iter(args.iter().map(String::as_str))).env("PATH", &path)
    }

    /// The command with another key.
    fn with_key(&self, gate: &Gate, key: &str) -> Vkey {
        let key = gate.file("asked", key);
        let own = self.file("key");
        self.vkey(|word| if word == own { key.clone() } else { word.to_owned() })
    }

    /// What becomes of one request with a key.
    fn ask(&self, gate: &Gate, key: &str) -> Value {
        let mut session = Session::spawn(gate, &self.with_key(gate, key));
        session.pump();
        session.request(1, "echo", &json!({}));
        let answer = session.answer();
        session.finish().ended(0);
        answer
    }
}

#[test]
fn the_printed_entry_starts_the_server() {
    let gate = Gate::new();
    let made = Made::new(&gate, "files");
    assert_eq!(made.vkey(str::to_owned).args.first().map(String::as_str), Some("mcp"));
    let mut session = Session::spawn(&gate, &made.vkey(str::to_owned));
    session.pump();
    session.request(1, "initialize", &json!({}));
    assert_eq!(session.answer()["result"]["protocolVersion"], "2025-06-18");
    session.request(2, "environment", &json!({}));
    let environment = session.answer()["result"].to_string();
    session.finish().ended(0);
    let secret = made.read("secret");
    assert!(!environment.contains("VKEY") && !environment.contains(secret.trim()));
    let audit = audit_lines(&made.read("audit.log"));
    assert_eq!(audit.len(), 2);
    assert!(audit.iter().all(|line| line["decision"] == "allow" && line["tenant"] == "local"));
    let mode = |path: &str| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&made.folder), 0o700);
    for name in ["config.json", "secret", "key", "audit.log"] {
        assert_eq!(mode(&made.file(name)), 0o600, "{name}");
    }
}

#[test]
fn only_keys_of_its_own_ring_and_audience_open_it() {
    let gate = Gate::new();
    let (one, other) = (Made::new(&gate, "one"), Made::new(&gate, "other"));
    let config: Value = serde_json::from_str(&one.read("config.json")).expect("JSON");
    let audience = config["audience"].as_str().expect("a text");
    let secret_file = one.file("secret");
    let mint = ["mint", "--ring", "mcp", "--secret-file", &secret_file, "--tenant", "b"];
    let mint = |args: &[&str]| {
        one_line(&Vkey::new(&[&mint[..], &["--lifetime", "1h"], args].concat()).ok())
    };
    let narrowed = attenuate(one.read("key").trim(), r#"{"methods":["POST"]}"#);
    for good in [one.read("key"), narrowed, mint(&["--aud", audience])] {
        assert_eq!(one.ask(&gate, &good)["result"], json!({}), "{good}");
    }
    let forbidden = attenuate(one.read("key").trim(), r#"{"methods":["GET"]}"#);
    for (bad, reason) in [
        (other.read("key"), "key_signature"),
        (mint(&[]), "key_audience"),
        (mint(&["--aud", "gw"]), "key_audience"),
        (gate.mint(&["--aud", audience]), "key_unknown"),
        (forbidden, "method"),
    ] {
        one.with_key(&gate, &bad).refused(1, &format!("the key is refused: {reason}: "));
    }
}

#[test]
fn a_setup_says_how_to_explain_a_refusal_and_whether_the_server_is_there() {
    let gate = Gate::new();
    let setup = |name: &str, server: &str| {
        let folder = text(gate.dir.file(name));
        let path = std::env::var_os("PATH").expect("a path").into_string().expect("text");
        Vkey::new(&["mcp", "--setup", &folder, "--", server]).env("PATH", &path).ok().err
    };
    let warning = "warning: the server's command, the first word after --, is not found";
    let said = setup("it's a gate", "sh");
    assert!(!said.contains(warning), "{said}");
    assert!(!setup("absolute", "/bin/sh").contains(warning));
    let file = gate.file("not-a-program", "");
    for (name, missing) in [("a", "no-such-program"), ("b", "/no/such/program"), ("c", &file)] {
        assert!(setup(name, missing).contains(warning), "{missing}");
    }
    // The line is a command as it stands.
    let line = said.lines().find_map(|line| line.strip_prefix("vkey: to explain a refusal: vkey "));
    let shell = ["-c", &format!("\"$0\" {}", line.expect(&said)), env!("CARGO_BIN_EXE_vkey")];
    let output = std::process::Command::new("sh").args(shell).output().expect("sh");
    let shown = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success() && shown.ends_with("decision    allow\n"), "{shown}");
}

/// `mint` and `explain` take the secret from the file too.
#[test]
fn the_commands_after_a_setup_need_no_variable() {
    let gate = Gate::new();
    let made = Made::new(&gate, "files");
    let (config, secret) = (made.file("config.json"), made.file("secret"));
    let audience = serde_json::from_str::<Value>(&made.read("config.json")).expect("JSON");
    let audience = audience["audience"].as_str().expect("a text").to_owned();
    let mint = |options: &[&str]| {
        let fixed = ["mint", "--config", &config, "--tenant", "b", "--lifetime", "1h"];
        Vkey::new(&[&fixed[..], &["--aud", &audience], options].concat())
    };
    let explain = |path: &str, options: &[&str]| {
        let fixed = ["explain", "--config", &config, "--method", "POST", "--path", path];
        Vkey::new(&[&fixed[..], options].concat()).stdin(made.read("key"))
    };
    // The configuration has the route that a restriction of tools needs.
    let minted = mint(&["--secret-file", &secret, "--tools", "add"]).ok();
    assert!(!minted.err.contains("warning"), "{}", minted.err);
    let called = ["--secret-file", &secret, "--mcp-method", "tools/call", "--mcp-name", "add"];
    explain("/mcp", &called).stdin(&minted.out).ok();
    let key = one_line(&mint(&["--secret-file", &secret]).ok());
    assert_eq!(made.ask(&gate, &key)["result"], json!({}));
    explain("/mcp", &["--secret-file", &secret]).ok();
    let denied = explain("/v1", &["--secret-file", &secret]).run();
    assert!(denied.code == 1 && denied.out.ends_with("deny path\n"), "{}", denied.out);
    // Without it, the error names it.
    let says = "VKEY_MCP_SECRET is not set or empty; export it, or name a file with the secret with --secret-file";
    mint(&[]).refused(3, says);
    explain("/mcp", &[]).refused(3, says);
    let own = ["mcp", "--config", &config, "--key-file", &made.file("key"), "--", "cat"];
    Vkey::new(&own).refused(3, says);
    Vkey::new(&["run", "--config", &config])
        .refused(3, "this command takes it from its own environment");
    // Only one input can come from standard input, and a configuration names its variable itself.
    explain("/mcp", &["--secret-file", "-"]).refused(2, "standard input");
    mint(&["--secret-env", "A"]).refused(2, "--secret-env");
    let both = ["mint", "--config", "-", "--secret-file", "-", "--tenant", "b", "--lifetime", "1h"];
    Vkey::new(&both).refused(2, "standard input");
    let several = gate.file(
        "several",
        r#"{"keyring":[{"name":"a","secret":"${A}"},{"name":"b","secret":"${B}"}]}"#,
    );
    let several =
        ["--config", &several, "--tenant", "b", "--lifetime", "1h", "--secret-file", &secret];
    Vkey::new(&[&["mint"], &several[..]].concat()).refused(1, "--secret-file holds one secret");
}

#[test]
fn a_signing_key_is_enough_to_start_it() {
    let gate = Gate::new();
    let made = Made::new(&gate, "files");
    let (secret, signing_key) = (made.file("secret"), made.file("signing-key"));
    let derive = ["secret", "derive", "--kid", "mcp-0", "--secret-file", &secret];
    Vkey::new(&[&derive[..], &["--out", &signing_key]].concat()).ok();
    fs::remove_file(&secret).expect("ours");
    let mut config: Value = serde_json::from_str(&made.read("config.json")).expect("JSON");
    config["keyring"] = json!([{"name": "mcp", "keys": {"mcp-0": "${VKEY_MCP_0}"}}]);
    fs::write(made.file("config.json"), config.to_string()).expect("ours");
    let vkey = made.vkey(|word| (if word == secret { &signing_key } else { word }).to_owned());
    let mut session = Session::spawn(&gate, &vkey);
    session.pump();
    session.request(1, "initialize", &json!({}));
    assert_eq!(session.answer()["result"]["protocolVersion"], "2025-06-18");
    session.finish().ended(0);
}

#[test]
fn a_setup_is_whole_or_not_at_all() {
    let gate = Gate::new();
    let made = Made::new(&gate, "made");
    let files = ["config.json", "secret", "key"];
    let read = || files.map(|name| made.read(name));
    let before = read();
    let setup = |folder: &str, args: &[&str]| {
        Vkey::new(&[&["mcp", "--setup", folder], args, &["--", "server"]].concat())
    };
    setup(&made.folder, &[])
        .refused(3, "exists; choose another name, or use --force to replace it");
    assert_eq!(read(), before);
    setup(&made.folder, &["--force"]).ok();
    assert!(read().iter().zip(&before).all(|(now, before)| now != before));
    // One of the files is enough, and no other is made.
    let folder = text(gate.dir.file("partly"));
    fs::create_dir(&folder).expect("a directory");
    let target = gate.file("target", "kept");
    symlink(&target, format!("{folder}/key")).expect("a link");
    for force in [&[][..], &["--force"]] {
        setup(&folder, force).refused(3, "is a link");
        assert_eq!(fs::read_dir(&folder).expect("a directory").count(), 1);
    }
    assert_eq!(fs::read_to_string(&target).expect("a file"), "kept");
    // Nothing is left of a directory that was made for nothing.
    let new = text(gate.dir.file("new"));
    let fails = "ulimit -f 0; trap '' XFSZ; exec \"$@\"";
    let args = ["-c", fails, "sh", env!("CARGO_BIN_EXE_vkey"), "mcp", "--setup", &new, "--", "a"];
    let output = std::process::Command::new("sh").args(args).output().expect("sh");
    assert_eq!(output.status.code(), Some(3));
    assert!(fs::symlink_metadata(&new).is_err());
}

#[test]
fn an_invalid_setup_is_rejected() {
    let gate = Gate::new();
    let at = |name: &str| text(gate.dir.file(name));
    let setup = |folder: &str, args: &[&str]| {
        Vkey::new(&[&["mcp", "--setup", folder], args, &["--", "server"]].concat())
    };
    symlink(at("nothing"), at("dangling")).expect("a link");
    setup(&at("config.json"), &[]).refused(3, "--setup is not a directory");
    setup(&at("dangling"), &[]).refused(3, "--setup is not a directory");
    setup(&at("config.json/a"), &[]).refused(3, "--setup makes in its directory cannot be written");
    setup(&at("none/a"), &[]).refused(3, "--setup makes in its directory cannot be written");
    setup(&at(&"n".repeat(300)), &[]).refused(3, "cannot be written");
    setup("", &[]).refused(2, "--setup");
    setup(&at("a"), &["--tenant", "a b"]).refused(1, "tenant: expected");
    setup(&at("a"), &["--lifetime", "0s"]).refused(2, "--lifetime");
    setup(&at("a"), &["--lifetime", "3000000d"]).refused(1, "--lifetime");
    setup(&at("a"), &["--config", &at("config.json")]).refused(2, "--config");
    setup(&at("a"), &["--key-env", "KEY"]).refused(2, "--key-env");
    setup(&at("a"), &["--secret-file", "-"]).refused(2, "--secret-file");
    Vkey::new(&["mcp", "--setup", &at("a")]).refused(2, "COMMAND");
    Vkey::new(&["mcp", "--force", "--", "server"]).refused(2, "--setup");
    assert!(fs::symlink_metadata(at("a")).is_err());
}

#[test]
fn a_secret_that_cannot_be_read_starts_nothing() {
    let gate = Gate::new();
    let made = Made::new(&gate, "made");
    let own = made.file("secret");
    let with = |other: &str| {
        made.vkey(|word| if word == own { other.to_owned() } else { word.to_owned() })
    };
    with(&made.file("none")).refused(3, "the file named by --secret-file cannot be read");
    with(&made.folder).refused(3, "the file named by --secret-file cannot be read");
    with("-").refused(2, "standard input is where the messages come from");
    let garbage: [(&[u8], &str); 6] = [
        (b"", "--secret-file is empty"),
        (b"\n", "--secret-file is empty"),
        (b"garbage", "the secret is too short"),
        (b"base64:%%%", "not valid base64"),
        (b"\xff\xfe", "--secret-file is not UTF-8"),
        (&[b'a'; 1 << 17], "--secret-file is longer than 65536 bytes"),
    ];
    for (content, says) in garbage {
        with(&gate.file("garbage", content)).refused(1, says);
    }
    let guessable = gate.file("garbage", "Company-Production-Secret-2026");
    with(&guessable)
        .refused(1, "the file named by --secret-file holds a secret that can be guessed");
    // Another secret than that of the key.
    let other = gate.file("garbage", secret());
    with(&other).refused(1, "the key is refused: key_signature: ");
    let rings = r#"{"keyring":[{"name":"a","secret":"${A}"},{"name":"b","secret":"${B}"}]}"#;
    fs::write(made.file("config.json"), rings).expect("ours");
    with(&own).refused(1, "--secret-file holds one secret");
}
