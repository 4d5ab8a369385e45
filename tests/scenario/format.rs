//! Reads scenario files. Unknown members are errors.

use std::collections::BTreeMap;

use vkey::host::Rules;
use vkey::json::{Integers, Invalid, Json, Members, Node};

use super::step::{Step, Usual};

/// A scenario file.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// The time of the first step, Unix seconds, if it matters.
    pub(crate) start: Option<u64>,
    pub(crate) hosts: Vec<HostKind>,
    /// Machines that the scenario cannot run on.
    pub(crate) not_on: Vec<String>,
    /// The variants, each merged with the scenario; a scenario without variants is a single one without a
    /// name.
    pub(crate) variants: Vec<Variant>,
    pub(crate) keys: Vec<(String, KeySpec)>,
    /// Records of other modules in the shared data.
    pub(crate) records: Vec<(String, String)>,
    pub(crate) damaged: Vec<(String, String)>,
    pub(crate) steps: Vec<Step>,
    /// The steps on nginx, as far as they are possible there.
    nginx_steps: Vec<Step>,
}

/// The rules of the shared data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostKind {
    Rules(Rules),
    /// Another worker is always first.
    Contended,
}

#[derive(Clone, Debug)]
pub(crate) struct Variant {
    pub(crate) name: String,
    pub(crate) config: ConfigSpec,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) configure: Configure,
}

#[derive(Clone, Debug)]
pub(crate) enum ConfigSpec {
    Absent,
    Object(Json),
    Text(String),
}

/// What must happen to the configuration.
#[derive(Clone, Debug, Default)]
pub(crate) struct Configure {
    pub(crate) outcome: Outcome,
    pub(crate) log: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// In force.
    #[default]
    Open,
    /// Accepted, but every request is denied.
    Closed,
    /// Rejected: the module reports to the host that it is invalid.
    Refused,
}

#[derive(Debug)]
pub(crate) struct KeySpec {
    /// How many there are, numbered from 1, if there are several.
    pub(crate) count: Option<u64>,
    pub(crate) kind: KeyKind,
}

#[derive(Debug)]
pub(crate) enum KeyKind {
    Minted(Minted),
    Edited(String, Vec<Edit>),
}

#[derive(Debug)]
pub(crate) struct Minted {
    pub(crate) ring: String,
    pub(crate) epoch: Option<u32>,
    /// Seconds after the start.
    pub(crate) minted_at: i64,
    /// Replaces the ring's secret.
    pub(crate) secret: Option<String>,
    pub(crate) claims: Json,
    pub(crate) caveats: Vec<Json>,
    /// A patch for the standard header, if the key is a JWT.
    pub(crate) jwt: Option<Json>,
}

/// A change to a finished key. Its segments are separated by dots and counted from 0, or from -1 at the
/// end.
#[derive(Debug)]
pub(crate) enum Edit {
    Append(String),
    /// Attenuates: the only change that leaves a key valid.
    Caveat(Json),
    Drop(i64),
    Flip(i64),
    Insert(i64, String),
    Replace(i64, String),
    Splice(i64, String),
    Swap(i64, i64),
    Truncate(usize),
}

// === impl Scenario ===

impl Scenario {
    pub(crate) fn read(text: &[u8]) -> Result<Self, Invalid> {
        let json = Json::parse(text)?;
        let root = json.root(Integers::Digits);
        let members = root.members(&[
            "about", "start", "host", "not_on", "config", "config_text", "env", "configure",
            "variants", "keys", "records", "damaged", "request", "ending", "upstream_tls", "steps",
        ])?;
        members.require("about")?.string()?;
        let base = Variant::read(&members, None)?;
        let usual = Usual::read(&members)?;
        let steps_under = |rules| -> Result<Vec<Step>, Invalid> {
            let steps = members.require("steps")?.list(|node| Step::read(node, &usual, rules))?;
            Ok(steps.into_iter().flatten().collect())
        };
        let (steps, nginx_steps) = (steps_under(Rules::Envoy)?, steps_under(Rules::Nginx)?);
        if steps.is_empty() {
            return Err(root.unusable("steps: expected at least one"));
        }
        Ok(Self {
            start: members.read("start", Node::integer)?,
            hosts: members.read("host", hosts)?.unwrap_or_else(both_rules),
            not_on: members.read("not_on", machines)?.unwrap_or_default(),
            variants: match members.read("variants", |node| variants(node, &base))? {
                Some(variants) => variants,
                None => vec![base],
            },
            keys: members.read("keys", |n| named(n, KeySpec::read))?.unwrap_or_default(),
            records: members.read("records", |n| named(n, owned))?.unwrap_or_default(),
            damaged: members.read("damaged", |n| named(n, owned))?.unwrap_or_default(),
            steps,
            nginx_steps,
        })
    }

