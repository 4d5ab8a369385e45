//! The report of `vkey explain`: the result of each stage, and the decision.

mod message;

use std::borrow::Cow;
use std::fmt;
use std::rc::Rc;

use vkey::access::{Access, AmbiguousPath};
use vkey::body::request::{RequestFacts, Target};
use vkey::config::Hindrance;
use vkey::decision::{Decision, DenyReason, Mode};
use vkey::engine::{Engine, Identity, KnownKey, McpTarget, Reading, StageResult};
use vkey::exchange::Step;
use vkey::headers::RequestHead;
use vkey::host::Dialect;
use vkey::issuing::KeyFlaw;
use vkey::json::Json;
use vkey::limits::{Amounts, Charge};
use vkey::reply::TOO_LARGE;

use super::evaluated::{Evaluated, Known};
use super::request_body::{Refusal, RequestBody, describe_facts, with_detail};
use super::text::{ascii, escape_word};
use super::{limits, time};

/// The stages of one decision. The engine decides; the stages show why.
pub(super) struct Report {
    /// The decision.
    pub(super) decision: Decision,
    now_secs: u64,
    key: Option<Rc<KnownKey>>,
    /// What the body asks for, or why it cannot be read.
    body: Option<Json>,
    stages: Vec<Line>,
    /// The limits that the request would be charged to, or denied for on a host without shared data. Only the
    /// gate knows what remains of them.
    limits: Vec<Charge>,
    /// What the request reserves of them.
    amounts: Amounts,
    /// Whether the reply would be counts.
    pub(super) usage: bool,
    /// What is not known of the request and decides on it, unless something else refuses it.
    lacks: Option<&'static str>,
    /// What else the gate does, or would do.
    notes: Vec<String>,
}

/// A stage with its result.
struct Line {
    name: String,
    verdict: StageResult,
    message: Cow<'static, str>,
}

