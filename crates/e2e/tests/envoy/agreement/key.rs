//! Random keys, and what their holders may do with them.

use serde_json::{Value, json};

use super::draw::Draw;
use crate::gateways::KNOWN;
use crate::keys::{Minter, attenuate};

const HOST_RULES: &[&[&str]] = &[
    &["a.example"],
    &["b.example", "a.example"],
    &["*.c.example"],
    &[KNOWN],
    &["*.example", "other.test"],
];

const PATH_RULES: &[&[&str]] =
    &[&["/v1/**"], &["/v1/*"], &["/v1/chat", "/v1/models"], &["/**"], &["/v2/**", "/v1/models"]];

const METHOD_RULES: &[&[&str]] = &[&["GET"], &["GET", "POST"], &["POST", "PUT", "PATCH"]];

/// What a key allows: each list that is there has to name what is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rule {
    pub(super) methods: Option<&'static [&'static str]>,
    pub(super) hosts: Option<&'static [&'static str]>,
    pub(super) paths: Option<&'static [&'static str]>,
}

/// A key and what its holder may do with it.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) jti: String,
    pub(super) sub: Option<&'static str>,
    pub(super) text: String,
    /// All of them have to hold.
    all: Vec<Rule>,
    /// One of them has to hold, where there are any.
    any: Vec<Rule>,
}

impl Rule {
    fn draw(draw: &mut Draw) -> Self {
        let drawn = Self {
            methods: draw.chance(30).then(|| draw.pick(METHOD_RULES)),
            hosts: draw.chance(50).then(|| draw.pick(HOST_RULES)),
            paths: draw.chance(60).then(|| draw.pick(PATH_RULES)),
        };
        let paths = drawn.paths.or_else(|| (!drawn.restricts()).then_some(PATH_RULES[0]));
        Self { paths, ..drawn }
    }

    fn restricts(&self) -> bool {
        self.methods.is_some() || self.hosts.is_some() || self.paths.is_some()
    }

    fn config(&self) -> Value {
        let lists = [("methods", self.methods), ("hosts", self.hosts), ("paths", self.paths)];
        let lists = lists.into_iter().filter_map(|(name, list)| Some((name.into(), list?.into())));
        Value::Object(lists.collect())
    }

    fn permits(&self, method: &str, authority: &str, path: &str) -> bool {
        let any = |list: Option<&[&str]>, holds: &dyn Fn(&str) -> bool| {
            list.is_none_or(|list| list.iter().any(|item| holds(item)))
        };
        any(self.methods, &|item| item == method)
            && any(self.hosts, &|item| permits_host(item, authority))
            && any(self.paths, &|item| permits_path(item, path))
    }
}

/// A host, or `*.suffix`, and the authority to the letter.
fn permits_host(rule: &str, authority: &str) -> bool {
    match rule.strip_prefix('*') {
        Some(suffix) => {
            authority.len() > suffix.len()
                && authority.ends_with(suffix)
                && authority.bytes().all(|b| b.is_ascii_lowercase() || b == b'.')
        }
        None => authority == rule,
    }
}

/// The test's globs have their stars for whole segments, `**` at the end. One final slash does not count.
fn permits_path(glob: &str, path: &str) -> bool {
    let path = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
    let mut segments = path.split('/');
    for wanted in glob.split('/') {
        let segment = segments.next();
        match (wanted, segment) {
            ("**", rest) => return rest.is_some(),
            ("*", Some(_)) => {}
            (wanted, Some(segment)) if wanted == segment => {}
            _ => return false,
        }
    }
    segments.next().is_none()
}

impl Key {
    /// The keys of an Envoy. The first two are not restricted.
    pub(super) fn draw_all(draw: &mut Draw, minter: &Minter, count: usize) -> Vec<Self> {
        (0..count).map(|number| Self::draw(draw, minter, number)).collect()
    }

    fn draw(draw: &mut Draw, minter: &Minter, number: usize) -> Self {
        let jti = format!("k{number}");
        let sub = draw.chance(50).then_some("agent");
        let mut claims = sub.map_or_else(|| json!({}), |sub| json!({"sub": sub}));
        let mut key = Self { jti, sub, text: String::new(), all: Vec::new(), any: Vec::new() };
        let mut caveats = Vec::new();
        if number >= 2 {
            let rules = [(); 2].map(|()| Rule::draw(draw));
            let place = draw.weighted(&[(3, "only"), (3, "caveat"), (2, "any_of"), (1, "both")]);
            if matches!(place, "only" | "both") {
                claims["only"] = rules[0].config();
                key.all.push(rules[0]);
            }
            if matches!(place, "caveat" | "both") {
                caveats.push(rules[1].config());
                key.all.push(rules[1]);
            }
            if place == "any_of" {
                caveats.push(json!({"any_of": rules.iter().map(Rule::config).collect::<Vec<_>>()}));
                key.any.extend(rules);
            }
        }
        let jwt = number == 1 || (caveats.is_empty() && draw.chance(40));
        key.text = if jwt { minter.jwt(&key.jti, claims) } else { minter.key(&key.jti, claims) };
        for caveat in caveats {
            key.text = attenuate(&key.text, &caveat);
        }
        key
    }

    pub(super) fn is_restricted(&self) -> bool {
        !self.all.is_empty() || !self.any.is_empty()
    }

    pub(super) fn permits(&self, method: &str, authority: &str, path: &str) -> bool {
        let permits = |rule: &Rule| rule.permits(method, authority, path);
        self.all.iter().all(permits) && (self.any.is_empty() || self.any.iter().any(permits))
    }

    /// One of its rules, for requests that the key is to permit.
    pub(super) fn any_rule(&self, draw: &mut Draw) -> Rule {
        let rules: Vec<_> = self.all.iter().chain(&self.any).copied().collect();
        if rules.is_empty() { Rule::default() } else { draw.pick(&rules) }
    }
}
