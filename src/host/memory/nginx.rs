//! The behaviour of nginx with WasmX for the in-memory host, including its pitfalls, so that tests find a
//! module that does not avoid them (`docs/hosts.md`).

use crate::headers::{Headers, percent_decoded};

use super::HeaderList;

/// The authority that nginx provides for every request: the name of the server, and its port.
const SERVER: &[u8] = b"server.invalid:8080";

/// The most pairs in a map of nginx.
const MAX_PAIRS: usize = 100;

/// The length of a log line after the prefix of nginx, in bytes. The rest is cut.
const LINE_BYTES: usize = 1900;

/// The property path of the only variable that the configuration defines.
pub(super) const SEAL_VARIABLE: &str = "ngx\0vkey_decision";

/// The serialised map of headers, and its length as nginx reports it. `is_hidden`: whether the header at an
/// index was removed.
pub(super) fn pairs(headers: &HeaderList, is_hidden: impl Fn(usize) -> bool) -> (Vec<u8>, usize) {
    let mut shown: HeaderList = [b":path", b":method".as_slice(), b":scheme", b":authority"]
        .into_iter()
        .filter_map(|name| Some((name.to_vec(), pseudo_header(headers, name)?)))
        .collect();
    let pseudo = shown.len();
    let authorities = headers.iter().filter(|(name, _)| name == b":authority");
    shown.extend(authorities.map(|(_, authority)| (b"Host".to_vec(), authority.clone())));
    let fields = headers
        .iter()
        .enumerate()
        .filter(|(at, (name, _))| !name.starts_with(b":") && !is_hidden(*at));
    shown.extend(fields.map(|(_, field)| field.clone()));
    let Some(cut) = shown.get(..MAX_PAIRS).filter(|_| shown.len() > MAX_PAIRS) else {
        let pairs = Headers::to_pairs(&shown);
        let size = pairs.len();
        return (pairs, size);
    };
    // nginx computes the length from other pairs than it writes, so the two may differ.
    let bytes = |(name, value): &(Vec<u8>, Vec<u8>)| name.len() + value.len() + 10;
    let fields = shown.iter().skip(pseudo).take(MAX_PAIRS);
    let more = MAX_PAIRS - fields.len() + 1;
    let measured = fields.chain(shown.iter().take(pseudo.min(more)));
    let size = 4 + measured.map(bytes).sum::<usize>();
    (Headers::to_pairs(cut), size)
}

/// The value of a pseudo header that nginx provides.
pub(super) fn pseudo_header(headers: &HeaderList, name: &[u8]) -> Option<Vec<u8>> {
    match name {
        b":authority" => Some(SERVER.to_vec()),
        b":scheme" => Some(b"http".to_vec()),
        b":path" => sent(headers, name).map(decoded),
        _ => sent(headers, name).map(<[u8]>::to_vec),
    }
}

/// A property of a request with these headers. Without a request there are no properties, not even the
/// version of nginx.
pub(super) fn property(headers: &HeaderList, path: &str) -> Option<Vec<u8>> {
    match path {
        _ if headers.is_empty() => None,
        "request\0path" => sent(headers, b":path").map(<[u8]>::to_vec),
        "request\0method" => sent(headers, b":method").map(<[u8]>::to_vec),
        "ngx\0http_host" => sent(headers, b":authority").map(<[u8]>::to_vec),
        "ngx\0host" => sent(headers, b":authority").map(host),
        "ngx\0nginx_version" => Some(b"1.27.4".to_vec()),
        _ => None,
    }
}

/// Whether reading a property logs no error: that is so for all variables, and for some names of Envoy.
pub(super) fn knows(path: &str) -> bool {
    path.starts_with("ngx\0") || matches!(path, "request\0path" | "request\0method")
}

/// What nginx logs for other properties.
pub(super) fn not_found(path: &str) -> String {
    format!("property \"{}\" not found", path.replace('\0', "."))
}

/// An address without its port: nginx provides the client address in this form.
pub(super) fn address(endpoint: &[u8]) -> Vec<u8> {
    let port = |byte: &u8| *byte == b':';
    let plain = match endpoint.iter().filter(|byte| port(byte)).count() {
        1 => endpoint.split(port).next().unwrap_or(endpoint),
        _ => endpoint,
    };
    let bracketed =
        plain.strip_prefix(b"[").and_then(|rest| rest.split(|byte| *byte == b']').next());
    bracketed.unwrap_or(plain).to_vec()
}

/// A line, cut to the length that nginx logs.
pub(super) fn log_line(text: &str) -> &str {
    let end = (0..=LINE_BYTES.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

fn sent<'a>(headers: &'a HeaderList, name: &[u8]) -> Option<&'a [u8]> {
    headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_slice())
}

fn decoded(target: &[u8]) -> Vec<u8> {
    let mut parts = target.splitn(2, |byte| *byte == b'?');
    let mut path = percent_decoded(parts.next().unwrap_or_default()).into_owned();
    if let Some(query) = parts.next() {
        path.push(b'?');
        path.extend_from_slice(query);
    }
    path
}

/// The host in lower case, without the port and the final dot.
fn host(authority: &[u8]) -> Vec<u8> {
    let name = match authority.first() {
        Some(b'[') => authority.split_inclusive(|byte| *byte == b']').next(),
        _ => authority.split(|byte| *byte == b':').next(),
    };
    let name = name.unwrap_or_default();
    name.strip_suffix(b".").unwrap_or(name).to_ascii_lowercase()
}
