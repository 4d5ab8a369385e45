//! The errors of `vkey mcp`.

use std::time::Duration;
use std::{fmt, io};

use super::super::error::Failure;
use super::super::exit::Exit;
use super::super::text::escape_sentence;
use super::key_refusal::KeyRefusal;
use super::path_refusal::PathRefusal;

/// Why a session cannot start or continue.
#[derive(Debug)]
pub(super) enum McpError {
    /// The module refuses the key.
    KeyRefused(KeyRefusal),
    /// The module refuses the path that it sees.
    PathRefused(PathRefusal),
    /// The path of --path can be no route of MCP.
    PathWithoutRoute(String),
    /// The server has stopped reading.
    ServerStuck(Duration),
    /// The path of --setup is not a directory.
    SetupNoFolder,
    /// The output of --setup cannot be expressed in JSON.
    SetupNotText,
    /// The server's command cannot be started.
    Spawn(io::Error),
    /// An input would be read from standard input, which carries the messages.
    StdinTaken,
    /// A thread, a stream or a signal handler cannot be created.
    System(io::Error),
}

/// Why audit lines cannot be written.
#[derive(Debug)]
pub(super) enum AuditError {
    /// The file cannot be written.
    File(io::Error),
    /// The path of the file is a link.
    Link,
    /// Standard error cannot be written.
    Stderr(io::Error),
    /// The stream has had no reader for this long.
    Unread(Duration),
}

impl Failure for McpError {
    fn exit(&self) -> Exit {
        match self {
            Self::KeyRefused(_) | Self::PathRefused(_) | Self::SetupNotText => Exit::Refused,
            Self::PathWithoutRoute(_) | Self::StdinTaken => Exit::Usage,
            Self::ServerStuck(_) | Self::SetupNoFolder | Self::Spawn(_) | Self::System(_) => {
                Exit::Environment
            }
        }
    }
}

impl fmt::Display for McpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeyRefused(refusal) => refusal.fmt(f),
            Self::PathRefused(refusal) => refusal.fmt(f),
            Self::PathWithoutRoute(path) => write!(
                f,
                "the path of --path ({}) cannot be that of an MCP server; name one without *, ?, braces or escapes",
                escape_sentence(path)
            ),
            Self::ServerStuck(timeout) => write!(
                f,
                "the server has read nothing for {timeout:?} and is terminated; find out what blocks it, or set \
                 a longer --timeout"
            ),
            Self::SetupNoFolder => f.write_str(
                "the path given by --setup is not a directory; name one, or a path that can be created",
            ),
            Self::SetupNotText => f.write_str(
                "the directory of --setup and the server's command must be UTF-8 text, because JSON has no other; \
                 choose other names",
            ),
            Self::Spawn(error) => {
                write!(f, "cannot start the server's command: {error}; check the first word after --")
            }
            Self::StdinTaken => f.write_str(
                "standard input is where the messages come from; put the key into a variable \
                 (--key-env) or a file (--key-file), and the configuration and the secret into files",
            ),
            Self::System(error) => {
                write!(f, "cannot start a thread, or open a stream or a signal handler: {error}")
            }
        }
    }
}

impl Clone for AuditError {
    fn clone(&self) -> Self {
        let copy = |error: &io::Error| {
            error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
        };
        match self {
            Self::File(error) => Self::File(copy(error)),
            Self::Link => Self::Link,
            Self::Stderr(error) => Self::Stderr(copy(error)),
            Self::Unread(waited) => Self::Unread(*waited),
        }
    }
}

impl Failure for AuditError {
    fn exit(&self) -> Exit {
        Exit::Environment
    }
}

impl fmt::Display for AuditError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(error) => {
                write!(f, "cannot write the file named by --audit: {error}; check the path")
            }
            Self::Link => f.write_str(
                "the file named by --audit is a link, or has a second name, and could be any file; name \
                 the file itself",
            ),
            Self::Stderr(error) => write!(
                f,
                "cannot write audit lines to standard error: {error}; name a file with --audit"
            ),
            Self::Unread(waited) => write!(
                f,
                "nobody has read the audit lines for {waited:?}; read standard error, or the pipe named by \
                 --audit, or name a file there"
            ),
        }
    }
}
