//! The chains of audit records that a real proxy leaves behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use vkey::audit::AuditKey;
use vkey::key::keyring::Secret;
use vkey_server::{Place, Trail, Unwrapper};

use crate::keys::{Minter, options};
use crate::load::{WORKERS, connect, send_in_step};
use crate::support::{Connection, Envoy, Options, Request, each_envoy, vkey, wait_for};
use crate::updates::Listener;

const SECRET: &str = "Chained-1-by-a-real-proxy-2";
const VARIABLE: &str = "VKEY_AUDIT_SECRET";
const ANCHOR_EVERY: u64 = 100;

fn plugin(sink: &str) -> Value {
    let secret = format!("${{{VARIABLE}}}");
    json!({
        "audit": {"sink": sink, "secret": secret, "anchor_every": ANCHOR_EVERY},
        "tiers": {"default": {"only": {"paths": ["/v1/**"]}}},
    })
}

fn chained(binary: &Path, sink: &str, main: &Minter) -> Options {
    let options = options("chain", main, plugin(sink)).on(binary).env(VARIABLE, SECRET);
    options.concurrency(WORKERS)
}

/// What `vkey audit verify` says of logs, and its exit code.
fn verify(logs: &[PathBuf]) -> (Option<i32>, Value) {
    let output = Command::new(vkey())
        .args(["audit", "verify", "--json"])
        .args(logs)
        .env_clear()
        .env(VARIABLE, SECRET)
        .output()
        .expect("the command starts");
    let report = serde_json::from_slice(&output.stdout);
    (output.status.code(), report.unwrap_or_else(|_| panic!("{output:?}")))
}

/// Sends requests over many connections: three in four are allowed.
fn send(envoy: &Envoy, main: &Minter, requests: usize) {
    let key = main.key("k1", json!({}));
    let paths = ["/v1/a", "/v1/b", "/v1/c", "/v2/d"];
    let request = |number: usize| Request::new("GET", paths[number % 4]).bearer(&key).encode();
    let statuses = send_in_step(&mut connect(envoy), (0..requests).map(request));
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), requests / 4 * 3);
}

fn chains(report: &Value) -> &[Value] {
    report["chains"].as_array().expect("a list")
}

#[test]
fn every_request_is_in_a_chain_that_an_anchor_closes() {
    each_envoy(|binary| {
        for sink in ["access_log", "log"] {
            const REQUESTS: usize = 2000;
            let main = Minter::new("main", None);
            let envoy = Envoy::start(chained(binary, sink, &main));
            send(&envoy, &main, REQUESTS);
            envoy.stop();
            let (code, report) = verify(&[envoy.access_log_path(), envoy.proxy_log_path()]);
            assert_eq!((code, &report["verified"]), (Some(0), &json!(REQUESTS)), "{report:#}");
            assert_eq!(report["unchained"], 0);
            let chains = chains(&report);
            assert!((1..=usize::try_from(WORKERS).unwrap()).contains(&chains.len()), "{report:#}");
            for chain in chains {
                assert_eq!((&chain["closed"], &chain["host"]), (&json!(true), &json!("vkey-demo")));
                assert_eq!(chain["anchored"], chain["records"]);
            }
            let anchors: u64 =
                chains.iter().map(|chain| chain["records"].as_u64().unwrap() / ANCHOR_EVERY).sum();
            assert_eq!(report["anchors"].as_u64(), Some(anchors + chains.len() as u64));
        }
    });
}

#[test]
fn a_new_configuration_closes_the_chains_and_begins_others() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let (envoy, mut listener) =
            Listener::start(chained(binary, "access_log", &main), plugin("access_log"));
        send(&envoy, &main, 400);
        let mut changed = plugin("access_log");
        changed["tiers"]["default"]["only"]["paths"] = json!(["/v1/**", "/v3"]);
        listener.publish(changed);
        let key = main.key("k1", json!({}));
        let mut asked = 0;
        let is_new = || {
            asked += 1;
            let request = Request::new("GET", "/v3").bearer(&key);
            (Connection::open(envoy.gate()).send(&request).status == 200).then_some(())
        };
        wait_for(is_new, || envoy.proxy_log());
        envoy.stop();
        let (code, report) = verify(&[envoy.proxy_log_path(), envoy.access_log_path()]);
        assert_eq!((code, &report["verified"]), (Some(0), &json!(400 + asked)), "{report:#}");
        assert!(chains(&report).iter().all(|chain| chain["closed"] == true), "{report:#}");
        assert!(chains(&report).len() >= 2, "{report:#}");
    });
}

