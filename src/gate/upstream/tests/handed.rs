//! Attempts of requests whose gate is in the same VM: what they ask of the host, and what they never take for granted.

use std::rc::Rc;

use crate::exchange::{Handover, Handovers};

use super::*;

const CREDENTIAL: &str = r#", "credentials": [
    {"name": "openai", "hosts": ["api.openai.com"], "header": "authorization", "value": "Bearer ${KEY}"}]"#;

/// What is asked of a host about an attempt on a connection of the pool.
const ASKED: [Property; 4] = [
    Property::FilterState(FilterState::Credentials),
    Property::UpstreamCertificateDigest,
    Property::ClusterName,
    Property::UpstreamTlsVersion,
];

/// A gate that shares its VM with the gate of a listener.
struct Shared {
    bench: Bench,
    handovers: Rc<Handovers>,
}

impl Shared {
    fn new(members: &str) -> Self {
        let mut bench = Bench::with(members);
        let handovers = Rc::new(Handovers::default());
        bench.gate.share(&handovers);
        Self { bench, handovers }
    }

    /// A request whose route was checked against a cluster.
    fn request(&self) -> Rc<Handover> {
        self.handovers.open(START_NS).unwrap()
    }

    /// An attempt of a request of its own. Returns what was asked.
    fn send(&self, id: u32, facts: Facts) -> Vec<Property> {
        let handover = self.request();
        self.send_for(&handover, id, facts)
    }

    fn send_for(&self, handover: &Handover, id: u32, facts: Facts) -> Vec<Property> {
        self.bench.proxy.asked.take();
        self.bench.send(id, handed(handover, facts));
        self.bench.proxy.asked.take()
    }

    fn verdict(handover: &Handover) -> Option<Verdict> {
        handover.concluded().map(|concluded| concluded.verdict)
    }
}

fn handed(handover: &Handover, facts: Facts) -> Facts {
    facts.grants(&format!("openai {}", handover.word()))
}

fn stamped(hosts: &[&str]) -> Facts {
    Facts::good().stamp(stamp(policy().digest(), hosts))
}

// === what is asked ===

#[test]
fn a_request_asks_for_four_properties_and_its_response_for_one() {
    for (members, facts) in [
        ("", Facts::good()),
        (CREDENTIAL, Facts::good()),
        (CREDENTIAL, stamped(&["api.openai.com"])),
        (r#", "upstream_tls": {"require_stamp": true}"#, stamped(&["api.openai.com"])),
    ] {
        let shared = Shared::new(members);
        let first = shared.send(1, facts.clone());
        assert!(first.contains(&Property::ClusterMetadata), "{first:?}");
        let handover = shared.request();
        assert_eq!(shared.send_for(&handover, 2, facts.clone()), ASKED);
        let authorization = shared.bench.proxy.header(2, "authorization");
        assert_eq!(authorization.is_some(), members == CREDENTIAL);
        assert_eq!(shared.bench.answer(2, facts), Action::Continue);
        assert_eq!(shared.bench.proxy.asked.take(), [Property::UpstreamCertificateDigest]);
        assert_eq!(Shared::verdict(&handover), Some(Verdict::Verified));
        assert_eq!(handover.response(|response| response.verdict), Some(Verdict::Verified));
        // The gate of the listener needs no filter state.
        assert_eq!(shared.bench.proxy.state(2), None);
    }
}

#[test]
fn a_credential_attached_in_front_is_asked_for_once() {
    let shared = Shared::new("");
    for (id, asked) in [(1, None), (2, Some(&ASKED[..]))] {
        let handover = shared.request();
        let words = format!("+attached {}", handover.word());
        shared.bench.proxy.asked.take();
        shared.bench.send(id, Facts::good().grants(&words));
        if let Some(asked) = asked {
            assert_eq!(shared.bench.proxy.asked.take(), asked);
        }
        assert_eq!(Shared::verdict(&handover), Some(Verdict::Verified));
    }
}

/// No shared data is read: no worker has changed what is refused.
#[test]
fn the_statuses_of_clusters_are_read_again_only_when_one_has_changed() {
    let shared = Shared::new("");
    shared.send(1, Facts::good());
    let proxy = &shared.bench.proxy;
    let reads = || proxy.reads.get();
    let before = reads();
    shared.send(2, Facts::good());
    assert_eq!(reads(), before);
    shared.bench.at(1, 0);
    shared.send(3, Facts::good());
    assert_eq!(reads(), before + 1, "a second has passed");
}

// === what is never taken for granted ===

/// Another connection from the same port: the certificate and the version are those of this connection.
#[test]
fn another_certificate_version_or_authority_from_the_same_port_is_judged() {
    for (facts, reason) in [
        (Facts::good().digest(SPARE).name("other.example"), Reason::UpstreamName),
        (Facts::good().version("TLSv1.1"), Reason::UpstreamVersion),
        (Facts::plaintext(), Reason::UpstreamPlaintext),
        (
            Facts::good().authority("other.openai.com").authority("x.api.openai.com"),
            Reason::UpstreamName,
        ),
        (Facts::good().authority("mutual.example"), Reason::UpstreamName),
        (Facts::good().authority("user@api.openai.com"), Reason::UpstreamName),
    ] {
        let shared = Shared::new(CREDENTIAL);
        shared.send(1, Facts::good());
        let handover = shared.request();
        shared.send_for(&handover, 2, facts);
        assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(reason)));
        assert!(!handover.concluded().unwrap().sent);
        assert_eq!(shared.bench.proxy.header(2, "authorization"), None);
        assert_eq!(shared.bench.outcome(2), (None, 1, 0));
    }
}

