//! Why a body cannot be read.

use super::Limits;

/// Defines each cause once: variant, message.
macro_rules! causes {
    ($($variant:ident $message:literal,)*) => {
        /// Why a body cannot be read. A body that cannot be read is never forwarded where something depends on it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Unreadable {
            $(#[doc = $message] $variant,)*
        }

        impl Unreadable {
            /// Every cause.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What is wrong with the body and what to send instead, for the caller. It contains nothing of the body.
            pub fn message(self) -> &'static str {
                match self { $(Self::$variant => $message,)* }
            }
        }
    };
}

causes! {
    Batch "the body is a batch of JSON-RPC messages; send each in a request of its own",
    DuplicateMember "the JSON body has a member twice in one object; send each member once",
    Empty "the body is empty; send a JSON body",
    EmptyModel "the JSON body has an empty name of a model; name a model",
    Encoded "the body has a content-encoding; send it without one",
    FlawedText "the JSON body has a NUL or half a surrogate pair in a name or value that decides; send plain text there",
    Incomplete "the JSON body ends too early; send all of it",
    NotJson "the body is not valid JSON (RFC 8259); send strict JSON",
    NotRpc "the body is not a JSON-RPC 2.0 message that MCP has; send jsonrpc, method, an id that is a text or a whole number, and params as an object",
    NotUtf8 "the body is not UTF-8 without a byte order mark; send UTF-8",
    NothingNamed "the MCP message does not name what its method needs: a name, a uri or a taskId",
    OutOfRange "the JSON body has a number that is too large, negative or not whole where that is not allowed",
    SimilarMember "the JSON body has a member whose name differs from a known one in case only; spell it as documented",
    TooDeep "the JSON body is nested too deeply; send a flatter one",
    TooLong "the JSON body has a text or number that is too long where it decides; send a shorter one",
    TooManyArguments "the MCP message has too many arguments, or values in them, to decide; send fewer",
    TooManyMembers "the JSON body has too many members; send fewer",
    TooManyModels "the request names too many models or MCP servers; name at most 64 of each",
    TrailingBytes "the JSON body goes on after its end; send one JSON value",
    UndeclaredType "the body is not declared as JSON; send one content-type: application/json, in UTF-8",
    WrongType "the JSON body has a member of the wrong type",
}

impl Unreadable {
    /// Whether the body is not JSON in UTF-8, rather than JSON that lacks something.
    pub fn is_not_json(self) -> bool {
        matches!(
            self,
            Self::NotJson | Self::NotUtf8 | Self::Empty | Self::Incomplete | Self::TrailingBytes
        )
    }

    /// The bound that the body exceeds, or the place at which it cannot be read, for the caller. `member`: the name of a
    /// known member at which the reader stopped.
    pub fn detail(self, limits: Limits, member: Option<&str>) -> Option<String> {
        match self {
            Self::TooDeep => Some(format!("at most {} levels (body.max_depth)", limits.max_depth)),
            Self::TooManyMembers => Some(format!(
                "at most {} in open objects (body.max_open_keys)",
                limits.max_open_keys
            )),
            _ => member.map(|member| ["at ", member].concat()),
        }
    }
}
