//! `vkey tls show`: shows the policy in force.

use vkey::decision::DenyReason;
use vkey::json::Json;
use vkey::upstream_tls::{
    Demand, EffectivePolicy, Policy, PolicyRule, Skip, Unlisted, UpstreamHost, UpstreamPattern,
};

use super::super::error::Error;
use super::super::exit::Exit;
use super::super::output::Output;
use super::super::text::{ascii, escape_line};
use super::super::time;
use super::policy::PolicyArgs;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    policy: PolicyArgs,
    /// Show what the policy requires of connections to this host, and why
    #[arg(long, value_parser = host)]
    host: Option<String>,
    /// Evaluate as of this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    now: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Parses a host. Text that is not a valid host is kept, to be shown as such; a host has no `*`.
fn host(text: &str) -> Result<String, &'static str> {
    if text.contains('*') {
        return Err("expected a host, not a pattern; ask for one of its hosts");
    }
    Ok(text.to_owned())
}

/// Runs `vkey tls show`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let now_secs = time::now(args.now)?;
    let policy = args.policy.read()?;
    let lines = match (&args.host, args.json) {
        (None, false) => summary(&policy, now_secs),
        (None, true) => vec![ascii(&describe(&policy, now_secs))],
        (Some(host), false) => HostRequirements::new(&policy, host, now_secs).lines(),
        (Some(host), true) => {
            vec![ascii(&HostRequirements::new(&policy, host, now_secs).to_json())]
        }
    };
    lines.iter().try_for_each(|line| out.line(line))?;
    Ok(Exit::Success)
}

fn summary(policy: &EffectivePolicy, now_secs: u64) -> Vec<String> {
    let file = policy.file();
    let unlisted = match file.unlisted() {
        Unlisted::Observe => "observed: recorded, without a provider credential",
        Unlisted::Verify => "verified like all others",
    };
    let mut lines = vec![
        format!("digest       {}", file.digest()),
        format!("default      {} or later", file.min_version()),
        format!("unlisted     {unlisted}"),
    ];
    lines.extend(file.known_hosts().iter().map(|host| format!("known host   {host}")));
    let rules = file.upstreams().iter().map(|rule| rule_line("rule", rule, now_secs));
    lines.extend(rules);
    lines.extend(policy.tighten().iter().map(|rule| rule_line("tightened", rule, now_secs)));
    lines
}

fn rule_line(label: &str, rule: &PolicyRule, now_secs: u64) -> String {
    let version = rule.min_version.map(|version| format!("{version} or later"));
    let pins = (!rule.pins.is_empty()).then(|| format!("{} pins", rule.pins.len()));
    let certificate = rule.client_certificate.then(|| "with a client certificate".to_owned());
    let skip = rule.skip.as_ref().map(|skip| skip_text(skip, now_secs));
    let asked = Vec::from_iter([version, pins, certificate, skip].into_iter().flatten());
    let asked = if asked.is_empty() { "as by default".to_owned() } else { asked.join(", ") };
    format!("{label:<12} {}: {asked}", rule.host)
}

/// An exception in words.
pub(super) fn skip_text(skip: &Skip, now_secs: u64) -> String {
    let Skip { reason, owner, until_secs } = skip;
    let until = time::rfc3339(*until_secs);
    let state = if skip.is_in_force(now_secs) {
        format!("not verified until {until}")
    } else {
        format!("verified again since {until}: the exception has expired")
    };
    format!("{state} (owner: {}; reason: {})", escape_line(owner), escape_line(reason))
}

fn describe(policy: &EffectivePolicy, now_secs: u64) -> Json {
    let file = policy.file();
    let unlisted = match file.unlisted() {
        Unlisted::Observe => "observe",
        Unlisted::Verify => "verify",
    };
    let rules = |rules: &[PolicyRule]| {
        Json::Array(rules.iter().map(|rule| rule_json(rule, now_secs)).collect())
    };
    Json::object([
        ("digest", file.digest().into()),
        ("min_version", file.min_version().as_str().into()),
        ("unlisted", unlisted.into()),
        ("known_hosts", Json::Array(file.known_hosts().iter().map(pattern_json).collect())),
        ("upstreams", rules(file.upstreams())),
        ("tighten", rules(policy.tighten())),
    ])
}

fn pattern_json(pattern: &UpstreamPattern) -> Json {
    pattern.to_string().as_str().into()
}

fn rule_json(rule: &PolicyRule, now_secs: u64) -> Json {
    let version = rule.min_version.map_or(Json::Null, |version| version.as_str().into());
    Json::object([
        ("host", pattern_json(&rule.host)),
        ("min_version", version),
        ("pins", pins_json(&rule.pins)),
        ("client_certificate", Json::Bool(rule.client_certificate)),
        ("skip", rule.skip.as_ref().map_or(Json::Null, |skip| skip_json(skip, now_secs))),
    ])
}

