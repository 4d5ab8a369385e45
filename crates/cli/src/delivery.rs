//! Which provider credentials of a configuration do not go out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vkey::config::{
    Cause, Config, Hindrance, RoleConfig, UpstreamConfig, request_hindrances, upstream_hindrances,
};
use vkey::json::Invalid;
use vkey::upstream_tls::{EffectivePolicy, Policy};

use super::config_file::ConfigFile;
use super::error::Error;
use super::input::InputError;
use super::tls::policy_file;

/// What decides on provider credentials beside the configuration.
#[derive(clap::Args)]
pub(super) struct DeliveryArgs {
    /// The configuration of an upstream gate, to be checked together with that of the listener's gate; may be repeated
    #[arg(long, value_name = "FILE")]
    upstream_gate: Vec<ConfigFile>,
    /// A policy file to use instead of the one compiled in
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

/// The policy, and the configurations of upstream gates.
pub(super) struct Delivery {
    policy: Policy,
    /// Those of `--upstream-gate` come first.
    gates: Vec<UpstreamConfig>,
    /// How many those are.
    given: usize,
    /// The credentials that some gate of a listener in the file names.
    granted: BTreeSet<String>,
}

impl DeliveryArgs {
    /// Fails if these options and `others` read standard input more than once.
    pub(super) fn check_stdin(&self, others: usize) -> Result<(), InputError> {
        let gates = self.upstream_gate.iter().filter(|file| file.is_stdin()).count();
        let policy = usize::from(self.policy.as_deref() == Some(Path::new("-")));
        if gates + policy + others > 1 { Err(InputError::StdinTwice) } else { Ok(()) }
    }

    /// Reads the files.
    pub(super) fn read(&self) -> Result<Delivery, Error> {
        let policy = policy_file(self.policy.as_deref())?;
        let mut gates = Vec::new();
        for file in &self.upstream_gate {
            let found = file.read()?.upstream_gates()?;
            if found.is_empty() {
                return Err(InputError::NotAnUpstreamGate.into());
            }
            gates.extend(found);
        }
        let checked = gates.iter().try_for_each(|gate| gate.check_policy(&policy));
        checked.map_err(InputError::Config)?;
        Ok(Delivery { given: gates.len(), gates, policy, granted: BTreeSet::new() })
    }
}

impl Delivery {
    /// Adds the upstream gates of the file that is checked.
    pub(super) fn with_gates(mut self, gates: Vec<UpstreamConfig>) -> Self {
        self.gates.extend(gates);
        self
    }

    /// Sets the credentials that the gates of listeners in the file name.
    pub(super) fn with_granted(self, granted: BTreeSet<String>) -> Self {
        Self { granted, ..self }
    }

    /// Checks a configuration against the policy. Returns the credentials that do not go out, or only under a condition.
    ///
    /// # Errors
    ///
    /// As [`RoleConfig::check_policy`].
    pub(super) fn check(
        &self,
        config: &RoleConfig,
        now_secs: u64,
    ) -> Result<Vec<Hindrance>, Invalid> {
        config.check_policy(&self.policy)?;
        let mut hindrances = config.hindrances(&self.policy, now_secs);
        if let RoleConfig::Gate(front) = config
            && !self.gates.is_empty()
        {
            let between = upstream_hindrances(front, &self.gates).into_iter();
            hindrances.extend(between.filter(|hindrance| !self.is_granted(hindrance)));
            let of_gate = |gate: &UpstreamConfig| gate.hindrances(&self.policy, now_secs);
            hindrances.extend(self.gates.iter().take(self.given).flat_map(of_gate));
        }
        Ok(hindrances)
    }

    /// Whether another gate names the credential that this one does not name.
    fn is_granted(&self, hindrance: &Hindrance) -> bool {
        hindrance.cause == Cause::NotGranted && self.granted.contains(&hindrance.credential)
    }

    /// The credentials that a request for an authority may have and that do not go out, or only under a condition.
    pub(super) fn of_request(
        &self,
        front: &Config,
        authority: &str,
        now_secs: u64,
    ) -> Vec<Hindrance> {
        request_hindrances(front, &self.gates, &self.policy, authority.as_bytes(), now_secs)
    }

    /// The policy, without what configurations add to it.
    pub(super) fn own_policy(&self) -> &Policy {
        &self.policy
    }

    /// The policy in force under a configuration, which is checked against it.
    pub(super) fn policy(&self, front: &Config) -> Result<EffectivePolicy, InputError> {
        front.check_policy(&self.policy).map_err(InputError::Config)?;
        let tighten = front.settings().upstream_tls.tighten.clone();
        Ok(EffectivePolicy::new(self.policy.clone(), tighten))
    }
}
