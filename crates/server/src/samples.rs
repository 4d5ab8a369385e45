//! Audit lines for tests.

use vkey::audit::{AnchorContext, AuditKey, AuditRecord, Chain, Line, Mask, Outcome};
use vkey::decision::{Decision, DenyReason};
use vkey::key::keyring::Secret;

/// Writes the lines of records, numbered by their times and paths.
pub(crate) struct Lines {
    chain: Option<Chain>,
    number: u64,
}

impl Lines {
    pub(crate) fn key() -> AuditKey {
        AuditKey::new(&Secret::parse("Some-audit-secret-1-of-tests").unwrap())
    }

    /// Lines of a chain.
    pub(crate) fn chained(seed: &str) -> Self {
        Self { chain: Some(Chain::new(Self::key(), &[seed.as_bytes()])), number: 0 }
    }

    /// Lines without a place in a chain.
    pub(crate) fn unchained() -> Self {
        Self { chain: None, number: 0 }
    }

    /// The next line. Every third record is one of a refused request.
    pub(crate) fn next(&mut self) -> String {
        let number = self.number;
        self.number += 1;
        let is_denied = number.is_multiple_of(3);
        let record = AuditRecord {
            ts_micros: 1_000_000 + number,
            decision: Some(match is_denied {
                true => Decision::Deny(DenyReason::Path),
                false => Decision::Allow,
            }),
            path: Some(format!("/v1/{number}").into()),
            ..AuditRecord::default()
        };
        self.write(&record)
    }

    /// The line of a record.
    pub(crate) fn write(&mut self, record: &AuditRecord<'_>) -> String {
        let mut text = record.write(&Mask::default());
        if let Some(chain) = &mut self.chain {
            chain.link(&mut text, record.amounts());
        }
        Line::splice(&text, &Outcome::default(), &Mask::default())
    }

    /// An anchor of the chain as it is now.
    pub(crate) fn anchor(&self, is_end: bool) -> String {
        let at = AnchorContext { ts_micros: 9_000_000, host_members: "", plan: "p", is_end };
        let at = AnchorContext { host_members: r#","host":"gateway-1""#, ..at };
        self.chain.as_ref().unwrap().anchor(&at)
    }
}
