//! What the tests stand on: runs of the command that are searched for secrets, and a gate to mint
//! for.

#[path = "../../../e2e/tests/support/temp.rs"]
#[allow(dead_code, reason = "these tests use a part of it")]
mod temp;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
pub(crate) use temp::TempDir;

/// A time in the middle of an epoch, so that keys minted then live through the tests' times.
pub(crate) const NOW: &str = "1790000000";

/// The root of the checkout.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).expect("crates/cli is in a checkout").to_owned()
}

/// What the command left behind.
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// One run of the command, in an environment of its own.
pub(crate) struct Vkey {
    pub(crate) args: Vec<String>,
    env: Vec<(String, String)>,
    stdin: Vec<u8>,
}

impl Vkey {
    pub(crate) fn new(args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { args, env: Vec::new(), stdin: Vec::new() }
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn stdin(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.stdin = bytes.as_ref().to_vec();
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vkey"));
        command.args(&self.args).env_clear().envs(self.env.iter().map(|(n, v)| (n, v)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs it. Whatever it does, it shows no secret and no key that it was given.
    pub(crate) fn run(self) -> Done {
        let mut child = self.command().spawn().expect("the command starts");
        // A command that reads nothing closes the pipe early.
        _ = child.stdin.take().expect("a pipe").write_all(&self.stdin);
        let output = child.wait_with_output().expect("the command ends");
        let done = Done {
            code: output.status.code().expect("an exit code, not a signal"),
            out: String::from_utf8(output.stdout).expect("text"),
            err: String::from_utf8(output.stderr).expect("text"),
        };
        let texts = [done.out.as_str(), &done.err];
        for hidden in self.hidden() {
            assert!(
                !texts.iter().any(|text| text.contains(&hidden)),
                "{:?} shows a secret",
                self.args
            );
        }
        assert!(!done.err.contains("panicked"), "{}", done.err);
        done
    }

    /// Secrets from the environment in every encoding, and the key on standard input.
    fn hidden(&self) -> Vec<String> {
        let mut hidden = Vec::new();
        let read = String::from_utf8_lossy(&self.stdin).trim_end().to_owned();
        let texts = self.env.iter().map(|(_, value)| value).chain([&read]);
        for text in texts.filter(|text| text.len() >= 16 && !text.starts_with('{')) {
            let encoded = text.strip_prefix("base64:").unwrap_or(text);
            let bytes = STANDARD.decode(encoded).unwrap_or(text.clone().into_bytes());
            hidden.push(encoded.to_owned());
            hidden.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
            if text.starts_with("vk1.") {
                hidden.extend(text.rsplit('.').next().map(str::to_owned));
            }
        }
        hidden
    }

    #[track_caller]
    pub(crate) fn refused(self, code: i32, says: &str) -> Done {
        let args = self.args.join(" ");
        let done = self.run();
        assert_eq!((done.code, done.out.as_str()), (code, ""), "{args}: {}", done.err);
        assert!(done.err.starts_with("vkey: "), "{args}: {}", done.err);
        assert!(done.err.contains(says), "{args}: {} lacks {says}", done.err);
        done
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Done {
        let done = self.run();
        assert_eq!(done.code, 0, "{}", done.err);
        done
    }
}

/// A gate's configuration in a directory of its own, with the secret it names.
pub(crate) struct Gate {
    pub(crate) dir: TempDir,
    pub(crate) secret: String,
}

impl Gate {
    pub(crate) fn new() -> Self {
        Self::with(&json!({
            "keyring": [{"name": "main", "secret": "${MAIN}",
                         "rotation": {"interval": "168h", "max_age": "30d", "keep_expired": true}},
                        {"name": "old", "secret": "${MAIN}", "state": "retiring"},
                        {"name": "next", "secret": "${MAIN}"}],
            "tiers": {"default": {"only": {"methods": ["GET", "POST"], "paths": ["/v1/**", "/mcp"]}}},
            "tenants": {"acme": {}},
            "forward": {"credentials_in_front": true,
                        "credentials": [{"hosts": ["api.example"], "header": "authorization",
                                         "value": "Bearer ${PROVIDER}"}]},
        }))
    }

    pub(crate) fn with(config: &Value) -> Self {
        let gate = Self { dir: TempDir::new("command"), secret: secret() };
        fs::write(gate.dir.file("config.json"), config.to_string()).expect("writable");
        gate
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.dir.file(name);
        fs::write(&path, content).expect("writable");
        text(path)
    }

    /// The command with the configuration and the secret.
    pub(crate) fn vkey(&self, args: &[&str]) -> Vkey {
        let config = text(self.dir.file("config.json"));
        Vkey::new(&[args, &["--config", &config]].concat()).env("MAIN", &self.secret)
    }

    pub(crate) fn mint(&self, args: &[&str]) -> String {
        let fixed = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW];
        one_line(&self.vkey(&[&fixed, args].concat()).ok())
    }

    pub(crate) fn explain(&self, key: &str, args: &[&str]) -> (i32, Value) {
        let mut all = [&["explain", "--json"], args].concat();
        for (option, default) in [("--now", NOW), ("--method", "GET"), ("--path", "/v1/models")] {
            if !args.contains(&option) {
                all.extend([option, default]);
            }
        }
        let done = self.vkey(&all).stdin(format!("{key}\n")).run();
        (done.code, serde_json::from_str(&done.out).expect(&done.err))
    }

    /// Whether the key is denied with a reason, and whether the first stage that refuses gives it.
    #[track_caller]
    pub(crate) fn denies(&self, key: &str, args: &[&str], reason: &str) {
        let (code, report) = self.explain(key, args);
        let stages = report["stages"].as_array().expect("a list");
        let first = stages.iter().find(|stage| stage["verdict"] != "ok").expect("a refusal");
        assert_eq!((code, &report["decision"]), (1, &json!("deny")), "{report}");
        assert_eq!((&report["reason"], &first["verdict"]), (&json!(reason), &json!(reason)));
    }

    /// The report, if what is not known decides.
    #[track_caller]
    pub(crate) fn undecided(&self, key: &str, args: &[&str]) -> Value {
        let (code, report) = self.explain(key, args);
        let expected = (4, &json!("undecided"), &Value::Null);
        assert_eq!((code, &report["decision"], &report["reason"]), expected, "{report}");
        report
    }

    #[track_caller]
    pub(crate) fn allows(&self, key: &str, args: &[&str]) -> Value {
        let (code, report) = self.explain(key, args);
        assert_eq!((code, &report["decision"]), (0, &json!("allow")), "{report}");
        assert!(report["stages"].as_array().expect("a list").iter().all(|s| s["verdict"] == "ok"));
        report
    }
}

pub(crate) fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().expect("a path in UTF-8")
}

pub(crate) fn secret() -> String {
    one_line(&Vkey::new(&["secret", "new"]).ok())
}

#[track_caller]
pub(crate) fn one_line(done: &Done) -> String {
    let line = done.out.strip_suffix('\n').expect("a line");
    assert!(!line.is_empty() && !line.contains('\n'), "{line}");
    line.to_owned()
}

pub(crate) fn attenuate(key: &str, caveat: &str) -> String {
    one_line(&Vkey::new(&["attenuate", "--now", NOW, "--caveat", caveat]).stdin(key).ok())
}
