//! The accounts of which others want more than is left, while some proxy may hold something that it does not need.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long an account is scarce after an order that got nothing.
pub(super) const SCARCE_FOR: Duration = Duration::from_secs(2);

/// How often other servers are asked.
const REFRESH: Duration = Duration::from_millis(250);

/// The most names that a response has.
pub(super) const MAX_SCARCE: usize = 256;

/// The scarce accounts.
#[derive(Default)]
pub(super) struct Scarcity {
    /// Those of this server.
    own: HashMap<String, Instant>,
    /// Those of all servers, as they were read, and when.
    others: Vec<String>,
    read: Option<Instant>,
    /// Those that other servers do not know of yet.
    news: Vec<String>,
}

impl Scarcity {
    /// Adds an account.
    pub(super) fn add(&mut self, name: String, now: Instant) {
        let since = self.own.insert(name.clone(), now);
        // Others are told about twice in the time for which they believe it.
        let is_told = since.is_some_and(|since| now.duration_since(since) < SCARCE_FOR / 2);
        if !is_told && self.news.len() < MAX_SCARCE && !self.news.contains(&name) {
            self.news.push(name);
        }
    }

    /// What other servers must be told; `None` if it is not yet time to exchange anything.
    pub(super) fn news(&mut self, now: Instant) -> Option<Vec<String>> {
        let is_due = self.read.is_none_or(|read| now.duration_since(read) >= REFRESH);
        if !is_due && self.news.is_empty() {
            return None;
        }
        self.read = Some(now);
        Some(std::mem::take(&mut self.news))
    }

    /// Takes what other servers say.
    pub(super) fn hear(&mut self, names: Vec<String>) {
        self.others = names;
    }

    /// The scarce accounts, the latest first.
    pub(super) fn names(&mut self, now: Instant) -> Vec<String> {
        self.own.retain(|_, since| now.duration_since(*since) < SCARCE_FOR);
        let mut own: Vec<_> = self.own.iter().collect();
        own.sort_by(|(one, at), (other, than)| than.cmp(at).then(one.cmp(other)));
        let mut names: Vec<String> = own.into_iter().map(|(name, _)| name.clone()).collect();
        let others = self.others.iter().filter(|name| !self.own.contains_key(*name));
        names.extend(others.cloned());
        names.truncate(MAX_SCARCE);
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_scarce_for_a_while() {
        let (mut scarcity, begin) = (Scarcity::default(), crate::clock::instant());
        scarcity.add("a".to_owned(), begin);
        scarcity.add("b".to_owned(), begin + SCARCE_FOR / 2);
        assert_eq!(scarcity.names(begin + SCARCE_FOR / 2), ["b", "a"]);
        assert_eq!(scarcity.names(begin + SCARCE_FOR), ["b"]);
        assert!(scarcity.names(begin + SCARCE_FOR * 2).is_empty());
    }

    #[test]
    fn others_are_told_once_and_heard() {
        let (mut scarcity, begin) = (Scarcity::default(), crate::clock::instant());
        scarcity.add("a".to_owned(), begin);
        scarcity.add("a".to_owned(), begin);
        assert_eq!(scarcity.news(begin), Some(vec!["a".to_owned()]));
        assert_eq!(scarcity.news(begin), None);
        scarcity.hear(vec!["a".to_owned(), "c".to_owned()]);
        assert_eq!(scarcity.names(begin), ["a", "c"]);
        assert_eq!(scarcity.news(begin + REFRESH), Some(Vec::new()));
    }

    #[test]
    fn a_response_is_bounded() {
        let (mut scarcity, begin) = (Scarcity::default(), crate::clock::instant());
        for number in 0..1000 {
            scarcity.add(number.to_string(), begin);
        }
        assert_eq!(scarcity.names(begin).len(), MAX_SCARCE);
    }
}
