//! Quotas: an amount per calendar window, in UTC.
//!
//! Requests are charged when they are allowed. Tokens and money are known only at the end of a
//! response: an amount is reserved for the request and settled at its end. Without an end the
//! reservation stays. Use above the limit is carried into the next windows as debt.

use crate::json::{Invalid, Members, Node};
use crate::limits::money::micros;

/// The members of every quota.
const MEMBERS: [&str; 4] = ["requests", "tokens", "cost_usd", "per"];

const SECS_PER_MINUTE: u64 = 60;
const SECS_PER_HOUR: u64 = 3_600;
const SECS_PER_DAY: u64 = 86_400;
const DAYS_PER_WEEK: u64 = 7;

/// 1970-01-01 was a Thursday, 3 days after the Monday that began its week (ISO 8601).
const DAYS_INTO_FIRST_WEEK: u64 = 3;

/// What a quota counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Unit {
    Requests = 0,
    Tokens = 1,
    CostMicroUsd = 2,
}

/// The length of a window. Windows begin on calendar boundaries in UTC, weeks on Monday.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Period {
    Minute = 0,
    Hour = 1,
    Day = 2,
    Week = 3,
    Month = 4,
    /// One window that never ends.
    Total = 5,
}

/// `limit` of `unit` in each `per`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// What is counted.
    pub unit: Unit,
    /// The amount per window; 0 allows nothing.
    pub limit: u64,
    /// The window.
    pub per: Period,
    /// Which proxies share it.
    pub scope: QuotaScope,
}

/// Which proxies share a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QuotaScope {
    /// None: each proxy has all of it.
    #[default]
    Proxy,
    /// All proxies with the same ledger: see [`Lease`](crate::limits::lease::Lease).
    Cluster {
        /// What a proxy may spend beyond its lease in each window while the ledger does not respond, in percent of the
        /// budget: 0 to 100.
        local_percent: u8,
    },
}

/// The use of a quota.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// The number of the window, counted from the one that 1970 began in.
    pub window: u32,
    /// Reserved and settled in that window, including debt of earlier ones.
    pub used: u64,
    /// The part of `used` that was settled above the limit and above the reservation: the debt.
    pub over: u64,
    /// Which entry of a tally it is: another number tells that the entry was lost, and made anew. 0 for requests.
    pub entry: u32,
}

// === impl Unit ===

impl Unit {
    /// Every unit, in the order of its number.
    pub const ALL: [Self; 3] = [Self::Requests, Self::Tokens, Self::CostMicroUsd];

    /// The member of a quota that holds the limit.
    pub fn member(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::CostMicroUsd => "cost_usd",
        }
    }

    /// The word in the names of limits.
    pub fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
            Self::CostMicroUsd => "cost",
        }
    }
}

// === impl Period ===

impl Period {
    /// Every period, in the order of its number.
    pub const ALL: [Self; 6] =
        [Self::Minute, Self::Hour, Self::Day, Self::Week, Self::Month, Self::Total];

    /// The name in a quota.
    pub fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Total => "total",
        }
    }

    /// The number of the window that a Unix second is in, counted from the one that 1970 began in.
    pub fn window(self, unix_secs: u64) -> u32 {
        let days = unix_secs / SECS_PER_DAY;
        let number = match self {
            Self::Minute => unix_secs / SECS_PER_MINUTE,
            Self::Hour => unix_secs / SECS_PER_HOUR,
            Self::Day => days,
            Self::Week => days.saturating_add(DAYS_INTO_FIRST_WEEK) / DAYS_PER_WEEK,
            Self::Month => months(days),
            Self::Total => 0,
        };
        u32::try_from(number).unwrap_or(u32::MAX)
    }

    /// The first Unix second of a window; `None` for a total.
    pub fn start_secs(self, window: u32) -> Option<u64> {
        let window = u64::from(window);
        match self {
            Self::Minute => window.checked_mul(SECS_PER_MINUTE),
            Self::Hour => window.checked_mul(SECS_PER_HOUR),
            Self::Day => window.checked_mul(SECS_PER_DAY),
            Self::Week => (window * DAYS_PER_WEEK)
                .saturating_sub(DAYS_INTO_FIRST_WEEK)
                .checked_mul(SECS_PER_DAY),
            Self::Month => days_before_month(window).checked_mul(SECS_PER_DAY),
            Self::Total => None,
        }
    }

    /// The first Unix second after a window; `None` for a total.
    pub fn end_secs(self, window: u32) -> Option<u64> {
        self.start_secs(window.checked_add(1)?)
    }
}

