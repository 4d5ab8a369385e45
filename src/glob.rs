//! Globs of restrictions: `*` inside one segment and `**` across segments of a path, `*` over any
//! characters of a name.

/// A compiled glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    pattern: Box<str>,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Name,
    Path,
}

/// Where to resume when a guess about a star's length proves wrong.
#[derive(Clone, Copy)]
struct Retry {
    pattern: usize,
    text: usize,
}

impl Glob {
    /// A glob over names (models, tools): `*` stands for any characters, none included.
    pub fn name(pattern: &str) -> Self {
        Self { pattern: pattern.into(), kind: Kind::Name }
    }

    /// A glob over canonical paths: `*` stands for any characters but `/`, `**` for any characters.
    /// So `/v1/**` matches what lies below `/v1/`, and not `/v1` itself.
    pub fn path(pattern: &str) -> Self {
        Self { pattern: pattern.into(), kind: Kind::Path }
    }

    /// Whether there is a path, which starts with `/`, that could match.
    pub fn can_match_path(&self) -> bool {
        self.pattern.starts_with('/') || self.pattern.starts_with("**")
    }

    /// Whether the whole of `text` matches. Takes at most `pattern × text` steps, no allocation.
    ///
    /// Only the last star of each kind is ever revisited: whatever an earlier one could still take,
    /// the later one can take as well (and one `*` cannot give a segment more than it has).
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.pattern.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        let (mut star, mut double_star): (Option<Retry>, Option<Retry>) = (None, None);
        loop {
            match (pattern.get(p), text.get(t)) {
                (Some(b'*'), _) => {
                    let double = self.kind == Kind::Name || pattern.get(p + 1) == Some(&b'*');
                    p += pattern.iter().skip(p).take_while(|byte| **byte == b'*').count();
                    let retry = Some(Retry { pattern: p, text: t });
                    if double {
                        (star, double_star) = (None, retry);
                    } else {
                        star = retry;
                    }
                    continue;
                }
                (Some(wanted), Some(found)) if wanted == found => {
                    (p, t) = (p + 1, t + 1);
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            // A mismatch: the last star takes one character more.
            let within_segment = |retry: &Retry| text.get(retry.text).is_some_and(|c| *c != b'/');
            let within_text = |retry: &Retry| retry.text < text.len();
            if let Some(retry) = star.as_mut().filter(|retry| within_segment(retry)) {
                retry.text += 1;
                (p, t) = (retry.pattern, retry.text);
            } else if let Some(retry) = double_star.as_mut().filter(|retry| within_text(retry)) {
                retry.text += 1;
                (p, t) = (retry.pattern, retry.text);
                star = None;
            } else {
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, in as many steps as it likes.
    #[cfg(not(target_arch = "wasm32"))]
    fn reference(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', b'*', rest @ ..] => {
                let rest = &rest[rest.iter().take_while(|b| **b == b'*').count()..];
                (0..=text.len()).any(|n| reference(rest, &text[n..]))
            }
            [b'*', rest @ ..] => (0..=text.len())
                .take_while(|n| !text[..*n].contains(&b'/'))
                .any(|n| reference(rest, &text[n..])),
            [byte, rest @ ..] => text.first() == Some(byte) && reference(rest, &text[1..]),
        }
    }

    #[test]
    fn a_star_stays_inside_its_segment() {
        assert!(Glob::path("/v1/*").matches("/v1/models"));
        assert!(!Glob::path("/v1/*").matches("/v1/chat/completions"));
        assert!(Glob::path("/v1/**").matches("/v1/chat/completions"));
        assert!(Glob::path("/v1/*/completions").matches("/v1/chat/completions"));
        assert!(!Glob::path("/v1/**").matches("/v1"));
        assert!(!Glob::path("/v1/**").matches("/v10/x"));
        assert!(!Glob::path("").matches("/"));
    }

    #[test]
    fn a_star_of_a_name_takes_slashes_too() {
        assert!(Glob::name("gpt-4o*").matches("gpt-4o-mini"));
        assert!(Glob::name("meta/*").matches("meta/llama/3"));
        assert!(!Glob::name("gpt-4o").matches("gpt-4o-mini"));
    }

    #[test]
    #[cfg(not(target_arch = "wasm32"))]
    fn long_rows_of_stars_take_no_long_time() {
        let glob = Glob::path(&"/**a*a".repeat(200));
        assert!(!glob.matches(&format!("{}/b", "/aaa".repeat(1_000))));
    }

    #[cfg(not(target_arch = "wasm32"))]
    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(20_000))]
        #[test]
        fn agrees_with_the_definition(pattern in "[ab/*]{0,9}", text in "[ab/]{0,9}") {
            proptest::prop_assert_eq!(
                Glob::path(&pattern).matches(&text),
                reference(pattern.as_bytes(), text.as_bytes())
            );
        }
    }
}
