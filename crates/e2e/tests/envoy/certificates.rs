//! Certificates on both sides of the gate: the variants of `envoy.yaml`, and files that change
//! while it runs.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use vkey::decision::{Decision, DenyReason};

use crate::keys::{Minter, options, records};
use crate::support::tls::{Authority, Client, Leaf, Serve, Upstream};
use crate::support::{
    Envoy, Options, Request, Response, TempDir, artefact, config, each_envoy, wait_for,
};
use crate::upstreams::disconnect;

const CLIENTS: &str = "client-mtls";
const UPSTREAM: &str = "upstream-mtls";

/// The folder that the variants read, with all that they name.
struct Folder {
    dir: TempDir,
    clients: Authority,
    upstreams: Authority,
    proxies: Authority,
    proxy: Leaf,
}

impl Folder {
    fn new() -> Self {
        let dir = TempDir::new("certificates");
        config::write_sds(dir.path());
        let (clients, upstreams) = (Authority::new("clients"), Authority::new("upstreams"));
        let proxies = Authority::new("proxies");
        for (name, authority) in [("clients", &clients), ("upstreams", &upstreams)] {
            fs::write(dir.file(&format!("{name}.crl")), authority.revocations(&[])).unwrap();
            authority.write(dir.path(), &format!("{name}.pem"));
        }
        proxies.write(dir.path(), "proxies.pem");
        upstreams.server(&["127.0.0.1"]).write(dir.path(), "gate");
        upstreams.server(&["echo.test"]).write(dir.path(), "echo");
        let proxy = proxies.client("proxy");
        proxy.write(dir.path(), "proxy");
        Self { dir, clients, upstreams, proxies, proxy }
    }

    fn options(&self, label: &str, main: &Minter, binary: &Path, variant: &str) -> Options {
        options(label, main, json!({})).on(binary).variant(variant, self.dir.path())
    }

    /// A client of the gate.
    fn client(&self, certificate: Option<&Leaf>) -> Client {
        Client::new(&self.upstreams, certificate)
    }

    /// Puts the files where a mounted Kubernetes secret has them: behind a link to the folder of
    /// one version, so that all of them change in one step.
    fn mount(&self) {
        let version = self.dir.file("..1");
        fs::create_dir(&version).unwrap();
        for file in fs::read_dir(self.dir.path()).unwrap() {
            let file = file.unwrap();
            if file.file_type().unwrap().is_file() {
                fs::rename(file.path(), version.join(file.file_name())).unwrap();
                let behind = Path::new("..data").join(file.file_name());
                symlink(behind, file.path()).unwrap();
            }
        }
        symlink("..1", self.dir.file("..data")).unwrap();
    }

    /// Replaces the mounted version by another that differs in these files.
    fn remount(&self, version: &str, changes: &[(&str, String)]) {
        let folder = self.dir.file(version);
        fs::create_dir(&folder).unwrap();
        for file in fs::read_dir(self.dir.file("..data")).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), folder.join(file.file_name())).unwrap();
        }
        for (name, text) in changes {
            fs::write(folder.join(name), text).unwrap();
        }
        symlink(version, self.dir.file("..new")).unwrap();
        fs::rename(self.dir.file("..new"), self.dir.file("..data")).unwrap();
    }

    /// Replaces a file in one step, as `mv` does.
    fn replace(&self, name: &str, text: &str) {
        let new = self.dir.file(&format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.dir.file(name)).unwrap();
    }
}

/// A request on a new connection; an error is a connection that the gate refused.
fn ask(envoy: &Envoy, client: &Client, request: &Request) -> io::Result<Response> {
    client.connect(envoy.gate(), "127.0.0.1")?.try_send(request)
}

fn status(envoy: &Envoy, client: &Client, request: &Request) -> Option<u16> {
    ask(envoy, client, request).ok().map(|answer| answer.status)
}

/// Asks until the answer has that status, or the connection is refused for `None`.
fn wait_for_status(envoy: &Envoy, client: &Client, request: &Request, wanted: Option<u16>) {
    let probe = || (status(envoy, client, request) == wanted).then_some(());
    wait_for(probe, || format!("never {wanted:?}\n{}", envoy.proxy_log()));
}

