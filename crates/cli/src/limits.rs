//! Limits for display.

use vkey::json::Json;
use vkey::limits::quota::{Period, Quota, QuotaScope, Unit};
use vkey::limits::{Charge, Limit};

use super::time::format_duration;

/// A limit in words.
pub(super) fn text(limit: &Limit) -> String {
    match limit {
        Limit::Rate(rate) => {
            let requests = amount(Unit::Requests, rate.requests().into());
            format!("{requests} in {}, {} at once", format_duration(rate.per_secs()), rate.burst())
        }
        Limit::Quota(Quota { unit, limit, per, scope }) => {
            let amount = amount(*unit, *limit);
            let text = match per {
                Period::Total => format!("{amount} in all"),
                Period::Hour => format!("{amount} an hour"),
                per => format!("{amount} a {}", per.name()),
            };
            match scope {
                QuotaScope::Proxy => text,
                QuotaScope::Cluster { .. } => format!("{text}, of all proxies"),
            }
        }
    }
}

/// A limit as JSON, with the numbers as configured. Money is in micro-USD.
pub(super) fn to_json(charge: &Charge) -> Json {
    let name = charge.name().to_string();
    let name = ("name", name.as_str().into());
    match charge.limit {
        Limit::Rate(rate) => Json::object([
            name,
            ("requests", u64::from(rate.requests()).into()),
            ("per_secs", rate.per_secs().into()),
            ("burst", u64::from(rate.burst()).into()),
        ]),
        Limit::Quota(Quota { limit, per, scope: QuotaScope::Proxy, .. }) => {
            Json::object([name, ("limit", limit.into()), ("per", per.name().into())])
        }
        Limit::Quota(Quota { limit, per, scope: QuotaScope::Cluster { .. }, .. }) => {
            Json::object([
                name,
                ("limit", limit.into()),
                ("per", per.name().into()),
                ("scope", "cluster".into()),
            ])
        }
    }
}

fn amount(unit: Unit, number: u64) -> String {
    match (unit, number) {
        (Unit::Requests, 1) => "1 request".to_owned(),
        (Unit::Requests, _) => format!("{number} requests"),
        (Unit::Tokens, 1) => "1 token".to_owned(),
        (Unit::Tokens, _) => format!("{number} tokens"),
        (Unit::CostMicroUsd, _) => format!("{number} micro-USD"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_english() {
        let quota = |unit, limit, per| {
            text(&Limit::Quota(Quota { unit, limit, per, scope: QuotaScope::Proxy }))
        };
        assert_eq!(quota(Unit::Requests, 1, Period::Hour), "1 request an hour");
        assert_eq!(quota(Unit::Requests, 0, Period::Minute), "0 requests a minute");
        assert_eq!(quota(Unit::Tokens, 1, Period::Week), "1 token a week");
        assert_eq!(quota(Unit::CostMicroUsd, 5, Period::Total), "5 micro-USD in all");
    }
}
