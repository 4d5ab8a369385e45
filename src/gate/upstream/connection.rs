//! The connection to an upstream, as a proxy shows it.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;

use crate::host::{Host, Property, number_property, text_property};
use crate::upstream_tls::{
    Connection, NameProof, TlsVersion, UpstreamHost, is_first_name, name_proof,
};

/// The capacity of the cache of certificate names. A full cache is cleared: a proxy has few upstreams, and certificates
/// change.
const MAX_NAMES: usize = 256;

/// Envoy's `ResponseCodeDetails` for a response of the upstream.
const VIA_UPSTREAM: &[u8] = b"via_upstream";

/// The names in certificates, so that no certificate is read twice.
#[derive(Default)]
pub(in crate::gate) struct NameCache(RefCell<BTreeMap<(String, String), NameProof>>);

/// The connection of the current request.
pub(in crate::gate) struct HostConnection<'a, H> {
    host: &'a H,
    names: &'a NameCache,
    digest: OnceCell<Option<String>>,
    tls_version: OnceCell<Option<Vec<u8>>>,
    /// Its names were checked already.
    named: bool,
}

/// Identifies a connection by everything that is checked about it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::gate) struct Fingerprint {
    tls_version: Option<Vec<u8>>,
    digest: Option<String>,
}

impl Fingerprint {
    /// The digest of its certificate, in lower case.
    pub(in crate::gate) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Whether a connection has the certificate of this one.
    pub(in crate::gate) fn has_certificate<H: Host>(&self, of: &HostConnection<'_, H>) -> bool {
        self.digest.is_some() && self.digest.as_deref() == of.digest()
    }

    /// Whether it is the fingerprint of a connection.
    pub(in crate::gate) fn is_of<H: Host>(&self, connection: HostConnection<'_, H>) -> bool {
        connection.fingerprint() == *self
    }
}

/// The local address of the connection, which identifies it.
pub(in crate::gate) fn local_address(host: &impl Host) -> String {
    text_property(host, Property::UpstreamLocalAddress).unwrap_or_default()
}

/// Identifies the connection among those of other attempts of the request. A Unix socket has no address.
pub(in crate::gate) fn connection_id(host: &impl Host) -> String {
    let address = local_address(host);
    if !address.is_empty() {
        return address;
    }
    let attempt = number_property(host, Property::UpstreamAttempt);
    attempt.map(|number| format!("attempt {number}")).unwrap_or_default()
}

impl<'a, H: Host> HostConnection<'a, H> {
    pub(in crate::gate) fn new(host: &'a H, names: &'a NameCache) -> Self {
        Self { host, names, digest: OnceCell::new(), tls_version: OnceCell::new(), named: false }
    }

    /// The same connection, whose certificate is known to have the right name.
    pub(in crate::gate) fn named(self) -> Self {
        Self { named: true, ..self }
    }

    /// Its fingerprint. Properties that were read already are not read again.
    pub(in crate::gate) fn fingerprint(self) -> Fingerprint {
        let (digest, tls_version) = (self.digest().map(str::to_owned), self.version().cloned());
        Fingerprint { tls_version, digest }
    }

    fn version(&self) -> Option<&Vec<u8>> {
        let version = || self.host.property(Property::UpstreamTlsVersion);
        self.tls_version.get_or_init(version).as_ref()
    }

    /// The digest of its certificate, in lower case.
    pub(in crate::gate) fn digest(&self) -> Option<&str> {
        let digest = || text_property(self.host, Property::UpstreamCertificateDigest);
        let lower = || digest().map(|digest| digest.to_ascii_lowercase());
        self.digest.get_or_init(lower).as_deref()
    }

    /// A host that shows the certificate shows all its names; others show the first.
    fn read_name(&self, host: &UpstreamHost<'_>, digest_shown: bool) -> NameProof {
        if let Some(pem) = self.host.property(Property::UpstreamCertificate) {
            return name_proof(&pem, host);
        }
        match (text_property(self.host, Property::UpstreamDnsName), host) {
            (Some(first), _) => is_first_name(&first, host),
            // The host shows a certificate without a first name.
            (None, UpstreamHost::Name(_)) if digest_shown => NameProof::Differs,
            _ => NameProof::NotShown,
        }
    }
}

