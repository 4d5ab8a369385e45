//! The steps of a scenario: what is sent, and what is expected.

use std::collections::BTreeMap;

use vkey::host::Rules;
use vkey::json::{Integers, Invalid, Json, Members, Node};

use super::body::Body;
pub(crate) use super::expect::{Expect, ExpectFields, Expected};
use super::format::{merged, named, nullable, owned, signed};
use super::upstream::{Upstream, nothing};

#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) name: String,
    /// Seconds after the start.
    pub(crate) at: i64,
    /// Nanoseconds to add to that.
    pub(crate) at_ns: u64,
    pub(crate) worker: u64,
    pub(crate) repeat: u64,
    pub(crate) request: RequestSpec,
    pub(crate) faults: Faults,
    pub(crate) ending: Ending,
    /// The input of [`Upstream::read`], with placeholders.
    pub(crate) upstream: Json,
    /// The parts to measure, in the order of the file.
    pub(crate) bench: Vec<Part>,
    pub(crate) expect: Expect,
}

/// A part of the work for a request that can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// Writing the audit line.
    Audit,
    /// Counting and limiting, with the cells of the key and its tenant.
    Count,
    /// Normalising the path, and deciding by tier, tenant and key.
    Decide,
    /// Computing the header changes of a forwarded request.
    Edits,
    /// Reading the header map.
    Headers,
    /// Finding a cached key, or refusing an invalid one again.
    Identify,
    /// The whole request, from its headers to its audit line.
    Request,
    /// Verifying a new key.
    Verify,
}

#[derive(Debug)]
pub(crate) struct RequestSpec {
    /// Pseudo headers first.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) trailers: Trailers,
    pub(crate) body: Body,
    /// Whether the length of the body is not announced.
    pub(crate) chunked: bool,
    /// Whether the body never comes to its end.
    pub(crate) unfinished: bool,
    pub(crate) source: Option<String>,
    pub(crate) client_cert: Option<String>,
}

/// The trailers of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Trailers {
    /// There are none.
    #[default]
    Absent,
    /// There are some, but the host does not provide them.
    Hidden,
    Shown(Vec<(String, String)>),
}

/// Faults of the host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// The status with which every change of the request fails.
    pub(crate) failing_edits: Option<u32>,
    pub(crate) no_clock: bool,
    pub(crate) no_headers: bool,
    /// The request ends before the module sees it.
    pub(crate) never_shown: bool,
    /// The host does not call back about the bodies of requests that are held.
    pub(crate) keeps_bodies: bool,
}

/// What the host provides at the end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ending {
    pub(crate) after_ns: u64,
    pub(crate) status: Option<u64>,
    /// The headers of the upstream's response.
    pub(crate) headers: BTreeMap<String, String>,
    /// The sizes of the body parts, in bytes.
    pub(crate) body: Box<[u64]>,
    pub(crate) bytes_out: Option<u64>,
    pub(crate) upstream: Option<String>,
    /// The body of the upstream's response.
    pub(crate) response: Body,
    /// Who breaks off the response, if anyone does.
    pub(crate) cut: Option<Cut>,
}

/// Who breaks off a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Client,
    Upstream,
    /// The proxy replies in place of the upstream, before it has sent anything to it.
    ProxyBefore,
    /// The same after it has sent the request.
    ProxyAfter,
}

// === impl Part ===

impl Part {
    pub(crate) const ALL: [Self; 8] = [
        Self::Audit,
        Self::Count,
        Self::Decide,
        Self::Edits,
        Self::Headers,
        Self::Identify,
        Self::Request,
        Self::Verify,
    ];

    /// The name in files and tables.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::Count => "count",
            Self::Decide => "decide",
            Self::Edits => "edits",
            Self::Headers => "headers",
            Self::Identify => "identify",
            Self::Request => "request",
            Self::Verify => "verify",
        }
    }
}

// === impl Step ===

impl Step {
    /// Reads the step for a kind of host; `None` if it is not possible there. On nginx, the expectations
    /// may differ.
    pub(super) fn read(
        node: &Node<'_>,
        usual: &Usual,
        rules: Rules,
    ) -> Result<Option<Self>, Invalid> {
        let members = node.members(&[
            "name", "at", "at_ns", "worker", "repeat", "request", "faults", "ending",
            "upstream_tls", "bench", "expect", "nginx",
        ])?;
        let expect = Expect::read(&members.require("expect")?)?;
        let nginx = |node: &Node<'_>| match node.value() {
            Json::Null => Ok(None),
            _ => Expect::read(node).map(Some),
        };
        let on_nginx = members.read("nginx", nginx)?.filter(|_| rules == Rules::Nginx);
        let Some(expect) = on_nginx.unwrap_or(Some(expect)) else {
            return Ok(None);
        };
        let said = |name| members.get(name).map_or_else(nothing, |node| node.value().clone());
        let request = replaced(&usual.request, said("request"));
        let ending = merged(&usual.ending, &said("ending"));
        let upstream = merged(&usual.upstream, &said("upstream_tls"));
        of_step(node, "upstream_tls", &upstream, Upstream::read)?;
        Ok(Some(Self {
            name: owned(&members.require("name")?)?,
            at: members.read("at", signed)?.unwrap_or(0),
            at_ns: members.read("at_ns", Node::integer)?.unwrap_or(0),
            worker: members.read("worker", Node::integer)?.unwrap_or(0),
            repeat: members.read("repeat", Node::integer)?.unwrap_or(1),
            request: of_step(node, "request", &request, RequestSpec::read)?,
            faults: members.read("faults", Faults::read)?.unwrap_or_default(),
            ending: of_step(node, "ending", &ending, Ending::read)?,
            upstream,
            bench: members.read("bench", |node| node.list(part))?.unwrap_or_default().into(),
            expect,
        }))
    }
}

