//! What is left of a limit, and the header fields that report it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::decision::{Decision, DenyClass};
use crate::json::decimal::push_decimal;
use crate::json::{Invalid, Node, Object};
use crate::limits::gcra::{Rate, Tat};
use crate::limits::lease::Lease;
use crate::limits::quota::{Period, Quota, Spent, Unit};
use crate::limits::{Kind, LimitName};
use crate::time::{nanos, secs, secs_until};

/// The largest integer of a structured field (RFC 9651, section 3.3.1).
const MAX_FIELD_INTEGER: u64 = 999_999_999_999_999;

/// The most limits that a field lists.
const MAX_ITEMS: usize = 16;

/// Enough bytes for the longest item of a field and the comma after it.
const ITEM_BYTES: usize = 80;

/// Which responses have the headers `RateLimit` and `RateLimit-Policy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitHeaders {
    /// The response to an allowed request has `RateLimit`, a refusal for a limit has both.
    #[default]
    Always,
    /// A refusal for a limit has both.
    Refused,
    /// No response has either.
    Never,
}

/// What is left of one limit at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The limit.
    pub name: LimitName,
    /// The total: the burst of a rate, the amount per window of a quota; money in micro-USD.
    pub limit: u64,
    /// The amount that is used. More than the limit if a response used more than was reserved for it, or if the limit
    /// was lowered.
    pub used: u64,
    /// Seconds until all of it is available again, rounded up; `None` for never.
    pub reset_secs: Option<u64>,
    /// The time that it is for.
    pub window: Window,
}

/// The time that a limit is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The window of this number: see [`Period::window`].
    Calendar(Period, u32),
    /// That of a rate.
    Rate(Rate),
}

/// The values of the two header fields of a refusal for a limit (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimitFields {
    /// `RateLimit-Policy`: what the limits are.
    pub policy: String,
    /// `RateLimit`: what is left of them.
    pub state: String,
}

impl Allowance {
    /// The allowance of a rate at `at_ns`; the reset is counted from `now_ns`.
    pub(crate) fn of_rate(name: LimitName, rate: &Rate, tat: Tat, at_ns: u64, now_ns: u64) -> Self {
        let limit = u64::from(rate.burst());
        Self {
            name,
            limit,
            used: limit.saturating_sub(rate.remaining(tat, at_ns)),
            reset_secs: Some(secs_until(tat.ceil_ns(), now_ns)),
            window: Window::Rate(*rate),
        }
    }

    /// The allowance of a quota at `at_ns`; the reset is counted from `now_ns`.
    pub(crate) fn of_quota(
        name: LimitName,
        quota: &Quota,
        spent: Spent,
        at_ns: u64,
        now_ns: u64,
    ) -> Self {
        let spent = quota.roll(spent, secs(at_ns));
        let end_secs = quota.per.end_secs(spent.window);
        Self {
            name,
            limit: quota.limit,
            used: spent.used,
            reset_secs: end_secs.map(|secs| secs_until(nanos(secs), now_ns)),
            window: Window::Calendar(quota.per, spent.window),
        }
    }

    /// The allowance of a quota that proxies share, as far as this proxy knows it; the reset is counted from `now_ns`.
    pub(crate) fn of_lease(
        name: LimitName,
        quota: &Quota,
        lease: Option<&Lease>,
        at_ns: u64,
        now_ns: u64,
    ) -> Self {
        let used = lease.map_or(0, |lease| match lease.has_receipt() {
            true => quota.limit.saturating_sub(lease.left.saturating_add(lease.remaining())),
            false => lease.used,
        });
        let spent = Spent { window: quota.per.window(secs(at_ns)), used, ..Spent::default() };
        Self::of_quota(name, quota, spent, at_ns, now_ns)
    }

    /// How much is left.
    pub fn remaining(&self) -> u64 {
        self.limit.saturating_sub(self.used)
    }

    /// The limit over time: an amount and its window in seconds, `None` for a window that never ends.
    fn policy(&self) -> (u64, Option<u64>) {
        match self.window {
            Window::Calendar(per, window) => {
                let bounds = per.start_secs(window).zip(per.end_secs(window));
                (self.limit, bounds.map(|(start, end)| end.saturating_sub(start)))
            }
            Window::Rate(rate) => {
                let (quota, window_secs) = rate.policy();
                (quota, Some(window_secs))
            }
        }
    }

    /// Writes the allowance as an object of a usage response.
    pub(crate) fn write(&self, text: &mut String) {
        let mut object = Object::open(text);
        object.text("name", Some(&self.name.to_string()));
        object.number("limit", Some(self.limit));
        object.number("used", Some(self.used));
        object.number("remaining", Some(self.remaining()));
        object.number("reset_secs", self.reset_secs);
        object.close();
    }

