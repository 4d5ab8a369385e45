//! Which ledger leases the budgets that proxies share.

use zeroize::Zeroizing;

use crate::json::{Invalid, Node};

use super::ring::variable;
use super::template::Variable;
use super::{NotReady, NotReadyCause};

/// How long a request waits for its first lease, unless configured, in seconds.
const DEFAULT_DEADLINE_SECS: u64 = 1;

/// The highest such deadline that can be configured, in seconds.
const MAX_DEADLINE_SECS: u64 = 10;

/// The longest name of a cluster or an authority, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// Which ledger it is; the key is still the name of an environment variable.
#[derive(Debug)]
pub(super) struct LedgerConfig {
    cluster: String,
    authority: Option<String>,
    key: Option<Variable>,
    deadline_secs: u64,
}

/// Which ledger it is, and how to reach it. It has no `Debug`, because it contains a secret.
pub struct LedgerService {
    /// The cluster of the proxy that leads to it.
    pub cluster: String,
    /// The authority of requests to it.
    pub authority: String,
    /// The value of their header `authorization`; `None` if the proxy proves itself by a client certificate.
    pub authorization: Option<Zeroizing<String>>,
    /// How long a request waits for its first lease, in seconds.
    pub deadline_secs: u64,
}

impl LedgerConfig {
    /// Reads `{cluster, authority, key, deadline}`.
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["cluster", "authority", "key", "deadline"])?;
        let deadline_secs = members.read("deadline", |node| match node.seconds()? {
            secs @ 1..=MAX_DEADLINE_SECS => Ok(secs),
            _ => Err(node.expected("1s to 10s")),
        })?;
        Ok(Self {
            cluster: name(&members.require("cluster")?)?,
            authority: members.read("authority", name)?,
            key: members.read("key", variable)?,
            deadline_secs: deadline_secs.unwrap_or(DEFAULT_DEADLINE_SECS),
        })
    }

    /// Fills in the key.
    pub(super) fn compile(
        self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<LedgerService, NotReady> {
        let authorization = match &self.key {
            Some(variable) => Some(bearer(variable, environment)?),
            None => None,
        };
        let Self { cluster, authority, deadline_secs, .. } = self;
        let authority = authority.unwrap_or_else(|| cluster.clone());
        Ok(LedgerService { cluster, authority, authorization, deadline_secs })
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.key.iter().map(Variable::name)
    }
}

fn name(node: &Node<'_>) -> Result<String, Invalid> {
    let text = node.string()?;
    let is_name = text.bytes().all(|byte| byte.is_ascii_graphic());
    match is_name && (1..=MAX_NAME_BYTES).contains(&text.len()) {
        true => Ok(text.to_owned()),
        false => Err(node.expected("1 to 255 visible ASCII characters")),
    }
}

fn bearer(
    variable: &Variable,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Zeroizing<String>, NotReady> {
    let key = variable.value(environment)?;
    match key.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(Zeroizing::new(["Bearer ", &**key].concat())),
        false => Err(variable.not_ready(NotReadyCause::HeaderValue)),
    }
}