// === impl Spent ===

impl Spent {
    /// Of an entry that is made now.
    pub fn begin(unit: Unit, now_ns: u64) -> Self {
        let entry = match unit {
            Unit::Requests => 0,
            Unit::Tokens | Unit::CostMicroUsd => {
                u32::try_from(now_ns & u64::from(u32::MAX)).unwrap_or(0)
            }
        };
        Self { entry, ..Self::default() }
    }
}

// === impl Quota ===

impl Quota {
    /// Reads `{requests|tokens|cost_usd, per}`: exactly one unit. Dollars are text with at most six
    /// decimals, because a double cannot hold a cent.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for anything else.
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        Self::read_members(node, &node.members(&MEMBERS)?)
    }

    /// Reads a quota of a configuration, which may be shared: as [`Quota::read`], with `scope`, `on_loss` and
    /// `local_percent`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for anything else.
    pub fn read_shareable(node: &Node<'_>) -> Result<Self, Invalid> {
        let [requests, tokens, cost_usd, per] = MEMBERS;
        let known = [requests, tokens, cost_usd, per, "scope", "on_loss", "local_percent"];
        let members = node.members(&known)?;
        let quota = Self::read_members(node, &members)?;
        Ok(Self { scope: read_scope(&members)?, ..quota })
    }

    fn read_members(node: &Node<'_>, members: &Members<'_>) -> Result<Self, Invalid> {
        let mut units = Unit::ALL.into_iter().filter_map(|unit| {
            let limit = members.get(unit.member())?;
            Some((unit, limit))
        });
        let (Some((unit, limit)), None) = (units.next(), units.next()) else {
            return Err(node.expected("one of requests, tokens, cost_usd"));
        };
        Ok(Self {
            unit,
            limit: match unit {
                Unit::Requests | Unit::Tokens => limit.integer()?,
                Unit::CostMicroUsd => micros(&limit)?,
            },
            per: members.require("per")?.choice(&Period::ALL.map(|per| (per.name(), per)))?,
            scope: QuotaScope::Proxy,
        })
    }

    /// Whether all proxies share it.
    pub fn is_shared(&self) -> bool {
        matches!(self.scope, QuotaScope::Cluster { .. })
    }

    /// What a proxy may spend beyond its lease in each window while the ledger does not respond.
    pub fn local(&self) -> u64 {
        let percent = match self.scope {
            QuotaScope::Cluster { local_percent } => local_percent,
            QuotaScope::Proxy => 0,
        };
        let local = u128::from(self.limit).saturating_mul(percent.into()) / 100;
        u64::try_from(local).unwrap_or(u64::MAX)
    }

    /// The use at a time: the same within its window, only debt in a later one. An earlier time
    /// counts as in the window of `spent`.
    #[must_use]
    pub fn roll(&self, spent: Spent, now_secs: u64) -> Spent {
        let window = self.per.window(now_secs);
        let Some(elapsed @ 1..) = window.checked_sub(spent.window) else {
            return spent;
        };
        // Each whole window in between pays off one limit.
        let paid = self.limit.saturating_mul(u64::from(elapsed) - 1);
        let used = spent.over.saturating_sub(paid);
        Spent { window, used, over: used.saturating_sub(self.limit), ..spent }
    }

    /// Reserves `amount`.
    ///
    /// # Errors
    ///
    /// If less than `amount` is left: the earliest Unix second at which it may be available; `None`
    /// for never.
    pub fn reserve(&self, spent: Spent, amount: u64, now_secs: u64) -> Result<Spent, Option<u64>> {
        let spent = self.roll(spent, now_secs);
        match spent.used.checked_add(amount).filter(|used| *used <= self.limit) {
            Some(used) => Ok(Spent { used, ..spent }),
            None => Err(self.room_secs(spent, amount)),
        }
    }

    /// Replaces a reservation by the actual use. Within the window of the reservation the
    /// difference counts in both directions. In a later window only use above the reservation
    /// counts: what was not used belonged to the earlier window, which has ended.
    #[must_use]
    pub fn settle(
        &self,
        spent: Spent,
        reserved: QuotaReservation,
        actual: u64,
        now_secs: u64,
    ) -> Spent {
        let spent = self.roll(spent, now_secs);
        let used = if self.per.window(reserved.at_secs) == spent.window {
            spent.used.saturating_sub(reserved.amount).saturating_add(actual)
        } else {
            spent.used.saturating_add(actual.saturating_sub(reserved.amount))
        };
        // Only use above the reservation can be debt. Use that a higher limit allowed earlier was
        // within that limit.
        let beyond = actual.saturating_sub(reserved.amount);
        let over = used.saturating_sub(self.limit).min(spent.over.saturating_add(beyond));
        Spent { used, over, ..spent }
    }

    /// The start of the first window in which the remaining debt leaves room for `amount`.
    fn room_secs(&self, spent: Spent, amount: u64) -> Option<u64> {
        let room = self.limit.checked_sub(amount)?;
        let owed = spent.over.saturating_sub(room);
        let paying = owed.checked_div(self.limit).map_or(0, |_| owed.div_ceil(self.limit));
        let windows = u32::try_from(paying).ok()?.checked_add(1)?;
        self.per.start_secs(spent.window.checked_add(windows)?)
    }
}

