//! What Envoy's own debug and trace logs show of keys, credentials and identities: docs/security.md, "The proxy's
//! debug log".

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::gateways::{Gateway, KNOWN, Plan, proven};
use crate::support::page::section;
use crate::support::tls::{Authority, Serve, Upstream};
use crate::support::{each_envoy, root};

const CREDENTIAL: &str = "a-provider-key";

/// The header of a caller's identity with its value, as Envoy's logs print a header.
const IDENTITY: &str = "'x-vkey-tenant', 'acme'";

const BODY: &str = "the-text-of-a-prompt";

/// The components of Envoy whose log lines contain a text. A message may have several lines.
fn components(log: &str, text: &str) -> BTreeSet<String> {
    let mut component = "";
    let mut found = BTreeSet::new();
    for line in log.lines() {
        // [time][thread][level][component] [source] message
        let mut fields = line.strip_prefix('[').into_iter().flat_map(|line| line.split("]["));
        if let Some(rest) = fields.nth(3) {
            component = rest.split(']').next().expect("a part");
        }
        if line.contains(text) {
            found.insert(component.to_owned());
        }
    }
    found
}

fn at_gate() -> Value {
    json!({"forward": {"credentials": [{"name": "openai"}]}})
}

fn in_front() -> Value {
    let credential =
        json!({"hosts": [KNOWN], "header": "authorization", "value": "Bearer ${PROVIDER}"});
    json!({"forward": {"credentials_in_front": true, "credentials": [credential]}})
}

/// A gateway that writes everything to its log, and its upstream.
fn start(binary: &Path, plugin: Value, arguments: &'static [&'static str]) -> (Gateway, Upstream) {
    let authority = Authority::new("upstreams");
    let upstream = Serve::tls(&authority.server(&[KNOWN])).start();
    let held = json!({"credentials": [{"name": "openai", "hosts": [KNOWN], "header": "authorization",
                                       "value": "Bearer ${PROVIDER}"}]});
    let is_in_front = plugin["forward"]["credentials_in_front"] == json!(true);
    let cluster = proven(&upstream, &authority, KNOWN);
    let cluster = if is_in_front { cluster.gate() } else { cluster.gate_with(held) };
    let plan = Plan::new(binary, "proxy_logs", plugin).options(|options| {
        options.env("PROVIDER", CREDENTIAL).log_level("trace").arguments(arguments)
    });
    (plan.edit(move |config| cluster.install(config)).start(), upstream)
}

/// The whole log after a request with a body that reached the upstream with the credential, and the key's tag.
fn log_of_request(gateway: Gateway, upstream: &Upstream) -> (String, String) {
    let request = gateway.request(KNOWN).body(BODY);
    let answer = gateway.envoy.send(&request);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(upstream.received().contains(CREDENTIAL), "{}", upstream.received());
    gateway.envoy.wait_for_access_log(1);
    gateway.envoy.stop();
    let tag = gateway.key().rsplit('.').next().expect("a part").to_owned();
    (gateway.envoy.proxy_log(), tag)
}

fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_trace_log_shows_the_key_in_one_component_and_no_credential_of_a_gate() {
    each_envoy(|binary| {
        let (gateway, upstream) = start(binary, at_gate(), &[]);
        let (log, tag) = log_of_request(gateway, &upstream);
        assert_eq!(components(&log, &tag), named(&["http"]));
        assert_eq!(components(&log, IDENTITY), named(&["rbac", "router"]));
        assert_eq!(components(&log, CREDENTIAL), named(&[]));
        assert_eq!(components(&log, BODY), named(&[]));
        assert!(!components(&log, "vkey").is_empty(), "the log is there");
    });
}

#[test]
fn a_credential_in_front_is_in_the_log() {
    each_envoy(|binary| {
        let (gateway, upstream) = start(binary, in_front(), &[]);
        let (log, _) = log_of_request(gateway, &upstream);
        assert_eq!(components(&log, CREDENTIAL), named(&["rbac", "router"]));
    });
}

/// The option that the page recommends.
#[test]
fn the_components_of_the_page_keep_the_log_clean() {
    const OPTION: &[&str] = &["--component-log-level", "http:info,router:info,rbac:info"];
    let page = fs::read_to_string(root().join("docs/security.md")).expect("a page");
    assert!(section(&page, "## The proxy's debug log").contains(&OPTION.join(" ")));
    each_envoy(|binary| {
        for plugin in [at_gate(), in_front()] {
            let (gateway, upstream) = start(binary, plugin, OPTION);
            let (log, tag) = log_of_request(gateway, &upstream);
            for text in [tag.as_str(), IDENTITY, CREDENTIAL, BODY] {
                assert_eq!(components(&log, text), named(&[]), "{text}");
            }
        }
    });
}