/// The defaults of the file for all steps.
pub(super) struct Usual {
    request: Json,
    ending: Json,
    upstream: Json,
}

impl Usual {
    pub(super) fn read(members: &Members<'_>) -> Result<Self, Invalid> {
        members.read("request", RequestSpec::read)?;
        members.read("ending", Ending::read)?;
        members.read("upstream_tls", Upstream::read)?;
        let said = |name| members.get(name).map_or_else(nothing, |node| node.value().clone());
        Ok(Self {
            request: said("request"),
            ending: said("ending"),
            upstream: said("upstream_tls"),
        })
    }
}

/// An object in which members are replaced, even by `null`.
fn replaced(base: &Json, by: Json) -> Json {
    match (base, by) {
        (Json::Object(base), Json::Object(by)) => {
            let stays =
                |(name, _): &&(String, Json)| by.iter().all(|(replaced, _)| replaced != name);
            let stay: Vec<_> = base.iter().filter(stays).cloned().collect();
            Json::Object([stay, by].concat())
        }
        (_, other) => other,
    }
}

/// Reads a member of a step, merged with the default of the file.
fn of_step<T>(
    step: &Node<'_>,
    name: &str,
    member: &Json,
    read: impl Fn(&Node<'_>) -> Result<T, Invalid>,
) -> Result<T, Invalid> {
    read(&member.root(Integers::Digits))
        .map_err(|invalid| step.unusable(format!("{name}: {invalid}")))
}

impl RequestSpec {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&[
            "method", "path", "authority", "key", "headers", "body", "chunked", "unfinished",
            "trailers", "source", "client_cert",
        ])?;
        let body = members.read("body", Body::read)?;
        let method = if body.is_some() { "POST" } else { "GET" };
        let flag = |name| members.read(name, Node::bool).map(Option::unwrap_or_default);
        let mut headers = Vec::new();
        for (member, name, usual) in [
            ("method", ":method", method),
            ("path", ":path", "/v1/models"),
            ("authority", ":authority", "gw.example"),
        ] {
            let value = members.read(member, nullable)?.unwrap_or(Some(usual.to_owned()));
            headers.extend(value.map(|value| (name.to_owned(), value)));
        }
        let key = members.read("key", owned)?;
        headers.extend(
            key.map(|key| ("authorization".to_owned(), format!("Bearer {{{{key {key}}}}}"))),
        );
        let sent = members.read("headers", |node| node.list(header))?;
        headers.extend(sent.unwrap_or_default());
        let source = members.read("source", nullable)?;
        Ok(Self {
            headers,
            trailers: members.read("trailers", Trailers::read)?.unwrap_or_default(),
            body: body.unwrap_or_default(),
            chunked: flag("chunked")?,
            unfinished: flag("unfinished")?,
            source: source.unwrap_or(Some("192.0.2.10:40000".to_owned())),
            client_cert: members.read("client_cert", owned)?,
        })
    }
}

impl Trailers {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        match node.value() {
            Json::Null => Ok(Self::Hidden),
            _ => Ok(Self::Shown(node.list(header)?.into())),
        }
    }

    /// The same names with mapped values.
    pub(super) fn map(&self, value: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Shown(list) => {
                let mapped = |(name, text): &(String, String)| (name.clone(), value(text));
                Self::Shown(list.iter().map(mapped).collect())
            }
            other => other.clone(),
        }
    }
}

fn header(node: &Node<'_>) -> Result<(String, String), Invalid> {
    match &*node.list(owned)? {
        [name, value] => Ok((name.clone(), value.clone())),
        _ => Err(node.expected("a name and a value")),
    }
}

impl Faults {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node
            .members(&["failing_edits", "no_clock", "no_headers", "never_shown", "keeps_bodies"])?;
        let flag = |name| members.read(name, Node::bool).map(Option::unwrap_or_default);
        let status = |n: &Node<'_>| u32::try_from(n.integer()?).map_err(|e| n.unusable(e));
        Ok(Self {
            failing_edits: members.read("failing_edits", status)?,
            no_clock: flag("no_clock")?,
            no_headers: flag("no_headers")?,
            never_shown: flag("never_shown")?,
            keeps_bodies: flag("keeps_bodies")?,
        })
    }
}

impl Ending {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&[
            "after_ns", "status", "headers", "body", "bytes_out", "upstream", "response", "cut",
        ])?;
        let cuts = [
            ("client", Cut::Client),
            ("upstream", Cut::Upstream),
            ("proxy before it sends", Cut::ProxyBefore),
            ("proxy after it has sent", Cut::ProxyAfter),
        ];
        Ok(Self {
            after_ns: members.read("after_ns", Node::integer)?.unwrap_or(0),
            status: members.read("status", Node::integer)?,
            headers: members
                .read("headers", |node| named(node, owned))?
                .into_iter()
                .flatten()
                .collect(),
            body: members.read("body", sizes)?.unwrap_or_default(),
            bytes_out: members.read("bytes_out", Node::integer)?,
            upstream: members.read("upstream", owned)?,
            response: members.read("response", Body::read)?.unwrap_or_default(),
            cut: members.read("cut", |node| node.choice(&cuts))?,
        })
    }
}

fn sizes(node: &Node<'_>) -> Result<Box<[u64]>, Invalid> {
    node.items()?.map(|item| item.integer()).collect()
}

fn part(node: &Node<'_>) -> Result<Part, Invalid> {
    node.choice(&Part::ALL.map(|part| (part.word(), part)))
}
