//! The errors of `vkey tls`.

use std::fmt;

use vkey::json::Invalid;

use super::super::error::{Error, Failure};
use super::super::exit::Exit;
use super::document::DocumentError;

/// Why `vkey tls` failed.
#[derive(Debug)]
pub(super) enum TlsError {
    /// An Envoy configuration, or a response of the admin interface, cannot be parsed.
    Document(InputKind, DocumentError),
    /// An error about one of several inputs.
    InFile {
        /// The name of the input.
        file: String,
        /// The error.
        error: Error,
    },
    /// The Envoy configuration has neither a cluster nor a listener with the module.
    NoClusters(InputKind),
    /// The input is not an Envoy configuration.
    NoEnvoyConfiguration(InputKind),
    /// The response has no metrics of Envoy.
    NoStats,
    /// An upstream-TLS policy is invalid.
    Policy {
        /// The name of the file.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The error.
        invalid: Invalid,
    },
    /// The response with the metrics cannot be parsed.
    Stats(DocumentError),
    /// A member of the list of upstreams cannot be rendered.
    Unrenderable {
        /// The member.
        member: String,
        /// The reason, and what to do.
        reason: String,
    },
    /// The list of upstreams is invalid.
    Upstreams(Invalid),
    /// The list of upstreams is not valid YAML.
    UpstreamsText {
        /// The error.
        what: &'static str,
        /// The line, from 1.
        line: Option<u64>,
    },
}

/// Where an Envoy configuration came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InputKind {
    /// A file or standard input.
    Input,
    /// The admin interface.
    Response,
}

impl TlsError {
    /// The error for a member of the list of upstreams that cannot be rendered.
    pub(super) fn unrenderable(member: &str, reason: &str) -> Self {
        Self::Unrenderable { member: member.to_owned(), reason: reason.to_owned() }
    }
}

impl Failure for TlsError {
    fn exit(&self) -> Exit {
        match self {
            Self::InFile { error, .. } => error.exit(),
            Self::NoClusters(_) | Self::NoEnvoyConfiguration(_) => Exit::Undecided,
            _ => Exit::Refused,
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Document(given, unreadable) => {
                let check = given.check();
                write!(f, "{given} is not an Envoy configuration: {unreadable}; {check}")
            }
            Self::InFile { file, error } => write!(f, "{file}: {error}"),
            Self::NoClusters(given) => write!(
                f,
                "{given} has no clusters, and no listener with the module: expected them in \
                 static_resources, resources, configs, clusters, or a list; {}",
                given.check()
            ),
            Self::NoEnvoyConfiguration(given) => write!(
                f,
                "{given} is not an Envoy configuration: expected static_resources, resources, \
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

impl InputKind {
    /// What to check if it is invalid.
    fn check(self) -> &'static str {
        match self {
            Self::Input => "check its content",
            Self::Response => "check the URL",
        }
    }
}

impl fmt::Display for InputKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Input => "the input",
            Self::Response => "the response",
        })
    }
}
