//! The plugin: what a configuration makes of the module.

use crate::config::{AuditSettings, Level, RoleConfig};
use crate::json::Invalid;
use crate::upstream_tls::Policy;

use super::{Gate, Host, UpstreamGate};

/// What a root context holds.
pub enum Plugin {
    /// The gate in front of the routes.
    Gate(Box<Gate>),
    /// The gate of a cluster.
    UpstreamGate(Box<UpstreamGate>),
}

/// The configuration cannot be put in force anywhere: the host should keep the one it has.
#[derive(Debug)]
pub struct Refused(pub Invalid);

impl Plugin {
    /// A gate that denies everything.
    pub fn closed(policy: Policy) -> Self {
        Self::Gate(Box::new(Gate::closed(AuditSettings::default(), policy)))
    }

    /// A plugin by a configuration: a function of the text, the policy and the environment alone,
    /// because a host that gets different answers from its workers lets requests pass unfiltered.
    ///
    /// No configuration, and one whose secrets are missing or unusable, make a gate that denies
    /// everything with [`DenyReason::NotReady`](crate::decision::DenyReason::NotReady).
    ///
    /// # Errors
    ///
    /// [`Refused`] for a text that is no configuration, whatever the environment.
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
        let role = RoleConfig::parse(text).map_err(|invalid| {
            host.log(Level::Error, &format!("vkey: configuration refused: {invalid}"));
            Refused(invalid)
        })?;
        Ok(match role {
            RoleConfig::Gate(config) => {
                Self::Gate(Box::new(Gate::configure(*config, policy, environment, host)))
            }
            RoleConfig::UpstreamTls(config) => {
                Self::UpstreamGate(Box::new(UpstreamGate::new(policy, &config, host)))
            }
        })
    }
}
