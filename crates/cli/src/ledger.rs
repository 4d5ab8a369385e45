//! Where `vkey serve` keeps the ledger of budgets.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use vkey_server::ledger::{self, LedgerError, RedisOptions, Report};

use super::error::{Error, Failure};
use super::exit::Exit;
use super::input::{self, Place};
use super::output::Output;
use super::text::escape_sentence;

/// The longest file of authorities that is read, in bytes: several times that of a whole system.
const MAX_CA_BYTES: u64 = 1024 * 1024;

/// Where the ledger is.
#[derive(clap::Args)]
pub(super) struct LedgerArgs {
    /// Lease budgets to proxies, and keep the ledger in this file of SQLite, which is made if it is not there, or in the
    /// Redis of a URL without a password, e.g. rediss://redis.example:6379/0
    #[arg(long, value_name = "WHERE", value_parser = parse_where, group = "ledger_place")]
    ledger: Option<Where>,
    /// Keep the ledger in the Redis of the URL in this environment variable: redis or rediss, with user and password
    #[arg(long, value_name = "NAME", value_parser = input::variable_name, conflicts_with = "ledger", group = "ledger_place")]
    ledger_env: Option<String>,
    /// The audience of keys that may order from the ledger
    #[arg(long, value_name = "NAME", default_value = "vkey-ledger", value_parser = audience)]
    pub(super) ledger_audience: String,
    /// Trust only the authorities in this PEM file for rediss; by default those of the web
    #[arg(long, value_name = "FILE", requires = "ledger_place")]
    ledger_ca: Option<PathBuf>,
    /// Allow redis to other machines, which exposes its password to everyone on the network path
    #[arg(long, requires = "ledger_place")]
    ledger_allow_cleartext: bool,
}

/// A file, or the URL of a Redis.
#[derive(Clone)]
enum Where {
    File(PathBuf),
    Redis(String),
}

/// Why there is no ledger.
#[derive(Debug)]
pub(super) enum LedgerFailure {
    /// The ledger and the store are one file.
    IsStore,
    /// An option is for a Redis, and the ledger is a file.
    OfRedis,
    /// Keys for the trail could order, or the other way round.
    SameAudience,
    /// The ledger cannot be used.
    Unusable(LedgerError),
    /// Standard error cannot be shared with another thread.
    Diagnostics(std::io::Error),
}

// === impl LedgerArgs ===

impl LedgerArgs {
    /// Whether there is a ledger.
    pub(super) fn is_set(&self) -> bool {
        self.ledger.is_some() || self.ledger_env.is_some()
    }

    /// Where the ledger is, beside a store of records and the audience of the keys for it.
    pub(super) fn place(
        &self,
        store: &Path,
        audience: &str,
    ) -> Result<Option<ledger::Place>, Error> {
        if !self.is_set() {
            return Ok(None);
        }
        if self.ledger_audience == audience {
            return Err(LedgerFailure::SameAudience.into());
        }
        let url = match (&self.ledger, &self.ledger_env) {
            (Some(Where::File(path)), _) if is_same(path, store) => {
                return Err(LedgerFailure::IsStore.into());
            }
            (Some(Where::File(_)), _)
                if self.ledger_ca.is_some() || self.ledger_allow_cleartext =>
            {
                return Err(LedgerFailure::OfRedis.into());
            }
            (Some(Where::File(path)), _) => return Ok(Some(ledger::Place::File(path.clone()))),
            (Some(Where::Redis(url)), _) => Zeroizing::new(url.clone()),
            (None, Some(name)) => Place::Variable("--ledger-env", name.clone()).read_line()?,
            (None, None) => return Ok(None),
        };
        let authorities = self.ledger_ca.as_ref().map(|path| {
            let bytes = Place::File("--ledger-ca", path.clone()).read_bytes(MAX_CA_BYTES);
            bytes.map(|bytes| bytes.to_vec())
        });
        Ok(Some(ledger::Place::Redis(RedisOptions {
            url,
            authorities: authorities.transpose()?,
            allow_cleartext: self.ledger_allow_cleartext,
        })))
    }

    /// Writes to standard error that the ledger fails.
    pub(super) fn reporter() -> Result<Report, LedgerFailure> {
        let to = Output::diagnostics().map_err(LedgerFailure::Diagnostics)?;
        Ok(Box::new(move |error| {
            let error = escape_sentence(&error.to_string());
            // If that fails, there is nowhere to report it.
            _ = writeln!(&to, "vkey: the ledger failed: {error}; proxies will order again");
        }))
    }
}

/// Parses an argument. A password would be seen by everyone who lists processes.
fn parse_where(text: &str) -> Result<Where, &'static str> {
    let is_redis = text.starts_with("redis://") || text.starts_with("rediss://");
    match text {
        "" => Err("expected a file or a URL of redis or rediss"),
        text if is_redis && text.contains('@') => Err(
            "expected no user and no password in the URL; name a variable with the whole URL with --ledger-env",
        ),
        text if is_redis => Ok(Where::Redis(text.to_owned())),
        text if text.contains("://") => Err("expected a file or a URL of redis or rediss"),
        text => Ok(Where::File(PathBuf::from(text))),
    }
}

/// Parses the audience of keys.
pub(super) fn audience(text: &str) -> Result<String, &'static str> {
    match text {
        "" => Err("expected the name of an audience"),
        text => Ok(text.to_owned()),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let whole = |path: &Path| {
        let absolute = || std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        path.canonicalize().unwrap_or_else(|_| absolute())
    };
    whole(one) == whole(other)
}

// === impl LedgerFailure ===

impl Failure for LedgerFailure {
    fn exit(&self) -> Exit {
        match self {
            Self::IsStore | Self::OfRedis | Self::SameAudience => Exit::Usage,
            Self::Diagnostics(_) => Exit::Environment,
            Self::Unusable(error) => match error {
                LedgerError::Url | LedgerError::Cleartext => Exit::Usage,
                LedgerError::Foreign
                | LedgerError::Newer
                | LedgerError::Damaged(_)
                | LedgerError::Authorities => Exit::Refused,
                _ => Exit::Environment,
            },
        }
    }
}

impl fmt::Display for LedgerFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IsStore => f.write_str("--ledger and --store are one file; choose another for one of them"),
            Self::OfRedis => f.write_str(
                "--ledger-ca and --ledger-allow-cleartext are for a Redis; leave them out for a file",
            ),
            Self::SameAudience => f.write_str(
                "--ledger-audience and --audience are the same; a key for one must not be valid for the other",
            ),
            // The path was typed, and may be anything.
            Self::Unusable(LedgerError::File(_, error)) => {
                write!(f, "--ledger cannot be used: {}; check the path", escape_sentence(error))
            }
            Self::Unusable(LedgerError::Authorities) => {
                write!(f, "--ledger-ca: {}", LedgerError::Authorities)
            }
            Self::Unusable(error) => write!(f, "--ledger: {}", escape_sentence(&error.to_string())),
            Self::Diagnostics(error) => write!(f, "standard error cannot be used: {error}"),
        }
    }
}
