//! Requests to other servers: to receivers of alerts, and to gates.

use std::fmt;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use ureq::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use ureq::http::uri::Scheme;
use ureq::http::{HeaderValue, Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, RequestBuilder};
use zeroize::Zeroizing;

/// How long a request may take, from resolving the name to the end of the response.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one URL. It has no `Debug`: the URL may contain a secret.
pub struct Client {
    url: Uri,
    bearer: Option<HeaderValue>,
    agent: Agent,
}

/// How a server is reached.
pub struct ClientOptions {
    /// Whether http is allowed to other machines, which shows the token and what is sent to everyone on the network path.
    pub allow_http: bool,
    /// The bearer token (RFC 6750) that it expects.
    pub token: Option<Zeroizing<String>>,
    /// The trusted certificate authorities.
    pub roots: RootCerts,
    /// How long a request may take.
    pub timeout: Duration,
}

/// Why there is no client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidClient {
    /// The text is not a URL of http or https, or has a user, a password or a fragment.
    Url,
    /// The URL is http, to another machine.
    Cleartext,
    /// The token has characters that no header can have.
    Token,
}

/// Why a request failed. Nothing in it is from the token, the path of the URL or the body of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// The server cannot be reached, or closed the connection.
    Connect(ErrorKind),
    /// The host has no address.
    NoSuchHost,
    /// There was no response in time.
    Timeout,
    /// The TLS handshake failed, for this reason, which may name the host and those of the certificate.
    Tls(String),
    /// The response is not HTTP, or too long.
    NotHttp,
    /// The server returned a status other than 2xx. Redirects are not followed.
    Status(u16),
}

// === impl ClientError ===

impl ClientError {
    /// Whether the server refuses this request, and may take others: RFC 9110, sections 15.5.1, 15.5.14, 15.5.16 and
    /// 15.5.21.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Status(400 | 413 | 415 | 422))
    }
}

// === impl ClientOptions ===

impl Default for ClientOptions {
    /// https, without a token, with the authorities of the web, within ten seconds.
    fn default() -> Self {
        Self { allow_http: false, token: None, roots: RootCerts::WebPki, timeout: TIMEOUT }
    }
}

// === impl Client ===

impl Client {
    /// The client of a URL.
    ///
    /// # Errors
    ///
    /// [`InvalidClient`]
    pub fn new(url: &str, options: ClientOptions) -> Result<Self, InvalidClient> {
        let ClientOptions { allow_http, token, roots, timeout } = options;
        let url = parse_url(url).ok_or(InvalidClient::Url)?;
        let is_private = url.scheme() == Some(&Scheme::HTTPS) || is_loopback(&url);
        if !is_private && !allow_http {
            return Err(InvalidClient::Cleartext);
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

    /// Posts a JSON text. It was taken if the server returned a status of 2xx.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn post(&self, json: String) -> Result<(), ClientError> {
        let request = self.agent.post(&self.url).header(CONTENT_TYPE, "application/json");
        self.with_token(request).send(json)?.checked().map(drop)
    }

    /// Gets a JSON text with a query, of at most this number of bytes.
    ///
    /// # Errors
    ///
    /// [`ClientError`]
    pub fn get(&self, query: &[(&str, &str)], max_bytes: u64) -> Result<Vec<u8>, ClientError> {
        let request = self.agent.get(&self.url).header(ACCEPT, "application/json");
        let request = self.with_token(request).query_pairs(query.iter().copied());
        let response = request.call()?.checked()?;
        Ok(response.into_body().into_with_config().limit(max_bytes).read_to_vec()?)
    }

    fn with_token<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.bearer {
            Some(bearer) => request.header(AUTHORIZATION, bearer),
            None => request,
        }
    }

    /// The host, and the port if the URL has one.
    pub fn authority(&self) -> &str {
        self.url.authority().map_or("", |authority| authority.as_str())
    }
}

/// A response whose status is 2xx.
trait Checked: Sized {
    fn checked(self) -> Result<Self, ClientError>;
}

impl<B> Checked for Response<B> {
    fn checked(self) -> Result<Self, ClientError> {
        let status = self.status();
        if status.is_success() { Ok(self) } else { Err(ClientError::Status(status.as_u16())) }
    }
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

fn bearer(token: &str) -> Result<HeaderValue, InvalidClient> {
    // RFC 6750, section 2.1.
    let is_token = !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut bearer = HeaderValue::from_str(&text).map_err(|_| InvalidClient::Token)?;
    bearer.set_sensitive(true);
    if is_token { Ok(bearer) } else { Err(InvalidClient::Token) }
}

// === impl InvalidClient ===

impl fmt::Display for InvalidClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Url => {
                "expected an http or https URL without user, password and fragment, e.g. https://host.example/path"
            }
            Self::Cleartext => {
                "http exposes what is sent to everyone on the network path; use https, or allow http if the network is trusted"
            }
            Self::Token => "expected a token of printable ASCII characters without spaces",
        })
    }
}

impl std::error::Error for InvalidClient {}

// === impl ClientError ===

impl ClientError {
    /// The names in a certificate are what its owner chose.
    fn tls(text: &str) -> Self {
        Self::Tls(text.chars().map(|char| if char.is_control() { '?' } else { char }).collect())
    }
}

impl From<ureq::Error> for ClientError {
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

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(kind) => write!(f, "the server cannot be reached: {kind}"),
            Self::NoSuchHost => f.write_str("the host of the server has no address"),
            Self::Timeout => f.write_str("the server did not respond in time"),
            Self::Tls(error) => write!(f, "the TLS handshake with the server failed: {error}"),
            Self::NotHttp => f.write_str("the response of the server is not HTTP, or too long"),
            Self::Status(status) => write!(f, "the server returned {status}"),
        }
    }
}

impl std::error::Error for ClientError {}
