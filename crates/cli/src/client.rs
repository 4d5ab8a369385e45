//! The HTTP client for a running gate and for Envoy's admin interface.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use ureq::http::header::{ACCEPT, AUTHORIZATION};
use ureq::http::{Response, StatusCode};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body};
use zeroize::Zeroizing;

use vkey::json::{Invalid, Json};

use super::error::Failure;
use super::exit::Exit;
use super::text::escape_line;
use super::time::format_duration;

/// The longest usage document that is read: many times what a gate returns.
pub(super) const MAX_USAGE_BYTES: u64 = 64 * 1024;

/// The client.
pub(super) struct Client {
    /// The timeout of the whole exchange, from resolving the name to the last byte.
    pub(super) timeout_secs: u64,
    /// The longest response that is read, in bytes.
    pub(super) max_bytes: u64,
    /// The trusted certificate authorities.
    pub(super) roots: RootCerts,
}

/// Why there is no usable response.
#[derive(Debug)]
pub(super) struct ClientError {
    endpoint: &'static Endpoint,
    cause: Cause,
}

/// Why the arguments describe a connection that the client refuses to make.
#[derive(Debug)]
pub(super) enum InsecureConnection {
    /// The response of an admin interface would be sent unencrypted over a network.
    AdminCleartext,
    /// Authorities are given for a connection without TLS.
    CaForHttp,
    /// The key would be sent unencrypted over a network.
    Cleartext,
}

#[derive(Debug)]
enum Cause {
    /// The connection was closed before the end of the response.
    Closed,
    /// The connection failed.
    Connect(io::Error),
    /// The response is not what was asked for.
    NoUsage(Invalid),
    /// The server does not speak HTTP.
    NotHttp,
    /// The response is a redirect.
    Redirect(StatusCode),
    /// The gate refused the request, with a reason if it sent one.
    Refused(StatusCode, Option<Reason>),
    /// The gate refused to show the counts of others, with this reason.
    RefusedOthers(StatusCode, Reason),
    /// The response contains the key.
    RepeatsKey,
    /// The timeout passed, in seconds.
    Timeout(u64),
    /// The TLS handshake failed.
    Tls(String),
    /// The response is longer than this limit, in bytes.
    TooLong(u64),
}

/// The words for an endpoint in error messages.
#[derive(Debug)]
struct Endpoint {
    /// The server.
    server: &'static str,
    /// The response that was expected.
    expected: &'static str,
    /// The option or argument with its URL.
    url: &'static str,
    /// Why redirects are not followed, if there is a special reason.
    redirect_reason: &'static str,
    /// Whose certificate and log it is.
    owner: &'static str,
}

/// The usage endpoint of a gate.
const GATE: Endpoint = Endpoint {
    server: "the gate",
    expected: "a usage document",
    url: "--url",
    redirect_reason: ", because the key would be sent there too",
    owner: "the gate's",
};

/// The ledger of budgets of `vkey serve`.
const LEDGER: Endpoint = Endpoint {
    server: "the ledger",
    expected: "accounts of a ledger",
    url: "--ledger",
    redirect_reason: ", because the key would be sent there too",
    owner: "the ledger's",
};

/// The admin interface of an Envoy.
const ADMIN: Endpoint = Endpoint {
    server: "the admin interface",
    expected: "a response of Envoy's admin interface",
    url: "the URL",
    redirect_reason: "",
    owner: "the proxy's",
};

/// The reason that a gate gives for refusing.
#[derive(Debug)]
pub(super) struct Reason {
    message: String,
    code: Option<String>,
}

// === impl Client ===

impl Client {
    /// Sends a request with a key, and returns the body of the response.
    pub(super) fn ask(&self, url: &str, key: &str) -> Result<Vec<u8>, ClientError> {
        self.ask_with_key(url, key).map_err(|cause| ClientError { endpoint: &GATE, cause })
    }

