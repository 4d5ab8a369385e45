//! The yardstick of the benchmark: a module that does nothing, on the proxy-wasm SDK.
//!
//! It exports every callback that the SDK exports, as modules on the SDK do, and leaves all of them
//! as they are. What it costs is what the proxy charges for calling a module at all.

#![allow(missing_docs, reason = "the one public function is that of the SDK's macro")]

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

proxy_wasm::main! {{
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Request))
    }
}

struct Request;

impl Context for Request {}

impl HttpContext for Request {}
