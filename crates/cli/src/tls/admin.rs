//! The admin interface of a running Envoy.

use std::path::PathBuf;

use ureq::tls::RootCerts;

use super::super::client::{Client, InsecureConnection};
use super::super::error::Error;
use super::super::url::Url;
use super::super::usage::{read_roots, timeout};

/// The path of Envoy's configuration.
const CONFIG_DUMP: &str = "/config_dump";

/// Includes the endpoints, which may be the only place that names a cluster's hosts.
const INCLUDE_EDS: &str = "include_eds";

/// How to connect to the admin interface. No secret is sent, but the response must be authentic.
#[derive(clap::Args)]
pub(super) struct AdminArgs {
    /// Trust only the authorities in this PEM file; by default those of the web
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Allow http to other machines, where the response can be read and changed on the way
    #[arg(long)]
    allow_http: bool,
    /// The timeout for the response, 1s to 1h
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = timeout)]
    timeout: u64,
}

/// The URL of an admin interface, or of its configuration dump.
#[derive(Clone)]
pub(super) struct AdminUrl {
    url: Url,
    query: Option<String>,
}

impl AdminUrl {
    /// Whether a text is meant as a URL, not as the path of a file.
    pub(super) fn is_url(text: &str) -> bool {
        let scheme = text.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        })
    }

    /// Parses the URL of an admin interface at any path, or of its configuration dump with a query.
    pub(super) fn parse(text: &str) -> Result<Self, &'static str> {
        let (url, query) = Url::parse_admin(text)?;
        if query.is_some() && !url.path().ends_with(CONFIG_DUMP) {
            return Err("expected no query in the URL, other than that of /config_dump");
        }
        Ok(Self { url, query })
    }

    /// Parses the base URL of an admin interface.
    pub(super) fn parse_base(text: &str) -> Result<Self, &'static str> {
        let (url, query) = Url::parse_admin(text)?;
        if query.is_some() {
            return Err("expected no query in the URL");
        }
        Ok(Self { url, query })
    }

    /// The URL of the configuration dump.
    pub(super) fn config_dump(&self) -> String {
        let path = self.url.path();
        let base = path.strip_suffix(CONFIG_DUMP).unwrap_or(path);
        let query = self.query.as_deref().unwrap_or(INCLUDE_EDS);
        self.url.with_target(&format!("{base}{CONFIG_DUMP}?{query}"))
    }

    /// The URL of another endpoint.
    pub(super) fn target(&self, target: &str) -> String {
        self.url.with_target(&format!("{}{target}", self.url.path()))
    }
}

impl AdminArgs {
    /// Fetches an endpoint below an admin interface's URL; the response may have up to `max_bytes`.
    pub(super) fn ask(
        &self,
        AdminUrl { url, .. }: &AdminUrl,
        target: &str,
        max_bytes: u64,
    ) -> Result<Vec<u8>, Error> {
        if !url.is_encrypted() && !url.is_loopback() && !self.allow_http {
            return Err(InsecureConnection::AdminCleartext.into());
        }
        if !url.is_encrypted() && self.ca.is_some() {
            return Err(InsecureConnection::CaForHttp.into());
        }
        let roots =
            self.ca.as_deref().map_or(Ok(RootCerts::WebPki), |path| read_roots("--ca", path))?;
        let client = Client { timeout_secs: self.timeout, max_bytes, roots };
        Ok(client.get(target)?)
    }
}
