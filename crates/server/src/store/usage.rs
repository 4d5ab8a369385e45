//! What requests come to, by key, tenant, model, tool, reason, verdict or day.

use rusqlite::{Connection, ToSql};

use super::{StoreError, integer, unsigned};

/// What the totals are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The key.
    Key,
    /// The tenant.
    Tenant,
    /// The model.
    Model,
    /// The MCP tool.
    Tool,
    /// The reason of a refusal.
    Reason,
    /// The verdict on the connection to the upstream.
    Verdict,
    /// The day, UTC.
    Day,
}

/// Which requests count.
#[derive(Clone, Debug, Default)]
pub struct UsageFilter {
    /// The tenant.
    pub tenant: Option<String>,
    /// The key.
    pub key: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The MCP tool.
    pub tool: Option<String>,
    /// The reason.
    pub reason: Option<String>,
    /// The first day, in days since 1970-01-01.
    pub from_day: Option<u64>,
    /// The last day.
    pub to_day: Option<u64>,
    /// The most rows.
    pub limit: u64,
}

/// The totals of one key, tenant, …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRow {
    /// What the row is about; empty for requests that have none.
    pub name: String,
    /// The totals.
    pub usage: Usage,
}

/// A key that was used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsedKey {
    /// Its tenant.
    pub tenant: String,
    /// Its id.
    pub key: String,
}

/// Totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Requests.
    pub requests: u64,
    /// Those that were refused, or whose response is an error.
    pub failed: u64,
    /// Those that were refused.
    pub refused: u64,
    /// Tokens that they sent.
    pub tokens_in: u64,
    /// Tokens that they got.
    pub tokens_out: u64,
    /// Tokens that were charged.
    pub tokens: u64,
    /// What they cost, micro-USD.
    pub cost: u64,
}

// === impl By ===

impl By {
    /// All, as the parameter `by` names them.
    pub const ALL: [(&'static str, Self); 7] = [
        ("key", Self::Key),
        ("tenant", Self::Tenant),
        ("model", Self::Model),
        ("tool", Self::Tool),
        ("reason", Self::Reason),
        ("verdict", Self::Verdict),
        ("day", Self::Day),
    ];

    /// The name of the parameter.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, by)| *by == self).map_or("", |(name, _)| name)
    }
}

/// The columns of [`Usage`]. Amounts are sums of what clients and providers say, and never too large for 64 bits.
pub(super) const SUMS: &str = "sum(requests), sum(failed), sum(refused),
    CAST(min(total(tokens_in), 9e18) AS INTEGER), CAST(min(total(tokens_out), 9e18) AS INTEGER),
    CAST(min(total(tokens), 9e18) AS INTEGER), CAST(min(total(cost), 9e18) AS INTEGER)";

/// The totals of the requests that a filter lets through, the largest first; days in their order.
pub(super) fn usage(
    db: &Connection,
    by: By,
    filter: &UsageFilter,
) -> Result<Vec<UsageRow>, StoreError> {
    let name = match by {
        By::Day => "date(day * 86400, 'unixepoch')",
        _ => by.name(),
    };
    let mut conditions = vec!["1"];
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let texts = [
        ("tenant = ?", &filter.tenant),
        ("key = ?", &filter.key),
        ("model = ?", &filter.model),
        ("tool = ?", &filter.tool),
        ("reason = ?", &filter.reason),
    ];
    for (condition, value) in texts {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(Box::new(value.clone()));
        }
    }
    for (condition, value) in [("day >= ?", filter.from_day), ("day <= ?", filter.to_day)] {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(Box::new(integer(value)));
        }
    }
    let order = if by == By::Day { "1" } else { "2 DESC, 1" };
    let conditions = conditions.join(" AND ");
    let sql = format!(
        "SELECT {name}, {SUMS} FROM days WHERE {conditions} GROUP BY 1 ORDER BY {order} LIMIT ?"
    );
    values.push(Box::new(integer(filter.limit)));
    let mut rows = db.prepare_cached(&sql)?;
    let rows = rows.query_map(rusqlite::params_from_iter(values), |row| {
        Ok(UsageRow { name: row.get(0)?, usage: Usage::read(row, 1)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The keys that were used since a day, those with the most requests first.
pub(super) fn keys(db: &Connection, from_day: u64, limit: u64) -> Result<Vec<UsedKey>, StoreError> {
    let mut rows = db.prepare_cached(
        "SELECT tenant, key FROM days WHERE day >= ?1 AND tenant <> '' AND key <> ''
         GROUP BY 1, 2 ORDER BY sum(requests) DESC, 1, 2 LIMIT ?2",
    )?;
    let rows = rows.query_map([integer(from_day), integer(limit)], |row| {
        Ok(UsedKey { tenant: row.get(0)?, key: row.get(1)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

// === impl Usage ===

impl Usage {
    /// Reads the columns [`SUMS`], which begin at `first`. All are NULL if there is no row.
    pub(super) fn read(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<Self> {
        let number =
            |index| row.get::<_, Option<i64>>(first + index).map(|sum| unsigned(sum.unwrap_or(0)));
        Ok(Self {
            requests: number(0)?,
            failed: number(1)?,
            refused: number(2)?,
            tokens_in: number(3)?,
            tokens_out: number(4)?,
            tokens: number(5)?,
            cost: number(6)?,
        })
    }
}
