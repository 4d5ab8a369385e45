//! The counts of a key, as a gate reports them: parsing and display.

use std::fmt;

use vkey::json::{Integers, Invalid, Json, Node};

use super::text::escape_word;
use super::time::format_duration;

/// The part of an allowance's name that marks it as money.
const MONEY: &str = "_cost_";

const UNKNOWN_KEY: &str =
    "the gate has counted no request of this key; check the id, the tenant and the URL";

const UNKNOWN_TENANT: &str = "the gate has no counts of this tenant: it has those of the tenants that its configuration \
    lists, without metrics only of those with limits; check the name";

/// A usage document. Names are already escaped for display.
pub(super) struct Counts {
    jti: Option<String>,
    tenant: Option<String>,
    tier: Option<String>,
    /// Whether the gate has counts of the key or the tenant; if not, all are zero.
    known: bool,
    seen: u64,
    allowed: u64,
    denied: Vec<(String, u64)>,
    limits: Box<[Limit]>,
}

/// One allowance. Money is in micro-USD.
struct Limit {
    name: String,
    money: bool,
    limit: Option<u64>,
    used: u64,
    remaining: Option<u64>,
    reset_secs: Option<u64>,
}

/// A row of the table of allowances.
type Row = [String; 5];

// === impl Counts ===

impl Counts {
    /// Parses a usage document. Unknown members are ignored: a newer gate may add some.
    pub(super) fn read(json: &Json) -> Result<Self, Invalid> {
        let root = json.root(Integers::Digits);
        let members = root.open_members()?;
        let name =
            |member| nullable(&members.require(member)?, |node| node.string().map(escape_word));
        Ok(Self {
            jti: name("jti")?,
            tenant: name("tenant")?,
            tier: name("tier")?,
            known: members.read("known", Node::bool)?.unwrap_or(true),
            seen: members.require("seen")?.integer()?,
            allowed: members.require("allowed")?.integer()?,
            denied: denials(&members.require("denied")?)?,
            limits: members.require("limits")?.list(Limit::read)?,
        })
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (label, name) in [("key", &self.jti), ("tenant", &self.tenant), ("tier", &self.tier)] {
            writeln!(f, "{label:<13}{}", name.as_deref().unwrap_or("-"))?;
        }
        if !self.known {
            let unknown = if self.jti.is_some() { UNKNOWN_KEY } else { UNKNOWN_TENANT };
            return writeln!(f, "{:<13}{unknown}", "unknown");
        }
        writeln!(f, "{:<13}{}", "seen", self.seen)?;
        writeln!(f, "{:<13}{}", "allowed", self.allowed)?;
        writeln!(f, "{:<13}{}", "denied", denied(&self.denied))?;
        if self.limits.is_empty() {
            return writeln!(f, "{:<13}none", "limits");
        }
        let head = ["limit", "total", "used", "remaining", "resets in"].map(str::to_owned);
        let rows: Vec<Row> = [head].into_iter().chain(self.limits.iter().map(Limit::row)).collect();
        writeln!(f)?;
        write_table(f, &rows)
    }
}

// === impl Limit ===

impl Limit {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.open_members()?;
        let name = members.require("name")?.string()?;
        let integer = |member| nullable(&members.require(member)?, Node::integer);
        Ok(Self {
            name: escape_word(name),
            money: name.contains(MONEY),
            limit: integer("limit")?,
            used: members.require("used")?.integer()?,
            remaining: integer("remaining")?,
            reset_secs: integer("reset_secs")?,
        })
    }

    fn row(&self) -> Row {
        let amount = |n: u64| if self.money { dollars(n) } else { n.to_string() };
        let known = |n: Option<u64>| n.map_or("-".to_owned(), amount);
        [
            self.name.clone(),
            known(self.limit),
            amount(self.used),
            known(self.remaining),
            self.reset_secs.map_or("never".to_owned(), format_duration),
        ]
    }
}

fn nullable<'a, T>(
    node: &Node<'a>,
    read: impl FnOnce(&Node<'a>) -> Result<T, Invalid>,
) -> Result<Option<T>, Invalid> {
    match node.value() {
        Json::Null => Ok(None),
        _ => read(node).map(Some),
    }
}

/// The classes of denials that occurred, the most frequent first.
fn denials(node: &Node<'_>) -> Result<Vec<(String, u64)>, Invalid> {
    let read = |(class, count): (&str, Node<'_>)| Ok((escape_word(class), count.integer()?));
    let mut denied: Vec<_> = node.entries()?.map(read).collect::<Result<_, _>>()?;
    denied.retain(|(_, count)| *count > 0);
    denied.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    Ok(denied)
}

fn denied(classes: &[(String, u64)]) -> String {
    let sum = classes.iter().fold(0_u64, |sum, (_, count)| sum.saturating_add(*count));
    let list: Vec<_> = classes.iter().map(|(class, count)| format!("{class} {count}")).collect();
    if list.is_empty() { sum.to_string() } else { format!("{sum}: {}", list.join(", ")) }
}

fn write_table(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    let (wide, a, b, c) = widths(rows);
    for [name, limit, used, remaining, reset] in rows {
        writeln!(f, "{name:<wide$}  {limit:>a$}  {used:>b$}  {remaining:>c$}  {reset}")?;
    }
    Ok(())
}

/// The widths of the columns. The minimum suits most documents, so that tables line up with each other.
fn widths(rows: &[Row]) -> (usize, usize, usize, usize) {
    rows.iter().fold((23, 9, 8, 9), |(a, b, c, d), [name, limit, used, remaining, _]| {
        (a.max(name.len()), b.max(limit.len()), c.max(used.len()), d.max(remaining.len()))
    })
}

/// Micro-USD in dollars: at least cents, without trailing zeros after them.
pub(super) fn dollars(micros: u64) -> String {
    let (whole, part) = (micros / 1_000_000, micros % 1_000_000);
    let below_cents = format!("{:04}", part % 10_000);
    format!("${whole}.{:02}{}", part / 10_000, below_cents.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_in_dollars() {
        let amounts = [
            (0, "$0.00"),
            (1, "$0.000001"),
            (10_000, "$0.01"),
            (120_000, "$0.12"),
            (1_500_000, "$1.50"),
            (1_234_500, "$1.2345"),
            (1_000_010, "$1.00001"),
            (25_000_000, "$25.00"),
            (u64::MAX, "$18446744073709.551615"),
        ];
        for (micros, text) in amounts {
            assert_eq!(dollars(micros), text);
        }
    }
}
