//! What is known of a response at its end.

use crate::body::TokenUsage;

/// How a response has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The upstream has sent all of it.
    Complete,
    /// The client has gone.
    ClientLeft,
    /// The upstream has broken off.
    UpstreamReset,
    /// The proxy has replied instead of the upstream.
    LocalReply {
        /// Whether it did so before any byte of the request was sent to the upstream.
        before_send: bool,
    },
}

/// What is charged of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// The usage that was reported.
    Usage,
    /// The larger of the reservation and what is known: the response is incomplete, and what it reported is less than
    /// what it used.
    AtLeast,
    /// The reservation, or more if more was sent: no usage was reported, and the provider may have charged it.
    Keep,
    /// Nothing: the upstream has refused the request, or never got it.
    Refund,
    /// Nothing: the request only counts tokens.
    Free,
}

/// What is known of a response at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metered {
    /// What was reported, with the tokens of `extra`; `None` if the input was not reported, or all counts were 0.
    pub usage: Option<TokenUsage>,
    /// Whether the response ended by itself. A stream whose counts come before its end must have announced the end.
    pub is_complete: bool,
    /// Whether nothing was read because of a content encoding.
    pub is_encoded: bool,
    /// The model that served, if the response names it.
    pub model: Option<Box<str>>,
    /// The service tier that served, or the speed, if the response names it, e.g. `priority`.
    pub service_tier: Option<Box<str>>,
    /// What is charged.
    pub settle: Settle,
    /// An estimate of the output that was sent: 1 token for 4 bytes of text.
    pub streamed_tokens: u64,
    /// What was reported without the tokens of `extra`, even if too little was reported for `usage`.
    pub own: TokenUsage,
    /// Tokens of other models that worked for this response, or of the same one beside it.
    pub extra: Vec<ModelUsage>,
}

/// Tokens of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelUsage {
    /// The model; `None` is the one that served the response.
    pub model: Option<Box<str>>,
    /// Its tokens: the largest sum of a list.
    pub usage: TokenUsage,
    /// The sum of the list with the number `list`, as far as it was read.
    sum: TokenUsage,
    list: u32,
}

// === impl Settle ===

impl Settle {
    /// What is charged of an amount, of tokens or of money, given what was reserved of it and what is known to be used
    /// ([`Metered::known`]).
    pub fn charge(self, reserved: u64, known: u64) -> u64 {
        match self {
            Self::Usage => known,
            Self::AtLeast | Self::Keep => known.max(reserved),
            Self::Refund | Self::Free => 0,
        }
    }
}

// === impl Metered ===

impl Metered {
    /// The least that this response used, with the tokens of `extra`. `input_tokens` is an estimate of the input.
    /// Estimates stand in for what was not reported, if the response is not complete.
    pub fn known(&self, input_tokens: u64) -> TokenUsage {
        let own = self.known_own(input_tokens);
        self.extra.iter().fold(own, |sum, extra| sum.plus(&extra.usage))
    }

    /// As [`Metered::known`], without the tokens of `extra`: what is charged at the price of the model that served.
    pub fn known_own(&self, input_tokens: u64) -> TokenUsage {
        let mut own = self.own;
        match self.settle {
            Settle::AtLeast | Settle::Keep if !self.is_encoded => {}
            _ => return own,
        }
        if own.input == 0 {
            own.input = input_tokens;
        }
        own.output = own.output.max(self.streamed_tokens);
        own.total = own.total.max(own.input.saturating_add(own.output));
        own
    }
}

// === impl ModelUsage ===

impl ModelUsage {
    /// No tokens yet of a model.
    pub fn new(model: Option<Box<str>>) -> Self {
        let none = TokenUsage::default();
        Self { model, usage: none, sum: none, list: 0 }
    }

    /// Adds an entry of a list. A list repeats the entries of the one before.
    pub(super) fn add(&mut self, usage: &TokenUsage, list: u32) {
        if self.list != list {
            self.list = list;
            self.sum = TokenUsage::default();
        }
        self.sum = self.sum.plus(usage);
        self.usage = self.usage.max(&self.sum);
    }
}
