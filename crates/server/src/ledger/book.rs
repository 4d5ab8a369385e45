//! A book: the accounts that some orders concern, as they become by them. Nothing is written before all orders are taken.
//!
//! What a window spent above its budget is the debt of the next one. It is worked out when an account is made, and again
//! when a late order changes what an earlier window spent.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use vkey::limits::lease::Receipt;
use vkey::limits::quota::Period;

use super::account::Account;
use super::error::LedgerError;
use super::orders::Posted;

/// Where accounts are read from.
pub(super) trait Source {
    /// An account.
    fn account(&mut self, name: &str, window: u32) -> Result<Option<Account>, LedgerError>;

    /// The last window of a name before one.
    fn earlier(&mut self, name: &str, window: u32) -> Result<Option<u32>, LedgerError>;

    /// The first window of a name after one.
    fn later(&mut self, name: &str, window: u32) -> Result<Option<u32>, LedgerError>;
}

/// Accounts that are read, and changed.
#[derive(Default)]
pub(super) struct Book {
    pages: BTreeMap<(String, u32), Page>,
}

/// An account in a book.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub(super) account: Account,
    pub(super) per: Period,
    /// It was not there before.
    pub(super) is_new: bool,
    pub(super) is_changed: bool,
}

/// What becomes of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) receipt: Receipt,
    /// What it got; `None` if it came again.
    pub(super) granted: Option<u64>,
    /// It got nothing of what it needs, and other leases may have some to spare.
    pub(super) is_scarce: bool,
}

// === impl Book ===

impl Book {
    /// Takes an order.
    pub(super) fn take(
        &mut self,
        from: &mut impl Source,
        posted: &Posted,
        now_secs: u64,
    ) -> Result<Taken, LedgerError> {
        let Posted { account, order } = posted;
        let (name, per) = (account.to_string(), account.per);
        let page = self.page_or_new(from, &name, per, order.window)?;
        let before = (!page.is_new).then(|| page.account.excess());
        let is_fresh = !page.account.has(order);
        page.is_changed |= is_fresh;
        let receipt = page.account.apply(order, now_secs);
        let granted = receipt.granted.saturating_sub(order.granted.max(order.used));
        let got_nothing = receipt.number == order.number && receipt.granted == order.granted;
        let is_scarce = order.wanted.want > 0
            && got_nothing
            && order.window >= per.window(now_secs)
            && page.account.others_hold(order.lease);
        if before != Some(page.account.excess()) {
            self.carry(from, &name, per, order.window)?;
        }
        Ok(Taken { receipt, granted: is_fresh.then_some(granted), is_scarce })
    }

    /// The accounts that are other than they were read.
    pub(super) fn changed(&self) -> impl Iterator<Item = (&str, u32, &Page)> {
        let pages = self.pages.iter().filter(|(_, page)| page.is_changed);
        pages.map(|((name, window), page)| (name.as_str(), *window, page))
    }

    /// Hands on what a window spent above its budget, as far as that changes anything.
    fn carry(
        &mut self,
        from: &mut impl Source,
        name: &str,
        per: Period,
        mut window: u32,
    ) -> Result<(), LedgerError> {
        if per == Period::Total {
            return Ok(());
        }
        loop {
            let Some(next) = self.later(from, name, window)? else { return Ok(()) };
            let Some(page) = self.page(from, name, per, window)? else { return Ok(()) };
            let debt = debt(&page.account, next.saturating_sub(window));
            let Some(page) = self.page(from, name, per, next)? else { return Ok(()) };
            if page.account.carried == debt {
                return Ok(());
            }
            page.account.carried = debt;
            page.is_changed = true;
            window = next;
        }
    }

    fn page_or_new(
        &mut self,
        from: &mut impl Source,
        name: &str,
        per: Period,
        window: u32,
    ) -> Result<&mut Page, LedgerError> {
        if self.page(from, name, per, window)?.is_none() {
            let carried = self.debt_before(from, name, per, window)?;
            let account = Account::new(carried);
            let page = Page { account, per, is_new: true, is_changed: true };
            self.pages.insert((name.to_owned(), window), page);
        }
        self.page(from, name, per, window)?.ok_or_else(|| LedgerError::Damaged(name.to_owned()))
    }

    /// The debt with which a window begins.
    fn debt_before(
        &mut self,
        from: &mut impl Source,
        name: &str,
        per: Period,
        window: u32,
    ) -> Result<u64, LedgerError> {
        if per == Period::Total {
            return Ok(0);
        }
        let Some(earlier) = self.earlier(from, name, window)? else { return Ok(0) };
        let page = self.page(from, name, per, earlier)?;
        Ok(page.map_or(0, |page| debt(&page.account, window.saturating_sub(earlier))))
    }

    fn page(
        &mut self,
        from: &mut impl Source,
        name: &str,
        per: Period,
        window: u32,
    ) -> Result<Option<&mut Page>, LedgerError> {
        match self.pages.entry((name.to_owned(), window)) {
            Entry::Occupied(page) => Ok(Some(page.into_mut())),
            Entry::Vacant(place) => Ok(from.account(name, window)?.map(|account| {
                place.insert(Page { account, per, is_new: false, is_changed: false })
            })),
        }
    }

    fn earlier(
        &self,
        from: &mut impl Source,
        name: &str,
        window: u32,
    ) -> Result<Option<u32>, LedgerError> {
        let key = |window| (name.to_owned(), window);
        let own = self.pages.range(key(0)..key(window)).next_back().map(|((_, window), _)| *window);
        Ok(own.max(from.earlier(name, window)?))
    }

    fn later(
        &self,
        from: &mut impl Source,
        name: &str,
        window: u32,
    ) -> Result<Option<u32>, LedgerError> {
        let Some(first) = window.checked_add(1) else { return Ok(None) };
        let key = |window| (name.to_owned(), window);
        let own = self.pages.range(key(first)..=key(u32::MAX)).next();
        let own = own.map(|((_, window), _)| *window);
        Ok(own.into_iter().chain(from.later(name, window)?).min())
    }
}

/// What an account hands on to a window that comes this number of windows after it. Each whole window in between pays off one
/// budget.
fn debt(account: &Account, windows: u32) -> u64 {
    let between = u64::from(windows.saturating_sub(1));
    account.excess().saturating_sub(account.limit.saturating_mul(between))
}
