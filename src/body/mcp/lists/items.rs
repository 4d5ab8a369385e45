//! Which bytes go when items of an array are removed.

use super::edit::Edit;

/// Removes items of one array, each with one comma. Neighbours that go together make one edit.
#[derive(Debug, Default)]
pub(super) struct Items {
    /// The offset behind the last item that stays, or behind the bracket.
    from: usize,
    /// Whether an item stays.
    has_kept: bool,
    /// The offset behind the last item, if that one goes.
    gone_to: Option<usize>,
}

// === impl Items ===

impl Items {
    /// Begins an array; `from` is the offset behind its bracket.
    pub(super) fn begin(from: usize) -> Self {
        Self { from, ..Self::default() }
    }

    /// The next item goes; `end` is the offset behind it.
    pub(super) fn remove(&mut self, end: usize) {
        self.gone_to = Some(end);
    }

    /// The next item stays.
    pub(super) fn keep(&mut self, start: usize, end: usize, edits: &mut Vec<Edit>) {
        // The items before the first one that stays go with the comma behind them.
        if !self.has_kept && self.gone_to.is_some() {
            self.gone_to = Some(start);
        }
        self.end(edits);
        self.from = end;
        self.has_kept = true;
    }

    /// Ends the array, or a row of items that go.
    pub(super) fn end(&mut self, edits: &mut Vec<Edit>) {
        if let Some(end) = self.gone_to.take() {
            edits.push(Edit { range: self.from..end, text: "" });
        }
    }
}
