//! Verifies the chains of a trail.

use std::collections::BTreeMap;
use std::rc::Rc;

use vkey::audit::{Amounts, Anchor, AuditKey, AuditRecord, Entry, Link, Totals};

use super::findings::{Finding, Place, Span};

/// The most findings that are kept. What is found after them is counted only.
const MAX_FINDINGS: usize = 1000;

/// A trail that is being verified, line by line, from logs in any order.
///
/// It keeps, for each chain, its present end, and each record that came before those in front of it, some 200 bytes each:
/// as many as a log holds that is read before an earlier one, and all that follow a missing one.
pub struct Trail {
    keys: Vec<AuditKey>,
    chains: BTreeMap<String, Chain>,
    /// The number of the log that is being read.
    log: u64,
    report: Report,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Records whose MAC matches.
    pub verified: u64,
    /// Anchors whose MAC matches.
    pub anchors: u64,
    /// Records without a place in a chain: the gate had no audit secret.
    pub unchained: u64,
    /// Lines of requests that the module never saw, which have no record.
    pub unseen: u64,
    /// Lines that are too long to be read.
    pub too_long: u64,
    /// What is wrong, at most 1000.
    pub findings: Vec<Finding>,
    /// What is wrong and not in `findings`.
    pub more_findings: u64,
    /// The chains, by id.
    pub chains: Vec<ChainSummary>,
}

/// A chain of a trail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainSummary {
    /// The id.
    pub id: String,
    /// The node id of the proxy.
    pub host: Option<String>,
    /// When its first and its last record were written, Unix microseconds; `None` without a record.
    pub times: Option<(u64, u64)>,
    /// The number of its records up to its known end, missing ones included.
    pub records: u64,
    /// What those that are there come to.
    pub totals: Totals,
    /// The number of records that the last anchor counts; `None` without an anchor.
    pub anchored: Option<u64>,
    /// Whether an anchor says that the chain ended. If not, it cannot be known whether later records are missing.
    pub is_closed: bool,
}

/// A chain, as far as it was read.
#[derive(Default)]
struct Chain {
    host: Option<String>,
    times: Option<(u64, u64)>,
    /// The number of the record that comes next.
    next: u64,
    /// The MAC of the one before it; `None` if that is missing.
    last: Option<String>,
    totals: Totals,
    /// Whether records are missing before `next`: then the totals are not those of anchors.
    is_incomplete: bool,
    /// Records after missing ones.
    waiting: BTreeMap<u64, Waiting>,
    /// Anchors for records that have not come.
    anchors: BTreeMap<u64, (Anchor, Place)>,
    anchored: Option<u64>,
    /// The number of records with which an anchor closed the chain.
    closed_at: Option<u64>,
    /// The log in which a record came last, and the highest number in it.
    highest: Option<(u64, u64)>,
}

struct Waiting {
    prev: String,
    mac: String,
    amounts: Amounts,
    place: Place,
}

// === impl Trail ===

impl Trail {
    /// An empty trail, of chains with any of these keys.
    pub fn new(keys: Vec<AuditKey>) -> Self {
        Self { keys, chains: BTreeMap::new(), log: 0, report: Report::default() }
    }

    /// Begins with another log. Only within one does the order of records mean something.
    pub fn begin_log(&mut self) {
        self.log += 1;
    }

    /// Skips a line that is too long to be read.
    pub fn skip_long(&mut self) {
        self.report.too_long += 1;
    }

    /// Takes an audit line, without what is wrapped around it.
    pub fn push(&mut self, place: Place, line: &str) {
        match Entry::parse(line) {
            Err(invalid) => {
                self.report.add(Finding::Unreadable(place, invalid.to_string()));
            }
            Ok(Entry::Anchor(anchor)) => match self.is_verified(line) {
                false => self.report.add(Finding::Changed(place)),
                true => self.push_anchor(place, anchor),
            },
            Ok(Entry::Line(audit)) => match audit.record {
                None => self.report.unseen += 1,
                Some(AuditRecord { link: None, .. }) => self.report.unchained += 1,
                Some(_) if !self.is_verified(line) => self.report.add(Finding::Changed(place)),
                Some(mut record) => {
                    if let Some(link) = record.link.take() {
                        self.push_record(place, &record, link);
                    }
                }
            },
        }
    }

    /// What was found in all logs.
    pub fn finish(mut self) -> Report {
        for (id, mut chain) in self.chains {
            while let Some((&first, _)) = chain.waiting.first_key_value() {
                let span = Span { chain: id.clone(), first: chain.next, last: first - 1 };
                self.report.add(Finding::Missing(span));
                chain.skip_to(first);
                chain.advance(&id, &mut self.report);
            }
            chain.end(&id, &mut self.report);
            self.report.chains.push(chain.summary(id));
        }
        self.report
    }

