//! The scenarios of `testdata/scenarios` on a real Envoy.

mod backend;
mod late;
mod listeners;
mod logs;
mod machine;
mod unfit;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use vkey::decision::{DenyClass, DenyReason};
use vkey::host::Rules;

use self::late::Late;
use self::machine::{Gateway, Site};
use self::unfit::{Fit, Start, Unfit};
use crate::keys::now_secs;
use crate::scenario::Machine;
use crate::scenario::format::{HostKind, Scenario};
use crate::scenario::run::{MakeMachine, run};
use crate::support::{artefact, root, wait_within};

/// How many conversations are held at a time. Each waits for Envoy's logs most of the time.
const AT_ONCE: usize = 8;

const HOUR_SECS: u64 = 3600;

/// Longer than any conversation takes.
const ROOM_SECS: u64 = 30;

/// One variant of a file, with the steps that are run.
struct Job {
    file: String,
    text: String,
    variant: usize,
    steps: Vec<bool>,
    start: Start,
}

impl Job {
    /// What is wrong with it on Envoy.
    fn run(&self, site: &Arc<Site>) -> Vec<String> {
        // The windows of limits end with an hour; none is to end within a conversation.
        let begins = || (now_secs() % HOUR_SECS < HOUR_SECS - ROOM_SECS).then_some(());
        wait_within(Duration::from_secs(2 * ROOM_SECS), begins, || "an hour that ends".to_owned());
        let (site, start) = (Arc::clone(site), self.start);
        self.run_on(&move |config, env, _| {
            Box::new(Gateway::new(Arc::clone(&site), &config, &env, start)) as Box<dyn Machine>
        })
    }

    /// What is wrong with it on a machine.
    fn run_on(&self, make: &MakeMachine) -> Vec<String> {
        let mut scenario = read(&self.text);
        let variant = scenario.variants.swap_remove(self.variant);
        scenario.variants = vec![variant];
        scenario.hosts = vec![HostKind::Rules(Rules::Envoy)];
        scenario.start = Some(now_secs());
        let mut runs = self.steps.iter();
        scenario.steps.retain(|_| runs.next() == Some(&true));
        run(&scenario, make).into_iter().map(|problem| format!("{} {problem}", self.file)).collect()
    }

    /// What is wrong where nothing more can be said; the panic itself is printed.
    fn panicked(&self) -> String {
        format!("{} panicked, in its variant {} from 0", self.file, self.variant)
    }
}

/// What is run and what is not.
#[derive(Default)]
struct Plan {
    jobs: Vec<Job>,
    files: usize,
    steps: usize,
    unfit_files: BTreeMap<Unfit, usize>,
    unfit_steps: BTreeMap<Unfit, usize>,
    /// What is refused for in the steps that are run.
    reasons: BTreeSet<DenyReason>,
}

impl Plan {
    fn of(files: &[PathBuf]) -> Self {
        let mut plan = Self::default();
        for file in files {
            let text = fs::read_to_string(file).expect("a scenario");
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            plan.add(&name, &text);
        }
        plan
    }

    fn add(&mut self, file: &str, text: &str) {
        let scenario = read(text);
        let fit = match Fit::of(&scenario, text) {
            Ok(fit) => fit,
            Err(unfit) => {
                *self.unfit_files.entry(unfit).or_default() += 1;
                return;
            }
        };
        self.files += 1;
        for (index, variant) in scenario.variants.iter().enumerate() {
            let unfit = fit.under(variant);
            for unfit in unfit.iter().flatten() {
                *self.unfit_steps.entry(*unfit).or_default() += 1;
            }
            let steps: Vec<bool> = unfit.iter().map(Option::is_none).collect();
            let run = scenario.steps.iter().zip(&steps).filter(|(_, run)| **run);
            for (step, _) in run {
                self.steps += 1;
                let refused = step.expect.action.denies();
                self.reasons.extend(step.expect.reason.filter(|_| refused));
            }
            let (file, text, start) = (file.to_owned(), text.to_owned(), fit.start);
            self.jobs.push(Job { file, text, variant: index, steps, start });
        }
    }

    fn print(&self) {
        let (files, variants, steps) = (self.files, self.jobs.len(), self.steps);
        println!("run: {files} files, {variants} variants, {steps} steps");
        for (unfit, count) in &self.unfit_files {
            println!("not run: {count} files: {}", unfit.word());
        }
        for (unfit, count) in &self.unfit_steps {
            println!("not run: {count} steps of other files: {}", unfit.word());
        }
    }

    /// Holds all conversations, several at a time.
    fn run(&self, site: &Arc<Site>) -> Vec<String> {
        let jobs = Mutex::new(self.jobs.iter());
        let problems = Mutex::new(Vec::new());
        let work = || {
            let next = || jobs.lock().unwrap_or_else(PoisonError::into_inner).next();
            while let Some(job) = next() {
                let found = catch_unwind(AssertUnwindSafe(|| job.run(site)));
                let found = found.unwrap_or_else(|_| vec![job.panicked()]);
                problems.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
            }
        };
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(work);
            }
        });
        let mut problems = problems.into_inner().unwrap_or_else(PoisonError::into_inner);
        problems.sort();
        problems
    }
}

