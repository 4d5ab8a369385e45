//! Reads plugin configurations from the files that `--config` names.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use vkey::config::{Config, RoleConfig, UpstreamConfig};
use vkey::json::{Invalid, Json};
use zeroize::Zeroizing;

use super::document::MAX_DOCUMENT_BYTES;
use super::error::{Error, Failure};
use super::exit::Exit;
use super::input::{InputError, Place};
use super::plugins::{self, Discovered, Found, Plugin, PluginError};
use super::text::{escape_line, escape_sentence, escape_word};

/// The option that names a configuration.
const CONFIG: &str = "--config";

/// The most plugins that an error lists.
const MAX_LISTED: usize = 10;

/// A file with plugin configurations, as `FILE` or `FILE#NAME`; `-` is standard input.
#[derive(Clone, Debug, Default)]
pub(super) struct ConfigFile {
    given: PathBuf,
}

/// The plugin configurations of a file.
pub(super) struct ConfigSource {
    /// The name of the file in messages.
    file: String,
    /// The name of the plugin to take.
    name: Option<String>,
    plugins: Vec<Plugin>,
    /// The places of the plugins that are taken for other modules.
    others: Vec<String>,
    /// The filters that the file leaves to discovery, if it has no gate of a listener.
    discovered: Vec<Discovered>,
}

/// The content of a file.
struct Content {
    /// The name of the file in messages.
    file: String,
    /// The name of the plugin to take.
    name: Option<String>,
    text: Zeroizing<Vec<u8>>,
}

/// Why a file has no usable plugin configuration.
#[derive(Debug)]
pub(super) struct ConfigError {
    file: String,
    problem: ConfigProblem,
}

#[derive(Debug)]
enum ConfigProblem {
    /// No plugin can be taken from the file.
    Plugin(PluginError),
    /// The file has no gate of a listener, but leaves filters to discovery.
    Discovered(Vec<Discovered>),
    /// A configuration is invalid.
    Invalid { place: String, invalid: Invalid },
    /// The deployment around a configuration has a mistake.
    Misdeployed { place: String, text: String },
    /// All are of upstream gates.
    NoGate,
    /// No object and no document of Envoy has one.
    NoneDeployed,
    /// No plugin has the name; these can be chosen.
    NoName(Vec<String>),
    /// The module does not get these variables.
    NotHandedOver { place: String, names: Vec<String>, member: &'static str },
    /// There are several different ones; these can be chosen.
    Several(Vec<String>),
    /// The file cannot be read.
    Unreadable(InputError),
}

// === impl ConfigFile ===

impl ConfigFile {
    /// Whether it is standard input.
    pub(super) fn is_stdin(&self) -> bool {
        self.split().0 == Path::new("-")
    }

    /// Reads the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or has no configuration of the module.
    pub(super) fn read(&self) -> Result<ConfigSource, Error> {
        let Content { file, name, text } = self.read_bytes()?;
        let found = plugins::find(&text);
        let is_gate = |plugin: &Plugin| !plugin.is_upstream_gate();
        let has_gate = found.as_ref().is_ok_and(|found| found.plugins.iter().any(is_gate));
        let discovered = if has_gate { Vec::new() } else { plugins::discovered(&text) };
        match found {
            Ok(Found { plugins, others }) => {
                Ok(ConfigSource { file, name, plugins, others, discovered })
            }
            Err(PluginError::NoPlugin) if !discovered.is_empty() => {
                Err(ConfigError { file, problem: ConfigProblem::Discovered(discovered) }.into())
            }
            Err(error) => Err(ConfigError { file, problem: ConfigProblem::Plugin(error) }.into()),
        }
    }

    /// Reads a file of objects of Kubernetes or documents of Envoy. Returns the documents too.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or nothing in it has a configuration of the module.
    pub(super) fn read_deployed(&self) -> Result<(ConfigSource, Vec<Value>), Error> {
        let Content { file, name, text } = self.read_bytes()?;
        let problem = match plugins::find_deployed(&text) {
            Ok((Found { plugins, others }, documents)) => {
                let discovered = Vec::new();
                return Ok((ConfigSource { file, name, plugins, others, discovered }, documents));
            }
            Err(PluginError::NoPlugin) => match plugins::discovered(&text) {
                discovered if discovered.is_empty() => ConfigProblem::NoneDeployed,
                discovered => ConfigProblem::Discovered(discovered),
            },
            Err(error) => ConfigProblem::Plugin(error),
        };
        Err(ConfigError { file, problem }.into())
    }

