//! The ledger of budgets, as a proxy speaks to it: `POST` [`LEASES_PATH`] with orders, receipts in the response. The ledger
//! itself is a part of `vkey serve`.

use std::fmt;

use crate::json::{Integers, Invalid, Json, Node, Object};
use crate::key::claims::is_id;
use crate::limits::lease::{Order, Receipt};
use crate::limits::quota::{Period, Unit};

/// The path at which orders are posted.
pub const LEASES_PATH: &str = "/v1/ledger/leases";

/// The path at which accounts are read.
pub const ACCOUNTS_PATH: &str = "/v1/ledger/accounts";

/// The most orders in one request.
pub const MAX_ORDERS: usize = 256;

/// Whose budget it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A key.
    Key {
        /// Its tenant.
        tenant: String,
        /// Its id.
        jti: String,
    },
    /// All keys of a tenant.
    Tenant {
        /// The tenant.
        tenant: String,
    },
}

/// The name of a budget: `key/TENANT/JTI/UNIT/PERIOD` or `tenant/TENANT/UNIT/PERIOD`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AccountName {
    /// Whose it is.
    pub owner: Owner,
    /// What it counts.
    pub unit: Unit,
    /// The length of its windows.
    pub per: Period,
}

/// What the ledger says to some orders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipts {
    /// The receipts, in any order.
    pub receipts: Box<[Receipt]>,
    /// The accounts of which others want more than the ledger has, and of which some proxy may hold something.
    pub scarce: Box<[String]>,
}

// === impl AccountName ===

impl AccountName {
    /// Reads a name; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (owner, unit, per) = match *parts {
            ["key", tenant, jti, unit, per] if is_id(tenant) && is_id(jti) => {
                (Owner::Key { tenant: tenant.to_owned(), jti: jti.to_owned() }, unit, per)
            }
            ["tenant", tenant, unit, per] if is_id(tenant) => {
                (Owner::Tenant { tenant: tenant.to_owned() }, unit, per)
            }
            _ => return None,
        };
        let unit = Unit::ALL.into_iter().find(|known| known.name() == unit)?;
        let per = Period::ALL.into_iter().find(|known| known.name() == per)?;
        Some(Self { owner, unit, per })
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Owner::Key { tenant, jti } => write!(f, "key/{tenant}/{jti}")?,
            Owner::Tenant { tenant } => write!(f, "tenant/{tenant}")?,
        }
        write!(f, "/{}/{}", self.unit.name(), self.per.name())
    }
}

// === orders and receipts ===

/// The body of a request with orders, each after the name of its account.
pub fn write_orders<'a>(orders: impl Iterator<Item = (&'a str, &'a Order)>) -> String {
    let mut text = String::from("{\"orders\":[");
    for (index, (account, order)) in orders.enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_order(account, order, &mut text);
    }
    text.push_str("]}");
    text
}

/// The id of a lease as it is written: a JSON number of 64 bits does not survive every reader.
pub fn lease_id(id: u64) -> String {
    let mut text = String::with_capacity(16);
    for byte in id.to_be_bytes() {
        for digit in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    text
}

fn write_order(account: &str, order: &Order, text: &mut String) {
    let Order { lease, number, window, limit, granted, used, wanted } = order;
    let mut object = Object::open(text);
    object.text("account", Some(account));
    object.text("lease", Some(&lease_id(*lease)));
    let numbers = [
        ("number", u64::from(*number)),
        ("window", u64::from(*window)),
        ("limit", *limit),
        ("granted", *granted),
        ("used", *used),
        ("need", wanted.need),
        ("want", wanted.want),
    ];
    for (name, value) in numbers {
        object.number(name, Some(value));
    }
    object.close();
}

impl Receipts {
    /// Reads a response of the ledger.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if it is not what a ledger says.
    pub fn parse(text: &[u8]) -> Result<Self, Invalid> {
        let json = Json::parse(text)?;
        let root = json.root(Integers::Digits);
        let members = root.open_members()?;
        Ok(Self {
            receipts: members.require("receipts")?.list(receipt)?,
            scarce: members
                .read("scarce", |node| node.list(|name| name.string().map(str::to_owned)))?
                .unwrap_or_default(),
        })
    }
}

fn receipt(node: &Node<'_>) -> Result<Receipt, Invalid> {
    let members = node.open_members()?;
    let id = members.require("lease")?;
    let number = members.require("number")?;
    Ok(Receipt {
        lease: u64::from_str_radix(id.string()?, 16).map_err(|_| id.expected("16 digits"))?,
        number: u32::try_from(number.count()?).map_err(|_| number.expected("a smaller number"))?,
        granted: members.require("granted")?.count()?,
        left: members.require("left")?.count()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::lease::Wanted;

    #[test]
    fn a_name_is_what_it_is_read_from() {
        for text in
            ["key/acme/k-1/requests/day", "tenant/acme/cost/total", "tenant/a_b/tokens/month"]
        {
            assert_eq!(AccountName::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            "key/acme/requests/day",
            "tenant/a/k/requests/day",
            "tenant/a/days/day",
            "tenant//requests/day",
            "key/a/b/requests/fortnight",
            "tenant/a b/requests/day",
        ] {
            assert_eq!(AccountName::parse(text), None, "{text}");
        }
    }

    #[test]
    fn orders_and_receipts_have_their_form() {
        let wanted = Wanted { need: 1, want: 8 };
        let order =
            Order { lease: 255, number: 1, window: 7, limit: 9, granted: 2, used: 1, wanted };
        assert_eq!(
            write_orders([("tenant/acme/requests/day", &order), ("x", &order)].into_iter()),
            concat!(
                r#"{"orders":[{"account":"tenant/acme/requests/day","lease":"00000000000000ff","#,
                r#""number":1,"window":7,"limit":9,"granted":2,"used":1,"need":1,"want":8},"#,
                r#"{"account":"x","lease":"00000000000000ff","number":1,"window":7,"limit":9,"#,
                r#""granted":2,"used":1,"need":1,"want":8}]}"#
            )
        );
        let text = br#"{"receipts":[{"lease":"00000000000000ff","number":1,"granted":3,"left":4,"until":5}],
            "scarce":["x"]}"#;
        let receipt = Receipt { lease: 255, number: 1, granted: 3, left: 4 };
        let scarce = Box::from(["x".to_owned()]);
        assert_eq!(Receipts::parse(text), Ok(Receipts { receipts: Box::from([receipt]), scarce }));
        for text in ["", "[]", r#"{"receipts":[{"lease":"x","number":1,"granted":3,"left":4}]}"#] {
            assert!(Receipts::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