impl Report {
    /// Evaluates one request. `access` returns what the request asks for, given the rules for its key, apart from models
    /// and its MCP call; `upstream`, why its upstream is refused whatever its route and its connection. `assumed`: the MCP
    /// server that it is taken to be for.
    pub(super) fn new<'a>(
        engine: &mut Engine,
        head: &RequestHead<'_>,
        (body, assumed): (&RequestBody, Option<McpTarget>),
        access: impl FnOnce(&KnownKey) -> Result<Access<'a>, AmbiguousPath>,
        upstream: impl FnOnce(&Engine) -> Option<DenyReason>,
        now_secs: u64,
    ) -> Self {
        let mut report = Self::empty(Decision::Allow, now_secs);
        match engine.identify_sender(head, now_secs) {
            Identity::Stranger(reason) => {
                report.push("key", Err(reason), reason.message());
                report.decision = Decision::Deny(reason);
            }
            Identity::Known { key, validity } => {
                report.push("key", Ok(()), "");
                let access = access(&key);
                let request = Evaluated { engine, key: &key, validity, head, access, assumed };
                report.evaluate(&request, body);
                report.conclude(engine, &key, upstream);
                report.key = Some(Rc::clone(&key));
            }
        }
        report
    }

    /// A request that needs no key. `upstream`: why its upstream is refused.
    pub(super) fn without_key(note: &str, upstream: Option<DenyReason>, now_secs: u64) -> Self {
        let mut report =
            Self { notes: vec![note.to_owned()], ..Self::empty(Decision::Public, now_secs) };
        if let Some(reason) = upstream {
            report.push("upstream", Err(reason), reason.message());
            report.decision = Decision::Deny(reason);
        }
        report
    }

    fn empty(decision: Decision, now_secs: u64) -> Self {
        Self {
            decision,
            now_secs,
            key: None,
            body: None,
            stages: Vec::new(),
            limits: Vec::new(),
            amounts: Amounts::default(),
            usage: false,
            lacks: None,
            notes: Vec::new(),
        }
    }

    /// Looks at the request as the gate does: at its headers, and if they allow it at its headers with its body.
    fn evaluate(&mut self, request: &Evaluated<'_, '_>, body: &RequestBody) {
        let reading = request.reading();
        if let Reading::Mcp(target) = &reading {
            return self.evaluate_message(request, (&reading, target), body);
        }
        self.describe_body(request, body);
        let stages = self.stages.len();
        self.look(request, &Known::before_body(request, &reading));
        let Reading::Body(target) = &reading else {
            return self.note_unread(&reading, body);
        };
        if !self.goes_on() {
            return;
        }
        let settings = request.engine.settings();
        let read = match body.check(settings) {
            Ok(()) if !body.is_known() => return self.await_body(request),
            checked => checked.and_then(|()| body.read((**target).clone(), settings)),
        };
        match read {
            Err(refusal) => {
                let Evaluated { engine, key, .. } = *request;
                match engine.decide_unread(key, self.decision, refusal.0) {
                    Decision::Allow => self.notes.push(AUDIT_ONLY.to_owned()),
                    decision => self.refuse("body", refusal, decision),
                }
            }
            Ok(facts) => {
                self.stages.truncate(stages);
                self.look(request, &Known::of(request, &reading, Some(&facts)));
                self.add_price(request, &facts);
            }
        }
    }

    /// Evaluates every stage, even after one has decided.
    fn look(&mut self, request: &Evaluated<'_, '_>, known: &Known<'_>) {
        let engine = request.engine;
        let question = request.question(known.models, known.mcp);
        for (stage, verdict) in engine.stages(&question) {
            match verdict {
                Ok(()) if !stage.is_shown() => {}
                Ok(()) => self.push(stage, verdict, ""),
                Err(reason) => {
                    let of_stage = || stage.message(reason).unwrap_or_else(|| reason.message());
                    let message = known.why(request, stage, reason);
                    let message = message.unwrap_or_else(|| of_stage().into());
                    self.stages.push(Line { name: stage.to_string(), verdict, message });
                }
            }
        }
        match known.checked {
            Ok(()) if !known.is_read => {}
            Ok(()) => self.push("body", Ok(()), ""),
            Err((reason, message)) => {
                self.push("body", Err(reason), message.unwrap_or_else(|| reason.message()));
            }
        }
        match Step::of(engine, &question).and(engine, known.checked) {
            Step::Decide { decision, .. } => self.decision = decision,
            Step::ShowUsage(_) => self.usage = true,
        }
    }

    /// Whether the gate goes on with the request: it neither refuses nor answers it.
    fn goes_on(&self) -> bool {
        self.decision.forwards() && !self.usage
    }

    /// Whether what is not known of the request decides on it.
    pub(super) fn is_undecided(&self) -> bool {
        self.lacks.is_some() && self.goes_on()
    }

    /// Leaves the decision open if it depends on the body, which is not known.
    fn await_body(&mut self, request: &Evaluated<'_, '_>) {
        let Evaluated { engine, key, .. } = *request;
        let unread = engine.decide_unread(key, self.decision, DenyReason::BodyUnreadable);
        self.lacks = (unread != self.decision).then_some(NO_BODY);
    }

    /// Refuses a request that is allowed otherwise because of its cost, if that is limited and not known.
    fn add_price(&mut self, request: &Evaluated<'_, '_>, facts: &RequestFacts) {
        let Evaluated { engine, key, .. } = *request;
        if self.decision != Decision::Allow {
            return;
        }
        let mode = engine.settings().mode;
        match engine.reserve(key, facts) {
            Ok(reserve) => {
                self.amounts = reserve.map(|reserve| reserve.amounts()).unwrap_or_default();
            }
            Err((reason, message)) => {
                let model = engine.unpriced(facts).and_then(|index| facts.models.get(index));
                let model = model.map(|name| escape_word(name));
                let why = with_detail(message.unwrap_or_else(|| reason.message()), model);
                self.refuse("price", (reason, why), Decision::refused(reason, mode));
            }
        }
    }

    fn refuse(&mut self, stage: &str, (reason, message): Refusal, decision: Decision) {
        self.stages.push(Line { name: stage.to_owned(), verdict: Err(reason), message });
        self.decision = decision;
    }

    /// Shows what the body asks for, whether the gate reads it or not.
    fn describe_body(&mut self, request: &Evaluated<'_, '_>, body: &RequestBody) {
        let (head, settings) = (request.head, request.engine.settings());
        let method = std::str::from_utf8(head.method.unwrap_or_default()).unwrap_or_default();
        let target = Target::parse(method, head.target.unwrap_or_default());
        let Some(target) = target.ok().filter(|_| body.is_present()) else { return };
        self.body = Some(match body.facts(target, settings) {
            Ok(facts) => describe_facts(&facts, settings),
            Err(why) => Json::object([("error", (&*why).into())]),
        });
    }

    /// Notes why the gate does not read a body that is there.
    fn note_unread(&mut self, reading: &Reading, body: &RequestBody) {
        let why = match reading {
            Reading::Nothing => NOTHING,
            Reading::Exempt => EXEMPT,
            Reading::Body(_) | Reading::Uncounted | Reading::Ambiguous(_) | Reading::Mcp(_) => {
                return;
            }
        };
        if body.is_present() && self.goes_on() {
            self.notes.push(why.to_owned());
        }
    }

    /// Adds what the gate checks after the stages: the upstream, and then the limits.
    fn conclude(
        &mut self,
        engine: &Engine,
        key: &KnownKey,
        upstream: impl FnOnce(&Engine) -> Option<DenyReason>,
    ) {
        let goes_on = self.goes_on();
        if goes_on {
            self.limits = [key.charges(), key.tenant_charges()].concat();
        }
        if let Some(reason) = goes_on.then(|| upstream(engine)).flatten() {
            self.push("upstream", Err(reason), reason.message());
            self.decision = Decision::Deny(reason);
            self.limits.clear();
        }
        self.check_size(engine.settings().mode);
        if engine.settings().dialect == Dialect::Bare {
            self.decide_without_counts();
        }
    }

    /// Refuses a request that is larger than a whole quota. That is known without counts.
    fn check_size(&mut self, mode: Mode) {
        let never_admits = |charge: &&Charge| charge.never_admits(&self.amounts);
        let Some(charge) = self.limits.iter().find(never_admits) else { return };
        let (reason, name) = (charge.reason(), charge.name().to_string());
        let why = with_detail(TOO_LARGE, Some(name));
        self.refuse("limit", (reason, why), Decision::limited(reason, mode));
    }

    /// Without shared data, requests that need counts are denied: those with limits, and those for counts.
    fn decide_without_counts(&mut self) {
        let decision = self.decision.without_counts(self.usage || !self.limits.is_empty());
        if decision != self.decision {
            self.push("counts", Err(DenyReason::NotReady), DenyReason::NotReady.message());
            self.decision = decision;
            self.usage = false;
        }
    }

    /// Adds what hinders the provider credentials of the request, if it goes on.
    pub(super) fn add_notes(&mut self, hindrances: &[Hindrance]) {
        if self.goes_on() {
            self.notes.extend(hindrances.iter().map(ToString::to_string));
        }
    }

    /// Notes that the request would be allowed if the gate read its MCP call. `read`: the report as if it did.
    pub(super) fn compare_with_call(&mut self, read: &Self) {
        if read.decision == Decision::Allow {
            self.notes.push(if read.is_undecided() { UNREAD_ARGUMENTS } else { UNREAD }.to_owned());
        }
    }

    /// Adds a stage. `message` explains a denial.
    fn push(&mut self, name: impl fmt::Display, verdict: StageResult, message: &'static str) {
        self.stages.push(Line { name: name.to_string(), verdict, message: message.into() });
    }

    /// Says what no gate accepts in the credential, if it was denied for its form. `find` looks for that.
    pub(super) fn name_flaw(&mut self, find: impl FnOnce() -> Option<KeyFlaw>) {
        let malformed = Err(DenyReason::KeyMalformed);
        let line = self.stages.iter_mut().find(|line| line.verdict == malformed);
        if let Some((line, flaw)) = line.and_then(|line| Some((line, find()?))) {
            line.message = flaw.to_string().into();
        }
    }

    /// The notes, what is not known among them.
    fn notes(&self) -> impl Iterator<Item = &str> {
        let lacks = self.lacks.filter(|_| self.is_undecided());
        self.notes.iter().map(String::as_str).chain(lacks)
    }

    /// The decision in a word.
    pub(super) fn word(&self) -> &'static str {
        if self.is_undecided() { "undecided" } else { self.decision.word() }
    }

    fn reason(&self) -> Option<DenyReason> {
        self.decision.reason().filter(|_| !self.is_undecided())
    }

    /// The report as JSON.
    pub(super) fn to_json(&self) -> String {
        let reason = self.reason();
        let json = Json::object([
            ("now", self.now_secs.into()),
            ("key", self.key.as_ref().map_or(Json::Null, |key| describe(key))),
            ("body", self.body.clone().unwrap_or(Json::Null)),
            ("stages", Json::Array(self.stages.iter().map(Line::to_json).collect())),
            ("limits", Json::Array(self.limits.iter().map(limits::to_json).collect())),
            ("decision", self.word().into()),
            ("reason", reason.map_or(Json::Null, |reason| reason.code().into())),
            ("usage", Json::Bool(self.usage)),
            ("notes", Json::Array(self.notes().map(Json::from).collect())),
        ]);
        ascii(&json)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.key {
            writeln!(f, "{:<12}{}", "verified", ascii(&describe(key)))?;
        }
        writeln!(f, "{:<12}{}", "time", time::rfc3339(self.now_secs))?;
        if let Some(body) = &self.body {
            writeln!(f, "{:<12}{}", "asks for", ascii(body))?;
        }
        for Line { name, verdict, message } in &self.stages {
            match verdict {
                Ok(()) => writeln!(f, "{name:<12}ok")?,
                Err(reason) => writeln!(f, "{name:<12}{reason}: {message}")?,
            }
        }
        for charge in &self.limits {
            writeln!(f, "{:<12}{}: {}", "limit", charge.name(), limits::text(&charge.limit))?;
        }
        if !self.limits.is_empty() && self.decision.forwards() {
            writeln!(f, "{:<12}{UNCOUNTED}", "note")?;
        }
        for note in self.notes() {
            writeln!(f, "{:<12}{note}", "note")?;
        }
        let word = self.word();
        match self.reason() {
            Some(reason) => writeln!(f, "{:<12}{word} {reason}", "decision"),
            None if self.usage => {
                writeln!(f, "{:<12}{word}, with counts", "decision")
            }
            None => writeln!(f, "{:<12}{word}", "decision"),
        }
    }
}

