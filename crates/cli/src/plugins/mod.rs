//! Finds the plugin configurations of the module in the files that configure proxies.

mod envoy;
mod flags;
mod kubernetes;
mod message;
mod nginx;
mod part;
mod place;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use zeroize::Zeroizing;

use vkey::json::{Invalid, Json};

use super::document::{self, DocumentError, is_of_proxy};
pub(super) use envoy::{discovered as discovered_filter, is_filter};
pub(super) use flags::{Flag, Flags};
pub(super) use message::configuration;
pub(super) use part::{Owner, Part, parts};
use place::Place;

/// The mark that some editors write at the start of a file.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A part of the names and of the code of a plugin by which it is recognized as the module, whatever its configuration.
const MODULE: &str = "vkey";

/// The start of the member that every gate of a listener has, also if it is misspelt at its end or the JSON is broken.
const KEYRING: &str = "\"keyring";

/// The role of an upstream gate.
const UPSTREAM_ROLE: &str = "upstream_tls";

/// A configuration of the module, and where it is.
#[derive(Clone, Default)]
pub(super) struct Plugin {
    /// The path in the file; empty if the file is the configuration.
    pub(super) place: String,
    /// The names to choose it by: of the listener or the object, and of the plugin.
    pub(super) names: Vec<String>,
    /// The bytes that the module gets.
    pub(super) text: Zeroizing<Vec<u8>>,
    /// The environment that the module gets, if the file defines it.
    pub(super) environment: Option<Environment>,
    /// How Envoy runs the module, as far as the file says.
    pub(super) vm: Vm,
    /// Whether the proxy holds a request until its body is read.
    pub(super) holding: Holding,
    /// How much of a body the listener holds, in bytes; `None` if the file does not say, or there is no bound.
    pub(super) buffer_bytes: Option<u64>,
    /// What is wrong with how the proxy runs it.
    pub(super) flags: Flags,
    /// The path of the object or the document in the file; empty if the file has no other.
    pub(super) root: String,
    /// What the object is called, if it is in an object of Kubernetes.
    pub(super) owner: Option<Owner>,
    /// Where the proxy gets the code from.
    code: Option<String>,
    /// What is expected, if the proxy does not hand the configuration over as text.
    expected: Option<&'static str>,
    /// Whether a document is the configuration.
    is_plain: bool,
}

/// Whether a proxy holds a request until the module has read its body, as far as a file says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Holding {
    /// An object of this kind cannot make it.
    ByNo(&'static str),
    /// It does.
    Held,
    /// `allow_on_headers_stop_iteration` is not set.
    NotSet,
    /// nginx does not.
    OnNginx,
    /// The file does not say.
    #[default]
    Unknown,
}

/// How Envoy runs the module, as far as a file says.
#[derive(Clone, Default)]
pub(super) struct Vm {
    /// The path of the module in the proxy.
    pub(super) module: Option<String>,
    /// The id of the VM.
    pub(super) id: Option<String>,
    /// The name of the filter, if discovery delivers it.
    pub(super) filter: Option<String>,
}

/// A filter of a listener that discovery delivers, and the file from which it does.
#[derive(Clone, Debug)]
pub(super) struct Discovered {
    /// The name of the filter.
    pub(super) filter: String,
    /// The file, as the proxy names it; `None` if a server delivers the filter.
    pub(super) path: Option<String>,
}

/// The plugins of a file.
pub(super) struct Found {
    /// The configurations of the module: first those of listeners, then those of upstream gates.
    pub(super) plugins: Vec<Plugin>,
    /// The places of the plugins that are taken for other modules.
    pub(super) others: Vec<String>,
}

/// The environment variables that a proxy hands to the module.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Environment {
    /// The member of the file that lists them, as errors name it.
    pub(super) member: &'static str,
    /// Names of variables of the proxy.
    pub(super) inherited: BTreeSet<String>,
    /// Values that the file contains, by name.
    pub(super) literal: BTreeMap<String, Zeroizing<String>>,
}

