//! The gate of a cluster over hosts that show what a test says, context by context.

mod credentials;
mod handed;
mod listener;
mod proxy;
mod waiting;

use crate::config::RoleConfig;
use crate::decision::DenyReason as Reason;
use crate::host::{FilterState, MemoryHost, MemoryStore, Property};
use crate::record::decode;
use crate::time::NANOS_PER_SEC;
use crate::upstream_tls::{UpstreamHost, UpstreamStatus, upstream_status_name};

use super::*;
use proxy::{Facts, PIN, Proxy, ROOT, SPARE, stamp};

const POLICY: &str = r#"{
    "version": 1,
    "default": {"min_version": "TLSv1.2", "unlisted": "observe"},
    "known_hosts": ["api.openai.com"],
    "upstreams": [
        {"host": "pinned.example", "pins": ["sha256:PIN", "sha256:SPARE"]},
        {"host": "mutual.example", "client_certificate": true},
        {"host": "strict.example", "min_version": "TLSv1.3"},
        {"host": "dev.example", "insecure_skip_verify":
            {"reason": "self-signed", "owner": "platform", "until": "2027-03-31"}}
    ]
}"#;

const START_SECS: u64 = 1_800_000_000;
const START_NS: u64 = START_SECS * NANOS_PER_SEC;

/// The end of the policy's one exception: midnight after 2027-03-31.
const SKIP_UNTIL_SECS: u64 = 1_806_537_600;

fn policy() -> Policy {
    Policy::parse(POLICY.replace("PIN", PIN).replace("SPARE", SPARE).as_bytes()).unwrap()
}

