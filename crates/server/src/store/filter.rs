//! Which records are asked for, and how they are found.

use std::fmt::Write as _;

use rusqlite::{Connection, ToSql, params_from_iter};

use super::words::{self, Column, word};
use super::{Id, StoreError, integer};

/// The most records of a path's beginning that are collected before the latest of them are known. More of them are met
/// often enough by going back in time.
const MAX_OF_PATHS: i64 = 10_000;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It was forwarded, and its response is no error.
    Success,
    /// It was refused, or its response is an error.
    Failed,
}

/// Which records are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// How the request ended.
    pub status: Option<Status>,
    /// The HTTP status.
    pub code: Option<u64>,
    /// The tenant.
    pub tenant: Option<String>,
    /// The id of the key.
    pub key: Option<String>,
    /// The key's subject.
    pub user: Option<String>,
    /// The reason of the refusal.
    pub reason: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The MCP tool.
    pub tool: Option<String>,
    /// The HTTP method.
    pub method: Option<String>,
    /// The path; with `*` at its end all that begin with what is before it.
    pub path: Option<String>,
    /// The id of the request.
    pub request_id: Option<String>,
    /// Only those with an anomaly.
    pub anomalies: bool,
    /// The earliest time, Unix microseconds.
    pub from_micros: Option<u64>,
    /// The time from which on none is asked for.
    pub to_micros: Option<u64>,
    /// The most records.
    pub limit: u64,
    /// Where the last answer ended.
    pub cursor: Option<Cursor>,
}

/// Where an answer ended: the last of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub(super) Id);

/// How the records of a filter are found, the latest first.
#[derive(Debug, PartialEq, Eq)]
enum Plan {
    /// By all of these words.
    Words(Vec<String>),
    /// By the beginning of the path, which few have.
    Paths,
    /// By going back in time.
    Times,
}

// === impl Cursor ===

impl Cursor {
    /// Reads what [`std::fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten().map(|id| Self(Id(id)))
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(Id(id)) = self;
        write!(f, "{id}")
    }
}

// === impl Filter ===

impl Filter {
    /// The statement that finds the records, and its values in their order. No value is part of the statement.
    pub(super) fn statement(
        &self,
        db: &Connection,
    ) -> Result<(String, Vec<Box<dyn ToSql>>), StoreError> {
        Ok(self.sql(&self.plan(db)?))
    }

    fn plan(&self, db: &Connection) -> Result<Plan, StoreError> {
        if self.path_prefix().is_some() && !self.has_many_paths(db)? {
            return Ok(Plan::Paths);
        }
        let words = self.words();
        Ok(if words.is_empty() { Plan::Times } else { Plan::Words(words) })
    }

    /// Whether many records have a path that begins as asked for.
    fn has_many_paths(&self, db: &Connection) -> Result<bool, StoreError> {
        let mut sql = "SELECT count(*) FROM (SELECT 1 FROM records INDEXED BY records_path WHERE 1"
            .to_owned();
        let mut values = Vec::new();
        self.add_prefix("path", &mut sql, &mut values);
        sql.push_str(" LIMIT ?)");
        values.push(Box::new(MAX_OF_PATHS + 1));
        let mut count = db.prepare_cached(&sql)?;
        let count: i64 = count.query_row(params_from_iter(values), |row| row.get(0))?;
        Ok(count > MAX_OF_PATHS)
    }

    /// What is before a `*` at the end of the path.
    fn path_prefix(&self) -> Option<&str> {
        self.path.as_deref()?.strip_suffix('*')
    }

    /// The whole path.
    fn whole_path(&self) -> Option<&str> {
        self.path.as_deref().filter(|path| !path.ends_with('*'))
    }

