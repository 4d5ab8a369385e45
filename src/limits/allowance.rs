//! What is left of a limit, and the header fields that report it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt::{self, Write as _};

use crate::json::Object;
use crate::json::decimal::push_decimal;
use crate::limits::gcra::{Rate, Tat};
use crate::limits::quota::{Quota, Spent, Unit};
use crate::limits::{Kind, LimitName};
use crate::time::{nanos, secs, secs_until};

/// The largest integer of a structured field (RFC 9651, section 3.3.1).
const MAX_FIELD_INTEGER: u64 = 999_999_999_999_999;

/// The most limits that a field lists.
const MAX_ITEMS: usize = 16;

/// Enough bytes for a usual item of a field.
const ITEM_BYTES: usize = 48;

/// What is left of one limit at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// The limit.
    pub name: LimitName,
    /// The total: the burst of a rate, the amount per window of a quota; money in micro-USD.
    pub limit: u64,
    /// How much is left.
    pub remaining: u64,
    /// Seconds until all of it is available again, rounded up; `None` for never.
    pub reset_secs: Option<u64>,
    /// The limit over time: an amount and its window in seconds, `None` for a window that never
    /// ends.
    pub policy: (u64, Option<u64>),
}

/// The values of the two header fields that report limits to a client
/// (draft-ietf-httpapi-ratelimit-headers-10).
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
        let (quota, window_secs) = rate.policy();
        Self {
            name,
            limit: u64::from(rate.burst()),
            remaining: rate.remaining(tat, at_ns),
            reset_secs: Some(secs_until(tat.ceil_ns(), now_ns)),
            policy: (quota, Some(window_secs)),
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
        let start_secs = quota.per.start_secs(spent.window);
        let end_secs = quota.per.end_secs(spent.window);
        let window_secs = end_secs.zip(start_secs).map(|(end, start)| end.saturating_sub(start));
        Self {
            name,
            limit: quota.limit,
            remaining: quota.limit.saturating_sub(spent.used),
            reset_secs: end_secs.map(|secs| secs_until(nanos(secs), now_ns)),
            policy: (quota.limit, window_secs),
        }
    }

    /// The amount that is used.
    pub fn used(&self) -> u64 {
        self.limit.saturating_sub(self.remaining)
    }

    /// Writes the allowance as an object of a usage response.
    pub(crate) fn write(&self, text: &mut String) {
        let mut object = Object::open(text);
        object.text("name", Some(&self.name.to_string()));
        object.number("limit", Some(self.limit));
        object.number("used", Some(self.used()));
        object.number("remaining", Some(self.remaining));
        object.number("reset_secs", self.reset_secs);
        object.close();
    }

    /// Appends the item of `RateLimit-Policy`: the quota `q`, its unit `qu` unless it is requests,
    /// and the window `w` in seconds.
    fn write_policy(&self, field: &mut String) -> fmt::Result {
        let (quota, window_secs) = self.policy;
        self.write_name(field)?;
        push_parameter(field, ";q=", Some(quota));
        field.push_str(match self.name.kind {
            Kind::Rate | Kind::Quota(Unit::Requests, _) => "",
            Kind::Quota(Unit::Tokens, _) => ";qu=\"tokens\"",
            Kind::Quota(Unit::CostMicroUsd, _) => ";qu=\"micro-usd\"",
        });
        push_parameter(field, ";w=", window_secs);
        Ok(())
    }

    /// Appends the item of `RateLimit`: what remains, `r`, and the seconds until it is reset, `t`.
    fn write_state(&self, field: &mut String) -> fmt::Result {
        self.write_name(field)?;
        push_parameter(field, ";r=", Some(self.remaining));
        push_parameter(field, ";t=", self.reset_secs);
        Ok(())
    }

    fn write_name(&self, field: &mut String) -> fmt::Result {
        write!(field, "\"{}\"", self.name)
    }
}

