//! Access: the question one request puts to the engine, in canonical form.

use std::borrow::Cow;
use std::net::IpAddr;

/// The longest path that is judged, in bytes. With the bound on tokens it bounds the work of all
/// path globs of a key together; a longer path is ambiguous, since nobody reads it whole.
pub const MAX_PATH_BYTES: usize = 4096;

/// What one request asks for.
#[derive(Clone, Debug, Default)]
pub struct Access<'a> {
    /// The time of the request, Unix seconds.
    pub now_secs: u64,
    /// The HTTP method; its case matters (RFC 9110, section 9.1).
    pub method: &'a str,
    /// The authority in canonical form; `None` when it has none, and then no host rule holds.
    pub host: Option<Cow<'a, str>>,
    /// The path.
    pub path: CanonicalPath<'a>,
    /// The address of the client; `None` when unknown, and then no source rule holds.
    pub source: Option<IpAddr>,
    /// SHA-256 of the client's certificate, lower-case hexadecimal digits.
    pub client_cert: Option<&'a str>,
    /// The model the request names.
    pub model: Option<&'a str>,
    /// The JSON-RPC call of an MCP request.
    pub mcp: Option<McpCall<'a>>,
}

/// A JSON-RPC call of the Model Context Protocol.
#[derive(Clone, Copy, Debug, Default)]
pub struct McpCall<'a> {
    /// The JSON-RPC method, as `tools/call`.
    pub method: &'a str,
    /// The MCP server addressed, where several are behind one path.
    pub server: Option<&'a str>,
    /// What the call names: the tool, the resource's URI, the prompt.
    pub name: Option<&'a str>,
}

/// A path in the one form that path rules work on: unreserved characters decoded, dot segments and
/// empty segments removed (RFC 3986, sections 6.2.2 and 5.2.4), the query cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath<'a>(Cow<'a, str>);

/// Two servers could read the path differently, so no rule about it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousPath(());

// === impl CanonicalPath ===

impl<'a> CanonicalPath<'a> {
    /// Brings a request target (`:path`, with its query) to canonical form.
    ///
    /// # Errors
    ///
    /// [`AmbiguousPath`] when the path does not start with `/`, is longer than [`MAX_PATH_BYTES`],
    /// has `%2f`, `%5c`, `%00`, `\`, `#`, an invalid escape, anything outside visible ASCII, or a dot
    /// segment with parameters (`..;a`, which some servers resolve and some do not).
    pub fn parse(target: &'a [u8]) -> Result<Self, AmbiguousPath> {
        let path = without_query(target);
        if path.len() > MAX_PATH_BYTES || target.contains(&b'#') || path.first() != Some(&b'/') {
            return Err(AmbiguousPath(()));
        }
        if !path.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'\\') {
            return Err(AmbiguousPath(()));
        }
        let path = std::str::from_utf8(path).map_err(|_| AmbiguousPath(()))?;
        if is_canonical(path.as_bytes()) {
            return Ok(Self(Cow::Borrowed(path)));
        }
        let path = decode_unreserved(path)?;
        if path.split('/').skip(1).any(is_parametrised_dot_segment) {
            return Err(AmbiguousPath(()));
        }
        without_dot_and_empty_segments(path).map(Self)
    }

    /// The path, which starts with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for CanonicalPath<'_> {
    fn default() -> Self {
        Self(Cow::Borrowed("/"))
    }
}

/// The part of a request target before its query.
pub fn without_query(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// The names in the query of a request target, as they are spelled there.
pub fn query_keys(target: &[u8]) -> impl Iterator<Item = &[u8]> {
    let query = target.get(without_query(target).len() + 1..).unwrap_or_default();
    let name = |pair: &'_ [u8]| pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    query
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(move |pair| pair.get(..name(pair)).unwrap_or_default())
}

/// Brings an authority to canonical form: lower-cased, without port and trailing dot. `None` for
/// what is no host name or address, user information included.
pub fn canonical_host(authority: &[u8]) -> Option<Cow<'_, str>> {
    let authority = std::str::from_utf8(authority).ok()?;
    if is_canonical_name(authority.as_bytes()) {
        return Some(Cow::Borrowed(authority));
    }
    let host = without_port(authority)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    if host.ends_with('.') || host.starts_with('[') != host.ends_with(']') {
        return None;
    }
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let literal = |byte: u8| byte.is_ascii_hexdigit() || matches!(byte, b'.' | b':' | b'[' | b']');
    let allowed =
        if host.starts_with('[') { host.bytes().all(literal) } else { host.bytes().all(name) };
    if host.is_empty() || !allowed {
        return None;
    }
    let lower = host.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if lower { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) })
}

/// Whether nothing about a name has to be changed, as about nearly every one.
fn is_canonical_name(host: &[u8]) -> bool {
    let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    host.last().is_some_and(|last| *last != b'.') && host.iter().all(plain)
}

