//! All that lint finds in configurations.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::json::Json;
use crate::upstream_tls::EffectivePolicy;

use super::super::super::error::Error;
use super::super::super::output::{Output, ascii, sentence, word};
use super::finding::{Element, Finding, Note};
use super::graph::Budget;
use super::scene::{Scene, Unsuitable};
use super::{edge, judge, seal};

/// The most hosts of clusters that are looked at: each route to a cluster may name thousands.
const MAX_NAMES: usize = 500_000;

/// What came of configurations.
pub(super) struct Report {
    digest: String,
    looked_at: usize,
    judged: usize,
    listeners: usize,
    findings: Vec<Finding>,
    notes: Vec<Note>,
}

impl Report {
    /// Looks through configurations.
    pub(super) fn new(
        documents: &[Value],
        policy: &EffectivePolicy,
        now_secs: u64,
    ) -> Result<Self, Unsuitable> {
        let scene = Scene::new(documents, &mut Budget::new(Budget::MAX))?;
        let listeners: BTreeSet<&str> = scene.managers.iter().map(|m| m.listener).collect();
        let mut report = Self {
            digest: policy.file().digest().to_owned(),
            looked_at: scene.clusters.len(),
            judged: 0,
            listeners: listeners.len(),
            findings: Vec::new(),
            notes: Vec::new(),
        };
        report.judge_clusters(&scene, policy, now_secs)?;
        report.judge_listeners(&scene);
        deduplicate(&mut report.findings);
        deduplicate(&mut report.notes);
        Ok(report)
    }

    fn judge_clusters(
        &mut self,
        scene: &Scene<'_>,
        policy: &EffectivePolicy,
        now_secs: u64,
    ) -> Result<(), Unsuitable> {
        let mut names = 0;
        for cluster in &scene.clusters {
            let judged = judge::judge(cluster, scene, policy, now_secs);
            names += judged.names;
            if names > MAX_NAMES {
                return Err(Unsuitable::TooMuch);
            }
            self.judged += usize::from(judged.is_judged);
            self.findings.extend(judged.findings);
            self.notes.extend(judged.notes);
        }
        Ok(())
    }

    fn judge_listeners(&mut self, scene: &Scene<'_>) {
        for manager in &scene.managers {
            self.findings.extend(edge::findings(manager));
            self.findings.extend(seal::finding(manager, scene));
            self.notes.extend(edge::note(manager));
        }
    }

    /// Whether nothing is broken.
    pub(super) fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }

    /// Prints it for a person.
    pub(super) fn print(&self, out: &mut Output) -> Result<(), Error> {
        for Finding { element, rule, reason, fix } in &self.findings {
            let rule = rule.id();
            match element {
                Element::Cluster { name, host } => {
                    out.line(format_args!("{}: {rule} for {}", word(name), word(host)))?;
                }
                Element::Listener(name) => {
                    out.line(format_args!("listener {}: {rule}", word(name)))?;
                }
            }
            out.line(format_args!("  {}", sentence(reason)))?;
            out.line(format_args!("  fix: {}", sentence(fix)))?;
        }
        for Note { place, text } in &self.notes {
            out.line(format_args!("note: {}: {}", word(place), sentence(text)))?;
        }
        let clusters = counted(self.looked_at, "cluster");
        let listeners = counted(self.listeners, "listener");
        let findings = counted(self.findings.len(), "finding");
        let judged = self.judged;
        out.line(format_args!(
            "{clusters}, {judged} for judged hosts, {listeners} with the module, {findings}"
        ))
    }

    /// Gives it to programs.
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

/// Keeps the first of equal items: a dump holds some parts of a configuration twice.
fn deduplicate<T: Clone + Ord>(items: &mut Vec<T>) {
    let mut seen = BTreeSet::new();
    items.retain(|item| seen.insert(item.clone()));
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
