//! Finds misspelt members.

use serde_json::Value;

use super::super::document::get;

/// The most letters in which a misspelt name differs. Members of Envoy's messages differ in more.
const MAX_DIFFERENCE: usize = 2;

/// The longest name that is compared. Members of Envoy's messages are shorter.
const MAX_NAME_BYTES: usize = 128;

/// The member that is written instead of `wanted`; `None` if `wanted` is there, or nothing is like it.
pub(super) fn misspelt<'a>(message: &'a Value, wanted: &str) -> Option<&'a str> {
    if get(message, wanted).is_some() {
        return None;
    }
    let wanted = plain(wanted);
    let is_like = |name: &&String| {
        if name.len() > MAX_NAME_BYTES {
            return false;
        }
        let name = plain(name);
        name.len().abs_diff(wanted.len()) <= MAX_DIFFERENCE
            && difference(&name, &wanted) <= MAX_DIFFERENCE
    };
    message.as_object()?.keys().find(is_like).map(String::as_str)
}

/// A name without what differs between the JSON forms of a member.
fn plain(name: &str) -> Vec<u8> {
    name.bytes().filter(|byte| *byte != b'_').map(|byte| byte.to_ascii_lowercase()).collect()
}

/// How many letters have to be inserted, removed or replaced to get from one name to the other.
fn difference(one: &[u8], other: &[u8]) -> usize {
    let mut row = Vec::from_iter(0..=other.len());
    for (i, a) in one.iter().enumerate() {
        let mut before = i;
        let mut left = i.saturating_add(1);
        let mut next = vec![left];
        for (b, above) in other.iter().zip(row.iter().skip(1)) {
            let replaced = before.saturating_add(usize::from(a != b));
            left = replaced.min(above.saturating_add(1)).min(left.saturating_add(1));
            next.push(left);
            before = *above;
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_with_one_or_two_wrong_letters_is_misspelt() {
        for name in [
            "load_asignment", "loadAssigment", "load_assignmnet", "Load_Assignment_",
            "load-assignment",
        ] {
            assert_eq!(misspelt(&json!({ name: {} }), "load_assignment"), Some(name), "{name}");
        }
        for name in ["load_assignment", "loadAssignment", "lb_policy", "load", "assignment"] {
            assert_eq!(misspelt(&json!({ name: {} }), "load_assignment"), None, "{name}");
        }
        let long = format!("load_asignment{}", "_".repeat(MAX_NAME_BYTES));
        assert_eq!(misspelt(&json!({ long: {} }), "load_assignment"), None);
        let both = json!({"load_asignment": {}, "load_assignment": {}});
        assert_eq!(misspelt(&both, "load_assignment"), None);
    }

    #[test]
    fn members_of_one_message_are_not_taken_for_each_other() {
        for (wanted, others) in [
            ("load_assignment", &["lb_policy", "lb_config", "load_balancing_policy"][..]),
            ("endpoints", &["named_endpoints", "policy", "cluster_name"]),
            ("lb_endpoints", &["load_balancer_endpoints", "locality", "metadata", "priority"]),
            ("endpoint", &["endpoint_name", "metadata", "health_status"]),
            ("address", &["hostname", "health_check_config", "additional_addresses"]),
            ("socket_address", &["pipe", "envoy_internal_address"]),
            ("address", &["port_value", "protocol", "resolver_name", "named_port"]),
        ] {
            for other in others {
                assert_eq!(misspelt(&json!({ *other: {} }), wanted), None, "{other}");
            }
        }
    }
}