    /// The steps on a kind of host.
    pub(crate) fn steps_on(&self, host: HostKind) -> &[Step] {
        if host == HostKind::Rules(Rules::Nginx) { &self.nginx_steps } else { &self.steps }
    }
}

/// A scenario that names no host must have the same results on both kinds.
fn both_rules() -> Vec<HostKind> {
    [Rules::Envoy, Rules::Nginx].map(HostKind::Rules).into()
}

fn hosts(node: &Node<'_>) -> Result<Vec<HostKind>, Invalid> {
    let kind = node.choice(&[
        ("envoy", HostKind::Rules(Rules::Envoy)),
        ("nginx", HostKind::Rules(Rules::Nginx)),
        ("bare", HostKind::Rules(Rules::Bare)),
        ("contended", HostKind::Contended),
    ])?;
    Ok(vec![kind])
}

/// Reads the excluded machines, each with the reason.
fn machines(node: &Node<'_>) -> Result<Vec<String>, Invalid> {
    let members = node.members(&["native", "wasm", "envoy"])?;
    for machine in ["native", "wasm", "envoy"] {
        members.read(machine, owned)?;
    }
    Ok(named(node, owned)?.into_iter().map(|(machine, _)| machine).collect())
}

// === impl Variant ===

impl Variant {
    /// Reads a variant and merges it with `base`.
    fn read(members: &Members<'_>, base: Option<&Self>) -> Result<Self, Invalid> {
        let config = members.get("config").map(|node| node.value().clone());
        let text = members.read("config_text", owned)?;
        let mut env = base.map(|base| base.env.clone()).unwrap_or_default();
        for (name, value) in members.read("env", |n| named(n, nullable))?.unwrap_or_default() {
            match value {
                Some(value) => _ = env.insert(name, value),
                None => _ = env.remove(&name),
            }
        }
        Ok(Self {
            name: String::new(),
            config: match (text, config, base.map(|base| &base.config)) {
                (Some(text), _, _) => ConfigSpec::Text(text),
                (None, Some(patch), Some(ConfigSpec::Object(base))) => {
                    ConfigSpec::Object(merged(base, &patch))
                }
                (None, Some(config), _) => ConfigSpec::Object(config),
                (None, None, base) => base.cloned().unwrap_or(ConfigSpec::Absent),
            },
            env,
            configure: match members.read("configure", Configure::read)? {
                Some(configure) => configure,
                None => base.map(|base| base.configure.clone()).unwrap_or_default(),
            },
        })
    }
}

fn variants(node: &Node<'_>, base: &Variant) -> Result<Vec<Variant>, Invalid> {
    let read = |item: &Node<'_>| {
        let members = item.members(&["name", "config", "config_text", "env", "configure"])?;
        let name = members.require("name")?.string()?.to_owned();
        Ok(Variant { name, ..Variant::read(&members, Some(base))? })
    };
    node.list(read).map(<[_]>::into_vec)
}

/// A document with a patch applied (RFC 7396): objects are merged, `null` removes.
pub(crate) fn merged(base: &Json, patch: &Json) -> Json {
    let Json::Object(patch) = patch else {
        return patch.clone();
    };
    let mut members = match base {
        Json::Object(members) => members.clone(),
        _ => Vec::new(),
    };
    for (name, value) in patch {
        let place = members.iter().position(|(found, _)| found == name);
        let value = merged(place.map_or(&Json::Null, |index| &members[index].1), value);
        match place {
            Some(index) if value == Json::Null => _ = members.remove(index),
            Some(index) => members[index].1 = value,
            None if value == Json::Null => {}
            None => members.push((name.clone(), value)),
        }
    }
    Json::Object(members)
}

