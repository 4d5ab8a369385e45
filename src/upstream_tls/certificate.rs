//! The names that a certificate bears (RFC 9525; IP addresses, RFC 5280, section 4.2.1.6).

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, DnsName, ServerName};
use webpki::EndEntityCert;

use super::{NameProof, UpstreamHost};

/// Whether the first certificate of a PEM text bears the name of a host. One that cannot be read bears
/// none.
pub fn bears_name(pem: &[u8], host: &UpstreamHost<'_>) -> NameProof {
    let name = match host {
        UpstreamHost::Address(address) => Some(ServerName::IpAddress((*address).into())),
        UpstreamHost::Name(name) => DnsName::try_from(&**name).ok().map(ServerName::DnsName),
        UpstreamHost::Unreadable => None,
    };
    let certificate = CertificateDer::from_pem_slice(pem).ok();
    let borne = name.zip(certificate).is_some_and(|(name, certificate)| {
        let certificate = EndEntityCert::try_from(&certificate);
        certificate.is_ok_and(|cert| cert.verify_is_valid_for_subject_name(&name).is_ok())
    });
    if borne { NameProof::Borne } else { NameProof::NotBorne }
}

/// Whether the first of a certificate's DNS names, which is all that some hosts show, is that of a host:
/// the same, or with `*` for its first label.
pub fn is_first_name(first: &str, host: &UpstreamHost<'_>) -> NameProof {
    let UpstreamHost::Name(name) = host else {
        return NameProof::FirstDiffers;
    };
    let first = first.to_ascii_lowercase();
    let wildcard = first.strip_prefix('*').is_some_and(|suffix| {
        let parent = name.find('.').and_then(|dot| name.get(dot..));
        parent.is_some_and(|parent| parent == suffix && parent.matches('.').count() > 1)
    });
    if *name == *first || wildcard { NameProof::Borne } else { NameProof::FirstDiffers }
}
