//! What a response used: it is read as it passes, and settled once, at its end.

mod charge;

use std::borrow::Cow;

use crate::body::Format;
use crate::body::response::{End, Meter, ResponseHead};
use crate::exchange::{Exchange, Forwarded, Metering};
use crate::host::{Body, Host, HostError, Level, Property, RecordStore, number_property};

use super::body::DIGESTS;
use super::holding::MAX_PART_BYTES;
use super::request::log_miscount;
use super::upstream::connection::{is_local_reply, is_up};
use super::{Admission, Gate};

use charge::Charge;

/// The media type of server-sent events.
const EVENT_STREAM: &[u8] = b"text/event-stream";

impl Gate {
    /// Begins to read a response.
    pub(super) fn begin_metering(
        &self,
        host: &impl Host,
        mut metering: Box<Metering>,
    ) -> Box<Metering> {
        let header = |name: &str| host.response_header(name.as_bytes());
        let is_invoke = metering.facts.format == Format::BedrockInvoke;
        let of_invoke = |name| is_invoke.then(|| header(name)).flatten();
        let encoding = header("content-encoding");
        let input = of_invoke("x-amzn-bedrock-input-token-count");
        let output = of_invoke("x-amzn-bedrock-output-token-count");
        let tier = of_invoke("x-amzn-bedrock-service-tier");
        let status = host.response_status().and_then(|status| u16::try_from(status).ok());
        let head = ResponseHead {
            status: status.unwrap_or(0),
            content_encoding: encoding.as_deref(),
            bedrock_counts: (input.as_deref(), output.as_deref()),
            bedrock_tier: tier.as_deref(),
        };
        let meter = Meter::new(metering.facts.format, &head);
        let is_local = is_local_reply(host);
        let end = is_local.then(|| End::LocalReply { before_send: !is_up(host) });
        let strips = metering.strips && !is_local && !head.is_encoded();
        let strips = strips && header("content-type").is_some_and(|value| is_event_stream(&value));
        if strips {
            // How much is removed is not known before it comes. An entity tag is of the bytes too (RFC 9110, 8.8.3).
            for name in DIGESTS.into_iter().chain(["content-length", "etag"]) {
                _ = host.remove_response_header(name);
            }
        }
        metering.begin(if strips { meter.stripping() } else { meter }, end);
        metering
    }

    /// Settles the usage of a response that has ended, once.
    pub(super) fn settle_usage(&self, host: &impl Host, exchange: &mut Exchange, end: End) {
        *exchange = match std::mem::take(exchange) {
            Exchange::Metered(mut request, metering) => {
                self.settle_metered(host, &mut request, *metering, end);
                Exchange::Responded(request)
            }
            other => other,
        };
    }

    /// Settles the usage of a request that has ended, and whose response has not come to its end by then, if there was
    /// any.
    pub(super) fn settle_ended(
        &self,
        host: &impl Host,
        request: &mut Forwarded,
        metering: Metering,
    ) {
        self.settle_metered(host, request, metering, end_of(host));
    }

    /// Charges what a response used in place of what its request reserved.
    fn settle_metered(
        &self,
        host: &impl Host,
        request: &mut Forwarded,
        metering: Metering,
        end: End,
    ) {
        let used = metering.finish(end);
        // If the engine is in use, the reservation stays charged.
        let engine = self.engine.as_ref().and_then(|engine| engine.try_borrow().ok());
        let Some(engine) = engine else {
            return;
        };
        let is_sent = used.metered.is_some() || is_up(host);
        let charge = Charge::of(&used, &engine.settings().llm.prices, is_sent);
        let charge = charge.with_earlier(&used, earlier_attempts(host));
        if charge.is_missing {
            self.metrics.count_missing_usage(host, used.facts.format);
        }
        let source = request.decided().seen().source();
        if let Some((key, reserved)) = request.settle() {
            let store = RecordStore::new(host, host.rules());
            let now_ns = host.now_ns().unwrap_or(0);
            let admission = Admission::new(&store, &engine, &key, source, now_ns);
            log_miscount(host, admission.settle(&reserved, charge.amounts()).err());
            let (usage, cost) = (charge.usage(), charge.micro_usd());
            self.metrics.count_usage(host, key.tenant(), &usage, cost);
            self.metrics.count_retries(host, store.retries());
            self.report_to_cluster(host, usage.total);
            self.watch_budgets(host, &key);
        }
        request.set_usage(charge.into_usage(&used));
    }
}

/// Reads a part of a response, and removes from it what the client did not ask for. What the stripper still holds when
/// trailers end the response is lost: hosts show no body by then that could be added to. That is an event without its
/// end, which readers of event streams discard (WHATWG HTML, 9.2.6).
pub(super) fn read_response(host: &impl Host, metering: &mut Metering, bytes: u64, is_last: bool) {
    let len = usize::try_from(bytes).unwrap_or(usize::MAX);
    let (mut read, mut kept, mut is_same) = (0, Vec::new(), true);
    while read < len {
        let max_len = len.saturating_sub(read).min(MAX_PART_BYTES);
        let part = host.body(Body::Response, read, max_len).filter(|part| !part.is_empty());
        let Some(part) = part else {
            return metering.lose();
        };
        read = read.saturating_add(part.len());
        let passed = metering.feed(&part);
        is_same &= passed.len() == part.len() && matches!(passed, Cow::Borrowed(_));
        // A part that is the whole, as most are, is not copied only to see that nothing has changed.
        if !is_same || part.len() < len {
            kept.extend_from_slice(&passed);
        }
    }
    if is_last {
        let mut held = metering.finish_stripping();
        is_same &= held.is_empty();
        kept.append(&mut held);
    }
    if !is_same && let Err(HostError(status)) = host.set_body(Body::Response, 0, len, &kept) {
        let text = format!("vkey: could not remove an event from a response: host status {status}");
        host.log(Level::Error, &text);
    }
}

fn is_event_stream(content_type: &[u8]) -> bool {
    let media_type = content_type.split(|byte| *byte == b';').next();
    media_type.is_some_and(|found| found.trim_ascii().eq_ignore_ascii_case(EVENT_STREAM))
}

/// How many attempts of the request the proxy made before the one whose response came, if any came. It shows nothing
/// of them: each may have been sent, and paid for.
fn earlier_attempts(host: &impl Host) -> u64 {
    number_property(host, Property::UpstreamAttempt).unwrap_or(0).saturating_sub(1)
}

/// How a response has ended whose last byte the host has not announced. Trailers may have ended it.
fn end_of(host: &impl Host) -> End {
    match host.property(Property::ResponseCodeDetails).as_deref() {
        Some(b"via_upstream") => End::Complete,
        Some(details) if details.starts_with(b"upstream") => End::UpstreamReset,
        Some(_) | None => End::ClientLeft,
    }
}
