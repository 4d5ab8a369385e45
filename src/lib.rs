//! Virtual keys for AI and MCP traffic.
//!
//! A *virtual key* is an HMAC-signed credential that a proxy validates by itself: no database and no
//! network call sits on the request path. Its laws:
//!
//! 1. **Closed.** No decision is a denial, and nothing here panics.
//! 2. **Verify, then parse.** No byte of an unverified key reaches a JSON parser, a log line or a
//!    shared-data key, except the short header of a JWT.
//! 3. **A caveat only narrows.** Anyone can add one, nobody can remove, reorder or widen one.
//! 4. **Counts are exact** over all workers of one proxy, first request included.
//! 5. **Secrets stay inside.** What holds one has no `Debug` and no way into a text.
//! 6. **One decision function.** The module, the command and the tests run this code.
//!
//! The core is a function of its arguments: no clock, no environment, no randomness, no I/O.
//! The rooms, lowest first; each knows only those before it:
//!
//! - [`time`], [`digest`], [`json`], [`record`], [`glob`], [`decision`]: what everything else is made of;
//! - [`body`]: the bodies of AI requests and of their responses;
//! - [`alerts`], [`limits`]: what is counted, and what is unusual;
//! - [`access`]: what a request asks for, and what a restriction allows;
//! - [`key`]: from the bytes of a credential to a verified key;
//! - [`issuing`]: minting, narrowing and showing keys, away from a gate;
//! - [`headers`], [`reply`], [`audit`]: what is read of a request, and what is said of it;
//! - [`upstream_tls`]: the policy for connections to upstreams;
//! - [`host`]: the seam to a proxy;
//! - [`config`], [`engine`], [`exchange`]: the plan, the decisions under it, one request from its headers to its
//!   audit line;
//! - [`gate`]: what the module does with the callbacks of a proxy.
//!
//! The package `vkey-vm` runs the module, and `vkey-cli` is the command.

pub mod access;
pub mod alerts;
pub mod audit;
pub mod body;
mod bytes;
pub mod config;
pub mod decision;
pub mod digest;
pub mod engine;
pub mod exchange;
pub mod gate;
pub mod glob;
pub mod headers;
pub mod host;
pub mod issuing;
pub mod json;
pub mod key;
pub mod ledger;
pub mod limits;
pub mod record;
pub mod reply;
pub mod time;
pub mod upstream_tls;
pub mod usage;
