//! The lists of a response, of which a client sees what its key may use.

use std::cell::LazyCell;
use std::fmt;
use std::net::IpAddr;
use std::rc::Rc;

use crate::access::{Access, AmbiguousPath, CanonicalPath, Mcp, Models, exact_host};
use crate::body::mcp::ObjectKind;
use crate::body::mcp::lists::{Asked, Filter, Handling};
use crate::engine::{Engine, KnownKey};

/// The filter of the response to a request, and who asked.
pub struct Filtering {
    /// What the request asked for.
    pub asked: Asked,
    /// Whether the revision of MCP is 2026-07-28 or later.
    pub is_modern: bool,
    /// Who asked.
    pub viewer: Viewer,
    /// The filter, once the response has begun.
    pub filter: Option<Filter>,
    /// How much of a body that the host holds was read, in bytes.
    pub read_bytes: u64,
    /// Whether nothing more of the response may reach the client.
    pub is_cut: bool,
}

/// Who sees a list: a key, and what decides on its calls besides.
pub struct Viewer {
    /// The key.
    pub key: Rc<KnownKey>,
    /// The time of the request, Unix seconds.
    pub now_secs: u64,
    /// The authority that the client wrote.
    pub authority: Box<[u8]>,
    /// The target of the request, with its query.
    pub path: Box<[u8]>,
    /// The address of the client.
    pub source: Option<IpAddr>,
    /// SHA-256 of the client's certificate.
    pub client_cert: Option<String>,
}

// === impl Filtering ===

impl Filtering {
    /// The filter of a response that has not begun.
    pub fn new(asked: Asked, is_modern: bool, viewer: Viewer) -> Self {
        Self { asked, is_modern, viewer, filter: None, read_bytes: 0, is_cut: false }
    }

    /// What is done with the body of the response, once that has begun.
    pub fn handling(&self) -> Option<Handling> {
        self.filter.as_ref().map(Filter::handling)
    }
}

impl fmt::Debug for Filtering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Filtering").field("asked", &self.asked).finish_non_exhaustive()
    }
}

// === impl Viewer ===

impl Viewer {
    /// What tells whether the viewer may call an object: the decision that a call of it would get, whatever its arguments.
    /// A call is a `POST`. Few responses have an object, so the path is read when one asks.
    pub fn sees<'a>(&'a self, engine: &'a Engine) -> impl Fn(ObjectKind, &str) -> bool + 'a {
        let path = LazyCell::new(|| {
            let path = read_path(&self.key, &self.path).ok()?;
            // Without a server, nothing is seen that is restricted to some.
            Some((engine.mcp_server(&path).unwrap_or_default(), path))
        });
        move |kind, name| {
            let Some((target, path)) = &*path else { return false };
            let access = Access {
                now_secs: self.now_secs,
                method: "POST",
                host: exact_host(&self.authority),
                path: path.clone(),
                source: self.source,
                client_cert: self.client_cert.as_deref(),
                models: Models::None,
                mcp: Mcp::Call(target.any_call()),
            };
            engine.shows(&self.key, &access, kind, name)
        }
    }
}

/// The path of a request of a key.
///
/// # Errors
///
/// [`AmbiguousPath`] if the key may not use it in that spelling.
fn read_path<'a>(key: &KnownKey, target: &'a [u8]) -> Result<CanonicalPath<'a>, AmbiguousPath> {
    CanonicalPath::parse(target).or_else(|ambiguous| match key.keeps_escaped_slashes() {
        true => CanonicalPath::parse_keeping_slashes(target),
        false => Err(ambiguous),
    })
}
