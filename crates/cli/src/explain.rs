//! `vkey explain`: evaluates one access like the gate.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use vkey::access::cidr::parse_address;
use vkey::access::{Access, AmbiguousPath, CanonicalPath, Mcp, Models, exact_host};
use vkey::body::mcp::{Message, Purpose};
use vkey::config::{Config, NotReady, Plan, RingConfig};
use vkey::decision::DenyReason;
use vkey::digest::is_sha256_hex;
use vkey::engine::{Engine, KnownKey, McpTarget};
use vkey::headers::KeySource;
use vkey::headers::{Headers, RequestHead};
use vkey::issuing::KeyFlaw;
use vkey::json::Json;
use vkey::upstream_tls::EffectivePolicy;

use super::config_file::ConfigFile;
use super::delivery::DeliveryArgs;
use super::error::Error;
use super::exit::Exit;
use super::input::{self, InputError, KeyArgs, Place};
use super::named_message::{NamedError, named_message};
use super::output::Output;
use super::report::Report;
use super::request_body::{Header, RequestBody};
use super::ring_secret::{RingEnvironment, SecretFileArgs};
use super::time;

/// The header for the key. A gate treats a key the same in all of its key sources.
const KEY_HEADER: &str = "x-api-key";

/// The longest body that is read, in bytes: more than gates read, so that the report can say that it is too long.
const MAX_BODY_BYTES: u64 = 256 << 20;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The plugin configuration to evaluate, or the configuration of a proxy with it (FILE#NAME if there are
    /// several); secrets come from the environment variables it names, or from --secret-file
    #[arg(long, value_name = "FILE")]
    config: ConfigFile,
    #[command(flatten)]
    secret: SecretFileArgs,
    #[command(flatten)]
    key: KeyArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[command(flatten)]
    delivery: DeliveryArgs,
    /// Evaluate as of this time, RFC 3339 or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = time::parse)]
    now: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// The access that the request asks for.
#[derive(clap::Args)]
pub(super) struct AccessArgs {
    /// The HTTP method
    #[arg(long)]
    method: String,
    /// The authority (Host); if absent, nothing is said about the upstream
    #[arg(long)]
    host: Option<String>,
    /// The path, as the client sends it
    #[arg(long)]
    path: String,
    /// The client's address, as the gate sees it; unknown if absent
    #[arg(long, value_name = "ADDRESS", value_parser = address)]
    source: Option<IpAddr>,
    /// SHA-256 of the client's certificate, in hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = digest)]
    client_cert: Option<String>,
    /// A header of the request, e.g. 'content-encoding: gzip'. The key's header is added; repeatable
    #[arg(long, value_name = "NAME: VALUE", value_parser = header)]
    header: Vec<Header>,
    /// The body of the request (- is standard input); it is application/json unless --header says otherwise. What it
    /// asks for is shown: models, tokens and MCP servers, or the call of a message for an MCP server
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The same as --body with {"model": "NAME"}
    #[arg(long, value_name = "NAME", conflicts_with = "body")]
    model: Option<String>,
    /// The JSON-RPC method of an MCP request, e.g. tools/call, in place of its message in --body. The gate reads
    /// messages on the paths of mcp in the configuration
    #[arg(long, value_name = "METHOD", conflicts_with_all = ["body", "model"])]
    mcp_method: Option<String>,
    /// What the MCP call names: the tool, the resource or the prompt
    #[arg(long, value_name = "NAME", requires = "mcp_method")]
    mcp_name: Option<String>,
    /// The MCP server that is addressed, if mcp in the configuration does not name the path
    #[arg(long, value_name = "NAME", requires = "mcp_method")]
    mcp_server: Option<String>,
}

/// Runs `vkey explain`.
pub(super) fn run(args: &Args, out: &mut Output) -> Result<Exit, Error> {
    let key_on_stdin = matches!(args.key.place(), Place::Stdin);
    let body_on_stdin = args.access.body.as_deref() == Some(Path::new("-"));
    let reads_stdin = [args.config.is_stdin(), key_on_stdin, args.secret.is_stdin(), body_on_stdin];
    args.delivery.check_stdin(reads_stdin.into_iter().filter(|reads| *reads).count())?;
    let now_secs = time::now(args.now)?;
    let named = args.access.named()?;
    let (config, gates) = args.config.gates()?;
    input::check_variables(config.rings().iter().flat_map(RingConfig::variables))?;
    let delivery = args.delivery.read()?.with_gates(gates);
    let policy = delivery.policy(&config)?;
    let notes =
        args.access.host.as_deref().map(|host| delivery.of_request(&config, host, now_secs));
    let environment = RingEnvironment::read(config.rings(), &args.secret)?;
    let plan = compile(config, |name| environment.value(name));
    let plan = plan.map_err(|not_ready| environment.lacks(not_ready))?;
    let unready = plan.unready.clone();
    let key = args.key.read(out)?;
    let body = args.access.with_body(args.access.read_body()?, named);
    let mut engine = Engine::new(plan);
    let mut report = args.access.evaluate(&mut engine, &policy, (&key, &body), now_secs);
    report.add_notes(&notes.unwrap_or_default());
    report.name_flaw(|| KeyFlaw::find(&key));
    if args.json {
        out.line(report.to_json())?;
    } else {
        out.text(&report)?;
    }
    if report.decision.reason() == Some(DenyReason::NotReady) {
        unready.iter().for_each(|not_ready| out.note(not_ready));
    }
    Ok(match report.decision.forwards() {
        _ if report.is_undecided() => Exit::Undecided,
        true => Exit::Success,
        false => Exit::Refused,
    })
}

impl AccessArgs {
    /// Reads the body; `None` if the options have none.
    ///
    /// # Errors
    ///
    /// [`InputError`] if the file cannot be read.
    fn read_body(&self) -> Result<Option<Vec<u8>>, InputError> {
        Ok(match (&self.body, &self.model) {
            (Some(path), _) => {
                Some(Place::file("--body", path).read_bytes(MAX_BODY_BYTES)?.to_vec())
            }
            (None, Some(model)) => {
                Some(Json::object([("model", model.as_str().into())]).to_string().into_bytes())
            }
            (None, None) => None,
        })
    }

    /// The message of MCP that the options name, if they name one.
    ///
    /// # Errors
    ///
    /// [`NamedError`] if no server gets such a message.
    pub(super) fn named(&self) -> Result<Option<Message>, NamedError> {
        let name = self.mcp_name.as_deref();
        self.mcp_method.as_deref().map(|method| named_message(method, name)).transpose()
    }

    /// A body of this request; `None` is one that is not known. `named`: the message that it is.
    pub(super) fn with_body(&self, bytes: Option<Vec<u8>>, named: Option<Message>) -> RequestBody {
        RequestBody::new(bytes, &self.header, named)
    }

    /// Evaluates the access as a request with this key and body. The gate sees an MCP call only on paths of MCP servers.
    pub(super) fn evaluate(
        &self,
        engine: &mut Engine,
        policy: &EffectivePolicy,
        sent: (&str, &RequestBody),
        now_secs: u64,
    ) -> Report {
        let mut report = self.evaluate_with(engine, policy, sent, now_secs, None);
        let path = self.read(now_secs, true).map(|access| access.path);
        let is_read = path.is_ok_and(|path| engine.mcp_server(&path).is_some());
        if sent.1.named().is_some() && !is_read && report.decision.reason().is_some() {
            let server = self.mcp_server.as_deref().map(Box::from);
            let assumed = Some(McpTarget { server, purpose: Ok(Purpose::Message) });
            let read = self.evaluate_with(engine, policy, sent, now_secs, assumed);
            report.compare_with_call(&read);
        }
        report
    }

    /// `assumed`: the MCP server that it is taken to be for, whatever the configuration says.
    fn evaluate_with(
        &self,
        engine: &mut Engine,
        policy: &EffectivePolicy,
        (key, body): (&str, &RequestBody),
        now_secs: u64,
        assumed: Option<McpTarget>,
    ) -> Report {
        let authority = self.host.as_deref().unwrap_or_default();
        let line = [
            (b":method".to_vec(), self.method.clone().into()),
            (b":path".to_vec(), self.path.clone().into()),
            (b":authority".to_vec(), authority.into()),
            (KEY_HEADER.into(), key.into()),
        ];
        let headers = Headers::from_pairs(Headers::to_pairs(&[&line[..], &self.header].concat()));
        let headers = headers.unwrap_or_default();
        let source = KeySource { header: KEY_HEADER.to_owned(), scheme: None, item_prefix: None };
        let head = RequestHead::read(&headers, &[source]);
        let upstream = |engine: &Engine| {
            let authority = self.host.as_ref()?;
            engine.upstream_refusal(policy, Some(authority.as_bytes()), now_secs)
        };
        if let Some(note) = self.needs_no_key(engine, &head, now_secs) {
            let upstream = if note == READINESS { None } else { upstream(engine) };
            return Report::without_key(note, upstream, now_secs);
        }
        let access = |key: &KnownKey| self.read(now_secs, key.keeps_escaped_slashes());
        Report::new(engine, &head, (body, assumed), access, upstream, now_secs)
    }

    /// Why the request needs no key, if it needs none.
    fn needs_no_key(
        &self,
        engine: &Engine,
        head: &RequestHead<'_>,
        now_secs: u64,
    ) -> Option<&'static str> {
        let access = self.read(now_secs, false).ok()?;
        if engine.asks_for_readiness(head, &access.path) {
            return Some(READINESS);
        }
        engine.is_public(head, || access).then_some(PUBLIC)
    }

    /// The access, as the module passes it to the engine, apart from models and the MCP call.
    fn read(&self, now_secs: u64, keeps_slashes: bool) -> Result<Access<'_>, AmbiguousPath> {
        Ok(Access {
            now_secs,
            method: &self.method,
            host: self.host.as_deref().and_then(|host| exact_host(host.as_bytes())),
            path: match keeps_slashes {
                true => CanonicalPath::parse_keeping_slashes(self.path.as_bytes())?,
                false => CanonicalPath::parse(self.path.as_bytes())?,
            },
            source: self.source,
            client_cert: self.client_cert.as_deref(),
            models: Models::None,
            mcp: Mcp::None,
        })
    }
}