fn read(text: &str) -> Scenario {
    Scenario::read(text.as_bytes()).expect("a scenario")
}

fn files() -> Vec<PathBuf> {
    let folder = fs::read_dir(root().join("testdata/scenarios")).expect("scenarios");
    let mut files: Vec<_> = folder.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

#[test]
fn every_scenario_that_can_be_said_to_envoy_holds_there() {
    let plan = Plan::of(&files());
    plan.print();
    // No rule may come to swallow what ran when this was written.
    assert!(plan.files >= 102 && plan.jobs.len() >= 257 && plan.steps >= 712);
    // Another worker that is always ahead cannot be brought about, nor is an upstream that TLS connects. Limits of the
    // cluster need a service: see filters/vkey/deploy/tests/test_limits.py. Leases need a ledger: see `budgets`.
    let elsewhere = |reason: &DenyReason| {
        let of_cluster = [DenyReason::ClusterRate, DenyReason::ClusterUnknown].contains(reason);
        let of_one = matches!(reason, DenyReason::Contention | DenyReason::LeaseSpent);
        of_one || of_cluster || reason.class() == DenyClass::Upstream
    };
    let all = DenyReason::ALL.iter().copied().filter(|reason| !elsewhere(reason));
    let missing: Vec<_> = all.filter(|reason| !plan.reasons.contains(reason)).collect();
    assert_eq!(missing, []);
    // On the newest alone: older ones take a second for each listener, most of it to compile the module.
    let problems = plan.run(&Site::start(None));
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

/// On a slow machine a request takes longer than the second that it was made for, and is sent again.
#[test]
fn a_step_that_may_be_sent_again_holds_when_it_is() {
    let plan = Plan::of(&files());
    let moving: Vec<_> = plan.jobs.iter().filter(|job| job.start == Start::EachStep).collect();
    assert!(moving.len() >= 150, "{}", moving.len());
    let late = |config, env, host| Box::new(Late::new(config, env, host)) as Box<dyn Machine>;
    let problems: Vec<_> = moving.iter().flat_map(|job| job.run_on(&late)).collect();
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
}

fn problems(site: &Arc<Site>, text: &str) -> Vec<String> {
    let mut plan = Plan::default();
    plan.add("a file of the test's", text);
    assert_eq!((plan.jobs.len(), &plan.unfit_files), (1, &BTreeMap::new()), "{text}");
    plan.run(site)
}

/// A scenario that holds, to be spoiled.
const GOOD: &str = r#"{
    "about": "a key is let through, and then it is used up",
    "config": {
        "keyring": [{"name": "main", "secret": "${MAIN}"}],
        "tiers": {"default": {"quotas": [{"requests": 1, "per": "total"}]}}
    },
    "env": {"MAIN": "@secret:main"},
    "keys": {"good": {}},
    "steps": [
        {
            "name": "good",
            "request": {"key": "good", "headers": [["x-other", "1"]]},
            "expect": {
                "action": "forward",
                "audit": {"jti": "good", "src": "192.0.2.10"},
                "upstream": {"present": {"x-vkey-key": "good"}, "absent": ["authorization"]},
                "answer": {"ratelimit": "\"tier_requests_total\";r=0"}
            }
        },
        {
            "name": "used up",
            "request": {"key": "good"},
            "expect": {
                "action": "refuse",
                "status": 429,
                "reason": "quota",
                "reply": {
                    "headers": {"ratelimit": "\"tier_requests_total\";r=0"},
                    "body": {"error": {"code": "quota"}}
                }
            }
        }
    ]
}"#;

#[test]
fn a_scenario_that_is_wrong_fails() {
    let site = Site::start(None);
    assert_eq!(problems(&site, GOOD), [""; 0]);
    for (right, wrong) in [
        (r#""jti": "good""#, r#""jti": "other""#),
        (r#""src": "192.0.2.10""#, r#""src": "127.0.0.1""#),
        (r#""x-vkey-key": "good""#, r#""x-vkey-key": "other""#),
        (r#""absent": ["authorization"]"#, r#""absent": ["x-other"]"#),
        (r#""x-other", "1""#, r#""x-other", "{{env MAIN}}""#),
        (r#""answer": {"#, r#""answer": {"x-more": "1", "#),
        (
            r#"r=0"}
            }"#,
            r#"r=1"}
            }"#,
        ),
        (r#""action": "forward","#, r#""action": "forward", "log": ["no such text"],"#),
        (r#""action": "forward","#, r#""action": "forward", "reason": "path","#),
        (r#""requests": 1"#, r#""requests": 2"#),
        (r#""status": 429"#, r#""status": 403"#),
        (r#""reason": "quota""#, r#""reason": "rate""#),
        (r#""code": "quota""#, r#""code": "rate""#),
        (r#""about":"#, r#""configure": {"outcome": "closed"}, "about":"#),
        (r#""about":"#, r#""configure": {"outcome": "refused"}, "about":"#),
        (r#""per": "total""#, r#""per": "era""#),
        (r#""keys": {"good": {}}"#, r#""keys": {"good": {"secret": "@secret:other"}}"#),
    ] {
        let spoiled = GOOD.replacen(right, wrong, 1);
        assert_ne!(spoiled, GOOD, "{right}");
        assert_ne!(problems(&site, &spoiled), [""; 0], "{wrong}");
    }
}

#[test]
fn a_module_that_behaves_otherwise_fails() {
    let faults = artefact("VKEY_TEST_WASM_FAULTS");
    let site = Site::start(Some(&faults));
    assert_eq!(problems(&site, GOOD), [""; 0]);
    // On the workers it takes no configuration, and the seal refuses what it has not allowed.
    let spoiled = GOOD.replace(r#""env": {"#, r#""env": {"VKEY_FAULT": "configure_false", "#);
    let found = problems(&site, &spoiled).join("\n");
    for problem in ["good: forwarded: Some(false)", "used up: 0 local replies"] {
        assert!(found.contains(problem), "{found}");
    }
}

#[test]
fn each_rule_keeps_what_it_is_about_from_envoy() {
    let good = read(GOOD);
    let fit = Fit::of(&good, GOOD).map(|fit| fit.steps);
    assert_eq!(fit, Ok(vec![None, None]));
    let mut seen = BTreeSet::new();
    for (right, wrong, unfit) in RULES {
        let spoiled = GOOD.replacen(right, wrong, 1);
        assert_ne!(spoiled, GOOD, "{right}");
        let scenario = read(&spoiled);
        let found = Fit::of(&scenario, &spoiled).map(|fit| fit.under(&scenario.variants[0]));
        let found = found.unwrap_or_else(|unfit| vec![Some(unfit)]);
        assert!(found.contains(&Some(unfit)), "{wrong}: {found:?}");
        seen.extend(found.into_iter().flatten());
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), Unfit::ALL);
}

/// A text of `GOOD`, what is put in its place, and what keeps that from Envoy.
const RULES: [(&str, &str, Unfit); 25] = [
    (r#"{"key": "good"}"#, r#"{"key": "good", "method": "HEAD"}"#, Unfit::Answer),
    (NAMED, r#""name": "good", "worker": 1,"#, Unfit::Behind),
    (NAMED, r#""name": "good", "worker": 1,"#, Unfit::Worker),
    (r#""env": {"#, r#""start": 1800000000, "env": {"A": "minute", "#, Unfit::Clock),
    (KEY, r#"{"client_cert": "ab", "key": "good""#, Unfit::ClientCert),
    (NAMED, r#""name": "good", "ending": {"status": 199},"#, Unfit::Ending),
    (r#""jti": "good""#, r#""status": null"#, Unfit::Ending),
    (NAMED, r#""name": "good", "faults": {"no_clock": true},"#, Unfit::Faults),
    (r#""about":"#, r#""host": "nginx", "about":"#, Unfit::Host),
    (r#""jti": "good""#, r#""bytes_in": 1"#, Unfit::Measured),
    (r#""about":"#, r#""not_on": {"envoy": "reason"}, "about":"#, Unfit::NotOn),
    (r#""about":"#, r#""records": {"other": "1"}, "about":"#, Unfit::Records),
    (r#""about":"#, r#""configure": {"outcome": "refused"}, "about":"#, Unfit::Refused),
    (KEY, r#"{"method": "CONNECT", "key": "good""#, Unfit::Request),
    (KEY, r#"{"path": "/a#b", "key": "good""#, Unfit::Request),
    (KEY, r#"{"authority": "a/b", "key": "good""#, Unfit::Request),
    (KEY, r#"{"authority": null, "key": "good""#, Unfit::Request),
    (r#""x-other""#, r#""x-envoy-other""#, Unfit::Request),
    (r#""x-other""#, r#""Authorization""#, Unfit::Request),
    (r#""x-other", "1""#, r#""upgrade", "h2c""#, Unfit::Request),
    (r#""x-other", "1""#, r#""x-other", "\u0000""#, Unfit::Request),
    (KEY, r#"{"source": null, "key": "good""#, Unfit::Source),
    (NAMED, r#""name": "good", "at": 1,"#, Unfit::Time),
    (NAMED, r#""name": "good", "upstream_tls": {"cluster": "api"},"#, Unfit::Upstream),
    (r#""reason": "quota""#, r#""reason": "upstream_plaintext""#, Unfit::Upstream),
];

const NAMED: &str = r#""name": "good","#;
const KEY: &str = r#"{"key": "good""#;

/// The table of `testdata/README.md` names the rules, each once.
#[test]
fn the_table_of_rules_is_complete() {
    let text = fs::read_to_string(root().join("testdata/README.md")).expect("README.md");
    let (_, table) = text.split_once("| not sent to Envoy |").expect("the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let words: Vec<_> = rows.filter_map(|line| line.split('`').nth(1)).collect();
    assert_eq!(words, Unfit::ALL.map(Unfit::word));
}
