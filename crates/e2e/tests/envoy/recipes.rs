//! The recipes of docs/rotation.md, run as they stand there, on the gate of examples/ecds.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::{Value, json};

use crate::keys::Minter;
use crate::load::usage;
use crate::support::page::{blocks, run, steps};
use crate::support::{
    Connection, Envoy, Options, Request, TempDir, artefact, config, each_envoy, root, vkey,
    wait_for,
};

/// A checkout in which somebody follows the page.
struct Operator {
    dir: TempDir,
    /// The rings that the page names, with the variables of their secrets.
    rings: [(Minter, &'static str); 3],
}

impl Operator {
    fn new(label: &str) -> Self {
        let dir = TempDir::new(label);
        fs::create_dir(dir.file("target")).unwrap();
        symlink(root().join("examples"), dir.file("examples")).unwrap();
        symlink(artefact("VKEY_TEST_WASM"), dir.file("target/vkey.wasm")).unwrap();
        let rings = [
            ("main", "VKEY_MAIN_SECRET"),
            ("main2", "VKEY_MAIN_SECRET_2"),
            ("main3", "VKEY_MAIN_SECRET_3"),
        ];
        Self { dir, rings: rings.map(|(name, variable)| (Minter::new(name, None), variable)) }
    }

    /// Runs the commands under a heading of the page. Returns when the last one ended.
    #[track_caller]
    fn follow(&self, heading: &str, number: usize) -> Instant {
        let section = section_of(heading);
        let commands = blocks(&section, "sh")[number];
        let run = Command::new("bash")
            .args(["-euo", "pipefail", "-c", commands])
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", path())
            .envs(self.rings.iter().map(|(minter, variable)| (variable, &minter.secret)))
            .output()
            .expect("bash");
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{commands}\n{said}");
        Instant::now()
    }

    /// Publishes the present configuration once more, with other options.
    fn publish(&self, options: &[&str]) {
        let mut command = Command::new(vkey());
        command.args(["config", "envoy", "--config", "plugin.json", "--force"]);
        command.args(["--out", "target/ecds/vkey.json"]).args(options);
        assert!(command.current_dir(self.dir.path()).status().unwrap().success());
    }

    /// Runs lint as the page does, on the bootstrap and on the file.
    #[track_caller]
    fn lint(&self) {
        let section = section_of("A gate whose configuration is a file");
        let lint = steps(&section).into_iter().filter(|step| step.command.contains("tls lint"));
        let lint = Vec::from_iter(lint);
        assert_eq!(lint.len(), 1);
        run(&lint, self.dir.path(), &[("PATH", path().to_str().unwrap())]);
    }

    /// Runs the check after the commands under a heading, and compares what it prints.
    #[track_caller]
    fn check(&self, heading: &str, number: usize, gate: &Gate) {
        let section =
            section_of(heading).replace("127.0.0.1:9901", &gate.envoy.admin().to_string());
        let block = blocks(&section, "console")[number];
        let steps = steps(&format!("\n```console\n{block}```\n"));
        run(&steps, self.dir.path(), &[("PATH", path().to_str().unwrap())]);
    }

    /// Starts the example. It does not have the third secret.
    fn start(&self, binary: &Path) -> Envoy {
        let example = fs::read_to_string(root().join("examples/ecds/envoy.yaml")).unwrap();
        let mut options = Options::new("recipes").on(binary).concurrency(2);
        for (minter, variable) in &self.rings[..2] {
            options = options.env(variable, &minter.secret);
        }
        let options = options.in_folder(self.dir.path()).edit(move |config| {
            *config = serde_saphyr::from_str(&example).unwrap();
            config["admin"]["address"]["socket_address"]["port_value"] = json!(0);
            let gate = config::named(config, "/static_resources/listeners", "gate");
            gate["address"]["socket_address"]["port_value"] = json!(0);
        });
        Envoy::start(options)
    }

    /// The running gate, and a key of the first ring that is counted.
    fn gate(&self, binary: &Path) -> Gate {
        self.follow("A gate whose configuration is a file", 0);
        self.lint();
        Gate { envoy: self.start(binary), key: self.rings[0].0.key("k_counted", json!({})) }
    }

    fn file(&self) -> String {
        fs::read_to_string(self.dir.file("target/ecds/vkey.json")).unwrap()
    }
}

/// The part of the page under a heading, up to the next one.
#[track_caller]
fn section_of(heading: &str) -> String {
    let page = fs::read_to_string(root().join("docs/rotation.md")).unwrap();
    let (_, section) = page.split_once(&format!("# {heading}\n")).expect(heading);
    section.split("\n## ").next().unwrap().split("\n### ").next().unwrap().to_owned()
}

/// Where the commands of the page are.
fn path() -> OsString {
    let tools = vkey().parent().unwrap().to_owned();
    std::env::join_paths([tools, "/usr/bin".into(), "/bin".into()]).unwrap()
}

struct Gate {
    envoy: Envoy,
    key: String,
}

impl Gate {
    fn status(&self, key: &str) -> u16 {
        self.envoy.send(&request(key)).status
    }

    /// Whether this Envoy ended when its first module arrived: see [`is_ended_by_a_first_module`].
    fn ends_with_its_first_module(&self, binary: &Path) -> bool {
        let answered = || {
            let answer = Connection::try_open(self.envoy.gate()).and_then(|mut connection| {
                connection.try_send(&request(&self.key)).map(|answer| answer.status)
            });
            answer.is_ok_and(|status| status != 500)
        };
        let outcome = || match self.envoy.exited() {
            Some(status) => Some(Some(status)),
            None => answered().then_some(None),
        };
        let ended = wait_for(outcome, || self.envoy.proxy_log());
        if let Some(status) = ended {
            assert!(is_ended_by_a_first_module(binary), "Envoy ended: {status}");
            println!("Envoy ended: {status}");
        }
        ended.is_some()
    }

    /// Waits until both workers reply with this status.
    fn wait(&self, key: &str, status: u16, published: Instant) {
        let one = || (self.status(key) == status).then_some(());
        wait_for(one, || self.envoy.proxy_log());
        println!("{status} {:?} after the last command", published.elapsed());
        // The kernel chooses the worker of a connection, so several are tried.
        let all = || (0..16).all(|_| self.status(key) == status).then_some(());
        wait_for(all, || self.envoy.proxy_log());
    }

    /// Waits for an audit line of a revoked key.
    fn wait_for_revoked(&self) {
        let line = "\"reason\":\"key_revoked\"";
        let logged = || self.envoy.proxy_log().contains(line).then_some(());
        wait_for(logged, || self.envoy.proxy_log());
    }

    /// How often the counted key was allowed.
    fn counted(&self) -> u64 {
        let usage = usage(&mut Connection::open(self.envoy.gate()), &self.key, "");
        usage["allowed"].as_u64().unwrap()
    }
}

/// Envoy 1.36.2 ends with a segmentation fault when the first module of the process comes by ECDS after the start, on
/// processors with protection keys for user pages.
fn is_ended_by_a_first_module(binary: &Path) -> bool {
    let has_keys = || fs::read_to_string("/proc/cpuinfo").is_ok_and(|info| info.contains(" ospke"));
    binary.to_string_lossy().ends_with("1.36.2") && has_keys()
}

fn request(key: &str) -> Request {
    Request::new("GET", "/v1/models").bearer(key)
}

#[test]
fn a_leaked_key_is_revoked_while_connections_are_open() {
    each_envoy(|binary| {
        let operator = Operator::new("recipe_revoke");
        let gate = operator.gate(binary);
        let leaked = operator.rings[0].0.key("k_leaked", json!({}));
        let mut open = Connection::open(gate.envoy.gate());
        assert_eq!(open.send(&request(&leaked)).status, 200);
        assert_eq!(gate.status(&gate.key), 200);
        let counted = gate.counted();
        let published = operator.follow("Revoke a leaked key at once", 0);
        gate.wait(&leaked, 401, published);
        let refused = || (open.send(&request(&leaked)).status == 401).then_some(());
        wait_for(refused, || gate.envoy.proxy_log());
        gate.wait_for_revoked();
        operator.check("Revoke a leaked key at once", 0, &gate);
        assert_eq!(gate.status(&gate.key), 200);
        assert!(gate.counted() > counted, "the counts stay");
        let published = operator.follow("Revoke a leaked key at once", 1);
        let earlier = operator.rings[0].0.key_at(crate::keys::now_secs() - 60, "k", json!({}));
        gate.wait(&earlier, 401, published);
        operator.check("Revoke a leaked key at once", 1, &gate);
    });
}

/// Sends requests on one connection until `done`. Returns how many there were.
fn load(gate: &Gate, done: &AtomicBool) -> u64 {
    let mut connection = Connection::open(gate.envoy.gate());
    let mut sent = 0;
    while !done.load(Ordering::Relaxed) {
        let answer = connection.send(&request(&gate.key));
        assert_eq!(answer.status, 200, "{answer:?}\n{}", gate.envoy.proxy_log());
        sent += 1;
    }
    sent
}

/// Follows a recipe under load, of which no request is refused and no connection closed.
fn follow_under_load(operator: &Operator, gate: &Gate, heading: &str, key: &str) {
    let done = AtomicBool::new(false);
    let counted = gate.counted();
    let sent = thread::scope(|scope| {
        let load = scope.spawn(|| load(gate, &done));
        let published = operator.follow(heading, 0);
        gate.wait(key, 200, published);
        done.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    assert_eq!(gate.counted() - counted, sent, "the counts stay");
}

#[test]
fn a_root_secret_is_replaced_without_a_restart() {
    each_envoy(|binary| {
        let operator = Operator::new("recipe_replace");
        let gate = operator.gate(binary);
        let [(_, _), (second, _), (third, _)] = &operator.rings;
        let (second, third) = (second.key("k2", json!({})), third.key("k3", json!({})));
        assert_eq!((gate.status(&gate.key), gate.status(&second)), (200, 401));

        let heading = "Envoy has the new secret in its environment";
        follow_under_load(&operator, &gate, heading, &second);
        operator.check(heading, 0, &gate);
        operator.follow(heading, 1);
        let minted = fs::read_to_string(operator.dir.file("new.key")).unwrap();
        assert_eq!(gate.status(minted.trim()), 200);
        assert!(minted.starts_with("vk1.main2-0."), "{minted}");

        let literal = "Envoy does not have the new secret";
        follow_under_load(&operator, &gate, literal, &third);
        operator.check(literal, 0, &gate);
        assert_eq!(gate.status(&second), 200);
        let secret = &operator.rings[2].0.secret;
        assert!(operator.file().contains(secret.as_str()));
        let file = fs::metadata(operator.dir.file("target/ecds/vkey.json")).unwrap();
        assert_eq!(file.permissions().mode() & 0o777, 0o600);
        assert!(gate.envoy.admin_get("/config_dump").text().contains(secret.as_str()));

        // A later file keeps the secret.
        let published = operator.follow(heading, 2);
        gate.wait(&gate.key, 401, published);
        assert_eq!((gate.status(&second), gate.status(&third)), (200, 200));
        let counters = [("config_fail", 0), ("update_rejected", 0), ("config_reload", 4)];
        for (counter, count) in counters {
            let name = format!("extension_config_discovery.http_filter.vkey.{counter}");
            assert_eq!(gate.envoy.stat(&name), Some(count), "{counter}");
        }
    });
}

#[test]
fn a_ring_whose_secret_has_leaked_is_revoked() {
    each_envoy(|binary| {
        let operator = Operator::new("recipe_ring");
        let gate = operator.gate(binary);
        let second = operator.rings[1].0.key("k2", json!({}));
        let heading = "Envoy has the new secret in its environment";
        let published = operator.follow(heading, 0);
        gate.wait(&second, 200, published);
        assert_eq!(gate.status(&gate.key), 200);
        let published = operator.follow(heading, 2);
        gate.wait(&gate.key, 401, published);
        gate.wait_for_revoked();
        operator.check(heading, 1, &gate);
        assert_eq!(gate.status(&second), 200);
        // What Envoy refuses changes nothing, and is counted as the page says.
        operator.publish(&["--module", "target/none.wasm"]);
        for (counter, count) in [("config_fail", 1), ("update_rejected", 1), ("config_reload", 4)] {
            let name = format!("extension_config_discovery.http_filter.vkey.{counter}");
            gate.envoy.wait_for_stat(&name, count);
        }
        assert_eq!((gate.status(&gate.key), gate.status(&second)), (401, 200));
    });
}

/// What the example says about its start.
#[test]
fn the_gate_is_closed_before_its_first_configuration() {
    each_envoy(|binary| {
        let operator = Operator::new("recipe_closed");
        operator.follow("A gate whose configuration is a file", 0);
        let key = operator.rings[0].0.key("k", json!({}));
        let good = operator.file();
        let bad = good.replace("\\\"keyring\\\"", "\\\"keyrings\\\"");
        assert_ne!(good, bad);
        for first in ["{\"resources\": []}", &bad] {
            fs::write(operator.dir.file("target/ecds/vkey.json"), first).unwrap();
            let gate = Gate { envoy: operator.start(binary), key: key.clone() };
            assert_eq!(gate.status(&key), 500);
            fs::write(operator.dir.file("target/next.json"), &good).unwrap();
            let to = operator.dir.file("target/ecds/vkey.json");
            fs::rename(operator.dir.file("target/next.json"), to).unwrap();
            if gate.ends_with_its_first_module(binary) {
                continue;
            }
            gate.wait(&key, 200, Instant::now());
            gate.wait("none", 401, Instant::now());
        }
    });
}

/// Kubernetes mounts a directory of links, and replaces the one they all go through.
#[test]
fn a_mounted_directory_is_watched() {
    each_envoy(|binary| {
        let operator = Operator::new("recipe_mounted");
        operator.follow("A gate whose configuration is a file", 0);
        let first = operator.file();
        let folder = operator.dir.file("target/ecds");
        fs::remove_file(folder.join("vkey.json")).unwrap();
        let mount = |version: &str, text: &str| {
            fs::create_dir(folder.join(version)).unwrap();
            fs::write(folder.join(version).join("vkey.json"), text).unwrap();
            symlink(version, folder.join("..data_tmp")).unwrap();
            fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        };
        mount("..1", &first);
        symlink("..data/vkey.json", folder.join("vkey.json")).unwrap();
        let gate =
            Gate { envoy: operator.start(binary), key: operator.rings[0].0.key("k", json!({})) };
        gate.wait(&gate.key, 200, Instant::now());
        let revoked = r#"\"revoked\": {\"keys\": [\"k\"]}, \"usage\""#;
        mount("..2", &first.replace(r#"\"usage\""#, revoked));
        gate.wait(&gate.key, 401, Instant::now());
    });
}

/// The example says that its connection manager is that of envoy.yaml.
#[test]
fn the_example_has_the_connection_manager_of_envoy_yaml() {
    let text = fs::read_to_string(root().join("examples/ecds/envoy.yaml")).unwrap();
    let manager = |mut config: Value| {
        let manager = config::connection_manager(&mut config, "gate");
        let filters = manager["http_filters"].as_array_mut().unwrap();
        let discovery = filters.remove(0)["config_discovery"].take();
        manager.as_object_mut().unwrap().remove("route_config");
        (manager.take(), discovery)
    };
    let (example, discovery) = manager(serde_saphyr::from_str(&text).unwrap());
    assert_eq!(example, manager(config::shipped()).0);
    assert!(discovery.get("default_config").is_none());
    assert_eq!(discovery["config_source"]["initial_fetch_timeout"], "0s");
}
