//! The two rate-limit header fields (draft-ietf-httpapi-ratelimit-headers).

use std::collections::BTreeMap;

/// The name and the parameters of one item.
type Item<'a> = (&'a str, BTreeMap<&'a str, u64>);

/// Checks the two fields of one response: both must name the same limits in the same order, no limit has
/// more left than its quota, and a limit without a window never resets.
pub(super) fn check_fields(policy: &str, state: &str) -> Option<String> {
    let agree = |((limit, policy), (name, state)): (&Item<'_>, &Item<'_>)| {
        let left = state.get("r").zip(policy.get("q"));
        limit == name
            && left.is_some_and(|(left, limit)| left <= limit)
            && state.contains_key("t") == policy.contains_key("w")
    };
    let agreed = items(policy).zip(items(state)).is_some_and(|(policy, state)| {
        policy.len() == state.len() && policy.iter().zip(&state).all(agree)
    });
    (!agreed).then(|| format!("ratelimit-policy {policy} with ratelimit {state}"))
}

/// Checks the field of an allowed request's response.
pub(super) fn check_state(state: &str) -> Option<String> {
    let has_room = |(_, state): &Item<'_>| state.contains_key("r");
    let is_valid = items(state).is_some_and(|items| items.iter().all(has_room));
    (!is_valid).then(|| format!("ratelimit {state}"))
}

/// `"name";parameter=1, …`
fn items(field: &str) -> Option<Vec<Item<'_>>> {
    field.split(", ").map(item).collect()
}

fn item(text: &str) -> Option<Item<'_>> {
    let mut parts = text.split(';');
    let name = parts.next()?.strip_prefix('"')?.strip_suffix('"')?;
    let parameters = parts.map(|part| {
        let (name, value) = part.split_once('=')?;
        Some((name, value.parse().ok()?))
    });
    Some((name, parameters.collect::<Option<_>>()?))
}

#[test]
fn fields_that_do_not_agree_are_detected() {
    let policy = r#""a";q=3;w=10, "b";q=0"#;
    assert_eq!(check_fields(policy, r#""a";r=3;t=0, "b";r=0"#), None);
    for wrong in [
        r#""a";r=4;t=0, "b";r=0"#,
        r#""a";r=3, "b";r=0"#,
        r#""a";r=3;t=0, "b";r=0;t=1"#,
        r#""b";r=0, "a";r=3;t=0"#,
        r#""a";r=3;t=0"#,
        r#""a";t=0, "b";r=0"#,
        r#"a;r=3;t=0, b;r=0"#,
        r#""a";r=-1;t=0, "b";r=0"#,
        "",
    ] {
        assert!(check_fields(policy, wrong).is_some(), "{wrong}");
    }
    assert_eq!(check_state(r#""a";r=3;t=0, "b";r=0"#), None);
    for wrong in [r#""a";t=0"#, r#""a";q=3"#, r#"a;r=3"#, r#""a";r=-1"#, ""] {
        assert!(check_state(wrong).is_some(), "{wrong}");
    }
}
