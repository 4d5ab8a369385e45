//! The hosts of a restriction or a credential.

use std::fmt;

use crate::access::canonical_host;
use crate::json::{Invalid, Node};

/// A host name, or `*.suffix` for every name with one label or more before the suffix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostPattern {
    /// The name itself, in canonical form.
    Exact(String),
    /// The suffix with its leading dot.
    Suffix(String),
}

const HOST_PATTERN: &str = "a host name without port, or *.suffix";

// === impl HostPattern ===

impl HostPattern {
    /// Reads a host name or `*.suffix`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] when what is there is neither.
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let pattern = node.string()?;
        let (name, wildcard) = match pattern.strip_prefix("*.") {
            Some(suffix) => (suffix, true),
            None => (pattern, false),
        };
        let canonical = canonical_host(name.as_bytes());
        // A port or a dot at the end would be dropped from the request's host, so the rule could
        // never hold as written.
        match canonical.filter(|host| host.len() == name.len()) {
            Some(suffix) if wildcard => Ok(Self::Suffix(format!(".{suffix}"))),
            Some(host) => Ok(Self::Exact(host.into_owned())),
            None => Err(node.expected(HOST_PATTERN)),
        }
    }

    /// Reads a pattern that is about to be written: one that a host can match.
    ///
    /// # Errors
    ///
    /// As [`HostPattern::read`], and for an address in brackets as a suffix, which has no labels before
    /// it.
    pub fn read_written(node: &Node<'_>) -> Result<Self, Invalid> {
        match Self::read(node)? {
            Self::Suffix(suffix) if suffix.starts_with(".[") => Err(node.expected(HOST_PATTERN)),
            pattern => Ok(pattern),
        }
    }

    /// Whether a canonical host is meant.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host == name,
            // A canonical host has no empty label.
            Self::Suffix(suffix) => {
                host.strip_suffix(suffix.as_str()).is_some_and(|labels| !labels.is_empty())
            }
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}
