//! The secrets of chains.

use std::fmt;
use std::path::PathBuf;

use zeroize::Zeroizing;

use vkey::audit::AuditKey;
use vkey::key::keyring::{InvalidSecret, Secret};

use crate::error::{Error, Failure};
use crate::exit::Exit;
use crate::input::{InputError, InputProblem, Origin, Place, environment};

/// The variable that documentation and examples use.
const DEFAULT_VARIABLE: &str = "VKEY_AUDIT_SECRET";

/// Where a command reads audit secrets from.
pub(crate) struct SecretArgs<'a> {
    /// The names of the two options.
    pub(crate) names: (&'static str, &'static str),
    /// Environment variables.
    pub(crate) variables: &'a [String],
    /// Files.
    pub(crate) files: &'a [PathBuf],
}

/// A secret that no gate accepts.
#[derive(Debug)]
struct UnusableSecret(InvalidSecret);

impl SecretArgs<'_> {
    /// The keys of the chains.
    ///
    /// # Errors
    ///
    /// A secret cannot be read, or no gate accepts it.
    pub(crate) fn keys(&self) -> Result<Vec<AuditKey>, Error> {
        let (env, file) = self.names;
        let variables = self.variables.iter().map(|name| Place::Variable(env, name.clone()));
        let files = self.files.iter().map(|path| Place::file(file, path));
        variables.chain(files).map(|place| audit_key(&place.read_line()?)).collect()
    }
}

/// The key of the secret in the variable that documentation and examples use.
pub(super) fn default_key() -> Result<AuditKey, Error> {
    let unset = || {
        let origin = Origin::Configured(DEFAULT_VARIABLE.to_owned());
        InputError::Unusable(origin, InputProblem::Unset)
    };
    audit_key(&environment(DEFAULT_VARIABLE).map(Zeroizing::new).ok_or_else(unset)?)
}

fn audit_key(secret: &str) -> Result<AuditKey, Error> {
    let secret = Secret::parse_unguessable(secret).map_err(UnusableSecret)?;
    Ok(AuditKey::new(&secret))
}

impl Failure for UnusableSecret {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for UnusableSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
