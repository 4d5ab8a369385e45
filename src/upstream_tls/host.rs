//! The host of an upstream in canonical form, which policies use.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::access::canonical_host;
use crate::access::restriction::HostPattern;
use crate::json::{Invalid, Node};

/// RFC 1035, section 2.3.4, without the root.
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// The suffix that Envoy's router appends to the host of a mirrored request (`appendShadowHostSuffix`,
/// unless the route has `disable_shadow_host_suffix_append`).
const SHADOW_SUFFIX: &str = "-shadow";

/// The host of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamHost<'a> {
    /// An address. An IPv4-mapped IPv6 address is an IPv4 address (RFC 4291, section 2.5.5.2).
    Address(IpAddr),
    /// A name: lower-case ASCII, without a final dot.
    Name(Cow<'a, str>),
    /// A text that two parsers could read differently: user information, escapes, characters outside ASCII,
    /// numbers that some parsers read as an address, a second port. It could mean any host, so it counts as
    /// a known one, and no certificate is valid for it.
    Unreadable,
}

/// The hosts that a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamPattern {
    /// One address.
    Address(IpAddr),
    /// Every host.
    Any,
    /// Every name with one label between this prefix and suffix, which include their dots. Cloud providers
    /// put the region there.
    Label(String, String),
    /// One name.
    Name(String),
    /// Every name with one or more labels before this suffix, which includes its leading dot.
    Suffix(String),
}

// === impl UpstreamHost ===

impl<'a> UpstreamHost<'a> {
    /// Parses an authority (RFC 9110, section 7.2). The port, one final dot and the case are ignored.
    pub fn parse(authority: &'a [u8]) -> Self {
        let Some(host) = canonical_host(authority) else {
            return Self::Unreadable;
        };
        if let Some(literal) = host.strip_prefix('[') {
            let literal = literal.strip_suffix(']').and_then(|text| text.parse::<Ipv6Addr>().ok());
            return literal
                .map_or(Self::Unreadable, |v6| Self::Address(IpAddr::V6(v6).to_canonical()));
        }
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Self::Address(address.into());
        }
        if is_name(&host) { Self::Name(host) } else { Self::Unreadable }
    }

    /// Parses the authority of an attempt. Envoy appends `-shadow` to the host of a mirrored request. The
    /// suffix is ignored, because a mirrored request contains the same data and needs the same requirement.
    pub fn parse_attempt(authority: &'a [u8]) -> Self {
        let host = Self::parse(authority);
        match &host {
            Self::Name(name) => match name.strip_suffix(SHADOW_SUFFIX) {
                Some(mirrored) => UpstreamHost::parse(mirrored.as_bytes()).into_owned(),
                None => host,
            },
            Self::Address(_) | Self::Unreadable => host,
        }
    }

    /// The same host, independent of the text it was parsed from.
    pub fn into_owned(self) -> UpstreamHost<'static> {
        match self {
            Self::Address(address) => UpstreamHost::Address(address),
            Self::Name(name) => UpstreamHost::Name(Cow::Owned(name.into_owned())),
            Self::Unreadable => UpstreamHost::Unreadable,
        }
    }
}

impl fmt::Display for UpstreamHost<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Unreadable => f.write_str("unreadable"),
        }
    }
}

// === impl UpstreamPattern ===

