use std::cell::RefCell;

use super::*;

/// What a host shows of a connection, and which methods were called.
struct Shown {
    up: bool,
    version: Option<TlsVersion>,
    digest: Option<&'static str>,
    name: NameProof,
    client: bool,
    asked: RefCell<Vec<&'static str>>,
}

impl Shown {
    fn asked(&self, question: &'static str) {
        self.asked.borrow_mut().push(question);
    }
}

impl Connection for Shown {
    fn is_up(&self) -> bool {
        self.asked("up");
        self.up
    }

    fn tls_version(&self) -> Option<TlsVersion> {
        self.asked("version");
        self.version
    }

    fn certificate_digest(&self) -> Option<String> {
        self.asked("digest");
        self.digest.map(str::to_owned)
    }

    fn name_proof(&self, _: &UpstreamHost<'_>) -> NameProof {
        self.asked("name");
        self.name
    }

    fn has_client_certificate(&self) -> bool {
        self.asked("client");
        self.client
    }
}

/// A connection that satisfies every rule.
fn good() -> Shown {
    Shown {
        up: true,
        version: Some(TlsVersion::V1_3),
        digest: Some("aa"),
        name: NameProof::Matches,
        client: true,
        asked: RefCell::default(),
    }
}

/// The strictest rule.
fn pins() -> [Box<[String]>; 2] {
    [["aa", "bb"], ["cc", "aa"]].map(|pins| pins.map(str::to_owned).into())
}

fn strict(pins: &[Box<[String]>]) -> Requirement<'_> {
    let pins = pins.iter().map(|pins| &**pins).collect();
    Requirement { min_version: TlsVersion::V1_3, pins, client_certificate: true }
}

fn lenient() -> Requirement<'static> {
    Requirement::new(TlsVersion::V1_2)
}

fn word(requirement: &Requirement<'_>, shown: &Shown, stamped: bool) -> &'static str {
    let host = UpstreamHost::parse(b"api.openai.com");
    requirement.evaluate(&host, shown, stamped).map_or("nothing", Verdict::word)
}

#[test]
fn the_first_reason_in_order_is_reported() {
    let pins = pins();
    let requirement = strict(&pins);
    let mut shown = Shown {
        up: true,
        version: None,
        digest: Some("bb"),
        name: NameProof::Differs,
        client: false,
        asked: RefCell::default(),
    };
    for stamped in [false, true] {
        let mut said = vec![word(&requirement, &shown, stamped)];
        shown.version = Some(TlsVersion::V1_2);
        said.push(word(&requirement, &shown, stamped));
        shown.version = Some(TlsVersion::V1_3);
        said.push(word(&requirement, &shown, stamped));
        shown.digest = None;
        said.push(word(&requirement, &shown, stamped));
        shown.name = NameProof::NotShown;
        said.push(word(&requirement, &shown, stamped));
        shown.client = true;
        said.push(word(&requirement, &shown, stamped));
        shown.digest = Some("aa");
        said.push(word(&requirement, &shown, stamped));
        shown.name = NameProof::Matches;
        said.push(word(&requirement, &shown, stamped));
        let hidden = if stamped { "stamped" } else { "upstream_unproven" };
        assert_eq!(
            said,
            [
                "upstream_plaintext",
                "upstream_version",
                "upstream_pin",
                "upstream_name",
                "upstream_client_cert",
                hidden,
                hidden,
                "verified",
            ]
        );
        shown = Shown { version: None, digest: Some("bb"), client: false, ..shown };
        shown.name = NameProof::Differs;
    }
}

#[test]
fn there_is_no_verdict_before_the_connection_is_up() {
    let shown = Shown { up: false, version: None, ..good() };
    assert_eq!(word(&lenient(), &shown, false), "nothing");
    assert_eq!(word(&lenient(), &shown, true), "nothing");
    let plaintext = Shown { version: None, ..good() };
    assert_eq!(word(&lenient(), &plaintext, true), "upstream_plaintext");
}

#[test]
fn only_facts_that_the_policy_needs_are_read() {
    let pins = pins();
    let asked = |requirement: &Requirement<'_>, shown: Shown| {
        word(requirement, &shown, false);
        shown.asked.into_inner()
    };
    assert_eq!(asked(&lenient(), good()), ["version", "name"]);
    assert_eq!(asked(&strict(&pins), good()), ["version", "digest", "name", "client"]);
    // Nothing is read after a refusal.
    let old = Shown { version: Some(TlsVersion::V1_1), ..good() };
    assert_eq!(asked(&strict(&pins), old), ["version"]);
    let other = Shown { digest: Some("bb"), ..good() };
    assert_eq!(asked(&strict(&pins), other), ["version", "digest"]);
    let misnamed = Shown { name: NameProof::Differs, ..good() };
    assert_eq!(asked(&strict(&pins), misnamed), ["version", "digest", "name"]);
    assert_eq!(asked(&lenient(), Shown { version: None, ..good() }), ["version", "up"]);
    // No certificate is valid for an unreadable name.
    let shown = good();
    let verdict = lenient().evaluate(&UpstreamHost::Unreadable, &shown, false);
    assert_eq!(verdict, Some(Verdict::Refused(DenyReason::UpstreamName)));
    assert_eq!(shown.asked.into_inner(), ["version"]);
}

