//! What of a scenario cannot be said to a real Envoy, or would mean something else there.

use std::net::SocketAddr;

use vkey::decision::DenyClass;
use vkey::host::Rules;
use vkey::json::Json;

use crate::scenario::body::Body;
use crate::scenario::format::{ConfigSpec, HostKind, Outcome, Scenario, Variant};
use crate::scenario::step::{Expected, Faults, Step, Trailers};

/// Why a file, a variant or a step is not run. The table in `testdata/README.md` says the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unfit {
    Answer,
    Behind,
    ClientCert,
    Clock,
    Ending,
    Faults,
    Host,
    Measured,
    NotOn,
    Records,
    Refused,
    Request,
    Source,
    Time,
    Upstream,
    Worker,
}

impl Unfit {
    pub(crate) const ALL: [Self; 16] = [
        Self::Answer,
        Self::Behind,
        Self::ClientCert,
        Self::Clock,
        Self::Ending,
        Self::Faults,
        Self::Host,
        Self::Measured,
        Self::NotOn,
        Self::Records,
        Self::Refused,
        Self::Request,
        Self::Source,
        Self::Time,
        Self::Upstream,
        Self::Worker,
    ];

    /// As the table and the output of the test name it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::Behind => "behind",
            Self::ClientCert => "client_cert",
            Self::Clock => "clock",
            Self::Ending => "ending",
            Self::Faults => "faults",
            Self::Host => "host",
            Self::Measured => "measured",
            Self::NotOn => "not_on",
            Self::Records => "records",
            Self::Refused => "refused",
            Self::Request => "request",
            Self::Source => "source",
            Self::Time => "time",
            Self::Upstream => "upstream",
            Self::Worker => "worker",
        }
    }
}

/// What is run of a file.
pub(crate) struct Fit {
    /// For each step what keeps it from being run, if anything does.
    pub(crate) steps: Vec<Option<Unfit>>,
    pub(crate) start: Start,
}

/// What the start of a scenario is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The time before a step from its own present: no step depends on the one before it.
    EachStep,
    /// The present of the first step.
    FirstStep,
    /// The time when the configuration was written, which names it.
    Fixed,
}

impl Fit {
    /// `text`: the file as it stands.
    pub(crate) fn of(scenario: &Scenario, text: &str) -> Result<Self, Unfit> {
        if let Some(unfit) = of_file(scenario, text) {
            return Err(unfit);
        }
        let remembers = REMEMBERING.iter().any(|word| text.contains(word));
        let reads = |step: &Step| step.expect.action == Expected::Reply;
        let dated = scenario.variants.iter().any(|variant| is_dated(&variant.config));
        let alone = !remembers && !scenario.steps.iter().any(reads);
        let moves = alone && !dated && scenario.start.is_none();
        let mut steps: Vec<_> = scenario.steps.iter().map(|step| of_step(step, moves)).collect();
        let first = steps.iter().position(Option::is_some).unwrap_or(steps.len());
        for (step, unfit) in scenario.steps.iter().zip(&mut steps).skip(first + 1) {
            if remembers || reads(step) {
                *unfit = Some(Unfit::Behind);
            }
        }
        let start = match (dated, moves) {
            (true, _) => Start::Fixed,
            (false, true) => Start::EachStep,
            (false, false) => Start::FirstStep,
        };
        Ok(Self { steps, start })
    }

    /// Its steps under a variant.
    pub(crate) fn under(&self, variant: &Variant) -> Vec<Option<Unfit>> {
        match variant.configure.outcome {
            Outcome::Refused => vec![Some(Unfit::Refused); self.steps.len()],
            _ => self.steps.clone(),
        }
    }
}

/// What makes a request depend on those before it. A usage document only reports them.
const REMEMBERING: [&str; 4] = ["\"rate\"", "\"quotas\"", "\"auth_failures\"", "\"anomaly\""];

/// What depends on the very second in a file that has a start.
const TIMED: [&str; 6] =
    ["\"rate\"", "\"minute\"", "\"month\"", "\"rotation\"", "\"auth_failures\"", "\"anomaly\""];

/// Whether a configuration names a time after the start.
fn is_dated(config: &ConfigSpec) -> bool {
    match config {
        ConfigSpec::Absent => false,
        ConfigSpec::Object(json) => json.to_string().contains("{{start"),
        ConfigSpec::Text(text) => text.contains("{{start"),
    }
}

fn of_file(scenario: &Scenario, text: &str) -> Option<Unfit> {
    // A start near the present leaves a file's other numbers of that size as they are.
    let timed =
        || TIMED.iter().any(|word| text.contains(word)) || text.matches(" 18000").count() > 1;
    if scenario.not_on.iter().any(|machine| machine == "envoy") {
        Some(Unfit::NotOn)
    } else if !scenario.hosts.contains(&HostKind::Rules(Rules::Envoy)) {
        Some(Unfit::Host)
    } else if !scenario.records.is_empty() || !scenario.damaged.is_empty() {
        Some(Unfit::Records)
    } else if scenario.start.is_some() && timed() {
        Some(Unfit::Clock)
    } else {
        None
    }
}

