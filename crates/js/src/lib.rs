//! The library for JavaScript: what the command does with keys, where the core alone can. The types are in
//! `npm/index.d.ts`. Errors have the sentences of the command, and hold no key, tag or secret.

#![cfg(target_arch = "wasm32")]

#[cfg(feature = "write")]
mod attenuate;
mod edge;
#[cfg(feature = "read")]
mod explain;
#[cfg(feature = "read")]
mod inspect;
#[cfg(feature = "write")]
mod mint;

#[cfg(feature = "write")]
pub use attenuate::attenuate;
#[cfg(feature = "read")]
pub use explain::explain;
#[cfg(feature = "read")]
pub use inspect::inspect;
#[cfg(feature = "write")]
pub use mint::mint;

#[cfg(feature = "write")]
use vkey::issuing::Names;

/// What the parts of a key are called in arguments.
#[cfg(feature = "write")]
const NAMES: Names = Names {
    only: "only",
    caveat: "caveat",
    meta: "meta",
    lifetime: "lifetime",
    not_before: "nbf",
    kind: "member",
};
