//! Reports records that could not be read and were reset.

use std::cell::{Cell, OnceCell};

use crate::host::{Host, Level, MetricKind, RecordStore, Reset, ResetReason};

/// What one root context has reported.
#[derive(Default)]
pub(super) struct Resets {
    layout_is_logged: Cell<bool>,
    /// The host's metric ids; `None` if the host refused to define one.
    of_layout: OnceCell<Option<u32>>,
    of_garbage: OnceCell<Option<u32>>,
}

impl Resets {
    /// Counts and logs the records that a store had to reset. After an update, every record in use has an old layout,
    /// so that is logged once. Garbage is logged as an error each time.
    pub(super) fn report<H: Host>(&self, host: &H, store: &RecordStore<'_, H>) {
        for reset in store.take_resets() {
            self.count(host, reset.reason);
            let Reset { name, reason } = reset;
            match reason {
                ResetReason::Layout if self.layout_is_logged.replace(true) => {}
                ResetReason::Layout => host.log(
                    Level::Warn,
                    &format!(
                        "vkey: record {name} has the layout of another version of the module; it and \
                         all others of that layout begin at zero"
                    ),
                ),
                ResetReason::Garbage => host.log(
                    Level::Error,
                    &format!(
                        "vkey: record {name} held bytes that are no record of the module, and begins \
                         at zero; something else writes to the shared data of this vm_id"
                    ),
                ),
            }
        }
    }

    fn count(&self, host: &impl Host, reason: ResetReason) {
        let (number, word) = match reason {
            ResetReason::Layout => (&self.of_layout, "layout"),
            ResetReason::Garbage => (&self.of_garbage, "garbage"),
        };
        // The host must not be called while the cell is initialised: it may call back.
        if number.get().is_none() {
            let name = ["vkey_record_resets_total.reason.", word].concat();
            _ = number.set(host.define_metric(MetricKind::Counter, &name).ok());
        }
        if let Some(number) = number.get().copied().flatten() {
            // A host that lost its metric cannot count.
            _ = host.increment_metric(number, 1);
        }
    }
}
