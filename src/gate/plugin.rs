//! The plugin: a gate or an upstream gate, as the configuration says.

use std::rc::Rc;

use crate::config::{AuditSettings, RoleConfig};
use crate::exchange::Handovers;
use crate::host::{Host, Level};
use crate::json::Invalid;
use crate::upstream_tls::Policy;

use super::{Gate, UpstreamGate};

/// What a root context holds.
pub enum Plugin {
    /// The gate in the listener.
    Gate(Box<Gate>),
    /// The upstream gate, in a cluster.
    UpstreamGate(Box<UpstreamGate>),
}

/// The configuration is invalid on every worker: the host should keep the one it has.
#[derive(Debug)]
pub struct Refused(pub Invalid);

impl Plugin {
    /// A gate that denies everything.
    pub fn closed(policy: Policy) -> Self {
        Self::Gate(Box::new(Gate::closed(AuditSettings::default(), policy)))
    }

    /// Shares the handovers of the VM, so that the gates of listeners and of clusters need the host less.
    pub fn share(&mut self, handovers: &Rc<Handovers>) {
        match self {
            Self::Gate(gate) => gate.share(handovers),
            Self::UpstreamGate(gate) => gate.share(handovers),
        }
    }

    /// A plugin for a configuration. It depends on the text, the policy and the environment alone: if workers disagree,
    /// Envoy lets requests pass unfiltered.
    ///
    /// An empty configuration, or one whose secrets are missing or unusable, gives a gate that denies everything with
    /// [`DenyReason::NotReady`](crate::decision::DenyReason::NotReady).
    ///
    /// # Errors
    ///
    /// [`Refused`] for an invalid configuration, independent of the environment.
    pub fn configure(
        text: &[u8],
        policy: Policy,
        environment: impl Fn(&str) -> Option<String>,
        host: &impl Host,
    ) -> Result<Self, Refused> {
        if text.trim_ascii().is_empty() {
            host.log(Level::Error, "vkey: no configuration: every request is refused");
            return Ok(Self::closed(policy));
        }
        let refused = |invalid| {
            host.log(Level::Error, &format!("vkey: configuration refused: {invalid}"));
            Refused(invalid)
        };
        let role = RoleConfig::parse(text).map_err(refused)?;
        role.check_policy(&policy).map_err(refused)?;
        Ok(match role {
            RoleConfig::Gate(config) => {
                Self::Gate(Box::new(Gate::configure(*config, policy, environment, host)))
            }
            RoleConfig::UpstreamTls(config) => {
                Self::UpstreamGate(Box::new(UpstreamGate::new(policy, &config, environment, host)))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Rules;
    use crate::host::{MemoryHost, MemoryStore};

    const GATE: &str = r#"{"keyring": [{"name": "main", "secret": "${S}"}]}"#;

    /// What a configuration makes of the module on a new worker, and what it says.
    fn configure(store: &MemoryStore, text: &str) -> (Option<Plugin>, Vec<(Level, String)>) {
        let host = MemoryHost::new(store.clone());
        let secret = |_: &str| Some("Plugin-1-reads-a-configuration".to_owned());
        let policy = Policy::strictest();
        let plugin = Plugin::configure(text.as_bytes(), policy, secret, &host).ok();
        (plugin, host.log.take())
    }

    fn refusal(text: &str) -> String {
        let (plugin, log) = configure(&MemoryStore::new(Rules::Envoy), text);
        assert!(plugin.is_none(), "{text}");
        let [(Level::Error, text)] = &*log else { panic!("{log:?}") };
        text.strip_prefix("vkey: configuration refused: ").unwrap().to_owned()
    }

    #[test]
    fn the_role_says_which_gate_it_is() {
        let store = MemoryStore::new(Rules::Envoy);
        let is_upstream = |text: &str| match configure(&store, text).0.unwrap() {
            Plugin::Gate(_) => false,
            Plugin::UpstreamGate(_) => true,
        };
        assert!(!is_upstream(GATE) && !is_upstream("") && !is_upstream(" \n"));
        for members in [
            "",
            r#", "host": "envoy", "upstream_tls": {"require_stamp": true, "tighten": []}"#,
            r#", "deadline": "1s""#,
            r#", "deadline": "300s""#,
        ] {
            assert!(is_upstream(&format!(r#"{{"role": "upstream_tls"{members}}}"#)), "{members}");
        }
    }

    #[test]
    fn a_gate_of_a_cluster_that_could_be_read_in_two_ways_is_refused() {
        let of = |members: &str| refusal(&format!(r#"{{"role": "upstream_tls", {members}}}"#));
        let unknown =
            "unknown member (known here: role, upstream_tls, credentials, host, deadline)";
        assert_eq!(of(r#""keyring": []"#), format!("keyring: {unknown}"));
        assert_eq!(of(r#""policy": "other.json""#), format!("policy: {unknown}"));
        for deadline in ["0s", "301s", "1h"] {
            let refused = of(&format!(r#""deadline": "{deadline}""#));
            assert_eq!(refused, "deadline: expected 1s to 300s", "{deadline}");
        }
        assert!(of(r#""deadline": "500ms""#).starts_with("deadline: expected a duration in whole"));
        assert_eq!(of(r#""deadline": 10"#), "deadline: expected a string");
        let refused = of(r#""upstream_tls": {"tighten": [{"host": "a.example", "skip": true}]}"#);
        assert!(refused.starts_with("upstream_tls.tighten[0].skip: unknown member"), "{refused}");
        assert_eq!(refusal(r#"{"role": "gate"}"#), "role: expected one of upstream_tls");
        assert_eq!(refusal(r#"{"role": 1}"#), "role: expected a string");
        assert!(refusal(r#"{"role": "upstream_tls""#).contains("line 1"));
    }

    /// The strictest policy knows every host.
    #[test]
    fn no_known_host_gets_a_credential_without_tls() {
        let credential = r#""hosts": ["127.0.0.1"], "header": "x-key", "value": "${S}",
            "plaintext": {"reason": "r", "owner": "o", "until": "2027-03-31"}"#;
        let gate = format!(
            r#"{{"role": "upstream_tls", "credentials": [{{"name": "a", {credential}}}]}}"#
        );
        let refused = refusal(&gate);
        assert!(refused.starts_with("credentials[0].plaintext: * is a known host"), "{refused}");
        let forward = format!(
            r#"{{"forward": {{"credentials_in_front": true, "credentials": [{{{credential}}}]}}, "#
        );
        let refused = refusal(&GATE.replacen('{', &forward, 1));
        assert!(refused.starts_with("forward.credentials[0].plaintext: "), "{refused}");
    }

    /// Whether a new gate warns that no cluster has one.
    fn warns(store: &MemoryStore, text: &str) -> bool {
        let (_, log) = configure(store, text);
        assert!(log.iter().any(|(_, line)| line.contains("upstream TLS policy")), "{log:?}");
        let warning = |(level, line): &(Level, String)| {
            *level == Level::Warn && line.contains("no cluster has the module as its upstream")
        };
        log.iter().any(warning)
    }

    #[test]
    fn a_gate_warns_until_a_cluster_has_one() {
        let store = MemoryStore::new(Rules::Envoy);
        assert!(warns(&store, GATE));
        assert!(!warns(&store, GATE), "one worker has said it");
        let store = MemoryStore::new(Rules::Envoy);
        let (_, log) = configure(&store, r#"{"role": "upstream_tls"}"#);
        assert_eq!(log, []);
        assert!(!warns(&store, GATE));
        let bare = GATE.replacen('{', r#"{"host": "bare", "#, 1);
        assert!(warns(&store, &bare), "it has no records to learn of others by");
    }
}
