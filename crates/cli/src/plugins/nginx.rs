//! Plugins in a configuration of nginx: the second argument of `proxy_wasm`.

use zeroize::Zeroizing;

use super::{Environment, Holding, Plugin};

const DIRECTIVE: &str = "proxy_wasm";

/// A word of the configuration.
enum Word {
    /// `{`, `}` or `;`
    End,
    /// A name or an argument, without its quotes.
    Text(String),
}

/// Whether a text is a configuration of nginx that runs a module.
pub(super) fn is_configuration(text: &[u8]) -> bool {
    let is_directive = |line: &[u8]| {
        let rest = line.trim_ascii_start().strip_prefix(DIRECTIVE.as_bytes());
        rest.and_then(|rest| rest.first()).is_some_and(u8::is_ascii_whitespace)
    };
    text.split(|byte| *byte == b'\n').any(is_directive) || is_in_a_line(text)
}

/// Whether a directive that runs a module stands in the middle of a line.
fn is_in_a_line(text: &[u8]) -> bool {
    let is_json =
        text.trim_ascii_start().starts_with(b"{") || text.trim_ascii_start().starts_with(b"[");
    let is_named = || text.windows(DIRECTIVE.len()).any(|part| part == DIRECTIVE.as_bytes());
    let runs = |directive: &Vec<String>| {
        directive.len() > 1 && directive.first().is_some_and(|name| name == DIRECTIVE)
    };
    !is_json && is_named() && directives(&String::from_utf8_lossy(text)).iter().any(runs)
}

/// The plugins. nginx hands only those variables to its workers that `env` names.
pub(super) fn find(text: &[u8]) -> Vec<Plugin> {
    let text = String::from_utf8_lossy(text);
    let directives = directives(&text);
    let inherited = directives.iter().filter_map(|directive| match directive.as_slice() {
        [name, variable] if name == "env" => Some(variable),
        _ => None,
    });
    let inherited = Vec::from_iter(inherited);
    let plugins = directives.iter().filter_map(|directive| match directive.as_slice() {
        [name, module, configuration] if name == DIRECTIVE => Some((module, configuration)),
        _ => None,
    });
    let plugin = |(number, (module, configuration)): (usize, (&String, &String))| Plugin {
        place: format!("{DIRECTIVE} {module} [{number}]"),
        names: vec![module.clone()],
        text: Zeroizing::new(configuration.clone().into_bytes()),
        environment: Some(environment(&inherited)),
        holding: Holding::OnNginx,
        ..Plugin::default()
    };
    plugins.enumerate().map(plugin).collect()
}

/// `env NAME` hands over the value of nginx, `env NAME=VALUE` that value.
fn environment(variables: &[&String]) -> Environment {
    let mut environment = Environment::new("an env directive at the top of nginx.conf");
    for variable in variables {
        match variable.split_once('=') {
            Some((name, value)) => {
                let value = Zeroizing::new(value.to_owned());
                environment.literal.insert(name.to_owned(), value);
            }
            None => _ = environment.inherited.insert((*variable).clone()),
        }
    }
    environment
}

/// The words of each directive.
fn directives(text: &str) -> Vec<Vec<String>> {
    let mut rest = text;
    let mut directives = vec![Vec::new()];
    while let Some(word) = word(&mut rest) {
        match (word, directives.last_mut()) {
            (Word::Text(text), Some(directive)) => directive.push(text),
            _ => directives.push(Vec::new()),
        }
    }
    directives
}

/// Takes the next word.
fn word(rest: &mut &str) -> Option<Word> {
    loop {
        *rest = rest.trim_ascii_start();
        let Some(comment) = rest.strip_prefix('#') else { break };
        *rest = comment.split_once('\n').map_or("", |(_, after)| after);
    }
    let first = rest.chars().next()?;
    let after = rest.get(first.len_utf8()..)?;
    match first {
        '{' | '}' | ';' => {
            *rest = after;
            Some(Word::End)
        }
        '\'' | '"' => Some(Word::Text(quoted(after, first, rest))),
        _ => {
            let is_end = |c: char| c.is_ascii_whitespace() || matches!(c, '{' | ';');
            // `${` does not begin a block.
            let end = rest.char_indices().find(|(at, c)| {
                is_end(*c) && !(*c == '{' && rest.get(..*at).is_some_and(|w| w.ends_with('$')))
            });
            let (word, after) = rest.split_at_checked(end.map_or(rest.len(), |(at, _)| at))?;
            *rest = after;
            Some(Word::Text(word.to_owned()))
        }
    }
}

/// The text up to the closing quote, with its escapes resolved as nginx does.
fn quoted<'a>(text: &'a str, quote: char, rest: &mut &'a str) -> String {
    let mut read = String::new();
    let mut characters = text.chars();
    while let Some(c) = characters.next().filter(|c| *c != quote) {
        let escaped = if c == '\\' { characters.clone().next() } else { None };
        let resolved = match escaped {
            Some(c @ ('"' | '\'' | '\\')) => Some(c),
            Some('t') => Some('\t'),
            Some('r') => Some('\r'),
            Some('n') => Some('\n'),
            _ => None,
        };
        if resolved.is_some() {
            characters.next();
        }
        read.push(resolved.unwrap_or(c));
    }
    *rest = characters.as_str();
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        env MAIN; env OTHER=x;
        # proxy_wasm vkey 'no';
        http { server { location / {
            proxy_wasm vkey '{"a": "${MAIN}", "b": "it\'s \\ \d"}';
            proxy_pass http://$up;
        } location /b { proxy_wasm other "{}"; proxy_wasm bare; } } }"#;

    #[test]
    fn the_argument_is_read_as_nginx_does() {
        assert!(is_configuration(TEXT.as_bytes()) && !is_configuration(b"proxy_wasm_x: 1"));
        let one_line = "http { server { location / { proxy_wasm vkey '{}'; } } }";
        assert!(is_configuration(one_line.as_bytes()));
        for other in ["a: proxy_wasm b", "# proxy_wasm a b", "{\"a\": 1; proxy_wasm b c"] {
            assert!(!is_configuration(other.as_bytes()), "{other}");
        }
        let found = find(TEXT.as_bytes());
        let texts = Vec::from_iter(found.iter().map(|p| String::from_utf8_lossy(&p.text)));
        assert_eq!(texts, [r#"{"a": "${MAIN}", "b": "it's \ \d"}"#, "{}"]);
        let environment = found[0].environment.as_ref().unwrap();
        assert!(environment.has("MAIN") && environment.has("OTHER") && !environment.has("x"));
        assert_eq!(found[0].place, "proxy_wasm vkey [0]");
    }
}