impl Line {
    fn to_json(&self) -> Json {
        let (verdict, message) = match self.verdict {
            Ok(()) => ("ok", Json::Null),
            Err(reason) => (reason.code(), Json::from(&*self.message)),
        };
        Json::object([
            ("stage", self.name.as_str().into()),
            ("verdict", verdict.into()),
            ("message", message),
        ])
    }
}

const UNCOUNTED: &str = "nothing is counted here: only the gate knows what is left of these limits";

const UNREAD: &str = "mcp in the configuration does not name the path, so the gate reads no MCP call; it would allow the \
    request if it did";

const UNREAD_ARGUMENTS: &str = "mcp in the configuration does not name the path, so the gate reads no MCP call; if it \
    did, the arguments of the call would decide";

const NO_BODY: &str = "the decision depends on the body, which is not given: pass it with --body, or its model alone \
    with --model";

const AUDIT_ONLY: &str = "the body would be read for the audit alone, and cannot be: the request passes, and its tokens are not counted";

const NOTHING: &str =
    "nothing that limits this key depends on the body, so the gate does not read it";

const EXEMPT: &str = "llm.unmetered lists the path, so the gate does not read the body, and no restriction of models applies";

/// What audit lines say of a key.
fn describe(key: &KnownKey) -> Json {
    Json::object([
        ("kid", key.kid().to_string().as_str().into()),
        ("jti", key.jti().into()),
        ("tenant", key.tenant().into()),
        ("sub", key.sub().map_or(Json::Null, Json::from)),
        ("tier", key.tier().into()),
        ("caveats", u64::from(key.caveats_len()).into()),
    ])
}
