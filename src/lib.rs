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
//! From the wire inwards: [`token`] and [`mac`] verify, [`claims`] and [`caveat`] read what was
//! verified, [`key`] holds it, [`keyring`] knows the rings, [`access`] brings a request to canonical
//! form, [`config`] compiles the plan, [`engine`] decides, [`cell`] counts and limits, [`decision`]
//! replies and [`audit`] writes it down. Limits are [`limit`]s by [`gcra`] and [`quota`], what is used
//! of them stands in a [`ledger`], what is left in an [`allowance`]. [`anomaly`] and [`failures`] raise
//! alerts, [`usage`] tells a key of its counts, and [`record`] is the form of all that is kept. Around
//! it stands [`host`], the seam to a proxy; `vm` runs the built module over it.

pub mod access;
pub mod allowance;
pub mod anomaly;
pub mod audit;
pub mod caveat;
pub mod cell;
pub mod cidr;
pub mod claims;
#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
mod decimal;
pub mod decision;
pub mod digest;
pub mod engine;
pub mod exchange;
pub mod failures;
pub mod gcra;
pub mod glob;
pub mod headers;
pub mod host;
pub mod json;
pub mod key;
pub mod keyring;
pub mod ledger;
pub mod limit;
pub mod mac;
pub mod quota;
pub mod record;
pub mod reply;
pub mod revocations;
pub mod sessions;
pub mod time;
pub mod token;
pub mod upstream_tls;
pub mod usage;
#[cfg(feature = "vm")]
pub mod vm;
