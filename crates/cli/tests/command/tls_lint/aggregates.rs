//! Clusters that consist of others, by the thousand.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{lint, lint_text, plain, rules};

const CLUSTERS: usize = 10_000;

/// Far more than it takes in a build for tests, and far less than what is not linear takes.
const LONG: Duration = Duration::from_secs(120);

fn aggregate(name: &str, parts: &[String]) -> Value {
    let kind = "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig";
    let config = json!({"@type": kind, "clusters": parts});
    json!({"name": name, "cluster_type": {"typed_config": config}})
}

/// Aggregates by their number, a cluster `leaf`, and a virtual host for each of `routed`.
fn config(parts: impl Fn(usize) -> Vec<String>, routed: impl Iterator<Item = usize>) -> String {
    let mut clusters = vec![plain("leaf", "10.0.0.1", &json!({}))];
    clusters.extend((0..CLUSTERS).map(|number| aggregate(&format!("a{number}"), &parts(number))));
    let host = |number: usize| {
        let domain = format!("h{number}.openai.azure.com");
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": format!("a{number}")}});
        json!({"name": domain, "domains": [domain], "routes": [route]})
    };
    let hosts: Vec<Value> = routed.map(host).collect();
    let routes = json!({"name": "r", "virtual_hosts": hosts});
    json!({"static_resources": {"clusters": clusters}, "route_config": routes}).to_string()
}

fn next(number: usize) -> String {
    if number + 1 == CLUSTERS { "leaf".to_owned() } else { format!("a{}", number + 1) }
}

#[allow(clippy::disallowed_methods, reason = "the test is about time")]
fn soon<T>(done: impl FnOnce() -> T) {
    let start = Instant::now();
    done();
    assert!(start.elapsed() < LONG, "{:?}", start.elapsed());
}

fn is_found_soon(config: &str) {
    soon(|| {
        let (_, report) = lint_text(config, &[]);
        assert!(rules(&report).contains(&"plaintext"), "{report}");
    });
}

#[test]
fn the_host_of_a_route_is_found_at_the_end_of_a_long_chain() {
    is_found_soon(&config(|number| vec![next(number)], 0..1));
}

#[test]
fn cycles_end() {
    let in_circle =
        |number: usize| vec![format!("a{}", (number + 1) % CLUSTERS), "leaf".to_owned()];
    is_found_soon(&config(in_circle, (0..CLUSTERS).step_by(1000)));
    let to_itself = |number: usize| vec![format!("a{number}"), "leaf".to_owned()];
    is_found_soon(&config(to_itself, 0..1));
    // Each of the first hundred consists of all of them.
    let first = |number: usize| match number {
        0..100 => (0..100).map(|part| format!("a{part}")).chain(["leaf".to_owned()]).collect(),
        _ => Vec::new(),
    };
    is_found_soon(&config(first, 0..100));
}

#[test]
fn one_cluster_may_be_part_of_thousands() {
    is_found_soon(&config(|_| vec!["leaf".to_owned()], 0..CLUSTERS));
}

/// Each of the hosts is for each cluster behind its own: half of the square of their number.
#[test]
fn more_pairs_of_host_and_cluster_than_can_be_looked_at_are_refused() {
    let config = config(|number| vec![next(number)], 0..CLUSTERS);
    soon(|| lint(&["-"]).stdin(config).refused(1, "more than this command reads"));
}
