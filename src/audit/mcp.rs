//! The member `mcp` of an audit record: what an MCP message asks for, in four words.

use crate::access::McpCall;
use crate::body::mcp::ObjectKind;

/// The longest word, in bytes.
const MAX_WORD_BYTES: usize = 128;

/// Room for the words of most messages, in bytes.
const USUAL_BYTES: usize = 96;

/// Marks where a word was cut.
const CUT: char = '…';

/// Stands for a word that is absent.
const ABSENT: &str = "-";

/// The method, the tool, prompt or resource, the server, and the revision of MCP that was agreed, separated by
/// single spaces. Of several resources, the first is named. `-` stands for what is absent. White space, control characters and `%` are percent-encoded
/// in a word, and so is a word that is `-` itself. A word is cut after 128 bytes, and the cut is marked.
///
/// Of a resource's URI, neither the user nor the query or the fragment is shown: they may contain a secret.
pub fn mcp_member(call: &McpCall<'_>, revision: Option<&str>) -> String {
    let object = call.object.and_then(|(kind, names)| Some((kind, names.first()?)));
    let object = object.map(|(kind, name)| match kind {
        ObjectKind::Resource => bare_uri(name),
        ObjectKind::Tool | ObjectKind::Prompt | ObjectKind::Task => [name, ""],
    });
    let [scheme, rest] = object.unwrap_or_default();
    let mut text = String::with_capacity(USUAL_BYTES);
    for (index, parts) in [
        [call.method, ""],
        [scheme, rest],
        [call.server.unwrap_or_default(), ""],
        [revision.unwrap_or_default(), ""],
    ]
    .iter()
    .enumerate()
    {
        if index > 0 {
            text.push(' ');
        }
        push_word(&mut text, parts);
    }
    text
}

/// A URI without user, query and fragment, in two parts (RFC 3986, section 3).
fn bare_uri(uri: &str) -> [&str; 2] {
    let end = uri.find(['?', '#']).unwrap_or(uri.len());
    let uri = uri.get(..end).unwrap_or_default();
    let Some(start) = uri.find("//").map(|slashes| slashes.saturating_add("//".len())) else {
        return [uri, ""];
    };
    let (scheme, rest) = uri.split_at_checked(start).unwrap_or((uri, ""));
    let authority = rest.split('/').next().unwrap_or_default();
    let user = authority.rfind('@').map_or(0, |at| at.saturating_add(1));
    [scheme, rest.get(user..).unwrap_or_default()]
}

fn push_word(text: &mut String, parts: &[&str]) {
    let start = text.len();
    let is_plain = |part: &&str| part.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'%');
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    if (2..=MAX_WORD_BYTES).contains(&len) && parts.iter().all(is_plain) {
        text.extend(parts.iter().copied());
        return;
    }
    for char in parts.iter().flat_map(|part| part.chars()) {
        let before = text.len();
        push_char(text, char);
        if text.len().saturating_sub(start) > MAX_WORD_BYTES {
            text.truncate(before);
            text.push(CUT);
            return;
        }
    }
    match text.get(start..) {
        Some("") => text.push_str(ABSENT),
        Some(ABSENT) => {
            text.truncate(start);
            push_escaped(text, '-');
        }
        _ => {}
    }
}

fn push_char(text: &mut String, char: char) {
    if char.is_whitespace() || char.is_control() || char == '%' {
        push_escaped(text, char);
    } else {
        text.push(char);
    }
}

/// Percent-encodes a character (RFC 3986, section 2.1).
fn push_escaped(text: &mut String, char: char) {
    for byte in char.encode_utf8(&mut [0; 4]).bytes() {
        let digits = [byte >> 4, byte & 0xF].map(|digit| char::from_digit(digit.into(), 16));
        text.push('%');
        text.extend(digits.into_iter().flatten().map(|digit| digit.to_ascii_uppercase()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, name: Option<&str>) -> String {
        let kind = match method {
            "resources/read" => ObjectKind::Resource,
            _ => ObjectKind::Tool,
        };
        let names = Vec::from_iter(name.map(Box::from));
        let object = name.map(|_| (kind, &*names));
        mcp_member(&McpCall { method, object, ..McpCall::default() }, None)
    }

    #[test]
    fn a_call_is_four_words() {
        let names = ["search_notes".into()];
        let call = McpCall::using(ObjectKind::Tool, &names, Some("main"));
        assert_eq!(
            mcp_member(&call, Some("2025-06-18")),
            "tools/call search_notes main 2025-06-18"
        );
        assert_eq!(of("ping", None), "ping - - -");
        assert_eq!(of("", Some("")), "- - - -");
    }

    #[test]
    fn a_name_cannot_add_a_word_or_stand_for_none() {
        assert_eq!(
            of("tools/call", Some("a b\tc\u{2028}%\0")),
            "tools/call a%20b%09c%E2%80%A8%25%00 - -"
        );
        assert_eq!(of("tools/call", Some("-")), "tools/call %2D - -");
        assert_eq!(of("tools/call", Some("--é")), "tools/call --é - -");
    }

    #[test]
    fn of_several_resources_the_first_is_named() {
        let named = |names: &[Box<str>]| {
            let object = Some((ObjectKind::Resource, names));
            mcp_member(
                &McpCall { method: "subscriptions/listen", object, ..McpCall::default() },
                None,
            )
        };
        assert_eq!(named(&["a://u@b?c".into(), "d".into()]), "subscriptions/listen a://b - -");
        assert_eq!(named(&[]), "subscriptions/listen - - -");
    }

    #[test]
    fn a_word_is_cut_between_characters() {
        let shown = |name: &str| {
            let member = of("tools/call", Some(name));
            member.split(' ').nth(1).unwrap().to_owned()
        };
        let most = "n".repeat(MAX_WORD_BYTES);
        assert_eq!(shown(&most), most);
        assert_eq!(shown(&format!("{most}n")), format!("{most}…"));
        assert_eq!(shown(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
        assert_eq!(shown(&" ".repeat(43)), format!("{}…", "%20".repeat(42)));
    }

    #[test]
    fn a_uri_is_shown_without_user_query_and_fragment() {
        for (uri, shown) in [
            ("file:///srv/notes/a.md", "file:///srv/notes/a.md"),
            ("postgres://me:pass@db:5432/t?sslkey=x", "postgres://db:5432/t"),
            ("https://u:p@q@host/a@b#x", "https://host/a@b"),
            ("note:7?token=x", "note:7"),
            ("//u@h", "//h"),
        ] {
            assert_eq!(of("resources/read", Some(uri)), format!("resources/read {shown} - -"));
        }
        assert_eq!(of("tools/call", Some("a://b@c?d")), "tools/call a://b@c?d - -");
    }
}
