//! The MCP call of a request.

use crate::body::mcp::{Arguments, ObjectKind};

/// The call that a request makes by the Model Context Protocol, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Mcp<'a> {
    /// The request is no MCP call, so no restriction of MCP calls holds.
    #[default]
    None,
    /// The body that has the call is not read yet: every restriction of MCP calls is taken as holding. What is refused
    /// now is refused whatever the body says. What is not must be decided again with the body.
    Unread,
    /// The call.
    Call(McpCall<'a>),
}

/// A JSON-RPC call of the Model Context Protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct McpCall<'a> {
    /// The JSON-RPC method, e.g. `tools/call`.
    pub method: &'a str,
    /// The MCP server, if several share one path.
    pub server: Option<&'a str>,
    /// What the call names, if anything. Every name must be allowed.
    pub object: Option<(ObjectKind, &'a [Box<str>])>,
    /// The arguments of a tool. `None` stands for any: an entry with conditions then allows what has its name. So a call
    /// must not be decided without them, only whether a tool is shown.
    pub arguments: Option<&'a Arguments>,
}

// === impl Mcp ===

impl<'a> Mcp<'a> {
    /// Whether a restriction holds that `allows` some calls.
    pub fn is(self, allows: impl FnOnce(&McpCall<'a>) -> bool) -> bool {
        match self {
            Self::None => false,
            Self::Unread => true,
            Self::Call(call) => allows(&call),
        }
    }
}

// === impl McpCall ===

impl<'a> McpCall<'a> {
    /// The call that uses a listed object. Who may make it is shown the object.
    pub fn using(kind: ObjectKind, names: &'a [Box<str>], server: Option<&'a str>) -> Self {
        let method = match kind {
            ObjectKind::Tool => "tools/call",
            ObjectKind::Resource => "resources/read",
            ObjectKind::Prompt => "prompts/get",
            ObjectKind::Task => "tasks/get",
        };
        Self { method, server, object: Some((kind, names)), arguments: None }
    }

    /// The names of its objects.
    pub fn names(&self) -> &'a [Box<str>] {
        self.object.map_or(&[], |(_, names)| names)
    }
}
