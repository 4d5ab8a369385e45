//! Reads audit lines, those of the proxy and those of the module.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::decision::{Decision, DenyReason, UNSEEN};
use crate::json::{Integers, Invalid, Json, Members, Node};

use super::{
    Anchor, AuditRecord, Entry, Line, Link, MEMBERS, NO_RECORD, Outcome, Tokens, Totals, VERSION,
};

/// What Envoy prints for a value that is absent.
const ABSENT: &str = "-";

/// The status that Envoy prints if there was no response.
const NO_STATUS: u64 = 0;

impl Line<'static> {
    /// Reads a line: of the proxy's access log in [`ACCESS_LOG_FORMAT`](super::ACCESS_LOG_FORMAT), or of the module's
    /// log. A masked value is read as its replacement. Members of the outcome may be absent.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if the line has another version or is not an audit line.
    pub fn parse(line: &str) -> Result<Self, Invalid> {
        Self::read(&Json::parse(line.as_bytes())?)
    }

    fn read(json: &Json) -> Result<Self, Invalid> {
        let root = json.root(Integers::Digits);
        let members = root.members(&MEMBERS)?;
        let version = members.require("vkey")?;
        let record = match version.string()? {
            VERSION => Some(record(&members)?),
            NO_RECORD => None,
            _ => return Err(version.expected("version 2, or - where there is no record")),
        };
        Ok(Self { record, outcome: outcome(&members)? })
    }
}

impl Entry {
    /// Reads a line of an audit trail: a request's, as [`Line::parse`] does, or an anchor.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if the line has another version or is neither.
    pub fn parse(line: &str) -> Result<Self, Invalid> {
        let json = Json::parse(line.as_bytes())?;
        match json.get("anchor") {
            Some(_) => anchor(&json.root(Integers::Digits)).map(Self::Anchor),
            None => Line::read(&json).map(|line| Self::Line(Box::new(line))),
        }
    }
}

fn anchor(root: &Node<'_>) -> Result<Anchor, Invalid> {
    const OTHERS: [&str; 9] =
        ["vkey", "anchor", "ts", "host", "records", "last", "plan", "end", "mac"];
    let members = root.members(&[OTHERS.as_slice(), &Totals::NAMES].concat())?;
    let version = members.require("vkey")?;
    if version.string()? != VERSION {
        return Err(version.expected("version 2"));
    }
    let text = |name| members.require(name)?.string().map(str::to_owned);
    let number = |name| members.require(name)?.count();
    let mut values = [0; 7];
    for (name, value) in Totals::NAMES.iter().zip(&mut values) {
        *value = number(name)?;
    }
    Ok(Anchor {
        chain: text("anchor")?,
        ts_micros: micros(&members.require("ts")?)?,
        host: nullable(&members.require("host")?, Node::string)?.map(str::to_owned),
        records: number("records")?,
        last: text("last")?,
        totals: Totals::from_values(values),
        plan: text("plan")?,
        is_end: members.require("end")?.bool()?,
    })
}

