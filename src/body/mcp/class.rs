//! The kinds of methods.

/// A kind of methods of MCP, for metrics: clients choose the names of methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MethodClass {
    /// A call of a tool.
    Tool,
    /// Reading a resource, or subscribing to it.
    Resource,
    /// Getting a prompt.
    Prompt,
    /// Listing objects.
    List,
    /// A notification.
    Notification,
    /// A method by which client and server get to know each other.
    Lifecycle,
    /// Any other method.
    Other,
}

// === impl MethodClass ===

impl MethodClass {
    /// That of a method.
    pub fn of(method: &str) -> Self {
        match method {
            "tools/call" => Self::Tool,
            "resources/read" | "resources/subscribe" | "resources/unsubscribe" => Self::Resource,
            "prompts/get" => Self::Prompt,
            "tools/list" | "resources/list" | "resources/templates/list" | "prompts/list" => {
                Self::List
            }
            "initialize" | "ping" | "server/discover" => Self::Lifecycle,
            _ if method.starts_with("notifications/") => Self::Notification,
            _ => Self::Other,
        }
    }

    /// Its name in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::Resource => "resource",
            Self::Prompt => "prompt",
            Self::List => "list",
            Self::Notification => "notification",
            Self::Lifecycle => "lifecycle",
            Self::Other => "other",
        }
    }
}
