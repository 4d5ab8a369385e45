//! The request that `explain` is asked about.

use std::net::IpAddr;

use vkey::access::cidr::parse_address;
use vkey::access::{Access, CanonicalPath, Mcp, McpCall, Models, exact_host};
use vkey::body::mcp::{Arguments, ObjectKind};
use vkey::digest::is_sha256_hex;
use vkey::json::{Invalid, Json, Members, Node};

/// A request, as far as it is known.
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    host: Option<String>,
    source: Option<IpAddr>,
    client_cert: Option<String>,
    model: Member<[Box<str>; 1]>,
    mcp: Member<Call>,
}

/// A member that may be left out, or be `null`.
enum Member<T> {
    /// It is not said whether the request has it.
    Unknown,
    /// It has none.
    Nothing,
    Given(T),
}

/// An MCP call, without its arguments.
struct Call {
    method: String,
    server: Option<String>,
    object: Option<(ObjectKind, [Box<str>; 1])>,
}

/// What the request may name and call: one alternative if it is known.
pub(super) struct Known<'a> {
    alternatives: Vec<(Models<'a>, Mcp<'a>)>,
    /// What is to be given if there are several.
    pub(super) lacks: &'static str,
}

const NO_CALL: &str = "the decision depends on the model or the MCP call, which is not given: set model or mcp of the \
    request; null says that it has none";

const NO_ARGUMENTS: &str =
    "the decision depends on the arguments of the call, which are not known here";

/// The members that name an object, and its kind.
const OBJECTS: [(&str, ObjectKind); 4] = [
    ("tool", ObjectKind::Tool),
    ("resource", ObjectKind::Resource),
    ("prompt", ObjectKind::Prompt),
    ("task", ObjectKind::Task),
];

impl Request {
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members =
            node.members(&["method", "path", "host", "source", "clientCert", "model", "mcp"])?;
        let request = Self {
            method: text(&members.require("method")?)?,
            path: text(&members.require("path")?)?,
            host: members.read("host", text)?,
            source: members.read("source", |node| {
                let address = parse_address(node.string()?.as_bytes());
                address.ok_or_else(|| node.expected("an address, e.g. 10.1.2.3 or 2001:db8::1"))
            })?,
            client_cert: members.read("clientCert", |node| match node.string()? {
                digits if is_sha256_hex(digits) => Ok(digits.to_ascii_lowercase()),
                _ => Err(node.expected("a SHA-256 in 64 hexadecimal digits")),
            })?,
            model: Member::read(&members, "model", |node| Ok([node.string()?.into()]))?,
            mcp: Member::read(&members, "mcp", Call::read)?,
        };
        match (&request.model, &request.mcp) {
            (Member::Given(_), Member::Given(_)) => {
                Err(node.expected("model or mcp: no request names a model and makes an MCP call"))
            }
            _ => Ok(request),
        }
    }

    /// The access that it asks for, with what it names and calls.
    pub(super) fn access<'a>(
        &'a self,
        now_secs: u64,
        path: &CanonicalPath<'a>,
        (models, mcp): (Models<'a>, Mcp<'a>),
    ) -> Access<'a> {
        Access {
            now_secs,
            method: &self.method,
            host: self.host.as_deref().and_then(|host| exact_host(host.as_bytes())),
            path: path.clone(),
            source: self.source,
            client_cert: self.client_cert.as_deref(),
            models,
            mcp,
        }
    }
}

fn text(node: &Node<'_>) -> Result<String, Invalid> {
    node.string().map(str::to_owned)
}

impl<T> Member<T> {
    fn read(
        members: &Members<'_>,
        name: &'static str,
        read: impl FnOnce(&Node<'_>) -> Result<T, Invalid>,
    ) -> Result<Self, Invalid> {
        Ok(match members.get(name) {
            None => Self::Unknown,
            Some(node) if *node.value() == Json::Null => Self::Nothing,
            Some(node) => Self::Given(read(&node)?),
        })
    }
}

impl Call {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&["method", "server", "tool", "resource", "prompt", "task"])?;
        let mut objects =
            OBJECTS.into_iter().filter_map(|(name, kind)| Some((members.get(name)?, kind)));
        let object = match (objects.next(), objects.next()) {
            (Some((name, kind)), None) => Some((kind, [name.string()?.into()])),
            (None, _) => None,
            _ => return Err(node.expected("one of tool, resource, prompt and task")),
        };
        let method = members.read("method", text)?;
        let implied = object.as_ref().map(|(kind, _)| McpCall::using(*kind, &[], None).method);
        let method = method.or(implied.map(str::to_owned));
        Ok(Self {
            method: method
                .ok_or_else(|| node.expected("method, tool, resource, prompt or task"))?,
            server: members.read("server", text)?,
            object,
        })
    }

    fn call<'a>(&'a self, arguments: Option<&'a Arguments>) -> Mcp<'a> {
        let object = self.object.as_ref().map(|(kind, names)| (*kind, names.as_slice()));
        Mcp::Call(McpCall {
            method: &self.method,
            server: self.server.as_deref(),
            object,
            arguments,
        })
    }
}

impl<'a> Known<'a> {
    /// `unmet`: arguments that meet no condition.
    pub(super) fn of(request: &'a Request, unmet: &'a Arguments) -> Self {
        let Request { model, mcp, .. } = request;
        let mut lacks = NO_CALL;
        let models = match model {
            Member::Given(names) => vec![Models::Named { names, open_ended: false }],
            Member::Unknown if !matches!(mcp, Member::Given(_)) => {
                vec![Models::None, Models::Unread]
            }
            Member::Unknown | Member::Nothing => vec![Models::None],
        };
        let calls = match mcp {
            Member::Given(call) => {
                lacks = NO_ARGUMENTS;
                vec![call.call(None), call.call(Some(unmet))]
            }
            Member::Unknown if !matches!(model, Member::Given(_)) => vec![Mcp::None, Mcp::Unread],
            Member::Unknown | Member::Nothing => vec![Mcp::None],
        };
        let pairs = models.iter().flat_map(|models| calls.iter().map(|mcp| (*models, *mcp)));
        // No request is both.
        let is_both = |(models, mcp): &(Models<'_>, Mcp<'_>)| {
            (*models, *mcp) == (Models::Unread, Mcp::Unread)
        };
        Self { alternatives: pairs.filter(|pair| !is_both(pair)).collect(), lacks }
    }

    /// The alternatives.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Models<'a>, Mcp<'a>)> {
        self.alternatives.iter().copied()
    }
}
