//! What a request to an AI service asks for: the models that it can make run, how much output, whether a stream.
//!
//! One reader serves all formats: tables of places say which members of a body decide something, and what they say. It
//! is closed: a value whose type is not the expected one makes the body unreadable, and what leaves the choice of a model
//! to the server makes the request open-ended.

mod ambiguous;
mod escapes;
mod facts;
mod findings;
mod models;
mod options;
mod output;
mod places;
mod query;
mod reader;
mod target;
mod whole;

pub use ambiguous::AmbiguousTarget;
pub use facts::{Injection, RequestFacts};
pub use models::{MAX_MODELS, MAX_NAME_BYTES};
pub use reader::RequestReader;
pub use target::Target;

#[cfg(test)]
mod tests;
