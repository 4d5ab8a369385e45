//! What one request came to, and whether all who saw it agree.

use vkey::audit::AuditRecord;
use vkey::decision::{Decision, DenyClass, DenyReason};
use vkey::reply::{Refusal, reply};

use super::clusters::{CLUSTERS, Kind};
use super::coverage::Coverage;
use super::key::Key;
use super::proxy::Proxy;
use super::request::{Case, IDENTITIES, OVERRIDES, RETRIES, SOURCES, TENANT};
use super::router::{Routed, Sent, View, route, virtual_host};
use crate::support::Response;

/// Headers that Envoy adds to every request or that belong to one connection.
const OF_ENVOY: [&str; 6] = [
    "content-length",
    "x-envoy-external-address",
    "x-envoy-internal",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
];

/// What all requests came to.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) coverage: Coverage,
    pub(super) failures: Vec<String>,
}

/// One line of the access log.
pub(super) struct Line {
    pub(super) route: String,
    pub(super) cluster: String,
    pub(super) record: Option<AuditRecord<'static>>,
    pub(super) text: String,
}

/// A request that an upstream got.
pub(super) struct Arrival {
    pub(super) cluster: &'static str,
    pub(super) head: String,
}

/// What is known of a request.
pub(super) struct Seen<'a> {
    pub(super) proxy: &'a Proxy,
    pub(super) case: &'a Case,
    pub(super) keys: &'a [Key],
    pub(super) requires_stamp: bool,
    pub(super) identifies: bool,
    pub(super) response: &'a Response,
    pub(super) line: Option<&'a Line>,
    pub(super) arrivals: &'a [Arrival],
}

/// Fails with a reason unless something holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

type Checked = Result<(), String>;

impl Tally {
    /// Checks a request and counts what it came to.
    pub(super) fn check(&mut self, seen: &Seen<'_>) {
        if let Err(why) = seen.check(&mut self.coverage) {
            self.failures.push(format!("{why}\n{}", seen.explain()));
        }
    }

    /// Checks that a key is charged for the requests that were let in, and for those whose responses
    /// were withheld: upstreams got them.
    pub(super) fn check_charges(&mut self, all: &[Seen<'_>], key: usize, used: u64) {
        let of_key: Vec<&Seen<'_>> = all.iter().filter(|seen| seen.is_judged_by(key)).collect();
        let allowed = of_key.iter().filter(|seen| seen.decision() == Some(Decision::Allow)).count();
        let refused: Vec<_> = of_key.iter().filter(|seen| seen.is_refused_upstream()).collect();
        let sent = refused.iter().filter(|seen| !seen.arrivals.is_empty()).count();
        if u64::try_from(allowed + sent) != Ok(used) {
            let suspect = refused.iter().find(|seen| seen.loses_its_route());
            self.failures.push(format!(
                "key k{key} is charged for {used} requests: {allowed} were allowed, and {sent} sent and \
                 refused. One that was refused and not sent:\n{}",
                suspect.map_or_else(String::new, |seen| seen.explain())
            ));
        }
    }
}

impl Seen<'_> {
    fn decision(&self) -> Option<Decision> {
        self.line?.record.as_ref()?.decision
    }

    fn is_judged_by(&self, key: usize) -> bool {
        let record = self.line.and_then(|line| line.record.as_ref());
        record.is_some_and(|record| record.jti.as_deref() == Some(&self.keys[key].jti))
    }

    fn is_refused_upstream(&self) -> bool {
        let reason = self.decision().and_then(Decision::reason);
        reason.is_some_and(|reason| reason.class() == DenyClass::Upstream)
    }

    fn check(&self, coverage: &mut Coverage) -> Checked {
        let arrivals = self.arrivals.len();
        ensure!(arrivals <= 1, "{arrivals} upstreams got the request");
        let record = self.line.and_then(|line| line.record.as_ref());
        let Some(record) = record.filter(|record| record.decision.is_some()) else {
            coverage.count("refused by the proxy");
            ensure!(arrivals == 0, "an upstream got a request that the module never judged");
            let status = self.response.status;
            ensure!(status >= 300, "status {status} without a decision");
            return Ok(());
        };
        match record.decision {
            Some(Decision::Deny(reason)) => self.check_denied(record, reason, coverage),
            Some(Decision::Allow) => self.check_allowed(record, coverage),
            other => Err(format!("what is {other:?}")),
        }
    }

    fn check_denied(
        &self,
        record: &AuditRecord<'_>,
        reason: DenyReason,
        coverage: &mut Coverage,
    ) -> Checked {
        coverage.count(format!("denied {reason}"));
        let status = self.response.status;
        let expected = reply(reason, Refusal::default()).status;
        ensure!(status == expected, "denied with status {status} in place of {expected}");
        if self.arrivals.is_empty() {
            return Ok(());
        }
        ensure!(
            reason.class() == DenyClass::Upstream,
            "an upstream got a request that was refused for {reason}"
        );
        coverage.count("response withheld");
        self.check_sent(record, coverage).map(|_| ())
    }

