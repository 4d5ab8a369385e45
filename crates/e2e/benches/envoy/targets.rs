//! What the gate is meant to cost at most.

use std::fmt;

/// What a request costs: CPU time in microseconds, or instructions.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cost {
    /// All of the proxy.
    pub(crate) whole: f64,
    /// What of it is more than without a filter.
    pub(crate) added: f64,
}

/// A target with the result.
#[derive(Debug)]
pub(crate) struct Target {
    text: String,
    value: f64,
    limit: f64,
    decimals: usize,
}

/// A piece of a stream.
pub(crate) struct Piece {
    pub(crate) bytes: usize,
}

/// One case costs at most this multiple of another one.
pub(crate) struct Rule {
    text: &'static str,
    group: &'static str,
    pub(crate) case: &'static str,
    pub(crate) other: &'static str,
    limit: f64,
    measure: fn(Cost) -> f64,
}

/// For CPU time.
pub(crate) const TIMES: [Rule; 10] = [
    rule("everything on, cached key, to the native filters", "filters", ["all", "native"], 1.3),
    rule("100 000 keys to one key", "scaling", ["keys-100000", "keys-1"], 1.2),
    whole("two workers to one, 1 000 keys", "scaling", ["keys-1000-w2", "keys-1000"], 1.15),
    whole("two workers to one, the same key", "scaling", ["keys-1-w2", "keys-1"], 1.5),
    refused("401, another key each time", ["invalid-flood", "allowed-first"]),
    refused("401, the same key", ["invalid", "allowed"]),
    refused("401, no virtual key", ["malformed", "allowed"]),
    refused("401, no key", ["missing", "allowed"]),
    refused("429, over the rate", ["limited", "allowed"]),
    refused("403, path", ["forbidden", "allowed"]),
];

/// For instructions, with one worker. No key and a forged key are compared with an allowed request too: what a stranger
/// sends costs at most 60 % of it.
pub(crate) const INSTRUCTIONS: [Rule; 11] = [
    counted("everything on, cached key, to the floor", ["all", "floor"], 1.25),
    counted("everything on, cached key, to the native filters", ["all", "native"], 1.25),
    counted("everything on, first sight, to the floor", ["all-first", "floor"], 1.5),
    counted("no key, to the floor", ["missing", "floor"], 0.55),
    counted("no key, to an allowed request", ["missing", "all"], 0.6),
    counted("a forged key again, to the floor", ["invalid", "floor"], 0.75),
    counted("a forged key again, to an allowed request", ["invalid", "all"], 0.6),
    counted(
        "cached key, credential attached by the cluster, to the floor",
        ["gated", "floor"],
        1.9,
    ),
    counted("100 000 keys to one key", ["keys-100000", "keys-1"], 1.2),
    counted("a call of a tool, to a request that is no message", ["mcp-call", "mcp-plain"], 1.5),
    whole(
        "a call of a tool, to a request that is no message, the whole request",
        ONE_WORKER,
        ["mcp-call", "mcp-plain"],
        1.5,
    ),
];

/// The cases whose pieces have a target.
pub(crate) const PIECES: [(&str, &str); 2] = [
    ("a piece of a metered stream", "stream-metered"),
    ("a piece of a stream from which the usage is removed", "stream-stripped"),
];

/// At most this multiple of what [`Piece::unavoidable`] says.
const MAX_PIECE: f64 = 1.3;

/// What a callback, and a call that hands bytes to the module, cost Envoy and V8 at the least, in instructions: see
/// docs/performance.md.
const CALLBACK: f64 = 1500.0;
const READ: f64 = 12_000.0;

/// For reading a byte, in instructions.
const BYTE: f64 = 12.0;

/// The group of the rules for instructions, which are counted in one group.
const ONE_WORKER: &str = "one worker";

/// The most that the module may have, in bytes. A cheaper request took 40 kB: what is prepared once, written in place and
/// handed over needs code of its own.
pub(crate) const MAX_MODULE_BYTES: u32 = 795_000;

const fn rule(
    text: &'static str,
    group: &'static str,
    [case, other]: [&'static str; 2],
    limit: f64,
) -> Rule {
    Rule { text, group, case, other, limit, measure: |cost| cost.added }
}

const fn counted(text: &'static str, cases: [&'static str; 2], limit: f64) -> Rule {
    rule(text, ONE_WORKER, cases, limit)
}

const fn whole(
    text: &'static str,
    group: &'static str,
    [case, other]: [&'static str; 2],
    limit: f64,
) -> Rule {
    Rule { text, group, case, other, limit, measure: |cost| cost.whole }
}

const fn refused(text: &'static str, [case, other]: [&'static str; 2]) -> Rule {
    Rule { text, group: "denials", case, other, limit: 1.0, measure: |cost| cost.whole }
}

/// The targets for which there are results. `cost` finds that of a case in a group.
pub(crate) fn judge(
    rules: &[Rule],
    cost: impl Fn(&str, &str) -> Option<Cost>,
    module_bytes: u32,
) -> Vec<Target> {
    let rules = rules.iter().filter_map(|rule| {
        let [case, other] =
            [rule.case, rule.other].map(|id| cost(rule.group, id).map(rule.measure));
        let (case, other) = (case?, other?);
        let value = if other > 0.0 { case / other } else { f64::INFINITY };
        Some(Target { text: rule.text.to_owned(), value, limit: rule.limit, decimals: 2 })
    });
    let size = Target {
        text: "bytes of the module".to_owned(),
        value: f64::from(module_bytes),
        limit: f64::from(MAX_MODULE_BYTES),
        decimals: 0,
    };
    rules.chain([size]).collect()
}

/// The targets of pieces for which there are results. `added` finds what a piece of a case takes more than without a
/// filter.
pub(crate) fn judge_pieces(piece: &Piece, added: impl Fn(&str) -> Option<f64>) -> Vec<Target> {
    let targets = PIECES.iter().filter_map(|(text, case)| {
        let text = format!("{text}, to a callback, a read and 12 instructions per byte");
        let value = piece.times(added(case)?);
        Some(Target { text, value, limit: MAX_PIECE, decimals: 2 })
    });
    targets.collect()
}

// === impl Piece ===

impl Piece {
    /// How many times as much as one callback, one read of the piece and a few instructions per byte that is.
    pub(crate) fn times(&self, instructions: f64) -> f64 {
        instructions / self.unavoidable()
    }

    #[allow(clippy::cast_precision_loss, reason = "a piece has some hundred bytes")]
    fn unavoidable(&self) -> f64 {
        CALLBACK + READ + BYTE * self.bytes as f64
    }
}

// === impl Target ===

impl Target {
    pub(crate) fn is_met(&self) -> bool {
        self.value <= self.limit
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, value, limit, decimals } = self;
        let decimals = *decimals;
        if self.is_met() {
            write!(f, "met: ")?;
        } else {
            write!(f, "missed by {:.decimals$}: ", value - limit)?;
        }
        write!(f, "{text}: {value:.decimals$}, at most {limit:.decimals$}")
    }
}
