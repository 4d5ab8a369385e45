//! A line of `vkey run`: a request, and the response to simulate.

use vkey::access::cidr::parse_address;
use vkey::digest::is_sha256_hex;
use vkey::host::{HeaderList, MemoryHost, Property};
use vkey::json::{Integers, Invalid, Json, Node};
use vkey_vm::{Response, UpstreamResponse};

use super::super::embedded::EmbeddedHost;
use super::super::time;
use super::body::{body, response};
use super::fields::{header, owned};

/// The members of a line.
const MEMBERS: [&str; 16] = [
    "id", "now", "method", "path", "authority", "key", "headers", "source", "client_cert", "body",
    "body_b64", "trailers", "properties", "status", "bytes_out", "response",
];

/// The default status of the response.
const USUAL_STATUS: u16 = 200;

/// A request for the module.
pub(super) struct RequestLine {
    /// The id that the result repeats, if any.
    pub(super) id: Option<Json>,
    /// The time, Unix nanoseconds; by default the clock's.
    now_ns: Option<u64>,
    headers: HeaderList,
    /// The parts in which the body comes.
    body: Vec<Vec<u8>>,
    trailers: Option<HeaderList>,
    properties: Vec<(String, Vec<u8>)>,
    status: u16,
    bytes_out: Option<u64>,
    response: Option<UpstreamResponse>,
}

impl RequestLine {
    /// Parses a line. `host` tells which header a key goes into.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the member and the expected value.
    pub(super) fn read(line: &[u8], host: &EmbeddedHost) -> Result<Self, Invalid> {
        let json = Json::parse(line)?;
        let root = json.root(Integers::Digits);
        let members = root.members(&MEMBERS)?;
        let text = |name| members.read(name, owned);
        let mut headers = vec![
            (b":method".to_vec(), text("method")?.unwrap_or("GET".into()).into()),
            (b":path".to_vec(), owned(&members.require("path")?)?.into()),
            (b":authority".to_vec(), text("authority")?.unwrap_or("localhost".into()).into()),
            (b":scheme".to_vec(), b"http".to_vec()),
        ];
        headers.extend(text("key")?.map(|key| host.key_header(&key)));
        headers.extend(members.read("headers", |node| node.list(header))?.unwrap_or_default());
        let shown = members.read("properties", properties)?.unwrap_or_default();
        let source = members.read("source", source)?.map(|text| (Property::SourceAddress, text));
        let cert = members.read("client_cert", digest)?;
        let cert = cert.map(|digest| (Property::PeerCertificateDigest, digest));
        let named = [source, cert].into_iter().flatten();
        let named = named.map(|(property, text)| (property.path().to_owned(), text.into_bytes()));
        Ok(Self {
            id: members.get("id").map(|node| node.value().clone()),
            now_ns: members.read("now", time)?,
            headers,
            body: body(&members)?,
            trailers: members.read("trailers", |node| node.list(header))?.map(Into::into),
            properties: shown.into_iter().chain(named).collect(),
            status: members.read("status", status)?.unwrap_or(USUAL_STATUS),
            bytes_out: members.read("bytes_out", Node::integer)?,
            response: members.read("response", response)?,
        })
    }

    /// The id of a line that is not a valid request.
    pub(super) fn id_of(line: &[u8]) -> Option<Json> {
        let json = Json::parse(line).ok()?;
        let root = json.root(Integers::Digits);
        root.open_members().ok()?.get("id").map(|node| node.value().clone())
    }

    /// Sets up the host with the request.
    pub(super) fn show(&self, host: &MemoryHost) {
        if self.now_ns.is_some() {
            host.now_ns.set(self.now_ns);
        }
        host.headers.replace(Some(self.headers.clone()));
        self.body.iter().for_each(|part| host.request_body.push(part.as_slice()));
        host.trailers.replace(self.trailers.clone());
        for (path, value) in &self.properties {
            host.show(path.clone(), value.clone());
        }
    }

    /// The response if the request is forwarded, complete at `now_ns`.
    pub(super) fn response(&self, now_ns: u64) -> Response {
        Response {
            is_local: false,
            status: Some(self.status),
            bytes: self.bytes_out,
            upstream: self.response.clone(),
            now_ns,
        }
    }

    /// The body of the request.
    pub(super) fn sent_body(&self) -> Vec<u8> {
        self.body.concat()
    }

    /// The body of the response.
    pub(super) fn response_body(&self) -> Vec<u8> {
        self.response.as_ref().map(|response| response.body.concat()).unwrap_or_default()
    }

    /// Whether the upstream sends this header with the response.
    pub(super) fn is_sent(&self, name: &str, value: &str) -> bool {
        let sent = self.response.iter().flat_map(|response| &response.headers);
        sent.into_iter().any(|(sent, of)| sent == name && of == value)
    }

    /// The headers of the request.
    pub(super) fn headers(&self) -> &HeaderList {
        &self.headers
    }
}

/// Properties by path, with its parts joined by dots.
fn properties(node: &Node<'_>) -> Result<Vec<(String, Vec<u8>)>, Invalid> {
    let property = |(path, value): (&str, Node<'_>)| {
        Ok((path.replace('.', "\0"), owned(&value)?.into_bytes()))
    };
    node.entries()?.map(property).collect()
}

fn source(node: &Node<'_>) -> Result<String, Invalid> {
    let text = owned(node)?;
    let address = parse_address(text.as_bytes());
    address.map(|_| text).ok_or_else(|| node.expected("an address, e.g. 10.1.2.3 or 10.1.2.3:4000"))
}

fn digest(node: &Node<'_>) -> Result<String, Invalid> {
    let text = owned(node)?;
    let is_digest = is_sha256_hex(&text);
    is_digest.then_some(text).ok_or_else(|| node.expected("a SHA-256 in 64 hexadecimal digits"))
}

/// A time in nanoseconds, the unit of hosts.
fn time(node: &Node<'_>) -> Result<u64, Invalid> {
    let text = match node.value() {
        Json::String(text) => text.clone(),
        _ => node.integer()?.to_string(),
    };
    time::parse_ns(&text).map_err(|expected| node.unusable(expected))
}

fn status(node: &Node<'_>) -> Result<u16, Invalid> {
    let status = u16::try_from(node.integer()?).ok();
    let status = status.filter(|status| (100..=599).contains(status));
    status.ok_or_else(|| node.expected("an HTTP status"))
}