    fn check_allowed(&self, record: &AuditRecord<'_>, coverage: &mut Coverage) -> Checked {
        coverage.count("allowed");
        let Some(kind) = self.check_sent(record, coverage)? else {
            return Ok(());
        };
        // Upstreams respond with what they got.
        let echoed = self.response.text() == self.arrivals[0].head;
        ensure!(echoed && self.response.status == 200, "the client got another response");
        if self.requires_stamp {
            coverage.count("stamp required");
            ensure!(kind.stamp.is_some(), "a cluster without a stamp answered");
        }
        Ok(())
    }

    /// Checks that what was judged, routed and sent is the same. The cluster that it was sent to.
    fn check_sent(
        &self,
        record: &AuditRecord<'_>,
        coverage: &mut Coverage,
    ) -> Result<Option<&'static Kind>, String> {
        let key = self.case.key.map(|key| &self.keys[key]);
        let key = key.ok_or("a request without a good key went on")?;
        ensure!(record.jti.as_deref() == Some(&key.jti), "judged by {:?}", record.jti);
        let (authority, path) = record.authority.as_deref().zip(record.path.as_deref()).unwrap();
        ensure!(
            key.permits(self.case.method, authority, path),
            "the key does not permit what was judged: {authority} {path}"
        );
        let headers = self.edited_headers(key);
        let (method, query) = (self.case.method, self.case.query());
        let view = View { method, authority, path, query, headers: &headers };
        let line = self.line.expect("there is a record");
        let Some(routed) = route(self.proxy, &view) else {
            coverage.count("allowed without a route");
            ensure!(line.route == "-", "no route was expected");
            ensure!(self.arrivals.is_empty() && self.response.status == 404, "it was routed");
            return Ok(None);
        };
        ensure!(line.route == routed.route.name, "expected {routed:#?}");
        self.check_name(key, &view, &routed)?;
        self.count_view(key, &view, coverage);
        coverage.count_route(&routed);
        let Some(kind) = CLUSTERS.iter().find(|k| routed.sent.cluster.as_deref() == Some(k.name))
        else {
            coverage.count("allowed without a cluster");
            ensure!(self.arrivals.is_empty() && self.response.status == 503, "it was sent");
            return Ok(None);
        };
        ensure!(line.cluster == kind.name, "expected {routed:#?}");
        self.check_arrival(key, &routed)?;
        coverage.count_cluster(kind);
        Ok(Some(kind))
    }

    /// Counts what the proxy and the module changed about a request.
    fn count_view(&self, key: &Key, view: &View<'_>, coverage: &mut Coverage) {
        let headers = self.headers_of_client();
        let overrides = headers.iter().any(|(name, _)| is_override(name));
        let retries = headers.iter().any(|(name, _)| RETRIES.contains(&name.as_str()));
        let restricted = key.is_restricted();
        coverage.count_if(self.case.absolute, "absolute form");
        coverage.count_if(self.case.authority != view.authority, "authority changed by the proxy");
        coverage.count_if(self.case.path() != view.path, "path changed by the proxy");
        coverage.count_if(self.route_changes(), "route changed by edits");
        coverage.count_if(restricted, "key restricted");
        coverage.count_if(overrides && restricted, "override removed");
        coverage.count_if(overrides && !restricted, "override kept");
        coverage.count_if(retries, "retry header removed");
    }

    /// Checks that a key that is limited to hosts reaches their own virtual hosts only: those that plain
    /// names lead to.
    fn check_name(&self, key: &Key, view: &View<'_>, routed: &Routed<'_>) -> Checked {
        let plain = view.authority.split(':').next().unwrap_or_default();
        let plain = plain.trim_end_matches('.').to_ascii_lowercase();
        let named = virtual_host(self.proxy, &plain).map(|(_, domain)| domain);
        let decides = !key.permits(view.method, "elsewhere.test", view.path);
        ensure!(
            !decides || named == Some(routed.domain),
            "{plain} is {named:?}, and {} went to {}",
            view.authority,
            routed.domain
        );
        Ok(())
    }

    fn check_arrival(&self, key: &Key, routed: &Routed<'_>) -> Checked {
        let arrival = self.arrivals.first().ok_or("the upstream got nothing")?;
        ensure!(!arrival.head.contains(&key.text), "the upstream got the key");
        let tag = key.text.rsplit('.').next().unwrap_or_default();
        ensure!(!arrival.head.contains(tag), "the upstream got the key's tag");
        let sent = arrival.sent().ok_or("the upstream got no request")?;
        ensure!(sent == routed.sent, "sent {sent:#?}\nexpected {:#?}", routed.sent);
        if routed.route.path_rewrite.is_none() && routed.route.host_rewrite.is_none() {
            // Whatever the upstream's own reading of the path is.
            let path = resolved(sent.target.split('?').next().unwrap_or_default());
            let permitted = key.permits(&sent.method, &sent.authority, &path);
            ensure!(permitted, "the key does not permit what was sent: {sent:?}");
        }
        Ok(())
    }

    /// The headers of the client as the module leaves them.
    fn edited_headers(&self, key: &Key) -> Vec<(String, String)> {
        let removed = |name: &str| {
            SOURCES.contains(&name)
                || RETRIES.contains(&name)
                || (key.is_restricted() && is_override(name))
        };
        let mut headers = self.headers_of_client();
        headers.retain(|(name, _)| !removed(name));
        if self.identifies {
            let mut identify = |name: &str, value: &str| headers.push((name.into(), value.into()));
            identify("x-vkey-key", &key.jti);
            identify("x-vkey-tenant", TENANT);
            key.sub.into_iter().for_each(|sub| identify("x-vkey-sub", sub));
        }
        headers
    }

    /// The headers of the client as the module sees them.
    fn headers_of_client(&self) -> Vec<(String, String)> {
        let mut headers = self.case.headers.clone();
        let removed = if self.proxy.removes_identity { &IDENTITIES[..3] } else { &[] };
        headers.retain(|(name, _)| !removed.contains(&name.as_str()));
        headers
    }

    /// Whether the route is another one after the module's edits than before.
    fn route_changes(&self) -> bool {
        let [before, after] = self.routes();
        before != after
    }

    /// Whether Envoy answers itself, because the module's edits lead nowhere.
    fn loses_its_route(&self) -> bool {
        self.route_changes() && self.line.is_some_and(|line| line.cluster == "-")
    }

    /// The routes that the request takes before and after the module's edits.
    fn routes(&self) -> [Option<String>; 2] {
        let record = self.line.and_then(|line| line.record.as_ref());
        let judged = record.and_then(|r| r.authority.as_deref().zip(r.path.as_deref()));
        let key = self.case.key.map(|key| &self.keys[key]);
        let Some(((authority, path), key)) = judged.zip(key) else { return [None, None] };
        [self.headers_of_client(), self.edited_headers(key)].map(|headers| {
            let (method, query) = (self.case.method, self.case.query());
            let view = View { method, authority, path, query, headers: &headers };
            route(self.proxy, &view).map(|routed| routed.route.name.clone())
        })
    }

    fn explain(&self) -> String {
        let arrivals = self.arrivals.iter().map(|a| format!("{}: {}", a.cluster, a.head));
        format!(
            "--- request\n{}\n--- proxy\n{:?}\n{}\n--- routes before and after edits\n{:?}\n--- key\n\
             {:?}\n--- access log\n{}\n--- response\n{:?}\n--- upstreams\n{}\n",
            String::from_utf8_lossy(&self.case.encode()),
            self.proxy.manager,
            self.proxy.routes(),
            self.routes(),
            self.case.key.map(|key| &self.keys[key]),
            self.line.map_or("no line", |line| &line.text),
            self.response,
            arrivals.collect::<Vec<_>>().join("\n"),
        )
    }
}

