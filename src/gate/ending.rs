//! The end of a request: its audit line and its metrics.

use std::borrow::Cow;

use crate::audit::AuditRecord;
use crate::config::Sink;
use crate::exchange::{Decided, Ending, Exchange, Forwarded, Outcome};
use crate::host::{FilterState, Host, Property, Rules, number_property, text_property};

use super::{Gate, observe};

impl Gate {
    /// Writes the audit line of a request that has ended, once. Hosts also end requests that they never showed.
    pub fn on_log(&self, host: &impl Host, exchange: &mut Exchange) {
        let host = &self.view(host);
        match std::mem::replace(exchange, Exchange::Done) {
            Exchange::Unseen => self.end_unseen(host),
            Exchange::Decided(decided) => {
                // What was refused before it had an upstream has none: a property costs as much as deciding.
                let upstream = decided.verdict().and_then(|_| upstream_address(host));
                self.end(host, &decided, upstream);
            }
            Exchange::Forwarded(request, _) => self.end_forwarded(host, request, false),
            Exchange::Responded(request) => self.end_forwarded(host, request, true),
            Exchange::Done => {}
        }
    }

    /// `has_response`: a response came before the end.
    fn end_forwarded(&self, host: &impl Host, mut request: Forwarded, has_response: bool) {
        let upstream = upstream_address(host);
        // Without an upstream there is nothing to check. Of hosts without shared data it is not known whether
        // they show one.
        let reached = upstream.is_some() || host.rules() == Rules::Bare;
        if reached && request.decided().verdict().is_none() {
            self.check_late(host, &mut request, has_response);
        }
        self.end(host, request.decided(), upstream);
    }

    fn end(&self, host: &impl Host, decided: &Decided, upstream: Option<String>) {
        let bytes_in = Some(decided.seen().received_bytes());
        let ending = Ending { bytes_in, upstream, ..ending(host) };
        self.write(host, decided.record(&ending));
        self.metrics.count(host, &decided.outcome());
    }

    fn end_unseen(&self, host: &impl Host) {
        let seen = observe(host);
        let bytes_in = number_property(host, Property::RequestTotalSize);
        let ending = Ending { bytes_in, ..ending(host) };
        self.write(host, ending.record(&seen));
        self.metrics.count(host, &Outcome::default());
    }

    fn write(&self, host: &impl Host, record: AuditRecord<'_>) {
        let record = AuditRecord {
            host: self.node(host).map(Cow::Borrowed),
            tls_policy: Some(Cow::Borrowed(self.upstreams.digest())),
            ..record
        };
        let line = match host.max_line_bytes() {
            Some(max_bytes) => record.write_within(&self.audit.mask, max_bytes),
            None => record.write(&self.audit.mask),
        };
        let shown = match self.audit.sink {
            Sink::AccessLog => host.set_filter_state(FilterState::Audit.key(), &line).is_ok(),
            Sink::Log => false,
        };
        // A line that the access loggers cannot get is not lost.
        if !shown {
            host.log(self.audit.level, &line);
        }
    }

    fn node(&self, host: &impl Host) -> Option<&str> {
        // The host is not called inside the cell's own initialisation: it may call back.
        if self.node.get().is_none() {
            _ = self.node.set(text_property(host, Property::NodeId)?);
        }
        self.node.get().map(String::as_str)
    }
}

fn ending(host: &impl Host) -> Ending {
    Ending {
        status: host.response_status(),
        bytes_out: number_property(host, Property::ResponseTotalSize),
        now_ns: host.now_ns(),
        ..Ending::default()
    }
}

fn upstream_address(host: &impl Host) -> Option<String> {
    text_property(host, Property::UpstreamAddress)
}
