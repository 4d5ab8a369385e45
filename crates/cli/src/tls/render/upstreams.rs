//! The list of upstreams to render configuration for.

use std::collections::BTreeSet;
use std::path::Path;

use vkey::json::{Integers, Invalid, Json, Node};
use vkey::upstream_tls::UpstreamPattern;

use super::super::super::error::Error;
use super::super::super::input::{Place, variable_name};
use super::super::error::TlsError;
use super::credentials::Credential;

/// The longest list that is read: some thousand upstreams.
const MAX_LIST_BYTES: u64 = 1024 * 1024;

/// The longest name: it leaves room for prefixes in the names of Kubernetes objects.
const MAX_NAME_BYTES: usize = 40;

const DEFAULT_PORT: u16 = 443;

/// The list, and the names of other objects.
pub(super) struct Upstreams {
    /// The upstreams, with unique names.
    pub(super) upstreams: Box<[Upstream]>,
    /// The module.
    pub(super) wasm: Wasm,
    /// Names of objects in Kubernetes.
    pub(super) kubernetes: Kubernetes,
}

/// One upstream.
pub(super) struct Upstream {
    /// The name of the cluster and the objects: lower-case letters, digits and `-`.
    pub(super) name: String,
    /// The host that requests are for and that the certificate must have.
    pub(super) host: UpstreamPattern,
    pub(super) port: u16,
    /// Where to connect, if that is not the host: a name or an IP address.
    pub(super) address: Option<UpstreamPattern>,
    /// Which certificates are trusted; by default those of the system's authorities.
    pub(super) trust: Option<Trust>,
    /// The certificate of the proxy.
    pub(super) identity: Option<Identity>,
    /// The provider credential that the gate attaches.
    pub(super) credential: Option<Credential>,
    pub(super) http2: bool,
}

/// Which certificates are trusted.
pub(super) struct Trust {
    /// The authorities.
    pub(super) anchors: Anchors,
    /// A file with the authorities' revocation lists, PEM.
    pub(super) crl: Option<String>,
}

/// Where the authorities' certificates come from.
pub(super) enum Anchors {
    /// A file, PEM.
    File(String),
    Sds(Sds),
    /// What the proxy's system trusts.
    System,
}

/// Where the proxy's certificate comes from.
pub(super) enum Identity {
    /// Files, PEM.
    Files {
        certificate: String,
        key: String,
    },
    Sds(Sds),
}

/// A secret by name, which is reloaded when it changes.
pub(super) struct Sds {
    pub(super) name: String,
    /// The file that contains it, an Envoy `DiscoveryResponse` with Secrets.
    pub(super) path: Option<String>,
}

/// The module.
pub(super) struct Wasm {
    /// Its path in the proxy.
    pub(super) file: Option<String>,
    /// Where Istio and Envoy Gateway fetch it, and its SHA-256, hexadecimal digits.
    pub(super) fetch: Option<Fetch>,
    /// The environment variables that it sees.
    pub(super) environment: Box<[String]>,
}

/// Where to fetch the module.
pub(super) struct Fetch {
    pub(super) url: String,
    pub(super) sha256: String,
}

/// Names of objects in Kubernetes; each format has its own defaults.
#[derive(Default)]
pub(super) struct Kubernetes {
    pub(super) namespace: Option<String>,
    /// The Gateway, for Istio and for the Gateway API.
    pub(super) gateway: Option<String>,
    /// The label `istio` of the gateway's pods.
    pub(super) workload: Option<String>,
}

// === impl Upstreams ===

impl Upstreams {
    /// Reads a list; `-` is standard input.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = Place::file("UPSTREAMS", path).read_bytes(MAX_LIST_BYTES)?;
        let json = parse(&text)?;
        Ok(Self::from_node(&json.root(Integers::Digits)).map_err(TlsError::Upstreams)?)
    }

    fn from_node(root: &Node<'_>) -> Result<Self, Invalid> {
        let members = root.members(&["upstreams", "wasm", "kubernetes"])?;
        let list = members.require("upstreams")?;
        let upstreams = list.list(Upstream::from_node)?;
        if upstreams.is_empty() {
            return Err(list.expected("at least one upstream"));
        }
        let mut names = BTreeSet::new();
        for (item, upstream) in list.items()?.zip(&upstreams) {
            if !names.insert(&upstream.name) {
                let members = item.open_members()?;
                let reason = "an earlier upstream has this name already; choose another";
                return Err(members.require("name")?.unusable(reason));
            }
        }
        let wasm = members.read("wasm", Wasm::from_node)?;
        let kubernetes = members.read("kubernetes", Kubernetes::from_node)?;
        Ok(Self {
            upstreams,
            wasm: wasm.unwrap_or(Wasm { file: None, fetch: None, environment: Box::default() }),
            kubernetes: kubernetes.unwrap_or_default(),
        })
    }
}

/// YAML, of which JSON is a part but for some characters. Errors quote nothing of it.
fn parse(text: &[u8]) -> Result<Json, TlsError> {
    let refused = |what, line| TlsError::UpstreamsText { what, line };
    let text = str::from_utf8(text).map_err(|_| refused("not UTF-8", None))?;
    if let Ok(json) = Json::parse(text.as_bytes()) {
        return Ok(json);
    }
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let what = match error.without_snippet() {
            serde_saphyr::Error::DuplicateMappingKey { .. } => "a member is named twice",
            serde_saphyr::Error::MultipleDocuments { .. } => "more than one YAML document",
            serde_saphyr::Error::Budget { .. } => "more than this command reads",
            serde_saphyr::Error::Eof { .. } => "empty",
            _ => "not valid YAML or JSON",
        };
        refused(what, error.location().map(|location| location.line()))
    })
}