    fn read_bytes(&self) -> Result<Content, Error> {
        let (path, name) = self.split();
        let place = Place::file(CONFIG, &path);
        let file = match place {
            Place::Stdin => "standard input".to_owned(),
            _ => escape_line(&path.to_string_lossy()),
        };
        match place.read_bytes(MAX_DOCUMENT_BYTES) {
            Ok(text) => Ok(Content { file, name, text }),
            Err(error) if !is_file_name(&path) => Err(error.into()),
            Err(error) => {
                Err(ConfigError { file, problem: ConfigProblem::Unreadable(error) }.into())
            }
        }
    }

    /// The file at a path, which may contain `#`.
    pub(super) fn at(path: &Path) -> Self {
        Self { given: path.to_owned() }
    }

    /// The only gate of a listener, and its configuration.
    ///
    /// # Errors
    ///
    /// As [`Self::read`], and if it is invalid or there are several.
    pub(super) fn gate(&self) -> Result<(Plugin, Config), Error> {
        let source = self.read()?;
        let plugin = source.gate()?;
        match source.parse(plugin)? {
            RoleConfig::Gate(config) => Ok((plugin.clone(), *config)),
            RoleConfig::UpstreamTls(_) => Err(source.error(ConfigProblem::NoGate).into()),
        }
    }

    /// The only gate of a listener, and the upstream gates in the same file.
    ///
    /// # Errors
    ///
    /// As [`Self::gate`].
    pub(super) fn gates(&self) -> Result<(Config, Vec<UpstreamConfig>), Error> {
        let source = self.read()?;
        let RoleConfig::Gate(config) = source.parse(source.gate()?)? else {
            return Err(source.error(ConfigProblem::NoGate).into());
        };
        Ok((*config, source.upstream_gates()?))
    }

    /// The path, and the name of the plugin. A file whose own name contains `#` is taken as it is.
    fn split(&self) -> (PathBuf, Option<String>) {
        let text = self.given.to_str().filter(|_| !self.given.exists());
        match text.and_then(|text| text.rsplit_once('#')) {
            Some((path, name)) => (PathBuf::from(path), Some(name.to_owned())),
            None => (self.given.clone(), None),
        }
    }
}

impl From<OsString> for ConfigFile {
    fn from(given: OsString) -> Self {
        Self { given: PathBuf::from(given) }
    }
}

// === impl ConfigSource ===

impl ConfigSource {
    /// All that were asked for: those of the name, or every one.
    pub(super) fn chosen(&self) -> Result<Vec<&Plugin>, ConfigError> {
        let Some(name) = &self.name else {
            return Ok(self.plugins.iter().collect());
        };
        let is_named = |plugin: &&Plugin| plugin.names.contains(name) || plugin.place == *name;
        let chosen = Vec::from_iter(self.plugins.iter().filter(is_named));
        if chosen.is_empty() {
            return Err(self.error(ConfigProblem::NoName(choices(&Vec::from_iter(&self.plugins)))));
        }
        Ok(chosen)
    }

    /// The only gate of a listener. The same configuration in several places counts once.
    pub(super) fn gate(&self) -> Result<&Plugin, ConfigError> {
        let chosen = self.chosen()?.into_iter();
        let gates = Vec::from_iter(chosen.filter(|plugin| !plugin.is_upstream_gate()));
        self.only(&gates)?.ok_or_else(|| self.no_gate())
    }

    /// The gate of a listener, or the upstream gate if there is none, as JSON.
    pub(super) fn json(&self) -> Result<(&Plugin, Json), ConfigError> {
        let chosen = self.chosen()?;
        let (upstream, gates): (Vec<_>, Vec<_>) =
            chosen.into_iter().partition(|plugin| plugin.is_upstream_gate());
        let plugins = if gates.is_empty() { upstream } else { gates };
        let plugin = self.only(&plugins)?.ok_or_else(|| self.error(ConfigProblem::NoGate))?;
        let json = plugin.json().map_err(|invalid| self.invalid(plugin, invalid))?;
        Ok((plugin, json))
    }