/// Reads which proxies share a quota, and what each of them may spend without the ledger.
fn read_scope(members: &Members<'_>) -> Result<QuotaScope, Invalid> {
    let scopes = [("proxy", false), ("cluster", true)];
    let is_shared = members.read("scope", |node| node.choice(&scopes))?.unwrap_or(false);
    let is_local = members.read("on_loss", |node| {
        match node.choice(&[("refuse", false), ("local", true)])? {
            _ if !is_shared => Err(node.unusable("it needs \"scope\": \"cluster\"")),
            is_local => Ok(is_local),
        }
    })?;
    let percent = members.read("local_percent", |node| match node.integer()? {
        _ if is_local != Some(true) => Err(node.unusable("it needs \"on_loss\": \"local\"")),
        percent @ 1..=100 => u8::try_from(percent).map_err(|_| node.expected("1 to 100")),
        _ => Err(node.expected("1 to 100")),
    })?;
    if is_local == Some(true) && percent.is_none() {
        return members.require("local_percent").map(|_| QuotaScope::Proxy);
    }
    let local_percent = percent.unwrap_or(0);
    Ok(if is_shared { QuotaScope::Cluster { local_percent } } else { QuotaScope::Proxy })
}

/// What a request reserved of a quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaReservation {
    /// The amount, in the quota's unit.
    pub amount: u64,
    /// When it was reserved, in Unix seconds.
    pub at_secs: u64,
}

// === the calendar ===

/// Days of a cycle of the Gregorian calendar, of a century in it, and of four years in that.
const DAYS_PER_400_YEARS: u64 = 146_097;

/// Days from 0000-03-01 to 1970-01-01. Years that begin in March end with their leap day.
const DAYS_BEFORE_1970: u64 = 719_468;

const MONTHS_BEFORE_1970: u64 = 1970 * 12;

/// The number of the month a day lies in, counted from January 1970. Howard Hinnant,
/// "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn months(days: u64) -> u64 {
    let days = days.saturating_add(DAYS_BEFORE_1970);
    let (cycle, day) = (days / DAYS_PER_400_YEARS, days % DAYS_PER_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let months_from_march_0 = (cycle * 400 + year) * 12 + month_from_march;
    // March is the third month: 0000-03 is month 2 of year 0.
    months_from_march_0.saturating_add(2).saturating_sub(MONTHS_BEFORE_1970)
}

/// Days from 1970-01-01 to the first of a month, the inverse of [`months`].
fn days_before_month(month: u64) -> u64 {
    let months_from_march_0 = month + MONTHS_BEFORE_1970 - 2;
    let (year, month) = (months_from_march_0 / 12, months_from_march_0 % 12);
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5;
    days.saturating_sub(DAYS_BEFORE_1970)
}

#[cfg(test)]
mod tests;
