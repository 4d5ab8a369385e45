//! Messages of the Model Context Protocol (MCP): JSON-RPC 2.0 over streamable HTTP, of the revisions 2024-11-05 to
//! 2026-07-28.
//!
//! The reader of requests is closed: a message that servers could understand in different ways is not read.

mod arguments;
mod class;
mod finder;
mod headers;
pub mod lists;
mod message;
mod object;
mod parts;
mod places;
mod pointer;
mod reader;
mod wanted;

pub use arguments::{Arguments, Found};
pub use class::MethodClass;
pub use finder::{MAX_FOUND, MAX_FOUND_BYTES, MAX_NAMES};
pub use headers::{Era, Fault, Mirrors, Purpose};
pub use message::{MAX_ID_BYTES, MAX_OBJECTS, Message, MessageKind, Objects};
pub use object::ObjectKind;
pub use pointer::{MAX_POINTER_BYTES, MAX_SEGMENTS, Pointer, Segment};
pub use reader::MessageReader;
pub use wanted::{MAX_PLACES, Wanted};

#[cfg(test)]
mod tests;
