//! The orders of a request.

use vkey::json::{Integers, Invalid, Json, Node};
use vkey::ledger::{AccountName, MAX_ORDERS};
use vkey::limits::lease::{Order, Wanted};
use vkey::limits::quota::Period;

/// How long after the end of its window an order is taken, in seconds.
const LATE_SECS: u64 = 86_400;

/// How far the clocks of proxies may be ahead, in seconds.
const SKEW_SECS: u64 = 60;

/// The windows after the present one for which a proxy may order.
const AHEAD: u32 = 1;

const SECS_PER_DAY: u64 = 86_400;

/// An order, and the account that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posted {
    /// The account.
    pub account: AccountName,
    /// The order.
    pub order: Order,
}

/// Reads the body of a request.
///
/// # Errors
///
/// [`Invalid`] names the first member that cannot be meant. Then no order is taken. An order for a window that is too far
/// from the present is left out, so that it does not keep the others back, unless all of them are.
pub(crate) fn parse(body: &[u8], now_secs: u64) -> Result<Box<[Posted]>, Invalid> {
    let json = Json::parse(body)?;
    let root = json.root(Integers::Digits);
    let members = root.members(&["orders"])?;
    let orders = members.require("orders")?;
    if orders.items()?.len() > MAX_ORDERS {
        return Err(orders.expected("at most 256 orders"));
    }
    let (mut taken, mut refused) = (Vec::new(), None);
    for node in orders.items()? {
        let (posted, in_time) = posted(&node, now_secs)?;
        match in_time {
            Ok(()) => taken.push(posted),
            Err(invalid) => refused = refused.or(Some(invalid)),
        }
    }
    refused.filter(|_| taken.is_empty()).map_or(Ok(taken.into()), Err)
}

/// An order, and whether its window is near the present.
type Timed = (Posted, Result<(), Invalid>);

fn posted(node: &Node<'_>, now_secs: u64) -> Result<Timed, Invalid> {
    let known =
        ["account", "lease", "number", "window", "limit", "granted", "used", "need", "want"];
    let members = node.members(&known)?;
    let count = |name| members.require(name)?.count();
    let small = |name| {
        let node = members.require(name)?;
        u32::try_from(node.count()?).map_err(|_| node.expected("a number up to 2^32 - 1"))
    };
    let name = members.require("account")?;
    let account = AccountName::parse(name.string()?);
    let account = account
        .ok_or_else(|| name.expected("key/TENANT/JTI/UNIT/PERIOD or tenant/TENANT/UNIT/PERIOD"))?;
    let wanted = Wanted { need: count("need")?, want: count("want")? };
    if wanted.need > wanted.want {
        return Err(members.require("need")?.expected("at most want"));
    }
    let order = Order {
        lease: lease(&members.require("lease")?)?,
        number: small("number")?,
        window: small("window")?,
        limit: count("limit")?,
        granted: count("granted")?,
        used: count("used")?,
        wanted,
    };
    if order.number == 0 {
        return Err(members.require("number")?.expected("a number from 1"));
    }
    let window = members.require("window")?;
    let in_time = check_window(&window, account.per, order.window, now_secs);
    Ok((Posted { account, order }, in_time))
}

fn lease(node: &Node<'_>) -> Result<u64, Invalid> {
    let text = node.string()?;
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let id = (text.len() == 16 && text.bytes().all(is_hex))
        .then(|| u64::from_str_radix(text, 16).ok())
        .flatten();
    // 0 stands for no lease.
    id.filter(|id| *id != 0).ok_or_else(|| node.expected("16 digits 0-9 a-f, not all 0"))
}

/// Refuses a window of a clock that is wrong: what is ordered for it would never count.
fn check_window(node: &Node<'_>, per: Period, window: u32, now_secs: u64) -> Result<(), Invalid> {
    if per == Period::Total {
        return if window == 0 {
            Ok(())
        } else {
            Err(node.expected("0, because the budget is a total"))
        };
    }
    let last = per.window(now_secs.saturating_add(SKEW_SECS)).saturating_add(AHEAD);
    if window > last {
        return Err(node.expected("the present window or the next one; compare the clocks"));
    }
    match per.end_secs(window) {
        Some(end) if now_secs < end.saturating_add(LATE_SECS) => Ok(()),
        _ => Err(node.expected("a window that ended at most a day ago; compare the clocks")),
    }
}

