//! The ring for `vkey mint` to sign with.

use std::fmt;

use vkey::config::{Config, RingConfig};
use vkey::key::keyring::{Ring, RingState, Rotation};
use vkey::key::token::{Kid, is_ring_name};

use super::config_file::ConfigFile;
use super::error::{Error, Failure};
use super::exit::Exit;
use super::input::{self, InputError, Place, variable_name};
use super::ring_secret::{RingEnvironment, SecretFileArgs, read_secret};
use super::strength;
use super::time;

/// How the ring is selected: by a configuration, or by name and secret.
#[derive(clap::Args)]
#[group(skip)]
#[command(group = clap::ArgGroup::new("secret").required(true).multiple(true))]
#[command(mut_arg("secret_file", |arg| arg.group("secret").help(SECRET_FILE_HELP)))]
pub(super) struct RingArgs {
    /// Mint for the gate with this plugin configuration, or with that in the configuration of a proxy
    /// (FILE#NAME if there are several); the secret comes from the environment variable it names
    #[arg(long, value_name = "FILE", group = "secret")]
    config: Option<ConfigFile>,
    /// The ring to sign with; by default the first active one of the configuration
    #[arg(long, value_name = "NAME", value_parser = ring_name, required_unless_present = "config")]
    ring: Option<String>,
    /// Without a configuration: the environment variable that holds the ring's secret
    #[arg(long, value_name = "NAME", value_parser = variable_name, group = "secret")]
    #[arg(conflicts_with_all = ["config", "secret_file"])]
    secret_env: Option<String>,
    #[command(flatten)]
    secret_file: SecretFileArgs,
    /// Without a configuration: how often the ring changes its signing key, e.g. 168h; by default it does not
    /// rotate
    #[arg(long, value_parser = time::parse_duration, conflicts_with = "config")]
    #[arg(value_name = "DURATION")]
    interval: Option<u64>,
}

const SECRET_FILE_HELP: &str = "The file that holds the ring's secret (- is standard input); with a \
    configuration, it or a signing key, in place of the variable that the configuration names";

/// A ring, and the configuration that it came from, if any.
pub(super) struct SelectedRing {
    /// The ring.
    pub(super) ring: Ring,
    /// The configuration.
    pub(super) config: Option<Config>,
}

/// Why there is no ring to sign with.
#[derive(Debug)]
pub(super) enum RingError {
    /// No active ring has that name; these are active.
    None(Vec<String>),
    /// The ring has single signing keys, and not this one.
    NoSigningKey(Kid),
    /// The ring does not sign for the tenant.
    NotSigned {
        /// The first candidate.
        ring: String,
    },
}

impl RingArgs {
    /// Selects the ring that signs for a tenant, and reads its secret, or its signing key for a time. `force`: if none
    /// does, one that does not.
    pub(super) fn choose(
        &self,
        tenant: &str,
        now_secs: u64,
        force: bool,
    ) -> Result<SelectedRing, Error> {
        if self.secret_file.is_stdin() && self.config.as_ref().is_some_and(ConfigFile::is_stdin) {
            return Err(InputError::StdinTwice.into());
        }
        match &self.config {
            Some(file) => self.find_in(file.gate()?.1, tenant, now_secs, force),
            None => Ok(SelectedRing { ring: self.read_secret()?, config: None }),
        }
    }

    fn find_in(
        &self,
        config: Config,
        tenant: &str,
        now_secs: u64,
        force: bool,
    ) -> Result<SelectedRing, Error> {
        let active = |ring: &&RingConfig| ring.state() == RingState::Active;
        let named = |ring: &&RingConfig| self.ring.as_ref().is_none_or(|name| name == ring.name());
        let active = config.rings().iter().filter(active);
        let no_ring =
            || RingError::None(active.clone().map(|ring| ring.name().to_owned()).collect());
        let mut named = active.clone().filter(named).peekable();
        let first = *named.peek().ok_or_else(no_ring)?;
        let signs = |ring: &&RingConfig| {
            ring.tenants().is_none_or(|tenants| tenants.iter().any(|name| name == tenant))
        };
        let not_signed = || RingError::NotSigned { ring: first.name().to_owned() };
        let ring = named.find(signs).or(force.then_some(first)).ok_or_else(not_signed)?;
        input::check_variables(ring.variables())?;
        // One file may be for a ring that is named, and not for one that is only the first.
        let rings = if self.ring.is_some() { std::slice::from_ref(ring) } else { config.rings() };
        let environment = RingEnvironment::read(rings, &self.secret_file)?;
        let compiled = compile(ring, &environment, now_secs)?;
        strength::check_rings([ring], |name| environment.value(name))?;
        Ok(SelectedRing { ring: compiled.ok_or_else(no_ring)?, config: Some(config) })
    }

    fn read_secret(&self) -> Result<Ring, Error> {
        let place = match (self.secret_file.place(), &self.secret_env) {
            (Some(place), _) => place,
            (None, Some(name)) => Place::Variable("--secret-env", name.clone()),
            (None, None) => Place::Stdin,
        };
        let (_, secret) = read_secret(&place)?;
        // How long a signing key is accepted is set in the gate.
        let rotation = |interval| Rotation::new(interval, u64::MAX, false).ok();
        let name = self.ring.as_deref().unwrap_or_default();
        let rotation = self.interval.and_then(rotation);
        let ring = Ring::new(name, &secret, RingState::Active, rotation);
        Ok(ring.ok_or_else(|| RingError::None(Vec::new()))?)
    }
}

/// Fills in the secrets of a ring, of which it must have what signs at a time.
fn compile(
    ring: &RingConfig,
    environment: &RingEnvironment,
    now_secs: u64,
) -> Result<Option<Ring>, Error> {
    let (ring, lacks) = ring.compile(|name| environment.value(name));
    let kid = ring.as_ref().and_then(|ring| ring.kid_at(now_secs));
    if let Some((ring, kid)) = ring.as_ref().zip(kid)
        && ring.check_kid(&kid).is_err()
    {
        let problem = lacks.into_iter().find(|problem| problem.concerns(&kid));
        return Err(match problem {
            Some(not_ready) => environment.lacks(not_ready).into(),
            None => RingError::NoSigningKey(kid).into(),
        });
    }
    Ok(ring)
}

fn ring_name(text: &str) -> Result<String, &'static str> {
    if is_ring_name(text) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 32 of a-z 0-9 -, not starting with -")
    }
}

impl Failure for RingError {
    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None(active) => {
                f.write_str("the configuration has no such active ring; ")?;
                match &**active {
                    [] => f.write_str("set the state of one to active"),
                    _ => write!(f, "active: {}", active.join(", ")),
                }
            }
            Self::NoSigningKey(kid) => write!(
                f,
                "the configuration has no signing key {kid}, which a key of this time is signed with; where the \
                 secret of ring {} is, run `vkey secret derive --kid {kid}`, and add the signing key to the \
                 ring's keys",
                kid.ring()
            ),
            Self::NotSigned { ring } => write!(
                f,
                "ring {ring} does not sign for this tenant: every gate would refuse the key; choose \
                 another --ring, or add the tenant to the ring's tenants in the configuration"
            ),
        }
    }
}
