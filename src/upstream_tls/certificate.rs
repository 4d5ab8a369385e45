//! Checks the names in a certificate (RFC 9525; IP addresses: RFC 5280, section 4.2.1.6).

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, DnsName, ServerName};
use webpki::EndEntityCert;

use super::{NameProof, UpstreamHost};

/// Whether the first certificate of a PEM text is valid for the name of a host. An unreadable one is valid
/// for none.
pub fn name_proof(pem: &[u8], host: &UpstreamHost<'_>) -> NameProof {
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
    if borne { NameProof::Matches } else { NameProof::Differs }
}

/// Whether the first DNS name of a certificate, which is all that some hosts show, matches a host: it is
/// equal, or has `*` for the first label.
pub fn is_first_name(first: &str, host: &UpstreamHost<'_>) -> NameProof {
    let UpstreamHost::Name(name) = host else {
        return NameProof::FirstDiffers;
    };
    let first = first.to_ascii_lowercase();
    let wildcard = first.strip_prefix('*').is_some_and(|suffix| {
        let parent = name.find('.').and_then(|dot| name.get(dot..));
        parent.is_some_and(|parent| parent == suffix && parent.matches('.').count() > 1)
    });
    if *name == *first || wildcard { NameProof::Matches } else { NameProof::FirstDiffers }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    /// A certificate with these alternative names, and a common name that must be ignored.
    fn certificate(names: &[&str]) -> String {
        let names = names.iter().map(|name| match name.parse() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName((*name).try_into().unwrap()),
        });
        let mut params = CertificateParams::default();
        params.subject_alt_names = names.collect();
        params.distinguished_name.push(DnType::CommonName, "common.example");
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    }

    fn is_valid(pem: &str, host: &str) -> bool {
        let proof = name_proof(pem.as_bytes(), &UpstreamHost::parse(host.as_bytes()));
        assert!(matches!(proof, NameProof::Matches | NameProof::Differs));
        proof == NameProof::Matches
    }

    #[track_caller]
    fn check(names: &[&str], valid: &[&str], invalid: &[&str]) {
        let pem = certificate(names);
        for host in valid {
            assert!(is_valid(&pem, host), "{names:?} {host}");
        }
        for host in invalid {
            assert!(!is_valid(&pem, host), "{names:?} {host}");
        }
    }

    #[test]
    fn every_name_of_a_certificate_counts() {
        check(
            &["first.example", "API.openai.com", "192.0.2.7", "2001:db8::7"],
            &[
                "first.example",
                "api.openai.com",
                "Api.OpenAI.com.:443",
                "192.0.2.7:443",
                "[::ffff:192.0.2.7]",
                "[2001:db8::7]",
                "[2001:0DB8:0::7]:443",
            ],
            &[
                "openai.com",
                "eu.api.openai.com",
                "xapi.openai.com",
                "api.openai.com.example",
                "common.example",
                "192.0.2.8",
                "[2001:db8::8]",
                "",
                "first.example,x",
                "a@first.example",
            ],
        );
    }

    #[test]
    fn a_wildcard_matches_one_label() {
        check(
            &["*.openai.azure.com"],
            &["my.openai.azure.com", "xn--bcher-kva.openai.azure.com"],
            &["openai.azure.com", "a.b.openai.azure.com", "azure.com", "myopenai.azure.com"],
        );
        // A wildcard is invalid for a top-level domain, in the middle, and in part of a label.
        check(&["*.com", "*"], &[], &["openai.com", "a.b.com", "com", "localhost"]);
        check(
            &["a.*.example", "b*.c.example", "*d.e.example"],
            &[],
            &["a.b.example", "bb.c.example", "dd.e.example"],
        );
    }

    #[test]
    fn an_address_is_not_a_dns_name() {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::DnsName("192.0.2.7".try_into().unwrap())];
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        assert!(!is_valid(&pem, "192.0.2.7"));
    }

    #[test]
    fn a_common_name_is_ignored() {
        check(&[], &[], &["common.example"]);
    }

    #[test]
    fn a_name_with_a_nul_matches_neither_of_its_parts() {
        check(
            &["api.openai.com\0.evil.example", "evil.example\0api.openai.com"],
            &[],
            &["api.openai.com", "evil.example", "api.openai.com\0.evil.example"],
        );
        // An invalid name does not affect later ones.
        check(&["a..b\0", "second.example"], &["second.example"], &["b"]);
    }

    #[test]
    fn the_first_certificate_counts() {
        let (leaf, issuer) = (certificate(&["leaf.example"]), certificate(&["issuer.example"]));
        let key = KeyPair::generate().unwrap().serialize_pem();
        let chain = format!("some text\n{key}{leaf}{issuer}");
        assert!(is_valid(&chain, "leaf.example") && !is_valid(&chain, "issuer.example"));
    }

    #[test]
    fn an_invalid_certificate_has_no_names() {
        let pem = certificate(&["a.example"]);
        assert!(is_valid(&pem, "a.example"));
        assert!(!is_valid("", "a.example") && !is_valid("garbage a.example", "a.example"));
        for end in (0..pem.len() - 2).step_by(7) {
            assert!(!is_valid(pem.get(..end).unwrap(), "a.example"), "{end}");
        }
        // Valid PEM, but not the DER of a certificate.
        let armour = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
        assert!(!is_valid(armour, "a.example"));
        assert!(!is_valid(&format!("{armour}{pem}"), "a.example"));
        assert_eq!(name_proof(&[0xff; 64], &UpstreamHost::parse(b"a.example")), NameProof::Differs);
    }

    #[test]
    fn only_the_first_name_is_compared() {
        for (first, host, borne) in [
            ("api.openai.com", "api.openai.com", true),
            ("API.OpenAI.com", "api.openai.COM.:443", true),
            ("*.example.com", "a.example.com", true),
            ("*.EXAMPLE.com", "a.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", ".example.com", false),
            ("*.com", "example.com", false),
            ("*.", "example", false),
            ("*", "example", false),
            ("*", "*", false),
            ("*.*.com", "a.b.com", false),
            ("**.example.com", "a.example.com", false),
            ("*a.example.com", "aa.example.com", false),
            ("a*.example.com", "ab.example.com", false),
            ("a.*.com", "a.b.com", false),
            ("api.openai.com.", "api.openai.com", false),
            ("*.example.com.", "a.example.com", false),
            ("api.openai.com:443", "api.openai.com:443", false),
            ("", "", false),
            ("", "a", false),
            ("unreadable", "a@b", false),
            ("192.0.2.7", "192.0.2.7", false),
            ("*.0.2.7", "192.0.2.7", false),
        ] {
            let expected = if borne { NameProof::Matches } else { NameProof::FirstDiffers };
            let host = UpstreamHost::parse(host.as_bytes());
            assert_eq!(is_first_name(first, &host), expected, "{first} {host}");
        }
    }
}