    /// Whether the fields may list it. They are about requests: a client that reads them knows neither what a request
    /// reserves of tokens or money, nor what open ones will give back.
    fn is_of_requests(&self) -> bool {
        matches!(self.name.kind, Kind::Rate | Kind::Quota(Unit::Requests, _))
    }

    /// Appends the item of `RateLimit-Policy`: the quota `q` and the window `w` in seconds.
    fn write_policy(&self, field: &mut String) {
        let (quota, window_secs) = self.policy();
        self.write_name(field);
        push_parameter(field, ";q=", Some(quota));
        push_parameter(field, ";w=", window_secs);
    }

    /// Appends the item of `RateLimit`: what remains, `r`, and the seconds until it is reset, `t`.
    fn write_state(&self, field: &mut String) {
        self.write_name(field);
        push_parameter(field, ";r=", Some(self.remaining()));
        push_parameter(field, ";t=", self.reset_secs);
    }

    fn write_name(&self, field: &mut String) {
        field.push('"');
        self.name.push_to(field);
        field.push('"');
    }
}

impl LimitHeaders {
    /// Reads the word for it.
    ///
    /// # Errors
    ///
    /// [`Invalid`] for any other word than `always`, `refused` and `never`.
    pub fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        node.choice(&[("always", Self::Always), ("refused", Self::Refused), ("never", Self::Never)])
    }

    /// Whether allowances are needed for the response to a request with this decision. A refusal for a limit
    /// names the limit in its message too.
    pub fn need_allowances(self, decision: Decision) -> bool {
        match decision {
            Decision::Deny(reason) => reason.class() == DenyClass::Limited,
            _ => self == Self::Always,
        }
    }
}

/// The `RateLimit` field of the response to an allowed request; `None` without limits. It is allocated once.
pub fn rate_limit_field(allowances: &[Allowance]) -> Option<String> {
    list(&shown(allowances), Allowance::write_state)
}

impl RateLimitFields {
    /// The fields for `allowances`; `None` if there are none.
    pub fn new(allowances: &[Allowance]) -> Option<Self> {
        let shown = shown(allowances);
        let policy = list(&shown, Allowance::write_policy)?;
        Some(Self { policy, state: list(&shown, Allowance::write_state)? })
    }

    /// The fields for a blocked source: of `threshold` failed authentications in `window_secs`,
    /// none is left.
    pub fn blocked(threshold: u32, window_secs: u64, reset_secs: u64) -> Self {
        Self {
            policy: format!("\"auth_failures\";q={threshold};w={window_secs}"),
            state: format!("\"auth_failures\";r=0;t={reset_secs}"),
        }
    }
}

/// The allowances that a field lists, of requests and others. If there are more than `MAX_ITEMS` of requests, only those
/// with the least left, because headers must fit into the buffers of proxies and clients.
fn shown(allowances: &[Allowance]) -> Cow<'_, [Allowance]> {
    if allowances.len() <= MAX_ITEMS { allowances.into() } else { least(allowances).into() }
}

#[cold]
fn least(allowances: &[Allowance]) -> Vec<Allowance> {
    let of_requests = allowances.iter().filter(|allowance| allowance.is_of_requests());
    let of_requests = Vec::from_iter(of_requests.copied());
    if of_requests.len() <= MAX_ITEMS {
        return of_requests;
    }
    let room = |(index, allowance): (usize, &Allowance)| (allowance.remaining(), index);
    let mut least: BinaryHeap<_> = of_requests.iter().enumerate().map(room).map(Reverse).collect();
    let least = std::iter::from_fn(|| least.pop()).take(MAX_ITEMS);
    least.filter_map(|Reverse((_, index))| of_requests.get(index).copied()).collect()
}

/// A list of a structured field (RFC 9651, section 3.1), of those of requests; `None` without items.
fn list(allowances: &[Allowance], write: fn(&Allowance, &mut String)) -> Option<String> {
    let mut of_requests = allowances.iter().filter(|allowance| allowance.is_of_requests());
    let first = of_requests.next()?;
    let mut field = String::with_capacity(allowances.len() * ITEM_BYTES);
    write(first, &mut field);
    for allowance in of_requests {
        field.push_str(", ");
        write(allowance, &mut field);
    }
    Some(field)
}

