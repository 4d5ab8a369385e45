//! Finds routes on which requests leave without an upstream gate.

use std::collections::BTreeMap;

use serde_json::Value;

use super::finding::{Element, Finding, LintRule, Note};
use super::hosts::{ClusterHost, Source};
use super::place::Place;
use super::routes::{Host, Route, Table, Target, mirrors};
use super::upstream_gates::{Gap, UpstreamGates};

/// The check of one route configuration.
struct Ungated<'s, 'a> {
    gates: &'s UpstreamGates<'a>,
    /// The clusters from which a cluster for a covered host is reached.
    judged: &'s BTreeMap<&'a str, &'a str>,
    /// Whether requests pass the module before these routes.
    is_behind_module: bool,
    findings: Vec<Finding>,
    /// The clusters that are not in the input, each with a location that leads to it.
    absent: BTreeMap<&'a str, Place<'a>>,
}

/// Checks the routes of a route configuration. `judged` are the clusters from which a cluster for a covered
/// host is reached.
pub(super) fn check<'a>(
    table: &Table<'a>,
    gates: &UpstreamGates<'a>,
    judged: &BTreeMap<&'a str, &'a str>,
    is_behind_module: bool,
) -> (Vec<Finding>, Vec<Note>) {
    let (findings, absent) = (Vec::new(), BTreeMap::new());
    let mut ungated = Ungated { gates, judged, is_behind_module, findings, absent };
    ungated.check(table);
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
    fn check(&mut self, table: &Table<'a>) {
        if table.routes().any(|route| self.is_private(route)) {
            self.check_mirrors(table.config, table.place);
        }
        for host in &table.hosts {
            if host.routes.iter().any(|route| self.is_private(route)) {
                self.check_mirrors(host.config, host.place);
            }
            for route in &host.routes {
                if let Some(action) = route.action().filter(|_| self.is_private(route)) {
                    self.check_mirrors(action, route.place);
                }
            }
            if self.is_behind_module {
                self.check_open(host);
            }
        }
    }

    /// Whether the requests of a route are confidential: they passed the module, or are for a covered host.
    fn is_private(&self, route: &Route<'a>) -> bool {
        let is_judged = |target| match target {
            Target::Cluster(name) => self.judged.contains_key(name),
            Target::Header(_) | Target::Extension => !self.judged.is_empty(),
        };
        self.is_behind_module || route.targets().into_iter().any(is_judged)
    }

    /// Mirrored requests. A sampling rate, even of zero, is no excuse: a runtime value changes it without a
    /// change of the configuration.
    fn check_mirrors(&mut self, holder: &'a Value, place: Place<'a>) {
        for target in mirrors(holder) {
            let sent = "request_mirror_policies copies requests to";
            let instead = "remove the policy from request_mirror_policies";
            self.check_target(target, LintRule::MirrorUngated, sent, instead, place);
        }
    }

    /// A virtual host for any host that a client names.
    fn check_open(&mut self, host: &Host<'a>) {
        let is_open = |domain: &&str| ClusterHost::new(domain, Source::Route).is_none();
        let Some(domain) = host.domains().iter().filter_map(Value::as_str).find(is_open) else {
            return;
        };
        let sent = format!("the domain {domain} takes hosts that nobody lists, and sends them to");
        for route in &host.routes {
            for target in route.targets() {
                let instead = "list the hosts in domains";
                self.check_target(target, LintRule::OpenHostUngated, &sent, instead, route.place);
            }
        }
    }

    fn check_target(
        &mut self,
        target: Target<'a>,
        rule: LintRule,
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
