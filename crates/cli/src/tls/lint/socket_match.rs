//! Which of a cluster's transport sockets its endpoints use.

use serde_json::Value;

use super::super::document::{get, items};
use super::endpoints::Endpoint;
use super::proxy_config::ProxyConfig;

/// The metadata that selects a transport socket.
const NAMESPACE: &str = "envoy.transport_socket_match";

/// Whether a cluster's default transport socket is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DefaultSocket {
    /// No endpoint can use it: each selects one of `transport_socket_matches`.
    Unused,
    /// The endpoints are not in the input, so it is not known.
    Unknown,
    /// At least one endpoint uses it, or it is the only one.
    Used,
}

impl DefaultSocket {
    /// Checks the endpoints of a cluster.
    pub(super) fn of<'a>(cluster: &'a Value, proxy_config: &ProxyConfig<'a>) -> Self {
        let branches = items(cluster, "transport_socket_matches");
        if branches.is_empty() || get(cluster, "transport_socket_matcher").is_some() {
            return Self::Used;
        }
        let endpoints = proxy_config.endpoints(cluster);
        if endpoints.iter().any(|endpoint| uses_default(branches, endpoint)) {
            Self::Used
        } else if proxy_config.lacks_endpoints(cluster) {
            Self::Unknown
        } else if endpoints.is_empty() {
            Self::Used
        } else {
            Self::Unused
        }
    }
}

/// Whether no branch matches an endpoint. Envoy tries all branches with the metadata of the endpoint, then with
/// that of its locality.
fn uses_default(branches: &[Value], endpoint: &Endpoint<'_>) -> bool {
    let metadata = [endpoint.metadata, endpoint.locality_metadata];
    !metadata.into_iter().any(|metadata| branches.iter().any(|branch| matches(branch, metadata)))
}

/// Whether all criteria of a branch are in the metadata, with the same values. Without criteria it matches
/// everything, even no metadata.
fn matches(branch: &Value, metadata: Option<&Value>) -> bool {
    let Some(criteria) = get(branch, "match").and_then(Value::as_object) else { return true };
    let metadata = metadata.and_then(|metadata| get(metadata, "filter_metadata")?.get(NAMESPACE));
    let has =
        |name: &str, wanted| metadata.and_then(|m| m.get(name)).is_some_and(|v| equal(v, wanted));
    criteria.iter().all(|(name, wanted)| has(name, wanted))
}

/// Whether two values of a `google.protobuf.Struct` are equal. All its numbers are floating-point numbers.
fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| equal(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            let has_equal = |(name, value): (&String, &Value)| {
                other.get(name).is_some_and(|other| equal(value, other))
            };
            one.len() == other.len() && one.iter().all(has_equal)
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_branch_matches_if_all_its_criteria_are_in_the_metadata() {
        let is_match = |criteria: Value, found: Value| {
            let metadata = json!({"filter_metadata": {NAMESPACE: found}});
            matches(&json!({"match": criteria}), Some(&metadata))
        };
        assert!(is_match(json!({"name": "a"}), json!({"name": "a", "more": 1})));
        assert!(is_match(
            json!({"a": 1, "b": [true, {"c": 2}]}),
            json!({"a": 1.0, "b": [true, {"c": 2.0}]})
        ));
        assert!(is_match(json!({}), json!({})));
        assert!(!is_match(json!({"name": "a"}), json!({"name": "b"})));
        assert!(!is_match(json!({"name": "a", "more": 1}), json!({"name": "a"})));
        assert!(!is_match(json!({"a": 1}), json!({"a": "1"})));
        assert!(!is_match(json!({"a": [1]}), json!({"a": [1, 2]})));
        assert!(!is_match(json!({"a": {"b": 1}}), json!({"a": {"b": 1, "c": 2}})));
        assert!(!is_match(json!({"name": "a"}), json!({})));
        let other = json!({"filter_metadata": {"envoy.lb": {"name": "a"}}});
        assert!(!matches(&json!({"match": {"name": "a"}}), Some(&other)));
        assert!(!matches(&json!({"match": {"name": "a"}}), None));
        for empty in [json!({"match": {}}), json!({"match": null}), json!({})] {
            assert!(matches(&empty, None), "{empty}");
        }
    }
}