/// Why no plugin configuration can be taken from a file.
#[derive(Debug)]
pub(super) enum PluginError {
    /// A configuration begins with a byte order mark, which the module does not read.
    ByteOrderMark,
    /// The file is neither JSON nor YAML.
    Document(DocumentError),
    /// A text in the file is neither JSON nor YAML.
    Embedded {
        /// The object, and the path in it.
        place: String,
        /// What is wrong with it.
        error: DocumentError,
    },
    /// The configuration of a plugin is none that the proxy hands to the module as text.
    Message {
        /// Its path in the file.
        place: String,
        /// What is expected.
        expected: &'static str,
    },
    /// The file configures a proxy, but not the module.
    NoPlugin,
    /// The file is neither a plugin configuration nor that of a proxy.
    NotAConfiguration,
}

/// Finds the plugin configurations in a file.
pub(super) fn find(text: &[u8]) -> Result<Found, PluginError> {
    let bare = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if nginx::is_configuration(bare) {
        return some(nginx::find(bare))?.readable();
    }
    let is_braced = bare.trim_ascii_start().starts_with(b"{");
    let documents = match document::parse_all(text) {
        // The module's own reader says what is wrong with JSON.
        Err(_) if is_braced => return plain_text(text, bare),
        documents => unfold(documents.map_err(PluginError::Document)?)?,
    };
    match documents.as_slice() {
        [] => plain_text(text, bare),
        [document] if is_braced && !is_of_proxy(document) => plain_text(text, bare),
        documents => find_in(documents)?.readable(),
    }
}

/// Finds the plugin configurations in objects of Kubernetes and in documents of Envoy. Returns the documents too.
pub(super) fn find_deployed(text: &[u8]) -> Result<(Found, Vec<Value>), PluginError> {
    let documents = unfold(document::parse_all(text).map_err(PluginError::Document)?)?;
    let mut found = find_in(&documents)?;
    // A plugin configuration by itself has nothing around it.
    found.plugins.retain(|plugin| !plugin.is_plain);
    found.plugins.iter_mut().for_each(Plugin::name_by_object);
    if found.plugins.is_empty() { Err(PluginError::NoPlugin) } else { Ok((found, documents)) }
}

/// The documents, with the texts in their ConfigMaps parsed.
fn unfold(mut documents: Vec<Value>) -> Result<Vec<Value>, PluginError> {
    let unfolded = documents.iter_mut().try_for_each(kubernetes::unfold);
    unfolded.map_err(|(place, error)| PluginError::Embedded { place, error })?;
    Ok(documents)
}

/// The Wasm filters that a file leaves to discovery.
pub(super) fn discovered(text: &[u8]) -> Vec<Discovered> {
    let documents = document::parse_all(text).unwrap_or_default();
    let mut found = Vec::new();
    documents.iter().for_each(|document| {
        document::walk(document, &mut |object| found.extend(envoy::discovered(object)));
    });
    found
}

/// The configuration of a Wasm plugin of Envoy, if it is the module's, and what is expected if the proxy does not hand it
/// over as text.
pub(super) fn of_module(plugin: &Value) -> Option<(Zeroizing<Vec<u8>>, Option<&'static str>)> {
    let plugin = envoy::read(plugin, &Place::new(None));
    plugin.is_of_module().then_some((plugin.text, plugin.expected))
}

/// The configurations in the documents of a stream.
fn find_in(documents: &[Value]) -> Result<Found, PluginError> {
    if documents.iter().any(|document| !document.is_object() && !document.is_array()) {
        return Err(PluginError::NotAConfiguration);
    }
    let mut found = Vec::new();
    for (index, document) in documents.iter().enumerate() {
        let number = (documents.len() > 1).then_some(index + 1);
        let mut place = Place::new(number);
        if document.is_object() && !is_of_proxy(document) {
            found.push(Plugin::plain(place.to_string(), document));
        } else if !kubernetes::find(document, &mut place, &mut found) {
            let earlier = found.len();
            envoy::find(document, &mut place, &mut found);
            let inside = found.iter_mut().skip(earlier);
            inside.for_each(|plugin| plugin.root = place.to_string());
        }
    }
    some(found)
}