fn record(members: &Members<'_>) -> Result<AuditRecord<'static>, Invalid> {
    let text = |name| members.read(name, |node| nullable(node, owned)).map(Option::flatten);
    let number =
        |name| members.read(name, |node| nullable(node, Node::integer)).map(Option::flatten);
    Ok(AuditRecord {
        ts_micros: micros(&members.require("ts")?)?,
        host: text("host")?,
        req: text("req")?,
        decision: decision(members)?,
        kid: text("kid")?,
        jti: text("jti")?,
        tenant: text("tenant")?,
        sub: text("sub")?,
        tier: text("tier")?,
        caveats: number("caveats")?,
        src: text("src")?,
        method: text("method")?,
        authority: text("authority")?,
        path: text("path")?,
        query_keys: members.read("query_keys", query_keys)?.unwrap_or_default(),
        model: text("model")?,
        mcp: text("mcp")?,
        tokens: members.read("tokens", |node| nullable(node, Tokens::read))?.flatten(),
        cost: members.read("cost", |node| nullable(node, Node::count))?.flatten(),
        tls_verdict: text("tls_verdict")?,
        tls_policy: text("tls_policy")?,
        anomaly: text("anomaly")?,
        is_local: members.read("budget", |node| node.choice(&[("local", true)]))?.unwrap_or(false),
        plan: text("plan")?.filter(|plan| !plan.is_empty()),
        link: link(members)?,
    })
}

fn outcome(members: &Members<'_>) -> Result<Outcome<'static>, Invalid> {
    let text = |name| members.read(name, |node| printed(node, owned)).map(Option::flatten);
    let number = |name| members.read(name, |node| printed(node, decimal)).map(Option::flatten);
    Ok(Outcome {
        start_micros: members.read("start", |node| printed(node, micros))?.flatten(),
        peer: text("peer")?,
        status: number("status")?.filter(|status| *status != NO_STATUS),
        bytes_in: number("bytes_in")?,
        bytes_out: number("bytes_out")?,
        duration_ns: number("duration_ns")?,
        upstream: text("upstream")?,
        flags: text("flags")?,
    })
}

/// The place in the chain: all of it, or nothing.
fn link(members: &Members<'_>) -> Result<Option<Link<'static>>, Invalid> {
    const NAMES: [&str; 4] = ["chain", "seq", "prev", "mac"];
    if NAMES.iter().all(|name| members.get(name).is_none()) {
        return Ok(None);
    }
    let text = |name| owned(&members.require(name)?);
    let seq = members.require("seq")?.integer()?;
    Ok(Some(Link { chain: text("chain")?, seq, prev: text("prev")?, mac: text("mac")? }))
}

fn nullable<'a, T>(
    node: &Node<'a>,
    read: impl FnOnce(&Node<'a>) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    if *node.value() == Json::Null { Ok(None) } else { read(node).map(Some) }
}

/// A value that the proxy may have printed.
fn printed<'a, T>(
    node: &Node<'a>,
    read: impl FnOnce(&Node<'a>) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    if node.value().as_str() == Some(ABSENT) { Ok(None) } else { nullable(node, read) }
}

/// A whole number, bare or in quotes.
fn decimal(node: &Node<'_>) -> Result<u64, Invalid> {
    match node.value().as_str() {
        None => node.integer(),
        Some(digits) => digits.parse().map_err(|_| node.expected("a whole number")),
    }
}

fn owned(node: &Node<'_>) -> Result<Cow<'static, str>, Invalid> {
    node.string().map(|text| Cow::Owned(text.to_owned()))
}

fn query_keys(node: &Node<'_>) -> Result<Vec<Cow<'static, str>>, Invalid> {
    match node.value().as_str() {
        Some(mask) => Ok(vec![Cow::Owned(mask.to_owned())]),
        None => node.list(owned).map(Into::into),
    }
}

fn decision(members: &Members<'_>) -> Result<Option<Decision>, Invalid> {
    let word = members.require("decision")?;
    let node = members.require("reason")?;
    let code = nullable(&node, Node::string)?;
    let reason =
        code.map(|code| DenyReason::from_code(code).ok_or_else(|| node.expected("a reason code")));
    match (word.string()?, reason.transpose()?) {
        ("allow", None) => Ok(Some(Decision::Allow)),
        (UNSEEN, None) => Ok(None),
        ("preflight", None) => Ok(Some(Decision::Preflight)),
        ("public", None) => Ok(Some(Decision::Public)),
        ("deny", Some(reason)) => Ok(Some(Decision::Deny(reason))),
        ("shadow", Some(reason)) => Ok(Some(Decision::Shadow(reason))),
        _ => Err(word.expected(
            "allow, deny, preflight, public, shadow or unseen, with the reason that belongs to it",
        )),
    }
}

fn micros(node: &Node<'_>) -> Result<u64, Invalid> {
    let time = humantime::parse_rfc3339(node.string()?).ok();
    let since_epoch = time.and_then(|time: SystemTime| time.duration_since(UNIX_EPOCH).ok());
    let micros = since_epoch.and_then(|since| u64::try_from(since.as_micros()).ok());
    micros.ok_or_else(|| node.expected("a time, e.g. 2026-01-31T12:00:00.000000Z"))
}
