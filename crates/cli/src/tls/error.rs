//! What can go wrong in `vkey tls`.

use std::fmt;

use vkey::json::Invalid;

use super::super::error::Failure;
use super::super::exit::Exit;
use super::document::Unreadable;

/// Why `vkey tls` cannot do what it is told.
#[derive(Debug)]
pub(super) enum TlsError {
    /// A configuration of Envoy, or a response of its admin interface, cannot be read.
    Document(Given, Unreadable),
    /// A configuration of Envoy has no cluster.
    NoClusters(Given),
    /// What was read is no configuration of Envoy.
    NoEnvoyConfiguration(Given),
    /// The response has no metrics of Envoy.
    NoStats,
    /// An upstream-TLS policy is invalid, at a line of a file.
    Policy {
        /// What it is called.
        file: String,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        invalid: Invalid,
    },
    /// The response with the metrics cannot be read.
    Stats(Unreadable),
    /// What the list of upstreams says cannot be rendered.
    Unrenderable {
        /// The member.
        member: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The list of upstreams is of the wrong form.
    Upstreams(Invalid),
    /// The list of upstreams is no YAML.
    UpstreamsText {
        /// What it is.
        what: &'static str,
        /// The line, from 1.
        line: Option<u64>,
    },
}

/// Where a configuration of Envoy comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Given {
    /// From a file or standard input.
    Input,
    /// From an admin interface.
    Response,
}

impl TlsError {
    /// The error that a member of the list of upstreams keeps it from being rendered.
    pub(super) fn unrenderable(member: &str, reason: &str) -> Self {
        Self::Unrenderable { member: member.to_owned(), reason: reason.to_owned() }
    }
}

impl Failure for TlsError {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(given, unreadable) => {
                let check = given.check();
                write!(f, "{given} is no configuration of Envoy: {unreadable}; {check}")
            }
            Self::NoClusters(given) => write!(
                f,
                "{given} has no cluster, so nothing can be said of it: expected clusters in \
                 static_resources.clusters, resources, configs, or a list; {}",
                given.check()
            ),
            Self::NoEnvoyConfiguration(given) => write!(
                f,
                "{given} is no configuration of Envoy: expected static_resources, resources, \
                 configs, or clusters; {}",
                given.check()
            ),
            Self::NoStats => f.write_str(
                "the response has no metrics of Envoy; check the URL, which is that of its admin \
                 interface",
            ),
            Self::Policy { file, line, invalid } => {
                write!(f, "invalid upstream-TLS policy: {file}:{line}: {invalid}")
            }
            Self::Stats(unreadable) => {
                write!(f, "the response has no metrics of Envoy: {unreadable}; check the URL")
            }
            Self::Unrenderable { member, reason } => {
                write!(f, "the list of upstreams cannot be rendered: {member}: {reason}")
            }
            Self::Upstreams(invalid) => write!(f, "invalid list of upstreams: {invalid}"),
            Self::UpstreamsText { what, line } => {
                write!(f, "invalid list of upstreams: {what}")?;
                line.map_or(Ok(()), |line| write!(f, ", line {line}"))
            }
        }
    }
}

impl Given {
    /// What to do when it is not what it should be.
    fn check(self) -> &'static str {
        match self {
            Self::Input => "check what it holds",
            Self::Response => "check the URL",
        }
    }
}

impl fmt::Display for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "the input",
            Self::Response => "the response",
        })
    }
}
