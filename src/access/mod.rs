//! Access: what one request asks for, in canonical form.

pub mod cidr;
mod mcp;
mod models;
pub mod restriction;

pub use mcp::{Mcp, McpCall};
pub use models::Models;

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use crate::body::mcp::ObjectKind;

/// The longest path that is checked, in bytes. Together with the bound on tokens it bounds the work
/// of all path globs of a key. A longer path is ambiguous.
pub const MAX_PATH_BYTES: usize = 4096;

/// What one request asks for.
#[derive(Clone, Debug, Default)]
pub struct Access<'a> {
    /// The time of the request, Unix seconds.
    pub now_secs: u64,
    /// The HTTP method; its case matters (RFC 9110, section 9.1).
    pub method: &'a str,
    /// The authority, if the client sent it in canonical form; otherwise `None`, and no host rule
    /// holds.
    pub host: Option<&'a str>,
    /// The path.
    pub path: CanonicalPath<'a>,
    /// The address of the client; `None` when unknown, and then no source rule holds.
    pub source: Option<IpAddr>,
    /// SHA-256 of the client's certificate, lower-case hexadecimal digits.
    pub client_cert: Option<&'a str>,
    /// The models that the request can make run.
    pub models: Models<'a>,
    /// The MCP call.
    pub mcp: Mcp<'a>,
}

impl Access<'_> {
    /// Whether `is_allowed` the call that uses a listed object of the server that this access is for, in place of its own
    /// call.
    pub fn shows(
        &self,
        kind: ObjectKind,
        name: &str,
        is_allowed: impl FnOnce(&Access<'_>) -> bool,
    ) -> bool {
        let server = match self.mcp {
            Mcp::Call(call) => call.server,
            Mcp::None | Mcp::Unread => None,
        };
        let names = [name.into()];
        let mcp = Mcp::Call(McpCall::using(kind, &names, server));
        is_allowed(&Access { mcp, ..self.clone() })
    }
}

/// A path in the form that path rules need: unreserved characters not escaped, no dot segments, no
/// empty segments before the last (RFC 3986, sections 6.2.2 and 5.2.4), without the query. Only the
/// case of escapes may differ from what the client sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath<'a>(Cow<'a, str>);

/// Two servers could read the path differently, so no rule about it can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AmbiguousPath(());

// === impl CanonicalPath ===

impl<'a> CanonicalPath<'a> {
    /// Reads the path of a request target (`:path`, with its query).
    ///
    /// A proxy that does not normalise paths forwards them unchanged, so a path that needs a change
    /// before it can be checked is refused instead.
    ///
    /// # Errors
    ///
    /// [`AmbiguousPath`] when the path does not start with `/`, is longer than [`MAX_PATH_BYTES`], has
    /// dot segments or empty segments (one `/` at the end is none), escapes of unreserved characters,
    /// `%2f`, `%5c`, `%00`, `\`, `#`, an invalid escape, anything outside visible ASCII, or a dot segment
    /// with parameters (`..;a`, which some servers resolve and some do not).
    pub fn parse(target: &'a [u8]) -> Result<Self, AmbiguousPath> {
        Self::read(target, false)
    }

    /// Reads the path of a request target for services that treat an escaped slash as a character
    /// of its segment, e.g. those with ids that contain slashes. `%2F` is then an ordinary
    /// character: a `*` matches it.
    ///
    /// # Errors
    ///
    /// Those of [`CanonicalPath::parse`], except for `%2f`; and a path that has dot segments or
    /// empty segments if `%2f` is read as a separator, because such paths are used for attacks.
    pub fn parse_keeping_slashes(target: &'a [u8]) -> Result<Self, AmbiguousPath> {
        let path = Self::read(target, true)?;
        let separated = path.0.replace("%2F", "/");
        if separated.len() != path.0.len() {
            CanonicalPath::read(separated.as_bytes(), false)?;
        }
        Ok(path)
    }

    fn read(target: &'a [u8], keeps_slashes: bool) -> Result<Self, AmbiguousPath> {
        let path = without_query(target);
        if path.len() > MAX_PATH_BYTES || target.contains(&b'#') || path.first() != Some(&b'/') {
            return Err(AmbiguousPath(()));
        }
        let path = std::str::from_utf8(path).map_err(|_| AmbiguousPath(()))?;
        if is_plain(path.as_bytes()) {
            return Ok(Self(Cow::Borrowed(path)));
        }
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
            return Err(AmbiguousPath(()));
        }
        let path = with_upper_escapes(path, keeps_slashes)?;
        let ambiguous =
            |segment: &str| is_dot_segment(segment) || is_parametrised_dot_segment(segment);
        if has_empty_segment(path.as_bytes()) || path.split('/').any(ambiguous) {
            return Err(AmbiguousPath(()));
        }
        Ok(Self(path))
    }

    /// The path, which starts with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path without a final `/`, which globs are compared with: most servers treat both
    /// spellings alike.
    pub fn resource(&self) -> &str {
        without_final_slash(&self.0)
    }
}