#[test]
fn a_certificate_must_be_in_every_set_of_pins() {
    let pins = pins();
    let requirement = Requirement { client_certificate: false, ..strict(&pins) };
    let word = |digest| word(&requirement, &Shown { digest: Some(digest), ..good() }, true);
    assert_eq!(word("aa"), "verified");
    for digest in ["bb", "cc", "dd", "", "AA", "aab"] {
        assert_eq!(word(digest), "upstream_pin", "{digest}");
    }
}

#[test]
fn a_stamp_vouches_only_for_facts_that_are_not_shown() {
    let pins = pins();
    let stamped = |requirement: &Requirement<'_>, shown: &Shown| {
        [false, true].map(|stamped| word(requirement, shown, stamped))
    };
    for (shown, expected) in [
        (Shown { digest: None, ..good() }, ["upstream_unproven", "stamped"]),
        (Shown { name: NameProof::NotShown, ..good() }, ["upstream_unproven", "stamped"]),
        (Shown { name: NameProof::FirstDiffers, ..good() }, ["upstream_name", "stamped"]),
        (Shown { name: NameProof::Differs, ..good() }, ["upstream_name"; 2]),
        (Shown { digest: Some("bb"), ..good() }, ["upstream_pin"; 2]),
        (Shown { digest: Some(""), ..good() }, ["upstream_pin"; 2]),
        (Shown { client: false, ..good() }, ["upstream_client_cert"; 2]),
        (Shown { version: Some(TlsVersion::Unknown), ..good() }, ["upstream_version"; 2]),
        (Shown { version: None, ..good() }, ["upstream_plaintext"; 2]),
        (good(), ["verified"; 2]),
    ] {
        assert_eq!(stamped(&strict(&pins), &shown), expected);
    }
    // Facts that are not required need no stamp.
    assert_eq!(
        stamped(&lenient(), &Shown { digest: None, client: false, ..good() }),
        ["verified"; 2]
    );
}

#[test]
fn a_host_that_cannot_be_read_never_passes() {
    for stamped in [false, true] {
        for name in [NameProof::Matches, NameProof::FirstDiffers, NameProof::NotShown] {
            let shown = Shown { name, ..good() };
            let verdict = lenient().evaluate(&UpstreamHost::Unreadable, &shown, stamped);
            assert_eq!(verdict, Some(Verdict::Refused(DenyReason::UpstreamName)));
        }
        // The host is reported, not the other errors.
        for version in [None, Some(TlsVersion::V1_0)] {
            let shown = Shown { version, ..good() };
            let verdict = lenient().evaluate(&UpstreamHost::Unreadable, &shown, stamped);
            assert_eq!(verdict, Some(Verdict::Refused(DenyReason::UpstreamName)));
        }
        let waiting = Shown { version: None, up: false, ..good() };
        assert_eq!(lenient().evaluate(&UpstreamHost::Unreadable, &waiting, stamped), None);
    }
}

#[test]
fn versions_are_parsed_as_hosts_show_them() {
    for version in TlsVersion::ALL {
        assert_eq!(TlsVersion::parse(version.as_str()), version);
    }
    assert_eq!(TlsVersion::parse("TLSv1"), TlsVersion::V1_0);
    for text in [
        "", "unknown", "SSLv3", "TLSv1.4", "TLSv1.20", "tlsv1.3", "TLSv1.3 ", "TLS 1.3", "DTLSv1.2",
    ] {
        assert_eq!(TlsVersion::parse(text), TlsVersion::Unknown, "{text}");
    }
    assert!(TlsVersion::ALL.is_sorted() && TlsVersion::Unknown < TlsVersion::V1_0);
    assert_eq!(TlsVersion::KNOWN_HOST_FLOOR, TlsVersion::V1_2);
}

#[test]
fn a_verdict_has_one_word() {
    let reasons = DenyReason::ALL.iter().map(|reason| Verdict::Refused(*reason));
    let refused: Vec<&str> =
        reasons.map(Verdict::word).filter(|w| Verdict::from_word(w).is_some()).collect();
    assert_eq!(
        refused,
        [
            "upstream_plaintext",
            "upstream_version",
            "upstream_pin",
            "upstream_name",
            "upstream_client_cert",
            "upstream_unproven",
            "not_ready",
        ]
    );
    for word in refused.into_iter().chain(["skip", "stamped", "unlisted", "verified"]) {
        let verdict = Verdict::from_word(word).unwrap();
        assert_eq!(verdict.word(), word);
        let refuses = word.starts_with("upstream_") || word == "not_ready";
        assert_eq!(verdict.refusal().map(DenyReason::code), refuses.then_some(word));
    }
    assert_eq!(Verdict::from_word("invalid"), None);
    assert_eq!(Verdict::from_word(""), None);
}