    /// The texts that a record must have.
    fn texts(&self) -> [(Column, &'static str, Option<&str>); 9] {
        [
            (Column::Tenant, "tenant", self.tenant.as_deref()),
            (Column::Key, "key", self.key.as_deref()),
            (Column::User, "user", self.user.as_deref()),
            (Column::Reason, "reason", self.reason.as_deref()),
            (Column::Model, "model", self.model.as_deref()),
            (Column::Tool, "tool", self.tool.as_deref()),
            (Column::Method, "method", self.method.as_deref()),
            (Column::Path, "path", self.whole_path()),
            (Column::RequestId, "request_id", self.request_id.as_deref()),
        ]
    }

    /// The words that a record must have.
    fn words(&self) -> Vec<String> {
        let texts = self.texts().into_iter();
        let texts = texts.filter_map(|(column, _, value)| Some(word(column, value?)));
        texts
            .chain(self.code.map(words::code))
            .chain(self.status.map(|status| words::failed(status == Status::Failed)))
            .chain(self.anomalies.then(words::anomaly))
            .collect()
    }

    fn sql(&self, plan: &Plan) -> (String, Vec<Box<dyn ToSql>>) {
        let mut sql = "SELECT records.* FROM ".to_owned();
        let mut values: Vec<Box<dyn ToSql>> = Vec::new();
        // The order of the tables is that of the plan. A sign keeps SQLite from going through all records instead.
        let (id, order) = match plan {
            Plan::Words(words) => {
                sql.push_str("words CROSS JOIN records ON id = words.rowid WHERE words MATCH ?");
                values.push(Box::new(words.join(" AND ")));
                ("words.rowid", "words.rowid")
            }
            Plan::Paths => {
                sql.push_str(
                    "records WHERE id IN (SELECT id FROM records INDEXED BY records_path WHERE 1",
                );
                self.add_prefix("path", &mut sql, &mut values);
                sql.push(')');
                ("id", "+id")
            }
            Plan::Times => {
                sql.push_str("records WHERE 1");
                ("id", "id")
            }
        };
        // Nothing but the plan uses an index of a column.
        for (_, column, value) in self.texts() {
            if let Some(value) = value {
                let _ = write!(sql, " AND +{column} = ?");
                values.push(Box::new(value.to_owned()));
            }
        }
        self.add_prefix("+path", &mut sql, &mut values);
        let numbers = [
            ("code =", self.code.map(integer)),
            ("failed =", self.status.map(|status| i64::from(status == Status::Failed))),
        ];
        for (condition, value) in numbers {
            if let Some(value) = value {
                let _ = write!(sql, " AND {condition} ?");
                values.push(Box::new(value));
            }
        }
        if self.anomalies {
            sql.push_str(" AND anomaly IS NOT NULL");
        }
        let bounds = [
            (">=", self.from_micros.map(Id::first)),
            ("<", self.to_micros.map(Id::first)),
            ("<", self.cursor.map(|Cursor(id)| id)),
        ];
        for (comparison, bound) in bounds {
            if let Some(Id(bound)) = bound {
                let _ = write!(sql, " AND {id} {comparison} ?");
                values.push(Box::new(bound));
            }
        }
        let _ = write!(sql, " ORDER BY {order} DESC LIMIT ?");
        // One more shows whether there are more.
        values.push(Box::new(integer(self.limit.saturating_add(1))));
        (sql, values)
    }

    /// Adds the condition on the beginning of the path.
    fn add_prefix(&self, column: &str, sql: &mut String, values: &mut Vec<Box<dyn ToSql>>) {
        let Some(prefix) = self.path_prefix() else { return };
        let _ = write!(sql, " AND {column} >= ?");
        values.push(Box::new(prefix.to_owned()));
        if let Some(end) = end_of(prefix) {
            let _ = write!(sql, " AND {column} < ?");
            values.push(Box::new(end));
        }
    }
}

/// The first text after all that begin with a prefix; `None` if there is none. SQLite compares the bytes of UTF-8, which
/// have the order of the characters.
fn end_of(prefix: &str) -> Option<String> {
    let prefix = prefix.trim_end_matches(char::MAX);
    let last = prefix.chars().next_back()?;
    let next = (last..=char::MAX).nth(1)?;
    Some(prefix.strip_suffix(last)?.to_owned() + next.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests;
