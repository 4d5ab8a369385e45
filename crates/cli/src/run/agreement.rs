//! `vkey explain` and `vkey run` agree: the library in the first decides like the module in the second.
//!
//! Both get random requests in the form that users give them: as arguments, and as a line. What only one of
//! them can express is left out:
//! - headers other than that of the key: no key or two keys, upgrades by a header;
//! - earlier requests: exhausted limits, blocked sources. Limits that nobody reaches are among the cases;
//! - a host without shared data that the configuration does not mention;
//! - upstreams that the policy refuses for what only a route shows (`upstream_unproven`);
//! - environment variables of provider credentials, which only the module needs;
//! - times after 2554, which only `vkey explain` accepts: hosts report nanoseconds.

mod draw;
mod gates;
mod keys;
mod messages;
mod requests;
mod restrictions;
mod tally;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use proptest::prelude::ProptestConfig;

use crate::embedded::HostArgs;
use crate::explain;
use crate::lines::Line;
use crate::tls::policy_file;
use vkey::config::Config;
use vkey::engine::Engine;
use vkey::host::Rules;
use vkey::json::Json;
use vkey::upstream_tls::EffectivePolicy;
use vkey_vm::{BuiltIn, Limits, Module, Precompiled};

use super::evaluator::Evaluator;
use super::line_result::Outcome;
use draw::Draw;
use gates::{Gate, environment};
use keys::DrawnKey;
use requests::{Reader, Request};
use tally::Tally;

/// The built-in modules.
// SAFETY: the files are empty, or written by `precompile`.
#[allow(unsafe_code)]
const MODULES: BuiltIn = unsafe {
    BuiltIn {
        module: Precompiled::new(include_bytes!(env!("VKEY_MODULE"))),
        nginx: Precompiled::new(include_bytes!(env!("VKEY_NGINX_MODULE"))),
    }
};

/// The least number of gates, and one for every eight of `PROPTEST_CASES`, each with this number of keys and
/// requests per key. Both sides share the code of the stages, so a sample suffices.
const GATES: u64 = 60;
const KEYS: usize = 8;
const REQUESTS: usize = 14;

/// The decision of either command about a request.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct CommandDecision {
    decision: String,
    reason: Option<String>,
    /// Whether the reply is counts.
    usage: bool,
}

/// The arguments about the embedded host.
#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    host: HostArgs,
}

/// Compares both. A failure prints the seed of its gate.
#[test]
fn explain_and_run_agree() {
    const SEED: u64 = 0x6578_706c_6169_6e00;
    let gates = GATES.max(u64::from(ProptestConfig::default().cases / 8));
    // Generous, because other tests may keep the machine busy.
    let limits = Limits { deadline: Duration::from_secs(600), ..Limits::default() };
    let load = |rules| Module::load(MODULES.of(rules), limits).expect("run `make test`: a module");
    let (plain, nginx) = (load(Rules::Envoy), load(Rules::Nginx));
    let mut tally = Tally::default();
    for seed in SEED..SEED + gates {
        let mut draw = Draw::new(seed);
        let gate = Gate::draw(&mut draw);
        let module = if gate.rules == "nginx" { &nginx } else { &plain };
        let (mut explains, mut runs) = (ExplainSide::new(&gate), run_side(&gate, module.clone()));
        for number in 0..KEYS {
            let key = DrawnKey::draw(&mut draw, &gate, number);
            for number in 0..REQUESTS {
                if number == REQUESTS / 2 {
                    // By now the module has cached the key; explain never does.
                    explains = ExplainSide::new(&gate);
                }
                let request = Request::draw(&mut draw, &gate, &key);
                let explained = explains.decide(&key, &request);
                let (ran, text) = decision_of_run(&mut runs, &request);
                if explained == ran {
                    tally.add(&explained, &gate);
                } else if is_upstreams(&explained, &ran)
                    || is_nginx(&gate, &request, &explained, &ran)
                {
                    tally.skip();
                } else {
                    let difference = Difference { seed, gate: &gate, key: &key, request: &request };
                    panic!("{difference}\nexplain: {explained}\nrun: {ran}\nrun's line: {text}");
                }
            }
        }
    }
    println!("{tally}");
    tally.check();
}

/// Whether the policy refuses the route of a request that is otherwise allowed, or denied only because limits
/// cannot be counted: the module checks those later. `vkey explain` knows no route.
fn is_upstreams(explained: &CommandDecision, ran: &CommandDecision) -> bool {
    let refused = ran.reason.as_deref() == Some("upstream_unproven");
    let uncounted = explained.reason.as_deref() == Some("not_ready");
    refused && !explained.usage && (explained.decision != "deny" || uncounted)
}

