//! Reads `forward`: the identity headers and provider credentials of forwarded requests.

use std::collections::BTreeSet;

use crate::access::restriction::HostPattern;
use crate::json::{Invalid, Members, Node};
use crate::key::token::is_ring_name;
use crate::upstream_tls::Skip;

use super::header::header_name;
use super::template::Template;
use super::{CredentialConfig, Grant, NamedConfig};

/// What is added to forwarded requests.
pub(super) struct Forward {
    pub(super) identity_headers: bool,
    pub(super) grants: Vec<Grant>,
    pub(super) credentials: Vec<CredentialConfig>,
}

impl Default for Forward {
    fn default() -> Self {
        Self { identity_headers: true, grants: Vec::new(), credentials: Vec::new() }
    }
}

impl Forward {
    /// A credential is only named here, unless `credentials_in_front` allows its value here.
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["identity_headers", "credentials_in_front", "credentials"])?;
        let in_front = members.read("credentials_in_front", Node::bool)?.unwrap_or(false);
        let mut forward = Self {
            identity_headers: members.read("identity_headers", Node::bool)?.unwrap_or(true),
            ..Self::default()
        };
        let Some(list) = members.get("credentials") else {
            return Ok(forward);
        };
        let mut names = BTreeSet::new();
        for item in list.items()? {
            match item.open_members()?.get("value") {
                None => forward.grants.push(grant(&item, &mut names)?),
                Some(_) if in_front => forward.credentials.push(credential(&item)?),
                Some(value) => return Err(value.unusable(CREDENTIAL_IN_FRONT)),
            }
        }
        Ok(forward)
    }
}

const CREDENTIAL_IN_FRONT: &str = "a credential that is attached before routing goes \
    wherever a route leads; put it into the upstream gate ({\"role\": \"upstream_tls\", \
    \"credentials\": […]}) and give only its name here, or set credentials_in_front to true";

const PLAINTEXT_WITHOUT_VALUE: &str = "the gate that holds the credential decides on its connections; \
    put plaintext beside the value, into the upstream gate ({\"role\": \"upstream_tls\", \
    \"credentials\": [{\"name\": …, \"plaintext\": …}]})";

/// `names`: the names of earlier credentials.
fn grant(node: &Node<'_>, names: &mut BTreeSet<String>) -> Result<Grant, Invalid> {
    if let Some(plaintext) = node.open_members()?.get("plaintext") {
        return Err(plaintext.unusable(PLAINTEXT_WITHOUT_VALUE));
    }
    let members = node.members(&["name", "hosts"])?;
    let name = credential_name(&members.require("name")?)?;
    if !names.insert(name.clone()) {
        return Err(node.unusable(NAMED_TWICE));
    }
    Ok(Grant { name, hosts: members.read("hosts", hosts)? })
}

/// Reads the credentials of an upstream gate.
pub(super) fn named_credentials(node: &Node<'_>) -> Result<Vec<NamedConfig>, Invalid> {
    let (mut named, mut names) = (Vec::new(), BTreeSet::new());
    for item in node.items()? {
        let members = item.members(&["name", "hosts", "header", "value", "plaintext"])?;
        let name = credential_name(&members.require("name")?)?;
        if !names.insert(name.clone()) {
            return Err(item.unusable(NAMED_TWICE));
        }
        named.push(NamedConfig { name, credential: credential_members(&item, &members)? });
    }
    Ok(named)
}

const NAMED_TWICE: &str = "another credential has this name already";

/// The name of a credential becomes a word in a filter state, so it has no spaces.
fn credential_name(node: &Node<'_>) -> Result<String, Invalid> {
    let name = node.string()?;
    if is_ring_name(name) {
        Ok(name.to_owned())
    } else {
        Err(node.expected("1 to 32 of a-z 0-9 -, not starting with -"))
    }
}

fn credential(node: &Node<'_>) -> Result<CredentialConfig, Invalid> {
    credential_members(node, &node.members(&["hosts", "header", "value", "plaintext"])?)
}

fn credential_members(node: &Node<'_>, members: &Members<'_>) -> Result<CredentialConfig, Invalid> {
    Ok(CredentialConfig {
        place: node.place(),
        plaintext: members.read("plaintext", Skip::read)?,
        hosts: hosts(&members.require("hosts")?)?,
        header: header_name(&members.require("header")?)?,
        value: header_value(&members.require("value")?)?,
    })
}

