//! Member names that some readers confuse with those of the protocol.

/// The members that determine what a message is (JSON-RPC 2.0, "Request object", "Response object").
pub(super) const OF_MESSAGE: [&str; 6] = ["error", "id", "jsonrpc", "method", "params", "result"];

/// The reserved name that some readers confuse `name` with: readers in Go ignore case, those in Java and .NET
/// can be configured to, and those in C end a string at a NUL.
pub(super) fn resembled(name: &str, reserved: &[&'static str]) -> Option<&'static str> {
    let is_exact = reserved.contains(&name);
    let mut reserved = reserved.iter().copied();
    reserved.find(|reserved| !is_exact && folded(name).eq(folded(reserved)))
}

/// The characters without case, like the most tolerant reader compares them: by upper case or by lower case,
/// so that ſ, ı, İ and the Kelvin sign are s, i, i and k.
fn folded(name: &str) -> impl Iterator<Item = char> {
    const DOT_ABOVE: char = '\u{307}'; // what the lower case of İ has beside i
    let text = name.chars().take_while(|c| *c != '\0');
    let folded = text.flat_map(char::to_uppercase).flat_map(char::to_lowercase);
    folded.filter(|c| *c != DOT_ABOVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_name_in_another_case_is_found() {
        let of_message = |name| resembled(name, &OF_MESSAGE);
        for name in ["ID", "Id", "iD", "\u{131}d", "\u{130}d", "id\0", "id\0x"] {
            assert_eq!(of_message(name), Some("id"), "{name:?}");
        }
        assert_eq!(of_message("jSoNrPc"), Some("jsonrpc"));
        assert_eq!(of_message("param\u{17f}"), Some("params"));
        assert_eq!(resembled("mar\u{212a}", &["mark"]), Some("mark"));
    }

    #[test]
    fn reserved_and_other_names_are_left_alone() {
        for name in OF_MESSAGE {
            assert_eq!(resembled(name, &OF_MESSAGE), None);
        }
        for name in ["", "i", "ids", "i d", "result2", "\u{ff49}d", "\0id", "_meta"] {
            assert_eq!(resembled(name, &OF_MESSAGE), None, "{name:?}");
        }
    }
}