    /// Sends a request with a key to a ledger, and returns the body of the response.
    pub(super) fn ask_ledger(&self, url: &str, key: &str) -> Result<Vec<u8>, ClientError> {
        self.ask_with_key(url, key).map_err(|cause| ClientError { endpoint: &LEDGER, cause })
    }

    fn ask_with_key(&self, url: &str, key: &str) -> Result<Vec<u8>, Cause> {
        let bearer = Zeroizing::new(format!("Bearer {key}"));
        let request = self.agent().get(url).header(AUTHORIZATION, bearer.as_str());
        let response = request.header(ACCEPT, "application/json").call();
        let response = response.map_err(|error| self.failure(error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(Cause::Redirect(status));
        }
        let body = self.read(response)?;
        // A server that is neither, e.g. an echo service, must not make this command print the key.
        if String::from_utf8_lossy(&body).contains(key) {
            return Err(Cause::RepeatsKey);
        }
        if status != StatusCode::OK {
            return Err(Cause::Refused(status, Reason::read(&body)));
        }
        Ok(body)
    }

    /// Sends a request without a key, and returns the body of the response.
    pub(super) fn get(&self, url: &str) -> Result<Vec<u8>, ClientError> {
        self.get_admin(url).map_err(|cause| ClientError { endpoint: &ADMIN, cause })
    }

    fn get_admin(&self, url: &str) -> Result<Vec<u8>, Cause> {
        let request = self.agent().get(url).header(ACCEPT, "application/json");
        let response = request.call().map_err(|error| self.failure(error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(Cause::Redirect(status));
        }
        let body = self.read(response)?;
        if status == StatusCode::OK { Ok(body) } else { Err(Cause::Refused(status, None)) }
    }

    fn read(&self, response: Response<Body>) -> Result<Vec<u8>, Cause> {
        let body = response.into_body().into_with_config().limit(self.max_bytes + 1);
        body.read_to_vec().map_err(|error| self.failure(error))
    }

    /// The HTTP agent. It follows no redirects and uses no proxy from the environment: either would receive
    /// the key.
    fn agent(&self) -> Agent {
        let tls = TlsConfig::builder().root_certs(self.roots.clone()).build();
        Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(Duration::from_secs(self.timeout_secs)))
            .tls_config(tls)
            .user_agent(concat!("vkey/", env!("CARGO_PKG_VERSION")))
            .build()
            .into()
    }

    fn failure(&self, error: ureq::Error) -> Cause {
        match error {
            ureq::Error::Timeout(_) => Cause::Timeout(self.timeout_secs),
            ureq::Error::Io(error) => self.io_failure(error),
            ureq::Error::HostNotFound => Cause::Connect(io::Error::other("no such host")),
            ureq::Error::Rustls(error) => Cause::Tls(error.to_string()),
            ureq::Error::Tls(text) => Cause::Tls(text.to_owned()),
            ureq::Error::BodyExceedsLimit(_) => Cause::TooLong(self.max_bytes),
            _ => Cause::NotHttp,
        }
    }

    fn io_failure(&self, error: io::Error) -> Cause {
        match error.kind() {
            ErrorKind::TimedOut => Cause::Timeout(self.timeout_secs),
            // ureq reports TLS errors of rustls this way, and no others.
            ErrorKind::InvalidData => Cause::Tls(error.to_string()),
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe => Cause::Closed,
            _ => Cause::Connect(error),
        }
    }
}

// === impl Reason ===

impl Reason {
    /// Reads the body of a refusal; `None` if it is not from a gate.
    fn read(body: &[u8]) -> Option<Self> {
        let body = Json::parse(body).ok()?;
        let error = body.get("error")?;
        let text = |name: &str| error.get(name).and_then(Json::as_str).map(str::to_owned);
        Some(Self { message: text("message")?, code: text("code") })
    }
}

// === impl ClientError ===

impl ClientError {
    /// The response is not a usage document.
    pub(super) fn not_usage(invalid: Invalid) -> Self {
        Self { endpoint: &GATE, cause: Cause::NoUsage(invalid) }
    }

