//! The route of the server in the configuration that the module gets.

use vkey::access::CanonicalPath;
use vkey::config::Config;
use vkey::json::Json;
use zeroize::Zeroizing;

/// The name of the server in the audit line, and for the `servers` of a restriction.
const SERVER: &str = "stdio";

/// The configuration with a route of MCP for a path, so that the module reads what is sent there. `None` if it has one
/// already, or if the path can be none.
pub(super) fn add(
    text: &[u8],
    config: &Config,
    path: &str,
) -> Option<(Zeroizing<Vec<u8>>, Config)> {
    let path = CanonicalPath::parse(path.as_bytes()).ok()?;
    let path = path.resource();
    if config.settings().mcp.server(path).is_some() {
        return None;
    }
    let text = Zeroizing::new(with_route(text, path)?);
    let config = Config::parse(&text).ok()?;
    Some((text, config))
}

/// The route of a path.
pub(super) fn route(path: &str) -> Json {
    Json::object([("path", path.into()), ("server", SERVER.into())])
}

fn with_route(text: &[u8], path: &str) -> Option<Vec<u8>> {
    let route = route(path);
    let Json::Object(mut members) = Json::parse(text).ok()? else { return None };
    let Some((_, mcp)) = members.iter_mut().find(|(name, _)| name == "mcp") else {
        // All else stays as it is, numbers too.
        let at = text.iter().position(|byte| *byte == b'{')?;
        let (before, after) = text.split_at_checked(at + 1)?;
        let comma = if members.is_empty() { "" } else { "," };
        let member = format!(r#""mcp":{{"routes":[{route}]}}{comma}"#);
        return Some([before, member.as_bytes(), after].concat());
    };
    let Json::Object(mcp) = mcp else { return None };
    match mcp.iter_mut().find(|(name, _)| name == "routes") {
        Some((_, Json::Array(routes))) => routes.push(route),
        Some(_) => return None,
        None => mcp.push(("routes".to_owned(), Json::Array(vec![route]))),
    }
    Some(Json::Object(members).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = r#"{"keyring":[{"name":"m","secret":"${S}"}]"#;

    fn added(mcp: &str, path: &str) -> Option<String> {
        let text = format!("{START}{mcp}}}");
        let config = Config::parse(text.as_bytes()).unwrap();
        let (text, config) = add(text.as_bytes(), &config, path)?;
        assert!(config.settings().mcp.server(path).is_some(), "{path}");
        Some(String::from_utf8(text.to_vec()).unwrap())
    }

    #[test]
    fn a_configuration_without_a_route_for_the_path_gets_one() {
        let own = r#"{"path":"/mcp","server":"stdio"}"#;
        for (mcp, routes) in [
            ("", format!(r#""mcp":{{"routes":[{own}]}}"#)),
            (r#","mcp":{"legacy":true}"#, format!(r#""mcp":{{"legacy":true,"routes":[{own}]}}"#)),
            (
                r#","mcp":{"routes":[{"path":"/a"}]}"#,
                format!(r#""mcp":{{"routes":[{{"path":"/a"}},{own}]}}"#),
            ),
        ] {
            let text = added(mcp, "/mcp").unwrap();
            assert!(text.contains(&routes), "{text}");
        }
    }

    #[test]
    fn a_path_with_a_route_and_one_that_can_have_none_change_nothing() {
        for (mcp, path) in [
            (r#","mcp":{"routes":[{"path":"/mcp","server":"main"}]}"#, "/mcp"),
            (r#","mcp":{"routes":[{"path":"/mcp/{server}"}]}"#, "/mcp/a"),
            (r#","mcp":{"paths":["/mcp/**"]}"#, "/mcp/a/b"),
            ("", "/a*"),
            ("", "/a%2fb"),
        ] {
            assert_eq!(added(mcp, path), None, "{path}");
        }
    }

    /// A number that is written anew could differ in its last digit.
    #[test]
    fn all_else_stays_as_it_is() {
        let text =
            format!(r#" {START},"tiers":{{"default":{{"rate":{{"requests":5,"per":"1s"}}}}}}}}"#);
        let config = Config::parse(text.as_bytes()).unwrap();
        let (changed, _) = add(text.as_bytes(), &config, "/mcp").unwrap();
        let changed = String::from_utf8(changed.to_vec()).unwrap();
        assert_eq!(
            changed.replace(r#""mcp":{"routes":[{"path":"/mcp","server":"stdio"}]},"#, ""),
            text
        );
    }
}
