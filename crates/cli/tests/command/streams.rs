//! What reaches the standard streams, and what must not.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::harness::{Gate, NOW, Vkey, text};

#[test]
#[cfg(unix)]
fn closed_streams_cause_no_panic() {
    let shell = |script: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", script, "sh", env!("CARGO_BIN_EXE_vkey")]);
        let output = command.stdin(Stdio::null()).output().expect("sh");
        (output.status.code(), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, err) = shell(r#"exec "$1" inspect <&-"#);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("standard input is empty"), "{err}");
    assert_eq!(shell(r#"exec "$1" inspect 2>&-"#).0, Some(1));
    assert_eq!(shell(r#"exec "$1" secret new 2>&- >&-"#).0, Some(0));
    if cfg!(target_os = "linux") {
        let (code, err) = shell(r#"exec "$1" secret new > /dev/full"#);
        assert_eq!(code, Some(3), "{err}");
        assert!(err.contains("cannot write to standard output"), "{err}");
    }
}

#[test]
fn a_reader_that_closes_early_is_not_a_failure() {
    let gate = Gate::new();
    let key = gate.mint(&[]);
    let explain = ["explain", "--method", "GET", "--path", "/admin", "--now", NOW];
    let broken = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/lint/plaintext.yaml");
    let setup = text(gate.dir.file("setup"));
    let runs = [
        (Vkey::new(&["secret", "new"]), 0),
        (Vkey::new(&["secret", "new", "--out", "-"]), 0),
        (Vkey::new(&["mcp", "--setup", &setup, "--", "server"]), 0),
        (Vkey::new(&["--help"]), 0),
        (Vkey::new(&["inspect"]), 0),
        (gate.vkey(&["mint", "--tenant", "acme", "--lifetime", "1h"]), 0),
        // The verdict stays a denial, whoever reads it.
        (gate.vkey(&explain), 1),
        (Vkey::new(&["tls", "show"]), 0),
        (Vkey::new(&["tls", "lint", broken]), 1),
    ];
    for (run, code) in runs {
        let mut child = run.command().spawn().expect("the command starts");
        drop(child.stdout.take());
        _ = child.stdin.take().expect("a pipe").write_all(key.as_bytes());
        let output = child.wait_with_output().expect("the command ends");
        let err = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(code), "{:?}: {err}", run.args);
        assert!(!err.contains("panicked") && !err.contains("pipe"), "{err}");
    }
}

#[test]
fn misplaced_arguments_are_not_repeated() {
    let gate = Gate::new();
    let config = text(gate.dir.file("config.json"));
    let jwt = format!("eyJhbGciOiJIUzI1NiJ9.{}", "e30".repeat(20));
    let secrets =
        [gate.mint(&[]), jwt, gate.secret.clone(), ["Tr0ub4dor&3", "horse", "staple"].join("-")];
    let before: [&[&str]; 40] = [
        &[],
        &["help"],
        &["secret"],
        &["secret", "new"],
        &["mint"],
        &["mint", "--secret"],
        &["mint", "--secret-env"],
        &["mint", "--lifetime"],
        &["mint", "--now"],
        &["mint", "--config", &config, "--lifetime", "1h", "--tenant"],
        &["mint", "--config", &config, "--lifetime", "1h", "--tenant", "a", "--only"],
        &["mint", "--config", &config, "--ring"],
        &["attenuate", "--caveat"],
        &["attenuate", "--caveat", "{}", "--"],
        &["inspect"],
        &["inspect", "--key-env"],
        &["inspect", "--key-file"],
        &["explain", "--source"],
        &["explain", "--client-cert"],
        &["config"],
        &["config", "check"],
        &["mcp", "--setup"],
        &["mcp", "--setup", "/proc/none"],
        &["mcp", "--setup", "/proc/none", "--tenant"],
        &["mcp", "--config", &config, "--key-env", "MAIN", "--secret-file"],
        &["run"],
        &["run", "--config"],
        &["run", "--config", &config, "--now"],
        &["run", "--config", &config, "--host"],
        &["run", "--config", &config, "--workers"],
        &["tls"],
        &["tls", "lint"],
        &["tls", "show", "--policy"],
        &["tls", "status"],
        &["usage"],
        &["usage", "--url"],
        &["usage", "--url", "http://127.0.0.1:1", "--jti"],
        &["usage", "--url", "http://127.0.0.1:1", "--tenant"],
        &["usage", "--url", "http://127.0.0.1:1", "--timeout"],
        &["usage", "--url", "https://127.0.0.1:1", "--ca"],
    ];
    for secret in &secrets {
        let check = |args: &[&str]| {
            let done = Vkey::new(args).env("MAIN", &gate.secret).run();
            assert!([1, 2, 3].contains(&done.code), "{args:?}");
            let part = secret.get(..16).expect("long");
            assert!(!done.err.contains(part) && done.out.is_empty(), "{args:?}: {}", done.err);
        };
        for before in before {
            check(&[before, &[secret]].concat());
            check(&[before, &[&format!("--{secret}")]].concat());
        }
        check(&["inspect", &format!("--key={secret}")]);
        check(&["mint", &format!("--secret={secret}")]);
        check(&["explain", &format!("--json={secret}")]);
        check(&["inspect", &format!("-k{secret}")]);
    }
    let hint = Vkey::new(&["mint", "--secret", "x"]).run();
    assert!(hint.err.contains("'--secret'") && hint.err.contains("--secret-env"), "{}", hint.err);
}