impl Default for CanonicalPath<'_> {
    fn default() -> Self {
        Self(Cow::Borrowed("/"))
    }
}

/// A path or a path glob without its final `/`.
pub fn without_final_slash(path: &str) -> &str {
    path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path)
}

/// The part of a request target before its query.
pub fn without_query(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// The undecoded names in the query of a request target.
pub fn query_keys(target: &[u8]) -> impl Iterator<Item = &[u8]> {
    let query = target.get(without_query(target).len() + 1..).unwrap_or_default();
    let name = |pair: &'_ [u8]| pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
    query
        .split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(move |pair| pair.get(..name(pair)).unwrap_or_default())
}

/// Brings an authority to canonical form: lower case, without port and trailing dot. `None` for an
/// invalid host name or address, and for user information, empty labels and invalid ports.
pub fn canonical_host(authority: &[u8]) -> Option<Cow<'_, str>> {
    let authority = std::str::from_utf8(authority).ok()?;
    if is_canonical_name(authority.as_bytes()) {
        return Some(Cow::Borrowed(authority));
    }
    let host = without_port(authority)?;
    let host = host.strip_suffix('.').unwrap_or(host);
    if !is_address_literal(host) && !is_name(host) {
        return None;
    }
    let lower = host.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if lower { Cow::Owned(host.to_ascii_lowercase()) } else { Cow::Borrowed(host) })
}

/// Letters, digits and `-._`, without an empty label.
fn is_name(host: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    !host.is_empty()
        && !host.ends_with('.')
        && host.bytes().all(allowed)
        && !has_empty_label(host.as_bytes())
}

/// An IPv6 address in brackets (RFC 3986, section 3.2.2).
fn is_address_literal(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// The host of an authority that is already in canonical form. Proxies match other spellings to
/// virtual hosts in different ways, so host rules hold for no other spelling.
pub fn exact_host(authority: &[u8]) -> Option<&str> {
    let host = canonical_host(authority)?;
    let authority = std::str::from_utf8(authority).ok()?;
    (*host == *authority).then_some(authority)
}

/// Whether a name is already canonical, as nearly all are.
fn is_canonical_name(host: &[u8]) -> bool {
    let plain = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    host.last().is_some_and(|last| *last != b'.')
        && host.iter().all(plain)
        && !has_empty_label(host)
}

/// Whether a dot stands first, or after another one.
fn has_empty_label(host: &[u8]) -> bool {
    host.first() == Some(&b'.') || host.array_windows().any(|pair| *pair == *b"..")
}

/// Removes the port; `None` if it is invalid.
fn without_port(authority: &str) -> Option<&str> {
    let end_of_literal = authority.starts_with('[').then(|| authority.find(']')).flatten();
    let (host, rest) = match end_of_literal {
        Some(end) => authority.split_at_checked(end + 1)?,
        None => authority.split_at_checked(authority.find(':').unwrap_or(authority.len()))?,
    };
    (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port)).then_some(host)
}

/// 1 to 65535, in at most five digits.
fn is_port(text: &str) -> bool {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Whether nothing about a path has to be looked at more closely, as about nearly every one: it has only unreserved
/// characters, and none of its segments is empty or begins with a dot.
fn is_plain(path: &[u8]) -> bool {
    let mut before = b' ';
    path.iter().all(|byte| {
        let begins = std::mem::replace(&mut before, *byte) == b'/';
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => true,
            b'.' | b'/' => !begins,
            _ => false,
        }
    })
}

/// Whether a segment before the last is empty. The path starts with `/`.
fn has_empty_segment(path: &[u8]) -> bool {
    path.windows(2).any(|pair| pair == b"//")
}

/// Writes escapes with upper-case digits. Those of unreserved characters (RFC 3986, section 2.3) are
/// resolved by some servers and proxies and by others not.
fn with_upper_escapes(path: &str, keeps_slashes: bool) -> Result<Cow<'_, str>, AmbiguousPath> {
    let mut pieces = path.split('%');
    let first = pieces.next().unwrap_or_default();
    if first.len() == path.len() {
        return Ok(Cow::Borrowed(path));
    }
    let mut upper = String::with_capacity(path.len());
    upper.push_str(first);
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2).ok_or(AmbiguousPath(()))?;
        match escaped(digits).ok_or(AmbiguousPath(()))? {
            b'/' if keeps_slashes => upper.push('%'),
            b'/' | b'\\' | 0 | b'-' | b'.' | b'_' | b'~' => return Err(AmbiguousPath(())),
            byte if byte.is_ascii_alphanumeric() => return Err(AmbiguousPath(())),
            _ => upper.push('%'),
        }
        upper.push_str(&digits.to_ascii_uppercase());
        upper.push_str(rest);
    }
    Ok(Cow::Owned(upper))
}