    fn is_verified(&self, line: &str) -> bool {
        self.keys.iter().any(|key| key.verifies(line) == Some(true))
    }

    fn push_record(&mut self, place: Place, record: &AuditRecord<'_>, link: Link<'_>) {
        let (id, seq) = (link.chain.into_owned(), link.seq);
        let chain = self.chains.entry(id.clone()).or_default();
        let span = || Span { chain: id.clone(), first: seq, last: seq };
        self.report.verified += 1;
        if seq < chain.next || chain.waiting.contains_key(&seq) {
            return self.report.add(Finding::Doubled(place, span()));
        }
        match &mut chain.highest {
            Some((log, highest)) if *log == self.log && seq < *highest => {
                self.report.add(Finding::Moved(place.clone(), span()));
            }
            highest => *highest = Some((self.log, seq)),
        }
        chain.see(record);
        let (prev, mac) = (link.prev.into_owned(), link.mac.into_owned());
        chain.waiting.insert(seq, Waiting { prev, mac, amounts: record.amounts(), place });
        chain.advance(&id, &mut self.report);
    }

    fn push_anchor(&mut self, place: Place, anchor: Anchor) {
        self.report.anchors += 1;
        let id = anchor.chain.clone();
        let chain = self.chains.entry(id.clone()).or_default();
        chain.host = chain.host.take().or_else(|| anchor.host.clone());
        chain.anchored = chain.anchored.max(Some(anchor.records));
        if anchor.is_end {
            chain.closed_at = chain.closed_at.max(Some(anchor.records));
        }
        if anchor.records == chain.next {
            chain.check(&id, &anchor, place, &mut self.report);
        } else if anchor.records > chain.next {
            chain.anchors.insert(anchor.records, (anchor, place));
        }
    }
}

// === impl Chain ===

impl Chain {
    fn see(&mut self, record: &AuditRecord<'_>) {
        let at = record.ts_micros;
        let (first, last) = self.times.unwrap_or((at, at));
        self.times = Some((first.min(at), last.max(at)));
        if self.host.is_none() {
            self.host = record.host.as_deref().map(str::to_owned);
        }
    }

    /// Takes the records that come next, as far as they are there.
    fn advance(&mut self, id: &str, report: &mut Report) {
        while let Some(record) = self.waiting.remove(&self.next) {
            let is_linked = match (&self.last, self.next) {
                (Some(last), _) => record.prev == *last,
                // What comes before it is missing, which is a finding of its own.
                (None, seq) => seq > 0 || record.prev.is_empty(),
            };
            if !is_linked {
                let span = Span { chain: id.to_owned(), first: self.next, last: self.next };
                report.add(Finding::Unlinked(record.place, span));
            }
            self.totals.add(record.amounts);
            self.last = Some(record.mac);
            self.next = self.next.saturating_add(1);
            if let Some((anchor, place)) = self.anchors.remove(&self.next) {
                self.check(id, &anchor, place, report);
            }
        }
    }

    /// Goes on after missing records.
    fn skip_to(&mut self, next: u64) {
        self.next = next;
        self.last = None;
        self.is_incomplete = true;
    }

    /// Compares an anchor with the records that it counts.
    fn check(&self, id: &str, anchor: &Anchor, place: Place, report: &mut Report) {
        let is_last = self.last.as_ref().is_none_or(|last| *last == anchor.last);
        let has_totals = self.is_incomplete || self.totals == anchor.totals;
        if let Some(last) = self.next.checked_sub(1)
            && !(is_last && has_totals)
        {
            let span = Span { chain: id.to_owned(), first: 0, last };
            report.add(Finding::Contradiction(place, span));
        }
    }

    /// Reports the records that the last anchor counts and that are not there.
    fn end(&mut self, id: &str, report: &mut Report) {
        let last = self.anchors.pop_last().filter(|(records, _)| *records > self.next);
        if let Some((records, (_, place))) = last {
            let span = Span { chain: id.to_owned(), first: self.next, last: records - 1 };
            report.add(Finding::Cut(place, span));
            self.skip_to(records);
        }
    }

    fn summary(self, id: String) -> ChainSummary {
        ChainSummary {
            id,
            host: self.host,
            times: self.times,
            records: self.next,
            totals: self.totals,
            anchored: self.anchored,
            is_closed: self.closed_at == Some(self.next),
        }
    }
}

// === impl Report ===

impl Report {
    /// Whether nothing is wrong.
    pub fn is_good(&self) -> bool {
        self.findings.is_empty()
    }

    /// Whether there is nothing that could be verified.
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.findings.is_empty()
    }

    fn add(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more_findings += 1;
        }
    }
}

/// A place in a log.
impl Place {
    /// A line of a log.
    pub fn new(log: &Rc<str>, line: u64) -> Self {
        Self { log: Rc::clone(log), line }
    }
}

#[cfg(test)]
mod tests;
