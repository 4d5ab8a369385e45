//! What the gates ask of Envoy for a request over a pooled connection, and when they ask for all of it again.

use std::fs;
use std::sync::mpsc::{Receiver, channel};

use serde_json::{Value, json};

use crate::gateways::{KNOWN, Plan, assert_refused, digest, proven};
use crate::support::tls::{Authority, Cluster, Serve};
use crate::support::{Connection, TempDir, config, each_envoy, wait_for};

const REQUESTS: usize = 20;

/// How often a callback of each gate asked for a property, by the lines that Envoy logs of calls.
#[derive(Debug, Default)]
struct Asked {
    request: Vec<u32>,
    response: Vec<u32>,
}

impl Asked {
    fn read(log: &str) -> Self {
        let (mut asked, mut others) = (Self::default(), Vec::new());
        let mut current = &mut others;
        for line in log.lines() {
            if line.contains("[host->vm] proxy_on_request_headers(") {
                asked.request.push(0);
                current = &mut asked.request;
            } else if line.contains("[host->vm] proxy_on_response_headers(") {
                asked.response.push(0);
                current = &mut asked.response;
            } else if line.contains("[host->vm] proxy_on_")
                && !line.contains("proxy_on_memory_allocate(")
            {
                current = &mut others;
            } else if line.contains("env.proxy_get_property(")
                && let Some(count) = current.last_mut()
            {
                *count += 1;
            }
        }
        asked
    }
}

/// The gate of the cluster attaches a credential. Every second, one request asks for more.
#[test]
fn a_pooled_connection_is_asked_for_four_properties_and_its_response_for_one() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let held = json!({"credentials": [{
            "name": "provider", "hosts": [KNOWN], "header": "authorization",
            "value": "Bearer ${PROVIDER_KEY}",
        }]});
        let cluster = proven(&upstream, &authority, KNOWN).gate_with(held);
        let granted = json!({"forward": {"credentials": [{"name": "provider"}]}});
        let gateway = Plan::new(binary, "asked", granted)
            .options(|options| {
                let trace = ["--component-log-level", "wasm:trace"];
                options.env("PROVIDER_KEY", "of the provider").arguments(&trace)
            })
            .edit(|config| cluster.install(config))
            .start();
        let mut connection = Connection::open(gateway.envoy.gate());
        for _ in 0..REQUESTS {
            let response = connection.send(&gateway.request(KNOWN));
            assert_eq!(response.status, 200, "{response:?}");
        }
        gateway.envoy.wait_for_access_log(REQUESTS);
        let asked = Asked::read(&gateway.envoy.proxy_log());
        // Each request passes two gates, first that of the listener, and its response passes first that of the cluster.
        let least = |calls: &[u32], place: usize| {
            let calls = calls.iter().skip(place).step_by(2);
            calls.copied().min().unwrap_or(u32::MAX)
        };
        assert!(asked.request.len() >= 2 * REQUESTS, "{asked:?}");
        assert_eq!(least(&asked.request, 1), 4, "{asked:?}");
        let response = [least(&asked.response, 0), least(&asked.response, 1)];
        assert_eq!(response, [1, 0], "{asked:?}");
    });
}

/// A cluster in a file that Envoy watches.
struct Watched {
    dir: TempDir,
    cluster: Value,
    version: u32,
}

impl Watched {
    fn take_out(config: &mut Value) -> Self {
        let dir = TempDir::new("cds");
        let clusters = config["static_resources"]["clusters"].as_array_mut().unwrap();
        let api = clusters.iter().position(|cluster| cluster["name"] == "api").unwrap();
        let mut cluster = clusters.remove(api);
        cluster["@type"] = json!("type.googleapis.com/envoy.config.cluster.v3.Cluster");
        let file = json!({"path": dir.file("cds.json")});
        config["dynamic_resources"]["cds_config"] =
            json!({"path_config_source": file, "resource_api_version": "V3"});
        let mut watched = Self { dir, cluster, version: 0 };
        watched.publish();
        watched
    }

    fn stamp(&mut self, hosts: &[&str]) {
        let stamp = json!({"filter_metadata": {"vkey": {"policy": digest(), "hosts": hosts}}});
        self.cluster["metadata"] = stamp;
        self.publish();
    }

    /// Envoy notices files that are moved into place.
    fn publish(&mut self) {
        self.version += 1;
        let response =
            json!({"version_info": self.version.to_string(), "resources": [self.cluster]});
        let next = self.dir.file("cds.next");
        fs::write(&next, response.to_string()).unwrap();
        fs::rename(&next, self.dir.file("cds.json")).unwrap();
    }
}

fn watch(cluster: Cluster, plan: Plan) -> (Plan, Receiver<Watched>) {
    let (sender, receiver) = channel();
    let plan = plan.edit(move |config| {
        cluster.install(config);
        let routes = &mut config::connection_manager(config, "gate")["route_config"];
        routes["validate_clusters"] = json!(false);
        sender.send(Watched::take_out(config)).unwrap();
    });
    (plan, receiver)
}

/// The change gives the cluster new connections, and the first attempt on one asks for everything.
#[test]
fn a_stamp_that_changes_holds_for_the_next_request() {
    each_envoy(|binary| {
        let authority = Authority::new("upstreams");
        let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
        let cluster = proven(&upstream, &authority, KNOWN).gate().stamp(&digest(), &[KNOWN]);
        let (plan, watched) = watch(cluster, Plan::new(binary, "stamp", json!({})));
        let gateway = plan.options(|options| options.concurrency(1)).start();
        let mut watched = watched.recv().unwrap();
        // Without a body no response comes early, which would end the connection.
        let request = gateway.request(KNOWN).body("");
        let status = || gateway.envoy.send(&request).status;
        wait_for(|| (status() == 200).then_some(()), || gateway.envoy.proxy_log());
        assert_eq!(status(), 200);
        gateway.envoy.wait_for_stat("cluster.api.upstream_cx_active", 1);
        watched.stamp(&["other.example"]);
        // The worker has the new cluster when it closes the connection of the old one.
        gateway.envoy.wait_for_stat("cluster.api.upstream_cx_active", 0);
        let requests = upstream.counts().requests;
        for _ in 0..3 {
            assert_refused(&gateway.envoy.send(&request), "upstream_name", &gateway.envoy);
        }
        assert_eq!(upstream.counts().requests, requests);
        // It is for the host again.
        watched.stamp(&[KNOWN]);
        wait_for(|| (status() == 200).then_some(()), || gateway.envoy.proxy_log());
    });
}
