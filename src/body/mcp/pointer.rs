//! Pointers into the arguments of a tool.

use std::rc::Rc;

/// A JSON pointer (RFC 6901), relative to the arguments of a call. A segment `*` means every element of an array. Each
/// message has copies, so they share their texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    text: Rc<str>,
    segments: Rc<[Segment]>,
}

/// One step of a pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// The member of an object with that name.
    Member(Rc<str>),
    /// Every element of an array.
    Elements,
}

/// The longest text of a pointer, in bytes.
pub const MAX_POINTER_BYTES: usize = 256;

/// The most steps of a pointer.
pub const MAX_SEGMENTS: usize = 16;

// === impl Pointer ===

impl Pointer {
    /// Reads the text of a pointer; `None` if it does not start with `/`, has an escape other than `~0` and `~1`, or is
    /// over the bounds. There is no way to write a member whose name is `*`, nor a single element of an array.
    pub fn parse(text: &str) -> Option<Self> {
        let segments = text.strip_prefix('/')?.split('/').map(segment);
        let segments: Rc<[Segment]> = segments.collect::<Option<_>>()?;
        let is_bounded = text.len() <= MAX_POINTER_BYTES && segments.len() <= MAX_SEGMENTS;
        is_bounded.then(|| Self { text: text.into(), segments })
    }

    /// The text of the pointer.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its steps, at least one.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether it leads into the argument of that name.
    pub fn is_in(&self, argument: &str) -> bool {
        matches!(self.segments.first(), Some(Segment::Member(name)) if **name == *argument)
    }
}

fn segment(text: &str) -> Option<Segment> {
    if text == "*" {
        return Some(Segment::Elements);
    }
    let is_escape = |rest: &str| rest.starts_with(['0', '1']);
    if !text.split('~').skip(1).all(is_escape) {
        return None;
    }
    Some(Segment::Member(text.replace("~1", "/").replace("~0", "~").into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_has_the_steps_of_its_text() {
        let steps = |text| Pointer::parse(text).map(|pointer| pointer.segments.to_vec());
        let member = |name: &str| Segment::Member(name.into());
        assert_eq!(steps("/a"), Some(vec![member("a")]));
        assert_eq!(
            steps("/a/*/b~1c~0d"),
            Some(vec![member("a"), Segment::Elements, member("b/c~d")])
        );
        assert_eq!(steps("/"), Some(vec![member("")]));
        assert_eq!(steps("/a*"), Some(vec![member("a*")]));
        assert_eq!(steps("/~01"), Some(vec![member("~1")]));
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        for text in ["", "a", "a/b", "/~", "/~2", "/a/~", "#/a"] {
            assert_eq!(Pointer::parse(text), None, "{text}");
        }
        let long = |bytes: usize| Pointer::parse(&["/", &"a".repeat(bytes - 1)].concat());
        assert!(long(MAX_POINTER_BYTES).is_some() && long(MAX_POINTER_BYTES + 1).is_none());
        let deep = |steps: usize| Pointer::parse(&"/a".repeat(steps));
        assert!(deep(MAX_SEGMENTS).is_some() && deep(MAX_SEGMENTS + 1).is_none());
    }
}
