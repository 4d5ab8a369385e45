//! Token counts in one normal form, whatever the provider calls them.

/// The tokens that one response used. `input` contains `cached_input` and `cache_write`, and `output` contains
/// `reasoning`. Providers that count caches apart from the input are normalised when their response is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// All tokens of the prompt.
    pub input: u64,
    /// Those of the prompt that were read from a cache.
    pub cached_input: u64,
    /// Those of the prompt that were written to a cache, for whatever time.
    pub cache_write: u64,
    /// Those of `cache_write` that were written for an hour, which costs more.
    pub cache_write_1h: u64,
    /// All generated tokens.
    pub output: u64,
    /// Those of the output that were spent on reasoning.
    pub reasoning: u64,
    /// The larger of `input` + `output` and the total that the provider reported.
    pub total: u64,
}
