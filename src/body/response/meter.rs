//! Reads a response as it passes.

use std::borrow::Cow;
use std::fmt;

use super::counts::Count;
use super::documents::Documents;
use super::layout::layout;
use super::messages::Messages;
use super::metered::{End, Metered, Settle};
use super::stripper::Stripper;
use crate::body::{Format, sse};

/// What the head of a response says.
#[derive(Clone, Copy, Debug, Default)]
pub struct ResponseHead<'a> {
    /// The status; 0 if there is none.
    pub status: u16,
    /// `content-encoding`.
    pub content_encoding: Option<&'a [u8]>,
    /// `x-amzn-bedrock-input-token-count` and `x-amzn-bedrock-output-token-count`.
    pub bedrock_counts: (Option<&'a [u8]>, Option<&'a [u8]>),
    /// `x-amzn-bedrock-service-tier`.
    pub bedrock_tier: Option<&'a [u8]>,
}

/// Reads a response as it passes, and keeps nothing of it but counts and the names of models.
pub struct Meter {
    format: Format,
    status: u16,
    is_encoded: bool,
    body: Body,
    documents: Documents,
    stripper: Option<Stripper>,
}

/// What a body is.
enum Body {
    /// Only white space so far.
    Blank,
    /// JSON.
    Json,
    /// Server-sent events.
    Events(sse::Events),
    /// Messages of Amazon Bedrock.
    Messages(Box<Messages>),
    /// Nothing that is read.
    Unread,
}

/// The estimate for text.
const BYTES_PER_TOKEN: u64 = 4;

// === impl ResponseHead ===

impl ResponseHead<'_> {
    /// Whether the body is encoded, e.g. compressed, and so not read.
    pub fn is_encoded(&self) -> bool {
        self.content_encoding.is_some_and(|encoding| {
            let encoding = encoding.trim_ascii();
            !encoding.is_empty() && !encoding.eq_ignore_ascii_case(b"identity")
        })
    }
}

// === impl Meter ===

impl Meter {
    /// Reads a response to a request of a format.
    pub fn new(format: Format, head: &ResponseHead<'_>) -> Self {
        let is_encoded = head.is_encoded();
        let mut documents = Documents::new(layout(format));
        // The header fields do not count the caches.
        documents.is_flawed = is_encoded;
        if format == Format::BedrockInvoke {
            let (input, output) = head.bedrock_counts;
            documents.reading.field(Count::Input, input);
            documents.reading.field(Count::Output, output);
            documents.reading.tier_field(head.bedrock_tier);
        }
        let is_read = !is_encoded && !is_count(format);
        let body = if is_read { Body::Blank } else { Body::Unread };
        Self { format, status: head.status, is_encoded, body, documents, stripper: None }
    }

    /// Removes the event with the usage if the response is a stream of OpenAI: the client did not ask for it.
    #[must_use]
    pub fn stripping(self) -> Self {
        Self { stripper: Some(Stripper::default()), ..self }
    }

