//! Messages of the Model Context Protocol (MCP): JSON-RPC 2.0 over streamable HTTP, of the revisions 2024-11-05 to
//! 2026-07-28.

mod arguments;
pub mod lists;
mod object;
mod pointer;

pub use arguments::{Arguments, Found};
pub use object::ObjectKind;
pub use pointer::{MAX_POINTER_BYTES, MAX_SEGMENTS, Pointer, Segment};