impl UpstreamPattern {
    /// Reads a host name, `*.suffix`, `prefix.*.suffix`, or an address.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if it is none of these, or not in canonical form.
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        Self::parse(node.string()?).ok_or_else(|| {
            node.expected(
                "a host name in lower case, *.suffix, prefix.*.suffix, or an address, without port; \
                 international names in their ASCII form (xn--)",
            )
        })
    }

    /// Like [`UpstreamPattern::read`], but `*` matches every host.
    ///
    /// # Errors
    ///
    /// As [`UpstreamPattern::read`].
    pub fn read_any(node: &Node<'_>) -> Result<Self, Invalid> {
        if node.string()? == "*" { Ok(Self::Any) } else { Self::read(node) }
    }

    /// Parses a host name, `*.suffix`, `prefix.*.suffix`, or an address, in canonical form. Rejects names
    /// that end in `-shadow`, because [`UpstreamHost::parse_attempt`] removes this suffix, so they would
    /// never match.
    pub fn parse(text: &str) -> Option<Self> {
        if text.ends_with(SHADOW_SUFFIX) {
            return None;
        }
        let is_name = |text: &str| matches!(UpstreamHost::parse(text.as_bytes()), UpstreamHost::Name(name) if name == text);
        if let Some(suffix) = text.strip_prefix("*.") {
            return is_name(suffix).then(|| Self::Suffix(format!(".{suffix}")));
        }
        if let Some((prefix, suffix)) = text.split_once(".*.") {
            let both = is_name(prefix) && is_name(suffix);
            return both.then(|| Self::Label(format!("{prefix}."), format!(".{suffix}")));
        }
        match UpstreamHost::parse(text.as_bytes()) {
            UpstreamHost::Address(address) => {
                (text == literal(address)).then_some(Self::Address(address))
            }
            UpstreamHost::Name(name) if name == text => Some(Self::Name(name.into_owned())),
            UpstreamHost::Name(_) | UpstreamHost::Unreadable => None,
        }
    }

    /// The pattern for the hosts of a credential or a restriction; `None` if no host that can be read matches it.
    pub fn of(pattern: &HostPattern) -> Option<Self> {
        let name = match pattern {
            HostPattern::Exact(name) => name,
            HostPattern::Suffix(suffix) => {
                return match UpstreamHost::parse_attempt(suffix.strip_prefix('.')?.as_bytes()) {
                    UpstreamHost::Name(base) => Some(Self::Suffix(format!(".{base}"))),
                    UpstreamHost::Address(_) | UpstreamHost::Unreadable => None,
                };
            }
        };
        match UpstreamHost::parse_attempt(name.as_bytes()) {
            UpstreamHost::Address(address) => Some(Self::Address(address)),
            UpstreamHost::Name(name) => Some(Self::Name(name.into_owned())),
            UpstreamHost::Unreadable => None,
        }
    }

    /// Whether a host matches the pattern.
    pub fn matches(&self, host: &UpstreamHost<'_>) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Address(address), UpstreamHost::Address(host)) => address == host,
            (Self::Label(prefix, suffix), UpstreamHost::Name(host)) => {
                let label = host.strip_prefix(prefix.as_str());
                let label = label.and_then(|rest| rest.strip_suffix(suffix.as_str()));
                label.is_some_and(|label| !label.is_empty() && !label.contains('.'))
            }
            (Self::Name(name), UpstreamHost::Name(host)) => name == host,
            (Self::Suffix(suffix), UpstreamHost::Name(host)) => host.ends_with(suffix.as_str()),
            _ => false,
        }
    }

    /// Whether a host matches the pattern or is below a host that does. A server of a name may serve its
    /// subdomains too.
    pub fn covers(&self, host: &UpstreamHost<'_>) -> bool {
        if self.matches(host) {
            return true;
        }
        let UpstreamHost::Name(host) = host else {
            return false;
        };
        match self {
            Self::Name(name) => {
                host.strip_suffix(name.as_str()).is_some_and(|rest| rest.ends_with('.'))
            }
            Self::Label(_, suffix) => {
                let above = |host: &str| host.split_once('.').map(|(_, above)| above.to_owned());
                host.ends_with(suffix.as_str())
                    && std::iter::successors(above(host), |host| above(host))
                        .any(|above| self.matches(&UpstreamHost::Name(above.into())))
            }
            Self::Address(_) | Self::Any | Self::Suffix(_) => false,
        }
    }

    /// Whether some host may be covered by both patterns.
    pub fn overlaps(&self, other: &Self) -> bool {
        let within = |name: &str, of: &str| {
            name.strip_suffix(of).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        match (self, other) {
            (label @ Self::Label(..), Self::Name(name))
            | (Self::Name(name), label @ Self::Label(..)) => {
                let host = UpstreamHost::Name(name.into());
                // A name above the base of the pattern covers everything below it.
                return label.covers(&host) || label.base().is_some_and(|base| within(base, name));
            }
            _ => {}
        }
        match (self.base(), other.base()) {
            (Some(one), Some(other)) => within(one, other) || within(other, one),
            _ => self == other || *self == Self::Any || *other == Self::Any,
        }
    }

    /// How narrow the pattern is. Of two that match a host, the narrower one applies.
    pub fn narrowness(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::Label(prefix, suffix) => prefix.len() + suffix.len(),
            Self::Suffix(suffix) => suffix.len(),
            Self::Address(_) | Self::Name(_) => usize::MAX,
        }
    }

    /// The longest name that all hosts of the pattern are equal to or below.
    pub(super) fn base(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Label(_, suffix) | Self::Suffix(suffix) => suffix.strip_prefix('.'),
            Self::Address(_) | Self::Any => None,
        }
    }
}

