//! TLS of the server: 1.2 and 1.3, with client certificates where an authority is named.

use std::fmt;
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use crate::certificates::certificates;

/// Why there is no TLS.
#[derive(Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The file has no certificate in PEM.
    NoCertificate,
    /// The file has no private key in PEM.
    NoKey,
    /// The file has no authority in PEM.
    NoAuthority,
    /// The certificate, the key or an authority cannot be used.
    Unusable(String),
}

/// The settings of a server that shows a certificate. With `client_ca` it accepts only clients with a certificate of one
/// of these authorities. All are PEM.
///
/// # Errors
///
/// [`TlsError`]
pub fn server_config(
    cert: &[u8],
    key: &[u8],
    client_ca: Option<&[u8]>,
) -> Result<ServerConfig, TlsError> {
    let unusable = |error: &dyn fmt::Display| TlsError::Unusable(error.to_string());
    let chain = certificates(cert).ok_or(TlsError::NoCertificate)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsError::NoKey)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| unusable(&error))?;
    let config = match client_ca {
        None => config.with_no_client_auth(),
        Some(authorities) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(authorities).ok_or(TlsError::NoAuthority)? {
                roots.add(authority).map_err(|error| unusable(&error))?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.map_err(|error| unusable(&error))?)
        }
    };
    let mut config = config.with_single_cert(chain, key).map_err(|error| unusable(&error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("--cert has no certificate in PEM"),
            Self::NoKey => f.write_str("--key has no private key in PEM"),
            Self::NoAuthority => f.write_str("--client-ca has no certificate in PEM"),
            Self::Unusable(why) => write!(f, "the certificate cannot be used: {why}"),
        }
    }
}
