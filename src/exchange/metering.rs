//! The tokens of a forwarded request, from its reservation to what its response used.

use std::borrow::Cow;

use crate::body::request::RequestFacts;
use crate::body::response::{End, Meter, Metered};

/// What a forwarded request reserved of its limits of tokens and cost, and the meter of its response.
#[derive(Debug)]
pub struct Metering {
    /// What its body asks for.
    pub facts: RequestFacts,
    /// The tokens that it reserved.
    pub reserved_tokens: u64,
    /// The micro-USD that it reserved; `None` if its models have no price.
    pub reserved_micro_usd: Option<u64>,
    /// Whether an event that the client did not ask for is to be removed from the response.
    pub strips: bool,
    meter: Option<Meter>,
    /// How the response ends, if that is known before its end.
    end: Option<End>,
}

/// What a response used, with what its request asked for and reserved.
#[derive(Debug)]
pub struct Used {
    /// What the request asked for.
    pub facts: RequestFacts,
    /// As in [`Metering`].
    pub reserved_tokens: u64,
    /// As in [`Metering`].
    pub reserved_micro_usd: Option<u64>,
    /// What was read of the response; `None` if none came.
    pub metered: Option<Metered>,
    /// How it ended.
    pub end: End,
}

// === impl Metering ===

impl Metering {
    /// The metering of a request whose response has not come.
    pub fn new(facts: RequestFacts, tokens: u64, micro_usd: Option<u64>, strips: bool) -> Self {
        Self {
            facts,
            reserved_tokens: tokens,
            reserved_micro_usd: micro_usd,
            strips,
            meter: None,
            end: None,
        }
    }

    /// Begins to read a response. A second one takes the place of the first. `end`: how it ends, if that is known.
    pub fn begin(&mut self, meter: Meter, end: Option<End>) {
        self.meter = Some(meter);
        self.end = end;
    }

    /// Reads a part of the response, and returns what goes on to the client.
    pub fn feed<'a>(&mut self, part: &'a [u8]) -> Cow<'a, [u8]> {
        self.meter.as_mut().map_or(Cow::Borrowed(part), |meter| meter.feed(part))
    }

    /// Records that a part of the response cannot be read.
    pub fn lose(&mut self) {
        self.end.get_or_insert(End::UpstreamReset);
    }

    /// What goes on to the client at the end of the response.
    pub fn finish_stripping(&mut self) -> Vec<u8> {
        self.meter.as_mut().map(Meter::finish_stripping).unwrap_or_default()
    }

    /// What the response used. `end`: how it ends, unless that was known before.
    pub fn finish(self, end: End) -> Used {
        let end = self.end.unwrap_or(end);
        Used {
            facts: self.facts,
            reserved_tokens: self.reserved_tokens,
            reserved_micro_usd: self.reserved_micro_usd,
            metered: self.meter.map(|meter| meter.finish(end)),
            end,
        }
    }
}