    /// The response has no accounts of a ledger.
    pub(super) fn not_accounts(invalid: Invalid) -> Self {
        Self { endpoint: &LEDGER, cause: Cause::NoUsage(invalid) }
    }

    /// The same error for a request for the counts of others.
    pub(super) fn of_others(self) -> Self {
        let cause = match self.cause {
            Cause::Refused(
                status @ (StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST),
                Some(reason),
            ) => Cause::RefusedOthers(status, reason),
            cause => cause,
        };
        Self { cause, ..self }
    }
}

impl Failure for ClientError {
    fn exit(&self) -> Exit {
        match self.cause {
            Cause::Closed | Cause::Connect(_) | Cause::Timeout(_) | Cause::Tls(_) => {
                Exit::Environment
            }
            _ => Exit::Refused,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Endpoint { server, expected, url, redirect_reason, owner } = self.endpoint;
        match &self.cause {
            Cause::Closed => write!(
                f,
                "connection closed before the end of the response; check {url}, and {owner} log"
            ),
            Cause::Connect(error) => {
                let error = escape_line(&error.to_string());
                write!(f, "cannot connect to {server}: {error}; check {url}, and whether it runs")
            }
            Cause::NoUsage(invalid) => {
                let invalid = escape_line(&invalid.to_string());
                write!(f, "unexpected response: not {expected} ({invalid}); check {url}")
            }
            Cause::NotHttp => {
                write!(f, "unexpected response: not {expected} (not HTTP); check {url}")
            }
            Cause::Redirect(status) => write!(
                f,
                "{server} returned {}, a redirect, which is not followed{redirect_reason}; check {url}",
                status.as_u16()
            ),
            Cause::Refused(status, reason) => {
                write_refusal(f, *status, reason.as_ref(), self.endpoint)
            }
            Cause::RefusedOthers(status, reason) => {
                write_refusal(f, *status, Some(reason), self.endpoint)?;
                f.write_str(
                    "; only a key whose tier has usage_of_others \
                     can ask for another key or a tenant",
                )
            }
            Cause::RepeatsKey => write!(
                f,
                "the response contains the key, which {server} never returns, so it is not shown; check {url}",
            ),
            Cause::Timeout(secs) => write!(
                f,
                "no response within {}; check {url}, or allow more in --timeout",
                format_duration(*secs)
            ),
            Cause::Tls(error) => write!(
                f,
                "the TLS handshake failed: {}; check {url}, and --ca if {owner} certificate is \
                 from a private authority",
                escape_line(error)
            ),
            Cause::TooLong(max) => {
                write!(
                    f,
                    "unexpected response: not {expected} (longer than {max} bytes); check {url}"
                )
            }
        }
    }
}

fn write_refusal(
    f: &mut fmt::Formatter<'_>,
    status: StatusCode,
    reason: Option<&Reason>,
    Endpoint { server, url, .. }: &Endpoint,
) -> fmt::Result {
    write!(f, "{server} returned {}", status.as_u16())?;
    let Some(Reason { message, code }) = reason else {
        return write!(f, " without a reason; check {url}");
    };
    write!(f, ": {}", escape_line(message))?;
    code.as_ref().map_or(Ok(()), |code| write!(f, ", code {}", escape_line(code)))
}

// === impl InsecureConnection ===

impl Failure for InsecureConnection {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl fmt::Display for InsecureConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminCleartext => {
                "http does not protect the response from being read and changed on the way; use https, a \
                 tunnel to this machine, or --allow-http if the network is trusted"
            }
            Self::CaForHttp => "--ca is for an https URL; leave it out, or use https",
            Self::Cleartext => {
                "http exposes the key to everyone on the network path; use https, or --allow-http if \
                 the network is trusted"
            }
        })
    }
}