fn gate(members: &str, proxy: &Proxy) -> UpstreamGate {
    let text = format!(r#"{{"role": "upstream_tls"{members}}}"#);
    match RoleConfig::parse(text.as_bytes()).unwrap() {
        RoleConfig::UpstreamTls(config) => {
            UpstreamGate::new(policy(), &config, |name| Some(format!("value-of-{name}")), proxy)
        }
        RoleConfig::Gate(_) => panic!("the role is upstream_tls"),
    }
}

/// nginx says in a request alone that it is nginx.
#[test]
fn nginx_is_not_believed_to_be_bare_before_its_first_request() {
    let host = MemoryHost::new(MemoryStore::new(Rules::Nginx));
    let text = br#"{"role": "upstream_tls", "host": "bare"}"#;
    let RoleConfig::UpstreamTls(config) = RoleConfig::parse(text).unwrap() else { panic!() };
    let gate = UpstreamGate::new(policy(), &config, |_| None, &host);
    host.headers.replace(Some(vec![(b":method".to_vec(), b"GET".to_vec())]));
    let action = gate.on_request_headers(&host, 2, &mut Attempt::default());
    assert_eq!((action, host.reply.borrow().as_ref().unwrap().status), (Action::Pause, 503));
    let log = host.log.borrow();
    assert!(log.iter().any(|(_, line)| line.contains("bare, and this is nginx")), "{log:?}");
}

/// A gate, the host it is on, and the attempts that the module holds.
struct Bench {
    gate: UpstreamGate,
    proxy: Proxy,
    attempts: RefCell<std::collections::BTreeMap<u32, Attempt>>,
}

impl Bench {
    fn new() -> Self {
        Self::with("")
    }

    fn with(members: &str) -> Self {
        let proxy = Proxy::default();
        proxy.memory.now_ns.set(Some(START_NS));
        let gate = gate(members, &proxy);
        proxy.asked.take();
        Self { gate, proxy, attempts: RefCell::default() }
    }

    /// An attempt sets out on what `facts` says.
    fn send(&self, id: u32, facts: Facts) -> Action {
        self.proxy.show(id, facts);
        let mut attempt = Attempt::default();
        let action = self.gate.on_request_headers(&self.proxy, id, &mut attempt);
        self.attempts.borrow_mut().insert(id, attempt);
        action
    }

    fn tick(&self) {
        self.gate.tick(&self.proxy, ROOT, |id| {
            let mut attempts = self.attempts.borrow_mut();
            attempts
                .get_mut(&id)
                .map_or(Action::Continue, |attempt| self.gate.on_tick(&self.proxy, attempt))
        });
    }

    fn body(&self, id: u32) -> Action {
        UpstreamGate::on_request_body(&self.attempts.borrow()[&id])
    }

    fn answer(&self, id: u32, facts: Facts) -> Action {
        self.proxy.show(id, facts);
        let mut attempts = self.attempts.borrow_mut();
        self.gate.on_response_headers(&self.proxy, attempts.get_mut(&id).unwrap())
    }

    fn at(&self, secs: u64, ns: u64) {
        self.proxy.memory.now_ns.set(Some(START_NS + secs * NANOS_PER_SEC + ns));
    }

    /// What became of an attempt: its verdict's word, how often it was answered, and resumed.
    fn outcome(&self, id: u32) -> (Option<String>, u32, u32) {
        self.proxy.outcome(id)
    }

    fn passed(&self, id: u32, word: &str, resumed: u32) {
        assert_eq!(self.outcome(id), (Some(word.to_owned()), 0, resumed), "{id}");
        assert_eq!(self.body(id), Action::Continue);
    }

    fn refused(&self, id: u32, reason: Reason) {
        assert_eq!(self.outcome(id), (Some(reason.code().to_owned()), 1, 0), "{id}");
        assert_eq!(self.proxy.reply(id), reply(reason, Refusal::default()));
        assert_eq!(self.body(id), Action::Pause);
    }

    fn status(&self, cluster: &str) -> UpstreamStatus {
        let name = upstream_status_name(cluster);
        let record = crate::host::SharedData::shared_data(&self.proxy.memory, name.as_str());
        let (record, _) = record.unwrap().unwrap();
        decode(&name, &record).unwrap()
    }
}

// === on a connection of the pool ===

#[test]
fn a_pooled_connection_is_judged_at_once_and_cheaply() {
    let bench = Bench::new();
    assert_eq!(bench.send(1, Facts::good()), Action::Continue);
    bench.passed(1, "verified", 0);
    assert_eq!(
        bench.proxy.asked.take(),
        [
            Property::FilterState(FilterState::Credentials),
            Property::UpstreamLocalAddress,
            Property::ClusterMetadata,
            Property::ClusterName,
            Property::UpstreamTlsVersion,
            Property::UpstreamCertificateDigest,
            Property::UpstreamCertificate,
            Property::UpstreamDnsName,
        ]
    );
    assert_eq!(bench.send(2, Facts::good()), Action::Continue);
    // Each is a host call; the certificate is read once.
    assert_eq!(bench.proxy.asked.take().len(), 6);
    assert_eq!(bench.answer(2, Facts::good()), Action::Continue);
    assert_eq!(bench.proxy.asked.take(), [Property::UpstreamCertificateDigest]);
    assert_eq!(*bench.proxy.ticks.borrow(), []);
    bench.tick();
    bench.passed(1, "verified", 0);
}

#[test]
fn a_violation_is_refused_for_its_reason() {
    for (facts, reason) in [
        (Facts::plaintext(), Reason::UpstreamPlaintext),
        (Facts::good().version("TLSv1.1"), Reason::UpstreamVersion),
        (Facts::good().version("TLSv1"), Reason::UpstreamVersion),
        (Facts::good().version("SSLv3"), Reason::UpstreamVersion),
        (Facts::of("strict.example").version("TLSv1.2"), Reason::UpstreamVersion),
        (Facts::of("pinned.example").digest(&"c".repeat(64)), Reason::UpstreamPin),
        (Facts::good().name("other.example"), Reason::UpstreamName),
        (Facts::good().nameless(), Reason::UpstreamName),
        (Facts::good().authority("user@api.openai.com"), Reason::UpstreamName),
        (Facts::good().authority(""), Reason::UpstreamName),
        (Facts::of("mutual.example"), Reason::UpstreamClientCert),
        (Facts::of("pinned.example").undigested(), Reason::UpstreamUnproven),
        (Facts::good().undigested().nameless(), Reason::UpstreamUnproven),
    ] {
        let bench = Bench::new();
        assert_eq!(bench.send(1, facts), Action::Pause);
        bench.refused(1, reason);
        assert_eq!(*bench.proxy.ticks.borrow(), []);
        // The reply comes back through the filter that sent it.
        assert_eq!(bench.answer(1, Facts::good()), Action::Continue);
        bench.tick();
        bench.refused(1, reason);
    }
}

#[test]
fn what_the_policy_asks_for_passes() {
    for facts in [
        Facts::good().version("TLSv1.2"),
        Facts::good().authority("API.OpenAI.com.:443"),
        Facts::good().name("*.openai.com"),
        Facts::of("pinned.example"),
        Facts::of("pinned.example").digest(&SPARE.to_uppercase()),
        Facts::of("mutual.example").own_certificate(Property::UpstreamLocalSubject),
        Facts::of("mutual.example").own_certificate(Property::UpstreamLocalDnsName),
        Facts::of("mutual.example").own_certificate(Property::UpstreamLocalUri),
        Facts::of("strict.example"),
    ] {
        let bench = Bench::new();
        assert_eq!(bench.send(1, facts), Action::Continue);
        bench.passed(1, "verified", 0);
    }
}

#[test]
fn what_is_not_verified_goes_on_without_a_look_at_its_certificate() {
    let bench = Bench::new();
    let unlisted = [
        Property::UpstreamLocalAddress,
        Property::ClusterMetadata,
        Property::FilterState(FilterState::Decision),
    ];
    let skip = [Property::UpstreamLocalAddress, Property::ClusterMetadata, Property::ClusterName];
    for (id, host, word, asked) in
        [(1, "other.example", "unlisted", &unlisted[..]), (2, "dev.example", "skip", &skip)]
    {
        assert_eq!(bench.send(id, Facts::of(host).unencrypted()), Action::Continue);
        bench.passed(id, word, 0);
        assert_eq!(bench.proxy.asked.take()[1..], *asked);
        assert_eq!(bench.answer(id, Facts::plaintext()), Action::Continue);
        assert_eq!(bench.proxy.asked.take(), []);
    }
    let until = "vkey_upstream_tls_skip_until_seconds.upstream.dev";
    assert_eq!(bench.proxy.metric(until), Some(SKIP_UNTIL_SECS));
}

/// The proxy may rewrite the authority when it has its connection (`auto_host_rewrite`).
#[test]
fn nothing_is_concluded_from_a_host_before_its_connection_is_up() {
    let bench = Bench::new();
    for (id, host) in [(1, "other.example"), (2, "dev.example")] {
        assert_eq!(bench.send(id, Facts::connecting(host)), Action::Pause);
        bench.proxy.show(id, Facts::plaintext());
        bench.tick();
        bench.refused(id, Reason::UpstreamPlaintext);
    }
}

#[test]
fn whatever_may_carry_a_credential_is_judged() {
    let bench = Bench::new();
    let plain = || Facts::of("other.example").unencrypted();
    bench.send(1, plain());
    bench.passed(1, "unlisted", 0);
    for (id, facts) in [(2, plain().credential()), (3, plain().mirrored())] {
        bench.send(id, facts);
        bench.refused(id, Reason::UpstreamPlaintext);
    }
    bench.send(4, Facts::of("other.example").credential());
    bench.passed(4, "verified", 0);
    bench.send(5, Facts::good().mirrored());
    bench.passed(5, "verified", 0);
}

#[test]
fn a_skip_ends() {
    let bench = Bench::new();
    bench.at(SKIP_UNTIL_SECS - START_SECS - 1, NANOS_PER_SEC - 1);
    bench.send(1, Facts::of("dev.example").unencrypted());
    bench.passed(1, "skip", 0);
    bench.at(SKIP_UNTIL_SECS - START_SECS, 0);
    bench.send(2, Facts::of("dev.example").unencrypted());
    bench.refused(2, Reason::UpstreamPlaintext);
    bench.proxy.memory.now_ns.set(None);
    bench.send(3, Facts::of("dev.example").unencrypted());
    bench.refused(3, Reason::UpstreamPlaintext);
}

#[test]
fn a_configuration_tightens() {
    let tighten = r#", "upstream_tls": {"tighten": [{"host": "*", "client_certificate": true},
                                                   {"host": "dev.example"}]}"#;
    let bench = Bench::with(tighten);
    bench.send(1, Facts::good());
    bench.refused(1, Reason::UpstreamClientCert);
    bench.send(2, Facts::of("other.example").unencrypted());
    bench.refused(2, Reason::UpstreamPlaintext);
    bench.send(3, Facts::of("dev.example").unencrypted());
    bench.refused(3, Reason::UpstreamPlaintext);
}

