//! The filter that enforces limits of the whole cluster, in a listener whose module counts on it.

use serde_json::Value;

use super::super::document::{at, is_true, text};
use super::finding::{Element, Finding, LintRule};
use super::managers::Manager;
use super::overrides::Overrides;
use super::plugin::Extensions;

/// The end of the type of Envoy's rate-limit filter.
const FILTER: &str = ".http.ratelimit.v3.RateLimit";

/// A listener in which nothing, or not always something, enforces the limits that `limits.cluster` is about.
pub(super) fn finding<'a>(
    manager: &Manager<'a>,
    overrides: &Overrides<'a>,
    extensions: &Extensions<'a>,
) -> Option<Finding> {
    if !manager.front.has_cluster_limits() {
        return None;
    }
    Some(Finding {
        element: Element::Listener(manager.listener.to_owned()),
        rule: LintRule::ClusterLimitsOpen,
        reason: gap(manager.behind, overrides, extensions)?,
        fix: "write an envoy.filters.http.ratelimit behind the seal with failure_mode_deny: true and \
              status_on_error: {code: ServiceUnavailable}, and let no route switch it off; or remove \
              limits.cluster from the configuration of the module"
            .to_owned(),
    })
}

/// Why requests pass for which nobody has asked the service.
fn gap<'a>(
    filters: &'a [Value],
    overrides: &Overrides<'a>,
    extensions: &Extensions<'a>,
) -> Option<String> {
    let found = filters.iter().filter_map(|filter| {
        let (kind, config) = extensions.filter(filter)?;
        kind.ends_with(FILTER).then_some((filter, config))
    });
    let Some((filter, config)) = found.into_iter().find(|(filter, _)| !is_true(filter, "disabled"))
    else {
        return Some(
            "limits.cluster is true, and no rate-limit filter behind the module asks a service"
                .to_owned(),
        );
    };
    let name = text(filter, "name")?;
    if is_true(filter, "is_optional") {
        return Some(format!(
            "the rate-limit filter {name} is optional: an Envoy that lacks it leaves it out"
        ));
    }
    if !is_true(config, "failure_mode_deny") {
        return Some(format!(
            "failure_mode_deny of the rate-limit filter {name} is not true: requests pass when its service does not answer"
        ));
    }
    let part = at(config, &["failure_mode_deny_percent"]);
    if part.is_some() {
        return Some(format!(
            "failure_mode_deny_percent of the rate-limit filter {name} lets a part of the requests pass when its service does not answer"
        ));
    }
    let place = overrides.switched_off(name)?;
    Some(format!("the rate-limit filter {name} is switched off in {}", place.in_words()))
}
