//! For any properties of upstreams and any order of callbacks, nothing passes for a known host unless its
//! connection is good.

use std::cell::{Cell, RefCell};

use proptest::test_runner::TestCaseError;
use vkey::gate::{Attempt, Opening, Plugin, UpstreamGate};
use vkey::host::{Action, FilterState, Property};
use vkey::upstream_tls::{UpstreamHost, Verdict};
#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// The properties that a host shows.
type Facts = Vec<(Property, Vec<u8>)>;

/// The next callback of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callback {
    Request,
    Body,
    Tick,
    Response,
    Log,
}

const CALLBACKS: &[Callback] =
    &[Callback::Request, Callback::Body, Callback::Tick, Callback::Response, Callback::Log];

const SHOWN: &[(Property, &[&str])] = &[
    (Property::UpstreamLocalAddress, &["192.0.2.1:4000"]),
    (Property::UpstreamTlsVersion, &["TLSv1.3", "TLSv1.2", "TLSv1.1"]),
    (Property::UpstreamCertificateDigest, &["aa", "BB", "cc"]),
    (Property::UpstreamDnsName, &["api.openai.com", "*.openai.com", "evil.example"]),
    (Property::FilterState(FilterState::Decision), &["allow"]),
    (Property::FilterState(FilterState::Upstream), VERDICTS),
    (Property::ClusterName, &["api", "other"]),
    (Property::ResponseCodeDetails, &["via_upstream", "route_not_found"]),
];

/// Filter states of upstream gates, for this connection or another one, and invalid ones.
const VERDICTS: &[&str] = &[
    "verified 192.0.2.1:4000",
    "stamped 192.0.2.1:4000",
    "verified 192.0.2.1:4001",
    "upstream_pin ",
    "upstream_pin unsent",
    "not_ready sent",
    "quota 192.0.2.1:4000",
    "verified",
];

/// Typical facts, and sometimes arbitrary ones. Boxed, because strategies are on the test's stack.
fn facts() -> BoxedStrategy<Facts> {
    let fact = |(property, usual): &(Property, &'static [&str])| {
        let usual = select(*usual).prop_map(|text| text.as_bytes().to_vec());
        of((Just(*property), prop_oneof![9 => usual, 1 => anything()])).boxed()
    };
    let odd = select(&[Property::ClusterMetadata, Property::UpstreamCertificate][..]);
    let odd = sometimes((odd, anything())).boxed();
    let all: Vec<_> = SHOWN.iter().map(fact).chain([odd]).collect();
    all.prop_map(|facts| facts.into_iter().flatten().collect()).boxed()
}

fn authority() -> BoxedStrategy<Vec<u8>> {
    let usual = &["api.openai.com", "API.openai.com.:443", "other.example"][..];
    let usual = select(usual).prop_map(|text| text.as_bytes().to_vec());
    prop_oneof![9 => usual, 1 => anything()].boxed()
}

fn policy() -> Policy {
    thread_local! {
        static SHIPPED: Policy =
            Policy::parse(include_bytes!("../../filters/vkey/upstream-tls.json")).unwrap();
    }
    SHIPPED.with(Policy::clone)
}

fn is_known(authority: &[u8]) -> bool {
    policy().knows(&UpstreamHost::parse(authority))
}

fn show(host: &MemoryHost, facts: Facts) {
    let facts = facts.into_iter().map(|(property, bytes)| (property.path().into(), bytes));
    *host.properties.borrow_mut() = facts.collect();
}

fn shown(host: &MemoryHost, property: Property) -> Option<String> {
    let bytes = host.properties.borrow().get(property.path()).cloned()?;
    Some(String::from_utf8_lossy(&bytes).into_owned()).filter(|text| !text.is_empty())
}

/// Whether the connection satisfies the shipped policy for `api.openai.com`.
fn is_good(host: &MemoryHost) -> bool {
    let version = shown(host, Property::UpstreamTlsVersion).unwrap_or_default();
    let name = shown(host, Property::UpstreamDnsName).unwrap_or_default().to_lowercase();
    ["TLSv1.3", "TLSv1.2"].contains(&&*version)
        && ["api.openai.com", "*.openai.com"].contains(&&*name)
}

/// Whether the upstream gate has checked this connection.
fn is_gated(host: &MemoryHost) -> bool {
    let said = shown(host, Property::FilterState(FilterState::Upstream)).unwrap_or_default();
    let address = shown(host, Property::UpstreamLocalAddress).unwrap_or_default();
    said.split_once(' ').is_some_and(|(word, of)| {
        let verdict = Verdict::from_word(word);
        verdict.is_some_and(|verdict| verdict.refusal().is_some() || of == address)
    })
}

/// Whether the response is a local reply of the proxy.
fn is_own(host: &MemoryHost) -> bool {
    let details = shown(host, Property::ResponseCodeDetails);
    details.is_some_and(|details| details != "via_upstream")
        && shown(host, Property::UpstreamLocalAddress).is_none()
}

/// Counts of how often something passed and was refused.
#[derive(Default)]
struct Tally(Cell<(u32, u32)>);

