//! The report of lint.

use std::collections::{BTreeMap, BTreeSet};

use vkey::json::Json;
use vkey::upstream_tls::{EffectivePolicy, Policy};

use super::super::super::output::{Output, OutputError};
use super::super::super::text::{ascii, counted, escape_line, escape_sentence, escape_word};
use super::super::document::text;
use super::finding::{Element, Finding, InFile, LintRule, Note};
use super::graph::{Budget, BudgetExhausted};
use super::invalid::InvalidConfig;
use super::managers::{Manager, Routing};
use super::overrides::Overrides;
use super::proxy_config::ProxyConfig;
use super::routes::Table;
use super::source::Input;
use super::upstream_gates::UpstreamGates;
use super::{
    cluster, cluster_limits, credentials, delivery, edge, outsiders, seal, stripped, switched_off,
    ungated, unread, wiring,
};

/// The most hosts that are checked: each route to a cluster may name thousands.
const MAX_NAMES: usize = 500_000;

/// The results for a configuration.
pub(super) struct Report {
    digest: String,
    /// The names of the inputs.
    files: Vec<String>,
    looked_at: usize,
    judged: usize,
    listeners: usize,
    findings: Vec<InFile<Finding>>,
    notes: Vec<InFile<Note>>,
}

/// What is wrong with the filters of a listener or a route.
pub(crate) struct Chain {
    /// The name of the document.
    pub(crate) document: String,
    /// What is wrong, and the fix.
    pub(crate) text: String,
}

/// What lets requests pass the module or the limits of the cluster, or refuses all.
const OF_CHAINS: [LintRule; 5] = [
    LintRule::ClusterLimitsOpen,
    LintRule::ModuleMissing,
    LintRule::ModuleSwitchedOff,
    LintRule::ModuleUnread,
    LintRule::SealMissing,
];

impl Report {
    /// What is wrong with the filter chains; `None` if no listener has the module and nothing is wrong.
    pub(super) fn chains(&self) -> Option<Vec<Chain>> {
        let chain = |InFile { file, item }: &InFile<Finding>| {
            let element = match &item.element {
                Element::Listener(name) => format!("the listener {}", escape_word(name)),
                Element::Route(place) => place.clone(),
                Element::Cluster { .. } | Element::Configuration => return None,
            };
            let text = format!("{element}: {}; {}", item.reason, item.fix);
            let is_of_chain = OF_CHAINS.contains(&item.rule);
            is_of_chain.then(|| Chain {
                document: self.files.get(*file).cloned().unwrap_or_default(),
                text,
            })
        };
        let chains = Vec::from_iter(self.findings.iter().filter_map(chain));
        (self.listeners > 0 || !chains.is_empty()).then_some(chains)
    }

