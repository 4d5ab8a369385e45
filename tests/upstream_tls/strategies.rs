//! Random policies, configurations, hosts and connections.

use proptest::collection::vec;
use proptest::option::{of, weighted};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use vkey::json::{Integers, Json};
use vkey::upstream_tls::{Connection, NameProof, Policy, PolicyRule, TlsVersion, UpstreamHost};

/// Few names, which contain each other, so that rules overlap.
pub(crate) const PATTERNS: &[&str] = &[
    "api.openai.com", "eu.api.openai.com", "*.openai.com", "*.com", "*.azure.com",
    "*.openai.azure.com", "corp.example", "llm.corp.example", "*.corp.example", "*.example",
    "192.0.2.1", "192.0.2.2", "[2001:db8::1]",
];

pub(crate) const HOSTS: &[&str] = &[
    "api.openai.com",
    "eu.api.openai.com",
    "a.eu.api.openai.com",
    "openai.com",
    "my.openai.azure.com",
    "openai.azure.com",
    "corp.example",
    "llm.corp.example",
    "dev.llm.corp.example",
    "192.0.2.1",
    "192.0.2.2",
    "[2001:db8::1]",
    "[::ffff:192.0.2.1]",
    "xapi.openai.com",
    "api.openai.com.evil.test",
    "other.test",
];

pub(crate) const MIDNIGHT: u64 = 1_806_537_600;

pub(crate) fn version() -> impl Strategy<Value = &'static str> {
    select(&["TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3"][..])
}

pub(crate) fn digest() -> impl Strategy<Value = String> {
    select(&["aa", "bb", "cc"][..]).prop_map(|digits| digits.repeat(32))
}

pub(crate) fn pins() -> impl Strategy<Value = Value> {
    let sets: &[&[&str]] = &[&["aa", "bb"], &["bb", "cc"], &["cc", "aa"], &["aa", "bb", "cc"]];
    select(sets).prop_map(|pins| {
        pins.iter().map(|digits| format!("sha256:{}", digits.repeat(32))).collect::<Vec<_>>().into()
    })
}

pub(crate) fn tightening_of(
    host: impl Strategy<Value = &'static str>,
) -> impl Strategy<Value = Value> {
    (host, of(version()), weighted(0.3, pins()), weighted(0.3, any::<bool>())).prop_map(
        |(host, min_version, pins, client_certificate)| {
            let mut rule = json!({"host": host});
            let members = [
                ("min_version", json!(min_version)),
                ("pins", json!(pins)),
                ("client_certificate", json!(client_certificate)),
            ];
            for (name, value) in members.into_iter().filter(|(_, value)| !value.is_null()) {
                rule[name] = value;
            }
            rule
        },
    )
}

pub(crate) fn tightening() -> impl Strategy<Value = Value> {
    tightening_of(prop_oneof![6 => select(PATTERNS), 1 => Just("*")])
}

pub(crate) fn rule() -> impl Strategy<Value = Value> {
    let until = select(&["2027-03-30", "2027-03-31", "2027-04-01"][..]);
    (tightening_of(select(PATTERNS)), weighted(0.4, until)).prop_map(|(mut rule, until)| {
        if let Some(until) = until {
            let skip = json!({"reason": "r", "owner": "o", "until": until});
            rule["insecure_skip_verify"] = skip;
        }
        rule
    })
}

/// A policy file. Rules that the parser rejects beside the others are removed.
pub(crate) fn policy() -> impl Strategy<Value = Policy> {
    let unlisted = select(&["observe", "verify"][..]);
    (version(), of(unlisted), vec(select(PATTERNS), 0..3), vec(rule(), 0..6)).prop_map(
        |(min_version, unlisted, known_hosts, mut upstreams)| {
            let mut default = json!({"min_version": min_version});
            if let Some(unlisted) = unlisted {
                default["unlisted"] = unlisted.into();
            }
            loop {
                let file = json!({
                    "version": 1, "default": default, "known_hosts": known_hosts,
                    "upstreams": upstreams,
                });
                match Policy::parse(file.to_string().as_bytes()) {
                    Ok(policy) => return policy,
                    Err(invalid) => _ = upstreams.remove(rule_at(invalid.path())),
                }
            }
        },
    )
}

