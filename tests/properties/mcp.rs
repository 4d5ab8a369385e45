//! Properties of restrictions of MCP calls.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const POINTERS: [&str; 4] = ["/a", "/b", "/items/*", "/items/*/name"];

const NAMES: [&str; 4] = ["search_docs", "search_all", "file:///a", "x"];

/// The spellings of some values, each with those that equal it.
const NUMBERS: [&str; 8] = ["1", "1.0", "10e-1", "2", "-0", "0", "9007199254740993", "1e40"];

pub(crate) fn mcp_restriction() -> impl Strategy<Value = Value> {
    let list = |items: &'static [&'static str]| sometimes(vec(select(items), 0..3));
    let globs = || list(&["search_*", "*", "x", "file:///*"]);
    (
        list(&["tools/*", "ping", "resources/read", "*", "tools/call"]),
        list(&["s1", "*"]),
        of(vec(prop_oneof![1 => select(&["search_*", "*", "x"][..]).prop_map(Value::from), 2 => entry()], 0..3)),
        globs(),
        globs(),
    )
        .prop_map(|(methods, servers, tools, resources, prompts)| {
            present([
                ("methods", json!(methods)),
                ("servers", json!(servers)),
                ("tools", json!(tools)),
                ("resources", json!(resources)),
                ("prompts", json!(prompts)),
            ])
        })
}

/// A tool with conditions.
fn entry() -> impl Strategy<Value = Value> {
    let names = sometimes(vec(select(&["a", "b", "items"][..]), 0..4));
    (select(&["search_*", "*", "x"][..]), of(vec(condition(), 1..3)), names).prop_map(
        |(name, args, only_args)| {
            present([("name", json!(name)), ("args", json!(args)), ("only_args", json!(only_args))])
        },
    )
}

fn scalar() -> impl Strategy<Value = Value> {
    select(vec![
        json!(1),
        json!(2),
        json!(0),
        json!(9_007_199_254_740_993_u64),
        json!("1"),
        json!("ab"),
        json!(true),
        json!(null),
        json!(-1),
    ])
}

fn condition() -> impl Strategy<Value = Value> {
    let number = || {
        select(vec![json!(0), json!(1), json!(-1), json!(1.5), json!(9_007_199_254_740_992_u64)])
    };
    let test = prop_oneof![
        scalar().prop_map(|value| json!({"equals": value})),
        vec(scalar(), 0..4).prop_map(|values| json!({"in": values})),
        select(&["*", "a*", "1"][..]).prop_map(|glob| json!({"glob": glob})),
        number().prop_map(|min| json!({"min": min})),
        number().prop_map(|max| json!({"max": max})),
        Just(json!({"absent": true})),
    ];
    (select(&POINTERS[..]), test).prop_map(|(at, mut test)| {
        test["at"] = json!(at);
        test
    })
}

pub(crate) fn mcp() -> impl Strategy<Value = Mcp<'static>> {
    prop_oneof![
        1 => select(&[Mcp::None, Mcp::Unread][..]),
        3 => call().prop_map(Mcp::Call),
    ]
}

fn call() -> impl Strategy<Value = McpCall<'static>> {
    const KINDS: [ObjectKind; 4] =
        [ObjectKind::Tool, ObjectKind::Resource, ObjectKind::Prompt, ObjectKind::Task];
    const METHODS: [&str; 6] =
        ["tools/call", "tools/list", "ping", "resources/read", "subscriptions/listen", "x"];
    let usual = (select(&KINDS[..]), names(), server())
        .prop_map(|(kind, names, server)| McpCall::using(kind, names, server));
    let any = (select(&METHODS[..]), of((select(&KINDS[..]), names())), server());
    let any = any.prop_map(|(method, object, server)| McpCall {
        method,
        server,
        object,
        arguments: None,
    });
    (prop_oneof![usual, any], arguments())
        .prop_map(|(call, arguments)| McpCall { arguments, ..call })
}

fn server() -> impl Strategy<Value = Option<&'static str>> {
    of(select(&["s1", "s2"][..]))
}

fn names() -> impl Strategy<Value = &'static [Box<str>]> {
    vec(select(&NAMES[..]), 0..3)
        .prop_map(|names| &*names.into_iter().map(Box::from).collect::<Vec<_>>().leak())
}