const READINESS: &str = "the gate replies itself whether it is ready; no key is needed";

const PUBLIC: &str =
    "the configuration makes this request public; no key is needed, and none goes to the upstream";

/// Compiles with only the secrets of the rings. Provider credentials do not affect decisions, and whoever
/// investigates a denial need not have them.
pub(super) fn compile(
    config: Config,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Plan, NotReady> {
    let rings = config.rings().iter().flat_map(RingConfig::sources);
    let rings: BTreeSet<String> = rings.map(str::to_owned).collect();
    let environment = |name: &str| {
        if rings.contains(name) { environment(name) } else { Some("none".to_owned()) }
    };
    config.compile(environment).and_then(Plan::ready)
}

fn address(text: &str) -> Result<IpAddr, &'static str> {
    parse_address(text.as_bytes()).ok_or("expected an address, e.g. 10.1.2.3 or 2001:db8::1")
}

fn header(text: &str) -> Result<Header, &'static str> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let is_text = |byte: u8| !byte.is_ascii_control() || byte == b'\t';
    match text.split_once(':') {
        Some((name, value))
            if !name.is_empty() && name.bytes().all(is_token) && value.bytes().all(is_text) =>
        {
            Ok((name.to_ascii_lowercase().into(), value.trim_ascii().into()))
        }
        _ => Err("expected a name, a colon and a value, e.g. content-type: application/json"),
    }
}

fn digest(text: &str) -> Result<String, &'static str> {
    if is_sha256_hex(text) {
        Ok(text.to_ascii_lowercase())
    } else {
        Err("expected a SHA-256 in 64 hexadecimal digits")
    }
}