#[test]
fn pins_and_client_certificates_are_those_of_the_connection() {
    let shared = Shared::new("");
    shared.send(1, Facts::of("pinned.example").cluster("api"));
    let other = Facts::of("pinned.example").digest(&"c".repeat(64)).cluster("api");
    let handover = shared.request();
    shared.send_for(&handover, 2, other);
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamPin)));
    let mutual = || Facts::of("mutual.example").cluster("api");
    shared.send(3, mutual().own_certificate(Property::UpstreamLocalSubject));
    let handover = shared.request();
    shared.send_for(&handover, 4, mutual());
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamClientCert)));
}

/// The route may have changed since it was checked: to a cluster without the stamp.
#[test]
fn a_peer_of_another_cluster_is_not_taken_for_one_of_the_checked() {
    let shared = Shared::new(r#", "upstream_tls": {"require_stamp": true}"#);
    shared.send(1, stamped(&["api.openai.com"]));
    let handover = shared.request();
    let asked = shared.send_for(&handover, 2, Facts::good().cluster("other").digest(SPARE));
    assert!(asked.contains(&Property::ClusterMetadata), "{asked:?}");
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamUnproven)));
}

/// A change of the metadata gives the cluster new connections: the first attempt on one waits, and asks again.
#[test]
fn a_stamp_that_changes_holds_from_the_first_new_connection() {
    let shared = Shared::new("");
    shared.send(1, stamped(&["api.openai.com"]));
    assert_eq!(shared.send(2, stamped(&["api.openai.com"])), ASKED);
    let changed = || stamped(&["other.example"]);
    let handover = shared.request();
    let connecting = handed(&handover, Facts::connecting("api.openai.com"));
    assert_eq!(shared.bench.send(3, connecting), Action::Pause);
    shared.bench.proxy.show(3, handed(&handover, changed()));
    shared.bench.tick();
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamName)));
    // From there on it holds on connections of the pool too.
    let handover = shared.request();
    shared.send_for(&handover, 4, changed());
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamName)));
}

#[test]
fn a_stamp_is_read_again_within_a_second() {
    let shared = Shared::new("");
    shared.send(1, stamped(&["api.openai.com"]));
    shared.bench.at(1, 0);
    let handover = shared.request();
    shared.send_for(&handover, 2, stamped(&["other.example"]));
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamName)));
    // Without a clock nothing is remembered.
    let shared = Shared::new("");
    shared.bench.proxy.memory.now_ns.set(None);
    for id in [1, 2] {
        let asked = shared.send(id, Facts::good());
        assert!(asked.contains(&Property::ClusterMetadata), "{id}");
    }
}

/// Whichever worker withheld the response.
#[test]
fn a_cluster_that_is_refused_is_refused_at_once() {
    let shared = Shared::new("");
    shared.send(1, Facts::good());
    assert_eq!(shared.send(2, Facts::good()), ASKED);
    // Another worker shares records and metrics.
    let other = gate("", &shared.bench.proxy);
    let mut attempt = Attempt::default();
    shared.bench.proxy.show(3, Facts::good());
    other.on_request_headers(&shared.bench.proxy, 3, &mut attempt);
    shared.bench.proxy.show(3, Facts::plaintext());
    assert_eq!(other.on_response_headers(&shared.bench.proxy, &mut attempt), Action::Pause);
    let handover = shared.request();
    assert_eq!(shared.send_for(&handover, 4, Facts::good()).len(), 5);
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamUnproven)));
    shared.bench.at(60, 0);
    let handover = shared.request();
    shared.send_for(&handover, 5, Facts::good());
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Verified));
}

#[test]
fn exceptions_end_whatever_was_seen_before() {
    let plaintext = r#", "credentials": [{"name": "openai", "hosts": ["llm.mesh"], "header": "x-key",
        "value": "${KEY}", "plaintext": {"reason": "r", "owner": "o", "until": "2027-03-31"}}]"#;
    for (host, before) in [("dev.example", Verdict::Skip), ("llm.mesh", Verdict::Plaintext)] {
        let shared = Shared::new(plaintext);
        let facts = || Facts::of(host).unencrypted().cluster("api");
        let verdict = |id: u32, secs: u64| {
            shared.bench.at(secs, 0);
            let handover = shared.request();
            shared.send_for(&handover, id, facts());
            Shared::verdict(&handover).unwrap()
        };
        let end = SKIP_UNTIL_SECS - START_SECS;
        assert_eq!((verdict(1, end - 2), verdict(2, end - 1)), (before, before), "{host}");
        assert!(verdict(3, end).refusal().is_some(), "{host}");
        assert_eq!(shared.bench.proxy.header(3, "x-key"), None, "{host}");
    }
}