fn of_step(step: &Step, moves: bool) -> Option<Unfit> {
    let source = step.request.source.as_deref().map(str::parse::<SocketAddr>);
    if step.worker != 0 {
        Some(Unfit::Worker)
    } else if is_faulty(&step.faults) {
        Some(Unfit::Faults)
    } else if step.at_ns != 0 || (step.at != 0 && !moves) {
        Some(Unfit::Time)
    } else if !matches!(source, Some(Ok(_))) {
        Some(Unfit::Source)
    } else if step.request.client_cert.is_some() {
        Some(Unfit::ClientCert)
    } else if of_upstream(step) {
        Some(Unfit::Upstream)
    } else if step.expect.audit.iter().any(|(name, value)| is_measured(name, value)) {
        Some(Unfit::Measured)
    } else if ends_otherwise(step) {
        Some(Unfit::Ending)
    } else {
        of_request(step)
    }
}

fn is_faulty(faults: &Faults) -> bool {
    let Faults { failing_edits, no_clock, no_headers, never_shown, keeps_bodies } = *faults;
    failing_edits.is_some() || no_clock || no_headers || never_shown || keeps_bodies
}

/// Whether it matters how the upstream is connected.
fn of_upstream(step: &Step) -> bool {
    let shown = !matches!(&step.upstream, Json::Object(members) if members.is_empty());
    shown || step.expect.reason.is_some_and(|reason| reason.class() == DenyClass::Upstream)
}

/// Whether a member of an audit line is what the host in memory made up.
fn is_measured(name: &str, value: &Json) -> bool {
    match name {
        "ts" | "duration_ns" | "bytes_in" | "bytes_out" => true,
        "upstream" => *value != Json::Null,
        _ => false,
    }
}

/// Whether no upstream of the test's can bring about how a step ends.
fn ends_otherwise(step: &Step) -> bool {
    let status = step.expect.audit.iter().find(|(name, _)| name == "status");
    let goes_away = matches!(status, Some((_, Json::Null)));
    let odd = step.ending.status.is_some_and(|status| !(200..=599).contains(&status));
    // `bodies` has those that an upstream cannot bring about.
    odd || step.ending.cut.is_some()
        || step.request.unfinished
        || (goes_away && step.expect.action == Expected::Forward)
}

/// Headers that mean something between a client and Envoy, or that Envoy writes itself.
const OF_THE_HOP: [&str; 8] = [
    "connection", "content-length", "expect", "host", "keep-alive", "te", "transfer-encoding",
    "x-forwarded-proto",
];

/// The header that Envoy makes one of where there are several.
const JOINED: &str = "authorization";

/// What HTTP/1.1 cannot carry, or Envoy refuses or changes ahead of the module.
fn of_request(step: &Step) -> Option<Unfit> {
    let headers = &step.request.headers;
    let pseudo = |wanted: &str| headers.iter().filter(|(name, _)| name == wanted).count();
    let once = [":method", ":path", ":authority"].into_iter().all(|name| pseudo(name) == 1);
    let carried = headers.iter().all(|(name, value)| carries(name, &without_placeholders(value)));
    let authorizations = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(JOINED));
    // Envoy reads trailers of HTTP/1.1 only where it is configured to; `bodies` has them.
    let has_trailers = step.request.trailers != Trailers::Absent;
    let has_body = step.request.body != Body::default();
    if !once || !carried || authorizations.count() > 1 || (has_trailers && has_body) {
        return Some(Unfit::Request);
    }
    // The answer to a HEAD has no body.
    let head = headers.iter().any(|(name, value)| name == ":method" && value == "HEAD");
    (head && step.expect.action.sends_reply()).then_some(Unfit::Answer)
}

/// A text with what is repeated in it once, and without its other placeholders: keys, tags, numbers and
/// hexadecimal digits are letters, digits, dots, dashes and underscores.
fn without_placeholders(text: &str) -> String {
    let mut rest = text.replace("{{n}}", "");
    while let Some((before, after)) = rest.split_once("{{") {
        let (placeholder, after) = after.split_once("}}").expect("}} after {{");
        let repeated = placeholder.strip_prefix("times ").and_then(|rest| rest.split_once(' '));
        rest = [before, repeated.map_or("", |(_, text)| text), after].concat();
    }
    rest
}

fn carries(name: &str, value: &str) -> bool {
    let graphic = |text: &str| text.chars().all(|c| ('!'..='~').contains(&c));
    let token = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c))
    };
    match name {
        ":method" => token(value) && value != "CONNECT",
        ":path" => graphic(value) && value.starts_with('/') && !value.contains('#'),
        ":authority" => graphic(value) && !value.contains(['/', '?', '#', '\\']),
        // Envoy drops others ahead of the module.
        _ if name.eq_ignore_ascii_case("upgrade") => value == "websocket",
        _ if name.eq_ignore_ascii_case("connection") => value.eq_ignore_ascii_case("upgrade"),
        _ => {
            let lower = name.to_ascii_lowercase();
            token(name)
                && !lower.starts_with("x-envoy-")
                && !OF_THE_HOP.contains(&&*lower)
                && value
                    .chars()
                    .all(|c| c == '\t' || (' '..='\u{ff}').contains(&c) && c != '\u{7f}')
        }
    }
}
