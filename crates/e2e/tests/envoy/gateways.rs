//! Gateways: an Envoy whose requests go to clusters that the upstream policy is for.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use vkey::audit::{AuditRecord, Line};
use vkey::decision::{Decision, DenyReason};
use vkey::digest::sha256_hex;

use crate::keys::{Minter, audit_lines, options};
use crate::support::tls::{Authority, Cluster, Upstream};
use crate::support::{Envoy, Options, Request, Response, config, root};

/// A known host of the shipped policy.
pub(crate) const KNOWN: &str = "api.openai.com";

/// A host that the shipped policy does not list.
pub(crate) const UNLISTED: &str = "llm.corp.example";

/// An Envoy, and a key whose requests it lets in.
pub(crate) struct Gateway {
    pub(crate) envoy: Envoy,
    key: String,
}

/// What becomes of a gateway's configuration before it starts.
pub(crate) struct Plan {
    options: Options,
    key: String,
}

/// The digest of the policy that is compiled in.
pub(crate) fn digest() -> String {
    sha256_hex(&fs::read(root().join("filters/vkey/upstream-tls.json")).expect("the policy"))
}

/// The policy rules of a configuration.
pub(crate) fn tighten(rule: Value) -> Value {
    json!({"upstream_tls": {"tighten": [rule]}})
}

/// A cluster whose upstream proves to be that host.
pub(crate) fn proven(upstream: &Upstream, authority: &Authority, host: &str) -> Cluster {
    Cluster::tls("api", upstream, authority).sni(host).san(host)
}

/// The route of all requests.
pub(crate) fn route(config: &mut Value) -> &mut Value {
    let hosts = &mut config::connection_manager(config, "gate")["route_config"]["virtual_hosts"];
    &mut hosts[0]["routes"][0]["route"]
}

impl Plan {
    /// A gateway with a plugin configuration whose keys may send more requests than any test does.
    pub(crate) fn new(binary: &Path, label: &str, mut plugin: Value) -> Self {
        let main = Minter::new("main", None);
        plugin["tiers"] = json!({"default": {"quotas": [{"requests": 100_000, "per": "total"}]}});
        let options = options(label, &main, plugin).on(binary);
        Self { options, key: main.key("k1", json!({})) }
    }

    pub(crate) fn options(self, change: impl FnOnce(Options) -> Options) -> Self {
        Self { options: change(self.options), ..self }
    }

    pub(crate) fn edit(self, edit: impl FnOnce(&mut Value) + 'static) -> Self {
        self.options(|options| options.edit(edit))
    }

    /// The log of an Envoy that rejects the configuration.
    pub(crate) fn refuse(self) -> String {
        Envoy::refuse(self.options).log
    }

    pub(crate) fn start(self) -> Gateway {
        Gateway { envoy: Envoy::start(self.options), key: self.key }
    }
}

impl Gateway {
    /// The key of its requests.
    pub(crate) fn key(&self) -> &str {
        &self.key
    }

    /// A gateway whose requests go to one cluster.
    pub(crate) fn start(binary: &Path, label: &str, cluster: Cluster) -> Self {
        Plan::new(binary, label, json!({})).edit(|config| cluster.install(config)).start()
    }

    /// A request for a host that a key of the gateway's sends.
    pub(crate) fn request(&self, host: &str) -> Request {
        let request = Request::new("POST", "/v1/chat").header("host", host);
        request.bearer(&self.key).body("a secret prompt")
    }

    pub(crate) fn send(&self, host: &str) -> Response {
        self.envoy.send(&self.request(host))
    }

    /// Sends a request that passes.
    #[track_caller]
    pub(crate) fn passes(&self, host: &str) -> Response {
        let answer = self.send(host);
        assert_eq!(answer.status, 200, "{host}: {answer:?}\n{}", self.envoy.proxy_log());
        answer
    }

    /// Sends a request that is refused for that reason, and whose client is told of no limit.
    #[track_caller]
    pub(crate) fn refuses(&self, host: &str, reason: &str) {
        let answer = self.send(host);
        assert_refused(&answer, reason, &self.envoy);
    }

    /// How many requests are charged to the key.
    pub(crate) fn charged(&self) -> u64 {
        self.usage()["limits"][0]["used"].as_u64().expect("a number")
    }

    /// How many requests of the key were allowed, and how many refused for their upstream.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let usage = self.usage();
        let number = |count: &Value| count.as_u64().expect("a number");
        (number(&usage["allowed"]), number(&usage["denied"]["upstream"]))
    }

    fn usage(&self) -> Value {
        let request = Request::new("GET", "/.vkey/usage").bearer(&self.key);
        let answer = self.envoy.send(&request);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    }

    /// Ends Envoy, once it has written as many audit lines; those of requests that an upstream was
    /// meant for.
    pub(crate) fn lines(&self, count: usize) -> Vec<Line<'static>> {
        let path =
            |line: &Line<'static>| line.record.as_ref().and_then(|record| record.path.clone());
        let of_upstreams = |line: &Line<'static>| path(line).as_deref() != Some("/.vkey/usage");
        audit_lines(&self.envoy, count).into_iter().filter(of_upstreams).collect()
    }

    /// The records in these lines.
    pub(crate) fn records(&self, count: usize) -> Vec<AuditRecord<'static>> {
        self.lines(count).into_iter().map(|line| line.record.unwrap_or_default()).collect()
    }

    /// That one request for a host is refused before anything of it leaves: by the client's answer,
    /// the counts, the audit line and the upstream. Ends Envoy.
    #[track_caller]
    pub(crate) fn refuses_to_send(&self, host: &str, upstream: &Upstream, reason: &str) {
        self.refuses(host, reason);
        assert_eq!((self.charged(), self.counts()), (0, (0, 1)));
        assert_denied(&self.records(3)[0], reason);
        assert_eq!(upstream.final_counts().bytes, 0);
    }
}

/// The answer of a request that is refused for its upstream.
#[track_caller]
pub(crate) fn assert_refused(answer: &Response, reason: &str, envoy: &Envoy) {
    assert_eq!(answer.status, 502, "{answer:?}\n{}", envoy.proxy_log());
    assert_eq!(answer.json()["error"]["code"], reason, "{answer:?}");
    let limits = answer.headers.iter().find(|(name, _)| name.starts_with("ratelimit"));
    assert_eq!(limits, None, "{answer:?}");
}

/// The audit line of a request that is refused for its upstream.
#[track_caller]
pub(crate) fn assert_denied(record: &AuditRecord<'_>, reason: &str) {
    let code = record.decision.and_then(Decision::reason).map(DenyReason::code);
    let verdict = record.tls_verdict.as_deref();
    assert_eq!((code, verdict), (Some(reason), Some(reason)));
}

/// The audit line of a request that was let through with that verdict.
#[track_caller]
pub(crate) fn assert_allowed(record: &AuditRecord<'_>, verdict: Option<&str>) {
    assert_eq!(record.decision, Some(Decision::Allow), "{:?}", record.tls_verdict);
    assert_eq!(record.tls_verdict.as_deref(), verdict);
}