impl<H: Host> Connection for HostConnection<'_, H> {
    fn is_up(&self) -> bool {
        is_up(self.host)
    }

    fn tls_version(&self) -> Option<TlsVersion> {
        let version = std::str::from_utf8(self.version()?);
        Some(version.map_or(TlsVersion::Unknown, TlsVersion::parse))
    }

    fn certificate_digest(&self) -> Option<String> {
        self.digest().map(str::to_owned)
    }

    fn name_proof(&self, host: &UpstreamHost<'_>) -> NameProof {
        if self.named {
            return NameProof::Matches;
        }
        let Some(digest) = self.digest() else {
            return self.read_name(host, false);
        };
        let entry = (digest.to_owned(), host.to_string());
        if let Some(proof) = self.names.get(&entry) {
            return proof;
        }
        let proof = self.read_name(host, true);
        self.names.insert(entry, proof);
        proof
    }

    /// A certificate without a subject has a subject alternative name (RFC 5280, section 4.1.2.6).
    fn has_client_certificate(&self) -> bool {
        let names = [
            Property::UpstreamLocalSubject,
            Property::UpstreamLocalDnsName,
            Property::UpstreamLocalUri,
        ];
        names.into_iter().any(|name| self.host.property(name).is_some())
    }
}

/// Whether the connection of the request is up and its handshake done. A Unix socket has no address. The time spent
/// connecting is also set if connecting failed; the response is then the proxy's own.
pub(in crate::gate) fn is_up(host: &impl Host) -> bool {
    host.property(Property::UpstreamLocalAddress).is_some()
        || (host.property(Property::UpstreamReadyDuration).is_some() && !reports_local_reply(host))
}

/// Whether the response is a local reply of the proxy. A filter may reply without details, but a host that shows
/// attempts has details for every response of an upstream.
pub(in crate::gate) fn is_local_reply(host: &impl Host) -> bool {
    match host.property(Property::ResponseCodeDetails) {
        Some(details) => details != VIA_UPSTREAM,
        None => host.property(Property::UpstreamAttempt).is_some(),
    }
}

/// Whether the host reports a local reply. Before there is a response, it reports nothing.
fn reports_local_reply(host: &impl Host) -> bool {
    host.property(Property::ResponseCodeDetails).is_some_and(|details| details != VIA_UPSTREAM)
}

impl NameCache {
    fn get(&self, entry: &(String, String)) -> Option<NameProof> {
        self.0.try_borrow().ok()?.get(entry).copied()
    }

    fn insert(&self, entry: (String, String), proof: NameProof) {
        if let Ok(mut names) = self.0.try_borrow_mut() {
            if names.len() >= MAX_NAMES {
                names.clear();
            }
            names.insert(entry, proof);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Rules;
    use crate::host::{MemoryHost, MemoryStore};

    fn show(host: &MemoryHost, property: Property, text: &str) {
        host.show(property.path(), text);
    }

    fn proof(host: &MemoryHost, names: &NameCache, name: &str) -> NameProof {
        HostConnection::new(host, names).name_proof(&UpstreamHost::parse(name.as_bytes()))
    }

    #[test]
    fn a_certificate_is_read_once_for_each_name() {
        let (host, names) = (MemoryHost::new(MemoryStore::new(Rules::Envoy)), NameCache::default());
        show(&host, Property::UpstreamCertificateDigest, "AB");
        show(&host, Property::UpstreamDnsName, "a.example");
        assert_eq!(proof(&host, &names, "a.example"), NameProof::Matches);
        assert_eq!(proof(&host, &names, "b.example"), NameProof::FirstDiffers);
        show(&host, Property::UpstreamDnsName, "b.example");
        show(&host, Property::UpstreamCertificateDigest, "ab");
        assert_eq!(proof(&host, &names, "a.example"), NameProof::Matches);
        assert_eq!(proof(&host, &names, "b.example"), NameProof::FirstDiffers);
        show(&host, Property::UpstreamCertificateDigest, "ac");
        assert_eq!(proof(&host, &names, "b.example"), NameProof::Matches);
        // Without a digest nothing says which certificate it is.
        show(&host, Property::UpstreamCertificateDigest, "");
        assert_eq!(proof(&host, &names, "b.example"), NameProof::Matches);
        show(&host, Property::UpstreamDnsName, "c.example");
        assert_eq!(proof(&host, &names, "b.example"), NameProof::FirstDiffers);
        assert_eq!(names.0.borrow().len(), 3);
    }

    #[test]
    fn names_are_forgotten_before_they_are_too_many() {
        let (host, names) = (MemoryHost::new(MemoryStore::new(Rules::Envoy)), NameCache::default());
        show(&host, Property::UpstreamDnsName, "a.example");
        for certificate in 0..=MAX_NAMES {
            assert_eq!(names.0.borrow().len(), certificate);
            show(&host, Property::UpstreamCertificateDigest, &format!("{certificate:064x}"));
            assert_eq!(proof(&host, &names, "a.example"), NameProof::Matches);
        }
        assert_eq!(names.0.borrow().len(), 1);
    }
}