/// `None` when what follows the host is not a port.
fn without_port(authority: &str) -> Option<&str> {
    let end_of_literal = authority.starts_with('[').then(|| authority.find(']')).flatten();
    let (host, rest) = match end_of_literal {
        Some(end) => authority.split_at_checked(end + 1)?,
        None => authority.split_at_checked(authority.find(':').unwrap_or(authority.len()))?,
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    (rest.is_empty() || rest.starts_with(':')).then_some(host).filter(|_| is_digits(port))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether nothing about a path has to be changed or refused, as about nearly every one.
fn is_canonical(path: &[u8]) -> bool {
    let clean = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..");
    !path.iter().any(|byte| matches!(byte, b'%' | b';'))
        && (path == b"/" || path.split(|byte| *byte == b'/').skip(1).all(clean))
}

/// Decodes escapes of unreserved characters (RFC 3986, section 2.3) and writes the others with
/// upper-case digits.
fn decode_unreserved(path: &str) -> Result<Cow<'_, str>, AmbiguousPath> {
    let mut pieces = path.split('%');
    let first = pieces.next().unwrap_or_default();
    if first.len() == path.len() {
        return Ok(Cow::Borrowed(path));
    }
    let mut decoded = String::with_capacity(path.len());
    decoded.push_str(first);
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).ok_or(AmbiguousPath(()))?;
        match escaped(digits).ok_or(AmbiguousPath(()))? {
            b'/' | b'\\' | 0 => return Err(AmbiguousPath(())),
            byte if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                decoded.push(char::from(byte));
            }
            _ => {
                decoded.push('%');
                decoded.push_str(&digits.to_ascii_uppercase());
            }
        }
        decoded.push_str(rest);
    }
    Ok(Cow::Owned(decoded))
}

fn escaped(digits: &str) -> Option<u8> {
    let both = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    both.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

fn is_parametrised_dot_segment(segment: &str) -> bool {
    let end = segment.find(';').into_iter().chain(segment.find("%3B")).min();
    end.and_then(|end| segment.get(..end)).is_some_and(|name| name == "." || name == "..")
}

/// A `..` removes the segment before it. Where that is an empty one, servers that drop empty segments
/// first end somewhere else than those that follow RFC 3986, so the path is ambiguous.
fn without_dot_and_empty_segments(path: Cow<'_, str>) -> Result<Cow<'_, str>, AmbiguousPath> {
    let clean = |segment: &str| !matches!(segment, "" | "." | "..");
    if path == "/" || path.split('/').skip(1).all(clean) {
        return Ok(path);
    }
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/').skip(1) {
        match segment {
            "." => {}
            ".." if kept.pop() == Some("") => return Err(AmbiguousPath(())),
            ".." => {}
            _ => kept.push(segment),
        }
    }
    kept.retain(|segment| !segment.is_empty());
    Ok(Cow::Owned(format!("/{}", kept.join("/"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn path(target: &str, canonical: &str) {
        assert_eq!(CanonicalPath::parse(target.as_bytes()).unwrap().as_str(), canonical);
    }

    #[test]
    fn paths_have_one_form() {
        path("/", "/");
        path("/v1/models", "/v1/models");
        path("/v1/models?a=/../b", "/v1/models");
        path("//v1///models/", "/v1/models");
        path("/v1/./chat/../models", "/v1/models");
        path("/../../v1", "/v1");
        path("/v1/%63hat/%2e%2E/%7emodels", "/v1/~models");
        path("/v1/a%20b%c3%a9", "/v1/a%20b%C3%A9");
        path("/v1/%252f", "/v1/%252f");
        path("/v1/models;v=2", "/v1/models;v=2");
    }

    #[test]
    fn ambiguous_paths_are_not_guessed() {
        for target in [
            "", "*", "v1", "http://a/v1", "/a%2fb", "/a%2Fb", "/a%5cb", "/a%00b", "/a\\b", "/a#b",
            "/a?b#c", "/a%", "/a%4", "/a%zz", "/a%+1", "/a b", "/a\tb", "/é", "/a/..;x/b", "/.;/a",
            "/%2e%2e;a/b", "/v1/..%3bx/a", "/admin//../v1", "//../v1", "/a//./../b",
            "/a/b//%2e%2e",
        ] {
            assert!(CanonicalPath::parse(target.as_bytes()).is_err(), "{target}");
        }
        assert!(CanonicalPath::parse(b"/\xff").is_err());
        assert!(CanonicalPath::parse("/a".repeat(2049).as_bytes()).is_err());
    }

    #[test]
    fn hosts_have_one_form() {
        let host = |authority: &str| canonical_host(authority.as_bytes()).map(Cow::into_owned);
        assert_eq!(host("API.OpenAI.com.:443").as_deref(), Some("api.openai.com"));
        assert_eq!(host("[::1]:8080").as_deref(), Some("[::1]"));
        assert_eq!(host("10.0.0.1").as_deref(), Some("10.0.0.1"));
        for wrong in [
            "", ".", ":443", "a@b", "a:b", "a:443:443", "[::1]x", "a b", "é", "a/b", "a%41",
            "[::1", "[", "a]", "a..",
        ] {
            assert_eq!(host(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn query_keys_leave_values_out() {
        let keys = |target: &'static str| -> Vec<&str> {
            query_keys(target.as_bytes()).map(|key| std::str::from_utf8(key).unwrap()).collect()
        };
        assert_eq!(keys("/a?b=secret&c&=d&&e=f=g"), ["b", "c", "", "e"]);
        assert_eq!(keys("/a?"), [""; 0]);
        assert_eq!(keys("/a"), [""; 0]);
    }
}
