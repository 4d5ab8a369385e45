//! What `vkey config check` says about MCP calls.

use vkey::access::without_final_slash;
use vkey::config::Settings;
use vkey::glob::Globs;
use vkey::issuing::without_mcp;
use vkey::json::Json;

use super::ai::METERED;
use super::overlap::overlap;
use super::text::quoted;

/// The segment of a path that names the server.
const SERVER: &str = "{server}";

/// The members of `mcp` that name objects, each with the method that uses one.
const USES: [(&str, &str); 3] =
    [("tools", "tools/call"), ("resources", "resources/read"), ("prompts", "prompts/get")];

const TAKEN: &str = "so that AI requests there are read as messages of MCP and refused; narrow mcp.paths, and the \
    routes with {server}";

const OF_A_PROVIDER: &str = "it is for servers that an AI provider calls by itself, by their URLs or the names of \
    connectors; the servers behind this gate are in mcp.routes";

const HEADERS_ONLY: &str = "mcp.verify is headers, and headers say no arguments: calls of revision 2026-07-28 and later \
    match no entry with args or only_args; set mcp.verify to body";

const EVERY_CALL: &str = "mcp: {} allows every MCP call, and no other request; list what is allowed, as in {\"tools\": \
    [\"search_*\"]}, or remove it";

/// Where the configuration has an MCP server, or several.
struct Place<'a> {
    /// The member, e.g. `mcp.routes[0]`.
    member: String,
    /// The path or the glob, as it is written.
    path: &'a str,
    /// The paths, as a glob.
    glob: String,
    server: Server<'a>,
}

/// What `servers` in a restriction is compared with.
#[derive(Clone, Copy)]
enum Server<'a> {
    /// This name.
    Named(&'a str),
    /// A segment of the path.
    OfPath,
    /// Nothing.
    Unnamed,
}

/// A restriction of MCP calls in a tier or a tenant.
struct Part<'a> {
    /// Of whom, and which alternative, if it is one.
    owner: String,
    mcp: &'a Json,
    /// Those that must hold together: the one that has `mcp`, and before it the one that it is an alternative of.
    around: Vec<&'a Json>,
}

/// The line of the summary, if the configuration names MCP servers.
pub(super) fn summary(settings: &Settings, json: &Json) -> Option<String> {
    let place = |place: &Place<'_>| match place.server {
        Server::Named(name) => format!("{} is {}", quoted(place.path), quoted(name)),
        Server::OfPath | Server::Unnamed => quoted(place.path),
    };
    let mcp = &settings.mcp;
    let paths = Vec::from_iter(places(json).iter().map(place)).join(", ");
    let legacy = (!mcp.allows_legacy).then_some("revisions before 2026-07-28 are refused");
    let statuses = mcp.refuses_by_status.then_some("refusals have their HTTP status");
    let headers = mcp.trusts_headers.then_some("headers decide");
    let rules = [Some(&*paths), legacy, statuses, headers].into_iter().flatten();
    (!mcp.is_empty()).then(|| format!("mcp          {}", Vec::from_iter(rules).join("; ")))
}

/// What most likely is a mistake, and what to do. `json`: the configuration that the settings were read from.
pub(super) fn notes(settings: &Settings, json: &Json) -> Vec<String> {
    if settings.mcp.is_empty() {
        return unnamed(settings);
    }
    let places = places(json);
    let mut notes = shadowed(&places);
    notes.extend(unreachable(settings, json, &places));
    notes.extend(taken(settings));
    notes.extend(of_both(settings, json));
    notes.extend(hosted(json, &places));
    for part in parts(json) {
        let found = part.notes(settings, &places).into_iter();
        notes.extend(found.map(|note| format!("{}: {note}", part.owner)));
    }
    notes
}

/// The restrictions of MCP calls, where no request is one.
fn unnamed(settings: &Settings) -> Vec<String> {
    let tiers = settings.tiers.iter().map(|(name, tier)| (owner("tier", name), &tier.only));
    let tenants = settings.tenants.iter();
    let tenants = tenants.map(|(name, tenant)| (owner("tenant", name), &tenant.only));
    let note = |(owner, only)| Some(format!("{owner}: {}", without_mcp(only)?));
    tiers.chain(tenants).filter_map(note).collect()
}

