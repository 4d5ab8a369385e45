//! Certificate authorities, the certificates they sign and those they revoke.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair,
    KeyUsagePurpose, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, pki_types::PrivatePkcs8KeyDer};

use vkey::digest::sha256_hex;

use super::provider;

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(1);

/// A certificate authority of one test.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// `name` is the common name; two authorities of one name still have different keys.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    /// The authority's own certificate, for a trust bundle.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// The authority's own certificate as a file of that folder; returns its path.
    pub(crate) fn write(&self, folder: &Path, name: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, self.pem()).expect("the directory is ours");
        path
    }

    /// The trust bundle that holds this authority alone.
    pub(crate) fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("an authority's certificate");
        Arc::new(roots)
    }

    /// A server's certificate for DNS names and IP addresses, in that order.
    pub(crate) fn server(&self, names: &[&str]) -> Leaf {
        self.sign(names, "server", ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A client's certificate.
    pub(crate) fn client(&self, name: &str) -> Leaf {
        self.sign(&[], name, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// The PEM of a revocation list, with the certificates that it revokes.
    pub(crate) fn revocations(&self, revoked: &[&Leaf]) -> String {
        self.revocations_until(4000, revoked)
    }

    /// The same, good until the first day of that year.
    pub(crate) fn revocations_until(&self, year: i32, revoked: &[&Leaf]) -> String {
        let revoked = revoked.iter().map(|leaf| RevokedCertParams {
            serial_number: leaf.serial.clone(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(year, 1, 1),
            crl_number: SerialNumber::from(NEXT_SERIAL.fetch_add(1, Ordering::Relaxed)),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }

    fn sign(&self, names: &[&str], subject: &str, usage: ExtendedKeyUsagePurpose) -> Leaf {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let serial = SerialNumber::from(NEXT_SERIAL.fetch_add(1, Ordering::Relaxed));
        let mut params = CertificateParams::new(names).expect("names of a certificate");
        params.distinguished_name = common_name(subject);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.serial_number = Some(serial.clone());
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Leaf {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            key_pem: key.serialize_pem(),
            key: key.serialize_der(),
            serial,
        }
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Leaf {
    pem: String,
    certificate: CertificateDer<'static>,
    key_pem: String,
    key: Vec<u8>,
    serial: SerialNumber,
}

/// Where a certificate and its key lie.
#[derive(Clone)]
pub(crate) struct LeafFiles {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Leaf {
    /// The SHA-256 of the certificate, in lower-case hex: what a pin or `client_cert` names.
    pub(crate) fn sha256(&self) -> String {
        sha256_hex(&self.certificate)
    }

    pub(crate) fn pem(&self) -> &str {
        &self.pem
    }

    pub(crate) fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// Writes `<stem>.pem` and `<stem>.key`.
    pub(crate) fn write(&self, folder: &Path, stem: &str) -> LeafFiles {
        let certificate = folder.join(format!("{stem}.pem"));
        let key = folder.join(format!("{stem}.key"));
        fs::write(&certificate, &self.pem).expect("the directory is ours");
        fs::write(&key, &self.key_pem).expect("the directory is ours");
        LeafFiles { certificate, key }
    }

    pub(super) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(super) fn key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.key.clone()).into()
    }

    pub(super) fn certified(&self) -> Arc<CertifiedKey> {
        let chain = vec![self.certificate()];
        Arc::new(CertifiedKey::from_der(chain, self.key(), &provider()).expect("they match"))
    }
}
