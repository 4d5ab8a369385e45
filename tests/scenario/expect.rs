//! The expectations of a step, as its file states them.

use vkey::decision::DenyReason;
use vkey::json::{Invalid, Json, Members, Node};

use super::body::Body;
use super::format::{json, named, owned, texts};

#[derive(Debug)]
pub(crate) struct Expect {
    pub(crate) action: Expected,
    pub(crate) status: Option<u64>,
    pub(crate) reason: Option<DenyReason>,
    pub(crate) audit: Vec<(String, Json)>,
    pub(crate) reply: ExpectReply,
    pub(crate) upstream: ExpectUpstream,
    /// Headers that the module adds to the response of a forwarded request; `None` if there are none.
    pub(crate) response_headers: Option<Vec<(String, Json)>>,
    /// The body of the response that the client gets; `None` if it is the upstream's.
    pub(crate) response_body: Option<Body>,
    pub(crate) metrics: Vec<(String, u64)>,
    pub(crate) log: Vec<String>,
}

/// The module's local reply.
#[derive(Debug, Default)]
pub(crate) struct ExpectReply {
    pub(crate) headers: Vec<(String, Json)>,
    /// Members of the body, which may have others too.
    pub(crate) body: Option<Json>,
}

/// The forwarded request.
#[derive(Debug, Default)]
pub(crate) struct ExpectUpstream {
    pub(crate) headers: ExpectFields,
    pub(crate) trailers: ExpectFields,
    /// The body; `None` if it is the client's.
    pub(crate) body: Option<Body>,
    /// The filter state that names provider credentials for the upstream gate.
    pub(crate) credentials: Option<String>,
}

/// Expected headers or trailers.
#[derive(Debug, Default)]
pub(crate) struct ExpectFields {
    pub(crate) present: Vec<(String, Json)>,
    pub(crate) absent: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// The request is neither forwarded nor answered: it never comes to its end.
    Abandon,
    /// The module replies itself with the usage of a key.
    Reply,
    /// The module replies that it is ready, without a key.
    Ready,
    Forward,
    /// The module does not see the request.
    Nothing,
    /// The request is forwarded without a key.
    Preflight,
    /// The request is forwarded without a key, because it is public.
    Public,
    Refuse,
    /// The upstream gate replies instead of the upstream.
    Stop,
    /// The module replaces the response of the upstream.
    Withhold,
}

impl Expected {
    /// Whether the request is forwarded, even if its response is not.
    pub(crate) fn forwards(self) -> bool {
        matches!(self, Self::Forward | Self::Preflight | Self::Public | Self::Stop | Self::Withhold)
    }

    /// Whether the module sends a local reply.
    pub(crate) fn sends_reply(self) -> bool {
        matches!(self, Self::Reply | Self::Ready | Self::Refuse | Self::Withhold)
    }

    /// Whether the request is denied.
    pub(crate) fn denies(self) -> bool {
        matches!(self, Self::Abandon | Self::Refuse | Self::Stop | Self::Withhold)
    }
}

// === impl Expect ===

impl Expect {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&[
            "action", "status", "reason", "audit", "reply", "upstream", "answer", "answer_body",
            "metrics", "log",
        ])?;
        let actions = [
            ("abandon", Expected::Abandon),
            ("answer", Expected::Reply),
            ("forward", Expected::Forward),
            ("nothing", Expected::Nothing),
            ("preflight", Expected::Preflight),
            ("public", Expected::Public),
            ("ready", Expected::Ready),
            ("refuse", Expected::Refuse),
            ("stop", Expected::Stop),
            ("withhold", Expected::Withhold),
        ];
        let expect = Self {
            action: members.require("action")?.choice(&actions)?,
            status: members.read("status", Node::integer)?,
            reason: members.read("reason", reason)?,
            audit: members.read("audit", |n| named(n, json))?.unwrap_or_default(),
            reply: members.read("reply", ExpectReply::read)?.unwrap_or_default(),
            upstream: members.read("upstream", ExpectUpstream::read)?.unwrap_or_default(),
            response_headers: members.read("answer", |n| named(n, json))?,
            response_body: members.read("answer_body", Body::read)?,
            metrics: members.read("metrics", |n| named(n, integer))?.unwrap_or_default(),
            log: texts(&members, "log")?,
        };
        expect.consistent().map_err(|problem| node.unusable(problem))?;
        Ok(expect)
    }

    fn consistent(&self) -> Result<(), &'static str> {
        let replies = self.action.sends_reply();
        let upstream = !self.upstream.is_empty();
        let reply = !self.reply.headers.is_empty() || self.reply.body.is_some();
        if replies != self.status.is_some() {
            Err("status: expected with refuse, withhold, answer and ready, and only there")
        } else if self.action.denies() && self.reason.is_none() {
            Err("reason: expected with refuse, withhold, stop and abandon")
        } else if !self.action.denies() && self.action != Expected::Forward && self.reason.is_some()
        {
            Err("reason: expected with refuse, withhold, stop or forward")
        } else if upstream && !self.action.forwards() {
            Err("upstream: expected with forward, preflight, public, withhold and stop only")
        } else if (self.response_headers.is_some() || self.response_body.is_some())
            && self.action != Expected::Forward
        {
            Err("answer, answer_body: expected with forward only")
        } else if reply && !replies {
            Err("reply: expected with refuse, withhold, answer and ready only")
        } else {
            Ok(())
        }
    }
}

impl ExpectReply {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["headers", "body"])?;
        let headers = members.read("headers", |n| named(n, json))?;
        Ok(Self { headers: headers.unwrap_or_default(), body: members.read("body", json)? })
    }
}

impl ExpectUpstream {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["present", "absent", "body", "trailers", "credentials"])?;
        let trailers =
            |node: &Node<'_>| ExpectFields::of_members(&node.members(&["present", "absent"])?);
        Ok(Self {
            headers: ExpectFields::of_members(&members)?,
            trailers: members.read("trailers", trailers)?.unwrap_or_default(),
            body: members.read("body", Body::read)?,
            credentials: members.read("credentials", owned)?,
        })
    }

    fn is_empty(&self) -> bool {
        let is_plain = self.body.is_none() && self.credentials.is_none();
        self.headers.is_empty() && self.trailers.is_empty() && is_plain
    }
}

impl ExpectFields {
    fn of_members(members: &Members<'_>) -> Result<Self, Invalid> {
        let present = members.read("present", |n| named(n, json))?;
        Ok(Self { present: present.unwrap_or_default(), absent: texts(members, "absent")? })
    }

    fn is_empty(&self) -> bool {
        self.present.is_empty() && self.absent.is_empty()
    }
}

fn reason(node: &Node<'_>) -> Result<DenyReason, Invalid> {
    DenyReason::from_code(node.string()?).ok_or_else(|| node.expected("a reason code"))
}

fn integer(node: &Node<'_>) -> Result<u64, Invalid> {
    node.integer()
}