/// The configurations of the module among those found.
fn some(found: Vec<Plugin>) -> Result<Found, PluginError> {
    let (mut plugins, others): (Vec<_>, Vec<_>) = found.into_iter().partition(Plugin::is_of_module);
    plugins.sort_by_key(Plugin::is_upstream_gate);
    let others = others.into_iter().map(|plugin| plugin.place).collect();
    if plugins.is_empty() { Err(PluginError::NoPlugin) } else { Ok(Found { plugins, others }) }
}

/// A file that is the configuration itself: the module would get its bytes.
fn plain_text(text: &[u8], bare: &[u8]) -> Result<Found, PluginError> {
    if bare.len() < text.len() {
        return Err(PluginError::ByteOrderMark);
    }
    let plugin = Plugin { text: Zeroizing::new(text.to_vec()), ..Plugin::default() };
    Ok(Found { plugins: vec![plugin], others: Vec::new() })
}

// === impl Found ===

impl Found {
    /// The error if the proxy does not hand over one of the configurations as text.
    fn readable(self) -> Result<Self, PluginError> {
        self.plugins.iter().try_for_each(Plugin::check_message)?;
        Ok(self)
    }
}

// === impl Plugin ===

impl Plugin {
    /// A configuration in YAML.
    fn plain(place: String, document: &Value) -> Self {
        let text = Zeroizing::new(document.to_string().into_bytes());
        Self { place, text, is_plain: true, ..Self::default() }
    }

    /// The error if the proxy does not hand the configuration over as text.
    pub(super) fn check_message(&self) -> Result<(), PluginError> {
        let error = |expected| PluginError::Message { place: self.place.clone(), expected };
        self.expected.map_or(Ok(()), |expected| Err(error(expected)))
    }

    /// Names the places in an object by the object, not by its number in the file.
    fn name_by_object(&mut self) {
        let Some(owner) = &self.owner else { return };
        let places = self.flags.all_mut().map(|flag| &mut flag.place).chain([&mut self.place]);
        for place in places {
            let inside = place.strip_prefix(&self.root).unwrap_or(place);
            *place = format!("{owner}: {}", inside.trim_start_matches([',', ' ', '.']));
        }
    }

    /// The configuration as JSON.
    ///
    /// # Errors
    ///
    /// As [`Json::parse`].
    pub(super) fn json(&self) -> Result<Json, Invalid> {
        Json::parse(&self.text)
    }

    /// Whether it is for an upstream gate.
    pub(super) fn is_upstream_gate(&self) -> bool {
        let json = self.json().ok();
        let role = json.as_ref().and_then(|json| json.get("role"));
        role.and_then(Json::as_str) == Some(UPSTREAM_ROLE)
    }

    /// Whether the proxy holds the requests for another one in the same way.
    pub(super) fn is_held_like(&self, other: &Self) -> bool {
        (self.holding, self.buffer_bytes) == (other.holding, other.buffer_bytes)
    }

    /// Whether it is of this module, and not of another that runs in the same proxy.
    fn is_of_module(&self) -> bool {
        let is_named = || self.names.iter().chain(&self.code).any(|name| name.contains(MODULE));
        let mentions = || self.text.windows(KEYRING.len()).any(|part| part == KEYRING.as_bytes());
        self.place.is_empty() || mentions() || self.is_upstream_gate() || is_named()
    }
}

// === impl Environment ===

impl Environment {
    fn new(member: &'static str) -> Self {
        Self { member, inherited: BTreeSet::new(), literal: BTreeMap::new() }
    }

    /// Whether the module gets the variable, if the proxy has it.
    pub(super) fn has(&self, name: &str) -> bool {
        self.inherited.contains(name) || self.literal.contains_key(name)
    }
}