impl Configure {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["outcome", "log"])?;
        let outcomes =
            [("open", Outcome::Open), ("closed", Outcome::Closed), ("refused", Outcome::Refused)];
        Ok(Self {
            outcome: members.require("outcome")?.choice(&outcomes)?,
            log: texts(&members, "log")?,
        })
    }
}

// === impl KeySpec ===

impl KeySpec {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let edited = node.value().get("of").is_some();
        let members = node.members(match edited {
            true => &["count", "of", "edits"],
            false => &["count", "ring", "epoch", "minted_at", "secret", "claims", "caveats", "jwt"],
        })?;
        Ok(Self {
            count: members.read("count", Node::integer)?,
            kind: match edited {
                true => KeyKind::Edited(
                    owned(&members.require("of")?)?,
                    members.require("edits")?.list(Edit::read)?.into(),
                ),
                false => KeyKind::Minted(Minted::read(&members)?),
            },
        })
    }
}

impl Minted {
    fn read(members: &Members<'_>) -> Result<Self, Invalid> {
        Ok(Self {
            ring: members.read("ring", owned)?.unwrap_or("main".to_owned()),
            epoch: members
                .read("epoch", |n| u32::try_from(n.integer()?).map_err(|e| n.unusable(e)))?,
            minted_at: members.read("minted_at", signed)?.unwrap_or(0),
            secret: members.read("secret", owned)?,
            claims: members.read("claims", json)?.unwrap_or(Json::Object(Vec::new())),
            caveats: members.read("caveats", |n| n.list(json))?.unwrap_or_default().into(),
            jwt: members.read("jwt", json)?,
        })
    }
}

impl Edit {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        node.members(&[
            "append", "caveat", "drop", "flip", "insert", "replace", "splice", "swap", "truncate",
        ])?;
        let mut entries = node.entries()?;
        let (Some((name, edit)), None) = (entries.next(), entries.next()) else {
            return Err(node.expected("exactly one edit"));
        };
        Ok(match name {
            "append" => Self::Append(owned(&edit)?),
            "caveat" => Self::Caveat(edit.value().clone()),
            "drop" => Self::Drop(signed(&edit)?),
            "flip" => Self::Flip(signed(&edit)?),
            "insert" => at_segment(&edit, "text").map(|(at, text)| Self::Insert(at, text))?,
            "replace" => at_segment(&edit, "text").map(|(at, text)| Self::Replace(at, text))?,
            "splice" => at_segment(&edit, "from").map(|(at, key)| Self::Splice(at, key))?,
            "swap" => match *edit.list(signed)? {
                [one, other] => Self::Swap(one, other),
                _ => return Err(edit.expected("two segments")),
            },
            _ => Self::Truncate(usize::try_from(edit.integer()?).map_err(|e| edit.unusable(e))?),
        })
    }
}

fn at_segment<'a>(node: &'a Node<'a>, other: &'a str) -> Result<(i64, String), Invalid> {
    let members = node.members(&["segment", other])?;
    Ok((signed(&members.require("segment")?)?, owned(&members.require(other)?)?))
}

// === helpers ===

pub(super) fn named<T>(
    node: &Node<'_>,
    read: impl Fn(&Node<'_>) -> Result<T, Invalid>,
) -> Result<Vec<(String, T)>, Invalid> {
    let entry = |(name, node): (&str, Node<'_>)| Ok((name.to_owned(), read(&node)?));
    node.entries()?.map(entry).collect()
}

pub(super) fn texts<'a>(members: &Members<'a>, name: &'a str) -> Result<Vec<String>, Invalid> {
    let list = members.read(name, |node| node.list(owned))?;
    Ok(list.unwrap_or_default().into())
}

pub(super) fn owned(node: &Node<'_>) -> Result<String, Invalid> {
    node.string().map(str::to_owned)
}

pub(super) fn json(node: &Node<'_>) -> Result<Json, Invalid> {
    Ok(node.value().clone())
}

pub(super) fn nullable(node: &Node<'_>) -> Result<Option<String>, Invalid> {
    match node.value() {
        Json::Null => Ok(None),
        _ => owned(node).map(Some),
    }
}

pub(super) fn signed(node: &Node<'_>) -> Result<i64, Invalid> {
    match node.value() {
        Json::Number(number) => number.as_i64().ok_or_else(|| node.expected("an integer")),
        _ => Err(node.expected("an integer")),
    }
}
