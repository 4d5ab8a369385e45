//! Reads the policy in force: the one compiled in or a file's, plus the rules of a configuration.

use std::path::{Path, PathBuf};

use vkey::json::{Integers, Invalid, Json, line};
use vkey::upstream_tls::{EffectivePolicy, Policy, PolicyRule};

use super::super::config_file::ConfigFile;
use super::super::error::Error;
use super::super::input::{InputError, Place};
use super::super::text::escape_line;
use super::error::TlsError;

/// The policy that the module of this build contains.
const COMPILED: &[u8] = include_bytes!(env!("VKEY_UPSTREAM_TLS_POLICY"));

/// The longest policy that is read: many times one with all known providers.
const MAX_POLICY_BYTES: u64 = 1024 * 1024;

/// Where the policy comes from.
#[derive(clap::Args)]
pub(super) struct PolicyArgs {
    /// A policy file to use instead of the one compiled in (- is standard input)
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// The plugin configuration whose upstream_tls.tighten is added, or the configuration of a proxy with it,
    /// FILE#NAME if there are several (- is standard input)
    #[arg(long, value_name = "FILE")]
    config: Option<ConfigFile>,
}

impl PolicyArgs {
    /// How many of the options read standard input.
    pub(super) fn stdin_count(&self) -> usize {
        let is_policy = self.policy.as_deref() == Some(Path::new("-"));
        let is_config = self.config.as_ref().is_some_and(ConfigFile::is_stdin);
        usize::from(is_policy) + usize::from(is_config)
    }

    /// Reads the policy in force.
    pub(super) fn read(&self) -> Result<EffectivePolicy, Error> {
        self.read_with_config().map(|(policy, _)| policy)
    }

    /// Reads the policy in force, and the configuration if there is one.
    pub(super) fn read_with_config(&self) -> Result<(EffectivePolicy, Option<Json>), Error> {
        if self.stdin_count() > 1 {
            return Err(InputError::StdinTwice.into());
        }
        let file = policy_file(self.policy.as_deref())?;
        let Some((tighten, config)) = self.config.as_ref().map(read_config).transpose()? else {
            return Ok((EffectivePolicy::new(file, Box::default()), None));
        };
        Ok((EffectivePolicy::new(file, tighten), Some(config)))
    }
}

/// Reads a policy file; without a path, the policy compiled in.
pub(crate) fn policy_file(path: Option<&Path>) -> Result<Policy, Error> {
    match path {
        Some(path) => read_policy(path),
        None => Ok(parse_policy("the policy compiled in", COMPILED)?),
    }
}

fn read_policy(path: &Path) -> Result<Policy, Error> {
    let text = Place::file("--policy", path).read_bytes(MAX_POLICY_BYTES)?;
    Ok(parse_policy(&path.to_string_lossy(), &text)?)
}

fn parse_policy(name: &str, text: &[u8]) -> Result<Policy, TlsError> {
    Policy::parse(text).map_err(|invalid| {
        let line = line(text, &invalid);
        TlsError::Policy { file: escape_line(name), line, invalid }
    })
}

/// Reads a configuration, and its rules. Only they are parsed: `vkey config check` does the rest.
fn read_config(file: &ConfigFile) -> Result<(Box<[PolicyRule]>, Json), Error> {
    let source = file.read()?;
    let (plugin, json) = source.json()?;
    let tighten = read_tighten(&json).map_err(|invalid| source.invalid(plugin, invalid))?;
    Ok((tighten, json))
}

fn read_tighten(config: &Json) -> Result<Box<[PolicyRule]>, Invalid> {
    let root = config.root(Integers::Whole);
    let members = root.open_members()?;
    let Some(upstream_tls) = members.get("upstream_tls") else {
        return Ok(Box::default());
    };
    let members = upstream_tls.open_members()?;
    let tighten = members.read("tighten", |node| node.list(PolicyRule::read_tightening))?;
    Ok(tighten.unwrap_or_default())
}