    /// The upstream gates of the file.
    pub(super) fn upstream_gates(&self) -> Result<Vec<UpstreamConfig>, ConfigError> {
        let mut gates = Vec::new();
        for plugin in self.plugins.iter().filter(|plugin| plugin.is_upstream_gate()) {
            if let RoleConfig::UpstreamTls(config) = self.parse(plugin)? {
                gates.push(config);
            }
        }
        Ok(gates)
    }

    /// All configurations of the module in the file.
    pub(super) fn all(&self) -> &[Plugin] {
        &self.plugins
    }

    /// The places of the plugins in the file that are taken for other modules.
    pub(super) fn others(&self) -> &[String] {
        &self.others
    }

    /// The names of the credentials that the gates of listeners in the file name. Those that are invalid name none.
    pub(super) fn granted(&self) -> BTreeSet<String> {
        let mut granted = BTreeSet::new();
        for plugin in &self.plugins {
            if let Ok(RoleConfig::Gate(config)) = self.parse(plugin) {
                granted.extend(config.settings().grants.iter().map(|grant| grant.name.clone()));
            }
        }
        granted
    }

    /// Parses a configuration like the module.
    pub(super) fn parse(&self, plugin: &Plugin) -> Result<RoleConfig, ConfigError> {
        plugin.check_message().map_err(|error| self.error(ConfigProblem::Plugin(error)))?;
        RoleConfig::parse(&plugin.text).map_err(|invalid| self.invalid(plugin, invalid))
    }

    /// Checks that the proxy hands the variables to the module, if the file says which it does.
    pub(super) fn check_handed_over<'a>(
        &self,
        plugin: &Plugin,
        variables: impl Iterator<Item = &'a str>,
    ) -> Result<(), ConfigError> {
        let Some(environment) = &plugin.environment else { return Ok(()) };
        let missing = BTreeSet::from_iter(variables.filter(|name| !environment.has(name)));
        if missing.is_empty() {
            return Ok(());
        }
        Err(self.error(ConfigProblem::NotHandedOver {
            place: plugin.place.clone(),
            names: missing.into_iter().map(str::to_owned).collect(),
            member: environment.member,
        }))
    }

    /// The error for a configuration.
    pub(super) fn invalid(&self, plugin: &Plugin, invalid: Invalid) -> ConfigError {
        self.error(ConfigProblem::Invalid { place: plugin.place.clone(), invalid })
    }

    /// The error for a mistake in the deployment at a place.
    pub(super) fn misdeployed(&self, place: &str, text: &str) -> ConfigError {
        let (place, text) = (place.to_owned(), text.to_owned());
        self.error(ConfigProblem::Misdeployed { place, text })
    }

    /// The only one of some plugins, if there are any.
    fn only<'a>(&self, plugins: &[&'a Plugin]) -> Result<Option<&'a Plugin>, ConfigError> {
        let Some((first, others)) = plugins.split_first() else { return Ok(None) };
        let is_same = |other: &&Plugin| other.text == first.text;
        if others.iter().all(is_same) {
            return Ok(Some(first));
        }
        Err(self.error(ConfigProblem::Several(choices(plugins))))
    }

    fn no_gate(&self) -> ConfigError {
        let discovered = self.discovered.clone();
        self.error(match discovered.is_empty() {
            true => ConfigProblem::NoGate,
            false => ConfigProblem::Discovered(discovered),
        })
    }

    fn error(&self, problem: ConfigProblem) -> ConfigError {
        ConfigError { file: self.file.clone(), problem }
    }
}

/// Whether a name that leads to no file may be printed. Any other may be a secret that is in the wrong place.
fn is_file_name(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str);
    extension.is_some_and(|extension| ["conf", "json", "yaml", "yml"].contains(&extension))
}

