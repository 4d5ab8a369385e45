//! The URLs of gates and of Envoy's admin interface.

use std::net::IpAddr;

use ureq::http::Uri;
use ureq::http::uri::{Authority, Scheme};

use vkey::config::DEFAULT_USAGE_PATH;
use vkey::ledger::ACCOUNTS_PATH;

const EXPECTED: &str = "expected an http or https URL, e.g. https://gw.example/.vkey/usage";

/// The expected form of a ledger's URL.
const EXPECTED_LEDGER: &str =
    "expected an http or https URL of `vkey serve`, e.g. https://ledger.example:9911";

/// The expected form of an admin interface's URL.
const EXPECTED_ADMIN: &str = "expected an http or https URL, e.g. http://127.0.0.1:9901";

/// A URL without its query.
#[derive(Clone)]
pub(super) struct Url {
    scheme: Scheme,
    authority: Authority,
    path: String,
}

impl Url {
    /// Parses an argument. Rejects everything but scheme, authority and path: it would be dropped, or be a
    /// misplaced secret.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (url, query) = Self::split(text, EXPECTED)?;
        if query.is_some() {
            return Err("expected no query in the URL; use --jti or --tenant");
        }
        let path = Some(url.path).filter(|path| path != "/");
        Ok(Self { path: path.unwrap_or_else(|| DEFAULT_USAGE_PATH.to_owned()), ..url })
    }

    /// Parses the URL of a ledger, which has no path of its own, or that of its accounts.
    pub(super) fn parse_ledger(text: &str) -> Result<Self, &'static str> {
        let (url, query) = Self::split(text, EXPECTED_LEDGER)?;
        if query.is_some() {
            return Err("expected no query in the URL; use --tenant and --jti");
        }
        match url.path.as_str() {
            "/" | ACCOUNTS_PATH => Ok(Self { path: ACCOUNTS_PATH.to_owned(), ..url }),
            _ => Err(EXPECTED_LEDGER),
        }
    }

    /// Parses the URL of an admin interface or one of its endpoints: the URL, and its query.
    pub(super) fn parse_admin(text: &str) -> Result<(Self, Option<String>), &'static str> {
        Self::split(text, EXPECTED_ADMIN)
    }

    fn split(text: &str, expected: &'static str) -> Result<(Self, Option<String>), &'static str> {
        if text.contains('#') {
            return Err("expected no fragment in the URL; remove the part from # on");
        }
        let parts = text.parse::<Uri>().map_err(|_| expected)?.into_parts();
        let scheme = parts.scheme.filter(is_http).ok_or(expected)?;
        let authority = parts.authority.ok_or(expected)?;
        if authority.as_str().contains('@') {
            return Err(
                "expected no user and no password in the URL; remove the part before the @",
            );
        }
        if !has_host_and_port(&authority) {
            return Err(expected);
        }
        let target = parts.path_and_query.ok_or(expected)?;
        let url = Self { scheme, authority, path: target.path().to_owned() };
        Ok((url, target.query().map(str::to_owned)))
    }

    /// The path, without a trailing slash.
    pub(super) fn path(&self) -> &str {
        self.path.trim_end_matches('/')
    }

    /// The whole URL with another path and query.
    pub(super) fn with_target(&self, target: &str) -> String {
        format!("{}://{}{target}", self.scheme, self.authority)
    }

    /// Whether it is https.
    pub(super) fn is_encrypted(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Whether the host is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        let host = self.authority.host();
        let address = host.trim_start_matches('[').trim_end_matches(']');
        let is_loopback = |address: IpAddr| address.is_loopback();
        host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_loopback)
    }

    /// The whole URL with a query, whose values must need no escaping.
    pub(super) fn with_query(&self, query: &[(&str, &str)]) -> String {
        let Self { scheme, authority, path } = self;
        let mut url = format!("{scheme}://{authority}{path}");
        for (index, (name, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.extend([name, "=", value]);
        }
        url
    }
}

fn is_http(scheme: &Scheme) -> bool {
    *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS
}

/// Whether there is a host, followed by nothing or a port. An invalid port would silently become the scheme's
/// default.
fn has_host_and_port(authority: &Authority) -> bool {
    let host = authority.host();
    !host.is_empty() && (authority.as_str() == host || authority.port_u16().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> String {
        Url::parse(text).map_or_else(str::to_owned, |url| url.with_query(&[]))
    }

    #[test]
    fn a_url_without_a_path_has_the_default_one() {
        for text in ["https://gw.example", "https://gw.example/", "HTTPS://gw.example"] {
            assert_eq!(url(text), "https://gw.example/.vkey/usage", "{text}");
        }
        assert_eq!(url("http://[::1]:8080/mine"), "http://[::1]:8080/mine");
        let asked = Url::parse("https://gw.example/a")
            .unwrap()
            .with_query(&[("jti", "k_1"), ("tenant", "t")]);
        assert_eq!(asked, "https://gw.example/a?jti=k_1&tenant=t");
    }

    #[test]
    fn a_ledger_has_one_path() {
        let url = |text: &str| {
            Url::parse_ledger(text).map_or_else(str::to_owned, |url| url.with_query(&[]))
        };
        for text in
            ["https://l.example", "https://l.example/", "https://l.example/v1/ledger/accounts"]
        {
            assert_eq!(url(text), "https://l.example/v1/ledger/accounts", "{text}");
        }
        assert_eq!(url("https://l.example/v1/ledger/leases"), EXPECTED_LEDGER);
        assert_eq!(url("redis://l.example"), EXPECTED_LEDGER);
        assert!(url("https://l.example/?tenant=a").starts_with("expected no query"));
    }

    #[test]
    fn anything_but_a_plain_url_is_rejected() {
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