fn push_parameter(field: &mut String, name: &str, value: Option<u64>) {
    if let Some(value) = value {
        field.push_str(name);
        push_decimal(field, value.min(MAX_FIELD_INTEGER));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::DenyReason;
    use crate::key::token::MAX_CAVEATS;
    use crate::limits::Origin;

    fn allowance(kind: Kind, limit: u64, remaining: u64, secs: Option<u64>) -> Allowance {
        let name = LimitName { origin: Origin::Tier, kind };
        let window = match kind {
            Kind::Rate => Window::Rate(Rate::new(100, 1, 200).unwrap()),
            Kind::Quota(_, per) => Window::Calendar(per, 0),
        };
        Allowance { name, limit, used: limit - remaining, reset_secs: secs, window }
    }

    #[test]
    fn fields_are_lists_of_named_items() {
        let fields = RateLimitFields::new(&[
            allowance(Kind::Rate, 200, 199, Some(2)),
            allowance(Kind::Quota(Unit::Requests, Period::Total), u64::MAX, 0, None),
        ]);
        let fields = fields.unwrap();
        assert_eq!(
            fields.policy,
            r#""tier_rate";q=200;w=2, "tier_requests_total";q=999999999999999"#
        );
        assert_eq!(fields.state, r#""tier_rate";r=199;t=2, "tier_requests_total";r=0"#);
        assert_eq!((RateLimitFields::new(&[]), rate_limit_field(&[])), (None, None));
    }

    #[test]
    fn fields_tell_of_the_limits_with_the_least_room() {
        let kind = Kind::Quota(Unit::Requests, Period::Day);
        let many: Vec<_> = (0..100).rev().map(|left| allowance(kind, 100, left, None)).collect();
        let state = rate_limit_field(&many).unwrap();
        assert_eq!(state.matches("tier_requests_day").count(), MAX_ITEMS);
        assert!(state.contains(";r=0") && state.contains(";r=15") && !state.contains(";r=16"));
    }

    #[test]
    fn fields_are_about_requests() {
        let of = |unit| Kind::Quota(unit, Period::Day);
        let all = Unit::ALL.map(|unit| allowance(of(unit), 10, 4, Some(60)));
        let fields = RateLimitFields::new(&all).unwrap();
        assert_eq!(fields.policy, r#""tier_requests_day";q=10;w=86400"#);
        assert_eq!(fields.state, r#""tier_requests_day";r=4;t=60"#);
        assert_eq!(rate_limit_field(&all), Some(fields.state));
        assert_eq!((RateLimitFields::new(&all[1..]), rate_limit_field(&all[1..])), (None, None));
        // They are in the order of the limits if there is room for all of requests.
        let many = Unit::ALL.iter().cycle().take(3 * MAX_ITEMS).enumerate();
        let many = many.map(|(left, unit)| allowance(of(*unit), 99, 98 - left as u64, None));
        let state = rate_limit_field(&Vec::from_iter(many)).unwrap();
        assert!(state.starts_with(r#""tier_requests_day";r=98, "#) && state.ends_with(";r=53"));
    }

    #[test]
    fn the_longest_items_fit_into_what_is_allocated_for_them() {
        let name = LimitName {
            origin: Origin::Caveat(MAX_CAVEATS),
            kind: Kind::Quota(Unit::Requests, Period::Minute),
        };
        let max = u64::MAX;
        let window = Window::Calendar(Period::Month, u32::MAX);
        let longest = Allowance { name, limit: max, used: 0, reset_secs: Some(max), window };
        let fields = RateLimitFields::new(&[longest; MAX_ITEMS]).unwrap();
        for field in [fields.policy, fields.state] {
            assert_eq!(field.capacity(), MAX_ITEMS * ITEM_BYTES, "{field}");
        }
    }

    #[test]
    fn allowances_are_worked_out_only_for_what_is_shown() {
        let [allow, shadow] = [Decision::Allow, Decision::Shadow(DenyReason::Rate)];
        let [limited, path] = [DenyReason::TenantQuota, DenyReason::Path].map(Decision::Deny);
        for (headers, allowed) in [
            (LimitHeaders::Always, true),
            (LimitHeaders::Refused, false),
            (LimitHeaders::Never, false),
        ] {
            let needed = [allow, shadow, limited, path].map(|d| headers.need_allowances(d));
            assert_eq!(needed, [allowed, allowed, true, false], "{headers:?}");
        }
    }

    #[test]
    fn an_allowance_in_a_usage_answer() {
        let shown = allowance(Kind::Quota(Unit::Requests, Period::Day), 10, 4, Some(60));
        let expected =
            r#"{"name":"tier_requests_day","limit":10,"used":6,"remaining":4,"reset_secs":60}"#;
        let mut text = String::new();
        shown.write(&mut text);
        assert_eq!(text, expected);
        let mut over = String::new();
        Allowance { used: 13, ..shown }.write(&mut over);
        assert!(over.contains(r#""limit":10,"used":13,"remaining":0,"#), "{over}");
    }
}
