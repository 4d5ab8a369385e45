//! Makes all hosts look alike: on nginx, some calls behave differently.
//!
//! All of this was observed on nginx with WasmX, or read in its sources (`docs/hosts.md`):
//!
//! - A removed header is only hidden from the module and still reaches the upstream, so it is set to an
//!   empty value.
//! - An added header comes after those of the client, so it replaces them.
//! - `:authority` is the name of the server. The authority of the request is in the only `Host` header,
//!   which must name the host by which nginx selected the server.
//! - `:path` is decoded. The path as the client sent it is a property.
//! - A map of more than 100 headers is truncated, and its length may still be consistent.
//! - Reading an unknown property logs an error, and reading the upstream address without an upstream
//!   crashes the worker.

use crate::headers::Headers;
use crate::host::Level;
use crate::reply::Reply;

use super::{
    Body, FilterState, Host, HostError, MetricKind, Property, Rules, ServiceCall, SharedData,
    WriteError,
};

/// The most headers that nginx provides, pseudo headers included.
const MAX_NGINX_HEADERS: usize = 100;

/// The longest line to write to the log of nginx, which cuts lines at 2048 bytes, including a prefix with
/// the time, the place and the connection (nginx: `NGX_MAX_ERROR_STR`).
const MAX_NGINX_LINE_BYTES: usize = 1536;

/// The property path of the nginx variable for the decision.
const SEAL_VARIABLE: &str = "ngx\0vkey_decision";

const AUTHORITY: &[u8] = b":authority";
const HOST: &[u8] = b"host";
const PATH: &[u8] = b":path";

/// A host that is used according to its rules.
pub(crate) struct HostView<'a, H> {
    host: &'a H,
    rules: Rules,
    /// This can be true with [`Rules::Bare`] too: nothing is counted on nginx if the configuration is not
    /// for it.
    is_nginx: bool,
}

impl<'a, H: Host> HostView<'a, H> {
    pub(crate) fn new(host: &'a H, rules: Rules) -> Self {
        let is_nginx = H::SERVES_NGINX
            && match rules {
                Rules::Envoy => false,
                Rules::Nginx => true,
                Rules::Bare => host.property(Property::NginxVersion).is_some(),
            };
        Self { host, rules, is_nginx }
    }

    /// The headers that nginx provides, with the authority and the path that the client sent.
    fn nginx_headers(&self) -> Headers {
        // If the map cannot be read, there are too many headers: nginx has no other reason.
        let Some(shown) = self.host.request_headers() else {
            return Headers::flawed();
        };
        let target = self.host.property(Property::RequestTarget);
        let named = shown.iter().filter(|(name, _)| name.eq_ignore_ascii_case(HOST));
        let mut named = named.map(|(_, value)| value);
        let authority = named.next().filter(|_| named.next().is_none());
        let chosen = self.host.property(Property::NginxHost);
        let agree = authority.zip(chosen.as_deref()).is_some_and(|(a, c)| names_host(a, c));
        let flawed = shown.len() >= MAX_NGINX_HEADERS || target.is_none() || !agree;
        let is_replaced = |name: &[u8]| name == AUTHORITY || name == PATH;
        let kept = shown.iter().filter(|(name, _)| !is_replaced(name));
        let asked = [(AUTHORITY, authority), (PATH, target.as_deref())];
        let asked = asked.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
        let list: Vec<_> = asked.chain(kept).map(owned).collect();
        let headers = Headers::from_pairs(Headers::to_pairs(&list)).unwrap_or_default();
        if flawed { headers.with_flaw() } else { headers }
    }
}

impl<H: Host> SharedData for HostView<'_, H> {
    fn shared_data(&self, name: &str) -> Result<Option<(Vec<u8>, u32)>, HostError> {
        self.host.shared_data(name)
    }

    fn set_shared_data(&self, name: &str, record: &[u8], cas: u32) -> Result<(), WriteError> {
        self.host.set_shared_data(name, record, cas)
    }
}

