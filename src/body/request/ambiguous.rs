//! Request targets that are not understood for certain.

/// What a path or query asks for is not known for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AmbiguousTarget {
    /// Servers could read the model in it differently.
    Model,
    /// The query has a parameter that changes the method, the headers or the form of the response.
    Parameter,
}

// === impl AmbiguousTarget ===

impl AmbiguousTarget {
    /// What is wrong with the path or the query and what to send instead, for the caller.
    pub fn message(self) -> &'static str {
        match self {
            Self::Model => {
                "the name of a model or deployment in the path or query can be read in more than one way; name one in \
                 plain form"
            }
            Self::Parameter => {
                "the query changes the method or the form of the response, which the gate must read; leave out \
                 fields, callback and parameters with a dollar sign, and send no alt but json or sse"
            }
        }
    }
}
