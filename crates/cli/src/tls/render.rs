//! `vkey tls render`: renders proxy configuration that satisfies the policy.

mod credentials;
mod envoy;
mod gateway_api;
mod istio;
mod upstreams;
mod yaml;

use std::path::{Path, PathBuf};

use vkey::json::Json;
use vkey::upstream_tls::{Demand, EffectivePolicy, PolicyRule, Skip, TlsVersion, UpstreamHost};

use super::super::error::Error;
use super::super::exit::Exit;
use super::super::input::InputError;
use super::super::output::Output;
use super::super::text::escape_line;
use super::super::time;
use super::error::TlsError;
use super::policy::PolicyArgs;
use upstreams::{Upstream, Upstreams};
use yaml::Yaml;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The output format
    #[arg(long)]
    format: Format,
    #[command(flatten)]
    policy: PolicyArgs,
    /// The path of the module in the proxy; overrides wasm.file of the list
    #[arg(long, value_name = "FILE")]
    wasm: Option<String>,
    /// Render as of this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    now: Option<u64>,
    /// The list of upstreams, YAML or JSON (- is standard input)
    #[arg(value_name = "UPSTREAMS")]
    upstreams: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Clusters, as a file for Envoy's cds_config
    Envoy,
    /// ServiceEntry, DestinationRule, VirtualService, EnvoyFilter and WasmPlugin
    Istio,
    /// Backend, BackendTLSPolicy, HTTPRoute, EnvoyPatchPolicy and EnvoyExtensionPolicy, for Envoy
    /// Gateway
    GatewayApi,
}

/// The inputs of a rendering.
struct Source<'a> {
    policy: &'a EffectivePolicy,
    config: Option<&'a Json>,
    list: &'a Upstreams,
    /// The path of the module in the proxy.
    module: &'a str,
    /// The environment variables that the module sees.
    environment: Vec<&'a str>,
    plans: Vec<RenderPlan<'a>>,
}

/// An upstream, and what the policy requires of connections to it.
struct RenderPlan<'a> {
    /// Its index in the list, from 0.
    index: usize,
    upstream: &'a Upstream,
    min_version: TlsVersion,
    /// SHA-256 of the allowed certificates, hexadecimal digits; empty if any is allowed.
    pins: Vec<&'a str>,
    /// The exception for it, if one is in force.
    skip: Option<&'a Skip>,
    /// Whether no rule of the policy matches it.
    unlisted: bool,
}

/// Runs `vkey tls render`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let list_on_stdin = args.upstreams == Path::new("-");
    if args.policy.stdin_count() + usize::from(list_on_stdin) > 1 {
        return Err(InputError::StdinTwice.into());
    }
    let now_secs = time::now(args.now)?;
    let (policy, config) = args.policy.read_with_config()?;
    let list = Upstreams::read(&args.upstreams)?;
    let plans = list.upstreams.iter().enumerate();
    let plans = plans.map(|(index, upstream)| RenderPlan::new(index, upstream, &policy, now_secs));
    let plans = plans.collect::<Result<Vec<_>, _>>()?;
    let source = Source {
        policy: &policy,
        config: config.as_ref(),
        module: module(args, &list)?,
        environment: credentials::environment(&list.wasm.environment, &plans),
        plans,
        list: &list,
    };
    let documents = match args.format {
        Format::Envoy => vec![envoy::document(&source)?],
        Format::Istio => istio::documents(&source)?,
        Format::GatewayApi => gateway_api::documents(&source)?,
    };
    for [what, done] in source.plans.iter().filter_map(RenderPlan::skip_note) {
        out.note(format_args!("warning: {what} {done}"));
    }
    for name in credentials::ungranted(&source) {
        out.note(format_args!(
            "warning: no request gets the credential {name}: forward.credentials of the \
             configuration does not name it"
        ));
    }
    out.text(yaml::text(&documents))?;
    Ok(Exit::Success)
}

fn module<'a>(args: &'a Args, list: &'a Upstreams) -> Result<&'a str, TlsError> {
    let file = args.wasm.as_deref().or(list.wasm.file.as_deref());
    file.filter(|file| !file.is_empty()).ok_or_else(|| {
        let reason = "missing; name the module's file as the proxy sees it here, or by --wasm";
        TlsError::unrenderable("wasm.file", reason)
    })
}

// === impl Source ===

impl Source<'_> {
    fn digest(&self) -> &str {
        self.policy.file().digest()
    }

    /// The comment at the top of the output.
    fn heading(&self, format: &str, rest: &str) -> String {
        let digest = self.digest();
        format!(
            "Written by `vkey tls render --format {format}` from the upstream-TLS policy\n\
             {digest}. Render again when the policy,\n\
             the configuration or the list of upstreams changes.\n{rest}"
        )
    }
}

// === impl RenderPlan ===

