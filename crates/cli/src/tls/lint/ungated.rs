//! Routes on which requests leave without a gate: to clusters that nothing judges.

use std::collections::BTreeMap;

use serde_json::Value;

use super::finding::{Element, Finding, Note, Rule};
use super::hosts::{Named, Source};
use super::place::Place;
use super::routes::{Host, Route, Table, Target, mirrors};
use super::upstream_gates::{Gap, Gates};

/// Looks for routes without a gate in one route configuration.
struct Ungated<'s, 'a> {
    gates: &'s Gates<'a>,
    /// The clusters from which one for a judged host is reached.
    judged: &'s BTreeMap<&'a str, &'a str>,
    /// Whether the module stands in front of the routes.
    is_behind_module: bool,
    findings: Vec<Finding>,
    /// The clusters that are not in the input, each with a place that leads to it.
    absent: BTreeMap<&'a str, Place<'a>>,
}

/// Looks through the routes of a route configuration, where `judged` are the clusters from which one for
/// a judged host is reached.
pub(super) fn judge<'a>(
    table: &Table<'a>,
    gates: &Gates<'a>,
    judged: &BTreeMap<&'a str, &'a str>,
    is_behind_module: bool,
) -> (Vec<Finding>, Vec<Note>) {
    let (findings, absent) = (Vec::new(), BTreeMap::new());
    let mut ungated = Ungated { gates, judged, is_behind_module, findings, absent };
    ungated.judge(table);
    let note = |(cluster, place): (&str, Place<'_>)| Note {
        place: cluster.to_owned(),
        text: format!(
            "{} leads to it, and it is not in the input: its gate is not known",
            place.in_words()
        ),
    };
    (ungated.findings, ungated.absent.into_iter().map(note).collect())
}

impl<'a> Ungated<'_, 'a> {
    fn judge(&mut self, table: &Table<'a>) {
        if table.routes().any(|route| self.is_private(route)) {
            self.judge_mirrors(table.config, table.place);
        }
        for host in &table.hosts {
            if host.routes.iter().any(|route| self.is_private(route)) {
                self.judge_mirrors(host.config, host.place);
            }
            for route in &host.routes {
                if let Some(action) = route.action().filter(|_| self.is_private(route)) {
                    self.judge_mirrors(action, route.place);
                }
            }
            if self.is_behind_module {
                self.judge_open(host);
            }
        }
    }

    /// Whether nobody else may see the requests of a route: it is behind the module, or for a judged
    /// host.
    fn is_private(&self, route: &Route<'a>) -> bool {
        let is_judged = |target| match target {
            Target::Cluster(name) => self.judged.contains_key(name),
            Target::Header(_) | Target::Extension => !self.judged.is_empty(),
        };
        self.is_behind_module || route.targets().into_iter().any(is_judged)
    }

    /// Copies of requests. That they are taken of a part of them only, or of none at the moment, is no
    /// excuse: a runtime value changes that without a change of the configuration.
    fn judge_mirrors(&mut self, holder: &'a Value, place: Place<'a>) {
        for target in mirrors(holder) {
            let sent = "request_mirror_policies copies requests to";
            let instead = "remove the policy from request_mirror_policies";
            self.judge_target(target, Rule::MirrorUngated, sent, instead, place);
        }
    }

    /// A virtual host for whatever host a client names.
    fn judge_open(&mut self, host: &Host<'a>) {
        let is_open = |domain: &&str| Named::new(domain, Source::Route).is_none();
        let Some(domain) = host.domains().iter().filter_map(Value::as_str).find(is_open) else {
            return;
        };
        let sent = format!("the domain {domain} takes hosts that nobody lists, and sends them to");
        for route in &host.routes {
            for target in route.targets() {
                let instead = "list the hosts in domains";
                self.judge_target(target, Rule::OpenHostUngated, &sent, instead, route.place);
            }
        }
    }

    fn judge_target(
        &mut self,
        target: Target<'a>,
        rule: Rule,
        sent: &str,
        instead: &str,
        place: Place<'a>,
    ) {
        match self.gates.gap(target) {
            None => {}
            Some(Gap::Absent(name)) => {
                self.absent.entry(name).or_insert(place);
            }
            Some(Gap::Defect(name, defect)) => {
                let through = match target {
                    Target::Cluster(direct) if direct == name => String::new(),
                    _ => format!("{target}, which may be "),
                };
                let reason = format!("{sent} {through}the cluster {name}, {}", defect.of_which());
                let fix = format!(
                    "give the cluster {name} its gate (`vkey tls render` writes it), or {instead}"
                );
                let element = Element::Route(place.in_words());
                self.findings.push(Finding { element, rule, reason, fix });
            }
        }
    }
}