/// It is still the process that was started, with the listeners that it was started with.
fn assert_same_process(envoy: &Envoy) {
    assert_eq!(envoy.exited(), None);
    for (name, value) in [
        ("server.live", 1),
        ("listener_manager.listener_modified", 0),
        ("server.hot_restart_epoch", 0),
    ] {
        assert_eq!(envoy.stat(name), Some(value), "{name}");
    }
}

fn models(key: &str) -> Request {
    Request::new("GET", "/v1/models").bearer(key)
}

#[test]
fn every_variant_is_a_configuration() {
    let folder = Folder::new();
    let module = artefact("VKEY_TEST_WASM");
    for variants in [&[CLIENTS][..], &[UPSTREAM], &[CLIENTS, UPSTREAM]] {
        let names: Vec<String> = variants.iter().map(|name| (*name).to_owned()).collect();
        let text = config::variant_text(&names, folder.dir.path());
        assert!(
            !text.contains("target/tls")
                && !variants.iter().any(|v| text.contains(&format!("\n#{v} ")))
        );
        let text = text.replace("target/vkey.wasm", module.to_str().unwrap());
        let file = folder.dir.file("envoy.yaml");
        fs::write(&file, text).unwrap();
        each_envoy(|binary| {
            let mut command = Command::new(binary);
            command.args(["--mode", "validate", "--config-path"]).arg(&file);
            let output =
                command.env("VKEY_MAIN_SECRET", &Minter::new("main", None).secret).output();
            let output = output.unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{variants:?}: {said}");
        });
    }
}

#[test]
fn a_client_needs_a_certificate_and_a_key_may_name_it() {
    each_envoy(|binary| {
        let folder = Folder::new();
        let (alice, bob) = (folder.clients.client("alice"), folder.clients.client("bob"));
        let stranger = Authority::new("strangers").client("alice");
        let main = Minter::new("main", None);
        let envoy = Envoy::start(folder.options("clients", &main, binary, CLIENTS));
        let free = models(&main.key("k1", json!({})));
        let only_alice = json!({"only": {"client_cert": [alice.sha256()]}});
        let bound = models(&main.key("k2", only_alice));

        let none = ask(&envoy, &folder.client(None), &free).unwrap_err().to_string();
        assert!(none.contains("CertificateRequired"), "{none}");
        let unknown = ask(&envoy, &folder.client(Some(&stranger)), &free).unwrap_err().to_string();
        assert!(unknown.contains("UnknownCA"), "{unknown}");
        let alice = folder.client(Some(&alice));
        let bob = folder.client(Some(&bob));
        assert_eq!(status(&envoy, &alice, &bound), Some(200));
        assert_eq!(status(&envoy, &bob, &free), Some(200));
        assert_eq!(status(&envoy, &bob, &bound), Some(403));
        // A resumed session is still that client's.
        assert_eq!(status(&envoy, &alice, &bound), Some(200));
        assert_eq!(status(&envoy, &bob, &bound), Some(403));
        assert!(alice.resumed() == 1 && bob.resumed() > 0);

        let decisions: Vec<_> = records(&envoy, 5).iter().map(|record| record.decision).collect();
        let (allow, deny) = (Some(Decision::Allow), Some(Decision::Deny(DenyReason::ClientCert)));
        assert_eq!(decisions, [allow, allow, deny, allow, deny]);
    });
}

#[test]
fn an_authority_is_added_and_taken_out_without_a_restart() {
    each_envoy(|binary| {
        let folder = Folder::new();
        let next = Authority::new("clients of next year");
        let old = folder.client(Some(&folder.clients.client("alice")));
        let new = folder.client(Some(&next.client("alice")));
        let main = Minter::new("main", None);
        let envoy = Envoy::start(folder.options("bundle", &main, binary, CLIENTS));
        let request = models(&main.key("k1", json!({})));
        assert_eq!(status(&envoy, &old, &request), Some(200));
        assert_eq!(status(&envoy, &new, &request), None);

        let lists = [folder.clients.revocations(&[]), next.revocations(&[])];
        folder.replace("clients.crl", &lists.concat());
        folder.replace("clients.pem", &[folder.clients.pem(), next.pem()].concat());
        wait_for_status(&envoy, &new, &request, Some(200));
        assert_eq!(status(&envoy, &old, &request), Some(200));

        folder.replace("clients.pem", &next.pem());
        wait_for_status(&envoy, &old, &request, None);
        assert_eq!(status(&envoy, &new, &request), Some(200));
        assert_same_process(&envoy);
    });
}