/// Whether nginx shows less of a request than explain gets, or rejects it itself.
fn is_nginx(
    gate: &Gate,
    request: &Request,
    explained: &CommandDecision,
    ran: &CommandDecision,
) -> bool {
    let refused = ran.reason.as_deref() == Some("header_mismatch");
    let unread =
        gate.config.get("host").is_none() && ran.reason.as_deref() == Some("body_unreadable");
    // Explain knows of nginx only what the configuration says.
    let is_unnamed = gate.config.get("host").is_none()
        && explained.reason.as_deref() == Some("upstream_name")
        && ran.reason.as_deref() == Some("upstream_unproven");
    gate.rules == "nginx"
        && (refused || unread || is_unnamed || request.line.contains("\"client_cert\""))
}

/// `vkey explain` for one gate.
struct ExplainSide {
    engine: Engine,
    policy: EffectivePolicy,
    reader: Reader,
}

impl ExplainSide {
    fn new(gate: &Gate) -> Self {
        let config = Config::parse(gate.config.to_string().as_bytes());
        let config = config.unwrap_or_else(|invalid| panic!("{invalid}: {}", gate.config));
        let tighten = config.settings().upstream_tls.tighten.clone();
        let policy = policy_file(None).unwrap_or_else(|error| panic!("{error}"));
        let plan = explain::compile(config, environment).unwrap_or_else(|error| panic!("{error}"));
        let policy = EffectivePolicy::new(policy, tighten);
        Self { engine: Engine::new(plan), policy, reader: Reader::new() }
    }

    fn decide(&mut self, key: &DrawnKey, request: &Request) -> CommandDecision {
        let access = self.reader.read(request);
        let named = access.named().expect("a call");
        let body = access.with_body(Some(request.body.clone().unwrap_or_default()), named);
        let sent = (&*key.text, &body);
        let report = access.evaluate(&mut self.engine, &self.policy, sent, request.now_secs);
        CommandDecision {
            decision: report.word().to_owned(),
            reason: report.decision.reason().map(|reason| reason.code().to_owned()),
            usage: report.usage,
        }
    }
}

/// `vkey run` for one gate: a worker with its own shared data.
fn run_side(gate: &Gate, module: Module) -> Evaluator {
    let words = ["run", "--config=-", "--host", gate.rules];
    let Arguments { host } = Arguments::try_parse_from(words).expect("arguments");
    let text = gate.config.to_string();
    let config = Config::parse(text.as_bytes()).expect("a configuration");
    let host = host.host(module, text.into_bytes(), config, environment);
    let host = Arc::new(host.unwrap_or_else(|error| panic!("{error}: {}", gate.config)));
    let worker = host.worker().unwrap_or_else(|error| panic!("{error}: {}", gate.config));
    Evaluator::new(host, worker, u32::MAX)
}

/// The decision of `vkey run`, and its line.
fn decision_of_run(runs: &mut Evaluator, request: &Request) -> (CommandDecision, String) {
    let result = runs.evaluate(1, Line::Whole(request.line.clone().into_bytes()));
    let result = result.unwrap_or_else(|error| panic!("{error}"));
    let json = Json::parse(result.text.as_bytes()).expect("JSON");
    let text = |name| json.get(name).and_then(Json::as_str).map(str::to_owned);
    let decision = text("decision").unwrap_or_else(|| panic!("no decision: {}", result.text));
    let forwarded = result.outcome == Outcome::Allowed;
    assert_eq!(forwarded, decision != "deny", "{}", result.text);
    // A reply to an allowed request is counts, one without a key says that the gate is ready.
    let answered = json.get("reply").is_some_and(|reply| *reply != Json::Null);
    let answer = CommandDecision {
        usage: answered && forwarded && decision != "public",
        decision,
        reason: text("reason"),
    };
    (answer, result.text)
}

/// Everything that is needed to reproduce a difference.
struct Difference<'a> {
    seed: u64,
    gate: &'a Gate,
    key: &'a DrawnKey,
    request: &'a Request,
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, gate, key, request } = self;
        writeln!(f, "explain and run differ (seed {seed:#x})")?;
        writeln!(f, "configuration: {}", gate.config)?;
        writeln!(f, "kid: {}\nclaims: {}\ncaveats: {:?}", key.kid, key.claims, key.caveats)?;
        writeln!(f, "key: {}", key.text)?;
        writeln!(f, "explain's arguments: {:?} --now={}", request.args, request.now_secs)?;
        write!(f, "run's argument: --host={}\nrun's line: {}", gate.rules, request.line)
    }
}

impl fmt::Display for CommandDecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.decision)?;
        if let Some(reason) = &self.reason {
            write!(f, " {reason}")?;
        }
        if self.usage { f.write_str(" with counts") } else { Ok(()) }
    }
}
