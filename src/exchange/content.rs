//! What the body of a request says.

use crate::body::mcp::Message;
use crate::body::request::RequestFacts;

/// What a body says.
#[derive(Debug)]
pub enum Content {
    /// What an AI request asks for.
    Ai(RequestFacts),
    /// A message of MCP.
    Mcp(Message),
}

// === impl Content ===

impl Content {
    /// What an AI request asks for.
    pub fn facts(&self) -> Option<&RequestFacts> {
        match self {
            Self::Ai(facts) => Some(facts),
            Self::Mcp(_) => None,
        }
    }

    /// A message of MCP.
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Ai(_) => None,
            Self::Mcp(message) => Some(message),
        }
    }
}
