//! Bodies: what requests to AI services ask for, and what their responses used.
//!
//! Everything here is incremental and bounded: it is fed the bytes of a body in any pieces, keeps no copy of them, and
//! gives the same result for every way of cutting them. It has no knowledge of keys, limits or hosts.

pub mod base64;
mod cut;
mod declared;
mod dialect;
pub mod eventstream;
mod format;
pub mod json;
pub mod mcp;
pub mod request;
pub mod response;
pub mod sse;
mod tokens;

pub use declared::Declared;
pub use dialect::Dialect;
pub use format::Format;
pub use tokens::TokenUsage;
