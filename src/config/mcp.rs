//! Reads `mcp`: which requests are messages of MCP, and how they are refused.

use crate::access::restriction::Slashes;
use crate::access::{CanonicalPath, without_final_slash};
use crate::glob::Globs;
use crate::json::{Invalid, Node};

use super::llm::paths;

/// Which requests are messages of MCP, and how they are refused.
#[derive(Clone, Debug)]
pub struct McpSettings {
    /// The paths of servers, in the order in which they are looked up.
    routes: Box<[McpRoute]>,
    /// The paths of servers that have no name.
    paths: Option<Globs>,
    /// Whether revisions before 2026-07-28 are accepted.
    pub allows_legacy: bool,
    /// Whether refused requests get the HTTP status of the refusal, in place of 200 with a JSON-RPC error.
    pub refuses_by_status: bool,
    /// Whether requests of 2026-07-28 and later are decided by their headers alone, and their bodies not read.
    pub trusts_headers: bool,
}

/// The path of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct McpRoute {
    /// What comes before the segment that names the server; the whole path if none does.
    before: Box<str>,
    /// What comes after that segment.
    after: Option<Box<str>>,
    /// The name of the server, if no segment of the path is.
    server: Option<Box<str>>,
}

/// The name of the server that a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct McpServer<'a>(pub Option<&'a str>);

const MEMBERS: [&str; 5] = ["routes", "paths", "legacy", "refuse_with", "verify"];

const ROUTE_MEMBERS: [&str; 2] = ["path", "server"];

/// The segment of a path that names the server.
const SERVER: &str = "{server}";

// === impl McpSettings ===

impl McpSettings {
    /// Reads `mcp`. `slashes`: those in the paths of some keys.
    pub(super) fn read(node: &Node<'_>, slashes: Slashes) -> Result<Self, Invalid> {
        let members = node.members(&MEMBERS)?;
        let [by_status, by_headers] = [
            members.read("refuse_with", |node| node.choice(&[("rpc", false), ("http", true)]))?,
            members.read("verify", |node| node.choice(&[("body", false), ("headers", true)]))?,
        ];
        Ok(Self {
            routes: members.read("routes", |list| list.list(McpRoute::read))?.unwrap_or_default(),
            paths: members.read("paths", |node| paths(node, slashes))?,
            allows_legacy: members.read("legacy", Node::bool)?.unwrap_or(true),
            refuses_by_status: by_status.unwrap_or(false),
            trusts_headers: by_headers.unwrap_or(false),
        })
    }

    /// The server of requests with a path in canonical form; `None` if they are not messages of MCP.
    pub fn server<'a>(&'a self, path: &'a str) -> Option<McpServer<'a>> {
        let route = self.routes.iter().find_map(|route| route.server(path));
        let is_in_paths = || self.paths.as_ref().is_some_and(|paths| paths.matches(path));
        route.or_else(|| is_in_paths().then_some(McpServer(None)))
    }

    /// Whether no request is a message of MCP.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty() && self.paths.is_none()
    }
}

impl Default for McpSettings {
    fn default() -> Self {
        Self {
            routes: Box::default(),
            paths: None,
            allows_legacy: true,
            refuses_by_status: false,
            trusts_headers: false,
        }
    }
}

// === impl McpRoute ===