fn pins_json(pins: &[String]) -> Json {
    Json::Array(pins.iter().map(|pin| pin.as_str().into()).collect())
}

fn skip_json(skip: &Skip, now_secs: u64) -> Json {
    Json::object([
        ("reason", skip.reason.as_str().into()),
        ("owner", skip.owner.as_str().into()),
        ("until_secs", skip.until_secs.into()),
        ("expired", Json::Bool(!skip.is_in_force(now_secs))),
    ])
}

/// What the policy requires of a host now, and why.
struct HostRequirements<'a> {
    host: UpstreamHost<'a>,
    demand: Demand<'a>,
    why: Vec<String>,
    now_secs: u64,
}

impl<'a> HostRequirements<'a> {
    fn new(policy: &'a EffectivePolicy, text: &'a str, now_secs: u64) -> Self {
        let host = UpstreamHost::parse(text.as_bytes());
        let demand = policy.demand(&host, now_secs);
        let why = reasons(policy, &host, now_secs);
        Self { host, demand, why, now_secs }
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("host         {}", self.host)];
        match &self.demand {
            Demand::Skip(skip) => {
                lines.push(format!("demand       none: {}", skip_text(skip, self.now_secs)));
            }
            Demand::Unlisted => lines.push(
                "demand       none: recorded as unlisted, without a provider credential".to_owned(),
            ),
            Demand::Verify(_) if self.is_unreadable() => {
                lines.push(format!(
                    "demand       cannot be satisfied: every connection is refused ({})",
                    DenyReason::UpstreamName
                ));
            }
            Demand::Verify(asked) => {
                lines.push("demand       a certificate for the host's name".to_owned());
                lines.push(format!("version      {} or later", asked.min_version));
                let pins = asked.pins.iter().map(|pins| format!("pins         {}", pins.join(" ")));
                lines.extend(pins);
                if asked.client_certificate {
                    lines.push("certificate  a client certificate of the proxy".to_owned());
                }
            }
        }
        lines.extend(self.why.iter().map(|why| format!("because      {why}")));
        lines
    }

    /// Whether no certificate can match the host.
    fn is_unreadable(&self) -> bool {
        self.host == UpstreamHost::Unreadable
    }

    fn to_json(&self) -> Json {
        let (word, asked) = match &self.demand {
            Demand::Skip(_) => ("skip", None),
            Demand::Unlisted => ("unlisted", None),
            Demand::Verify(_) if self.is_unreadable() => ("refuse", None),
            Demand::Verify(asked) => ("verify", Some(asked)),
        };
        let pins = asked.map(|asked| asked.pins.iter().map(|pins| pins_json(pins)).collect());
        let why = self.why.iter().map(|why| why.as_str().into());
        Json::object([
            ("host", self.host.to_string().as_str().into()),
            ("demand", word.into()),
            ("min_version", asked.map_or(Json::Null, |asked| asked.min_version.as_str().into())),
            ("pins", pins.map_or(Json::Null, Json::Array)),
            ("client_certificate", Json::Bool(asked.is_some_and(|a| a.client_certificate))),
            ("because", Json::Array(why.collect())),
        ])
    }
}

/// The parts of the policy that apply to a host.
fn reasons(policy: &EffectivePolicy, host: &UpstreamHost<'_>, now_secs: u64) -> Vec<String> {
    let file = policy.file();
    let mut reasons = Vec::new();
    if *host == UpstreamHost::Unreadable {
        reasons.push("it can be read in more than one way, so it could be any host".to_owned());
    } else if let Some(known) = file.known_hosts().iter().find(|known| known.covers(host)) {
        reasons.push(format!("{known} is a known host"));
    }
    reasons.extend(rule_for(file, host).map(|rule| rule_line("rule", rule, now_secs)));
    let tighten = policy.tighten().iter().filter(|rule| rule.host.matches(host));
    reasons.extend(tighten.map(|rule| rule_line("tightened", rule, now_secs)));
    if reasons.is_empty() {
        reasons.push("no rule is for it".to_owned());
    }
    reasons.iter().map(|reason| squeeze(reason)).collect()
}

/// The rule of the file for a host: the most specific one that matches.
pub(super) fn rule_for<'a>(file: &'a Policy, host: &UpstreamHost<'_>) -> Option<&'a PolicyRule> {
    let matching = file.upstreams().iter().filter(|rule| rule.host.matches(host));
    matching.max_by_key(|rule| rule.host.narrowness())
}

/// Without the alignment of a table.
fn squeeze(line: &str) -> String {
    Vec::from_iter(line.split_ascii_whitespace()).join(" ")
}
