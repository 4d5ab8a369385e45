//! A provider: an upstream over TLS, in the process of the benchmark, so that its work is not counted as Envoy's.

use std::fs;

use serde_json::json;
use vkey::digest::sha256_hex;

use crate::cases::Group;
use crate::support::root;
use crate::support::tls::{Authority, Cluster, Counts, Serve, Upstream};

/// The name of the provider: a known host of the shipped policy.
pub(crate) const HOST: &str = "api.openai.com";

/// The credential that the gate of the cluster attaches: its name, the variable of Envoy's environment that holds its
/// secret, and the secret.
pub(crate) const CREDENTIAL: &str = "openai";
pub(crate) const VARIABLE: &str = "OPENAI_API_KEY";
pub(crate) const SECRET: &str = "sk-proj-a-provider-key-of-usual-length-0123456789abcdef";

/// The upstream, and the authority of its certificate.
pub(crate) struct Provider {
    upstream: Upstream,
    authority: Authority,
}

impl Provider {
    /// Serves until it is dropped.
    pub(crate) fn start() -> Self {
        let authority = Authority::new("bench");
        let upstream = Serve::tls(&authority.server(&[HOST])).start();
        Self { upstream, authority }
    }

    /// A cluster that leads to it as `vkey tls render` writes one, without the gate.
    pub(crate) fn cluster(&self, name: &str) -> Cluster {
        let digest = fs::read(root().join("filters/vkey/upstream-tls.json"))
            .map(|policy| sha256_hex(&policy))
            .expect("the policy of the module");
        Cluster::tls(name, &self.upstream, &self.authority)
            .sni(HOST)
            .san(HOST)
            .context(|context| {
                context["common_tls_context"]["alpn_protocols"] = json!(["http/1.1"]);
            })
            .stamp(&digest, &[HOST])
    }

    /// The same with the gate, which attaches the credential.
    pub(crate) fn gated_cluster(&self, name: &str) -> Cluster {
        let value = format!("Bearer ${{{VARIABLE}}}");
        self.cluster(name).gate_with(json!({"credentials": [
            {"name": CREDENTIAL, "hosts": [HOST], "header": "authorization", "value": value},
        ]}))
    }

    /// Checks that the requests of a case about the credential brought it, over kept connections.
    ///
    /// # Errors
    ///
    /// When no request had it, or connections were opened for less than ten requests each.
    pub(crate) fn check(&self, group: &Group) -> Result<(), String> {
        if !group.cases.iter().any(|case| case.id == "gated") {
            return Ok(());
        }
        let Counts { handshakes, requests, .. } = self.upstream.counts();
        if handshakes * 10 > requests {
            return Err(format!("{requests} requests came over {handshakes} connections"));
        }
        let has_credential = self.upstream.heads().iter().any(|head| head.contains(SECRET));
        has_credential
            .then_some(())
            .ok_or("no request had the credential of the provider".to_owned())
    }
}
