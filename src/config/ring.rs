//! A ring of a configuration: what its secrets are called, and the ring in an environment.

use zeroize::Zeroizing;

use crate::json::{Invalid, Members, Node};
use crate::key::claims::id;
use crate::key::keyring::{InvalidSecret, Ring, RingState, Rotation, Secret, Signer};
use crate::key::token::{Kid, is_ring_name};

use super::template::Variable;
use super::{NotReady, NotReadyCause, Part};

const NO_KID: &str = "a signing key is named by its kid: the name of this ring, - and an epoch";

const NO_EPOCH: &str = "a ring without rotation has no epoch but 0";

const NO_FILTER_STATE: &str = "vkey.secret. and then 1 to 64 of A-Z a-z 0-9 _ -";

/// What the key of a filter state begins with: no other filter, and no client, sets such a state by chance.
const FILTER_STATE_PREFIX: &str = "vkey.secret.";

/// The longest rest of the key.
const MAX_FILTER_STATE_BYTES: usize = 64;

/// What is before the key in the path of the property. With its NUL, no environment variable has such a name.
const FILTER_STATE_PATH: &str = "filter_state\0";

/// A ring of a configuration, whose secrets are still names of environment variables or filter states.
#[derive(Debug)]
pub struct RingConfig {
    name: String,
    source: Source,
    state: RingState,
    rotation: Option<Rotation>,
    tenants: Option<Box<[String]>>,
}

/// Reads the value of a variable.
type Read = fn(&str) -> Result<Secret, InvalidSecret>;

/// Where a ring has its signing keys from.
#[derive(Debug)]
enum Source {
    /// They are derived from the secret.
    Secret(Variable),
    /// They are derived from a secret that another filter puts into a filter state. This is the path of the property.
    FilterState(String),
    /// They are listed, and there are no others.
    Keys(Vec<(Kid, Variable)>),
}

