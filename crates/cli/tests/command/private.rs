//! Files that hold keys and secrets, and what other processes can see of the command.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::harness::{Gate, NOW, Vkey, one_line, text};

/// A command, given more arguments.
type Writer<'a> = Box<dyn Fn(&[&str]) -> Vkey + 'a>;

/// The commands that write a key or a secret.
fn writers(gate: &Gate) -> [Writer<'_>; 4] {
    let key = gate.mint(&[]);
    let mint = ["mint", "--tenant", "acme", "--lifetime", "1h", "--now", NOW];
    let attenuate = ["attenuate", "--caveat", "{}", "--now", NOW];
    [
        Box::new(move |args| gate.vkey(&[&mint, args].concat())),
        Box::new(move |args| Vkey::new(&[&attenuate, args].concat()).stdin(&key)),
        Box::new(|args| Vkey::new(&[&["secret", "new"], args].concat())),
        Box::new(|args| {
            let derive = ["secret", "derive", "--kid", "main-1"];
            Vkey::new(&[&derive, args].concat()).stdin(&gate.secret)
        }),
    ]
}

fn names(gate: &Gate) -> Vec<String> {
    let entries = fs::read_dir(gate.dir.path()).expect("a directory");
    let mut names: Vec<_> =
        entries.map(|e| e.expect("an entry").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

#[test]
fn a_key_or_secret_is_written_for_its_owner_alone() {
    let gate = Gate::new();
    let path = text(gate.dir.file("out"));
    for writer in writers(&gate) {
        let line = one_line(&writer(&[]).ok());
        let done = writer(&["--out", &path]).ok();
        assert_eq!(done.out, "");
        let written = fs::read_to_string(&path).expect("a file");
        assert_eq!(written.len(), line.len() + 1);
        assert_eq!(written.get(..4), line.get(..4));
        assert!(written.ends_with('\n'));
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // Another is not overwritten, unless by --force.
        fs::write(&path, "another").expect("ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("ours");
        writer(&["--out", &path]).refused(3, "the file named by --out exists");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "another");
        writer(&["--out", &path, "--force"]).ok();
        assert_eq!(fs::read_to_string(&path).expect("a file").len(), written.len());
        let mode = fs::metadata(&path).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::remove_file(&path).expect("ours");
        assert_eq!(one_line(&writer(&["--out", "-"]).ok()).get(..4), line.get(..4));
        writer(&["--out"]).refused(2, "--out");
    }
    // A key may also be written although it would be refused.
    Vkey::new(&["secret", "new", "--force"]).refused(2, "--out");
    assert_eq!(names(&gate), ["config.json"]);
}

#[test]
fn only_regular_files_are_replaced() {
    let gate = Gate::new();
    let target = gate.file("target", "kept");
    let at = |name: &str| text(gate.dir.file(name));
    symlink(&target, at("link")).expect("a link");
    symlink(at("nothing"), at("dangling")).expect("a link");
    fs::create_dir(at("directory")).expect("a directory");
    let before = names(&gate);
    for writer in writers(&gate) {
        for name in ["link", "dangling", "directory"] {
            for force in [&[][..], &["--force"]] {
                let done = writer(&[&["--out", &at(name)], force].concat()).refused(3, "is a link");
                assert!(!done.err.contains(&at(name)), "{}", done.err);
            }
        }
        writer(&["--out", "/dev/null", "--force"]).refused(3, "is a link");
        writer(&["--out", &at("none/out")]).refused(3, "--out cannot be written");
        writer(&["--out", &at("target/out")]).refused(3, "--out cannot be written");
        writer(&["--out", ""]).refused(2, "--out");
        writer(&["--out", &at(&"n".repeat(300))]).refused(3, "--out cannot be written");
    }
    assert_eq!(fs::read_to_string(&target).expect("a file"), "kept");
    assert_eq!(names(&gate), before);
}

/// The disk is full: nothing is left of the key, and what was there stays.
#[test]
#[cfg(target_os = "linux")]
fn a_file_that_cannot_be_written_leaves_nothing_behind() {
    use std::process::{Command, Stdio};

    let gate = Gate::new();
    let old = gate.file("old", "kept");
    let new = text(gate.dir.file("new"));
    for (path, force) in [(&new, "--"), (&old, "--force")] {
        // No file may be longer than nothing.
        let script = "ulimit -f 0; trap '' XFSZ; exec \"$@\"";
        let mut args = vec!["-c", script, "sh", env!("CARGO_BIN_EXE_vkey")];
        args.extend(["secret", "new", "--out", path]);
        args.extend(Some(force).filter(|force| *force != "--"));
        let output = Command::new("sh").args(args).stdin(Stdio::null()).output().expect("sh");
        let err = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(3), "{err}");
        assert!(err.contains("--out cannot be written"), "{err}");
    }
    assert_eq!(fs::read_to_string(&old).expect("a file"), "kept");
    assert_eq!(names(&gate), ["config.json", "old"]);
}

/// Every command that reads a key waits for it here, and is looked at meanwhile.
#[test]
#[cfg(target_os = "linux")]
#[allow(clippy::disallowed_methods, reason = "a deadline on a real process needs a real clock")]
fn commands_that_hold_keys_are_not_dumped() {
    use std::os::unix::fs::MetadataExt as _;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    let is_root = fs::metadata("/proc/self").expect("linux").uid() == 0;
    let as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let commands: [&[&str]; 3] = [
        &["inspect"],
        &["attenuate", "--caveat", "{}"],
        &["mint", "--tenant", "a", "--lifetime", "1h", "--ring", "r", "--secret-file", "-"],
    ];
    for args in commands {
        let mut words = Vec::from_iter(as_nobody.into_iter().filter(|_| is_root));
        words.extend(["sh", "-c", "ulimit -c unlimited; exec \"$@\"", "sh"]);
        words.push(env!("CARGO_BIN_EXE_vkey"));
        words.extend(args);
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the command starts");
        let seen = || {
            let proc = format!("/proc/{}", child.id());
            let limits = fs::read_to_string(format!("{proc}/limits")).unwrap_or_default();
            let core = limits.lines().find(|line| line.starts_with("Max core file size"));
            let core = core.and_then(|line| line.split_whitespace().nth(4)).map(str::to_owned);
            let owner = fs::metadata(format!("{proc}/environ")).map(|environ| environ.uid());
            (owner.unwrap_or(u32::MAX), core)
        };
        let private = (0, Some("0".to_owned()));
        let end = Instant::now() + Duration::from_secs(30);
        while seen() != private && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let seen = seen();
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        assert_eq!(seen, private, "{args:?}");
    }
}
