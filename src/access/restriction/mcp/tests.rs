//! Tests of `mcp`.

use super::*;
use crate::access::restriction::Restriction;
use crate::access::{Access, Mcp, Models};
use crate::body::mcp::{Found, Pointer};
use crate::decision::DenyReason;
use crate::json::Integers;

use ObjectKind::{Prompt, Resource, Task, Tool};

#[track_caller]
fn read(mcp: &str) -> McpRestriction {
    let json = Json::parse(mcp.as_bytes()).unwrap();
    McpRestriction::read(&json.root(Integers::Digits)).unwrap()
}

#[track_caller]
fn allows(mcp: &str, method: &str, object: Option<(ObjectKind, &[&str])>) -> bool {
    let names =
        object.map_or(Vec::new(), |(_, names)| names.iter().map(|name| (*name).into()).collect());
    let object = object.map(|(kind, _)| (kind, &*names));
    read(mcp).holds(&McpCall { method, server: None, object, arguments: None })
}

fn shows(mcp: &str, kind: ObjectKind, name: &str) -> bool {
    let restriction = Restriction::parse(format!(r#"{{"mcp": {mcp}}}"#).as_bytes()).unwrap();
    restriction.shows(&Access::default(), kind, name)
}

const LISTS: [&str; 4] =
    ["tools/list", "resources/list", "resources/templates/list", "prompts/list"];

#[test]
fn every_name_must_match() {
    let mcp = r#"{"tools": ["get_*"], "resources": ["file:///a", "db://*"], "prompts": ["p"]}"#;
    assert!(allows(mcp, "tools/call", Some((Tool, &["get_x"]))));
    assert!(!allows(mcp, "tools/call", Some((Tool, &["Get_x"]))));
    assert!(allows(mcp, "subscriptions/listen", Some((Resource, &["db://1", "file:///a"]))));
    assert!(!allows(mcp, "subscriptions/listen", Some((Resource, &["db://1", "file:///b"]))));
    assert!(allows(mcp, "prompts/get", Some((Prompt, &["p"]))));
    assert!(!allows(mcp, "prompts/get", Some((Prompt, &["get_x"]))));
}

#[test]
fn a_kind_without_globs_is_closed_as_soon_as_another_kind_has_some() {
    let calls = [
        ("tools", "tools/call", Tool),
        ("resources", "resources/read", Resource),
        ("prompts", "prompts/get", Prompt),
    ];
    for (member, ..) in calls {
        for (other, method, kind) in calls {
            let mcp = format!(r#"{{"{member}": ["*"]}}"#);
            assert_eq!(
                allows(&mcp, method, Some((kind, &["a"]))),
                member == other,
                "{mcp} {method}"
            );
            assert_eq!(shows(&mcp, kind, "a"), member == other, "{mcp} {kind:?}");
            let none = format!(r#"{{"{member}": []}}"#);
            assert!(!allows(&none, method, Some((kind, &["a"]))), "{none} {method}");
        }
    }
    for (_, method, kind) in calls {
        for mcp in ["{}", r#"{"methods": ["*"]}"#] {
            assert!(allows(mcp, method, Some((kind, &["a"]))), "{mcp} {method}");
        }
    }
}

#[test]
fn tasks_are_judged_by_methods_alone() {
    let task = Some((Task, &["t-1"][..]));
    assert!(allows(r#"{"tools": ["a"]}"#, "tasks/get", task));
    assert!(allows(r#"{"tools": ["a"]}"#, "tasks/list", None));
    assert!(!allows(r#"{"tools": ["a"], "methods": ["tools/*"]}"#, "tasks/get", task));
    assert!(allows(r#"{"tools": ["a"], "methods": ["tasks/*"]}"#, "tasks/get", task));
}

#[test]
fn a_call_that_must_name_an_object_and_names_none_is_refused() {
    let restricted = [r#"{"tools": ["*"]}"#, r#"{"resources": ["*"]}"#, r#"{"prompts": ["*"]}"#];
    let all = r#"{"tools": ["*"], "resources": ["*"], "prompts": ["*"]}"#;
    for mcp in restricted.iter().chain([&all]) {
        for (method, kinds) in NAMING_METHODS {
            assert!(!allows(mcp, method, None), "{mcp} {method}");
            assert!(!allows(mcp, method, Some((kinds[0], &[]))), "{mcp} {method}");
            let wrong = if kinds[0] == Tool { Task } else { Tool };
            assert!(!allows(mcp, method, Some((wrong, &["a"]))), "{mcp} {method}");
            let spelt = method.to_uppercase();
            assert!(!allows(mcp, &spelt, None), "{mcp} {spelt}");
            assert!(allows(all, method, Some((kinds[0], &["a"]))), "{method}");
            assert!(allows(r#"{"methods": ["*"]}"#, method, None), "{method}");
        }
        for method in LISTING_METHODS {
            for spelt in [method.to_uppercase(), method.replace('s', "S")] {
                assert!(!allows(mcp, &spelt, None), "{mcp} {spelt}");
            }
            assert!(allows(mcp, method, None), "{mcp} {method}");
        }
        for method in ["ping", "subscriptions/listen", "logging/setLevel", "admin/drop"] {
            assert!(allows(mcp, method, None), "{mcp} {method}");
        }
        assert!(allows(mcp, "subscriptions/listen", Some((Resource, &[]))), "{mcp}");
    }
}

#[test]
fn what_a_client_needs_to_connect_is_implied_in_methods() {
    for method in
        ["initialize", "notifications/initialized", "notifications/x", "ping", "server/discover"]
    {
        for mcp in [r#"{"methods": []}"#, r#"{"methods": ["tools/call"], "tools": ["a"]}"#] {
            assert!(allows(mcp, method, None), "{mcp} {method}");
        }
        let server = r#"{"servers": ["a"]}"#;
        assert!(!allows(server, method, None), "{method}");
    }
    for method in
        ["notifications", "Initialize", "pings", "tools/call", "logging/setLevel", "tasks/list"]
    {
        assert!(!allows(r#"{"methods": []}"#, method, None), "{method}");
    }
}

/// A closed kind lists as empty, so its list may be asked for.
#[test]
fn lists_are_implied_as_soon_as_a_kind_has_globs() {
    for method in LISTS {
        for member in ["tools", "resources", "prompts"] {
            let mcp = format!(r#"{{"methods": [], "{member}": []}}"#);
            assert!(allows(&mcp, method, None), "{mcp} {method}");
        }
        assert!(!allows(r#"{"methods": ["tools/call"]}"#, method, None), "{method}");
        assert!(allows(r#"{"methods": ["*/list"]}"#, method, None), "{method}");
    }
}

#[test]
fn what_may_not_be_used_is_not_shown() {
    for (mcp, shown) in [
        ("{}", true),
        (r#"{"tools": ["a"]}"#, true),
        (r#"{"tools": ["b"]}"#, false),
        (r#"{"methods": ["tools/call"], "tools": ["a"]}"#, true),
        (r#"{"methods": ["tools/list"], "tools": ["a"]}"#, false),
        (r#"{"methods": ["tools/list"]}"#, false),
        (r#"{"tools": [{"name": "a", "args": [{"at": "/x", "max": 1}], "only_args": []}]}"#, true),
        (r#"{"tools": [{"name": "b*"}]}"#, false),
        (r#"{"servers": ["s"]}"#, false),
    ] {
        assert_eq!(shows(mcp, Tool, "a"), shown, "{mcp}");
    }
    assert!(shows(r#"{"resources": ["file:///{path}"]}"#, Resource, "file:///{path}"));
    assert!(!shows(r#"{"resources": ["file:///a*"]}"#, Resource, "file:///{path}"));
}

#[test]
fn an_object_is_shown_for_the_server_of_the_list() {
    let restriction =
        Restriction::parse(br#"{"mcp": {"servers": ["s"]}, "methods": ["POST"]}"#).unwrap();
    let shows = |method, server| {
        let list = McpCall { method: "tools/list", server, ..McpCall::default() };
        let access = Access { method, mcp: Mcp::Call(list), ..Access::default() };
        restriction.shows(&access, Tool, "a")
    };
    assert!(shows("POST", Some("s")));
    assert!(!shows("POST", Some("t")) && !shows("POST", None) && !shows("GET", Some("s")));
}

#[test]
fn an_alternative_can_show_what_another_one_closes() {
    let restriction = Restriction::parse(
        br#"{"any_of": [{"mcp": {"tools": ["a"]}}, {"mcp": {"prompts": ["p"]}}, {"models": ["*"]}]}"#,
    )
    .unwrap();
    let shows = |kind, name| restriction.shows(&Access::default(), kind, name);
    assert!(shows(Tool, "a") && shows(Prompt, "p"));
    assert!(!shows(Tool, "p") && !shows(Prompt, "a") && !shows(Resource, "a"));
}

#[test]
fn entries_are_alternatives() {
    let mcp = read(
        r#"{"tools": ["free", {"name": "sql_*", "args": [{"at": "/limit", "max": 10}]},
                      {"name": "sql_read", "args": [{"at": "/limit", "max": 100}], "only_args": ["limit"]}]}"#,
    );
    let allows = |tool: &str, limit: &str, names: &[&str]| {
        let found = vec![(Pointer::parse("/limit").unwrap(), vec![Found::Number(limit.into())])];
        let arguments =
            Arguments::new(found, Some(names.iter().map(|name| (*name).into()).collect()));
        let tools = [tool.into()];
        mcp.holds(&McpCall { arguments: Some(&arguments), ..McpCall::using(Tool, &tools, None) })
    };
    assert!(allows("free", "1000", &["limit", "other"]));
    assert!(
        allows("sql_write", "10", &["limit", "other"]) && !allows("sql_write", "11", &["limit"])
    );
    assert!(allows("sql_read", "100", &["limit"]) && !allows("sql_read", "101", &["limit"]));
    assert!(
        !allows("sql_read", "100", &["limit", "other"]) && allows("sql_read", "10", &["other"])
    );
    assert!(!allows("other", "1", &[]));
}

#[test]
fn what_conditions_need_is_wanted_once_and_from_alternatives_too() {
    let needs = |restriction: &str| {
        let mut needs = ArgumentNeeds::default();
        Restriction::parse(restriction.as_bytes()).unwrap().add_needs(&mut needs);
        let pointers = needs.pointers.iter().map(|pointer| pointer.as_str().to_owned());
        (pointers.collect::<Vec<_>>().join(" "), needs.names)
    };
    let tool =
        |members: &str| format!(r#"{{"mcp": {{"tools": ["x", {{"name": "a", {members}}}]}}}}"#);
    let [a, b] = ["/a", "/b/*"].map(|at| format!(r#"{{"at": "{at}", "max": 1}}"#));
    let both = tool(&format!(r#""args": [{a}, {b}, {a}]"#));
    assert_eq!(needs(&both), ("/a /b/*".to_owned(), false));
    let only = tool(r#""only_args": []"#);
    assert_eq!(needs(&format!(r#"{{"any_of": [{both}, {only}]}}"#)), ("/a /b/*".to_owned(), true));
    assert_eq!(needs(r#"{"mcp": {"tools": ["a"]}}"#), (String::new(), false));
}

#[test]
fn other_entries_are_refused() {
    for wrong in [
        r#"{"tools": [1]}"#,
        r#"{"tools": "a"}"#,
        r#"{"tools": [["a"]]}"#,
        r#"{"resources": [{"name": "a"}]}"#,
        r#"{"prompts": [{"name": "a"}]}"#,
        r#"{"tasks": ["a"]}"#,
        "[]",
    ] {
        let json = Json::parse(wrong.as_bytes()).unwrap();
        assert!(McpRestriction::read(&json.root(Integers::Digits)).is_err(), "{wrong}");
    }
}

#[test]
fn models_and_mcp_of_one_restriction_are_a_pair() {
    for (restriction, is_pair) in [
        (r#"{"models": ["a"], "mcp": {}}"#, true),
        (r#"{"models": ["a"], "any_of": [{"paths": ["/"]}, {"mcp": {}}]}"#, true),
        (r#"{"mcp": {}, "any_of": [{"models": []}]}"#, true),
        (r#"{"any_of": [{"models": ["a"], "mcp": {}}]}"#, true),
        (r#"{"any_of": [{"models": ["a"]}, {"mcp": {}}]}"#, false),
        (r#"{"models": ["a"], "any_of": [{"models": ["b"]}]}"#, false),
        (r#"{"mcp": {}}"#, false),
        ("{}", false),
    ] {
        let read = Restriction::parse(restriction.as_bytes()).unwrap();
        assert_eq!(read.pairs_models_with_mcp(), is_pair, "{restriction}");
    }
}

/// An alternative for requests of another kind says nothing about a request.
#[test]
fn the_alternative_for_this_kind_of_request_is_blamed() {
    let chat = r#"{"models":["small"]}"#;
    let tools = r#"{"mcp":{"tools":["get_*"]}}"#;
    let elsewhere = r#"{"hosts":["other.example"],"mcp":{}}"#;
    let methods = r#"{"methods":["GET"]}"#;
    let set = [Box::from("set_time")];
    let mcp = Mcp::Call(McpCall::using(Tool, &set, None));
    let large = [Box::from("large")];
    let models = Models::Named { names: &large, open_ended: false };
    for (alternatives, of_call, of_models, of_neither) in [
        ([chat, tools], DenyReason::McpCall, DenyReason::Model, DenyReason::Model),
        ([tools, chat], DenyReason::McpCall, DenyReason::Model, DenyReason::McpCall),
        ([methods, tools], DenyReason::McpCall, DenyReason::Method, DenyReason::Method),
        ([methods, chat], DenyReason::Method, DenyReason::Model, DenyReason::Method),
        ([elsewhere, tools], DenyReason::Host, DenyReason::Host, DenyReason::Host),
    ] {
        let text = format!(r#"{{"any_of":[{}]}}"#, alternatives.join(","));
        let restriction = Restriction::parse(text.as_bytes()).unwrap();
        let reason = |access| restriction.prohibits(&access).unwrap();
        let access = Access { method: "POST", ..Access::default() };
        assert_eq!(reason(Access { mcp, ..access.clone() }), of_call, "{text}");
        assert_eq!(reason(Access { models, ..access.clone() }), of_models, "{text}");
        assert_eq!(reason(access), of_neither, "{text}");
    }
}
