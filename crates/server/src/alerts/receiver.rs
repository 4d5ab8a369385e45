//! What gets alerts: a URL that takes JSON.

use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::json;
use ureq::Agent;
use ureq::http::header::{AUTHORIZATION, CONTENT_TYPE};
use ureq::http::uri::Scheme;
use ureq::http::{HeaderValue, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use zeroize::Zeroizing;

use vkey::time::rfc3339;

use crate::store::Alert;

/// The version of the JSON object.
const VERSION: u64 = 1;

/// How long a delivery may take, from resolving the name to the status of the response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A receiver of alerts. It has no `Debug`: the URL may contain a secret.
pub struct Receiver {
    url: Uri,
    bearer: Option<HeaderValue>,
    agent: Agent,
}

/// How a receiver is reached.
pub struct ReceiverOptions {
    /// Whether http is allowed to other machines, which shows alerts and the token to everyone on the network path.
    pub allow_http: bool,
    /// The bearer token (RFC 6750) that it expects.
    pub token: Option<Zeroizing<String>>,
    /// The trusted certificate authorities.
    pub roots: RootCerts,
    /// How long a delivery may take.
    pub timeout: Duration,
}

/// Why there is no receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidReceiver {
    /// The text is not a URL of http or https, or has a user, a password or a fragment.
    Url,
    /// The URL is http, to another machine.
    Cleartext,
    /// The token has characters that no header can have.
    Token,
}

/// Why an alert was not delivered. Nothing in it is from the token, the path of the URL or the body of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryError {
    /// The receiver cannot be reached, or closed the connection.
    Connect(ErrorKind),
    /// The host has no address.
    NoSuchHost,
    /// There was no response in time.
    Timeout,
    /// The TLS handshake failed, for this reason, which may name the host and those of the certificate.
    Tls(String),
    /// The response is not HTTP.
    NotHttp,
    /// The receiver returned a status other than 2xx. Redirects are not followed.
    Status(u16),
}

// === impl ReceiverOptions ===

impl Default for ReceiverOptions {
    /// https, without a token, with the authorities of the web, within ten seconds.
    fn default() -> Self {
        Self { allow_http: false, token: None, roots: RootCerts::WebPki, timeout: TIMEOUT }
    }
}

// === impl Receiver ===

impl Receiver {
    /// The receiver at a URL.
    ///
    /// # Errors
    ///
    /// [`InvalidReceiver`]
    pub fn new(url: &str, options: ReceiverOptions) -> Result<Self, InvalidReceiver> {
        let ReceiverOptions { allow_http, token, roots, timeout } = options;
        let url = parse_url(url).ok_or(InvalidReceiver::Url)?;
        let is_private = url.scheme() == Some(&Scheme::HTTPS) || is_loopback(&url);
        if !is_private && !allow_http {
            return Err(InvalidReceiver::Cleartext);
        }
        let bearer = token.map(|token| bearer(&token)).transpose()?;
        // No redirect and no proxy of the environment gets the token.
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(None)
            .timeout_global(Some(timeout))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("vkey/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Ok(Self { url, bearer, agent })
    }

    /// Posts an alert. It was taken if the receiver returned a status of 2xx.
    ///
    /// # Errors
    ///
    /// [`DeliveryError`]
    pub fn deliver(&self, alert: &Alert) -> Result<(), DeliveryError> {
        let mut request =
            self.agent.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        if let Some(bearer) = &self.bearer {
            request = request.header(AUTHORIZATION, bearer);
        }
        let status = request.send(message(alert))?.status();
        if status.is_success() { Ok(()) } else { Err(DeliveryError::Status(status.as_u16())) }
    }
}

/// The JSON object of an alert.
fn message(alert: &Alert) -> String {
    let Alert { id, kind, cause, tenant, key, first_at_secs, last_at_secs, count, text, .. } =
        alert;
    json!({
        "version": VERSION,
        // An id alone may come again when a backup was restored.
        "id": format!("{first_at_secs}-{id}"),
        "kind": kind,
        "cause": cause,
        "tenant": tenant,
        "key": key,
        "first_at": rfc3339(*first_at_secs),
        "last_at": rfc3339(*last_at_secs),
        "count": count,
        "text": text,
    })
    .to_string()
}

fn parse_url(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let scheme = url.scheme()?;
    let authority = url.authority()?;
    let (host, whole) = (authority.host(), authority.as_str());
    // A port that is not valid would become that of the scheme. A user would not be sent.
    let has_port = whole == host || authority.port_u16().is_some();
    let is_http = *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS;
    let is_plain = !whole.contains('@') && !text.contains('#');
    (is_http && is_plain && has_port && !host.is_empty()).then_some(url)
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: IpAddr| address.is_loopback();
    host.eq_ignore_ascii_case("localhost") || address.parse().is_ok_and(is_loopback)
}

fn bearer(token: &str) -> Result<HeaderValue, InvalidReceiver> {
    // RFC 6750, section 2.1.
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut bearer = HeaderValue::from_str(&text).map_err(|_| InvalidReceiver::Token)?;
    bearer.set_sensitive(true);
    if is_token { Ok(bearer) } else { Err(InvalidReceiver::Token) }
}

// === impl InvalidReceiver ===

impl fmt::Display for InvalidReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => {
                "expected an http or https URL without user, password and fragment, e.g. https://alerts.example/vkey"
            }
            Self::Cleartext => {
                "http exposes alerts to everyone on the network path; use https, or allow http if the network is trusted"
            }
            Self::Token => "expected a token of printable ASCII characters without spaces",
        })
    }
}

impl std::error::Error for InvalidReceiver {}

// === impl DeliveryError ===

impl DeliveryError {
    /// The names in a certificate are what its owner chose.
    fn tls(text: &str) -> Self {
        Self::Tls(text.chars().map(|char| if char.is_control() { '?' } else { char }).collect())
    }
}

impl From<ureq::Error> for DeliveryError {
    fn from(error: ureq::Error) -> Self {
        match error {
            ureq::Error::Timeout(_) => Self::Timeout,
            ureq::Error::HostNotFound => Self::NoSuchHost,
            ureq::Error::Rustls(error) => Self::tls(&error.to_string()),
            ureq::Error::Tls(text) => Self::tls(text),
            ureq::Error::Io(error) => match error.kind() {
                ErrorKind::TimedOut => Self::Timeout,
                // ureq reports TLS errors of rustls this way, and no others.
                ErrorKind::InvalidData => Self::tls(&error.to_string()),
                kind => Self::Connect(kind),
            },
            ureq::Error::ConnectionFailed => Self::Connect(ErrorKind::NotConnected),
            _ => Self::NotHttp,
        }
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an alert could not be delivered: ")?;
        match self {
            Self::Connect(kind) => write!(f, "the receiver cannot be reached: {kind}"),
            Self::NoSuchHost => f.write_str("the host of the receiver has no address"),
            Self::Timeout => f.write_str("the receiver did not respond in time"),
            Self::Tls(error) => write!(f, "the TLS handshake with the receiver failed: {error}"),
            Self::NotHttp => f.write_str("the response of the receiver is not HTTP"),
            Self::Status(status) => write!(f, "the receiver returned {status}"),
        }
    }
}

impl std::error::Error for DeliveryError {}
