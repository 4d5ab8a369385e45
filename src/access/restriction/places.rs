//! Globs for what may be a path or a URI.

use crate::glob::Globs;
use crate::json::{Invalid, Node};

/// Globs over names of which some are places: URIs and paths, which `..` makes lead elsewhere. A glob with a `/` matches no
/// text with such a segment. The others match texts as they are.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PlaceGlobs {
    /// Those with a `/`, if there are any.
    places: Option<Globs>,
    others: Globs,
}

// === impl PlaceGlobs ===

impl PlaceGlobs {
    pub(super) fn new(patterns: &[&str]) -> Self {
        let (places, others): (Vec<&str>, Vec<&str>) =
            patterns.iter().partition(|pattern| pattern.contains('/'));
        let others = Globs::names(&others);
        Self { places: (!places.is_empty()).then(|| Globs::names(&places)), others }
    }

    /// Reads a list of globs.
    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let patterns: Vec<&str> =
            node.items()?.map(|item| item.string()).collect::<Result<_, _>>()?;
        Ok(Self::new(&patterns))
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        let is_place = || self.places.as_ref().is_some_and(|globs| globs.matches(text));
        self.others.matches(text) || is_place() && !leads_up(text)
    }

    /// The most steps per byte of a text.
    pub(super) fn words(&self) -> usize {
        self.places.as_ref().map_or(0, Globs::words) + self.others.words()
    }

    /// How often each byte of a text is only looked at.
    pub(super) fn looks(&self) -> usize {
        self.places.is_some().into()
    }

    /// Memory of the globs, in bytes.
    pub(super) fn footprint(&self) -> usize {
        self.places.as_ref().map_or(0, Globs::footprint) + self.others.footprint()
    }
}

/// Whether a reader of paths may take a segment for `..` (RFC 3986, section 5.2.4), once the escapes of dots and slashes
/// are resolved. Some readers know `\` as a slash, and parameters behind a `;`. Readers of URLs remove tabs and line ends
/// everywhere, and control characters and spaces at the ends (WHATWG URL, section 4.4).
fn leads_up(text: &str) -> bool {
    let mut rest = text.as_bytes();
    // How many bytes the segment has, all of them dots; more if there are others.
    let mut dots = 0_u8;
    loop {
        let (byte, after) = match rest {
            [b'%', b'2', b'e' | b'E', after @ ..] => (b'.', after),
            [b'%', b'2', b'f' | b'F', after @ ..] | [b'%', b'5', b'c' | b'C', after @ ..] => {
                (b'/', after)
            }
            [byte, after @ ..] => (*byte, after),
            [] => return dots == 2,
        };
        rest = after;
        dots = match byte {
            b'/' | b'\\' | b';' | b'?' | b'#' if dots == 2 => return true,
            b'/' | b'\\' => 0,
            b'.' => dots.saturating_add(1),
            ..=b' ' => dots,
            _ => u8::MAX,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_with_a_slash_matches_nothing_that_leads_up() {
        let globs = PlaceGlobs::new(&["file:///srv/*", "/srv/*", "draft-*"]);
        for text in [
            "file:///srv/a", "/srv/a/...", "/srv/a..b/..c/c..", "/srv/./a", "/srv/.",
            "draft-../..", "/srv/%2e", "/srv/a?b=..c", "/srv/a .. b", "/srv/ ", "/srv/. a",
        ] {
            assert!(globs.matches(text), "{text}");
        }
        for text in [
            "file:///srv/../etc", "file:///srv/..", "/srv/a/../../etc", "/srv/..\\etc",
            "/srv/x\\..\\etc", "/srv/%2e%2E/etc", "/srv/.%2e%2fetc", "/srv/a%2f..%5Cetc",
            "/srv/..;a/etc", "/srv/..?a", "/srv/..#a", "/srv/.\t./etc", "/srv/\r.\n./etc",
            "/srv/..\t/etc", "/srv/.%2e ", "/srv/..\u{1f}",
        ] {
            assert!(!globs.matches(text), "{text}");
            assert!(PlaceGlobs::new(&["*"]).matches(text), "{text}");
        }
    }
}