    /// Checks the configuration that the inputs are the parts of. `config`: the configuration of the module that
    /// `--config` names.
    pub(super) fn new(
        inputs: &[Input],
        policy: &EffectivePolicy,
        config: Option<&Json>,
        now_secs: u64,
    ) -> Result<Self, InvalidConfig> {
        let proxy_config = ProxyConfig::new(inputs)?;
        let gates = UpstreamGates::new(&proxy_config)?;
        let listeners: BTreeSet<&str> = proxy_config.managers.iter().map(|m| m.listener).collect();
        let mut report = Self {
            digest: policy.file().digest().to_owned(),
            files: inputs.iter().map(|input| input.name.clone()).collect(),
            looked_at: proxy_config.clusters.len(),
            judged: 0,
            listeners: listeners.len(),
            findings: Vec::new(),
            notes: Vec::new(),
        };
        let judged = report.check_clusters(&proxy_config, policy, now_secs)?;
        let behind = report.check_listeners(&proxy_config, &gates)?;
        report.findings.extend(wiring::without_module(inputs, &proxy_config.extensions));
        report.check_unread(inputs, &proxy_config);
        report.findings.extend(proxy_config.refused.iter().cloned());
        if let Some(first) = proxy_config.managers.first() {
            report.add(first.file, [], wiring::labels(inputs, first.listener));
        }
        report.check_routes(&proxy_config, &gates, &judged, &behind)?;
        report.notes.extend(outsiders::notes(inputs, &proxy_config)?);
        report.check_delivery(&proxy_config, policy.file(), config, now_secs);
        deduplicate(&mut report.findings);
        report.findings.sort_by_key(|finding| finding.item.rule.severity());
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
        for InFile { file, item: cluster } in &proxy_config.clusters {
            let judged = cluster::check(cluster, proxy_config, policy, now_secs);
            names += judged.names;
            if names > MAX_NAMES {
                return Err(InvalidConfig::TooMuch);
            }
            if judged.is_judged {
                self.judged += 1;
                for_judged.extend(text(cluster, "name"));
            }
            let variables = wiring::of_cluster(cluster, proxy_config);
            self.add(*file, judged.findings.into_iter().chain(variables), judged.notes);
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
            let routing = Routing::of(manager.config, &proxy_config.scopes);
            let mut tables = Vec::new();
            for (table, is_behind) in proxy_config.tables.iter().zip(&mut behind) {
                if routing.includes(table) {
                    *is_behind = true;
                    tables.push(table);
                }
            }
            let missing = Vec::from_iter(routing.missing(&tables));
            self.check_filters(manager, &tables, missing.is_empty(), proxy_config);
            if missing.is_empty() {
                let graph = &proxy_config.graph;
                let unheld = credentials::unheld(manager, &tables, gates, graph, &mut budget)?;
                self.add(manager.file, [], unheld);
            }
            let note = |name| Note {
                place: manager.listener.to_owned(),
                text: format!("its route configuration {name} is not in the input"),
            };
            self.add(manager.file, [], missing.into_iter().map(note));
        }
        Ok(behind)
    }

    /// Checks the filters of a listener with the module, and what its routes do to them. `is_complete` is
    /// whether all its route configurations are in the input.
    fn check_filters<'a>(
        &mut self,
        manager: &Manager<'a>,
        tables: &[&Table<'a>],
        is_complete: bool,
        proxy_config: &ProxyConfig<'a>,
    ) {
        let overrides = Overrides::new(tables.iter().map(|table| table.config));
        let unsealed = seal::finding(manager, &overrides, &proxy_config.extensions);
        let unlimited = cluster_limits::finding(manager, &overrides, &proxy_config.extensions);
        let off = switched_off::check(manager, tables, is_complete, unsealed.is_none());
        let in_front = credentials::finding(manager);
        let own = edge::findings(manager).into_iter().chain(unsealed).chain(in_front);
        let own = own.chain(unlimited).chain(wiring::findings(manager));
        let notes = edge::note(manager).into_iter().chain(wiring::unread_format(manager));
        self.add(manager.file, own, notes.chain(off.notes));
        self.findings.extend(off.findings);
        self.findings.extend(stripped::check(manager, tables));
    }

