//! The words by which records are found: each value of a record is a word of one full-text index.
//!
//! An index of its own for each column would be a place of its own to write for each record, and only one of them answers
//! a question. The full-text index is written in order, and intersects the records of several words: a question with
//! four filters that no record meets takes milliseconds, not a look at each record that meets the rarest.

use std::hash::Hasher as _;

use fnv::FnvHasher;
use rusqlite::{Connection, params};

use super::{Id, Record, StoreError, integer};

/// The bits of a hash that a word keeps. Values can share a word: whoever finds a record compares its columns.
const WORD_BITS: u32 = 40;

/// The bits of a character of a word.
const CHARACTER_BITS: u32 = 5;

const CHARACTERS: &[u8; 1 << CHARACTER_BITS] = b"abcdefghijklmnopqrstuvwxyz234567";

/// What a word says about a record. The letter is the first of the word; a store on disk has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Column {
    Anomaly = b'a',
    Code = b'c',
    Failed = b'f',
    Key = b'k',
    Method = b'e',
    Model = b'm',
    Path = b'p',
    Reason = b'r',
    RequestId = b'i',
    Tenant = b't',
    Tool = b'o',
    User = b'u',
}

/// The words of records that were written, until they are in the index.
#[derive(Default)]
pub(super) struct Words {
    records: Vec<(Id, String)>,
}

// === impl Words ===

impl Words {
    /// Takes the words of a record.
    pub(super) fn add(&mut self, id: Id, record: &Record) {
        self.records.push((id, of_record(record)));
    }

    /// Writes the words. In the order of the records, because the index writes a part of its own whenever one comes
    /// that is earlier than the last.
    pub(super) fn save(mut self, db: &Connection) -> Result<(), StoreError> {
        self.records.sort_unstable_by_key(|(id, _)| *id);
        let mut insert = db.prepare_cached("INSERT INTO words (rowid, text) VALUES (?1, ?2)")?;
        for (Id(id), words) in &self.records {
            insert.execute(params![id, words])?;
        }
        Ok(())
    }
}

/// The word of a value.
pub(super) fn word(column: Column, value: &str) -> String {
    let mut hasher = FnvHasher::default();
    hasher.write_u8(column as u8);
    hasher.write(value.as_bytes());
    // The high bits of this hash differ more than its low ones.
    let hash = hasher.finish() >> (u64::BITS - WORD_BITS);
    let characters = (0..WORD_BITS / CHARACTER_BITS).map(|index| {
        let index = (hash >> (index * CHARACTER_BITS)) as usize % CHARACTERS.len();
        char::from(CHARACTERS.get(index).copied().unwrap_or_default())
    });
    std::iter::once(char::from(column as u8)).chain(characters).collect()
}

/// The word of whether a request failed.
pub(super) fn failed(is_failed: bool) -> String {
    word(Column::Failed, if is_failed { "1" } else { "0" })
}

/// The word of records with an anomaly, whatever it is.
pub(super) fn anomaly() -> String {
    word(Column::Anomaly, "")
}

/// The word of an HTTP status.
pub(super) fn code(code: u64) -> String {
    word(Column::Code, &integer(code).to_string())
}

fn of_record(record: &Record) -> String {
    let mut words = failed(record.is_failed);
    let mut add = |word: String| {
        words.push(' ');
        words.push_str(&word);
    };
    let texts = [
        (Column::Tenant, record.tenant.as_deref()),
        (Column::Key, record.key.as_deref()),
        (Column::User, record.user.as_deref()),
        (Column::Reason, record.reason),
        (Column::Model, record.model.as_deref()),
        (Column::Tool, record.tool.as_deref()),
        (Column::Method, record.method.as_deref()),
        (Column::Path, record.path.as_deref()),
        (Column::RequestId, record.request_id.as_deref()),
    ];
    for (column, text) in texts {
        if let Some(text) = text {
            add(word(column, text));
        }
    }
    if let Some(status) = record.code {
        add(code(status));
    }
    if record.anomaly.is_some() {
        add(anomaly());
    }
    words
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn words_are_those_of_stores_on_disk() {
        assert_eq!(word(Column::Tenant, "acme"), "txnkiiw3p");
        assert_eq!(failed(true), "fv5bwimcb");
        assert_eq!(code(200), "cfoe3m7ph");
    }

    #[test]
    fn a_word_is_one_token_whatever_the_value_is() {
        let values = ["", " ", "a b", "\"", "AND", "\0", "é\u{1f511}", &"x".repeat(1 << 20)];
        for value in values {
            let word = word(Column::Path, value);
            assert_eq!(word.len(), 9, "{word}");
            assert!(word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()));
        }
    }

    #[test]
    fn words_of_alike_values_differ() {
        let words: BTreeSet<String> =
            (0..10_000).map(|number| word(Column::Key, &format!("key-{number:08}"))).collect();
        assert_eq!(words.len(), 10_000);
        assert_ne!(word(Column::Key, "a"), word(Column::User, "a"));
    }
}
