//! The member `tokens` of an audit record: what a response used, and how that is known.

use crate::body::TokenUsage;
use crate::json::decimal::push_decimal;
use crate::json::{Invalid, Node};

/// The tokens of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// The counts. `total` is what was charged.
    pub usage: TokenUsage,
    /// How they are known.
    pub source: TokenSource,
}

/// How the tokens of a request are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenSource {
    /// The response reported them.
    Usage,
    /// The response was cut after it had reported some, or it is that of the last of several attempts.
    Partial,
    /// The response was cut, and the text that was sent was more than the reservation.
    Estimate,
    /// The response did not report them, so the reservation was charged.
    Reserved,
    /// Nothing was charged. `total` is what the request would have reserved.
    Nothing,
}

const SOURCES: [(&str, TokenSource); 5] = [
    ("usage", TokenSource::Usage),
    ("partial", TokenSource::Partial),
    ("estimate", TokenSource::Estimate),
    ("reserved", TokenSource::Reserved),
    ("none", TokenSource::Nothing),
];

const MEMBERS: [&str; 7] = ["in", "cached", "write", "out", "reason", "total", "src"];

impl TokenSource {
    /// The word in an audit line.
    pub fn word(self) -> &'static str {
        SOURCES.iter().find(|(_, source)| *source == self).map_or("", |(word, _)| word)
    }
}

impl Tokens {
    pub(super) fn write(&self, text: &mut String) {
        let TokenUsage { input, cached_input, cache_write, output, reasoning, total, .. } =
            self.usage;
        let counts = [input, cached_input, cache_write, output, reasoning, total];
        let mut open = '{';
        for (name, count) in MEMBERS.iter().zip(counts) {
            text.push(open);
            open = ',';
            text.push('"');
            text.push_str(name);
            text.push_str("\":");
            push_decimal(text, count);
        }
        text.push_str(",\"src\":\"");
        text.push_str(self.source.word());
        text.push_str("\"}");
    }

    pub(super) fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.members(&MEMBERS)?;
        let count = |name| members.require(name)?.count();
        let usage = TokenUsage {
            input: count("in")?,
            cached_input: count("cached")?,
            cache_write: count("write")?,
            output: count("out")?,
            reasoning: count("reason")?,
            total: count("total")?,
            ..TokenUsage::default()
        };
        Ok(Self { usage, source: members.require("src")?.choice(&SOURCES)? })
    }
}