// === impl Upstream ===

impl Upstream {
    fn from_node(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&[
            "name", "host", "port", "address", "trust", "client_certificate", "credential", "http2",
        ])?;
        let name = read_name(&members.require("name")?)?;
        let host = read_host(&members.require("host")?)?;
        Ok(Self {
            credential: members
                .read("credential", |node| Credential::read(node, &name, &host.to_string()))?,
            name,
            host,
            port: members.read("port", read_port)?.unwrap_or(DEFAULT_PORT),
            address: members.read("address", read_host)?,
            trust: members.read("trust", Trust::from_node)?,
            identity: members.read("client_certificate", Identity::from_node)?,
            http2: members.read("http2", Node::bool)?.unwrap_or(false),
        })
    }

    /// The name of the host; `None` for an address.
    pub(super) fn host_name(&self) -> Option<&str> {
        match &self.host {
            UpstreamPattern::Name(name) => Some(name),
            _ => None,
        }
    }

    /// Where to connect.
    pub(super) fn destination(&self) -> &UpstreamPattern {
        self.address.as_ref().unwrap_or(&self.host)
    }
}

fn read_name(node: &Node<'_>) -> Result<String, Invalid> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let name = node.string()?;
    let is_name = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(allowed)
        && !name.starts_with('-')
        && !name.ends_with('-');
    is_name.then(|| name.to_owned()).ok_or_else(|| {
        node.expected("1 to 40 lower-case letters, digits and -, none of them - at an end")
    })
}

fn read_host(node: &Node<'_>) -> Result<UpstreamPattern, Invalid> {
    let one = |pattern: &UpstreamPattern| {
        matches!(pattern, UpstreamPattern::Name(_) | UpstreamPattern::Address(_))
    };
    UpstreamPattern::parse(node.string()?).filter(one).ok_or_else(|| {
        node.expected(
            "one host name in lower case, or an address (an IPv6 one in brackets), without scheme, \
             port and wildcard; international names in their ASCII form (xn--)",
        )
    })
}

fn read_port(node: &Node<'_>) -> Result<u16, Invalid> {
    let port = u16::try_from(node.integer()?).ok();
    port.filter(|port| *port > 0).ok_or_else(|| node.expected("a port, 1 to 65535"))
}

/// A text that names something.
fn read_text(node: &Node<'_>) -> Result<String, Invalid> {
    match node.string()? {
        "" => Err(node.expected("a text that is not empty")),
        text if text.contains('\0') => Err(node.expected("a text without NUL")),
        text => Ok(text.to_owned()),
    }
}

// === impl Trust ===

impl Trust {
    fn from_node(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["system", "file", "sds", "crl"])?;
        let crl = members.read("crl", read_text)?;
        let system = members.read("system", read_true)?;
        let file = members.read("file", read_text)?;
        let sds = members.read("sds", Sds::from_node)?;
        let anchors = match (system, file, sds) {
            (Some(()), None, None) => Anchors::System,
            (None, Some(file), None) => Anchors::File(file),
            (None, None, Some(sds)) => Anchors::Sds(sds),
            _ => return Err(node.expected("one of system: true, file and sds")),
        };
        Ok(Self { anchors, crl })
    }
}

fn read_true(node: &Node<'_>) -> Result<(), Invalid> {
    if node.bool()? { Ok(()) } else { Err(node.expected("true; leave it out otherwise")) }
}

// === impl Identity ===

impl Identity {
    fn from_node(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["certificate", "key", "sds"])?;
        let certificate = members.read("certificate", read_text)?;
        let key = members.read("key", read_text)?;
        let sds = members.read("sds", Sds::from_node)?;
        match (certificate, key, sds) {
            (Some(certificate), Some(key), None) => Ok(Self::Files { certificate, key }),
            (None, None, Some(sds)) => Ok(Self::Sds(sds)),
            _ => Err(node.expected("both certificate and key, or sds alone")),
        }
    }
}

// === impl Sds ===

impl Sds {
    fn from_node(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["name", "path"])?;
        let name = read_text(&members.require("name")?)?;
        Ok(Self { name, path: members.read("path", read_text)? })
    }
}

// === impl Wasm ===

impl Wasm {
    fn from_node(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["file", "url", "sha256", "environment"])?;
        let url = members.read("url", read_text)?;
        let sha256 = members.read("sha256", read_sha256)?;
        let fetch = match (url, sha256) {
            (Some(url), Some(sha256)) => Some(Fetch { url, sha256 }),
            (None, None) => None,
            _ => return Err(node.expected("both url and sha256, or neither")),
        };
        let environment = members.read("environment", |node| node.list(read_variable))?;
        Ok(Self {
            file: members.read("file", read_text)?,
            fetch,
            environment: environment.unwrap_or_default(),
        })
    }
}

fn read_sha256(node: &Node<'_>) -> Result<String, Invalid> {
    let text = node.string()?;
    let expected = "the 64 lower-case hexadecimal digits of the module's SHA-256";
    let digest = vkey::digest::is_sha256_hex(text).then(|| text.to_owned());
    digest.ok_or_else(|| node.expected(expected))
}

fn read_variable(node: &Node<'_>) -> Result<String, Invalid> {
    variable_name(node.string()?).map_err(|reason| node.unusable(reason))
}

// === impl Kubernetes ===

impl Kubernetes {
    fn from_node(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["namespace", "gateway", "workload"])?;
        Ok(Self {
            namespace: members.read("namespace", read_name)?,
            gateway: members.read("gateway", read_name)?,
            workload: members.read("workload", read_name)?,
        })
    }
}