/// Servers that turn headers into variables read `_` as `-`.
fn is_override(name: &str) -> bool {
    OVERRIDES.contains(&name.replace('_', "-").as_str())
}

impl Arrival {
    /// The id of the case.
    pub(super) fn case(&self) -> Option<usize> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let (_, id) = lines.find(|(name, _)| name.eq_ignore_ascii_case("x-case"))?;
        id.parse().ok()
    }

    fn sent(&self) -> Option<Sent> {
        let mut lines = self.head.lines();
        let mut start = lines.next()?.split(' ');
        let (method, target) = (start.next()?.to_owned(), upper_escapes(start.next()?));
        let fields = lines.filter_map(|line| line.split_once(": "));
        let mut headers: Vec<_> =
            fields.map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        let host = headers.iter().position(|(name, _)| name == "host")?;
        let (_, authority) = headers.remove(host);
        headers.retain(|(name, _)| !OF_ENVOY.contains(&name.as_str()));
        headers.sort();
        Some(Sent { cluster: Some(self.cluster.to_owned()), method, authority, target, headers })
    }
}

/// The target with escapes of the path in upper case, as the audit line has them.
fn upper_escapes(target: &str) -> String {
    let path_len = target.find('?').unwrap_or(target.len());
    let mut bytes = target.as_bytes().to_vec();
    for at in 0..path_len {
        if bytes[at] == b'%' {
            let end = path_len.min(at + 3);
            bytes[at..end].make_ascii_uppercase();
        }
    }
    String::from_utf8(bytes).expect("only ASCII letters have changed")
}

/// A path as the most lenient server reads it: escapes resolved, backslashes taken for slashes, parameters,
/// empty segments and dot segments removed.
fn resolved(path: &str) -> String {
    let mut text = String::new();
    let mut rest = path;
    while let Some(next) = rest.chars().next() {
        let escape = rest.get(1..3).filter(|_| next == '%');
        let byte = escape.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        text.push(byte.map_or(next, char::from));
        rest = &rest[if byte.is_some() { 3 } else { next.len_utf8() }..];
    }
    let mut segments = Vec::new();
    for segment in text.replace('\\', "/").split('/') {
        match segment.split(';').next().unwrap_or_default() {
            "" | "." => {}
            ".." => _ = segments.pop(),
            segment => segments.push(segment.to_owned()),
        }
    }
    format!("/{}", segments.join("/"))
}