impl<H: Host> Host for HostView<'_, H> {
    const SERVES_NGINX: bool = H::SERVES_NGINX;

    fn rules(&self) -> Rules {
        self.rules
    }

    fn is_nginx(&self) -> bool {
        H::SERVES_NGINX && self.is_nginx
    }

    fn max_line_bytes(&self) -> Option<usize> {
        self.is_nginx().then_some(MAX_NGINX_LINE_BYTES)
    }

    fn now_ns(&self) -> Option<u64> {
        self.host.now_ns()
    }

    fn random(&self) -> Option<[u8; 16]> {
        self.host.random()
    }

    fn request_headers(&self) -> Option<Headers> {
        if self.is_nginx() { Some(self.nginx_headers()) } else { self.host.request_headers() }
    }

    fn request_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        let shown = if self.is_nginx() && name == AUTHORITY { HOST } else { name };
        self.host.request_header(shown)
    }

    fn remove_request_header(&self, name: &[u8]) -> Result<(), HostError> {
        if !self.is_nginx() {
            return self.host.remove_request_header(name);
        }
        let name = std::str::from_utf8(name).map_err(|_| HostError::BAD_ARGUMENT)?;
        self.host.set_request_header(name, "")
    }

    fn set_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.host.set_request_header(name, value)
    }

    fn add_request_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        if self.is_nginx() {
            self.host.set_request_header(name, value)
        } else {
            self.host.add_request_header(name, value)
        }
    }

    fn request_trailers(&self) -> Option<Headers> {
        // nginx provides none, and the call crashes the instance.
        if self.is_nginx() { None } else { self.host.request_trailers() }
    }

    fn remove_request_trailer(&self, name: &[u8]) -> Result<(), HostError> {
        self.host.remove_request_trailer(name)
    }

    fn body(&self, body: Body, start: usize, max_len: usize) -> Option<Vec<u8>> {
        self.host.body(body, start, max_len)
    }

    fn set_body(
        &self,
        body: Body,
        start: usize,
        len: usize,
        bytes: &[u8],
    ) -> Result<(), HostError> {
        self.host.set_body(body, start, len, bytes)
    }

    fn remove_response_header(&self, name: &str) -> Result<(), HostError> {
        self.host.remove_response_header(name)
    }

    fn response_header(&self, name: &[u8]) -> Option<Vec<u8>> {
        self.host.response_header(name)
    }

    fn property(&self, property: Property) -> Option<Vec<u8>> {
        if !self.is_nginx() {
            return self.host.property(property);
        }
        match property {
            Property::SourceAddress => self.host.property(property),
            Property::ResponseSize => self.host.property(Property::NginxBodyBytesSent),
            Property::UpstreamAddress => {
                last_address(&self.host.property(Property::NginxUpstreamAddress)?)
            }
            _ => None,
        }
    }

    fn filter_state(&self, path: &str) -> Option<Vec<u8>> {
        if self.is_nginx() { None } else { self.host.filter_state(path) }
    }

    fn set_filter_state(&self, key: &str, value: &str) -> Result<(), HostError> {
        if !self.is_nginx() {
            self.host.set_filter_state(key, value)
        } else if key == FilterState::Decision.key() {
            self.host.set_filter_state(SEAL_VARIABLE, value)
        } else {
            Err(HostError::NOT_FOUND)
        }
    }

    fn send_reply(&self, reply: &Reply) -> Result<(), HostError> {
        self.host.send_reply(reply)
    }

    fn resume_request(&self) -> Result<(), HostError> {
        self.host.resume_request()
    }

    fn enter(&self, context: u32) -> Result<(), HostError> {
        self.host.enter(context)
    }

    fn post(&self, call: &ServiceCall<'_>) -> Result<u32, HostError> {
        self.host.post(call)
    }

    fn call_status(&self) -> Option<u16> {
        self.host.call_status()
    }

    fn set_tick_period(&self, millis: u32) -> Result<(), HostError> {
        self.host.set_tick_period(millis)
    }

    fn set_response_header(&self, name: &str, value: &str) -> Result<(), HostError> {
        self.host.set_response_header(name, value)
    }

    fn define_metric(&self, kind: MetricKind, name: &str) -> Result<u32, HostError> {
        // Metrics cannot be scraped on nginx, and defining one for which there is no room crashes the
        // instance.
        if self.is_nginx() {
            return Err(HostError::UNIMPLEMENTED);
        }
        self.host.define_metric(kind, name)
    }

    fn increment_metric(&self, metric: u32, by: u32) -> Result<(), HostError> {
        self.host.increment_metric(metric, by)
    }

    fn record_metric(&self, metric: u32, value: u64) -> Result<(), HostError> {
        self.host.record_metric(metric, value)
    }

    fn metric(&self, metric: u32) -> Result<u64, HostError> {
        self.host.metric(metric)
    }

    fn log(&self, level: Level, text: &str) {
        self.host.log(level, text);
    }
}

