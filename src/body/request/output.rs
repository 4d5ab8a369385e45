//! How much output a request may generate.

use crate::body::Format;
use crate::body::json::Unreadable;

use super::whole::whole;

/// How much output a request, or each request of a batch, may generate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Output {
    format: Format,
    /// The largest bound of this request.
    bound: Option<u64>,
    /// Candidates for each prompt.
    count: u64,
    prompts: u64,
    batch: Batch,
}

/// The requests of a batch that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Batch {
    requests: u64,
    /// Output tokens of those that have a bound.
    bounded_output: u64,
    /// How many have none.
    unbounded: u64,
}

// === impl Output ===

impl Output {
    pub(super) fn new(format: Format) -> Self {
        Self { format, bound: None, count: 1, prompts: 0, batch: Batch::default() }
    }

    /// The most output tokens for each candidate.
    pub(super) fn bound(&self) -> Option<u64> {
        self.bound
    }

    /// How many candidates are generated.
    pub(super) fn candidates(&self) -> u64 {
        match self.format {
            Format::AnthropicBatches => self.batch.requests,
            _ => self.prompts.max(1).saturating_mul(self.count),
        }
    }

    /// The tokens to reserve: see [`super::RequestFacts::reserve_output`].
    pub(super) fn reserve(&self, default_tokens: u64) -> u64 {
        match self.format {
            format if !format.generates() => 0,
            Format::AnthropicBatches => {
                let unbounded = self.batch.unbounded.saturating_mul(default_tokens);
                self.batch.bounded_output.saturating_add(unbounded)
            }
            _ => self.candidates().saturating_mul(self.bound.unwrap_or(default_tokens)),
        }
    }

    /// Adds a bound; the largest counts. A bound of 0 bounds nothing, except for Anthropic's.
    pub(super) fn add_bound(&mut self, number: &[u8]) -> Result<(), Unreadable> {
        let is_ollama = matches!(self.format, Format::OllamaChat | Format::OllamaGenerate);
        match whole(number)? {
            // Ollama generates without end, or until its context is full.
            (_, true) if is_ollama => {}
            (_, true) => return Err(Unreadable::OutOfRange),
            (0, _) if !self.format.is_anthropic() => {}
            (bound, _) => self.bound = self.bound.max(Some(bound)),
        }
        Ok(())
    }

    /// Adds a bound that is written as a string, as in Gemini's formats (ProtoJSON).
    pub(super) fn add_bound_in_text(&mut self, text: &str) -> Result<(), Unreadable> {
        let digits = text.strip_prefix('-').unwrap_or(text);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        match self.format.is_gemini() && is_number {
            true => self.add_bound(text.as_bytes()),
            false => Err(Unreadable::WrongType),
        }
    }

    /// Adds a number of candidates; the largest counts.
    pub(super) fn add_count(&mut self, number: &[u8]) -> Result<(), Unreadable> {
        match whole(number)? {
            (0, _) | (_, true) => Err(Unreadable::OutOfRange),
            (count, _) => {
                self.count = self.count.max(count);
                Ok(())
            }
        }
    }

    /// Adds a prompt, for which candidates are generated.
    pub(super) fn add_prompt(&mut self) {
        self.prompts += 1;
    }

    /// Ends a request, which may be one of a batch.
    pub(super) fn end_message(&mut self) {
        if self.format != Format::AnthropicBatches {
            return;
        }
        self.batch.requests += 1;
        match self.bound.take() {
            Some(bound) => {
                self.batch.bounded_output = self.batch.bounded_output.saturating_add(bound);
            }
            None => self.batch.unbounded += 1,
        }
    }
}