/// The number in `upstreams[NUMBER]...`.
pub(crate) fn rule_at(path: &str) -> usize {
    let number = path.strip_prefix("upstreams[").and_then(|rest| rest.split_once(']'));
    number.unwrap_or_else(|| panic!("{path}")).0.parse().unwrap()
}

pub(crate) fn read_tightening(text: &Value) -> PolicyRule {
    let json = Json::parse(text.to_string().as_bytes()).unwrap();
    PolicyRule::read_tightening(&json.root(Integers::Digits)).unwrap()
}

pub(crate) fn tighten(rules: &[Value]) -> Box<[PolicyRule]> {
    rules.iter().map(read_tightening).collect()
}

/// Another spelling of the same host.
pub(crate) fn spell(host: &str, upper: &[bool], dot: bool, port: &str) -> String {
    let letters = host.chars().zip(upper.iter().cycle());
    let mut text: String =
        letters.map(|(c, upper)| if *upper { c.to_ascii_uppercase() } else { c }).collect();
    if dot && !text.ends_with(']') {
        text.push('.');
    }
    text + port
}

pub(crate) fn spelling_of(host: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let port = select(&["", ":", ":443", ":80", ":65536"][..]);
    (host, vec(any::<bool>(), 1..9), any::<bool>(), port)
        .prop_map(|(host, upper, dot, port)| spell(&host, &upper, dot, port))
}

/// Hosts inside and outside the policy, and sometimes invalid ones.
pub(crate) fn authority() -> impl Strategy<Value = String> {
    let broken = (select(HOSTS), select(&["@", "%", ",", " ", "/", "..", "\0", "\u{3002}"][..]))
        .prop_map(|(host, what)| format!("{host}{what}"));
    prop_oneof![9 => spelling_of(select(HOSTS).prop_map(str::to_owned)), 1 => broken]
}

#[derive(Clone, Debug)]
pub(crate) struct Shown {
    pub(crate) up: bool,
    pub(crate) version: Option<TlsVersion>,
    pub(crate) digest: Option<String>,
    pub(crate) name: NameProof,
    pub(crate) client: bool,
}

impl Connection for Shown {
    fn is_up(&self) -> bool {
        self.up
    }

    fn tls_version(&self) -> Option<TlsVersion> {
        self.version
    }

    fn certificate_digest(&self) -> Option<String> {
        self.digest.clone()
    }

    fn name_proof(&self, _: &UpstreamHost<'_>) -> NameProof {
        self.name
    }

    fn has_client_certificate(&self) -> bool {
        self.client
    }
}

/// Mostly good connections: one that every rule refuses tests nothing.
pub(crate) fn connection() -> impl Strategy<Value = Shown> {
    use NameProof::{Differs, FirstDiffers, Matches, NotShown};
    use TlsVersion::{Unknown, V1_0, V1_1, V1_2, V1_3};
    let version = prop_oneof![
        3 => Just(V1_3), 3 => Just(V1_2), 1 => Just(V1_1), 1 => Just(V1_0), 1 => Just(Unknown),
    ];
    let name = prop_oneof![
        6 => Just(Matches), 1 => Just(FirstDiffers), 1 => Just(Differs), 1 => Just(NotShown),
    ];
    (any::<bool>(), weighted(0.9, version), weighted(0.8, digest()), name, any::<bool>()).prop_map(
        |(up, version, digest, name, client)| Shown {
            up: up || version.is_some(),
            version,
            digest,
            name,
            client,
        },
    )
}

/// Times around the midnights at which exceptions end.
pub(crate) fn now() -> impl Strategy<Value = u64> {
    let day = 86_400;
    prop_oneof![
        MIDNIGHT - day - 2..MIDNIGHT - day + 2,
        MIDNIGHT - 2..MIDNIGHT + 2,
        MIDNIGHT + day - 2..MIDNIGHT + day + 2,
        Just(0),
    ]
}
