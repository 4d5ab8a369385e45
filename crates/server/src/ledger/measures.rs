//! What the ledger counts, since the server has started.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vkey::limits::quota::Unit;

use super::error::LedgerError;

/// What the ledger counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerMeasures {
    /// Orders that got a receipt.
    pub orders: u64,
    /// Orders that wanted something and got nothing.
    pub unmet: u64,
    /// What was granted, by the name of the unit.
    pub granted: BTreeMap<&'static str, u64>,
    /// Requests that got no receipts, by the code of the error.
    pub errors: BTreeMap<&'static str, u64>,
}

/// Measures that threads share.
#[derive(Clone, Default)]
pub(super) struct Counts {
    shared: Arc<Mutex<LedgerMeasures>>,
}

impl Counts {
    /// The measures.
    pub(super) fn get(&self) -> LedgerMeasures {
        self.lock().clone()
    }

    /// Counts an order: what it counts, whether it wants something, and what it got, unless it came again.
    pub(super) fn order(&self, unit: Unit, wants: bool, granted: Option<u64>) {
        let mut counts = self.lock();
        counts.orders += 1;
        let Some(granted) = granted else { return };
        counts.unmet += u64::from(wants && granted == 0);
        let of_unit = counts.granted.entry(unit.name()).or_default();
        *of_unit = of_unit.saturating_add(granted);
    }

    /// Counts a request without receipts.
    pub(super) fn error(&self, error: &LedgerError) {
        *self.lock().errors.entry(error.code()).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, LedgerMeasures> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
