//! The report of lint.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use vkey::json::Json;
use vkey::upstream_tls::EffectivePolicy;

use super::super::super::output::{Output, OutputError};
use super::super::super::text::{ascii, escape_sentence, escape_word};
use super::super::document::text;
use super::finding::{Element, Finding, Note};
use super::graph::{Budget, BudgetExhausted};
use super::proxy_config::{InvalidConfig, ProxyConfig};
use super::upstream_gates::UpstreamGates;
use super::{cluster, credentials, edge, seal, stripped, ungated};

/// The most hosts that are checked: each route to a cluster may name thousands.
const MAX_NAMES: usize = 500_000;

/// The results for a configuration.
pub(super) struct Report {
    digest: String,
    looked_at: usize,
    judged: usize,
    listeners: usize,
    findings: Vec<Finding>,
    notes: Vec<Note>,
}

impl Report {
    /// Checks configurations.
    pub(super) fn new(
        documents: &[Value],
        policy: &EffectivePolicy,
        now_secs: u64,
    ) -> Result<Self, InvalidConfig> {
        let proxy_config = ProxyConfig::new(documents)?;
        let gates = UpstreamGates::new(&proxy_config)?;
        let listeners: BTreeSet<&str> = proxy_config.managers.iter().map(|m| m.listener).collect();
        let mut report = Self {
            digest: policy.file().digest().to_owned(),
            looked_at: proxy_config.clusters.len(),
            judged: 0,
            listeners: listeners.len(),
            findings: Vec::new(),
            notes: Vec::new(),
        };
        let judged = report.check_clusters(&proxy_config, policy, now_secs)?;
        let behind = report.check_listeners(&proxy_config, &gates)?;
        report.check_routes(&proxy_config, &gates, &judged, &behind)?;
        deduplicate(&mut report.findings);
        deduplicate(&mut report.notes);
        Ok(report)
    }

    /// Checks each cluster. Returns those from which a cluster for a covered host is reached.
    fn check_clusters<'a>(
        &mut self,
        proxy_config: &ProxyConfig<'a>,
        policy: &EffectivePolicy,
        now_secs: u64,
    ) -> Result<BTreeMap<&'a str, &'a str>, InvalidConfig> {
        let mut names = 0;
        let mut for_judged = Vec::new();
        for cluster in &proxy_config.clusters {
            let judged = cluster::check(cluster, proxy_config, policy, now_secs);
            names += judged.names;
            if names > MAX_NAMES {
                return Err(InvalidConfig::TooMuch);
            }
            if judged.is_judged {
                self.judged += 1;
                for_judged.extend(text(cluster, "name"));
            }
            self.findings.extend(judged.findings);
            self.notes.extend(judged.notes);
        }
        Ok(proxy_config.graph.reaching(for_judged, &mut Budget::default())?)
    }

    /// Checks each listener with the module. Returns, for each route configuration, whether requests pass the
    /// module first.
    fn check_listeners<'a>(
        &mut self,
        proxy_config: &ProxyConfig<'a>,
        gates: &UpstreamGates<'a>,
    ) -> Result<Vec<bool>, BudgetExhausted> {
        let mut budget = Budget::default();
        let mut behind = vec![false; proxy_config.tables.len()];
        for manager in &proxy_config.managers {
            self.findings.extend(edge::findings(manager));
            self.findings.extend(seal::finding(manager, proxy_config));
            self.findings.extend(credentials::finding(manager));
            self.notes.extend(edge::note(manager));
            let routing = manager.routing(&proxy_config.scopes);
            let mut tables = Vec::new();
            for (table, is_behind) in proxy_config.tables.iter().zip(&mut behind) {
                if routing.includes(table) {
                    *is_behind = true;
                    tables.push(table);
                }
            }
            self.findings.extend(stripped::check(manager, &tables));
            let missing = Vec::from_iter(routing.missing(&tables));
            if missing.is_empty() {
                let unheld =
                    credentials::unheld(manager, &tables, gates, &proxy_config.graph, &mut budget)?;
                self.notes.extend(unheld);
            }
            self.notes.extend(missing.into_iter().map(|name| Note {
                place: manager.listener.to_owned(),
                text: format!("its route configuration {name} is not in the input"),
            }));
        }
        Ok(behind)
    }

    /// Checks each route configuration.
    fn check_routes<'a>(
        &mut self,
        proxy_config: &ProxyConfig<'a>,
        gates: &UpstreamGates<'a>,
        judged: &BTreeMap<&'a str, &'a str>,
        behind: &[bool],
    ) -> Result<(), BudgetExhausted> {
        let mut budget = Budget::default();
        for (table, is_behind_module) in proxy_config.tables.iter().zip(behind) {
            let is_behind_module = *is_behind_module;
            let (findings, notes) = ungated::check(table, gates, judged, is_behind_module);
            self.findings.extend(findings);
            self.notes.extend(notes);
            let hedged = credentials::hedged(table, gates, &proxy_config.graph, &mut budget)?;
            self.notes.extend(hedged);
            let elsewhere =
                credentials::retried_elsewhere(table, gates, &proxy_config.graph, &mut budget)?;
            self.findings.extend(elsewhere);
        }
        Ok(())
    }

    /// Whether there is no finding.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Prints the report.
    pub(super) fn print(&self, out: &mut Output) -> Result<(), OutputError> {
        for Finding { element, rule, reason, fix } in &self.findings {
            let rule = rule.id();
            match element {
                Element::Cluster { name, host } => {
                    out.line(format_args!(
                        "{}: {rule} for {}",
                        escape_word(name),
                        escape_word(host)
                    ))?;
                }
                Element::Listener(name) => {
                    out.line(format_args!("listener {}: {rule}", escape_word(name)))?;
                }
                Element::Route(place) => {
                    out.line(format_args!("{}: {rule}", escape_sentence(place)))?;
                }
            }
            out.line(format_args!("  {}", escape_sentence(reason)))?;
            out.line(format_args!("  fix: {}", escape_sentence(fix)))?;
        }
        for Note { place, text } in &self.notes {
            out.line(format_args!("note: {}: {}", escape_word(place), escape_sentence(text)))?;
        }
        let clusters = counted(self.looked_at, "cluster");
        let listeners = counted(self.listeners, "listener");
        let findings = counted(self.findings.len(), "finding");
        let judged = self.judged;
        out.line(format_args!(
            "{clusters}, {judged} for judged hosts, {listeners} with the module, {findings}"
        ))
    }

    /// The report as JSON.
    pub(super) fn to_json(&self) -> String {
        let count = |count: usize| u64::try_from(count).map_or(Json::Null, Json::from);
        ascii(&Json::object([
            ("policy", self.digest.as_str().into()),
            ("clusters", count(self.looked_at)),
            ("judged", count(self.judged)),
            ("listeners", count(self.listeners)),
            ("findings", Json::Array(self.findings.iter().map(Finding::to_json).collect())),
            ("notes", Json::Array(self.notes.iter().map(Note::to_json).collect())),
        ]))
    }
}

/// Keeps the first of equal items: a dump contains some parts of a configuration twice.
fn deduplicate<T: Clone + Ord>(items: &mut Vec<T>) {
    let mut seen = BTreeSet::new();
    items.retain(|item| seen.insert(item.clone()));
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