impl<'a> RenderPlan<'a> {
    fn new(
        index: usize,
        upstream: &'a Upstream,
        policy: &'a EffectivePolicy,
        now_secs: u64,
    ) -> Result<Self, TlsError> {
        let authority = upstream.host.to_string();
        let min_version = policy.file().min_version();
        let open = Self { index, upstream, min_version, pins: vec![], skip: None, unlisted: false };
        match policy.demand(&UpstreamHost::parse(authority.as_bytes()), now_secs) {
            Demand::Skip(skip) if upstream.credential.is_some() => {
                Err(open.refused("credential", &skipped(skip)))
            }
            Demand::Skip(skip) => Ok(Self { skip: Some(skip), ..open }),
            Demand::Unlisted => Ok(Self { unlisted: true, ..open }),
            Demand::Verify(requirement) => {
                if requirement.client_certificate && upstream.identity.is_none() {
                    return Err(open.refused(
                        "client_certificate",
                        "the policy demands one for this host; add {certificate: FILE, key: FILE} \
                         or {sds: {name: NAME, path: FILE}}",
                    ));
                }
                let pins = common(&requirement.pins).ok_or_else(|| {
                    open.refused(
                        "host",
                        "the policy and the configuration pin different certificates for it, so \
                         none is good; let them share two",
                    )
                })?;
                Ok(Self { min_version: requirement.min_version, pins, ..open })
            }
        }
    }

    /// The error for a member of the upstream that cannot be rendered.
    fn refused(&self, member: &str, reason: &str) -> TlsError {
        TlsError::unrenderable(&format!("upstreams[{}].{member}", self.index), reason)
    }

    /// Whether the certificate chain is verified. Under an exception it is not, unless the list says whom to
    /// trust.
    fn verifies(&self) -> bool {
        self.skip.is_none() || self.upstream.trust.is_some()
    }

    /// The hosts in the stamp. An unverified cluster must have none: its stamp stays as it is when the
    /// exception ends.
    fn stamped_hosts(&self) -> Vec<Yaml> {
        let host = self.verifies().then(|| self.upstream.host.to_string().into());
        host.into_iter().collect()
    }

    /// A warning about an upstream under an exception.
    fn skip_note(&self) -> Option<[String; 2]> {
        let skip = self.skip?;
        let Upstream { name, host, .. } = self.upstream;
        let until = time::rfc3339(skip.until_secs);
        let (reason, owner) = (escape_line(&skip.reason), escape_line(&skip.owner));
        let done = if self.verifies() {
            "It is verified all the same, since the list says whom to trust."
        } else {
            "It stays unverified until it is rendered again; say in `trust` whom to trust."
        };
        let what = format!("{name}: the policy skips {host} until {until}: {reason} ({owner}).");
        Some([what, done.to_owned()])
    }

    /// The comment on the upstream's first object.
    fn notes(&self) -> String {
        let unlisted = "No rule of the policy is for this host; it is verified all the same.";
        match self.skip_note() {
            Some(note) => note.join("\n"),
            None if self.unlisted => unlisted.to_owned(),
            None => String::new(),
        }
    }

    /// The authority that requests must have, because the gate checks it.
    fn authority(&self) -> String {
        let Upstream { host, port, .. } = self.upstream;
        if *port == 443 { host.to_string() } else { format!("{host}:{port}") }
    }
}

/// Why an upstream under an exception gets no credential.
fn skipped(skip: &Skip) -> String {
    let until = time::rfc3339(skip.until_secs);
    format!(
        "the policy skips this host until {until}, and the gate attaches a credential only to a \
         connection that it has verified; remove the credential or the exception"
    )
}

/// The certificates that are in every set: `None` if there is no set, empty if none is in all of them.
fn common<'a>(sets: &[&'a [String]]) -> Option<Vec<&'a str>> {
    let Some((first, others)) = sets.split_first() else {
        return Some(Vec::new());
    };
    let common = first.iter().filter(|pin| others.iter().all(|set| set.contains(pin)));
    let common = Vec::from_iter(common.map(String::as_str));
    (!common.is_empty()).then_some(common)
}

/// A rule of the configuration, in the format of the gate's own configuration.
fn tightening(rule: &PolicyRule) -> Json {
    let pins = rule.pins.iter().map(|pin| Json::from(format!("sha256:{pin}").as_str()));
    let members = [
        Some(("host", Json::from(rule.host.to_string().as_str()))),
        rule.min_version.map(|version| ("min_version", version.as_str().into())),
        (!rule.pins.is_empty()).then(|| ("pins", Json::Array(pins.collect()))),
        rule.client_certificate.then_some(("client_certificate", Json::Bool(true))),
    ];
    let members = members.into_iter().flatten();
    Json::Object(members.map(|(name, value)| (name.to_owned(), value)).collect())
}