/// Whether an authority names a host. nginx writes the host in lower case, without the port and the final
/// dot (nginx: `$host`).
fn names_host(authority: &[u8], host: &[u8]) -> bool {
    let Some((name, rest)) = authority.split_at_checked(host.len()) else {
        return false;
    };
    let rest = rest.strip_prefix(b".").unwrap_or(rest);
    let port = rest.strip_prefix(b":");
    let ends = rest.is_empty() || port.is_some_and(|port| port.iter().all(u8::is_ascii_digit));
    !host.is_empty() && name.eq_ignore_ascii_case(host) && ends
}

/// The last address of a list: nginx lists all that it tried (nginx: `$upstream_addr`).
fn last_address(list: &[u8]) -> Option<Vec<u8>> {
    let mut parts = list.rsplit(|byte| *byte == b' ');
    parts.next().filter(|address| !address.is_empty()).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::exchange::Exchange;
    use crate::gate::{Gate, Opening};
    use crate::host::{Action, MemoryHost, MemoryStore};
    use crate::key::keyring::{Ring, RingState, Secret};
    use crate::key::token::mint;
    use crate::upstream_tls::Policy;

    #[test]
    fn an_authority_must_name_the_host_that_nginx_selected() {
        for authority in
            ["gw.example", "GW.example:8443", "gw.example.", "gw.example.:80", "gw.example:"]
        {
            assert!(names_host(authority.as_bytes(), b"gw.example"), "{authority}");
        }
        assert!(names_host(b"[2001:db8::1]:80", b"[2001:db8::1]"));
        for authority in [
            "", "gw.exampl", "gw.example2", "gw.example.org", "gw.example:8o", "gw.example:1:2",
            "x@gw.example",
        ] {
            assert!(!names_host(authority.as_bytes(), b"gw.example"), "{authority}");
        }
        assert!(!names_host(b"", b"") && !names_host(b":80", b""));
    }

    const SECRET: &str = "Viewed-1-from-either-side";

    fn policy() -> Policy {
        Policy::parse(include_bytes!("../../filters/vkey/upstream-tls.json")).unwrap()
    }

    /// A gate on a host with these rules, and a request with a valid key.
    fn asked(rules: Rules) -> (Gate, MemoryHost) {
        let config = br#"{"keyring": [{"name": "main", "secret": "${S}"}]}"#;
        let plan = Config::parse(config).unwrap().compile(|_| Some(SECRET.to_owned())).unwrap();
        let parsed = Secret::parse(SECRET).unwrap();
        let ring = Ring::new("main", &parsed, RingState::Active, None).unwrap();
        let kid = ring.kid_at(0).unwrap();
        let claims = r#"{"jti":"k","tenant":"acme","iat":0,"exp":1900000000}"#;
        let token = mint(&ring.signing_key(&kid).unwrap(), &kid, claims.as_bytes());
        let host = MemoryHost::new(MemoryStore::new(rules));
        let header =
            |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        host.headers.replace(Some(vec![
            header(":method", "GET"),
            header(":path", "/v1"),
            header(":authority", "gw.example"),
            header("authorization", &format!("Bearer {token}")),
        ]));
        (Gate::open(plan, policy()), host)
    }

    #[test]
    fn without_the_seal_variable_requests_are_refused() {
        let (gate, host) = asked(Rules::Nginx);
        host.seal_variable.set(false);
        let mut exchange = Exchange::default();
        assert_eq!(
            gate.on_request_headers(&host, &mut exchange, Opening::default()),
            Action::Pause
        );
        assert_eq!(host.reply.borrow().as_ref().unwrap().status, 503);
        let says = |part: &str| host.log.borrow().iter().any(|(_, line)| line.contains(part));
        assert!(says("map '' $vkey_decision { default ''; }"));
    }

    /// Runs a request from its headers, if the gate sees them, to its audit line, which must be the only
    /// log line.
    fn ends(gate: &Gate, host: &MemoryHost, is_seen: bool) -> String {
        let mut exchange = Exchange::default();
        if is_seen {
            gate.on_request_headers(host, &mut exchange, Opening::default());
        }
        gate.on_response_headers(host, &mut exchange);
        gate.on_log(host, &mut exchange);
        assert_eq!(host.crashed.get(), None);
        let errors = host.log.take().into_iter().filter(|(_, line)| !line.starts_with("vkey: "));
        let lines: Vec<_> = errors.map(|(_, line)| line).collect();
        assert!(lines.iter().all(|line| line.starts_with("{\"vkey\":")), "{lines:?}");
        lines.concat()
    }

    #[test]
    fn nginx_is_not_asked_for_unknown_properties() {
        let (gate, host) = asked(Rules::Nginx);
        // An unseen request comes first, when nothing is known about the host.
        for (is_seen, decision) in [(false, "unseen"), (true, "allow"), (false, "unseen")] {
            let line = ends(&gate, &host, is_seen);
            assert!(line.contains(&format!(r#""decision":"{decision}""#)), "{line}");
        }
    }

    #[test]
    fn a_gate_that_refuses_everything_still_detects_nginx() {
        for (dialect, has_secret) in [("envoy", true), ("bare", true), ("auto", false)] {
            let (_, host) = asked(Rules::Nginx);
            let text = format!(
                r#"{{"keyring": [{{"name": "main", "secret": "${{S}}"}}], "host": "{dialect}"}}"#
            );
            let config = Config::parse(text.as_bytes()).unwrap();
            let secret = has_secret.then(|| SECRET.to_owned());
            let gate = Gate::configure(config, policy(), |_| secret.clone(), &host);
            host.log.take();
            for is_seen in [false, true] {
                let line = ends(&gate, &host, is_seen);
                assert!(line.contains(r#""authority":"gw.example""#), "{dialect}: {line}");
            }
        }
    }

    /// Envoy shows an address that was taken from `x-forwarded-for` with port 0. On nginx, a final `:0` is
    /// part of the IPv6 address itself.
    #[test]
    fn an_address_of_nginx_has_no_port() {
        for (rules, warns) in [(Rules::Nginx, false), (Rules::Envoy, true)] {
            let (gate, host) = asked(rules);
            let port = if warns { "0" } else { "4711" };
            host.show(Property::SourceAddress.path(), format!("[2001:db8:1:2:3:4:5:0]:{port}"));
            gate.on_request_headers(&host, &mut Exchange::default(), Opening::default());
            let log = host.log.borrow();
            let warning = log.iter().any(|(_, line)| line.contains("x-forwarded-for"));
            assert_eq!(warning, warns, "{rules:?}: {log:?}");
        }
    }

    #[test]
    fn the_upstream_is_the_last_address_of_the_list() {
        let last = |list: &str| last_address(list.as_bytes());
        assert_eq!(last("192.0.2.1:80"), Some(b"192.0.2.1:80".to_vec()));
        assert_eq!(last("192.0.2.1:80, 192.0.2.2:80 : unix:/s"), Some(b"unix:/s".to_vec()));
        assert_eq!((last(""), last("192.0.2.1:80, ")), (None, None));
    }
}