impl Tally {
    fn add(&self, passed: bool) {
        let (passes, refusals) = self.0.get();
        self.0.set((passes + u32::from(passed), refusals + u32::from(!passed)));
    }

    /// A property is meaningful only if both happened.
    fn check(&self) {
        let (passes, refusals) = self.0.get();
        let enough = config().cases / 100;
        let both = passes >= enough && refusals >= enough;
        assert!(both, "{passes} passed, {refusals} did not, {enough} expected of each");
    }
}

#[test]
fn no_response_passes_for_a_known_host_unless_its_connection_is_good() {
    let tally = Tally::default();
    let strategy = (authority(), facts(), facts(), vec(select(CALLBACKS), 0..4));
    let mut runner = TestRunner::new(config());
    let outcome = runner.run(&strategy, |(authority, before, after, callbacks)| {
        let key = sign(&json!({"jti": "k", "tenant": "t", "iat": NOW - 60, "exp": NOW + 60}));
        let headers = [
            (":method", b"GET".to_vec()),
            (":path", b"/v1/models".to_vec()),
            (":authority", authority.clone()),
            ("x-api-key", key.into_bytes()),
        ];
        let headers = headers.map(|(name, value)| (name.into(), value)).into();
        let (gate, host) = (gate_under(policy()), host(headers, Vec::new()));
        let mut exchange = Exchange::default();
        show(&host, before);
        gate.on_request_headers(&host, &mut exchange, Opening::default());
        show(&host, after);
        let gated = is_gated(&host);
        for callback in callbacks.into_iter().chain([Callback::Response, Callback::Log]) {
            match callback {
                Callback::Response if exchange.is_forwarded() => {
                    let action = gate.on_response_headers(&host, &mut exchange);
                    let passed = action == Action::Continue;
                    let good = gated || is_own(&host) || is_good(&host);
                    prop_assert!(!passed || !is_known(&authority) || good);
                    prop_assert_eq!(!passed, host.reply.borrow().is_some());
                    tally.add(passed);
                }
                Callback::Response => _ = gate.on_response_headers(&host, &mut exchange),
                Callback::Log => gate.on_log(&host, &mut exchange),
                _ => _ = gate.on_request_body(&host, &mut exchange, 0, false),
            }
        }
        let lines = host.log.borrow();
        let lines = lines.iter().filter(|(_, line)| Line::parse(line).is_ok());
        prop_assert_eq!(lines.count(), 1);
        Ok(())
    });
    outcome.unwrap();
    tally.check();
}

/// An attempt in an upstream gate.
struct AttemptRun {
    gate: Box<UpstreamGate>,
    host: MemoryHost,
    attempt: RefCell<Attempt>,
    begun: bool,
    left: bool,
}

impl AttemptRun {
    fn new(authority: &[u8]) -> Self {
        let host = host(vec![(b":authority".to_vec(), authority.to_vec())], Vec::new());
        let plugin = Plugin::configure(br#"{"role": "upstream_tls"}"#, policy(), |_| None, &host);
        let gate = match plugin {
            Ok(Plugin::UpstreamGate(gate)) => Some(gate),
            Ok(Plugin::Gate(_)) | Err(_) => None,
        };
        let gate = gate.unwrap();
        Self { gate, host, attempt: RefCell::default(), begun: false, left: false }
    }

    fn call(&mut self, callback: Callback) -> Result<(), TestCaseError> {
        let Self { gate, host, attempt, .. } = self;
        match callback {
            Callback::Request if !self.begun => {
                self.begun = true;
                let action = gate.on_request_headers(host, 1, attempt.get_mut());
                self.left = action == Action::Continue;
            }
            Callback::Tick => {
                gate.tick(host, 0, |_| gate.on_tick(host, &mut attempt.borrow_mut()));
            }
            Callback::Response => _ = gate.on_response_headers(host, attempt.get_mut()),
            Callback::Request | Callback::Body | Callback::Log => {
                let action = UpstreamGate::on_request_body(attempt.get_mut());
                prop_assert!(self.left || action == Action::Pause);
            }
        }
        self.left |= self.host.resumed.get();
        Ok(())
    }
}

#[test]
fn no_attempt_leaves_for_a_known_host_unless_its_connection_is_good() {
    let tally = Tally::default();
    let turn = (select(CALLBACKS), facts(), 0..12_u64);
    let strategy = (authority(), vec(turn, 1..8));
    let mut runner = TestRunner::new(config());
    let outcome = runner.run(&strategy, |(authority, turns)| {
        let mut course = AttemptRun::new(&authority);
        for (callback, facts, secs) in turns {
            let held = !course.left && course.host.reply.borrow().is_none();
            show(&course.host, facts);
            let now_ns = course.host.now_ns.get().unwrap() + secs * 1_000_000_000;
            course.host.now_ns.set(Some(now_ns));
            course.call(callback)?;
            let answered = course.host.reply.borrow().is_some();
            if held && (course.left || answered) {
                prop_assert!(course.left != answered);
                prop_assert!(answered || !is_known(&authority) || is_good(&course.host));
                tally.add(course.left);
            }
        }
        Ok(())
    });
    outcome.unwrap();
    tally.check();
}