/// The routes that never count, because an earlier one has all of their paths.
fn shadowed(places: &[Place<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    for (index, later) in places.iter().enumerate().filter(|(_, place)| place.is_route()) {
        let before = places.iter().take(index);
        let Some(first) = before.into_iter().find(|earlier| earlier.covers(later)) else {
            continue;
        };
        let what = match first.glob == later.glob {
            true => "has the same path, so this one never counts; remove one of them",
            false => "has its path too, so this one never counts; put it before that one",
        };
        notes.push(format!("{later}: the earlier {first} {what}"));
    }
    notes
}

/// The servers that no tier lets a key use.
fn unreachable(settings: &Settings, json: &Json, places: &[Place<'_>]) -> Vec<String> {
    let tiers = members(json.get("tiers"));
    let is_open = |place: &Place<'_>| {
        // The tier `default` need not be listed.
        let is_default_open = !settings.tiers.contains_key("default");
        let is_open = |tier: &Json| tier.get("only").is_none_or(|only| place.is_open_to(only));
        is_default_open || tiers.iter().any(|(_, tier)| is_open(tier))
    };
    let closed = places.iter().filter(|place| !is_open(place));
    let note = |place| {
        format!(
            "{place}: no tier allows it, so every request for it is refused; add it to the paths of a tier"
        )
    };
    closed.map(note).collect()
}

/// The paths of AI requests that MCP has taken.
fn taken(settings: &Settings) -> Option<String> {
    let taken = METERED.iter().filter(|path| settings.mcp.server(path).is_some());
    let taken = Vec::from_iter(taken.copied());
    (!taken.is_empty()).then(|| format!("mcp has the paths {}, {TAKEN}", taken.join(", ")))
}

/// The paths that `llm` names, and that are of MCP servers: `llm` has no effect there.
fn of_both(settings: &Settings, json: &Json) -> Vec<String> {
    let Some(llm) = json.get("llm") else { return Vec::new() };
    let mut lists = vec![("llm.paths".to_owned(), llm.get("paths"))];
    for (index, route) in items(llm.get("routes")).iter().enumerate() {
        lists.push((format!("llm.routes[{index}].paths"), route.get("paths")));
    }
    lists.push(("llm.unmetered".to_owned(), llm.get("unmetered")));
    let mut notes = Vec::new();
    for (member, list) in lists {
        let is_mcp = |path: &&str| settings.mcp.server(without_final_slash(path)).is_some();
        for path in texts(list).filter(|path| !path.contains('*')).filter(is_mcp) {
            notes.push(format!(
                "{member}: {} is a path of mcp, where llm has no effect; remove it from one of the two",
                quoted(path)
            ));
        }
    }
    notes
}

/// The entries of `llm.hosted_mcp` that are taken for servers behind the gate.
fn hosted(json: &Json, places: &[Place<'_>]) -> Vec<String> {
    let is_name = |entry: &str| {
        places.iter().any(|p| matches!(p.server, Server::Named(name) if name == entry))
    };
    let entries = texts(json.get("llm").and_then(|llm| llm.get("hosted_mcp")));
    let mistaken = entries.filter(|entry| entry.starts_with('/') || is_name(entry));
    mistaken.map(|entry| format!("llm.hosted_mcp has {}: {OF_A_PROVIDER}", quoted(entry))).collect()
}

/// The places of MCP servers, in the order in which they are looked up.
fn places(json: &Json) -> Vec<Place<'_>> {
    let mcp = json.get("mcp");
    let mut places = Vec::new();
    for (index, route) in items(mcp.and_then(|mcp| mcp.get("routes"))).iter().enumerate() {
        let Some(path) = route.get("path").and_then(Json::as_str) else { continue };
        let server = match route.get("server").and_then(Json::as_str) {
            Some(name) => Server::Named(name),
            None if path.contains(SERVER) => Server::OfPath,
            None => Server::Unnamed,
        };
        let glob = without_final_slash(path).replace(SERVER, "*");
        places.push(Place { member: format!("mcp.routes[{index}]"), path, glob, server });
    }
    for (index, path) in texts(mcp.and_then(|mcp| mcp.get("paths"))).enumerate() {
        let member = format!("mcp.paths[{index}]");
        let glob = without_final_slash(path).to_owned();
        places.push(Place { member, path, glob, server: Server::Unnamed });
    }
    places
}

/// The restrictions of MCP calls in tiers and tenants.
fn parts(json: &Json) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for (kind, group) in [("tier", "tiers"), ("tenant", "tenants")] {
        for (name, rules) in members(json.get(group)) {
            let Some(only) = rules.get("only") else { continue };
            let owner = owner(kind, name);
            if let Some(mcp) = only.get("mcp") {
                parts.push(Part { owner: owner.clone(), mcp, around: vec![only] });
            }
            for (index, other) in items(only.get("any_of")).iter().enumerate() {
                if let Some(mcp) = other.get("mcp") {
                    let owner = format!("{owner}, any_of[{index}]");
                    parts.push(Part { owner, mcp, around: vec![only, other] });
                }
            }
        }
    }
    parts
}

fn owner(kind: &str, name: &str) -> String {
    format!("{kind} {}", quoted(name))
}

/// Whether a restriction lists no `paths`, or some that a glob has too.
fn has_path_of(only: &Json, glob: &str) -> bool {
    let paths = only.get("paths");
    paths.is_none() || texts(paths).any(|path| overlap(without_final_slash(path), glob))
}