/// The records that were written verify, and it is said that later ones cannot be missed.
#[test]
fn a_proxy_that_is_killed_leaves_chains_that_verify_up_to_their_ends() {
    each_envoy(|binary| {
        let main = Minter::new("main", None);
        let envoy = Envoy::start(chained(binary, "access_log", &main));
        send(&envoy, &main, 800);
        envoy.wait_for_access_log(100);
        let pid = Pid::from_raw(envoy.pid().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        wait_for(|| envoy.exited(), || envoy.proxy_log());
        let (code, report) = verify(&[envoy.access_log_path(), envoy.proxy_log_path()]);
        let verified = report["verified"].as_u64().unwrap();
        assert!((100..=800).contains(&verified), "{report:#}");
        let chains = chains(&report);
        assert!(!chains.is_empty() && chains.iter().all(|chain| chain["closed"] == false));
        // An anchor may have come through where the records before it had not.
        let kinds = report["findings"].as_array().unwrap().iter().map(|finding| &finding["kind"]);
        let are_cut = kinds.clone().all(|kind| kind == "cut" || kind == "unreadable");
        assert!(code == Some(0) || code == Some(1) && are_cut, "{report:#}");
    });
}

/// Each edit of one line of a real trail.
#[test]
fn an_edit_of_a_real_trail_is_found() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(
        options("chain-edits", &main, plugin("access_log"))
            .env(VARIABLE, SECRET)
            .concurrency(WORKERS),
    );
    send(&envoy, &main, 200);
    envoy.stop();
    let (lines, anchors) = (envoy.access_log(), envoy.proxy_log());
    let found = |lines: &[String]| {
        let mut trail = Trail::new(vec![AuditKey::new(&Secret::parse(SECRET).expect("a secret"))]);
        let (mut unwrapper, name) = (Unwrapper::default(), Rc::from("log"));
        for (number, line) in (1..).zip(lines.iter().map(String::as_str).chain(anchors.lines())) {
            if let Some(line) = unwrapper.unwrap(line) {
                trail.push(Place::new(&name, number), &line);
            }
        }
        trail.finish().findings
    };
    assert_eq!(found(&lines), []);
    for at in (0..lines.len()).step_by(7) {
        let edited = |edit: &dyn Fn(&mut Vec<String>)| {
            let mut lines = lines.clone();
            edit(&mut lines);
            found(&lines)
        };
        let changed = |lines: &mut Vec<String>| {
            let line = &mut lines[at];
            let digit = line.find("\"ts\":\"20").expect("a time") + 8;
            let other = if line.as_bytes()[digit] == b'2' { "3" } else { "2" };
            line.replace_range(digit..=digit, other);
        };
        let place = at as u64 + 1;
        let first_place =
            |edit: &dyn Fn(&mut Vec<String>)| edited(edit)[0].place().map(|place| place.line);
        assert_eq!(first_place(&changed), Some(place));
        assert_eq!(edited(&|lines| drop(lines.remove(at))).len(), 1);
        assert_eq!(first_place(&|lines| lines.insert(at, lines[at].clone())), Some(place + 1));
        // From here to the end, anchors count what is gone.
        assert!(!edited(&|lines| lines.truncate(at)).is_empty());
        if at > 0 {
            assert!(!edited(&|lines| drop(lines.drain(..at))).is_empty());
        }
    }
    // The order of lines matters within a chain only.
    let chain = |line: &String| line.split("\"chain\":\"").nth(1).map(|rest| rest[..16].to_owned());
    let mut moved = lines.clone();
    let later =
        (1..lines.len()).find(|at| chain(&lines[*at]) == chain(&lines[0])).expect("a second");
    moved.swap(0, later);
    assert!(!found(&moved).is_empty());
}
