//! The facts of a request.

use std::ops::Range;

use crate::body::Format;

use super::output::Output;

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// The format of the request, and of its response.
    pub format: Format,
    /// Every model that the request can make run: first the one that is asked for, and then the others in the order in
    /// which they were found.
    pub models: Box<[Box<str>]>,
    /// Whether models may run that nothing names, e.g. one that the server chooses.
    pub open_ended: bool,
    /// Whether a stream is asked for.
    pub stream: bool,
    /// The most output tokens of each candidate, if the request says so. A batch has a bound for each of its requests.
    pub max_output: Option<u64>,
    /// How many candidates are generated, for each of which the bound counts.
    pub candidates: u64,
    /// The MCP servers that the provider is told to call: URLs and ids; empty for one that has neither.
    pub hosted_mcp: Box<[Box<str>]>,
    /// Whether the response comes before the result, so that it does not report what is used.
    pub deferred: bool,
    /// An estimate of the tokens of the input.
    pub input_tokens: u64,
    /// What makes a stream report its usage; `None` if it does already, or for formats that cannot be asked.
    pub inject: Option<Injection>,
    /// How much output there may be.
    pub(super) output: Output,
}

/// A change of a body that makes its stream report its usage, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injection {
    /// The bytes of the body that are replaced; empty to insert.
    pub at: Range<u64>,
    /// What replaces them.
    pub text: &'static str,
    /// Whether the event with the usage is not for the client, which did not ask for it.
    pub strips: bool,
}

// === impl RequestFacts ===

impl RequestFacts {
    /// The model that is asked for, if one is named.
    pub fn model(&self) -> Option<&str> {
        self.models.first().map(|model| &**model)
    }

    /// The tokens of output to reserve. `default_tokens`: for a candidate without a bound. 0 for a request that generates
    /// nothing, e.g. for embeddings.
    pub fn reserve_output(&self, default_tokens: u64) -> u64 {
        self.output.reserve(default_tokens)
    }
}
