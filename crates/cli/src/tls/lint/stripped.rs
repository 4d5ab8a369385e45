//! Finds routes that are selected by headers which the module removes: a request could take another route
//! after it was evaluated.

use serde_json::Value;

use vkey::headers::is_unwanted;

use super::super::document::{at, get, is_true, items, text, typed, walk};
use super::finding::{Element, Finding, InFile, LintRule};
use super::managers::Manager;
use super::place::Place;
use super::routes::Target;
use super::routes::{Route, Table, mirrors, weighted};

/// A header that a selection depends on.
#[derive(Clone, Copy)]
struct Choice<'a> {
    header: &'a str,
    /// The member with the header.
    member: &'static str,
}

/// Checks the routes after a module.
pub(super) fn check(manager: &Manager<'_>, tables: &[&Table<'_>]) -> Vec<InFile<Finding>> {
    let sources = manager.front.key_sources();
    let is_removed = |choice: &Choice<'_>| is_removed(choice.header, &sources);
    let listener = Element::Listener(manager.listener.to_owned());
    let scopes = manager.scope_headers().map(by("scope_key_builder")).filter(is_removed);
    let scopes = scopes.map(|choice| InFile::new(manager.file, finding(listener.clone(), choice)));
    let mut findings = Vec::from_iter(scopes);
    for table in tables {
        let mut add = |place: Place<'_>, choices: Vec<Choice<'_>>| {
            let removed = choices.into_iter().filter(is_removed);
            let found = removed.map(|choice| finding(Element::Route(place.in_words()), choice));
            findings.extend(found.map(|finding| InFile::new(table.file, finding)));
        };
        add(table.place, by_table(table.config));
        for host in &table.hosts {
            add(host.place, by_host(host.config));
            host.routes.iter().for_each(|route| add(route.place, by_route(route)));
        }
    }
    findings
}

/// A selection by headers in this member.
fn by<'a>(member: &'static str) -> impl Fn(&'a str) -> Choice<'a> {
    move |header| Choice { header, member }
}

fn finding(element: Element, Choice { header, member }: Choice<'_>) -> Finding {
    Finding {
        element,
        rule: LintRule::RouteByRemovedHeader,
        reason: format!(
            "{member} reads the header {header}, which the module removes: the request could go \
             elsewhere after it was judged"
        ),
        fix: format!("choose by the path, by the host or by another header than {header}"),
    }
}

/// Servers that turn headers into variables treat both spellings as one.
fn is_removed(header: &str, key_sources: &[String]) -> bool {
    let dashed = |name: &str| name.to_ascii_lowercase().replace('_', "-");
    let header = dashed(header);
    is_unwanted(header.as_bytes()) || key_sources.iter().any(|source| dashed(source) == header)
}

/// The headers that select a route and its cluster.
fn by_route<'a>(route: &Route<'a>) -> Vec<Choice<'a>> {
    let mut choices = Vec::new();
    if let Some(matched) = get(route.config, "match") {
        let headers = items(matched, "headers").iter().filter_map(|header| text(header, "name"));
        choices.extend(headers.map(by("match.headers")));
        let cookies = items(matched, "cookies").iter().map(|_| "cookie");
        choices.extend(cookies.map(by("match.cookies")));
    }
    if let Some(action) = route.action() {
        choices.extend(text(action, "cluster_header").map(by("cluster_header")));
        choices.extend(by_weights(action));
        choices.extend(by_mirrors(action));
    }
    choices
}

/// The headers that select a weighted cluster.
fn by_weights(action: &Value) -> Vec<Choice<'_>> {
    let Some(clusters) = get(action, "weighted_clusters") else { return Vec::new() };
    let named = weighted(action).iter().filter_map(|part| text(part, "cluster_header"));
    let mut choices = Vec::from_iter(named.map(by("weighted_clusters.clusters.cluster_header")));
    choices.extend(text(clusters, "header_name").map(by("weighted_clusters.header_name")));
    if is_true(clusters, "use_hash_policy") {
        let hashed = items(action, "hash_policy").iter();
        let hashed = hashed.filter_map(|policy| at(policy, &["header", "header_name"])?.as_str());
        choices.extend(hashed.map(by("hash_policy")));
    }
    choices
}

/// The headers that select the clusters of mirrored requests.
fn by_mirrors(holder: &Value) -> impl Iterator<Item = Choice<'_>> {
    let headers = mirrors(holder).filter_map(|target| match target {
        Target::Header(header) => Some(header),
        Target::Cluster(_) | Target::Extension => None,
    });
    headers.map(by("request_mirror_policies.cluster_header"))
}

/// The headers that select a virtual host.
fn by_table(table: &Value) -> Vec<Choice<'_>> {
    let host = text(table, "vhost_header").map(by("vhost_header"));
    host.into_iter().chain(by_mirrors(table)).collect()
}

/// The headers in the matcher tree of a virtual host.
fn by_host(host: &Value) -> Vec<Choice<'_>> {
    let mut choices = Vec::from_iter(by_mirrors(host));
    if let Some(matcher) = get(host, "matcher") {
        walk(matcher, &mut |object| {
            let (kind, input) = typed(object);
            let header = text(input, "header_name");
            let header = header.filter(|_| kind.ends_with(".HttpRequestHeaderMatchInput"));
            choices.extend(header.map(by("matcher")));
        });
    }
    choices
}