impl RingConfig {
    /// Reads a ring.
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let states = [
            ("active", RingState::Active),
            ("retiring", RingState::Retiring),
            ("revoked", RingState::Revoked),
        ];
        let members = node.members(&["name", "secret", "keys", "state", "rotation", "tenants"])?;
        let name_node = members.require("name")?;
        let name = name_node.string()?;
        if !is_ring_name(name) {
            return Err(name_node.expected("1 to 32 of a-z 0-9 -, not starting with -"));
        }
        let rotation = members.read("rotation", rotation)?;
        Ok(Self {
            name: name.to_owned(),
            source: Source::read(&members, name, rotation)?,
            state: members.read("state", |node| node.choice(&states))?.unwrap_or(RingState::Active),
            rotation,
            tenants: members.read("tenants", tenants)?,
        })
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The environment variables that hold the secret, or the signing keys.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let (secret, keys) = match &self.source {
            Source::Secret(variable) => (Some(variable), [].as_slice()),
            Source::FilterState(_) => (None, [].as_slice()),
            Source::Keys(keys) => (None, keys.as_slice()),
        };
        secret.into_iter().chain(keys.iter().map(|(_, variable)| variable)).map(Variable::name)
    }

    /// The key of the filter state that holds the secret, if one does.
    pub fn filter_state(&self) -> Option<&str> {
        match &self.source {
            Source::FilterState(path) => path.strip_prefix(FILTER_STATE_PATH),
            Source::Secret(_) | Source::Keys(_) => None,
        }
    }

    /// What [`RingConfig::compile`] asks for: the names of the variables; or `filter_state`, NUL and the key of the filter
    /// state, for which an environment has no value.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let path = match &self.source {
            Source::FilterState(path) => Some(path.as_str()),
            Source::Secret(_) | Source::Keys(_) => None,
        };
        self.variables().chain(path)
    }

    /// The signing keys that the ring has, if it has single ones in place of its secret.
    pub fn kids(&self) -> Option<impl Iterator<Item = &Kid>> {
        match &self.source {
            Source::Secret(_) | Source::FilterState(_) => None,
            Source::Keys(keys) => Some(keys.iter().map(|(kid, _)| kid)),
        }
    }

    /// Whether keys of the ring are accepted and minted.
    pub fn state(&self) -> RingState {
        self.state
    }

    /// How the signing key rotates, if it does.
    pub fn rotation(&self) -> Option<Rotation> {
        self.rotation
    }

    /// The tenants that the ring signs for; `None` for all.
    pub fn tenants(&self) -> Option<&[String]> {
        self.tenants.as_deref()
    }

    /// Fills in the secrets. `environment` returns the value of each of [`RingConfig::sources`]. Returns
    /// the ring, and what it lacks: without its secret, or without all of its signing keys, it is not ready. The ring is `None` if the name is invalid, which [`super::Config::parse`] rejects.
    pub fn compile(
        &self,
        environment: impl Fn(&str) -> Option<String>,
    ) -> (Option<Ring>, Vec<NotReady>) {
        let mut lacks = Vec::new();
        let mut read = |variable: &Variable, part: Part, read: Read| {
            let read = variable.value(&environment).and_then(|text| {
                read(&text).map_err(|invalid| variable.not_ready(NotReadyCause::Secret(invalid)))
            });
            read.map_err(|problem| lacks.push(problem.of(part))).ok()
        };
        let signer = match &self.source {
            Source::Secret(variable) => {
                let part = Part::Ring(self.name.clone());
                Signer::new(read(variable, part, Secret::parse_unguessable).as_ref())
            }
            Source::FilterState(path) => {
                let text = environment(path).filter(|text| !text.is_empty()).map(Zeroizing::new);
                let secret = text.ok_or(NotReadyCause::FilterState).and_then(|text| {
                    Secret::parse_unguessable(&text).map_err(NotReadyCause::Secret)
                });
                let lack = |cause| NotReady {
                    part: Some(Part::Ring(self.name.clone())),
                    variable: self.filter_state().unwrap_or_default().to_owned(),
                    cause,
                };
                Signer::new(secret.map_err(|cause| lacks.push(lack(cause))).ok().as_ref())
            }
            Source::Keys(keys) => {
                let keys = keys.iter().map(|(kid, variable)| {
                    let key = read(variable, Part::Key(kid.clone()), Secret::parse_signing_key);
                    (kid.epoch(), key)
                });
                Signer::Epochs(keys.collect())
            }
        };
        let ring = Ring::with_signer(&self.name, signer, self.state, self.rotation);
        (ring.map(|ring| ring.with_tenants(self.tenants.clone())), lacks)
    }
}

impl Source {
    /// `"${NAME}"`, or `{"filter_state": "KEY"}`.
    fn of_secret(node: &Node<'_>) -> Result<Self, Invalid> {
        if node.open_members().is_err() {
            return variable(node).map(Self::Secret);
        }
        let members = node.members(&["filter_state"])?;
        filter_state(&members.require("filter_state")?).map(Self::FilterState)
    }

    fn read(
        members: &Members<'_>,
        ring: &str,
        rotation: Option<Rotation>,
    ) -> Result<Self, Invalid> {
        let Some(keys) = members.get("keys") else {
            return Self::of_secret(&members.require("secret")?);
        };
        if members.get("secret").is_some() {
            return Err(keys.unusable("a ring has either a secret or keys; remove one of them"));
        }
        let mut read = Vec::new();
        for (name, node) in keys.entries()? {
            let kid = Kid::parse(name.as_bytes()).ok().filter(|kid| kid.ring() == ring);
            let Some(kid) = kid else {
                return Err(node.unusable(NO_KID));
            };
            if rotation.is_none() && kid.epoch() != 0 {
                return Err(node.unusable(NO_EPOCH));
            }
            read.push((kid, variable(&node)?));
        }
        if read.is_empty() {
            Err(keys.expected("at least one signing key"))
        } else {
            Ok(Self::Keys(read))
        }
    }
}

