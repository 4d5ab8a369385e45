//! Where a gate answers, as `--url` says it.

use std::net::IpAddr;

use ureq::http::Uri;
use ureq::http::uri::{Authority, Scheme};

use crate::config::DEFAULT_USAGE_PATH;

const EXPECTED: &str = "expected an http or https URL, as https://gw.example/.vkey/usage";

/// The URL of a usage answer.
#[derive(Clone)]
pub(super) struct Url {
    scheme: Scheme,
    authority: Authority,
    path: String,
}

impl Url {
    /// Reads an argument. Whatever it says besides scheme, authority and path is refused: it would
    /// be dropped, or be a secret where none belongs.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.contains('#') {
            return Err("expected no fragment in the URL; leave out what begins with #");
        }
        let parts = text.parse::<Uri>().map_err(|_| EXPECTED)?.into_parts();
        let scheme = parts.scheme.filter(is_http).ok_or(EXPECTED)?;
        let authority = parts.authority.ok_or(EXPECTED)?;
        if authority.as_str().contains('@') {
            return Err(
                "expected no user and no password in the URL; it is the key that says who asks",
            );
        }
        if !has_host_and_port(&authority) {
            return Err(EXPECTED);
        }
        let target = parts.path_and_query.ok_or(EXPECTED)?;
        if target.query().is_some() {
            return Err("expected no query in the URL; use --jti or --tenant");
        }
        let path = Some(target.path()).filter(|path| *path != "/").unwrap_or(DEFAULT_USAGE_PATH);
        Ok(Self { scheme, authority, path: path.to_owned() })
    }

    /// Whether it is https.
    pub(super) fn is_encrypted(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Whether what is sent there stays on this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = |address: IpAddr| address.is_loopback();
        host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_loopback)
    }

    /// The URL in full. The query's value must not need an escape.
    pub(super) fn with_query(&self, query: Option<(&str, &str)>) -> String {
        let Self { scheme, authority, path } = self;
        let query = query.map(|(name, value)| format!("?{name}={value}")).unwrap_or_default();
        format!("{scheme}://{authority}{path}{query}")
    }
}

fn is_http(scheme: &Scheme) -> bool {
    *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS
}

/// Whether there is a host, and nothing behind it but a port. A port that is none would silently
/// become the scheme's own.
fn has_host_and_port(authority: &Authority) -> bool {
    let host = authority.host();
    !host.is_empty() && (authority.as_str() == host || authority.port_u16().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> String {
        Url::parse(text).map_or_else(str::to_owned, |url| url.with_query(None))
    }

    #[test]
    fn a_url_without_a_path_means_the_usual_one() {
        for text in ["https://gw.example", "https://gw.example/", "HTTPS://gw.example"] {
            assert_eq!(url(text), "https://gw.example/.vkey/usage", "{text}");
        }
        assert_eq!(url("http://[::1]:8080/mine"), "http://[::1]:8080/mine");
        let asked = Url::parse("https://gw.example/a").unwrap().with_query(Some(("jti", "k_1")));
        assert_eq!(asked, "https://gw.example/a?jti=k_1");
    }

    #[test]
    fn what_is_no_plain_url_is_refused() {
        let texts = [
            "", "/", "/usage", "gw.example", "gw.example:443", "gw.example/usage", "https://",
            "https:///usage", "https://:443/", "https://a:b/", "https://a:/", "https://a:65536/",
            "ftp://a/", "file:///etc/passwd", "https://a b/", "https://a/b c", "https://a/\n",
            "https://[::1/", "//a/b",
        ];
        for text in texts {
            assert_eq!(url(text), EXPECTED, "{text}");
        }
        for text in ["https://u@a/", "https://u:p@a/", "https://@a/", "https://a@b@c/"] {
            assert!(url(text).starts_with("expected no user"), "{text}");
        }
        for text in ["https://a/?", "https://a/b?c", "https://a?jti=b"] {
            assert!(url(text).starts_with("expected no query"), "{text}");
        }
        for text in ["https://a/#", "https://a#b", "https://u@a/b?c#d"] {
            assert!(url(text).starts_with("expected no fragment"), "{text}");
        }
    }

    #[test]
    fn only_addresses_of_this_machine_are_loopback() {
        for host in ["127.0.0.1", "127.9.9.9:80", "[::1]", "[::1]:80", "localhost", "LocalHost:80"]
        {
            assert!(Url::parse(&format!("http://{host}/")).unwrap().is_loopback(), "{host}");
        }
        let others = [
            "gw.example", "10.0.0.1", "0.0.0.0", "127.1", "127.0.0.1.example", "localhost.example",
            "[::]", "[::2]", "[2001:db8::1]:80",
        ];
        for host in others {
            assert!(!Url::parse(&format!("http://{host}/")).unwrap().is_loopback(), "{host}");
        }
    }
}
