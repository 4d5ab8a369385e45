//! Load: requests on many connections in step, and what each place that counts makes of them.

use std::collections::BTreeMap;

use serde_json::Value;
use vkey::audit::{AuditRecord, Line};
use vkey::decision::{Decision, DenyClass, DenyReason};

use crate::metrics::series;
use crate::support::{Connection, Envoy, Request};

pub(crate) const WORKERS: u32 = 4;

/// Enough connections that every worker gets some.
pub(crate) const CONNECTIONS: usize = 64;

/// How many requests went on, how many met a limit, and how many were refused for another reason,
/// as one of those who count has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) allowed: u64,
    pub(crate) limited: u64,
    pub(crate) refused: u64,
}

pub(crate) fn connect(envoy: &Envoy) -> Vec<Connection> {
    (0..CONNECTIONS).map(|_| Connection::open(envoy.gate())).collect()
}

/// Sends requests over all connections in step: one goes out on each before any answer is read. The
/// statuses are in the order of the requests.
pub(crate) fn send_in_step<R: AsRef<[u8]>>(
    connections: &mut [Connection],
    requests: impl IntoIterator<Item = R>,
) -> Vec<u16> {
    let mut requests = requests.into_iter();
    let mut statuses = Vec::new();
    loop {
        let mut under_way = 0;
        for (connection, request) in connections.iter_mut().zip(requests.by_ref()) {
            connection.send_raw(request.as_ref()).unwrap();
            under_way += 1;
        }
        if under_way == 0 {
            return statuses;
        }
        let answers = connections[..under_way].iter_mut();
        statuses.extend(answers.map(|connection| connection.read_response().unwrap().status));
    }
}

/// The usage that a key asks for: its own, or with a `query` that of others.
pub(crate) fn usage(connection: &mut Connection, key: &str, query: &str) -> Value {
    let request = Request::new("GET", format!("/.vkey/usage{query}")).bearer(key);
    let answer = connection.send(&request);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

impl Tally {
    /// As the client saw it.
    pub(crate) fn of_statuses(statuses: impl IntoIterator<Item = u16>) -> Self {
        let mut tally = Self::default();
        for status in statuses {
            tally.count(status == 200, status == 429, 1);
        }
        tally
    }

    /// As a usage answer tells it.
    pub(crate) fn of_usage(usage: &Value) -> Self {
        let number = |count: &Value| count.as_u64().unwrap();
        let (allowed, limited) = (number(&usage["allowed"]), number(&usage["denied"]["limited"]));
        Self { allowed, limited, refused: number(&usage["seen"]) - allowed - limited }
    }

    /// As the metrics tell it of a tenant.
    pub(crate) fn of_metrics(envoy: &Envoy, tenant: &str) -> Self {
        let mut tally = Self::default();
        for series in series(envoy, "vkey_requests_total") {
            if series.labels["tenant"] == tenant {
                let reason = DenyReason::from_code(&series.labels["reason"]);
                tally.count(series.labels["decision"] == "allow", limited(reason), series.value);
            }
        }
        tally
    }

    /// As the audit lines tell it, by tenant.
    pub(crate) fn of_lines(lines: &[String]) -> BTreeMap<String, Self> {
        let mut tallies = BTreeMap::<_, Self>::new();
        for line in lines {
            let record = Line::parse(line).expect(line).record.unwrap_or_default();
            let AuditRecord { tenant, decision, .. } = record;
            let tally = tallies.entry(tenant.unwrap_or_default().into_owned()).or_default();
            let reason = decision.and_then(Decision::reason);
            tally.count(decision == Some(Decision::Allow), limited(reason), 1);
        }
        tallies
    }

    pub(crate) fn sum<'a>(tallies: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self::default();
        for tally in tallies {
            sum.allowed += tally.allowed;
            sum.limited += tally.limited;
            sum.refused += tally.refused;
        }
        sum
    }

    pub(crate) fn sent(&self) -> u64 {
        self.allowed + self.limited + self.refused
    }

    fn count(&mut self, allowed: bool, limited: bool, count: u64) {
        *match (allowed, limited) {
            (true, _) => &mut self.allowed,
            (false, true) => &mut self.limited,
            (false, false) => &mut self.refused,
        } += count;
    }
}

fn limited(reason: Option<DenyReason>) -> bool {
    reason.is_some_and(|reason| reason.class() == DenyClass::Limited)
}

pub(crate) fn number(count: usize) -> u64 {
    u64::try_from(count).unwrap()
}