/// How long an account is kept after its window, in seconds; `None` for ever. The next window needs it for the debt, and no
/// order comes for it later than a day.
fn kept_secs(per: Period) -> Option<u64> {
    let days = match per {
        Period::Minute | Period::Hour => 2,
        Period::Day | Period::Week => 35,
        Period::Month => 400,
        Period::Total => return None,
    };
    Some(days * SECS_PER_DAY)
}

/// Until when an account is kept, Unix seconds; `None` for ever.
pub(super) fn kept_until_secs(per: Period, window: u32) -> Option<u64> {
    Some(per.end_secs(window)?.saturating_add(kept_secs(per)?))
}

/// The first window whose account is kept; `None` if all are.
pub(super) fn first_kept(per: Period, now_secs: u64) -> Option<u32> {
    Some(per.window(now_secs.saturating_sub(kept_secs(per)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vkey::ledger::write_orders;

    const NOW: u64 = 1_790_000_000;

    fn order(per: Period) -> Order {
        let wanted = Wanted { need: 1, want: 8 };
        let window = per.window(NOW);
        Order { lease: 255, number: 1, window, limit: 9, granted: 2, used: 1, wanted }
    }

    fn read(body: &str) -> Result<Box<[Posted]>, String> {
        parse(body.as_bytes(), NOW).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn what_a_proxy_writes_is_read() {
        let texts = ["key/acme/k-1/requests/day", "tenant/acme/cost/total"];
        let names = texts.map(|text| AccountName::parse(text).unwrap());
        let orders = [order(Period::Day), order(Period::Total)];
        let body = write_orders(texts.into_iter().zip(&orders));
        let posted = names.into_iter().zip(orders);
        let posted: Box<[_]> = posted.map(|(account, order)| Posted { account, order }).collect();
        assert_eq!(read(&body), Ok(posted));
        assert_eq!(read(r#"{"orders":[]}"#), Ok(Box::default()));
    }

    #[test]
    fn what_no_proxy_means_is_named() {
        let good = write_orders([("tenant/acme/tokens/day", &order(Period::Day))].into_iter());
        assert!(read(&good).is_ok());
        for (from, to, says) in [
            ("tokens/day", "tokens/fortnight", "account"),
            ("00000000000000ff", "ff", "lease"),
            ("00000000000000ff", "00000000000000FF", "lease"),
            ("00000000000000ff", "0000000000000000", "lease"),
            ("\"number\":1", "\"number\":0", "number"),
            ("\"number\":1", "\"number\":4294967296", "number"),
            ("\"limit\":9", "\"limit\":-9", "limit"),
            ("\"limit\":9", "\"limit\":9.5", "limit"),
            ("\"need\":1", "\"need\":9", "need"),
            (",\"want\":8", "", "want"),
            ("\"want\":8", "\"want\":8,\"want\":8", "line"),
            ("\"want\":8", "\"want\":8,\"gift\":8", "gift"),
            ("{\"orders\"", "{\"x\":1,\"orders\"", "x"),
        ] {
            let body = good.replace(from, to);
            assert_ne!(body, good, "{from}");
            let error = read(&body).unwrap_err();
            assert!(error.contains(says), "{to}: {error}");
        }
        for body in ["", "[]", "{}", "{\"orders\":{}}", "{\"orders\":[1]}", "\u{0}"] {
            assert!(read(body).is_err(), "{body}");
        }
    }

    #[test]
    fn more_orders_than_a_proxy_sends_are_refused() {
        let order = order(Period::Day);
        let body = |count| write_orders((0..count).map(|_| ("tenant/acme/tokens/day", &order)));
        assert_eq!(read(&body(MAX_ORDERS)).unwrap().len(), MAX_ORDERS);
        assert!(read(&body(MAX_ORDERS + 1)).unwrap_err().contains("256"));
    }

    #[test]
    fn a_window_is_near_the_present() {
        for per in Period::ALL {
            let name = format!("tenant/acme/tokens/{}", per.name());
            let present = per.window(NOW);
            let accepts = |window| {
                let order = Order { window, ..order(per) };
                read(&write_orders([(name.as_str(), &order)].into_iter())).is_ok()
            };
            assert!(accepts(present), "{per:?}");
            if per == Period::Total {
                assert!(!accepts(1));
                continue;
            }
            assert!(accepts(present + 1), "{per:?}");
            assert!(!accepts(present + 3), "{per:?}");
            let late = per.window(NOW - LATE_SECS);
            assert!(accepts(late), "{per:?}");
            assert!(!accepts(late - 1), "{per:?}");
            assert!(!accepts(0) && !accepts(u32::MAX), "{per:?}");
        }
    }
}