/// The path of a filter state, which the configuration names by its key.
fn filter_state(node: &Node<'_>) -> Result<String, Invalid> {
    let key = node.string()?;
    let rest = key.strip_prefix(FILTER_STATE_PREFIX).unwrap_or_default();
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let is_key = (1..=MAX_FILTER_STATE_BYTES).contains(&rest.len()) && rest.bytes().all(allowed);
    if is_key { Ok([FILTER_STATE_PATH, key].concat()) } else { Err(node.expected(NO_FILTER_STATE)) }
}

pub(super) fn variable(node: &Node<'_>) -> Result<Variable, Invalid> {
    Variable::parse(node.string()?).map_err(|invalid| node.unusable(invalid))
}

fn tenants(node: &Node<'_>) -> Result<Box<[String]>, Invalid> {
    let tenants = node.list(id as fn(&Node<'_>) -> Result<String, Invalid>)?;
    if tenants.is_empty() { Err(node.expected("at least one tenant")) } else { Ok(tenants) }
}

fn rotation(node: &Node<'_>) -> Result<Rotation, Invalid> {
    let members = node.members(&["interval", "max_age", "keep_expired"])?;
    let interval_secs = members.require("interval")?.seconds()?;
    let max_age_secs = members.require("max_age")?.seconds()?;
    let keep_expired = members.read("keep_expired", Node::bool)?.unwrap_or(false);
    Rotation::new(interval_secs, max_age_secs, keep_expired).map_err(|e| node.unusable(e))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[track_caller]
    fn refused(ring: &str) -> String {
        let text = format!(r#"{{"keyring": [{ring}]}}"#);
        Config::parse(text.as_bytes()).unwrap_err().to_string()
    }

    fn keys(keys: &str) -> String {
        refused(&format!(r#"{{"name": "main", "keys": {keys}}}"#))
    }

    #[test]
    fn a_ring_has_either_a_secret_or_signing_keys_of_its_own() {
        assert_eq!(refused(r#"{"name": "main"}"#), "keyring[0].secret: missing");
        let both = r#"{"name": "main", "secret": "${S}", "keys": {"main-0": "${K}"}}"#;
        let either = "keyring[0].keys: a ring has either a secret or keys; remove one of them";
        assert_eq!(refused(both), either);
        assert_eq!(keys("{}"), "keyring[0].keys: expected at least one signing key");
        for name in ["other-0", "main", "main-00", "main-x", "MAIN-0"] {
            let refused = keys(&format!(r#"{{"{name}": "${{K}}"}}"#));
            assert!(refused.contains("a signing key is named by its kid"), "{refused}");
        }
        let literal = keys(r#"{"main-0": "base64:sRd0i5lhPMrC7fJ2iWQ6xbEXdIuZYTzKwu3ydolkOsU="}"#);
        assert!(
            literal.starts_with("keyring[0].keys.main-0: a secret does not belong"),
            "{literal}"
        );
        assert!(!literal.contains("sRd0"), "{literal}");
        let epoch = "keyring[0].keys.main-1: a ring without rotation has no epoch but 0";
        assert_eq!(keys(r#"{"main-1": "${K}"}"#), epoch);
        let twice = keys(r#"{"main-0": "${A}", "main-0": "${B}"}"#);
        assert!(twice.contains("a member is named twice"), "{twice}");
    }

    #[test]
    fn debug_shows_names_of_variables_only() {
        let text = br#"{"keyring": [{"name": "main", "keys": {"main-0": "${K}"}}]}"#;
        let config = Config::parse(text).unwrap();
        let short = "base64:sRd0i5lhPMrC7fJ2iWQ6xbEXdIuZYTzKwu3ydolk";
        let shown =
            format!("{:?} {:?}", config, config.rings()[0].compile(|_| Some(short.to_owned())).1);
        assert!(shown.contains("main-0") && !shown.contains("sRd0"), "{shown}");
        assert_eq!(Vec::from_iter(config.variables()), ["K"]);
    }
}