    /// Checks the listeners whose module may be missing from the input.
    fn check_unread<'a>(&mut self, inputs: &'a [Input], proxy_config: &ProxyConfig<'a>) {
        let unread = &proxy_config.unread;
        let findings = unread.iter().flat_map(|u| u.findings(inputs, &proxy_config.extensions));
        self.findings.extend(findings);
        let is_missing = self.findings.iter().any(|f| f.item.rule == LintRule::ModuleMissing);
        if unread.is_empty() && proxy_config.managers.is_empty() && !is_missing {
            let file = unread::first_manager(inputs);
            self.notes.extend(file.map(|file| InFile::new(file, unread::note_without_module())));
        }
    }

    /// Checks which provider credentials can go out.
    fn check_delivery(
        &mut self,
        proxy_config: &ProxyConfig<'_>,
        policy: &Policy,
        config: Option<&Json>,
        now_secs: u64,
    ) {
        for InFile { file, item: cluster } in &proxy_config.clusters {
            let delivery = delivery::of_cluster(cluster, proxy_config, policy, now_secs);
            self.add(*file, delivery.findings, delivery.notes);
        }
        for manager in &proxy_config.managers {
            let delivery = delivery::of_listener(manager, policy, now_secs);
            self.add(manager.file, delivery.findings, delivery.notes);
        }
        if let Some(config) = config {
            let delivery = delivery::of_option(config, proxy_config, policy, now_secs);
            self.files.push("--config".to_owned());
            self.add(self.files.len().saturating_sub(1), delivery.findings, delivery.notes);
        }
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
            self.add(table.file, findings, notes);
            let hedged = credentials::hedged(table, gates, &proxy_config.graph, &mut budget)?;
            let elsewhere =
                credentials::retried_elsewhere(table, gates, &proxy_config.graph, &mut budget)?;
            self.add(table.file, elsewhere, hedged);
        }
        Ok(())
    }

    /// Adds what was found in an input.
    fn add(
        &mut self,
        file: usize,
        findings: impl IntoIterator<Item = Finding>,
        notes: impl IntoIterator<Item = Note>,
    ) {
        self.findings.extend(findings.into_iter().map(|item| InFile { file, item }));
        self.notes.extend(notes.into_iter().map(|item| InFile { file, item }));
    }

    /// The name of an input.
    fn file(&self, position: usize) -> &str {
        self.files.get(position).map_or("", String::as_str)
    }

    /// Whether there is no finding.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Prints the report.
    pub(super) fn print(&self, out: &mut Output) -> Result<(), OutputError> {
        self.findings.iter().try_for_each(|finding| self.print_finding(finding, out))?;
        for InFile { file, item: Note { place, text } } in &self.notes {
            let file = escape_line(self.file(*file));
            let (place, text) = (escape_word(place), escape_sentence(text));
            out.line(format_args!("{file}: note: {place}: {text}"))?;
        }
        let clusters = counted(self.looked_at, "cluster");
        let listeners = counted(self.listeners, "listener");
        let findings = counted(self.findings.len(), "finding");
        let judged = self.judged;
        out.line(format_args!(
            "{clusters}, {judged} for judged hosts, {listeners} with the module, {findings}"
        ))
    }

    fn print_finding(
        &self,
        InFile { file, item: Finding { element, rule, reason, fix } }: &InFile<Finding>,
        out: &mut Output,
    ) -> Result<(), OutputError> {
        let (file, severity) = (escape_line(self.file(*file)), rule.severity().word());
        let (place, host) = match element {
            Element::Cluster { name, host } if host == Element::UNKNOWN_HOST => {
                (escape_word(name), String::new())
            }
            Element::Cluster { name, host } => {
                (escape_word(name), format!(" for {}", escape_word(host)))
            }
            Element::Configuration => ("the configuration".to_owned(), String::new()),
            Element::Listener(name) => (format!("listener {}", escape_word(name)), String::new()),
            Element::Route(place) => (escape_sentence(place), String::new()),
        };
        out.line(format_args!("{file}: {severity}: {place}: {}{host}", rule.id()))?;
        out.line(format_args!("  {}", escape_sentence(reason)))?;
        out.line(format_args!("  fix: {}", escape_sentence(fix)))
    }

    /// The report as JSON.
    pub(super) fn to_json(&self) -> String {
        let count = |count: usize| u64::try_from(count).map_or(Json::Null, Json::from);
        let findings = self.findings.iter().map(|f| f.item.to_json(self.file(f.file)));
        let notes = self.notes.iter().map(|note| note.item.to_json(self.file(note.file)));
        ascii(&Json::object([
            ("policy", self.digest.as_str().into()),
            ("clusters", count(self.looked_at)),
            ("judged", count(self.judged)),
            ("listeners", count(self.listeners)),
            ("findings", Json::Array(findings.collect())),
            ("notes", Json::Array(notes.collect())),
        ]))
    }
}

/// Keeps the first of equal items: a dump contains some parts of a configuration twice.
fn deduplicate<T: Clone + Ord>(items: &mut Vec<T>) {
    let mut seen = BTreeSet::new();
    items.retain(|item| seen.insert(item.clone()));
}