#[test]
fn a_mounted_secret_changes_as_a_whole() {
    each_envoy(|binary| {
        let folder = Folder::new();
        folder.mount();
        let next = Authority::new("clients of next year");
        let alice = folder.client(Some(&folder.clients.client("alice")));
        let carol = folder.client(Some(&next.client("carol")));
        let main = Minter::new("main", None);
        let envoy = Envoy::start(folder.options("mounted", &main, binary, CLIENTS));
        let request = models(&main.key("k1", json!({})));
        assert_eq!(status(&envoy, &alice, &request), Some(200));
        assert_eq!(status(&envoy, &carol, &request), None);

        let bundle = ("clients.pem", next.pem());
        folder.remount("..2", &[bundle, ("clients.crl", next.revocations(&[]))]);
        wait_for_status(&envoy, &carol, &request, Some(200));
        assert_eq!(status(&envoy, &alice, &request), None);

        let sds = fs::read_to_string(folder.dir.file("clients.yaml")).unwrap();
        let sds = sds.replace("/clients.pem", "/..data/both.pem");
        let sds = sds.replace("/clients.crl", "/..data/both.crl");
        let both = [folder.clients.pem(), next.pem()].concat();
        let lists = [folder.clients.revocations(&[]), next.revocations(&[])].concat();
        let changes = [("clients.yaml", sds), ("both.pem", both), ("both.crl", lists)];
        folder.remount("..3", &changes);
        wait_for_status(&envoy, &alice, &request, Some(200));
        assert_eq!(status(&envoy, &carol, &request), Some(200));
        assert_same_process(&envoy);
    });
}

#[test]
fn a_revoked_client_opens_no_more_connections() {
    each_envoy(|binary| {
        let folder = Folder::new();
        let leaf = folder.clients.client("alice");
        let (alice, fresh) = (folder.client(Some(&leaf)), || folder.client(Some(&leaf)));
        let bob = folder.client(Some(&folder.clients.client("bob")));
        let main = Minter::new("main", None);
        let envoy = Envoy::start(folder.options("revoked", &main, binary, CLIENTS));
        let request = models(&main.key("k1", json!({})));
        let mut open = alice.connect(envoy.gate(), "127.0.0.1").unwrap();
        assert_eq!(open.send(&request).status, 200);
        assert_eq!(status(&envoy, &alice, &request), Some(200));
        assert_eq!(alice.resumed(), 1, "there is a session to resume");

        folder.replace("clients.crl", &folder.clients.revocations(&[&leaf]));
        wait_for_status(&envoy, &fresh(), &request, None);
        let resumption = ask(&envoy, &alice, &request).unwrap_err().to_string();
        assert!(resumption.contains("CertificateRevoked"), "{resumption}");
        assert_eq!(status(&envoy, &bob, &request), Some(200));
        assert_eq!(open.send(&request).status, 200, "what is open is not judged again");

        folder.replace("clients.crl", &folder.clients.revocations(&[]));
        wait_for_status(&envoy, &fresh(), &request, Some(200));
        // Without a list that is good nobody is known not to be revoked.
        for bad in [folder.clients.revocations_until(2021, &[]), "no list".to_owned()] {
            folder.replace("clients.crl", &bad);
            wait_for_status(&envoy, &fresh(), &request, None);
            folder.replace("clients.crl", &folder.clients.revocations(&[]));
            wait_for_status(&envoy, &fresh(), &request, Some(200));
        }
        assert_same_process(&envoy);
    });
}

#[test]
fn a_connection_ends_some_time_and_its_client_is_judged_again() {
    each_envoy(|binary| {
        let folder = Folder::new();
        let alice = folder.client(Some(&folder.clients.client("alice")));
        let main = Minter::new("main", None);
        let options = folder.options("duration", &main, binary, CLIENTS).edit(|config| {
            let manager = config::connection_manager(config, "gate");
            let duration = &mut manager["common_http_protocol_options"]["max_connection_duration"];
            assert_eq!(std::mem::replace(duration, json!("0.5s")), json!("900s"));
        });
        let envoy = Envoy::start(options);
        let request = models(&main.key("k1", json!({})));
        let mut open = alice.connect(envoy.gate(), "127.0.0.1").unwrap();
        let last = || open.send(&request).header("connection").filter(|value| value == "close");
        wait_for(last, || "the connection lasts".to_owned());
        assert!(open.try_send(&request).is_err());
    });
}

