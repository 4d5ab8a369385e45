//! The models of requests, under any restrictions.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

/// What is known of the models of a request. The names are few, so they are kept for ever.
pub(crate) fn models() -> impl Strategy<Value = Models<'static>> {
    let some = (names(0..4), any::<bool>(), any::<bool>());
    let some = some.prop_map(|(names, open, ended)| named(names, open && ended));
    let known = select(&[Models::None, Models::Unread, Models::Exempt][..]);
    prop_oneof![1 => known, 2 => some]
}

fn names(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<&'static str>> {
    vec(select(&["gpt-4o", "gpt-4o", "o3", "other"][..]), len)
}

fn named(names: Vec<&str>, open_ended: bool) -> Models<'static> {
    let names = names.into_iter().map(Box::from).collect::<Vec<_>>();
    Models::Named { names: names.leak(), open_ended }
}

/// Whether a key with this restriction in its claims and these caveats allows an access.
fn is_allowed(only: &Value, caveats: &[Value], access: &Access<'_>) -> bool {
    let claims = json!({"jti": "k", "tenant": "t", "iat": NOW - 60, "exp": NOW + 60, "only": only});
    let key = caveats.iter().fold(sign(&claims), |token, caveat| attenuate(&token, caveat));
    allows(&mut engine(), &key, access)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn more_models_only_narrow(
        only in restriction(),
        caveats in vec(restriction(), 0..3),
        access in access(),
        some in names(1..4),
        more in names(0..4),
        open_ended in any::<bool>(),
    ) {
        let all = [&some[..], &more].concat();
        let fewer = Access { models: named(some, false), ..access.clone() };
        let access = Access { models: named(all, open_ended), ..access };
        prop_assert!(!is_allowed(&only, &caveats, &access) || is_allowed(&only, &caveats, &fewer));
    }

    /// What is refused before the body is read is refused with any body, and what no body matters for is decided.
    #[test]
    fn what_is_refused_unread_is_refused_read(
        only in restriction(),
        caveats in vec(restriction(), 0..3),
        access in access(),
        models in models(),
    ) {
        let unread = Access { models: Models::Unread, ..access.clone() };
        let read = Access { models, ..access };
        prop_assert!(!is_allowed(&only, &caveats, &read) || is_allowed(&only, &caveats, &unread));
        let restricts = |restriction: &Value| {
            let restriction = restriction.to_string();
            Restriction::parse(restriction.as_bytes()).unwrap().restricts_models()
        };
        if !restricts(&only) && !caveats.iter().any(restricts) {
            let same = is_allowed(&only, &caveats, &read) == is_allowed(&only, &caveats, &unread);
            prop_assert!(same);
        }
    }
}

/// The case that leaves a choice to the server, and the one that names nothing.
#[test]
fn every_model_must_be_allowed() {
    let only = json!({"models": ["gpt-*", "o3"]});
    let either = json!({"any_of": [{"models": ["gpt-*"]}, {"models": ["o3"]}]});
    for (models, by_list, by_either) in [
        (named(vec!["gpt-4o", "o3"], false), true, false),
        (named(vec!["gpt-4o"], false), true, true),
        (named(vec!["o3", "o3"], false), true, true),
        (named(vec!["gpt-4o", "other"], false), false, false),
        (named(vec!["other", "gpt-4o"], false), false, false),
        (named(vec!["gpt-4o"], true), false, false),
        (named(vec![], false), false, false),
        (named(vec![], true), false, false),
        (Models::None, false, false),
        (Models::Unread, true, true),
        (Models::Exempt, true, true),
    ] {
        let access = Access { now_secs: NOW, models, ..Access::default() };
        assert_eq!(is_allowed(&only, &[], &access), by_list, "{models:?}");
        assert_eq!(is_allowed(&json!({}), std::slice::from_ref(&only), &access), by_list);
        assert_eq!(is_allowed(&either, &[], &access), by_either, "{models:?}");
        let is_undecided = matches!(models, Models::Unread | Models::Exempt);
        assert_eq!(is_allowed(&json!({"models": []}), &[], &access), is_undecided, "{models:?}");
    }
}
