//! A change in the middle of a held request body, on hosts that change a body at its ends only.

use std::ops::Range;

use crate::host::{Body, Host, HostError};

use super::holding::MAX_PART_BYTES;

/// The place after the end of every body.
const END: usize = usize::MAX;

/// Replaces a range of a held request body of `len` bytes. If what is before it is long, the whole body is turned
/// around, a part at a time, so that the module never has more than a part of it.
///
/// # Errors
///
/// [`HostError`] if the body may be spoilt: it must not be sent.
pub(super) fn splice(
    host: &impl Host,
    len: usize,
    range: Range<usize>,
    text: &[u8],
) -> Result<(), HostError> {
    if range.start > range.end || range.end > len {
        return Err(HostError::BAD_ARGUMENT);
    }
    if range.end <= MAX_PART_BYTES {
        let mut start = read(host, range.start)?;
        start.extend_from_slice(text);
        return host.set_body(Body::Request, 0, range.end, &start);
    }
    turn(host, range.start)?;
    host.set_body(Body::Request, 0, range.end.saturating_sub(range.start), b"")?;
    host.set_body(Body::Request, END, 0, text)?;
    turn(host, len.saturating_sub(range.end))
}

/// Moves the first bytes to the end.
fn turn(host: &impl Host, mut bytes: usize) -> Result<(), HostError> {
    while bytes > 0 {
        let part = read(host, bytes.min(MAX_PART_BYTES))?;
        host.set_body(Body::Request, 0, part.len(), b"")?;
        host.set_body(Body::Request, END, 0, &part)?;
        bytes = bytes.saturating_sub(part.len());
    }
    Ok(())
}

/// Reads exactly the first bytes.
fn read(host: &impl Host, len: usize) -> Result<Vec<u8>, HostError> {
    if len == 0 {
        return Ok(Vec::new());
    }
    let part = host.body(Body::Request, 0, len).filter(|part| part.len() == len);
    part.ok_or(HostError::INTERNAL_FAILURE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::{MemoryHost, MemoryStore, Rules};

    fn spliced(body: &[u8], range: Range<usize>, text: &str) -> Vec<u8> {
        let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
        host.request_body.push(body);
        host.request_body.arrive();
        splice(&host, body.len(), range, text.as_bytes()).unwrap();
        host.request_body.pass();
        host.request_body.passed()
    }

    #[test]
    fn only_the_range_is_changed_wherever_it_is() {
        for len in [3, 1000, MAX_PART_BYTES, MAX_PART_BYTES + 1, 3 * MAX_PART_BYTES + 7] {
            let body: Vec<u8> = (0..=u8::MAX).cycle().take(len).collect();
            let ends = [0, 1, len / 2, len - 1, len];
            for start in ends {
                for end in ends.into_iter().filter(|end| *end >= start) {
                    let expected = [&body[..start], b"text", &body[end..]].concat();
                    assert!(spliced(&body, start..end, "text") == expected, "{len} {start} {end}");
                }
            }
        }
    }

    #[test]
    fn a_host_that_shows_less_than_there_is_spoils_the_body() {
        let host = MemoryHost::new(MemoryStore::new(Rules::Envoy));
        host.request_body.push("ab");
        host.request_body.arrive();
        assert!(splice(&host, 9, 3..3, b"x").is_err());
        assert!(splice(&host, 2, 3..3, b"x").is_err() && splice(&host, 2, 0..3, b"x").is_err());
    }
}