// === stamps ===

#[test]
fn a_cluster_takes_requests_for_the_hosts_of_its_stamp_alone() {
    let bench = Bench::new();
    let digest = policy().digest().to_owned();
    for (id, host) in [(1, "api.openai.com"), (2, "other.example"), (3, "dev.example")] {
        bench.send(id, Facts::of(host).stamp(stamp(&digest, &["pinned.example"])));
        bench.refused(id, Reason::UpstreamName);
    }
    bench.send(4, Facts::good().name("other.example").stamp(stamp(&digest, &["api.openai.com"])));
    bench.passed(4, "stamped", 0);
    let of_wrong_pin = Facts::of("pinned.example").digest(&"c".repeat(64));
    bench.send(5, of_wrong_pin.stamp(stamp(&digest, &["pinned.example"])));
    bench.refused(5, Reason::UpstreamPin);
    let stale = Facts::good().name("other.example").stamp(stamp("stale", &["api.openai.com"]));
    bench.send(6, stale);
    bench.refused(6, Reason::UpstreamName);
}

#[test]
fn a_cluster_without_the_stamp_that_is_required_gets_nothing() {
    let bench = Bench::with(r#", "upstream_tls": {"require_stamp": true}"#);
    let digest = policy().digest().to_owned();
    bench.send(1, Facts::good());
    bench.refused(1, Reason::UpstreamUnproven);
    bench.proxy.asked.take();
    bench.send(2, Facts::of("other.example"));
    bench.refused(2, Reason::UpstreamUnproven);
    assert_eq!(
        bench.proxy.asked.take()[1..],
        [
            Property::UpstreamLocalAddress,
            Property::ClusterMetadata,
            Property::ClusterName,
            Property::FilterState(FilterState::Upstream),
            Property::UpstreamAttempt,
        ],
        "nothing is asked of its certificate"
    );
    bench.send(3, Facts::good().stamp(stamp("stale", &["api.openai.com"])));
    bench.refused(3, Reason::UpstreamUnproven);
    bench.send(4, Facts::good().stamp(stamp(&digest, &["api.openai.com"])));
    bench.passed(4, "verified", 0);
    assert_eq!(*bench.proxy.ticks.borrow(), []);
}

// === the answer ===

#[test]
fn an_answer_over_another_connection_is_withheld_and_its_cluster_refused_for_a_minute() {
    let swapped = [Facts::good().digest(SPARE), Facts::good().undigested(), Facts::plaintext()];
    for facts in swapped {
        let bench = Bench::new();
        bench.send(1, Facts::good());
        bench.send(2, Facts::connecting("api.openai.com"));
        assert_eq!(bench.answer(1, facts), Action::Pause);
        let told = Some("upstream_unproven".to_owned());
        assert_eq!(bench.outcome(1), (told, 1, 0));
        assert_eq!(bench.answer(1, Facts::plaintext()), Action::Continue, "answered once");
        assert_eq!(
            bench.status("api").refusal(&UpstreamHost::parse(b"api.openai.com"), true, START_SECS),
            Some(Reason::UpstreamUnproven)
        );
        bench.at(30, 0);
        bench.tick();
        bench.refused(2, Reason::UpstreamUnproven);
        bench.at(59, NANOS_PER_SEC - 1);
        bench.send(3, Facts::good());
        bench.refused(3, Reason::UpstreamUnproven);
        bench.send(4, Facts::good().cluster("other"));
        bench.passed(4, "verified", 0);
        bench.at(60, 0);
        bench.send(5, Facts::good());
        bench.passed(5, "verified", 0);
    }
}

/// Envoy shows to attempts that run side by side what is known of the last.
#[test]
fn the_connection_of_another_attempt_is_not_compared() {
    let bench = Bench::new();
    bench.send(1, Facts::good());
    assert_eq!(bench.answer(1, Facts::plaintext().from("192.0.2.1:40002")), Action::Continue);
    bench.passed(1, "verified", 0);
}

#[test]
fn the_same_connection_in_another_spelling_is_the_same() {
    let bench = Bench::new();
    bench.send(1, Facts::good());
    let spelled = Facts::good().digest(&PIN.to_uppercase());
    assert_eq!(bench.answer(1, spelled), Action::Continue);
    bench.passed(1, "verified", 0);
}

// === what becomes known ===

#[test]
fn verdicts_are_counted_and_shown_by_cluster() {
    let bench = Bench::new();
    let total = |word| format!("vkey_upstream_tls_total.verdict.{word}.upstream.api");
    let since = |word| format!("vkey_upstream_tls_since_seconds.verdict.{word}.upstream.api");
    bench.send(1, Facts::good());
    bench.at(5, 0);
    bench.send(2, Facts::good());
    assert_eq!(bench.proxy.metric(&total("verified")), Some(2));
    assert_eq!(bench.proxy.metric(&since("verified")), Some(START_SECS));
    bench.send(3, Facts::good().name("other.example").digest(SPARE));
    assert_eq!(bench.proxy.metric(&total("upstream_name")), Some(1));
    assert_eq!(bench.proxy.metric(&since("upstream_name")), Some(START_SECS + 5));
    assert_eq!(bench.proxy.metric(&since("verified")), Some(0));
    let warning = r#"vkey: cluster "api" breaks the policy: upstream_name"#.to_owned();
    assert_eq!(bench.proxy.memory.log.take(), [(Level::Warn, warning)]);
    // What was refused before it left need not be waited out.
    bench.at(6, 0);
    bench.send(4, Facts::good());
    bench.passed(4, "verified", 0);
    assert_eq!(bench.proxy.metric(&since("upstream_name")), Some(0));
    bench.send(5, Facts::of("other.example").cluster("api"));
    assert_eq!(bench.proxy.metric(&total("unlisted")), None);
}