impl fmt::Display for UpstreamPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => f.write_str(&literal(*address)),
            Self::Any => f.write_str("*"),
            Self::Label(prefix, suffix) => write!(f, "{prefix}*{suffix}"),
            Self::Name(name) => f.write_str(name),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// An address as an authority contains it (RFC 3986, section 3.2.2).
fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Whether every parser reads the text as the same DNS name.
fn is_name(host: &str) -> bool {
    let label =
        |label: &str| (1..=MAX_LABEL_BYTES).contains(&label.len()) && !is_plain_punycode(label);
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= MAX_NAME_BYTES && host.split('.').all(label) && !is_number(last)
}

/// Whether a label is `xn--` with only ASCII characters encoded, so that it decodes to a label that needs
/// no encoding (RFC 3492, section 6.3: the part before the last hyphen is literal).
fn is_plain_punycode(label: &str) -> bool {
    label.strip_prefix("xn--").is_some_and(|digits| digits.is_empty() || digits.ends_with('-'))
}

/// Whether some parsers read a name that ends in this label as an IPv4 address, e.g. `127.1`, `0x7f.1` or
/// `2130706433` (URL Standard, "ends in a number").
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x");
    label.bytes().all(|byte| byte.is_ascii_digit())
        || hex.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> String {
        UpstreamHost::parse(text.as_bytes()).to_string()
    }

    #[test]
    fn names_are_parsed_to_canonical_form() {
        for text in [
            "api.openai.com",
            "API.OpenAI.com",
            "api.openai.com.",
            "api.openai.com:8443",
            "api.openai.com.:443",
        ] {
            assert_eq!(host(text), "api.openai.com", "{text}");
        }
    }

    #[test]
    fn the_suffix_of_a_mirrored_request_is_ignored() {
        let attempt = |text: &str| UpstreamHost::parse_attempt(text.as_bytes()).to_string();
        assert_eq!(attempt("api.openai.com-shadow"), "api.openai.com");
        assert_eq!(attempt("API.openai.com-SHADOW:443"), "api.openai.com");
        assert_eq!(
            UpstreamHost::parse_attempt(b"10.0.0.1-shadow"),
            UpstreamHost::Address([10, 0, 0, 1].into())
        );
        assert_eq!(attempt("api.openai.com"), "api.openai.com");
        assert_eq!(attempt("user@api.openai.com-shadow"), "unreadable");
    }

    #[test]
    fn an_address_has_one_spelling() {
        assert_eq!(host("[::FFFF:10.0.0.5]:80"), "10.0.0.5");
        assert_eq!(host("10.0.0.5:443"), "10.0.0.5");
        assert_eq!(host("[0:0::1]"), "::1");
        for text in [
            "10.0.5", "0x7f000001", "2130706433", "0177.0.0.1", "1.2.3.256", "[::1%25lo]", "::1",
            "1.2.3.4.5",
        ] {
            assert_eq!(host(text), "unreadable", "{text}");
        }
    }

    #[test]
    fn ambiguous_hosts_are_unreadable() {
        for text in [
            "",
            ".",
            "api.openai.com..",
            "api..openai.com",
            "user@api.openai.com",
            "api%2eopenai.com",
            "api.openai.com:443:80",
            "api.openai.com,evil.example",
            "http://api.openai.com",
            "api.openai.com/",
            "api.openai.com#",
            "api.openai.com\\",
            " api.openai.com",
            "\u{ff41}pi.openai.com",
            "api\u{3002}openai\u{3002}com",
            "xn--api-.openai.com",
            "xn--.com",
            "api.openai.com\0",
            "api.openai.com:+443",
            "[api.openai.com]",
        ] {
            assert_eq!(host(text), "unreadable", "{text}");
        }
        assert_eq!(host(&["a".repeat(64), "com".into()].join(".")), "unreadable");
    }

    #[test]
    fn a_name_covers_what_is_below_it() {
        let pattern = UpstreamPattern::parse("api.openai.com").unwrap();
        let covers = |text: &str| pattern.covers(&UpstreamHost::parse(text.as_bytes()));
        assert!(covers("api.openai.com") && covers("eu.api.openai.com"));
        assert!(
            !covers("xapi.openai.com")
                && !covers("openai.com")
                && !covers("api.openai.com.evil.example")
        );
    }

    #[test]
    fn one_label_may_be_any() {
        let pattern = UpstreamPattern::parse("bedrock.*.amazonaws.com").unwrap();
        let covers = |text: &str| pattern.covers(&UpstreamHost::parse(text.as_bytes()));
        assert!(
            covers("bedrock.us-east-1.amazonaws.com") && covers("Bedrock.x.amazonaws.com.:443")
        );
        assert!(covers("vpce-1.bedrock.us-east-1.amazonaws.com"));
        for other in [
            "bedrock.amazonaws.com",
            "bedrock..amazonaws.com",
            "bedrock.a.b.amazonaws.com",
            "xbedrock.us-east-1.amazonaws.com",
            "gw.elb.us-east-1.amazonaws.com",
            "bedrock.us-east-1.amazonaws.com.evil.example",
        ] {
            let host = UpstreamHost::parse(other.as_bytes());
            assert!(host == UpstreamHost::Unreadable || !pattern.covers(&host), "{other}");
        }
    }

    #[test]
    fn patterns_are_in_canonical_form() {
        for text in
            ["api.openai.com", "*.openai.azure.com", "10.0.0.5", "[::1]", "xn--bcher-kva.example"]
        {
            assert_eq!(UpstreamPattern::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "API.openai.com",
            "api.openai.com.",
            "api.openai.com:443",
            "*",
            "*.",
            "*.*.com",
            "a.*",
            "b\u{fc}cher.example",
            "::1",
            "[::ffff:10.0.0.5]",
            "*.10.0.0.5",
        ] {
            assert!(UpstreamPattern::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn patterns_overlap_if_both_cover_some_host() {
        let overlap = |one: &str, other: &str| {
            let [one, other] = [one, other].map(|text| UpstreamPattern::parse(text).unwrap());
            assert_eq!(one.overlaps(&other), other.overlaps(&one));
            one.overlaps(&other)
        };
        assert!(overlap("*.openai.com", "api.openai.com"));
        assert!(overlap("eu.api.openai.com", "api.openai.com"));
        assert!(overlap("*.azure.com", "*.openai.azure.com"));
        assert!(!overlap("dev.openai.com", "api.openai.com"));
        assert!(!overlap("xapi.openai.com", "api.openai.com"));
        assert!(!overlap("10.0.0.5", "10.0.0.6"));
    }
}