/// The shipped cluster, with the port of an upstream of the test.
fn lead_to(upstream: &Upstream) -> impl FnOnce(&mut Value) + 'static {
    let port = upstream.address().port();
    move |config| {
        let echo = config::named(config, "/static_resources/clusters", "echo");
        let endpoint = &mut echo["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"];
        endpoint["address"] =
            json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
    }
}

fn without_certificate(config: &mut Value) {
    let echo = config::named(config, "/static_resources/clusters", "echo");
    let context = &mut echo["transport_socket"]["typed_config"]["common_tls_context"];
    let removed = context.as_object_mut().unwrap().remove("tls_certificate_sds_secret_configs");
    assert!(removed.is_some());
}

#[test]
fn the_upstream_is_verified_and_gets_the_gates_certificate() {
    each_envoy(|binary| {
        let folder = Folder::new();
        let main = Minter::new("main", None);
        let request = models(&main.key("k1", json!({})));
        let leaf = folder.upstreams.server(&["echo.test"]);
        let options = |label| folder.options(label, &main, binary, UPSTREAM);
        let good = Serve::tls(&leaf).requires_client(&folder.proxies).start();
        let other = folder.upstreams.server(&["127.0.0.1", "other.test"]);
        let other = Serve::tls(&other).requires_client(&folder.proxies).start();
        let plain = crate::keys::options("plain", &main, json!({})).on(binary);
        for (label, options, upstream, wanted) in [
            ("good", options("good").edit(lead_to(&good)), &good, 200),
            ("none", options("none").edit(lead_to(&good)).edit(without_certificate), &good, 503),
            ("plain", plain.edit(lead_to(&good)), &good, 502),
            ("name", options("name").edit(lead_to(&other)), &other, 503),
        ] {
            let before = upstream.counts();
            let envoy = Envoy::start(options);
            assert_eq!(envoy.send(&request).status, wanted, "{label}");
            envoy.stop();
            let bytes = upstream.final_counts().bytes - before.bytes;
            assert_eq!(bytes > 0, wanted == 200, "{label}: {bytes} bytes");
        }
        assert_eq!(good.clients(), [Some(folder.proxy.sha256())]);
        // The variant by itself: the echo service of the file wants a certificate too.
        let envoy = Envoy::start(options("echo"));
        assert_eq!(envoy.send(&request).status, 200, "{}", envoy.proxy_log());
        let envoy = Envoy::start(options("echo").edit(without_certificate));
        assert_eq!(envoy.send(&request).status, 503);
    });
}

#[test]
fn the_gates_certificate_and_the_upstreams_revocations_change_without_a_restart() {
    each_envoy(|binary| {
        let folder = Folder::new();
        let main = Minter::new("main", None);
        let request = models(&main.key("k1", json!({})));
        let (first, second) = [(); 2].map(|()| folder.upstreams.server(&["echo.test"])).into();
        let upstream = Serve::tls(&first).requires_client(&folder.proxies).start();
        let options = folder.options("rotation", &main, binary, UPSTREAM).edit(lead_to(&upstream));
        let envoy = Envoy::start(options);
        let status = || {
            disconnect(&envoy, &upstream, "echo");
            envoy.send(&request).status
        };
        assert_eq!(status(), 200);

        // The certificate and its key in one step: files of other names, named by the SDS file.
        let next = folder.proxies.client("proxy");
        next.write(folder.dir.path(), "proxy-2");
        let sds = fs::read_to_string(folder.dir.file("proxy.yaml")).unwrap();
        let sds = sds.replace("/proxy.pem", "/proxy-2.pem").replace("/proxy.key", "/proxy-2.key");
        folder.replace("proxy.yaml", &sds);
        let shown = || {
            assert_eq!(status(), 200);
            (upstream.clients().pop() == Some(Some(next.sha256()))).then_some(())
        };
        wait_for(shown, || envoy.proxy_log());

        folder.replace("upstreams.crl", &folder.upstreams.revocations(&[&first]));
        wait_for(|| (status() == 503).then_some(()), || envoy.proxy_log());
        let before = upstream.counts().bytes;
        assert_eq!(status(), 503);
        assert_eq!(upstream.counts().bytes, before);
        upstream.swap(&second);
        assert_eq!(status(), 200);
        assert_same_process(&envoy);
    });
}