fn header_value(node: &Node<'_>) -> Result<Template, Invalid> {
    let text = node.string()?;
    let allowed = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
    // Leading and trailing spaces are not part of a header value (RFC 9110, section 5.5).
    if text.trim_ascii().len() < text.len() || !text.bytes().all(allowed) {
        return Err(node.expected("visible ASCII, and spaces inside"));
    }
    Template::parse(text).map_err(|invalid| node.unusable(invalid))
}

fn hosts(node: &Node<'_>) -> Result<Box<[HostPattern]>, Invalid> {
    let hosts = node.list(HostPattern::read_written)?;
    if hosts.is_empty() { Err(node.expected("at least one host")) } else { Ok(hosts) }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, RoleConfig};

    fn front(forward: &str) -> Result<Config, String> {
        let text = format!(
            r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}], "forward": {forward}}}"#
        );
        Config::parse(text.as_bytes()).map_err(|invalid| invalid.to_string())
    }

    fn gate(credentials: &str) -> Result<RoleConfig, String> {
        let text = format!(r#"{{"role": "upstream_tls", "credentials": {credentials}}}"#);
        RoleConfig::parse(text.as_bytes()).map_err(|invalid| invalid.to_string())
    }

    const VALUE: &str = r#"{"hosts": ["a.example"], "header": "x-key", "value": "${KEY}"}"#;

    #[test]
    fn a_value_is_accepted_only_with_credentials_in_front() {
        let refused = front(&format!(r#"{{"credentials": [{VALUE}]}}"#)).unwrap_err();
        assert!(refused.starts_with("forward.credentials[0].value: "), "{refused}");
        assert!(refused.contains("credentials_in_front"), "{refused}");
        let off = format!(r#"{{"credentials_in_front": false, "credentials": [{VALUE}]}}"#);
        assert!(front(&off).is_err());
        let both = format!(
            r#"{{"credentials_in_front": true, "credentials": [{VALUE}, {{"name": "openai"}}]}}"#
        );
        let config = front(&both).unwrap();
        assert_eq!(config.variables().collect::<Vec<_>>(), ["S", "KEY"]);
        assert_eq!(config.settings().grants[0].name, "openai");
    }

    const PLAINTEXT: &str =
        r#""plaintext": {"reason": "sidecar", "owner": "platform", "until": "2027-03-31"}"#;

    /// The same member in a gate and in front, and for each what a known host makes of it.
    #[test]
    fn an_exception_stands_beside_the_value_and_is_for_no_known_host() {
        let value = |host: &str| {
            let value = VALUE.replace("a.example", host);
            value.replacen('{', &format!("{{{PLAINTEXT}, "), 1)
        };
        let named = |host: &str| value(host).replacen('{', r#"{"name": "corp", "#, 1);
        let policy = crate::upstream_tls::Policy::parse(
            br#"{"version": 1, "default": {"min_version": "TLSv1.2", "unlisted": "observe"},
                 "known_hosts": ["api.openai.com", "*.azure.example", "10.0.0.5"]}"#,
        )
        .unwrap();
        let check = |host: &str| {
            let gate = gate(&format!("[{}]", named(host))).unwrap();
            let list = format!(
                r#"{{"credentials_in_front": true, "credentials": [{{"name": "x"}}, {}]}}"#,
                value(host)
            );
            let front = RoleConfig::Gate(Box::new(front(&list).unwrap()));
            let [gate, front] = [gate, front].map(|config| config.check_policy(&policy));
            assert_eq!(gate.is_ok(), front.is_ok(), "{host}");
            gate.map_err(|gate| [gate.to_string(), front.unwrap_err().to_string()])
        };
        for host in [
            "127.0.0.1",
            "[::1]",
            "localhost",
            "llm.svc.cluster.local",
            "*.svc",
            "10.0.0.6",
            "xapi.openai.com",
            "azure.test",
        ] {
            assert_eq!(check(host), Ok(()), "{host}");
        }
        for (host, known) in [
            ("api.openai.com", "api.openai.com"),
            ("API.OpenAI.com", "api.openai.com"),
            ("eu.api.openai.com", "api.openai.com"),
            ("api.openai.com-shadow", "api.openai.com"),
            ("*.openai.com", "api.openai.com"),
            ("*.com", "api.openai.com"),
            ("*.com-shadow", "api.openai.com"),
            ("a.azure.example", "*.azure.example"),
            ("*.azure.example", "*.azure.example"),
            ("10.0.0.5", "10.0.0.5"),
            ("[::ffff:10.0.0.5]", "10.0.0.5"),
            ("[::ffff:a00:5]", "10.0.0.5"),
            ("010.0.0.5", "a host that can be read in more than one way"),
            ("167772165", "a host that can be read in more than one way"),
        ] {
            let says = format!(
                "{known} is a known host, which is never plaintext; remove plaintext or that host"
            );
            let [gate, front] = check(host).unwrap_err();
            assert_eq!(gate, format!("credentials[0].plaintext: {says}"), "{host}");
            assert_eq!(front, format!("forward.credentials[1].plaintext: {says}"), "{host}");
        }
        // Any other credential may be for a known host.
        let plain =
            VALUE.replace("a.example", "api.openai.com").replacen('{', r#"{"name": "x", "#, 1);
        assert_eq!(gate(&format!("[{plain}]")).unwrap().check_policy(&policy), Ok(()));
    }

    #[test]
    fn an_exception_is_dated_and_owned_and_stands_in_no_grant() {
        let refused = |plaintext: &str| {
            let value =
                VALUE.replacen('{', &format!(r#"{{"name": "corp", "plaintext": {plaintext}, "#), 1);
            gate(&format!("[{value}]")).map(drop).unwrap_err()
        };
        for (plaintext, says) in [
            ("true", ": expected an object"),
            (r#"{"owner": "o", "until": "2027-03-31"}"#, ".reason: missing"),
            (r#"{"reason": "r", "owner": " ", "until": "2027-03-31"}"#, ".owner: expected a text"),
            (r#"{"reason": "r", "owner": "o"}"#, ".until: missing"),
            (
                r#"{"reason": "r", "owner": "o", "until": "2027-02-29"}"#,
                ".until: expected a day, e.g. 2027-03-31",
            ),
            (
                r#"{"reason": "r", "owner": "o", "until": "2027-03-31", "for": 1}"#,
                ".for: unknown member (known here: reason, owner, until)",
            ),
        ] {
            assert_eq!(
                refused(plaintext),
                format!("credentials[0].plaintext{says}"),
                "{plaintext}"
            );
        }
        let grant = front(&format!(r#"{{"credentials": [{{"name": "corp", {PLAINTEXT}}}]}}"#));
        let grant = grant.map(drop).unwrap_err();
        assert!(
            grant.starts_with("forward.credentials[0].plaintext: the gate that holds"),
            "{grant}"
        );
    }

    #[test]
    fn names_are_words_and_unique() {
        let refused = |list: &str| front(&format!(r#"{{"credentials": {list}}}"#)).unwrap_err();
        for name in ["", "Open", "a b", "+attached", "-a"] {
            let text = refused(&format!(r#"[{{"name": "{name}"}}]"#));
            assert!(text.starts_with("forward.credentials[0].name: expected 1 to 32"), "{text}");
        }
        assert!(refused(r#"[{"name": "a"}, {"name": "a"}]"#).contains("this name already"));
        assert!(refused(r#"[{"name": "a", "header": "x-key"}]"#).contains("unknown member"));
        assert!(refused(r#"[{"name": "a", "hosts": []}]"#).contains("at least one host"));
    }

    #[test]
    fn an_upstream_gate_accepts_no_literal_secret() {
        let named = VALUE.replacen('{', r#"{"name": "corp", "#, 1);
        let RoleConfig::UpstreamTls(config) = gate(&format!("[{named}]")).unwrap() else {
            panic!("the role is upstream_tls");
        };
        assert_eq!(config.variables().collect::<Vec<_>>(), ["KEY"]);
        assert!(gate(&format!("[{named}, {named}]")).unwrap_err().contains("this name already"));
        assert!(gate(&format!("[{VALUE}]")).unwrap_err().contains("credentials[0].name"));
        let literal = gate(&format!("[{}]", named.replace("${KEY}", "sk-1"))).unwrap_err();
        assert!(literal.contains("does not belong in a configuration"), "{literal}");
        assert!(!literal.contains("sk-1"), "{literal}");
        for value in [" ${KEY}", "Bearer ${KEY} ", "${KEY}\u{a0}", "\u{feff}${KEY}"] {
            let refused = gate(&format!("[{}]", named.replace("${KEY}", value))).unwrap_err();
            assert!(refused.starts_with("credentials[0].value: expected visible"), "{refused}");
        }
        let reserved = gate(&format!("[{}]", named.replace("x-key", "x-vkey-key"))).unwrap_err();
        assert!(reserved.starts_with("credentials[0].header: "), "{reserved}");
    }
}
