//! A running gate, or the admin interface of its proxy, asked over HTTP.

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
use super::text::shown;
use super::time::words;

/// The longest usage answer that is read: many times what a gate has to say.
pub(super) const MAX_USAGE_BYTES: u64 = 64 * 1024;

/// What asks.
pub(super) struct Client {
    /// How long it may take, from the first look for its name to the last byte.
    pub(super) timeout_secs: u64,
    /// The longest answer that is read.
    pub(super) max_bytes: u64,
    /// The authorities that may vouch for what is asked.
    pub(super) roots: RootCerts,
}

/// Why there is no response that could be used.
#[derive(Debug)]
pub(super) struct ClientError {
    asked: &'static Asked,
    cause: Cause,
}

/// Why nothing is asked over the connection that the arguments describe.
#[derive(Debug)]
pub(super) enum NotAsked {
    /// The response of an admin interface would cross a network unencrypted.
    AdminCleartext,
    /// Authorities for a connection that has no certificate.
    CaForHttp,
    /// The key would cross a network unencrypted.
    Cleartext,
}

#[derive(Debug)]
enum Cause {
    /// The connection ends before the answer does.
    Closed,
    /// There is no connection.
    Connect(io::Error),
    /// The answer is no usage answer.
    NoUsage(Invalid),
    /// What answers does not speak HTTP.
    NotHttp,
    /// The answer is somewhere else.
    Redirect(StatusCode),
    /// The gate refuses to answer, for a reason if it gives one.
    Refused(StatusCode, Option<Reason>),
    /// It refuses the counts of others, for this reason.
    RefusedOthers(StatusCode, Reason),
    /// The key itself stands in the answer.
    RepeatsKey,
    /// It takes longer than this number of seconds.
    Timeout(u64),
    /// The two do not agree on a secure connection.
    Tls(String),
    /// The response is longer than this number of bytes, the most that one has.
    TooLong(u64),
}

/// What the texts call what is asked.
#[derive(Debug)]
struct Asked {
    /// What answers.
    who: &'static str,
    /// What a right answer is.
    expected: &'static str,
    /// Where it is said where to ask.
    url: &'static str,
    /// What would go where a redirect leads.
    carried: &'static str,
    /// Whose certificate it has, and whose log.
    whose: &'static str,
}

/// A gate, asked for usage.
const GATE: Asked = Asked {
    who: "the gate",
    expected: "a usage document",
    url: "--url",
    carried: ", since the key would go there too",
    whose: "the gate's",
};

/// The admin interface of an Envoy.
const ADMIN: Asked = Asked {
    who: "the admin interface",
    expected: "a response of Envoy's admin interface",
    url: "the URL",
    carried: "",
    whose: "the proxy's",
};

/// What a gate says of a refusal.
#[derive(Debug)]
pub(super) struct Reason {
    message: String,
    code: Option<String>,
}

// === impl Client ===

impl Client {
    /// Asks with a key, and answers the body of the answer.
    pub(super) fn ask(&self, url: &str, key: &str) -> Result<Vec<u8>, ClientError> {
        self.ask_gate(url, key).map_err(|cause| ClientError { asked: &GATE, cause })
    }

    fn ask_gate(&self, url: &str, key: &str) -> Result<Vec<u8>, Cause> {
        let bearer = Zeroizing::new(format!("Bearer {key}"));
        let request = self.agent().get(url).header(AUTHORIZATION, bearer.as_str());
        let response = request.header(ACCEPT, "application/json").call();
        let response = response.map_err(|error| self.failure(error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(Cause::Redirect(status));
        }
        let body = self.read(response)?;
        // Something else than a gate, as an echo, must not make this command show the key.
        if String::from_utf8_lossy(&body).contains(key) {
            return Err(Cause::RepeatsKey);
        }
        if status != StatusCode::OK {
            return Err(Cause::Refused(status, Reason::read(&body)));
        }
        Ok(body)
    }

    /// Asks without a key, and answers the body of the answer.
    pub(super) fn get(&self, url: &str) -> Result<Vec<u8>, ClientError> {
        self.get_admin(url).map_err(|cause| ClientError { asked: &ADMIN, cause })
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

    /// What asks. A redirect or a proxy from the environment would take the key elsewhere.
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
            // What rustls finds wrong reaches us so, and nothing else does.
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
    /// Reads the body of a refusal, if it is one of a gate.
    fn read(body: &[u8]) -> Option<Self> {
        let body = Json::parse(body).ok()?;
        let error = body.get("error")?;
        let text = |name: &str| error.get(name).and_then(Json::as_str).map(str::to_owned);
        Some(Self { message: text("message")?, code: text("code") })
    }
}

// === impl ClientError ===

impl ClientError {
    /// The response is no usage page of a gate.
    pub(super) fn not_usage(invalid: Invalid) -> Self {
        Self { asked: &GATE, cause: Cause::NoUsage(invalid) }
    }

    /// What it is when the question is about others than the key.
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
        let Asked { who, expected, url, carried, whose } = self.asked;
        match &self.cause {
            Cause::Closed => write!(
                f,
                "connection closed before the end of the response; check {url}, and {whose} log"
            ),
            Cause::Connect(error) => {
                let error = shown(&error.to_string());
                write!(f, "cannot connect to {who}: {error}; check {url}, and whether it runs")
            }
            Cause::NoUsage(invalid) => {
                let invalid = shown(&invalid.to_string());
                write!(f, "unexpected response: not {expected} ({invalid}); check {url}")
            }
            Cause::NotHttp => {
                write!(f, "unexpected response: not {expected} (not HTTP); check {url}")
            }
            Cause::Redirect(status) => write!(
                f,
                "{who} returned {}, a redirect, which is not followed{carried}; check {url}",
                status.as_u16()
            ),
            Cause::Refused(status, reason) => {
                write_refusal(f, *status, reason.as_ref(), self.asked)
            }
            Cause::RefusedOthers(status, reason) => {
                write_refusal(f, *status, Some(reason), self.asked)?;
                f.write_str(
                    "; another key or a tenant may be asked for with a key whose tier has \
                     usage_of_others",
                )
            }
            Cause::RepeatsKey => f.write_str(
                "the response repeats the key, which no gate does, and is not shown; check --url",
            ),
            Cause::Timeout(secs) => write!(
                f,
                "no response within {}; check {url}, or allow more in --timeout",
                words(*secs)
            ),
            Cause::Tls(error) => write!(
                f,
                "the TLS connection fails: {}; check {url}, and --ca if {whose} certificate is \
                 from an authority of your own",
                shown(error)
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
    Asked { who, url, .. }: &Asked,
) -> fmt::Result {
    write!(f, "{who} returned {}", status.as_u16())?;
    let Some(Reason { message, code }) = reason else {
        return write!(f, " and gives no reason; check {url}");
    };
    write!(f, ": {}", shown(message))?;
    code.as_ref().map_or(Ok(()), |code| write!(f, ", code {}", shown(code)))
}

// === impl NotAsked ===

impl Failure for NotAsked {
    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

impl fmt::Display for NotAsked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminCleartext => {
                "over http everybody on the way can read and change the response; use https, a \
                 tunnel to this machine, or --allow-http if nobody is on the way"
            }
            Self::CaForHttp => "--ca is for an https URL; leave it out, or use https",
            Self::Cleartext => {
                "over http everybody on the way can read the key; use https, or --allow-http if \
                 nobody is on the way"
            }
        })
    }
}
