//! Whether two globs over paths have a path in common.

/// A part of a glob.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    /// `**`: any bytes.
    Across,
    /// `*`: any bytes but `/`.
    Within,
    /// This byte.
    Literal(u8),
}

/// Whether some text matches both globs: `*` stands for any characters but `/`, `**` for any characters.
pub(super) fn overlap(left: &str, right: &str) -> bool {
    let (left, right) = (parts(left), parts(right));
    // For each number of parts at the end of `right`, whether they match a text that the parts of `left` so far do.
    let mut matched = vec![false; right.len().saturating_add(1)];
    for rest in (0..=left.len()).rev() {
        matched = row(left.get(rest).copied(), &right, &matched);
    }
    matched.first().copied().unwrap_or(false)
}

/// Whether what begins with `part` matches a text with each end of `right`. `after`: the same for what comes after
/// `part`. Without a part, only nothing matches.
fn row(part: Option<Part>, right: &[Part], after: &[bool]) -> Vec<bool> {
    let mut row = vec![false; right.len().saturating_add(1)];
    let mut next = false;
    for at in (0..=right.len()).rev() {
        let skips_left = || after.get(at).copied().unwrap_or(false);
        let takes_both = || after.get(at.saturating_add(1)).copied().unwrap_or(false);
        let found = match (part, right.get(at).copied()) {
            (None, None) => true,
            (None, Some(other)) => other.is_star() && next,
            (Some(part), None) => part.is_star() && skips_left(),
            (Some(part), Some(other)) if part.is_star() => {
                skips_left() || (next && (other.is_star() || part.takes(other)))
            }
            (Some(part), Some(other)) if other.is_star() => {
                next || (other.takes(part) && skips_left())
            }
            (Some(part), Some(other)) => part == other && takes_both(),
        };
        if let Some(place) = row.get_mut(at) {
            *place = found;
        }
        next = found;
    }
    row
}

fn parts(glob: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for byte in glob.bytes() {
        match (byte, parts.last_mut()) {
            (b'*', Some(last @ (Part::Within | Part::Across))) => *last = Part::Across,
            (b'*', _) => parts.push(Part::Within),
            _ => parts.push(Part::Literal(byte)),
        }
    }
    parts
}

// === impl Part ===

impl Part {
    fn is_star(self) -> bool {
        matches!(self, Self::Across | Self::Within)
    }

    /// Whether a star stands for this byte, among others.
    fn takes(self, other: Self) -> bool {
        self == Self::Across || other != Self::Literal(b'/')
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn globs_overlap_if_a_path_matches_both() {
        for (left, right, do_overlap) in [
            ("/mcp", "/mcp", true),
            ("/mcp", "/mcp2", false),
            ("/mcp/*", "/mcp/docs", true),
            ("/mcp/*", "/mcp/a/b", false),
            ("/mcp/**", "/mcp/a/b", true),
            ("/mcp/*", "/mcp/a*", true),
            ("/mcp/*", "/v1/**", false),
            ("/*/mcp", "/v1/*", true),
            ("/*/mcp", "/v1/*/b", false),
            ("**", "/a", true),
            ("**/mcp", "/a/**", true),
            ("/a*b", "/*ab", true),
            ("/a*", "/b*", false),
            ("/*", "/a/*", false),
            ("/**/b", "/a/*", true),
            ("/s/*/sse", "/s/x/*", true),
            ("", "", true),
            ("*", "", true),
            ("", "/", false),
        ] {
            assert_eq!(overlap(left, right), do_overlap, "{left} {right}");
            assert_eq!(overlap(right, left), do_overlap, "{right} {left}");
        }
    }

    /// A text that matches both is found among all short ones.
    #[test]
    fn it_is_what_trying_every_text_finds() {
        use vkey::glob::Globs;
        let texts = |letters: &[&str]| {
            let longer = |all: Vec<String>| {
                let next =
                    all.iter().flat_map(|text| letters.iter().map(move |l| text.clone() + l));
                let next = Vec::from_iter(next);
                [all, next].concat()
            };
            let mut all = longer(longer(longer(vec![String::new()])));
            all.sort();
            all.dedup();
            all
        };
        let (globs, all) = (texts(&["a", "/", "*", "**"]), texts(&["a", "b", "/"]));
        let all = Vec::from_iter(
            all.iter().flat_map(|text| all.iter().map(move |more| text.clone() + more)),
        );
        let matching = |glob: &String| {
            let glob = Globs::paths(&[glob]);
            Vec::from_iter(all.iter().map(|text| glob.matches(text)))
        };
        let matching = Vec::from_iter(globs.iter().map(matching));
        for (left, found) in globs.iter().zip(&matching) {
            for (right, others) in globs.iter().zip(&matching) {
                let both = found.iter().zip(others).any(|(one, other)| *one && *other);
                assert_eq!(overlap(left, right), both, "{left} {right}");
            }
        }
    }
}
