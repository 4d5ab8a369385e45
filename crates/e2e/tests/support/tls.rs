//! TLS for tests: certificates made on the spot, upstreams that count what reaches them, the
//! clusters of Envoy that lead there, and a client with a certificate.
//!
//! ```ignore
//! let authority = Authority::new("upstreams");
//! let upstream = Serve::tls(&authority.server(&["api.example"])).start();
//! let cluster = Cluster::tls("api", &upstream, &authority).sni("api.example").san("api.example");
//! let envoy = Envoy::start(options("label", &main, json!({})).edit(|config| cluster.install(config)));
//! envoy.send(&Request::new("GET", "/v1/models").bearer(&key));
//! envoy.stop();
//! assert_eq!(upstream.final_counts().requests, 1);
//! ```

mod authority;
mod client;
mod cluster;
mod counted;
mod http1;
mod http2;
mod old;
mod upstream;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;

pub(crate) use authority::{Authority, Leaf, LeafFiles};
pub(crate) use client::{Client, connect};
pub(crate) use cluster::Cluster;
pub(crate) use upstream::{Counts, Serve, Upstream};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
