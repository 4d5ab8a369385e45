//! Writes audit lines. Every request has one, so nothing here uses the machinery of formatting.

use std::borrow::Cow;

use crate::decision::{Decision, DenyReason, UNSEEN};
use crate::json::decimal::push_decimal;
use crate::json::push_quoted;
use crate::time::push_rfc3339;

use super::{AuditRecord, Line, MASK_VALUE, Mask, NO_RECORD, Outcome, VERSION};

/// Marks where a value was cut. No path, host or method contains it.
const CUT: &str = "…";

/// Bytes of that mark in a line, where it is escaped.
const CUT_BYTES: usize = 6;

/// Initial capacities: enough for a typical record, and for a typical line.
const RECORD_BYTES: usize = 800;
const LINE_BYTES: usize = 1024;

/// The members of a key in the record of a request without one.
const NO_KEY: &str =
    concat!(r#","kid":null,"jti":null,"tenant":null,"#, r#""sub":null,"tier":null,"caveats":null"#);

/// The members of an AI or MCP call and its upstream in the record of a request that has none of them, as most have.
const NO_CALL: &str =
    concat!(r#","model":null,"mcp":null,"tokens":null,"#, r#""cost":null,"tls_verdict":null"#);

/// Members of a record in their final bytes. Requests of one key, or of one gate, have them in common, so they are
/// written once.
#[derive(Clone, Copy, Debug)]
pub struct Prepared<'a> {
    /// `host`: see [`AuditRecord::host_members`].
    pub host: &'a str,
    /// `kid` to `caveats`: see [`AuditRecord::key_members`]. `None` for a request without a key.
    pub key: Option<&'a str>,
    /// `tls_policy`: see [`AuditRecord::policy_members`].
    pub policy: &'a str,
    /// `plan`: see [`AuditRecord::plan_members`].
    pub plan: &'a str,
}

/// What begins a line, before the record.
pub(super) const OPEN: &str = r#"{"vkey":""#;

// === impl AuditRecord ===

impl AuditRecord<'_> {
    /// The record as ASCII, to be put between `{"vkey":"` and `"`, which make it the beginning of an audit line.
    /// Values that `mask` covers are replaced, and so are client texts that could contain a key.
    pub fn write(&self, mask: &Mask) -> String {
        written(mask, RECORD_BYTES, |half| self.write_into(half, None))
    }

    /// Like [`AuditRecord::write`], with members that were written before. Those of the record itself do not count.
    pub fn write_prepared(&self, prepared: &Prepared<'_>, mask: &Mask) -> String {
        written(mask, RECORD_BYTES, |half| self.write_into(half, Some(prepared)))
    }

    /// The member `host`, as [`Prepared`] has it.
    pub fn host_members(&self, mask: &Mask) -> String {
        written(mask, 0, |half| self.write_host(half))
    }

    /// The members `kid` to `caveats`, as [`Prepared`] has them.
    pub fn key_members(&self, mask: &Mask) -> String {
        written(mask, 0, |half| self.write_key(half))
    }

    /// The member `tls_policy`, as [`Prepared`] has it.
    pub fn policy_members(&self, mask: &Mask) -> String {
        written(mask, 0, |half| self.write_policy(half))
    }

    /// The member `plan`, as [`Prepared`] has it.
    pub fn plan_members(&self, mask: &Mask) -> String {
        written(mask, 0, |half| self.write_plan(half))
    }

    /// Each group of members is written from values that change together: the proxy's, the request's, the key's and
    /// the configuration's.
    #[inline(never)] // once, for records and for lines
    fn write_into(&self, half: &mut Half<'_>, prepared: Option<&Prepared<'_>>) {
        half.text.push_str(VERSION);
        half.raw(r#"","ts":""#, "");
        push_rfc3339(&mut half.text, self.ts_micros);
        half.text.push('"');
        match prepared {
            Some(Prepared { host, .. }) => half.text.push_str(host),
            None => self.write_host(half),
        }
        half.client_text(r#","req":"#, self.req.as_deref());
        half.quoted(r#","decision":"#, self.decision.map_or(UNSEEN, Decision::word));
        let reason = self.decision.and_then(Decision::reason);
        half.string(r#","reason":"#, reason.map(DenyReason::code));
        match prepared {
            Some(Prepared { key, .. }) => half.text.push_str(key.unwrap_or(NO_KEY)),
            None => self.write_key(half),
        }
        self.write_request(half);
        match self.has_call() {
            true => self.write_call(half),
            false => half.text.push_str(NO_CALL),
        }
        match prepared {
            Some(Prepared { policy, .. }) => half.text.push_str(policy),
            None => self.write_policy(half),
        }
        half.string(r#","anomaly":"#, self.anomaly.as_deref());
        if self.is_local {
            half.text.push_str(r#","budget":"local""#);
        }
        match prepared {
            Some(Prepared { plan, .. }) => half.text.push_str(plan),
            None => self.write_plan(half),
        }
    }

    fn write_host(&self, half: &mut Half<'_>) {
        half.string(r#","host":"#, self.host.as_deref());
    }

    fn write_key(&self, half: &mut Half<'_>) {
        half.string(r#","kid":"#, self.kid.as_deref());
        half.string(r#","jti":"#, self.jti.as_deref());
        half.string(r#","tenant":"#, self.tenant.as_deref());
        half.string(r#","sub":"#, self.sub.as_deref());
        half.string(r#","tier":"#, self.tier.as_deref());
        half.number(r#","caveats":"#, self.caveats);
    }

    fn write_request(&self, half: &mut Half<'_>) {
        half.string(r#","src":"#, self.src.as_deref());
        half.client_text(r#","method":"#, self.method.as_deref());
        half.client_text(r#","authority":"#, self.authority.as_deref());
        half.client_text(r#","path":"#, self.path.as_deref());
        half.strings(r#","query_keys":"#, &self.query_keys);
    }

    fn has_call(&self) -> bool {
        let is_usage_known = self.tokens.is_some() || self.cost.is_some();
        is_usage_known || self.model.is_some() || self.mcp.is_some() || self.tls_verdict.is_some()
    }

    fn write_call(&self, half: &mut Half<'_>) {
        half.client_text(r#","model":"#, self.model.as_deref());
        half.client_text(r#","mcp":"#, self.mcp.as_deref());
        match &self.tokens {
            None => half.raw(r#","tokens":"#, "null"),
            Some(tokens) => {
                half.raw(r#","tokens":"#, "");
                tokens.write(&mut half.text);
            }
        }
        half.number(r#","cost":"#, self.cost);
        half.string(r#","tls_verdict":"#, self.tls_verdict.as_deref());
    }

    fn write_policy(&self, half: &mut Half<'_>) {
        half.string(r#","tls_policy":"#, self.tls_policy.as_deref());
    }

    /// The last member, a string without its closing quote.
    fn write_plan(&self, half: &mut Half<'_>) {
        half.quoted(r#","plan":"#, self.plan.as_deref().unwrap_or_default());
        half.text.pop();
    }
}

// === impl Outcome ===

impl Outcome<'_> {
    fn write_into(&self, half: &mut Half<'_>) {
        match self.start_micros {
            None => half.raw(r#","start":"#, "null"),
            Some(micros) => {
                half.raw(r#","start":""#, "");
                push_rfc3339(&mut half.text, micros);
                half.text.push('"');
            }
        }
        half.string(r#","peer":"#, self.peer.as_deref());
        half.number(r#","status":"#, self.status);
        half.number(r#","bytes_in":"#, self.bytes_in);
        half.number(r#","bytes_out":"#, self.bytes_out);
        match self.duration_ns {
            None => half.raw(r#","duration_ns":"#, "null"),
            Some(duration_ns) => {
                half.raw(r#","duration_ns":""#, "");
                push_decimal(&mut half.text, duration_ns);
                half.text.push('"');
            }
        }
        half.string(r#","upstream":"#, self.upstream.as_deref());
        half.string(r#","flags":"#, self.flags.as_deref());
    }
}

// === impl Line ===

impl Line<'_> {
    /// The line as ASCII JSON, without the line end. Values that `mask` covers are replaced, and so are client texts
    /// that could contain a key.
    pub fn write(&self, mask: &Mask) -> String {
        let write_record = |half: &mut Half<'_>| match &self.record {
            Some(record) => record.write_into(half, None),
            None => half.text.push_str(NO_RECORD),
        };
        line(write_record, &self.outcome, mask)
    }

    /// The line of a record that was written before, as the access log of a proxy puts it together. Values of the
    /// outcome that `mask` covers are replaced.
    pub fn splice(record: &str, outcome: &Outcome<'_>, mask: &Mask) -> String {
        line(|half| half.text.push_str(record), outcome, mask)
    }

    /// The line with its texts shortened to fit into `max_bytes`: first those of the client, then the key's subject.
    /// Cuts are marked. A line whose other members are too long stays longer.
    #[must_use]
    pub fn within(mut self, mask: &Mask, max_bytes: usize) -> Self {
        let mut line = self.write(mask);
        while line.len() > max_bytes
            && let Some(record) = self.record.as_mut().filter(|record| record.query_keys.len() > 1)
        {
            record.query_keys.truncate(record.query_keys.len() - 2);
            record.query_keys.push(Cow::Borrowed(CUT));
            line = self.write(mask);
        }
        for member in 0..5 {
            let excess = line.len().saturating_sub(max_bytes);
            let Some(record) = self.record.as_mut().filter(|_| excess > 0) else {
                break;
            };
            let (text, is_client_text) = match member {
                0 => (&mut record.path, true),
                1 => (&mut record.authority, true),
                2 => (&mut record.req, true),
                3 => (&mut record.method, true),
                _ => (&mut record.sub, false),
            };
            // A text that is masked because a key begins in it is short already. Cutting it could remove
            // what shows that, and so unmask it.
            let is_shown = |text: &Cow<'_, str>| !(is_client_text && starts_key(text));
            if let Some(text) = text.as_mut().filter(|text| is_shown(text)) {
                *text = Cow::Owned(shortened(text, excess));
                line = self.write(mask);
            }
        }
        self
    }
}

/// What `write` writes.
fn written(mask: &Mask, bytes: usize, write: impl FnOnce(&mut Half<'_>)) -> String {
    let mut half = Half { text: String::with_capacity(bytes), mask };
    write(&mut half);
    half.text
}

/// A line whose record `write_record` writes.
fn line(write_record: impl FnOnce(&mut Half<'_>), outcome: &Outcome<'_>, mask: &Mask) -> String {
    written(mask, LINE_BYTES, |half| {
        half.text.push_str(OPEN);
        write_record(half);
        half.text.push('"');
        outcome.write_into(half);
        half.text.push('}');
    })
}

// === members ===

/// A half of a line that is being written. The label of a member is its name with the punctuation around it.
struct Half<'a> {
    text: String,
    mask: &'a Mask,
}

impl Half<'_> {
    fn string(&mut self, label: &str, value: Option<&str>) {
        match value {
            None => self.raw(label, "null"),
            Some(_) if self.mask.covers(label) => self.quoted(label, &self.mask.value),
            Some(value) => self.quoted(label, value),
        }
    }

    /// A string that the client wrote. It is masked if it contains a key that was put in the wrong place.
    fn client_text(&mut self, label: &str, value: Option<&str>) {
        self.string(label, value.map(without_key));
    }

    fn strings(&mut self, label: &str, values: &[Cow<'_, str>]) {
        if self.mask.covers(label) {
            return self.quoted(label, &self.mask.value);
        }
        self.raw(label, "[");
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                self.text.push(',');
            }
            push_quoted(&mut self.text, without_key(value));
        }
        self.text.push(']');
    }

    fn number(&mut self, label: &str, value: Option<u64>) {
        match value {
            None => self.raw(label, "null"),
            Some(number) => {
                self.raw(label, "");
                push_decimal(&mut self.text, number);
            }
        }
    }

    fn quoted(&mut self, label: &str, value: &str) {
        self.raw(label, "");
        push_quoted(&mut self.text, value);
    }

    fn raw(&mut self, label: &str, value: &str) {
        self.text.push_str(label);
        self.text.push_str(value);
    }
}

/// Cuts the end of a text so that its line becomes shorter by `excess` bytes, and marks the cut.
fn shortened(text: &str, excess: usize) -> String {
    let kept = text.len().saturating_sub(excess.saturating_add(CUT_BYTES));
    let end = (0..=kept).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    [text.get(..end).unwrap_or_default(), CUT].concat()
}

/// The text, or the replacement if it contains the beginning of a key.
fn without_key(text: &str) -> &str {
    if starts_key(text) { MASK_VALUE } else { text }
}

/// Whether a text contains the beginning of a key, its first dot escaped or not, or the encoded JSON object
/// that a JWT starts with.
pub(crate) fn starts_key(text: &str) -> bool {
    let bytes = text.as_bytes();
    let follows = |at, start| bytes.get(..at).is_some_and(|before| before.ends_with(start));
    may_start_key(bytes)
        && bytes.iter().enumerate().any(|(at, byte)| match byte {
            b'1' => matches!(bytes.get(at + 1), Some(b'.' | b'%')) && follows(at, b"vk"),
            b'J' => follows(at, b"ey"),
            _ => false,
        })
}

/// Whether a text has a letter that the beginning of a key needs. Few texts have one; eight bytes are checked at a time.
fn may_start_key(text: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let is_needed = |byte: u8| matches!(byte, b'k' | b'J');
    // Zero bytes set their highest bit, and perhaps that of a later byte.
    let has_zero = |word: u64| word.wrapping_sub(ONES) & !word & (0x80 * ONES) != 0;
    let has = |word: u64, letter: u8| has_zero(word ^ (u64::from(letter) * ONES));
    let (words, rest) = text.as_chunks::<8>();
    let mut words = words.iter().map(|word| u64::from_le_bytes(*word));
    words.any(|word| has(word, b'k') || has(word, b'J')) || rest.iter().copied().any(is_needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_are_written_in_advance_are_those_of_an_empty_record() {
        let (record, mask) = (AuditRecord::default(), Mask::default());
        assert_eq!(written(&mask, 0, |half| record.write_call(half)), NO_CALL);
        assert_eq!(record.key_members(&mask), NO_KEY);
    }
}
