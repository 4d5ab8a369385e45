//! `vkey explain` and `vkey run` agree: what the first says of a request by the library is what the
//! second says of it by the module.
//!
//! Both are told of random requests as people tell them: the one by arguments, the other by a line.
//! Some things only one of them can be told of, and these are left out:
//! - the model and the MCP call of a request, which the module does not read from bodies yet. What
//!   restricts them is among the cases, and refuses on both sides;
//! - headers other than that of the key: no key or two keys, upgrades by a header;
//! - what came before: limits without room, sources that are blocked. Limits that nobody reaches are
//!   among the cases;
//! - that a host has no shared data although the configuration does not say so;
//! - upstreams, which the policy may refuse;
//! - environment variables of providers' credentials, which only the module needs;
//! - times later than hosts can tell in nanoseconds (2554), which only `vkey explain` takes.

mod draw;
mod gates;
mod keys;
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
use vkey::config::Config;
use vkey::engine::Engine;
use vkey::host::Rules;
use vkey::json::Json;
use vkey_vm::{BuiltIn, Limits, Module, Precompiled};

use super::judge::Judge;
use super::verdict::Outcome;
use draw::Draw;
use gates::{Gate, environment};
use keys::DrawnKey;
use requests::{Reader, Request};
use tally::Tally;

/// The modules that are built in.
// SAFETY: the files are written by `precompile` alone, or empty.
#[allow(unsafe_code)]
const MODULES: BuiltIn = unsafe {
    BuiltIn {
        module: Precompiled::new(include_bytes!(env!("VKEY_MODULE"))),
        nginx: Precompiled::new(include_bytes!(env!("VKEY_NGINX_MODULE"))),
    }
};

/// How many cases the test has: this many gates at least, one for every eight of `PROPTEST_CASES`, each with that many
/// keys and requests. Both fold the same stages, so it is a sample.
const GATES: u64 = 48;
const KEYS: usize = 8;
const REQUESTS: usize = 14;

/// What either command says of a request.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Answer {
    decision: String,
    reason: Option<String>,
    /// Counts are shown.
    usage: bool,
}

/// The arguments that say how the module is hosted.
#[derive(clap::Parser)]
struct Arguments {
    #[command(flatten)]
    host: HostArgs,
}

/// Holds both against each other. Of a difference the seed of its gate is shown.
#[test]
fn explain_and_run_agree() {
    const SEED: u64 = 0x6578_706c_6169_6e00;
    let gates = GATES.max(u64::from(ProptestConfig::default().cases / 8));
    // However busy the machine is with other tests.
    let limits = Limits { deadline: Duration::from_secs(600), ..Limits::default() };
    let load = |rules| Module::load(MODULES.of(rules), limits).expect("run `make test`: a module");
    let (plain, nginx) = (load(Rules::Envoy), load(Rules::Nginx));
    let mut tally = Tally::default();
    for seed in SEED..SEED + gates {
        let mut draw = Draw::new(seed);
        let gate = Gate::draw(&mut draw);
        let module = if gate.rules == "nginx" { &nginx } else { &plain };
        let (mut explains, mut runs) = (Explains::new(&gate), runs(&gate, module.clone()));
        for number in 0..KEYS {
            let key = DrawnKey::draw(&mut draw, &gate, number);
            for number in 0..REQUESTS {
                if number == REQUESTS / 2 {
                    // The module has seen the key by now; explain never has.
                    explains = Explains::new(&gate);
                }
                let request = Request::draw(&mut draw, &gate, &key);
                let explained = explains.answer(&key, &request);
                let (ran, text) = answer_of_run(&mut runs, &request);
                if explained == ran {
                    tally.add(&explained, &gate);
                } else if is_upstreams(&explained, &ran) || is_nginx(&gate, &request, &ran) {
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

/// Whether it is the policy that refuses the upstream of a request that would go on, or would but for
/// limits that are not counted: the module judges these last.
fn is_upstreams(explained: &Answer, ran: &Answer) -> bool {
    let refused = ran.reason.as_deref().is_some_and(|reason| reason.starts_with("upstream_"));
    let uncounted = explained.reason.as_deref() == Some("not_ready");
    refused && !explained.usage && (explained.decision != "deny" || uncounted)
}

/// Whether it is nginx that shows less of a request than explain is told, or that refuses it by itself.
fn is_nginx(gate: &Gate, request: &Request, ran: &Answer) -> bool {
    let refused = ran.reason.as_deref() == Some("header_mismatch");
    gate.rules == "nginx" && (refused || request.line.contains("\"client_cert\""))
}

/// `vkey explain`, of one gate.
struct Explains {
    engine: Engine,
    reader: Reader,
}

impl Explains {
    fn new(gate: &Gate) -> Self {
        let config = Config::parse(gate.config.to_string().as_bytes());
        let config = config.unwrap_or_else(|invalid| panic!("{invalid}: {}", gate.config));
        let plan = explain::compile(config, environment).unwrap_or_else(|error| panic!("{error}"));
        Self { engine: Engine::new(plan), reader: Reader::new() }
    }

    fn answer(&mut self, key: &DrawnKey, request: &Request) -> Answer {
        let access = self.reader.read(request);
        let report = access.judge(&mut self.engine, &key.text, request.now_secs);
        Answer {
            decision: report.decision.word().to_owned(),
            reason: report.decision.reason().map(|reason| reason.code().to_owned()),
            usage: report.usage,
        }
    }
}

/// `vkey run`, of one gate: a worker, in a shared store of its own.
fn runs(gate: &Gate, module: Module) -> Judge {
    let words = ["run", "--config=-", "--host", gate.rules];
    let Arguments { host } = Arguments::try_parse_from(words).expect("arguments");
    let text = gate.config.to_string();
    let config = Config::parse(text.as_bytes()).expect("a configuration");
    let host = host.host(module, text.into_bytes(), config, environment);
    let host = Arc::new(host.unwrap_or_else(|error| panic!("{error}: {}", gate.config)));
    let worker = host.worker().unwrap_or_else(|error| panic!("{error}: {}", gate.config));
    Judge::new(host, worker, u32::MAX)
}

/// What `vkey run` says, and its line.
fn answer_of_run(runs: &mut Judge, request: &Request) -> (Answer, String) {
    let verdict = runs.judge(1, Line::Whole(request.line.clone().into_bytes()));
    let verdict = verdict.unwrap_or_else(|error| panic!("{error}"));
    let json = Json::parse(verdict.text.as_bytes()).expect("JSON");
    let text = |name| json.get(name).and_then(Json::as_str).map(str::to_owned);
    let decision = text("decision").unwrap_or_else(|| panic!("no decision: {}", verdict.text));
    let goes_on = verdict.outcome == Outcome::Allowed;
    assert_eq!(goes_on, decision != "deny", "{}", verdict.text);
    // What is answered although it is allowed is answered with counts.
    let answered = json.get("reply").is_some_and(|reply| *reply != Json::Null);
    let answer = Answer { usage: answered && goes_on, decision, reason: text("reason") };
    (answer, verdict.text)
}

/// All that is needed to see a difference again.
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

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.decision)?;
        if let Some(reason) = &self.reason {
            write!(f, " {reason}")?;
        }
        if self.usage { f.write_str(" with counts") } else { Ok(()) }
    }
}