/// What to write after `#` for each plugin: a name that no other has, or its place.
fn choices(plugins: &[&Plugin]) -> Vec<String> {
    let is_unique = |name: &&String| {
        let having = plugins.iter().filter(|plugin| plugin.names.contains(name));
        having.count() == 1
    };
    let choice = |plugin: &&Plugin| {
        let unique = plugin.names.iter().find(is_unique);
        unique.map_or_else(|| escape_sentence(&plugin.place), |name| escape_word(name))
    };
    plugins.iter().map(choice).collect()
}

// === impl ConfigError ===

impl Failure for ConfigError {
    fn exit(&self) -> Exit {
        match &self.problem {
            ConfigProblem::Unreadable(error) => error.exit(),
            ConfigProblem::NoneDeployed => Exit::Undecided,
            _ => Exit::Refused,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file)?;
        match &self.problem {
            ConfigProblem::Plugin(error) => error.fmt(f),
            ConfigProblem::Discovered(filters) => {
                let filters = filters.iter().map(ToString::to_string);
                write!(
                    f,
                    "it has no configuration of a listener's gate: {}",
                    Vec::from_iter(filters).join("; ")
                )
            }
            ConfigProblem::Invalid { place, invalid } => {
                write!(f, "{}invalid configuration: {invalid}", at(place))
            }
            ConfigProblem::Misdeployed { place, text } => {
                write!(f, "{}{}", at(place), escape_sentence(text))
            }
            ConfigProblem::NoneDeployed => f.write_str(
                "nothing to check: no object of Kubernetes and no document of Envoy in it has a plugin configuration \
                 of the module",
            ),
            ConfigProblem::NoGate => f.write_str(
                "the configuration is for an upstream gate, which only runs in a proxy; use that \
                 of the listener's gate",
            ),
            ConfigProblem::NoName(names) if names.iter().all(String::is_empty) => {
                f.write_str("the only plugin configuration has no name; leave out # and the name")
            }
            ConfigProblem::NoName(names) => write!(
                f,
                "no plugin configuration has the name after #; expected one of {}",
                listed(names)
            ),
            ConfigProblem::NotHandedOver { place, names, member } => write!(
                f,
                "{}the module does not get {}, so it would refuse every request; add {} to {member}",
                at(place),
                names.join(", "),
                if names.len() == 1 { "it" } else { "them" },
            ),
            ConfigProblem::Unreadable(error) => error.fmt(f),
            ConfigProblem::Several(names) => write!(
                f,
                "several gates have different configurations; choose one by FILE#NAME, with {}",
                listed(names)
            ),
        }
    }
}

fn at(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!("{}: ", escape_sentence(place)) }
}

fn listed(names: &[String]) -> String {
    let shown = names.iter().take(MAX_LISTED).cloned();
    let more = names.len().checked_sub(MAX_LISTED).filter(|more| *more > 0);
    let more = more.map(|more| format!("{more} more"));
    Vec::from_iter(shown.chain(more)).join(", ")
}

impl fmt::Display for Discovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filter = escape_word(&self.filter);
        match &self.path {
            Some(path) => {
                let path = escape_line(path);
                write!(f, "the listener's filter {filter} comes by ECDS from {path}: use that file")
            }
            None => write!(
                f,
                "the listener's filter {filter} comes by ECDS from a server: use a /config_dump, or its plugin configuration"
            ),
        }
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByteOrderMark => f.write_str(
                "invalid configuration: it begins with a byte order mark, which the module does not \
                 read; save it as UTF-8 without one",
            ),
            Self::Document(error) if error.is_parsed() => error.fmt(f),
            Self::Document(error) => {
                write!(f, "the file is neither JSON nor YAML: {error}; check its content")
            }
            Self::Embedded { place, error } => write!(
                f,
                "{}: the text is neither JSON nor YAML: {error}; check its content",
                escape_sentence(place)
            ),
            Self::Message { place, expected } => write!(f, "{}: {expected}", escape_sentence(place)),
            Self::NoPlugin => f.write_str(
                "it has no configuration of the module: no plugin has keyring, or the role of an \
                 upstream gate",
            ),
            Self::NotAConfiguration => f.write_str(
                "expected a plugin configuration, or the configuration of a proxy that contains one",
            ),
        }
    }
}