fn escaped(digits: &str) -> Option<u8> {
    let both = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    both.then(|| u8::from_str_radix(digits, 16).ok()).flatten()
}

fn is_dot_segment(segment: &str) -> bool {
    segment == "." || segment == ".."
}

fn is_parametrised_dot_segment(segment: &str) -> bool {
    let end = segment.find(';').into_iter().chain(segment.find("%3B")).min();
    end.and_then(|end| segment.get(..end)).is_some_and(is_dot_segment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn path(target: &str, canonical: &str) {
        assert_eq!(CanonicalPath::parse(target.as_bytes()).unwrap().as_str(), canonical);
    }

    #[test]
    fn paths_are_judged_as_they_stand() {
        path("/", "/");
        path("/v1/models", "/v1/models");
        path("/v1/models?a=/../b", "/v1/models");
        path("/v1/models/", "/v1/models/");
        path("/v1/~models", "/v1/~models");
        path("/v1/a%20b%c3%a9", "/v1/a%20b%C3%A9");
        path("/v1/%252f", "/v1/%252f");
        path("/v1/models;v=2", "/v1/models;v=2");
        path("/v1/...", "/v1/...");
    }

    #[test]
    fn a_slash_at_the_end_does_not_count() {
        let resource =
            |target: &str| CanonicalPath::parse(target.as_bytes()).unwrap().resource().to_owned();
        assert_eq!(resource("/v1/models/"), "/v1/models");
        assert_eq!(resource("/v1/models"), "/v1/models");
        assert_eq!(resource("/"), "/");
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
    fn an_escaped_slash_is_kept_where_nobody_can_be_misled() {
        let keep = |target: &str| {
            let path = CanonicalPath::parse_keeping_slashes(target.as_bytes());
            path.map(|path| path.as_str().to_owned()).ok()
        };
        for (target, path) in [
            ("/v1/models", "/v1/models"),
            ("/models/meta%2fllama?a=%2f..", "/models/meta%2Fllama"),
            ("/model/arn:aws:bedrock%2Fa%2Fb/invoke", "/model/arn:aws:bedrock%2Fa%2Fb/invoke"),
            ("/models/a%2F", "/models/a%2F"),
            ("/v1/%252f", "/v1/%252f"),
        ] {
            assert_eq!(keep(target).as_deref(), Some(path), "{target}");
        }
        for target in [
            "%2fa", "/%2fa", "/a/%2fb", "/a%2f/b", "/a%2f%2fb", "/a%2f..%2fb", "/a/..%2fb",
            "/a%2f..", "/a%2f.%2fb", "/a%2f..;x/b", "/a%5cb", "/a%00b", "/a%2f%2e%2e", "/a%2",
            "/a/../b",
        ] {
            assert_eq!(keep(target), None, "{target}");
        }
    }

    #[test]
    fn paths_that_are_not_canonical_as_they_stand_are_not_judged() {
        for target in [
            "//v1", "/v1//models", "/v1//", "//", "/v1/./models", "/v1/chat/../models", "/..",
            "/.", "/v1/.", "/v1/%63hat", "/v1/%7emodels", "/%2e%2e/v1", "/v1/a%2Db", "/v1/a%5Fb",
        ] {
            assert!(CanonicalPath::parse(target.as_bytes()).is_err(), "{target}");
        }
    }

    #[test]
    fn hosts_have_one_form() {
        let host = |authority: &str| canonical_host(authority.as_bytes()).map(Cow::into_owned);
        assert_eq!(host("API.OpenAI.com.:443").as_deref(), Some("api.openai.com"));
        assert_eq!(host("[::1]:8080").as_deref(), Some("[::1]"));
        assert_eq!(host("10.0.0.1").as_deref(), Some("10.0.0.1"));
        for wrong in [
            "", ".", ":443", "a@b", "a:b", "a:443:443", "[::1]x", "a b", "é", "a/b", "a%41",
            "[::1", "[", "a]", "a..", "a:", "a.:", "[::1]:", "a:0", "a:65536", "a:99999",
            "a:000080", "a:+80", "[]", "[[::1]", "[::1]]", "[a.example]", "[1.2.3.4]", "[::1].",
            ".a", "a..b", "A..b", "a..b:443",
        ] {
            assert_eq!(host(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_host_is_exact_only_as_it_stands() {
        for exact in ["api.example", "10.0.0.1", "[::1]", "a_b.example"] {
            assert_eq!(exact_host(exact.as_bytes()), Some(exact));
        }
        for other in ["API.example", "api.example.", "api.example:80", "[::1]:80", "[::A]", ""] {
            assert_eq!(exact_host(other.as_bytes()), None, "{other}");
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
