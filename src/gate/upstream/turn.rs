//! The turn of one attempt: what the gate of the listener has written about its request.

use std::rc::Rc;

use crate::exchange::{Concluded, Handover, Handovers, Response};
use crate::host::{FilterState, Host, Property, text_property};
use crate::upstream_tls::Verdict;

/// The turn of one attempt. Its end takes back what it said about the response.
#[derive(Debug, Default)]
pub(in crate::gate) struct Turn {
    words: Option<String>,
    handover: Option<(Rc<Handover>, u64)>,
    has_waited: bool,
}

impl Turn {
    /// Begins a turn. This asks for one property, which other attempts and their connections do not change.
    pub(in crate::gate) fn begin(host: &impl Host, handovers: &Handovers) -> Self {
        let words = text_property(host, Property::FilterState(FilterState::Credentials));
        let handover = words.as_deref().and_then(|words| handovers.find(words));
        let handover = handover.map(|handover| {
            let attempt = handover.begin();
            (handover, attempt)
        });
        Self { words, handover, has_waited: false }
    }

    /// Records that the attempt waits for a new connection.
    pub(in crate::gate) fn wait(&mut self) {
        self.has_waited = true;
    }

    /// Whether the connection of the attempt was not up when it began.
    pub(in crate::gate) fn has_waited(&self) -> bool {
        self.has_waited
    }

    /// What the gate of the listener has written about credentials; `None` if it has written nothing. A mirrored request
    /// has no filter state.
    pub(in crate::gate) fn words(&self) -> Option<&str> {
        self.words.as_deref()
    }

    /// The handover of the request, if its gate is in this VM.
    pub(in crate::gate) fn handover(&self) -> Option<&Handover> {
        self.handover.as_ref().map(|(handover, _)| &**handover)
    }

    /// The number of this attempt, and the handover that counts it.
    fn counted(&self) -> Option<(&Handover, u64)> {
        self.handover.as_ref().map(|(handover, attempt)| (&**handover, *attempt))
    }

    /// Whether no later attempt of the request has begun, if that is known. Envoy shows the connection of the last
    /// attempt to all.
    pub(in crate::gate) fn is_last(&self) -> Option<bool> {
        self.counted().map(|(handover, attempt)| handover.attempts() == attempt)
    }

    /// Tells the gate of the listener the verdict. Returns `false` if there is no handover.
    pub(in crate::gate) fn conclude(&self, verdict: Verdict, sent: bool) -> bool {
        let counted = self.counted();
        if let Some((handover, attempt)) = counted {
            handover.conclude(Concluded { attempt, verdict, sent });
        }
        counted.is_some()
    }

    /// Tells the gate of the listener that the response comes over the connection of this attempt.
    pub(in crate::gate) fn respond(&self, response: impl FnOnce() -> Response) {
        if let Some((handover, attempt)) = self.counted() {
            handover.respond(attempt, response());
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some((handover, attempt)) = self.counted() {
            handover.end(attempt);
        }
    }
}
