//! The host of an upstream in the one spelling that a policy is written in.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::access::canonical_host;
use crate::json::{Invalid, Node};

/// RFC 1035, section 2.3.4, without the root.
const MAX_NAME_BYTES: usize = 253;
const MAX_LABEL_BYTES: usize = 63;

/// What Envoy's router appends to the host of a mirrored request (`appendShadowHostSuffix`, unless the
/// route has `disable_shadow_host_suffix_append`).
const SHADOW_SUFFIX: &str = "-shadow";

/// A host that a request is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamHost<'a> {
    /// An address; IPv4 in IPv6 is IPv4 (RFC 4291, section 2.5.5.2).
    Address(IpAddr),
    /// A name: lower case, ASCII, no dot at its end.
    Name(Cow<'a, str>),
    /// What two readers could take for two hosts, or for none: user information, escapes, characters
    /// outside ASCII, numbers that some readers take for an address, a second port. It could be any
    /// host, so it counts as a known one, and no certificate bears it.
    Unreadable,
}

/// The hosts that a rule is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamPattern {
    /// One address.
    Address(IpAddr),
    /// Every host.
    Any,
    /// Every name with one label between these two, which have their dots: clouds put the region there.
    Label(String, String),
    /// One name.
    Name(String),
    /// Every name with one label or more before this suffix, which has its leading dot.
    Suffix(String),
}

// === impl UpstreamHost ===

impl<'a> UpstreamHost<'a> {
    /// Reads an authority as it is sent (RFC 9110, section 7.2): the port and one dot at the end do not
    /// matter, neither does case.
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

    /// Reads the authority of an attempt. Envoy appends `-shadow` to the host of a mirrored request, which
    /// carries all that the request does and is judged as that.
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

    /// The same host, apart from the text it was read from.
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
    /// [`Invalid`] for anything else, and for another spelling than the canonical one.
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        Self::parse(node.string()?).ok_or_else(|| {
            node.expected(
                "a host name in lower case, *.suffix, prefix.*.suffix, or an address, without port; \
                 international names in their ASCII form (xn--)",
            )
        })
    }

    /// [`UpstreamPattern::read`], where `*` stands for every host.
    ///
    /// # Errors
    ///
    /// As [`UpstreamPattern::read`].
    pub fn read_any(node: &Node<'_>) -> Result<Self, Invalid> {
        if node.string()? == "*" { Ok(Self::Any) } else { Self::read(node) }
    }

    /// Reads a host name, `*.suffix`, `prefix.*.suffix`, or an address, in its canonical spelling. None ends in what mirrored
    /// requests end in: nothing could be told to be for it.
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

    /// Whether a host is among those of the pattern.
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

    /// Whether a host is among those of the pattern, or below one of them: what serves a name may
    /// serve its subdomains.
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
                // A name above the label's covers it, where it is a known one.
                return label.covers(&host) || label.base().is_some_and(|base| within(base, name));
            }
            _ => {}
        }
        match (self.base(), other.base()) {
            (Some(one), Some(other)) => within(one, other) || within(other, one),
            _ => self == other || *self == Self::Any || *other == Self::Any,
        }
    }

    /// How narrow the pattern is: of two that match a host, the narrower one is meant.
    pub fn narrowness(&self) -> usize {
        match self {
            Self::Any => 0,
            Self::Label(prefix, suffix) => prefix.len() + suffix.len(),
            Self::Suffix(suffix) => suffix.len(),
            Self::Address(_) | Self::Name(_) => usize::MAX,
        }
    }

    /// The name that the pattern is about.
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

/// An address as it stands in an authority (RFC 3986, section 3.2.2).
fn literal(address: IpAddr) -> String {
    match address {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("[{v6}]"),
    }
}

/// Whether every reader takes the text for the same name of the DNS.
fn is_name(host: &str) -> bool {
    let label =
        |label: &str| (1..=MAX_LABEL_BYTES).contains(&label.len()) && !is_plain_punycode(label);
    let last = host.rsplit('.').next().unwrap_or_default();
    host.len() <= MAX_NAME_BYTES && host.split('.').all(label) && !is_number(last)
}

/// Whether a label is `xn--` over ASCII alone, which decodes to a label that has a plain spelling
/// (RFC 3492, section 6.3: what precedes the last hyphen is taken as it is).
fn is_plain_punycode(label: &str) -> bool {
    label.strip_prefix("xn--").is_some_and(|digits| digits.is_empty() || digits.ends_with('-'))
}

/// Whether a name that ends in this label is taken for an IPv4 address by some readers, as `127.1`,
/// `0x7f.1` or `2130706433` (URL Standard, "ends in a number").
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
    fn spellings_of_a_name_are_one() {
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
    fn a_mirrored_request_is_for_the_host_it_mirrors() {
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
    fn what_could_be_read_in_two_ways_is_unreadable() {
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
    fn patterns_have_their_canonical_spelling() {
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
    fn patterns_overlap_where_some_host_is_in_both() {
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
