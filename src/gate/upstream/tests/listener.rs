//! A request from the gate of its listener through the gate of its cluster and back, in one VM.

use std::rc::Rc;

use crate::config::Config;
use crate::exchange::{Exchange, Handovers};
use crate::gate::{Gate, Opening};
use crate::key::keyring::{Ring, RingState, Secret};
use crate::key::token::mint;

use super::*;

const KEY_SECRET: &str = "Handed-1-over-in-one-vm";

const PROPERTIES: [(Property, &str); 6] = [
    (Property::ClusterName, "api"),
    (Property::SourceAddress, "192.0.2.9:1"),
    (Property::UpstreamLocalAddress, "192.0.2.1:40001"),
    (Property::UpstreamTlsVersion, "TLSv1.3"),
    (Property::UpstreamCertificateDigest, PIN),
    (Property::UpstreamDnsName, "api.openai.com"),
];

/// One VM, which asks one host for everything.
struct Vm {
    host: MemoryHost,
    gate: Gate,
    upstream_gate: UpstreamGate,
    exchange: Exchange,
    attempt: Attempt,
}

impl Vm {
    fn new(front: &str, cluster: &str) -> Self {
        let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
        host.now_ns.set(Some(START_NS));
        let text = format!(r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}]{front}}}"#);
        let config = Config::parse(text.as_bytes()).unwrap();
        let plan = config.compile(|_| Some(KEY_SECRET.to_owned())).unwrap();
        let mut gate = Gate::open(plan, policy());
        let text = format!(r#"{{"role": "upstream_tls"{cluster}}}"#);
        let RoleConfig::UpstreamTls(config) = RoleConfig::parse(text.as_bytes()).unwrap() else {
            panic!("the role is upstream_tls");
        };
        let value = |_: &str| Some("secret-of-provider".to_owned());
        let mut upstream_gate = UpstreamGate::new(policy(), &config, value, &host);
        let handovers = Rc::new(Handovers::default());
        gate.share(&handovers);
        upstream_gate.share(&handovers);
        let (exchange, attempt) = (Exchange::default(), Attempt::default());
        Self { host, gate, upstream_gate, exchange, attempt }
    }

    /// A request comes and is sent. Returns how many properties each gate asked for.
    fn request(&mut self) -> [u64; 2] {
        let secret = Secret::parse(KEY_SECRET).unwrap();
        let ring = Ring::new("main", &secret, RingState::Active, None).unwrap();
        let kid = ring.kid_at(0).unwrap();
        let claims = br#"{"jti":"k","tenant":"acme","iat":0,"exp":1900000000}"#;
        let token = mint(&ring.signing_key(&kid).unwrap(), &kid, claims);
        let headers = [
            (":method", "POST"),
            (":path", "/v1"),
            (":authority", "api.openai.com"),
            ("x-api-key", token.as_str()),
        ];
        let headers = headers.map(|(name, value)| (name.into(), value.into()));
        self.host.headers.replace(Some(headers.to_vec()));
        self.host.filter_state.take();
        self.host.properties.take();
        PROPERTIES.iter().for_each(|(property, text)| self.host.show(property.path(), *text));
        (self.exchange, self.attempt) = Default::default();
        self.reads(|vm| {
            let action = vm.gate.on_request_headers(&vm.host, &mut vm.exchange, Opening::default());
            assert_eq!(action, Action::Continue, "{:?}", vm.host.reply);
        });
        let front = self.host.property_reads.take();
        for state in [FilterState::Credentials, FilterState::Decision] {
            let text = self.host.filter_state.borrow().get(state.key()).cloned();
            self.host.show(state.path(), text.unwrap_or_default());
        }
        let attempt = self.reads(|vm| {
            let action = vm.upstream_gate.on_request_headers(&vm.host, 2, &mut vm.attempt);
            assert_eq!(action, Action::Continue, "{:?}", vm.host.reply);
        });
        [front, attempt]
    }

    /// Its response comes. Returns how many properties each gate asked for, that of the cluster first.
    fn response(&mut self) -> [u64; 2] {
        let attempt = self.reads(|vm| {
            let action = vm.upstream_gate.on_response_headers(&vm.host, &mut vm.attempt);
            assert_eq!(action, Action::Continue);
        });
        let front = self.reads(|vm| {
            let action = vm.gate.on_response_headers(&vm.host, &mut vm.exchange);
            assert_eq!(action, Action::Continue, "{:?}", vm.host.reply);
        });
        [attempt, front]
    }

    fn reads(&mut self, act: impl FnOnce(&mut Self)) -> u64 {
        self.host.property_reads.take();
        act(self);
        self.host.property_reads.get()
    }

    fn verdict(&self) -> Option<Verdict> {
        self.exchange.decided().unwrap().verdict()
    }
}

const GRANTED: &str = r#", "forward": {"credentials": [{"name": "openai"}]}"#;
const HELD: &str = r#", "credentials": [
    {"name": "openai", "hosts": ["api.openai.com"], "header": "authorization", "value": "Bearer ${KEY}"}]"#;
