//! What no request can match: mistakes of whoever writes a restriction.
//!
//! A member that never holds narrows, so a gate takes it in keys as it is. But a key with it is dead, and
//! a caveat cannot be taken off again. So configurations, `mint` and `attenuate` refuse to write one.

use crate::access::{CanonicalPath, without_final_slash};
use crate::json::{Invalid, Json, Node};

use super::HostPattern;
use super::conditions::ToolEntry;

/// What is known of slashes in paths where a restriction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slashes {
    /// It stands in a key that is out there: whether the key's tier keeps escaped slashes is not known, and one
    /// slash at the end of a glob does not count.
    Found,
    /// It is written for keys of a tier that takes an escaped slash for a character of its segment.
    Kept,
    /// It is written for keys whose paths have no escaped slash.
    Refused,
}

impl Slashes {
    /// Of a restriction that is written for keys whose tier keeps escaped slashes, or for others.
    pub fn written(are_kept: bool) -> Self {
        if are_kept { Self::Kept } else { Self::Refused }
    }
}

/// Checks what can be [read](super::Restriction::read) as a restriction and is about to be written:
/// whether each entry of its lists of methods, hosts and paths can match a request, whether a client can
/// have one of `sources` and `client_cert`, whether arguments can meet the conditions of each tool, and whether
/// there is a time from `nbf` to `exp`. Alternatives are checked alike. Other lists may be empty: a key with no paths still reads its counts.
///
/// # Errors
///
/// [`Invalid`] names the entry that no request can match, and what belongs there.
pub fn refuse_mistakes(node: &Node<'_>, slashes: Slashes) -> Result<(), Invalid> {
    let members = node.open_members()?;
    let nbf = members.read("nbf", Node::time)?.unwrap_or(0);
    members.read("exp", |exp| match exp.time()? {
        secs if secs > nbf => Ok(()),
        _ => Err(exp.expected("a time after nbf and after 0: there is none between the two")),
    })?;
    let lists: [(_, Check); 7] = [
        ("methods", |list, slashes| each(list, slashes, method)),
        ("hosts", |list, slashes| each(list, slashes, host)),
        ("paths", refuse_dead_paths),
        ("sources", not_empty),
        ("client_cert", not_empty),
        ("mcp", |mcp, slashes| {
            mcp.open_members()?.get("tools").map_or(Ok(()), |list| each(&list, slashes, tool))
        }),
        ("any_of", |list, slashes| each(list, slashes, refuse_mistakes)),
    ];
    lists.into_iter().try_for_each(|(name, check)| {
        members.get(name).map_or(Ok(()), |list| check(&list, slashes))
    })
}

/// Checks whether each of these path globs can match a path.
///
/// # Errors
///
/// As [`refuse_mistakes`].
pub(crate) fn refuse_dead_paths(list: &Node<'_>, slashes: Slashes) -> Result<(), Invalid> {
    each(list, slashes, path)
}

