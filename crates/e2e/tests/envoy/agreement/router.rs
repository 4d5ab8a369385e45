//! Where Envoy sends a request, and what stands in it then: written from Envoy's documentation of
//! virtual hosts, route matching and rewrites.

use super::clusters::CLUSTERS;
use super::proxy::{
    HeaderMatch, HostRewrite, PathMatch, PathRewrite, Proxy, Route, Target, ValueMatch, VirtualHost,
};

/// A request as Envoy's router sees it.
#[derive(Clone, Debug)]
pub(super) struct View<'a> {
    pub(super) method: &'a str,
    pub(super) authority: &'a str,
    pub(super) path: &'a str,
    /// The query with its `?`, or nothing.
    pub(super) query: &'a str,
    /// Names in lower case, apart from pseudo-headers.
    pub(super) headers: &'a [(String, String)],
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) struct Routed<'a> {
    /// The domain that the virtual host was found by.
    pub(super) domain: &'static str,
    pub(super) route: &'a Route,
    pub(super) sent: Sent,
}

/// What the upstream gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// `None` where a header names none.
    pub(super) cluster: Option<String>,
    pub(super) method: String,
    pub(super) authority: String,
    pub(super) target: String,
    /// Sorted, without those that Envoy adds to every request.
    pub(super) headers: Vec<(String, String)>,
}

/// Routes a request; `None` where no route matches.
pub(super) fn route<'a>(proxy: &'a Proxy, view: &View<'_>) -> Option<Routed<'a>> {
    let (host, domain) = virtual_host(proxy, view.authority)?;
    let route = host.routes.iter().find(|route| matches(proxy, route, view))?;
    let cluster = match route.target {
        Target::Cluster(cluster) => Some(cluster.to_owned()),
        Target::Header(name) => first_value(view, name),
    };
    let authority = rewritten_host(route, view, cluster.as_deref());
    let path = rewritten_path(route, view.path);
    let mut headers = view.headers.to_vec();
    if route.appends_forwarded_host && authority.is_some() {
        append_forwarded_host(&mut headers, view.authority);
    }
    headers.sort();
    let sent = Sent {
        cluster,
        method: view.method.to_owned(),
        authority: authority.unwrap_or_else(|| view.authority.to_owned()),
        target: format!("{path}{}", view.query),
        headers,
    };
    Some(Routed { domain, route, sent })
}

/// Exact domains come first, then `*suffix`, then `prefix*`, the longest first, then `*`.
pub(super) fn virtual_host<'a>(
    proxy: &'a Proxy,
    authority: &str,
) -> Option<(&'a VirtualHost, &'static str)> {
    let authority = authority.to_ascii_lowercase();
    let name = match authority.rfind(':') {
        Some(port) if proxy.ignores_port && !authority[port..].contains(']') => &authority[..port],
        _ => &authority,
    };
    let domains = proxy.hosts.iter().flat_map(|host| host.domains.iter().map(move |d| (host, *d)));
    // A wildcard stands for one character or more.
    let rank = |domain: &str| match (domain.strip_prefix('*'), domain.strip_suffix('*')) {
        (Some(""), _) => Some((1, 0)),
        (Some(suffix), _) => {
            (name.len() > suffix.len() && name.ends_with(suffix)).then_some((3, suffix.len()))
        }
        (_, Some(prefix)) => {
            (name.len() > prefix.len() && name.starts_with(prefix)).then_some((2, prefix.len()))
        }
        (None, None) => (domain == name).then_some((4, 0)),
    };
    let ranked = domains.filter_map(|(host, domain)| Some((rank(domain)?, host, domain)));
    ranked.max_by_key(|(rank, ..)| *rank).map(|(_, host, domain)| (host, domain))
}

fn matches(proxy: &Proxy, route: &Route, view: &View<'_>) -> bool {
    let fold = |text: &str| match route.ignores_case {
        true => text.to_ascii_lowercase(),
        false => text.to_owned(),
    };
    let path = fold(view.path);
    let by_path = match route.path {
        PathMatch::Exact(exact) => path == fold(exact),
        PathMatch::Prefix(prefix) => path.starts_with(&fold(prefix)),
        PathMatch::Separated(prefix) => {
            let rest = path.strip_prefix(&fold(prefix));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        }
        PathMatch::Regex(pattern) => (pattern.matches)(view.path),
    };
    by_path && route.headers.iter().all(|header| header_matches(proxy, header, view))
}

/// A header that is absent matches no value, whether inverted or not.
fn header_matches(proxy: &Proxy, header: &HeaderMatch, view: &View<'_>) -> bool {
    let mut values = values(view, header.name);
    if !values.is_empty() && !proxy.matches_each_value {
        values = vec![values.join(",")];
    }
    let any = |matches: &dyn Fn(&str) -> bool| {
        !values.is_empty() && values.iter().any(|value| matches(value)) != header.inverted
    };
    match header.value {
        ValueMatch::Present => values.is_empty() == header.inverted,
        ValueMatch::Absent => values.is_empty() != header.inverted,
        ValueMatch::Exact(exact) => any(&|value| value == exact),
        ValueMatch::Prefix(prefix) => any(&|value| value.starts_with(prefix)),
        ValueMatch::Suffix(suffix) => any(&|value| value.ends_with(suffix)),
    }
}

fn values(view: &View<'_>, name: &str) -> Vec<String> {
    match name {
        ":method" => vec![view.method.to_owned()],
        ":authority" => vec![view.authority.to_owned()],
        ":path" => vec![format!("{}{}", view.path, view.query)],
        _ => {
            let values = view.headers.iter().filter(|(have, _)| have == name);
            values.map(|(_, value)| value.clone()).collect()
        }
    }
}

fn first_value(view: &View<'_>, name: &str) -> Option<String> {
    view.headers.iter().find(|(have, _)| have == name).map(|(_, value)| value.clone())
}

fn rewritten_host(route: &Route, view: &View<'_>, cluster: Option<&str>) -> Option<String> {
    match route.host_rewrite? {
        HostRewrite::Literal(host) => Some(host.to_owned()),
        HostRewrite::Header(name) => first_value(view, name),
        HostRewrite::Auto => {
            let kind = CLUSTERS.iter().find(|kind| cluster == Some(kind.name));
            kind.and_then(|kind| kind.hostname).map(str::to_owned)
        }
    }
}

/// `prefix_rewrite` replaces what the route matched, which is the whole path except for prefixes.
fn rewritten_path(route: &Route, path: &str) -> String {
    match route.path_rewrite {
        None => path.to_owned(),
        Some(PathRewrite::Regex(substitution)) => (substitution.apply)(path),
        Some(PathRewrite::Prefix(with)) => {
            let matched = match route.path {
                PathMatch::Prefix(prefix) | PathMatch::Separated(prefix) => prefix.len(),
                PathMatch::Exact(_) | PathMatch::Regex(_) => path.len(),
            };
            format!("{with}{}", &path[matched..])
        }
    }
}

/// The host before it was rewritten, unless it is the last one there.
fn append_forwarded_host(headers: &mut Vec<(String, String)>, host: &str) {
    let name = "x-forwarded-host";
    match headers.iter_mut().find(|(have, _)| have == name) {
        None => headers.push((name.to_owned(), host.to_owned())),
        Some((_, value)) if value.rsplit(',').next() == Some(host) => {}
        Some((_, value)) => *value = format!("{value},{host}"),
    }
}