    /// Reads the next bytes of the body, and returns what goes on to the client. How it is cut makes no difference.
    pub fn feed<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let is_blank = matches!(self.body, Body::Blank);
        let rest = if is_blank { self.recognise(bytes) } else { bytes };
        let documents = &mut self.documents;
        match (&mut self.body, &mut self.stripper) {
            (Body::Blank | Body::Unread, _) => {}
            (Body::Json, _) => documents.json(rest),
            (Body::Events(events), None) => documents.events(events, rest),
            (Body::Events(events), Some(stripper)) => {
                return stripper.feed(bytes, rest, events, documents);
            }
            (Body::Messages(messages), _) => messages.feed(rest, documents),
        }
        Cow::Borrowed(bytes)
    }

    /// What goes on to the client at the end of the body.
    pub fn finish_stripping(&mut self) -> Vec<u8> {
        let stripper = self.stripper.take();
        stripper.map(|stripper| stripper.finish(&self.documents)).unwrap_or_default()
    }

    /// Ends the response.
    pub fn finish(mut self, end: End) -> Metered {
        self.end_body();
        let has_ended = self.has_ended(end);
        let is_complete = has_ended && self.has_announced_end();
        let usage = self.documents.reading.usage();
        let settle = self.settle(end, has_ended, is_complete, usage.is_some());
        let unread_bytes = self.documents.unread_bytes;
        let reading = &mut self.documents.reading;
        let streamed_bytes = reading.content_bytes.saturating_add(unread_bytes);
        Metered {
            usage,
            is_complete,
            is_encoded: self.is_encoded,
            model: reading.model.take(),
            service_tier: reading.service_tier(),
            settle,
            streamed_tokens: streamed_bytes.div_ceil(BYTES_PER_TOKEN),
            own: reading.own(),
            extra: std::mem::take(&mut reading.extra),
        }
    }

    fn settle(&self, end: End, has_ended: bool, is_complete: bool, has_usage: bool) -> Settle {
        let Documents { reading, is_flawed, .. } = &self.documents;
        let is_whole = is_complete && !is_flawed && !reading.is_broken;
        let is_refused = has_ended && (400..600).contains(&self.status);
        match end {
            _ if is_count(self.format) => Settle::Free,
            End::LocalReply { before_send: true } => Settle::Refund,
            End::LocalReply { before_send: false } if has_usage => Settle::AtLeast,
            End::LocalReply { before_send: false } => Settle::Keep,
            _ if has_usage && is_whole => Settle::Usage,
            _ if has_usage => Settle::AtLeast,
            _ if is_refused && reading.known().total == 0 => Settle::Refund,
            _ => Settle::Keep,
        }
    }

    fn end_body(&mut self) {
        let documents = &mut self.documents;
        match &mut self.body {
            Body::Blank | Body::Unread => {}
            Body::Json => documents.end(),
            Body::Events(events) => documents.end_events(events),
            Body::Messages(messages) => messages.finish(documents),
        }
    }

    /// Whether the response ended by itself. A client may go, or the upstream break off, after all has been said.
    fn has_ended(&self, end: End) -> bool {
        let reading = &self.documents.reading;
        match end {
            End::Complete | End::LocalReply { .. } => true,
            End::ClientLeft | End::UpstreamReset => {
                reading.is_final || reading.layout.is_lines && reading.has_ended
            }
        }
    }

    /// Whether the response announced its end, if it had to.
    fn has_announced_end(&self) -> bool {
        let Documents { reading, is_stream, .. } = &self.documents;
        let is_stream = *is_stream || reading.is_list || reading.documents > 1;
        reading.has_ended || !is_stream || !reading.layout.must_end
    }

    /// Recognises a body by its first byte. Providers send JSON as `text/event-stream`, and the other way round.
    fn recognise<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            self.body = match byte {
                // White space, and what a byte order mark consists of.
                b' ' | b'\t' | b'\r' | b'\n' | 0xEF | 0xBB | 0xBF => Body::Blank,
                b'{' | b'[' => Body::Json,
                0 => {
                    let has_envelopes = self.format == Format::BedrockInvoke;
                    Body::Messages(Box::new(Messages::new(
                        has_envelopes,
                        self.documents.reading.counts,
                    )))
                }
                _ => Body::Events(sse::Events::new()),
            };
            if !matches!(self.body, Body::Blank) {
                break;
            }
            rest = after;
        }
        rest
    }
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The scanner has seen prompts and what was generated.
        f.debug_struct("Meter").field("format", &self.format).finish_non_exhaustive()
    }
}

/// Whether a request only counts tokens.
fn is_count(format: Format) -> bool {
    matches!(
        format,
        Format::OpenAiInputTokens
            | Format::AnthropicCountTokens
            | Format::GeminiCount
            | Format::BedrockCount
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_that_served_is_the_first_that_is_named() {
        let mut meter = Meter::new(Format::OpenAiChat, &ResponseHead::default());
        for model in ["", "one", "two"] {
            let event = format!("data: {{\"model\":\"{model}\"}}\n\n");
            assert_eq!(meter.feed(event.as_bytes()), event.as_bytes());
        }
        assert_eq!(meter.finish(End::Complete).model.as_deref(), Some("one"));
    }
}