/// Only the connection of an attempt that began just now is surely its own.
#[test]
fn an_attempt_that_waited_is_compared_whole() {
    let shared = Shared::new("");
    let handover = shared.request();
    let connecting = handed(&handover, Facts::connecting("api.openai.com"));
    assert_eq!(shared.bench.send(1, connecting), Action::Pause);
    shared.bench.proxy.show(1, handed(&handover, Facts::good()));
    shared.bench.tick();
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Verified));
    assert_eq!(shared.bench.answer(1, Facts::good().version("TLSv1.2")), Action::Pause);
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamUnproven)));
    assert!(handover.response(|_| ()).is_none());
}

// === attempts of one request ===

#[test]
fn the_response_is_that_of_the_attempt_it_came_over() {
    let shared = Shared::new("");
    let handover = shared.request();
    shared.send_for(&handover, 1, Facts::good());
    shared.send_for(&handover, 2, Facts::good().digest(SPARE).from("192.0.2.1:40002"));
    // Envoy shows the connection of the second to the first.
    assert_eq!(shared.bench.answer(1, Facts::good().digest(SPARE)), Action::Continue);
    assert!(handover.response(|_| ()).is_some());
    // The proxy drops that response, and retries.
    shared.bench.attempts.borrow_mut().remove(&1);
    assert!(handover.response(|_| ()).is_none());
    assert_eq!(shared.bench.answer(2, Facts::good()), Action::Pause, "the last is compared");
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamUnproven)));
}

#[test]
fn what_an_earlier_attempt_has_sent_stays_sent() {
    let shared = Shared::new("");
    let handover = shared.request();
    shared.send_for(&handover, 1, Facts::plaintext());
    assert!(!handover.concluded().unwrap().sent);
    shared.send_for(&handover, 2, Facts::good());
    shared.send_for(&handover, 3, Facts::plaintext());
    assert!(handover.concluded().unwrap().sent);
}

#[test]
fn a_request_of_another_vm_is_told_by_filter_state() {
    let shared = Shared::new("");
    let elsewhere = Shared::new("");
    let handover = elsewhere.handovers.open(START_NS + 1).unwrap();
    shared.request();
    for id in [1, 2] {
        let asked = shared.send_for(&handover, id, Facts::good());
        assert!(asked.contains(&Property::ClusterMetadata));
        assert_eq!(shared.bench.proxy.state(id).as_deref(), Some("verified 192.0.2.1:40001"));
    }
    assert_eq!(handover.attempts(), 0);
}

/// The route may have changed after it was checked, and the upstreams of two clusters may have one certificate.
#[test]
fn the_stamp_of_another_cluster_with_the_same_certificate_does_not_count() {
    let shared = Shared::new(
        r#", "upstream_tls": {"require_stamp": true}, "credentials": [{"name": "openai",
        "hosts": ["api.openai.com"], "header": "authorization", "value": "Bearer ${KEY}"}]"#,
    );
    shared.send(1, stamped(&["api.openai.com"]));
    let handover = shared.request();
    shared.send_for(&handover, 2, Facts::good().cluster("other"));
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamUnproven)));
}

#[test]
fn a_cluster_that_is_refused_is_refused_also_where_another_one_was_checked() {
    let shared = Shared::new("");
    shared.send(1, Facts::good());
    shared.bench.send(7, Facts::good().cluster("other"));
    let answer = shared.bench.answer(7, Facts::plaintext().cluster("other"));
    assert_eq!(answer, Action::Pause);
    let handover = shared.request();
    shared.send_for(&handover, 9, Facts::good().cluster("other"));
    assert_eq!(Shared::verdict(&handover), Some(Verdict::Refused(Reason::UpstreamUnproven)));
}

/// Of parallel attempts (hedging), Envoy shows the connection of the last one to all.
#[test]
fn an_attempt_that_waits_is_not_judged_by_the_connection_of_a_later_one() {
    let shared = Shared::new(CREDENTIAL);
    let handover = shared.request();
    let connecting = handed(&handover, Facts::connecting("api.openai.com"));
    assert_eq!(shared.bench.send(1, connecting), Action::Pause);
    shared.send_for(&handover, 2, Facts::good());
    shared.bench.proxy.show(1, handed(&handover, Facts::good()));
    shared.bench.tick();
    assert_eq!(shared.bench.outcome(1).2, 0, "it was resumed");
}
