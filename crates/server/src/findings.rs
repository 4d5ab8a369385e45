//! What is wrong with a trail.

use std::fmt;

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The log, as it was named.
    pub log: std::rc::Rc<str>,
    /// The number of the line, counted from 1.
    pub line: u64,
}

/// Consecutive records of a chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// The id of the chain.
    pub chain: String,
    /// The number of the first record.
    pub first: u64,
    /// The number of the last record.
    pub last: u64,
}

/// What is wrong with a trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A line begins like an audit line and cannot be read.
    Unreadable(Place, String),
    /// A record or an anchor does not match its MAC: it was changed, or another secret made it.
    Changed(Place),
    /// A record is in the trail already.
    Doubled(Place, Span),
    /// A record stands after a later one of its chain in the same log.
    Moved(Place, Span),
    /// Two records match their MACs, but the second does not contain the MAC of the first.
    Unlinked(Place, Span),
    /// Records are missing before a record that is there.
    Missing(Span),
    /// Records are missing at the end of a chain: an anchor counts them.
    Cut(Place, Span),
    /// An anchor says other totals than the records, or follows another record.
    Contradiction(Place, Span),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.log, self.line)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first == self.last {
            true => write!(f, "record {} of chain {}", self.first, self.chain),
            false => write!(f, "records {} to {} of chain {}", self.first, self.last, self.chain),
        }
    }
}

impl Finding {
    /// The word for the kind of finding, for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Unreadable(..) => "unreadable",
            Self::Changed(_) => "changed",
            Self::Doubled(..) => "doubled",
            Self::Moved(..) => "moved",
            Self::Unlinked(..) => "unlinked",
            Self::Missing(_) => "missing",
            Self::Cut(..) => "cut",
            Self::Contradiction(..) => "contradiction",
        }
    }

    /// The line that shows it, if there is one.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Unreadable(place, _)
            | Self::Changed(place)
            | Self::Doubled(place, _)
            | Self::Moved(place, _)
            | Self::Unlinked(place, _)
            | Self::Cut(place, _)
            | Self::Contradiction(place, _) => Some(place),
            Self::Missing(_) => None,
        }
    }

    /// The records that it is about, if they are known.
    pub fn span(&self) -> Option<&Span> {
        match self {
            Self::Unreadable(..) | Self::Changed(_) => None,
            Self::Doubled(_, span)
            | Self::Moved(_, span)
            | Self::Unlinked(_, span)
            | Self::Missing(span)
            | Self::Cut(_, span)
            | Self::Contradiction(_, span) => Some(span),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(place, why) => write!(f, "{place}: no audit line can be read: {why}"),
            Self::Changed(place) => write!(
                f,
                "{place}: the MAC does not match: the line was changed, or the audit secret is another one"
            ),
            Self::Doubled(place, span) => write!(f, "{place}: {span} is there already"),
            Self::Moved(place, span) => write!(f, "{place}: {span} stands after a later record"),
            Self::Unlinked(place, span) => {
                write!(f, "{place}: {span} does not follow the record before it")
            }
            Self::Missing(span) => match span.first == span.last {
                true => write!(f, "{span} is missing"),
                false => write!(f, "{span} are missing"),
            },
            Self::Cut(place, span) => {
                write!(f, "{place}: the anchor counts {span}, missing at the end")
            }
            Self::Contradiction(place, span) => {
                write!(f, "{place}: the anchor does not agree with {span}")
            }
        }
    }
}