fn arguments() -> impl Strategy<Value = Option<&'static Arguments>> {
    let found = prop_oneof![
        Just(Found::Missing),
        Just(Found::Null),
        any::<bool>().prop_map(Found::Bool),
        select(&NUMBERS[..]).prop_map(|number| Found::Number(number.into())),
        of(select(&["ab", "1", ""][..])).prop_map(|text| Found::Text(text.map(Box::from))),
        Just(Found::Container),
    ];
    let at = vec(vec(found, 1..3), POINTERS.len());
    let names = vec(select(&["a", "b", "items", "other"][..]).prop_map(Box::from), 0..3);
    of((at, names).prop_map(|(found, names)| {
        let pointers = POINTERS.iter().map(|text| Pointer::parse(text).unwrap());
        let found = pointers.zip(found).collect();
        &*Box::leak(Box::new(Arguments::new(found, Some(names))))
    }))
}

fn holds(restriction: &Value, mcp: Mcp<'_>) -> bool {
    let restriction = Restriction::parse(json!({"mcp": restriction}).to_string().as_bytes());
    let access = Access { now_secs: NOW, mcp, ..Access::default() };
    restriction.unwrap().prohibits(&access).is_none()
}

proptest! {
    #![proptest_config(config())]

    /// Also for entries of `tools`, which are alternatives: each is narrowed by what is added to it.
    #[test]
    fn a_condition_only_narrows(
        tool in entry(),
        others in vec(entry(), 0..2),
        more in vec(condition(), 0..3),
        only_args in of(vec(select(&["a", "b", "items"][..]), 0..4)),
        call in call(),
    ) {
        let mut narrowed = tool.clone();
        let mut args = tool["args"].as_array().cloned().unwrap_or_default();
        args.extend(more);
        narrowed["args"] = json!(args);
        if let Some(only_args) = only_args.filter(|_| tool.get("only_args").is_none()) {
            narrowed["only_args"] = json!(only_args);
        }
        let with = |tool: &Value| {
            let tools = [&[tool.clone()][..], &others].concat();
            holds(&json!({"tools": tools}), Mcp::Call(call))
        };
        prop_assert!(!with(&narrowed) || with(&tool));
        let name = json!({"name": tool["name"]});
        prop_assert!(!with(&tool) || with(&name));
    }

    /// One member more, or one entry less, never allows more.
    #[test]
    fn a_member_only_narrows(
        mcp in mcp_restriction(),
        usual in select(&["methods", "tools", "prompts"][..]),
        index in any::<Index>(),
        call in call(),
    ) {
        let mut mcp = mcp;
        mcp[usual] = mcp.get(usual).cloned().unwrap_or_else(|| json!(["*"]));
        let members = mcp.as_object().unwrap();
        let name = members.keys().nth(index.index(members.len())).unwrap().clone();
        // Without globs for one kind, others are open, and the lists are judged by `methods`.
        let is_kind = ["tools", "resources", "prompts"].contains(&name.as_str());
        let is_list = call.method.ends_with("/list");
        let mut wider = mcp.clone();
        wider.as_object_mut().unwrap().remove(&name);
        let kinds = ["tools", "resources", "prompts"].iter().filter(|kind| wider.get(**kind).is_some());
        let opens = is_kind && (kinds.count() > 0 || is_list);
        if !opens {
            prop_assert!(!holds(&mcp, Mcp::Call(call)) || holds(&wider, Mcp::Call(call)));
        }
        let mut fewer = mcp.clone();
        _ = fewer[&name].as_array_mut().unwrap().pop();
        prop_assert!(!holds(&fewer, Mcp::Call(call)) || holds(&mcp, Mcp::Call(call)));
    }

    /// What is refused before the body is read is refused with it.
    #[test]
    fn what_is_refused_unread_is_refused_whatever_the_call_is(
        only in restriction(),
        access in access(),
        call in call(),
    ) {
        let only = Restriction::parse(only.to_string().as_bytes()).unwrap();
        let prohibits = |mcp| only.prohibits(&Access { mcp, ..access.clone() }).is_some();
        if prohibits(Mcp::Unread) {
            prop_assert!(prohibits(Mcp::Call(call)) && prohibits(Mcp::None));
        }
    }

    /// A tool that is shown can be called, one that is not cannot, and so for resources and prompts.
    #[test]
    fn what_is_shown_can_be_used_and_nothing_else(
        only in restriction(),
        access in access(),
        kind in select(&[ObjectKind::Tool, ObjectKind::Resource, ObjectKind::Prompt][..]),
        name in select(&NAMES[..]),
        arguments in vec(arguments(), 20),
    ) {
        let only = Restriction::parse(only.to_string().as_bytes()).unwrap();
        let is_shown = only.shows(&access, kind, name);
        let names = [name.into()];
        let server = match access.mcp {
            Mcp::Call(call) => call.server,
            Mcp::None | Mcp::Unread => None,
        };
        let is_allowed = |arguments| {
            let mcp = Mcp::Call(McpCall { arguments, ..McpCall::using(kind, &names, server) });
            only.prohibits(&Access { mcp, ..access.clone() }).is_none()
        };
        prop_assert!(is_shown || !arguments.into_iter().any(is_allowed));
        prop_assert_eq!(is_shown, is_allowed(None));
        let mut needs = vkey::access::restriction::ArgumentNeeds::default();
        only.add_needs(&mut needs);
        if is_shown && needs.is_empty() {
            prop_assert!(is_allowed(Some(&Arguments::default())));
        }
    }

    /// A spelling of a number makes no difference, and one in the last place does.
    #[test]
    fn numbers_compare_as_the_numbers_that_they_are(
        left in number(),
        right in number(),
        shift in 0..30_i64,
        zeros in 0..4_usize,
    ) {
        // Bounds of more than 15 digits are whole numbers.
        let left = if left.1.unsigned_abs() < 1_000_000_000_000_000 { left } else { (0, left.1) };
        let bound: Value = serde_json::from_str(&spell(left, 0, 0)).unwrap();
        let bound = if left.0 == 0 { json!(left.1) } else { bound };
        let respelt = spell(right, shift, zeros);
        let found = Found::Number(respelt.as_str().into());
        let arguments = Arguments::new(vec![(Pointer::parse("/a").unwrap(), vec![found])], None);
        let names = ["x".into()];
        let call = McpCall {
            arguments: Some(&arguments),
            ..McpCall::using(ObjectKind::Tool, &names, None)
        };
        let passes = |test: &str| {
            let condition = present([("at", json!("/a")), (test, bound.clone())]);
            holds(&json!({"tools": [{"name": "x", "args": [condition]}]}), Mcp::Call(call))
        };
        let order = scaled(right).cmp(&scaled(left));
        prop_assert_eq!(passes("equals"), order.is_eq(), "{}", respelt);
        prop_assert_eq!(passes("min"), order.is_ge(), "{}", respelt);
        prop_assert_eq!(passes("max"), order.is_le(), "{}", respelt);
    }
}

/// How many decimal places, and the number without its point.
fn number() -> impl Strategy<Value = (u32, i64)> {
    let integer = prop_oneof![-20..20_i64, any::<i64>(), (1_i64 << 53) - 2..(1_i64 << 53) + 3];
    (0..4_u32, integer)
}

/// In thousandths.
fn scaled((places, integer): (u32, i64)) -> i128 {
    i128::from(integer) * 10_i128.pow(3 - places)
}

/// A spelling of the number with `zeros` more at its end and an exponent that is `shift` larger.
fn spell((places, integer): (u32, i64), shift: i64, zeros: usize) -> String {
    let sign = if integer < 0 { "-" } else { "" };
    let digits = format!("{}{}", integer.unsigned_abs(), "0".repeat(zeros));
    let exponent = -i64::from(places) - i64::try_from(zeros).unwrap() + shift;
    let fraction = usize::try_from(shift).unwrap();
    let padded = format!("{digits:0>width$}", width = fraction + 1);
    let (whole, fraction) = padded.split_at(padded.len() - fraction);
    match fraction {
        "" => format!("{sign}{whole}E{exponent}"),
        fraction => format!("{sign}{whole}.{fraction}e{exponent:+}"),
    }
}