impl RateLimitFields {
    /// The fields for `allowances`; `None` if there are none.
    ///
    /// Of more than `MAX_ITEMS` limits only those with the least left, because headers must fit
    /// into the buffers of proxies and clients.
    pub fn new(allowances: &[Allowance]) -> Option<Self> {
        let mut told: Vec<&Allowance> = allowances.iter().collect();
        if told.len() > MAX_ITEMS {
            let room = |(index, allowance): (usize, &Allowance)| (allowance.remaining, index);
            let mut least: BinaryHeap<_> =
                allowances.iter().enumerate().map(room).map(Reverse).collect();
            let least = std::iter::from_fn(|| least.pop()).take(MAX_ITEMS);
            told = least.filter_map(|Reverse((_, index))| allowances.get(index)).collect();
        }
        let policy = list(&told, Allowance::write_policy)?;
        Some(Self { policy, state: list(&told, Allowance::write_state)? })
    }

    /// The fields for a blocked source: of `threshold` failed authentications in `window_secs`,
    /// none is left.
    pub fn blocked(threshold: u32, window_secs: u64, reset_secs: u64) -> Self {
        Self {
            policy: format!("\"auth_failures\";q={threshold};w={window_secs}"),
            state: format!("\"auth_failures\";r=0;t={reset_secs}"),
        }
    }

    /// The fields by name.
    pub fn into_headers(self) -> [(&'static str, String); 2] {
        [("ratelimit-policy", self.policy), ("ratelimit", self.state)]
    }
}

/// A list of a structured field (RFC 9651, section 3.1); `None` without items.
fn list(
    allowances: &[&Allowance],
    write: fn(&Allowance, &mut String) -> fmt::Result,
) -> Option<String> {
    let (first, rest) = allowances.split_first()?;
    let mut field = String::with_capacity(allowances.len() * ITEM_BYTES);
    write(first, &mut field).ok()?;
    for allowance in rest {
        field.push_str(", ");
        write(allowance, &mut field).ok()?;
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
    use crate::limits::Origin;
    use crate::limits::quota::Period;

    fn allowance(kind: Kind, limit: u64, remaining: u64, secs: Option<u64>) -> Allowance {
        let name = LimitName { origin: Origin::Tier, kind };
        Allowance { name, limit, remaining, reset_secs: secs, policy: (limit, secs) }
    }

    #[test]
    fn fields_are_lists_of_named_items() {
        let fields = RateLimitFields::new(&[
            allowance(Kind::Rate, 200, 199, Some(2)),
            allowance(Kind::Quota(Unit::CostMicroUsd, Period::Total), u64::MAX, 0, None),
        ]);
        let fields = fields.unwrap();
        assert_eq!(
            fields.policy,
            r#""tier_rate";q=200;w=2, "tier_cost_total";q=999999999999999;qu="micro-usd""#
        );
        assert_eq!(fields.state, r#""tier_rate";r=199;t=2, "tier_cost_total";r=0"#);
        assert_eq!(RateLimitFields::new(&[]), None);
    }

    #[test]
    fn fields_tell_of_the_limits_with_the_least_room() {
        let kind = Kind::Quota(Unit::Requests, Period::Day);
        let many: Vec<_> = (0..100).rev().map(|left| allowance(kind, 100, left, None)).collect();
        let state = RateLimitFields::new(&many).unwrap().state;
        assert_eq!(state.matches("tier_requests_day").count(), MAX_ITEMS);
        assert!(state.contains(";r=0") && state.contains(";r=15") && !state.contains(";r=16"));
    }

    #[test]
    fn an_allowance_in_a_usage_answer() {
        let shown = allowance(Kind::Quota(Unit::Requests, Period::Day), 10, 4, Some(60));
        let expected =
            r#"{"name":"tier_requests_day","limit":10,"used":6,"remaining":4,"reset_secs":60}"#;
        let mut text = String::new();
        shown.write(&mut text);
        assert_eq!(text, expected);
    }
}
