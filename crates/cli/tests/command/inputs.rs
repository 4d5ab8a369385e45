//! Inputs that are missing, too long, or nothing of the kind.

use crate::harness::{Gate, Vkey, text};

#[test]
fn inputs_that_are_not_keys_are_rejected_everywhere() {
    let gate = Gate::new();
    let missing = text(gate.dir.file("missing"));
    let directory = text(gate.dir.path().to_owned());
    let verbs: [&[&str]; 2] = [&["inspect"], &["attenuate", "--caveat", "{}"]];
    for verb in verbs {
        let run = |args: &[&str]| Vkey::new(&[verb, args].concat());
        run(&[]).refused(1, "standard input is empty");
        run(&[]).stdin("\n").refused(1, "standard input is empty");
        run(&[]).stdin("not a key, whatever it is").refused(1, "the input is not a virtual key");
        run(&[])
            .stdin(format!("{}\n\n", gate.mint(&[])))
            .refused(1, "the input is not a virtual key");
        run(&[]).stdin(b"\xff\xfe\x00vk1").refused(1, "not UTF-8");
        run(&[]).stdin(vec![b'a'; 1 << 20]).refused(1, "longer than 65536 bytes");
        run(&[]).stdin(vec![b'a'; 1 << 16]).refused(1, "the input is not a virtual key");
        run(&["--key-file", &missing]).refused(3, "--key-file cannot be read");
        run(&["--key-file", &directory]).refused(3, "--key-file cannot be read");
        run(&["--key-env", "UNSET"]).refused(3, "--key-env is not set");
        run(&["--key-env", "EMPTY"]).env("EMPTY", "").refused(1, "--key-env is empty");
        run(&["--key-env", "A", "--key-file", "-"]).refused(2, "--key-env");
    }
    let fixed = ["mint", "--tenant", "a", "--lifetime", "1h", "--ring", "r"];
    let mint = |args: &[&str]| Vkey::new(&[&fixed, args].concat());
    mint(&["--secret-file", &missing]).refused(3, "--secret-file cannot be read");
    mint(&["--secret-file", "-"]).stdin("too short").refused(1, "the secret is too short");
    mint(&["--secret-file", "-"]).stdin(vec![b'a'; 1 << 20]).refused(1, "longer than");
    mint(&["--secret-file", "-"]).stdin(b"\xff").refused(1, "not UTF-8");
    mint(&["--secret-env", "UNSET"]).refused(3, "--secret-env is not set");
    for verb in [&["config", "check"][..], &["explain", "--method", "GET", "--path", "/"]] {
        Vkey::new(&[verb, &["--config", &missing]].concat()).refused(3, "--config cannot be read");
        let huge = gate.file("huge", vec![b' '; (32 << 20) + 1]);
        Vkey::new(&[verb, &["--config", &huge]].concat()).refused(1, "longer than 33554432 bytes");
        let binary = gate.file("binary", b"\xff\xfe{}");
        Vkey::new(&[verb, &["--config", &binary]].concat())
            .refused(1, "binary: the file is neither JSON nor YAML: not UTF-8");
    }
    let explain = ["explain", "--config", "-", "--method", "GET", "--path", "/"];
    Vkey::new(&explain).refused(2, "cannot both be read from standard input");
}

#[test]
fn an_environment_without_the_secret_is_an_error() {
    let gate = Gate::new();
    let config = text(gate.dir.file("config.json"));
    let mint = ["mint", "--tenant", "a", "--lifetime", "1h", "--config", &config];
    let explain = ["explain", "--method", "GET", "--path", "/", "--config", &config];
    for args in [&mint[..], &explain] {
        Vkey::new(args).refused(3, "MAIN is not set");
        Vkey::new(args).env("MAIN", "short").refused(3, "MAIN: the secret is too short");
    }
    let key = gate.mint(&[]);
    let file = gate.file("key", format!("{key}\n"));
    let from_file = Vkey::new(&["inspect", "--key-file", &file]).ok().out;
    assert_eq!(Vkey::new(&["inspect", "--key-env", "KEY"]).env("KEY", &key).ok().out, from_file);
}

#[test]
fn a_secret_that_can_be_guessed_is_refused_before_anything_is_signed() {
    const GUESSABLE: &str = "Company-Production-Secret-2026";
    let gate = Gate::new();
    let config = text(gate.dir.file("config.json"));
    let file = gate.file("secret", GUESSABLE);
    let says = "holds a secret that can be guessed: an estimate of 39 bits, and 80 are required";
    let by_name = ["mint", "--tenant", "a", "--lifetime", "1h", "--ring", "r"];
    let by_name = |args: &[&str]| Vkey::new(&[&by_name, args].concat());
    by_name(&["--secret-file", &file])
        .refused(1, &format!("the file named by --secret-file {says}"));
    by_name(&["--secret-file", "-"]).stdin(GUESSABLE).refused(1, says);
    by_name(&["--secret-env", "A"]).env("A", GUESSABLE).refused(1, says);
    let commands: [&[&str]; 4] = [
        &["mint", "--tenant", "a", "--lifetime", "1h", "--config", &config],
        &["config", "check", "--env", "--config", &config],
        &["run", "--config", &config],
        &["mcp", "--config", &config, "--key-env", "KEY", "--", "true"],
    ];
    for args in commands {
        let vkey = |secret: &str| Vkey::new(args).env("MAIN", secret).env("PROVIDER", "x");
        let vkey = |secret: &str| vkey(secret).env("KEY", "vk1.none");
        let done = vkey(GUESSABLE).refused(1, &format!("environment variable MAIN {says}"));
        assert!(done.err.contains("`vkey secret new` makes one"), "{}", done.err);
        for (secret, says) in [
            ("Passw0rd!Passw0rd!", "MAIN: the secret can be guessed: it has fewer"),
            ("Abc123!@#Xyz789!@#", "MAIN: the secret is a published sample"),
        ] {
            let done = vkey(secret).run();
            let checks = args[0] == "config";
            assert_eq!((done.code, done.out.is_empty()), (if checks { 1 } else { 3 }, !checks));
            assert!(done.err.contains(says), "{}", done.err);
        }
    }
    // What is revoked lets nobody in, and need not be replaced first.
    let revoked = r#"{"keyring":[{"name":"old","secret":"${OLD}","state":"revoked"},
        {"name":"main","secret":"${MAIN}"}]}"#;
    let check = Vkey::new(&["config", "check", "--env", "-"]).stdin(revoked);
    check.env("OLD", GUESSABLE).env("MAIN", &gate.secret).ok();
}

#[test]
#[cfg(unix)]
fn variables_that_are_not_text_are_an_error() {
    use std::os::unix::ffi::OsStrExt as _;
    let gate = Gate::new();
    let not_text = std::ffi::OsStr::from_bytes(b"\xff\xfe secret");
    let config = text(gate.dir.file("config.json"));
    let key = ["inspect", "--key-env", "MAIN"];
    let mint = ["mint", "--tenant", "a", "--lifetime", "1h", "--config", &config];
    for args in [&key[..], &mint] {
        let output = Vkey::new(args).command().env("MAIN", not_text).output().expect("it runs");
        let err = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains("not UTF-8") && !err.contains("secret\n"), "{err}");
    }
}