fn members(json: Option<&Json>) -> &[(String, Json)] {
    match json {
        Some(Json::Object(members)) => members,
        _ => &[],
    }
}

fn items(json: Option<&Json>) -> &[Json] {
    match json {
        Some(Json::Array(items)) => items,
        _ => &[],
    }
}

fn texts(json: Option<&Json>) -> impl Iterator<Item = &str> {
    items(json).iter().filter_map(Json::as_str)
}

// === impl Place ===

impl Place<'_> {
    fn is_route(&self) -> bool {
        self.member.starts_with("mcp.routes")
    }

    /// Whether it has every path of another one.
    fn covers(&self, other: &Self) -> bool {
        // A path has no star, so that of the other is a segment like any.
        Globs::paths(&[&self.glob]).matches(&other.glob)
    }

    /// Whether a restriction lets some key use it.
    fn is_open_to(&self, only: &Json) -> bool {
        let is_open = |only: &Json| only.get("models").is_none() && has_path_of(only, &self.glob);
        let others = only.get("any_of");
        is_open(only) && (others.is_none() || items(others).iter().any(is_open))
    }

    /// Whether a restriction to these servers may hold.
    fn has_server(&self, servers: &Globs) -> bool {
        match self.server {
            Server::Named(name) => servers.matches(name),
            Server::OfPath => true,
            Server::Unnamed => false,
        }
    }
}

/// As errors name it.
impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({})", self.member, quoted(self.path))
    }
}

// === impl Part ===

impl Part<'_> {
    fn notes(&self, settings: &Settings, places: &[Place<'_>]) -> Vec<String> {
        let has_paths_of =
            |place: &&Place<'_>| self.around.iter().all(|only| has_path_of(only, &place.glob));
        let reached = Vec::from_iter(places.iter().filter(has_paths_of));
        let mut notes = Vec::new();
        if reached.is_empty() {
            let first = places.first().map(|place| format!(", e.g. {}", quoted(place.path)));
            notes.push(format!(
                "its paths have none of mcp, so that mcp never holds; add one{}, or remove mcp",
                first.unwrap_or_default()
            ));
        } else {
            notes.extend(self.servers(&reached));
        }
        notes.extend(self.methods());
        if matches!(self.mcp, Json::Object(members) if members.is_empty()) && self.around.len() == 1
        {
            notes.push(EVERY_CALL.to_owned());
        }
        let has_conditions = |entry: &Json| {
            ["args", "only_args"].into_iter().any(|member| entry.get(member).is_some())
        };
        if settings.mcp.trusts_headers && items(self.mcp.get("tools")).iter().any(has_conditions) {
            notes.push(HEADERS_ONLY.to_owned());
        }
        notes
    }

    /// A note if `servers` names none of the servers that are reached.
    fn servers(&self, reached: &[&Place<'_>]) -> Option<String> {
        let servers = self.mcp.get("servers")?;
        let globs = Globs::names(&Vec::from_iter(texts(Some(servers))));
        if reached.iter().any(|place| place.has_server(&globs)) {
            return None;
        }
        let names = reached.iter().filter_map(|place| match place.server {
            Server::Named(name) => Some(quoted(name)),
            Server::OfPath | Server::Unnamed => None,
        });
        let names = Vec::from_iter(names);
        let remedy = match names.is_empty() {
            true => "give the routes a server".to_owned(),
            false => format!("the routes have {}", names.join(", ")),
        };
        Some(format!(
            "mcp.servers matches no server that its paths lead to, so that mcp never holds; {remedy}"
        ))
    }

    /// Notes about the methods of HTTP and of MCP.
    fn methods(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let lacks_post = |only: &&Json| {
            let methods = only.get("methods");
            methods.is_some() && !texts(methods).any(|method| method == "POST")
        };
        if self.around.iter().any(lacks_post) {
            notes.push("its methods lack POST, which sends every MCP call; add it".to_owned());
        }
        let Some(methods) = self.mcp.get("methods") else { return notes };
        let is_of_http =
            |method: &&str| !method.is_empty() && method.bytes().all(|b| b.is_ascii_uppercase());
        if let Some(method) = texts(Some(methods)).find(is_of_http) {
            notes.push(format!(
                "mcp.methods has {}, a method of HTTP: it is for those of MCP, e.g. tools/call; move it to methods",
                quoted(method)
            ));
        }
        let globs = Globs::names(&Vec::from_iter(texts(Some(methods))));
        for (kind, method) in USES {
            if !items(self.mcp.get(kind)).is_empty() && !globs.matches(method) {
                notes.push(format!(
                    "mcp.methods does not allow {method}, so that mcp.{kind} allows nothing; add it, or remove methods"
                ));
            }
        }
        notes
    }
}
