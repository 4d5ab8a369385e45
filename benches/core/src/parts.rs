//! Measures each part of a request by itself.

use std::cell::LazyCell;
use std::rc::Rc;

use vkey::access::cidr::parse_address;
use vkey::access::{Access, CanonicalPath, Mcp, Models, exact_host};
use vkey::audit::AuditRecord;
use vkey::decision::Decision;
use vkey::digest::sha256_hex;
use vkey::engine::{Engine, Identity, KnownKey, Question};
use vkey::exchange::{Decided, Edits, Evaluation, Request, Seen, Step};
use vkey::gate::Admission;
use vkey::headers::KeySource;
use vkey::headers::{Headers, RequestHead};
use vkey::host::{Host as _, MemoryHost, MemoryStore, RecordStore};
use vkey::upstream_tls::Verdict;

use crate::host::{Calls, CountedHost};
use crate::meter::Meter;
use crate::scenario::Sent;
use crate::scenario::step::Part;
use crate::scenario::text::POLICY;

/// The parts of one request of a conversation. Measuring them does not change the conversation.
pub(crate) struct Parts<'a> {
    pub(crate) sent: &'a Sent,
    pub(crate) store: &'a MemoryStore,
    pub(crate) meter: &'a Rc<Meter>,
}

/// A request with a verified key, for the parts after the verification.
struct Known<'a> {
    engine: Engine,
    key: Rc<KnownKey>,
    head: &'a RequestHead<'a>,
}

impl Parts<'_> {
    /// `engine`: a new engine.
    pub(crate) fn measure(&self, part: Part, mut engine: Engine, scenario: String) {
        let sources = engine.settings().key_sources.clone();
        let headers = self.headers();
        let head = RequestHead::read(&headers, &sources);
        if part != Part::Verify {
            _ = engine.identify(credential(&head), self.now_secs());
        }
        let mut calls = Calls::default();
        match part {
            Part::Verify | Part::Identify => {
                let credential = credential(&head);
                self.meter.count(|| drop(engine.identify(credential, self.now_secs())));
            }
            Part::Audit => self.audit(&mut engine, &head),
            Part::Count => calls = self.count(&self.known(engine, &head)),
            Part::Decide => self.decide(&self.known(engine, &head)),
            Part::Edits => {
                let Known { engine, key, head } = self.known(engine, &head);
                self.meter.count(|| drop(Edits::forward(&engine, &key, head)));
            }
            Part::Headers => self.read(&sources),
            // The whole request is measured while it runs.
            Part::Request => return,
        }
        self.meter.end(scenario, calls);
    }

    fn headers(&self) -> Headers {
        Headers::from_pairs(Headers::to_pairs(&self.sent.headers)).expect("a header map")
    }

    fn read(&self, sources: &[KeySource]) {
        let pairs = Headers::to_pairs(&self.sent.headers);
        self.meter.count(|| {
            let headers = Headers::from_pairs(pairs).expect("a header map");
            _ = RequestHead::read(&headers, sources);
        });
    }

    fn known<'a>(&self, mut engine: Engine, head: &'a RequestHead<'a>) -> Known<'a> {
        let identity = engine.identify(credential(head), self.now_secs());
        let Identity::Known { key, .. } = identity else {
            panic!("expected a valid key");
        };
        Known { key, engine, head }
    }

    fn decide(&self, Known { engine, key, head }: &Known<'_>) {
        let source = self.sent.source.as_deref().and_then(|text| parse_address(text.as_bytes()));
        let target = head.target.unwrap_or_default();
        self.meter.count(|| {
            let access = LazyCell::new(|| {
                CanonicalPath::parse(target).map(|path| Access {
                    now_secs: self.now_secs(),
                    method: std::str::from_utf8(head.method.unwrap_or_default())
                        .unwrap_or_default(),
                    host: head.authority.and_then(exact_host),
                    path,
                    source,
                    client_cert: self.sent.client_cert.as_deref(),
                    models: Models::None,
                    mcp: Mcp::None,
                })
            });
            let question = Question { key, validity: Ok(()), head, allows_headers: false, access };
            Step::of(engine, &question)
        });
    }

    fn count(&self, Known { engine, key, .. }: &Known<'_>) -> Calls {
        let host = CountedHost::new(MemoryHost::new(self.store.fork()), self.meter);
        let source = self.sent.source.as_deref().and_then(|text| parse_address(text.as_bytes()));
        self.meter.count(|| {
            let store = RecordStore::new(&host, host.rules());
            let admission = Admission::new(&store, engine, key, source, self.sent.now_ns);
            drop(admission.admit(Decision::Allow));
        });
        host.calls()
    }

    fn audit(&self, engine: &mut Engine, head: &RequestHead<'_>) {
        let peer = self.sent.source.as_deref().and_then(|text| parse_address(text.as_bytes()));
        let peer = || peer;
        let now_ns = self.sent.now_ns;
        let request = Request { head, peer: &peer, writes_line: false, now_ns, body: None };
        let client_cert = || self.sent.client_cert.clone();
        let (seen, evaluation) = Seen::evaluate(engine, &request, None, client_cert);
        let decided = match evaluation {
            Evaluation::Known { key, step: Step::Decide { decision, .. }, .. } => {
                let verdict = decision.forwards().then_some(Verdict::Verified);
                Decided::with_key(seen, key, decision).with_verdict(verdict)
            }
            Evaluation::Stranger { reason, .. } => {
                Decided::without_key(seen, Decision::Deny(reason))
            }
            other => panic!("expected a request with a decision, not {other:?}"),
        };
        let policy = sha256_hex(POLICY);
        let mask = engine.settings().audit.mask.clone();
        self.meter.count(|| {
            let (host, tls_policy) = (Some("gw-1".into()), Some(policy.as_str().into()));
            drop(AuditRecord { host, tls_policy, ..decided.record() }.write(&mask));
        });
    }

    fn now_secs(&self) -> u64 {
        self.sent.now_ns / 1_000_000_000
    }
}

fn credential<'a>(head: &RequestHead<'a>) -> &'a [u8] {
    head.credential().expect("one key")
}