impl McpRoute {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&ROUTE_MEMBERS)?;
        let path = members.require("path")?;
        let route = Self::parse(path.string()?).ok_or_else(|| {
            path.expected("a path in canonical form, with at most one segment {server}")
        })?;
        let server = members.read("server", |node| match node.string()? {
            "" => Err(node.expected("the name of a server")),
            name => Ok(name.into()),
        })?;
        if server.is_some() && route.after.is_some() {
            return Err(node.expected("either a server or a segment {server} of the path"));
        }
        Ok(Self { server, ..route })
    }

    fn parse(path: &str) -> Option<Self> {
        let (before, after) = match path.split_once(SERVER) {
            None => (path, None),
            Some((before, after)) if before.ends_with('/') => (before, Some(after)),
            Some(_) => return None,
        };
        let is_whole_segment = after.is_none_or(|after| after.is_empty() || after.starts_with('/'));
        let example = [before, after.map_or("", |_| "s"), after.unwrap_or_default()].concat();
        let canonical = CanonicalPath::parse(example.as_bytes()).ok()?;
        let is_plain = canonical.as_str() == example && !example.contains(['*', '?', '{']);
        (is_whole_segment && is_plain).then(|| Self {
            before: if after.is_some() { before } else { without_final_slash(before) }.into(),
            after: after.map(|after| after.strip_suffix('/').unwrap_or(after).into()),
            server: None,
        })
    }

    fn server<'a>(&'a self, path: &'a str) -> Option<McpServer<'a>> {
        let Some(after) = &self.after else {
            return (*path == *self.before).then_some(McpServer(self.server.as_deref()));
        };
        let name = path.strip_prefix(&*self.before)?.strip_suffix(&**after)?;
        (!name.is_empty() && !name.contains('/')).then_some(McpServer(Some(name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn settings(mcp: &str) -> Result<McpSettings, String> {
        let text = format!(r#"{{"keyring": [{{"name": "m", "secret": "${{S}}"}}], "mcp": {mcp}}}"#);
        let config = Config::parse(text.as_bytes()).map_err(|invalid| invalid.to_string())?;
        Ok(config.settings().mcp.clone())
    }

    #[test]
    fn the_first_route_of_a_path_names_the_server() {
        let mcp = settings(
            r#"{"routes": [{"path": "/mcp", "server": "main"}, {"path": "/mcp/fixed/", "server": "f"},
                {"path": "/mcp/{server}"}, {"path": "/s/{server}/sse"}, {"path": "/bare"}], "paths": ["/old/**"]}"#,
        )
        .unwrap();
        for (path, server) in [
            ("/mcp", Some(Some("main"))),
            ("/mcp/fixed", Some(Some("f"))),
            ("/mcp/other", Some(Some("other"))),
            ("/mcp/a/b", None),
            ("/mcp2", None),
            ("/s/x/sse", Some(Some("x"))),
            ("/s//sse", None),
            ("/s/sse", None),
            ("/bare", Some(None)),
            ("/old/a/b", Some(None)),
            ("/", None),
        ] {
            assert_eq!(mcp.server(path), server.map(McpServer), "{path}");
        }
        assert!(!mcp.is_empty());
    }

    #[test]
    fn by_default_no_request_is_a_message() {
        let mcp = settings("{}").unwrap();
        assert!(mcp.is_empty() && mcp.server("/mcp").is_none());
        assert!(mcp.allows_legacy && !mcp.refuses_by_status && !mcp.trusts_headers);
        let mcp =
            settings(r#"{"legacy": false, "refuse_with": "http", "verify": "headers"}"#).unwrap();
        assert!(!mcp.allows_legacy && mcp.refuses_by_status && mcp.trusts_headers);
    }

    #[test]
    fn what_no_path_can_be_is_refused() {
        for path in [
            "", "mcp", "/a//b", "/a/../b", "/a/x{server}", "/a/{server}x", "/{server}/{server}",
            "/a/*", "/a?b", "/a%41",
        ] {
            let refused =
                settings(&format!(r#"{{"routes": [{{"path": "{path}"}}]}}"#)).unwrap_err();
            assert!(refused.starts_with("mcp.routes[0].path: expected "), "{path}: {refused}");
        }
        for (mcp, refused) in [
            (r#"{"routes": [{"server": "a"}]}"#, "mcp.routes[0]"),
            (r#"{"routes": [{"path": "/a/{server}", "server": "a"}]}"#, "mcp.routes[0]: expected "),
            (r#"{"routes": [{"path": "/a", "server": ""}]}"#, "mcp.routes[0].server: expected "),
            (r#"{"refuse_with": "soap"}"#, "mcp.refuse_with: expected "),
            (r#"{"verify": true}"#, "mcp.verify: expected "),
            (r#"{"path": "/a"}"#, "mcp"),
        ] {
            let text = settings(mcp).unwrap_err();
            assert!(text.starts_with(refused), "{mcp}: {text}");
        }
    }
}
