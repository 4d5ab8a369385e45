//! The check of the key before the server is started.

use std::net::IpAddr;

use vkey::access::{Access, CanonicalPath, Mcp, Models, exact_host};
use vkey::decision::{Decision, DenyReason};
use vkey::engine::{AccessRule, Identity, KnownKey};

use super::super::embedded::EmbeddedHost;
use super::super::error::Error;
use super::error::McpError;
use super::head::{Head, Shown};
use super::key_refusal::KeyRefusal;
use super::path_refusal::{PathRefusal, Rule};
use super::sink::{LogBatch, Sink};

/// A message that every server and every key with MCP calls allows (MCP, "Ping").
const PING: &[u8] = br#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#;

/// A key, and what the module sees of a message besides.
pub(super) struct KeyCheck<'a> {
    pub(super) key: &'a str,
    pub(super) path: &'a str,
    pub(super) authority: &'a str,
    pub(super) source: IpAddr,
}

impl KeyCheck<'_> {
    /// Asks the module about a message before there is a session. It counts nothing. If it would be refused, its audit
    /// line is written.
    ///
    /// # Errors
    ///
    /// [`McpError::KeyRefused`] or [`McpError::PathRefused`] if it would be refused, or an error of the host or of the
    /// sink.
    pub(super) fn run(&self, host: &EmbeddedHost, head: &Head, sink: &Sink) -> Result<(), Error> {
        let mut judged = host.decide_uncounted(|request| {
            head.show(request, Shown { body: Some(PING), ..Shown::default() });
        })?;
        let audit = judged.audit.take();
        let decision = judged.decision();
        if decision.as_ref().is_ok_and(|decision| decision.forwards()) {
            return self.check_route(host);
        }
        sink.show(&LogBatch { audit: audit.into_iter().collect(), ..LogBatch::default() });
        sink.check()?;
        match decision? {
            Decision::Deny(reason @ (DenyReason::Path | DenyReason::PathAmbiguous)) => {
                let rule = self.rule(host, reason);
                let path = self.path.to_owned();
                Err(McpError::PathRefused(PathRefusal { reason, path, rule }).into())
            }
            Decision::Deny(reason) => Err(McpError::KeyRefused(KeyRefusal(reason)).into()),
            _ => Ok(()),
        }
    }

    /// Checks that the module reads what is sent to the path: it does for paths of MCP servers.
    fn check_route(&self, host: &EmbeddedHost) -> Result<(), Error> {
        let path = self.path.as_bytes();
        let path =
            CanonicalPath::parse(path).or_else(|_| CanonicalPath::parse_keeping_slashes(path));
        let engine = host.engine();
        let server = path.ok().and_then(|path| engine?.mcp_server(&path));
        server.map(drop).ok_or_else(|| McpError::PathWithoutRoute(self.path.to_owned()).into())
    }

    /// The first rule that refuses the message for this reason.
    fn rule(&self, host: &EmbeddedHost, reason: DenyReason) -> Option<Rule> {
        let now_secs = host.clock.now_ns().ok()? / 1_000_000_000;
        let mut engine = host.engine()?;
        let Identity::Known { key, .. } = engine.identify(self.key.as_bytes(), now_secs) else {
            return None;
        };
        let access = self.access(&key, now_secs)?;
        let mut refused = engine.verdicts(&key, &access).filter(|(_, v)| *v == Err(reason));
        let (AccessRule::Restriction(origin), _) = refused.next()? else {
            return None;
        };
        Some(Rule::new(origin, &key))
    }

    /// The access that a message requests.
    fn access(&self, key: &KnownKey, now_secs: u64) -> Option<Access<'_>> {
        let path = self.path.as_bytes();
        let path = match key.keeps_escaped_slashes() {
            true => CanonicalPath::parse_keeping_slashes(path),
            false => CanonicalPath::parse(path),
        };
        Some(Access {
            now_secs,
            method: "POST",
            host: exact_host(self.authority.as_bytes()),
            path: path.ok()?,
            source: Some(self.source),
            client_cert: None,
            models: Models::None,
            mcp: Mcp::Unread,
        })
    }
}
