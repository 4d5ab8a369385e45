//! A client that speaks TLS and may have a certificate.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use super::super::Connection;
use super::super::http::connect as connect_tcp;
use super::{Authority, Leaf, provider};

/// A client that remembers its sessions: what the server allows it to resume, it resumes.
pub(crate) struct Client {
    config: Arc<ClientConfig>,
    resumed: AtomicU64,
}

impl Client {
    /// A client that trusts `authority` and may have a certificate of its own.
    pub(crate) fn new(authority: &Authority, certificate: Option<&Leaf>) -> Self {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(authority.roots());
        let config = match certificate {
            Some(leaf) => builder
                .with_client_auth_cert(vec![leaf.certificate()], leaf.key())
                .expect("the key is the certificate's"),
            None => builder.with_no_client_auth(),
        };
        Self { config: Arc::new(config), resumed: AtomicU64::new(0) }
    }

    /// A connection to a server that must prove `name`.
    ///
    /// Under TLS 1.3 a server that refuses the client's certificate says so after the client is
    /// done with its handshake: the first answer is then the error.
    pub(crate) fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Connection> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let config = Arc::clone(&self.config);
        let mut session = ClientConnection::new(config, name).expect("a session");
        let mut stream = connect_tcp(address)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        if session.handshake_kind() == Some(HandshakeKind::Resumed) {
            self.resumed.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Connection::over(StreamOwned::new(session, stream)))
    }

    /// How many connections have resumed a session.
    pub(crate) fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::SeqCst)
    }
}

/// One connection of a client that remembers nothing.
pub(crate) fn connect(
    address: SocketAddr,
    authority: &Authority,
    name: &str,
    certificate: Option<&Leaf>,
) -> io::Result<Connection> {
    Client::new(authority, certificate).connect(address, name)
}
