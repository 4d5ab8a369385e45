//! The accounts of a ledger, as it reports them: parsing and display.

use std::fmt;

use vkey::json::{Integers, Invalid, Json, Node};
use vkey::ledger::AccountName;
use vkey::limits::quota::Unit;
use vkey::time::rfc3339;

use super::counts::dollars;
use super::text::escape_word;

/// The longest response that is read, in bytes: several times what a ledger returns.
pub(super) const MAX_ACCOUNTS_BYTES: u64 = 2 * 1024 * 1024;

const NONE: &str = "none: nothing of a budget of this tenant or key was ordered in its present window; check the names";

const MORE: &str = "there are more accounts; ask for one key with --jti";

/// Accounts. Names are already escaped for display.
pub(super) struct Accounts {
    accounts: Box<[Account]>,
    has_more: bool,
}

/// An account. Money is in micro-USD.
struct Account {
    name: String,
    is_money: bool,
    limit: u64,
    used: u64,
    held: u64,
    left: u64,
    leases: u64,
    /// The last second of its window, Unix time; `None` for a total.
    until_secs: Option<u64>,
}

/// A row of the table.
type Row = [String; 7];

// === impl Accounts ===

impl Accounts {
    /// Parses a response. Unknown members are ignored: a newer ledger may add some.
    pub(super) fn read(json: &Json) -> Result<Self, Invalid> {
        let root = json.root(Integers::Digits);
        let members = root.open_members()?;
        Ok(Self {
            accounts: members.require("accounts")?.list(Account::read)?,
            has_more: members.read("more", Node::bool)?.unwrap_or(false),
        })
    }
}

impl fmt::Display for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.accounts.is_empty() {
            return writeln!(f, "{:<13}{NONE}", "budgets");
        }
        let head = ["budget", "total", "used", "held", "left", "leases", "until"];
        let head = head.map(str::to_owned);
        let rows: Vec<Row> =
            [head].into_iter().chain(self.accounts.iter().map(Account::row)).collect();
        write_table(f, &rows)?;
        if self.has_more { writeln!(f, "{MORE}") } else { Ok(()) }
    }
}

// === impl Account ===

impl Account {
    fn read(node: &Node<'_>) -> Result<Self, Invalid> {
        let members = node.open_members()?;
        let name = members.require("account")?.string()?;
        let count = |member| members.require(member)?.count();
        let until = members.require("until")?;
        let known = AccountName::parse(name);
        let is_money = known.as_ref().is_some_and(|name| name.unit == Unit::CostMicroUsd);
        Ok(Self {
            // One that is valid has no character to escape.
            name: known.map_or_else(|| escape_word(name), |name| name.to_string()),
            is_money,
            limit: count("limit")?,
            used: count("used")?,
            held: count("held")?,
            left: count("left")?,
            leases: count("leases")?,
            until_secs: match until.value() {
                Json::Null => None,
                _ => Some(until.time()?),
            },
        })
    }

    fn row(&self) -> Row {
        let amount = |n: u64| if self.is_money { dollars(n) } else { n.to_string() };
        [
            self.name.clone(),
            amount(self.limit),
            amount(self.used),
            amount(self.held),
            amount(self.left),
            self.leases.to_string(),
            self.until_secs.map_or("never".to_owned(), rfc3339),
        ]
    }
}

/// The first column is text, the last too; the others are numbers.
fn write_table(f: &mut fmt::Formatter<'_>, rows: &[Row]) -> fmt::Result {
    let mut widths = [23, 9, 8, 8, 8, 6];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    let [name_width, a, b, c, d, e] = widths;
    for [name, limit, used, held, left, leases, until] in rows {
        writeln!(
            f,
            "{name:<name_width$}  {limit:>a$}  {used:>b$}  {held:>c$}  {left:>d$}  {leases:>e$}  {until}"
        )?;
    }
    Ok(())
}