const IN_FRONT: &str = r#", "forward": {"credentials_in_front": true, "credentials": [
    {"hosts": ["api.openai.com"], "header": "authorization", "value": "Bearer ${KEY}"}]}"#;
const TIGHTEN: &str = r#", "upstream_tls": {"tighten": [{"host": "*", "min_version": "TLSv1.3"}]}"#;

#[test]
fn a_request_asks_for_four_properties_and_its_response_for_one() {
    for (front, cluster, credential) in
        [("", "", false), (GRANTED, HELD, true), (IN_FRONT, "", true), (TIGHTEN, TIGHTEN, false)]
    {
        let mut vm = Vm::new(front, cluster);
        vm.request();
        vm.response();
        let [_, attempt] = vm.request();
        assert_eq!((attempt, vm.response()), (4, [1, 0]), "{front} {cluster}");
        assert_eq!(vm.verdict(), Some(Verdict::Verified));
        let headers = vm.host.sent_headers();
        let authorized = headers.iter().any(|(name, value)| {
            let secrets = ["secret-of-provider", KEY_SECRET];
            name == b"authorization" && secrets.iter().any(|text| value.ends_with(text.as_bytes()))
        });
        assert_eq!(authorized, credential, "{front}");
    }
}

/// The gate of the cluster has checked nothing by the rules that only the gate of the listener has.
#[test]
fn rules_that_only_the_gate_of_the_listener_has_are_checked_by_it() {
    let tighten = r#", "upstream_tls": {"tighten": [{"host": "*", "client_certificate": true}]}"#;
    let mut vm = Vm::new(tighten, "");
    vm.request();
    vm.upstream_gate.on_response_headers(&vm.host, &mut vm.attempt);
    assert_eq!(vm.gate.on_response_headers(&vm.host, &mut vm.exchange), Action::Pause);
    assert_eq!(vm.verdict(), Some(Verdict::Refused(Reason::UpstreamClientCert)));
}

/// The route has replaced the host: what the gate of the cluster has checked is not the host that the client named.
#[test]
fn a_host_that_the_route_replaced_is_checked_by_its_own_rules() {
    let mut vm = Vm::new("", "");
    vm.request();
    vm.attempt = Attempt::default();
    let headers = [(":authority", "strict.example")].map(|(n, v)| (n.into(), v.into()));
    vm.host.headers.replace(Some(headers.to_vec()));
    vm.host.show(Property::UpstreamDnsName.path(), "strict.example");
    vm.host.show(Property::UpstreamCertificateDigest.path(), SPARE);
    let action = vm.upstream_gate.on_request_headers(&vm.host, 3, &mut vm.attempt);
    assert_eq!(action, Action::Continue);
    let [_, front] = vm.response();
    assert!(front > 0, "the rules for the named host are another matter");
}

/// The proxy drops the response of the first attempt, and retries in a cluster without a gate.
#[test]
fn a_response_that_was_dropped_vouches_for_no_other() {
    let mut vm = Vm::new("", "");
    vm.request();
    vm.upstream_gate.on_response_headers(&vm.host, &mut vm.attempt);
    vm.attempt = Attempt::default();
    vm.host.show(Property::UpstreamAttempt.path(), 2_u64.to_le_bytes());
    vm.host.show(Property::UpstreamCertificateDigest.path(), SPARE);
    vm.host.show(Property::UpstreamDnsName.path(), "other.example");
    vm.host.show(Property::ResponseCodeDetails.path(), "via_upstream");
    assert_eq!(vm.gate.on_response_headers(&vm.host, &mut vm.exchange), Action::Pause);
    assert_eq!(vm.verdict(), Some(Verdict::Refused(Reason::UpstreamName)));
}

/// The proxy replies itself, e.g. because the upstream takes too long.
#[test]
fn the_verdict_on_an_attempt_without_a_response_holds() {
    let mut vm = Vm::new("", "");
    vm.request();
    vm.host.show(Property::UpstreamAttempt.path(), 1_u64.to_le_bytes());
    vm.host.show(Property::ResponseCodeDetails.path(), "response_timeout");
    assert_eq!(vm.gate.on_response_headers(&vm.host, &mut vm.exchange), Action::Continue);
    assert_eq!(vm.verdict(), Some(Verdict::Verified));
}

#[test]
fn a_refusal_of_the_gate_of_the_cluster_is_that_of_the_request() {
    let mut vm = Vm::new("", "");
    vm.request();
    vm.host.show(Property::UpstreamCertificateDigest.path(), SPARE);
    assert_eq!(vm.upstream_gate.on_response_headers(&vm.host, &mut vm.attempt), Action::Pause);
    vm.gate.on_response_headers(&vm.host, &mut vm.exchange);
    assert_eq!(vm.verdict(), Some(Verdict::Refused(Reason::UpstreamUnproven)));
}