/// Checks a member, or an item of one. As a pointer, so that the code that goes through a list is there once.
type Check = fn(&Node<'_>, Slashes) -> Result<(), Invalid>;

fn each(list: &Node<'_>, slashes: Slashes, check: Check) -> Result<(), Invalid> {
    list.items()?.try_for_each(|item| check(&item, slashes))
}

/// Clients are judged for every request, also for one for counts.
fn not_empty(list: &Node<'_>, _: Slashes) -> Result<(), Invalid> {
    match list.items()?.len() {
        0 => Err(list.expected("at least one entry: an empty list holds never")),
        _ => Ok(()),
    }
}

/// Methods are compared in their case, and all that servers know are in upper case (RFC 9110, section 9.1).
fn method(node: &Node<'_>, _: Slashes) -> Result<(), Invalid> {
    let allowed = |byte: u8| {
        byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
    };
    let method = node.string()?;
    if !method.is_empty() && method.bytes().all(allowed) {
        Ok(())
    } else {
        Err(node.expected("a method in upper case, as GET"))
    }
}

fn host(node: &Node<'_>, _: Slashes) -> Result<(), Invalid> {
    HostPattern::read_written(node).map(|_| ())
}

/// A tool with conditions.
fn tool(node: &Node<'_>, _: Slashes) -> Result<(), Invalid> {
    if matches!(node.value(), Json::String(_)) {
        return Ok(());
    }
    let entry = ToolEntry::read(node)?;
    if let Some(args) = node.open_members()?.get("args")
        && args.items()?.len() == 0
    {
        return Err(args.expected("at least one condition: without args there is none"));
    }
    entry.mistake().map_or(Ok(()), |what| Err(node.expected(what)))
}

fn path(node: &Node<'_>, slashes: Slashes) -> Result<(), Invalid> {
    let glob = node.string()?;
    let example = match slashes {
        Slashes::Found => example(without_final_slash(glob)),
        Slashes::Kept | Slashes::Refused => example(glob),
    };
    let can_be = |path: Result<CanonicalPath<'_>, _>| path.is_ok_and(|p| p.resource() == example);
    if can_be(CanonicalPath::parse(example.as_bytes())) {
        return Ok(());
    }
    match can_be(CanonicalPath::parse_keeping_slashes(example.as_bytes())) {
        true if slashes != Slashes::Refused => Ok(()),
        true => Err(node.expected(
            "a glob without %2F, which no path has unless the key's tier says \"escaped_slashes\": \"keep\"",
        )),
        false => Err(node.expected(
            "a glob that a path can match, as /v1/models or /v1/**: it starts with / or **, does not end in /, \
             and has no query, no empty or dot segment, and only characters and escapes of canonical paths",
        )),
    }
}

/// A text that the glob matches: a canonical path, if it matches any.
fn example(glob: &str) -> String {
    let (mut path, mut rest) = (String::with_capacity(glob.len() + 1), glob);
    while let Some((literal, after)) = rest.split_once('*') {
        path.push_str(literal);
        rest = after.trim_start_matches('*');
        path.push_str(match path.as_bytes() {
            // Every path starts with a slash, which only two stars take.
            [] if rest.len() == after.len() => "",
            [] => "/a",
            // What makes an escape of this that paths may have.
            [.., b'%'] => "20",
            [.., b'%', b'3'] => "A",
            [.., b'%', b'4' | b'6'] => "0",
            [.., b'%', _] => "B",
            _ => "a",
        });
    }
    path.push_str(rest);
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::glob::Globs;
    use crate::json::Integers;

    #[track_caller]
    fn mistake(restriction: &str) -> String {
        let json = Json::parse(restriction.as_bytes()).unwrap();
        let refused = refuse_mistakes(&json.root(Integers::Digits), Slashes::Refused);
        refused.err().map(|invalid| invalid.to_string()).unwrap_or_default()
    }

    fn can_match(glob: &str) -> bool {
        can_match_where(Slashes::Refused, glob)
    }

    fn can_match_where(slashes: Slashes, glob: &str) -> bool {
        let json = Json::object([("paths", Json::Array(vec![glob.into()]))]);
        refuse_mistakes(&json.root(Integers::Digits), slashes).is_ok()
    }

    #[test]
    fn globs_that_match_some_path_are_written() {
        for glob in [
            "/", "/v1", "/v1/*", "/v1/**", "**", "**/models", "**.json", "*/v1", "/*/models",
            "/v1/a%20b", "/v1/%C3%A8", "/.*", "/..*", "/*.", "/...", "/a;v=2", "/..a;b", "/a%*",
            "/a%2*", "/a%3*", "/a%4*/%7*", "/a%0*", "/a%5**", "/..%3*", "/a:b@c!$&'()+,=~-_",
            "/***", "/a%252F",
        ] {
            assert!(can_match(glob), "{glob}");
            assert!(Globs::paths(&[glob]).matches(&example(glob)), "{glob}");
        }
    }

    #[test]
    fn globs_that_no_path_matches_are_not() {
        for glob in [
            "", "*", "v1", "v1/**", "*v1", "/v1/", "/v1/*/", "/v1/**/", "**/", "//", "/v1//a",
            "/**//a", "/v1?a=b", "/v1/**?*", "/v1#a", "/v1\\a", "/v1/a b", "/v1/modèle",
            "/\u{feff}v1", "/v1\n", "/a%2Fb", "/a%5Cb", "/a%00", "/a%41", "/a%7e", "/a%c3", "/a%",
            "/a%2", "/a%*%", "/a%c*", "/a%g*", "/%%*", "/.", "/..", "/v1/./a", "/v1/../a",
            "/**/..", "/..;a", "/..;*", "/.%3Bx", "http://a/v1", "https:/v1",
        ] {
            assert!(!can_match(glob), "{glob}");
        }
    }

    #[test]
    fn an_escaped_slash_is_written_where_a_tier_keeps_it() {
        for glob in ["/a%2Fb", "/a%2F*", "/*%2Fb", "/a%2F", "**%2Fb", "/a%2F.b/c", "/a%2*/b%2F*"] {
            assert!(can_match_where(Slashes::Kept, glob), "{glob}");
            assert!(can_match_where(Slashes::Found, glob), "{glob}");
            assert!(!can_match(glob), "{glob}");
        }
        for glob in ["/a%2fb", "/%2Fa", "/a%2F/b", "/a%2F..", "/a%2F.%2Fb", "/a%2F%2Fb", "/a%5Cb"] {
            assert!(!can_match_where(Slashes::Kept, glob), "{glob}");
        }
    }

    #[test]
    fn one_slash_at_the_end_does_not_count_in_keys_that_are_out_there() {
        for (glob, matches) in [("/v1/", true), ("/v1/**/", true), ("/v1//", false), ("v1/", false)]
        {
            assert_eq!(can_match_where(Slashes::Found, glob), matches, "{glob}");
            assert!(!can_match_where(Slashes::Kept, glob), "{glob}");
        }
    }

    #[test]
    fn the_entry_is_named() {
        let entries = [
            (r#"{"paths": ["/v1", "/v1/"]}"#, "paths[1]: expected a glob"),
            (r#"{"methods": ["GET", "get"]}"#, "methods[1]: expected a method in upper case"),
            (r#"{"methods": ["GET "]}"#, "methods[0]: expected a method"),
            (r#"{"methods": [""]}"#, "methods[0]: expected a method"),
            (r#"{"hosts": ["*.[::1]"]}"#, "hosts[0]: expected a host name without port"),
            (r#"{"hosts": ["a:443"]}"#, "hosts[0]: expected a host name without port"),
            (r#"{"sources": []}"#, "sources: expected at least one"),
            (r#"{"client_cert": []}"#, "client_cert: expected at least one"),
            (r#"{"any_of": [{}, {"sources": []}]}"#, "any_of[1].sources: expected at least one"),
            (r#"{"any_of": [{"methods": ["post"]}]}"#, "any_of[0].methods[0]: expected a method"),
            (r#"{"nbf": 20, "exp": 20}"#, "exp: expected a time after nbf"),
            (r#"{"exp": 0}"#, "exp: expected a time after nbf"),
            (
                r#"{"mcp": {"tools": ["a", {"name": "b", "args": []}]}}"#,
                "mcp.tools[1].args: expected at least one",
            ),
            (
                r#"{"any_of": [{"mcp": {"tools": [{"name": "b", "args": [{"at": "/a", "min": 2, "max": 1}]}]}}]}"#,
                "any_of[0].mcp.tools[0]: expected conditions that a value can meet",
            ),
        ];
        for (restriction, start) in entries {
            let text = mistake(restriction);
            assert!(text.starts_with(start), "{restriction}: {text}");
        }
    }

    #[test]
    fn what_can_hold_is_written() {
        for restriction in [
            "{}",
            r#"{"methods": ["GET", "M-SEARCH"], "hosts": ["API.example", "*.example", "[::1]"]}"#,
            r#"{"sources": ["0.0.0.0/0"], "models": ["gpt-*"], "mcp": {"tools": []}}"#,
            r#"{"methods": [], "paths": [], "hosts": [], "models": [], "any_of": []}"#,
            r#"{"mcp": {"methods": [], "tools": [{"name": "b", "args": [{"at": "/a", "min": 2, "max": 2}]}]}}"#,
            r#"{"nbf": 10, "exp": 11, "any_of": [{"exp": 5}, {"paths": ["/"]}]}"#,
        ] {
            assert_eq!(mistake(restriction), "", "{restriction}");
        }
    }

    #[cfg(not(target_arch = "wasm32"))]
    proptest::proptest! {
        /// What matches any path is written, and what is written matches one.
        #[test]
        fn no_glob_that_matches_is_refused(
            pieces in proptest::collection::vec("[a./;*%]|%[02345]|[ABCF0]|/|\\*\\*|%2F", 0..6),
            paths in proptest::collection::vec("(/([a.;]|%[2345][0-9A-F]|%2F){1,3}){1,3}", 20),
            keeps in proptest::bool::ANY,
        ) {
            let glob = pieces.concat();
            let globs = Globs::paths(&[&glob]);
            let canonical = |path: &str| {
                let parse = match keeps {
                    true => CanonicalPath::parse_keeping_slashes,
                    false => CanonicalPath::parse,
                };
                parse(path.as_bytes()).is_ok_and(|parsed| parsed.resource() == path)
            };
            if can_match_where(Slashes::written(keeps), &glob) {
                let example = example(&glob);
                proptest::prop_assert!(canonical(&example) && globs.matches(&example), "{}", example);
            } else {
                let matched = paths.iter().find(|path| canonical(path) && globs.matches(path));
                proptest::prop_assert_eq!(matched, None);
            }
        }
    }
}
