//! Messages against globs.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const TOOL: &str = r#"{"mcp":{"tools":["a"]}}"#;
const NO_FORCE: &str = r#"{"mcp":{"tools":[{"name":"a","args":[{"at":"/force","absent":true}]}]}}"#;
const FILES: &str = r#"{"mcp":{"resources":["file:///srv/*"]}}"#;
const PROMPT: &str = r#"{"mcp":{"prompts":["p"]}}"#;
const CALLS: &str = r#"{"mcp":{"methods":["tools/call"]}}"#;
const TOOL_METHODS: &str = r#"{"mcp":{"methods":["tools/*"],"tools":["a"]}}"#;
const OTHER_SERVER: &str = r#"{"mcp":{"servers":["t"]}}"#;
const SERVER: &str = r#"{"mcp":{"servers":["s"]}}"#;
const NOTHING: &str = r#"{"mcp":{"tools":[]}}"#;
const EITHER: &str = r#"{"any_of":[{"mcp":{"tools":["a"]}},{"mcp":{"prompts":["p"]}},
    {"mcp":{"tools":[{"name":"b","args":[{"at":"/n","max":1}]}]}}]}"#;

/// A restriction, a method, the members of its parameters, and what the forgiving server runs.
const EVASIONS: &[(&str, &str, &str, &str)] = &[
    (TOOL, "tools/call", r#""name":"b""#, "tools/call b"),
    (TOOL, "tools/call", r#""name":"a","name":"b""#, "tools/call b"),
    (TOOL, "tools/call", r#""name":"a","n\u0061me":"b""#, "tools/call b"),
    (TOOL, "tools/call", r#""name":"a","Name":"b""#, "tools/call b"),
    (TOOL, "tools/call", r#""name":"a","name\u0000":"b""#, "tools/call b"),
    (TOOL, "tools/call", r#""name":"a\u0000""#, "tools/call a"),
    (TOOL, "tools/call", r#""name":" a""#, "tools/call a"),
    (TOOL, "tools/call", r#""name":"A""#, "tools/call A"),
    (TOOL, "tools/call", r#""name":["a","b"]"#, r#"tools/call ["a","b"]"#),
    (TOOL, "tools/call", r#""name":{"a":"b"}"#, r#"tools/call {"a":"b"}"#),
    (TOOL, "tools/call", r#""name":null"#, "tools/call"),
    (TOOL, "tools/call", r#""params":{"name":"a"}"#, "tools/call"),
    (TOOL, "tools/call", r#""uri":"a""#, "tools/call"),
    (TOOL, "Tools/Call", r#""name":"b""#, "tools/call b"),
    (TOOL, "TOOLS/CALL", r#""name":"a""#, "tools/call a"),
    (TOOL, "tools\\/call", r#""name":"b""#, "tools/call b"),
    (TOOL, "tools/\\u0063all", r#""name":"b""#, "tools/call b"),
    (TOOL, "tools/call\\u0000", r#""name":"b""#, "tools/call b"),
    (TOOL, "tools/call ", r#""name":"b""#, "tools/call b"),
    (TOOL, "\\ntools/call", r#""name":"b""#, "tools/call b"),
    (TOOL, "tool\u{17f}/call", r#""name":"b""#, "tools/call b"),
    (TOOL, "tool\\u017f/list", "", "tools/list"),
    (TOOL, "tools/list ", "", "tools/list"),
    (TOOL, "prompts/get", r#""name":"a""#, "prompts/get a"),
    (TOOL, "resources/read", r#""uri":"a""#, "resources/read a"),
    (
        TOOL,
        "completion/complete",
        r#""ref":{"type":"ref/prompt","name":"a"}"#,
        "completion/complete a",
    ),
    (TOOL, "Tools/List", "", "tools/list"),
    (TOOL, "Resources/Templates/List", "", "resources/templates/list"),
    (NOTHING, "tools/call", r#""name":"""#, "tools/call"),
    (NOTHING, "tools/call", r#""name":"a""#, "tools/call a"),
    // Arguments.
    (
        NO_FORCE,
        "tools/call",
        r#""arguments":{"force":1},"name":"a""#,
        r#"tools/call a {"force":1}"#,
    ),
    (
        NO_FORCE,
        "tools/call",
        r#""name":"a","arguments":{},"arguments":{"force":1}"#,
        r#"tools/call a {"force":1}"#,
    ),
    (
        NO_FORCE,
        "tools/call",
        r#""name":"a","arguments":{},"Arguments":{"force":1}"#,
        r#"tools/call a {"force":1}"#,
    ),
    (
        NO_FORCE,
        "tools/call",
        r#""name":"a","argument\u017f":{"force":1}"#,
        r#"tools/call a {"force":1}"#,
    ),
    (
        NO_FORCE,
        "tools/call",
        r#""name":"a","arguments":null,"ARGUMENTS":{"force":1}"#,
        r#"tools/call a {"force":1}"#,
    ),
    (
        NO_FORCE,
        "tools/call",
        r#""name":"a","arguments":"{\"force\":1}""#,
        r#"tools/call a {"force":1}"#,
    ),
    // Resources.
    (FILES, "resources/read", r#""uri":"file:///etc/passwd""#, "resources/read file:///etc/passwd"),
    (FILES, "resources/read", r#""uri":"file:///srv/../etc""#, "resources/read file:///srv/../etc"),
    (
        FILES,
        "resources/read",
        r#""uri":"file:///srv/%2e%2e/etc""#,
        "resources/read file:///srv/%2e%2e/etc",
    ),
    (
        FILES,
        "resources/read",
        r#""uri":"file:///srv/..%2fetc""#,
        "resources/read file:///srv/..%2fetc",
    ),
    (
        FILES,
        "resources/read",
        r#""uri":"file:///srv/.\t./etc""#,
        "resources/read file:///srv/.\t./etc",
    ),
    (FILES, "resources/read", r#""uri":"file:///srv/.. ""#, "resources/read file:///srv/.."),
    (FILES, "re\u{17f}ources/read", r#""uri":"file:///b""#, "resources/read file:///b"),
    (FILES, "resources/read", r#""uri":"file://%2fsrv/a""#, "resources/read file://%2fsrv/a"),
    (FILES, "resources/read", r#""uri":"FILE:///srv/a""#, "resources/read FILE:///srv/a"),
    (FILES, "resources/read", r#""uri":"file:///{path}""#, "resources/read file:///{path}"),
    (FILES, "resources/read", r#""uri":["file:///srv/a"]"#, r#"resources/read ["file:///srv/a"]"#),
    (
        FILES,
        "resources/read",
        r#""uri":"file:///srv/a","URI":"file:///b""#,
        "resources/read file:///b",
    ),
    (FILES, "resources/read", r#""name":"file:///srv/a""#, "resources/read"),
    (FILES, "Resources/Read", r#""uri":"file:///b""#, "resources/read file:///b"),
    (FILES, "resources/subscribe", "", "resources/subscribe"),
    (FILES, "tools/call", r#""name":"file:///srv/a""#, "tools/call file:///srv/a"),
    (
        FILES,
        "completion/complete",
        r#""ref":{"type":"ref/resource","uri":"file:///{x}"}"#,
        "completion/complete file:///{x}",
    ),
    (
        FILES,
        "completion/complete",
        r#""ref":{"type":"ref/prompt","name":"file:///srv/a"}"#,
        "completion/complete file:///srv/a",
    ),
    (
        FILES,
        "completion/complete",
        r#""ref":{"type":"ref/resource","name":"file:///srv/a"}"#,
        "completion/complete file:///srv/a",
    ),
    (
        FILES,
        "completion/complete",
        r#""ref":{"type":"ref/tool","uri":"file:///srv/a"}"#,
        "completion/complete file:///srv/a",
    ),
    (
        FILES,
        "completion/complete",
        r#""ref":{"uri":"file:///srv/a"}"#,
        "completion/complete file:///srv/a",
    ),
    (
        FILES,
        "completion/complete",
        r#""ref":[{"type":"ref/resource","uri":"file:///b"}]"#,
        "completion/complete",
    ),
    (
        FILES,
        "completion/complete",
        r#""ref":{"type":"ref/resource","uri":"file:///srv/a","Uri":"b"}"#,
        "completion/complete b",
    ),
    (
        FILES,
        "subscriptions/listen",
        r#""notifications":{"resourceSubscriptions":["file:///srv/a","b"]}"#,
        r#"subscriptions/listen ["file:///srv/a","b"]"#,
    ),
    (
        FILES,
        "subscriptions/listen",
        r#""notifications":{"resourceSubscriptions":["file:///srv/a",["b"]]}"#,
        r#"subscriptions/listen ["file:///srv/a",["b"]]"#,
    ),
    (
        FILES,
        "subscriptions/listen",
        r#""notifications":{"resourceSubscriptions":"b"}"#,
        "subscriptions/listen b",
    ),
    (
        FILES,
        "subscriptions/listen",
        r#""notifications":{"ResourceSubscriptions":["b"]}"#,
        r#"subscriptions/listen ["b"]"#,
    ),
    (
        FILES,
        "subscriptions/listen",
        r#""notifications":[{"resourceSubscriptions":["b"]}]"#,
        "subscriptions/listen",
    ),
    (
        FILES,
        "subscriptions/listen",
        r#""notifications":{},"notifications":{"resourceSubscriptions":["b"]}"#,
        r#"subscriptions/listen ["b"]"#,
    ),
    (
        FILES,
        "Subscriptions/Listen",
        r#""notifications":{"resourceSubscriptions":["b"]}"#,
        r#"subscriptions/listen ["b"]"#,
    ),
    // Prompts, methods, servers, tasks, metadata.
    (PROMPT, "prompts/get", r#""name":"q""#, "prompts/get q"),
    (PROMPT, "prompts/get", r#""name":"p","NAME":"q""#, "prompts/get q"),
    (PROMPT, "Prompts/get", r#""name":"q""#, "prompts/get q"),
    (
        PROMPT,
        "completion/complete",
        r#""ref":{"type":"ref/prompt","name":"q"}"#,
        "completion/complete q",
    ),
    (
        PROMPT,
        "completion/complete",
        r#""ref":{"type":"ref/prompt","name":"p"},"Ref":{"name":"q"}"#,
        "completion/complete q",
    ),
    (CALLS, "tools/list", "", "tools/list"),
    (CALLS, "Tools/call", r#""name":"a""#, "tools/call a"),
    (CALLS, "tools/call ", r#""name":"a""#, "tools/call a"),
    (CALLS, "tools/call/", r#""name":"a""#, "tools/call/"),
    (CALLS, "notifications/../tools/call", "", "notifications/../tools/call"),
    (OTHER_SERVER, "tools/call", r#""name":"a""#, "tools/call a"),
    (OTHER_SERVER, "ping", "", "ping"),
    (TOOL_METHODS, "tasks/get", r#""taskId":"1f""#, "tasks/get 1f"),
    (TOOL, "tasks/get", r#""taskId":["1f"]"#, r#"tasks/get ["1f"]"#),
    (TOOL, "tasks/cancel", r#""taskId":"1f","taskid":"2f""#, "tasks/cancel 1f"),
    (TOOL, "tools/call", r#""name":"a","_meta":[]"#, "tools/call a"),
    (TOOL, "tools/call", r#""name":"a","_meta":{},"_Meta":{}"#, "tools/call a"),
    (
        TOOL,
        "tools/call",
        r#""name":"a","_meta":{"io.modelcontextprotocol/protocolVersion":["x"]}"#,
        "tools/call a",
    ),
    (EITHER, "tools/call", r#""name":"b","arguments":{"n":2}"#, r#"tools/call b {"n":2}"#),
    (EITHER, "tools/call", r#""name":"b""#, "tools/call b"),
    (EITHER, "tools/call", r#""name":"p""#, "tools/call p"),
    (EITHER, "prompts/get", r#""name":"a""#, "prompts/get a"),
];

/// The same, of what may pass.
const HONEST: &[(&str, &str, &str, &str)] = &[
    (TOOL, "tools/call", r#""name":"a""#, "tools/call a"),
    (
        TOOL,
        "tools\\/call",
        r#""n\u0061me":"\u0061","arguments":{"NAME":"b"}"#,
        r#"tools/call a {"name":"b"}"#,
    ),
    (TOOL, "tools/list", r#""cursor":"x""#, "tools/list"),
    (TOOL, "initialize", r#""protocolVersion":"2025-06-18""#, "initialize"),
    (TOOL, "tasks/get", r#""taskId":"1f""#, "tasks/get 1f"),
    (
        TOOL,
        "tools/call",
        r#""_meta":{"progressToken":1,"x":{"name":"b"}},"name":"a""#,
        "tools/call a",
    ),
    (NO_FORCE, "tools/call", r#""arguments":{"n":1},"name":"a""#, r#"tools/call a {"n":1}"#),
    (NO_FORCE, "tools/call", r#""name":"a""#, "tools/call a"),
    (FILES, "resources/read", r#""uri":"file:\/\/\/srv\/a""#, "resources/read file:///srv/a"),
    (FILES, "resources/read", r#""uri":"file:///srv/{path}""#, "resources/read file:///srv/{path}"),
    (
        FILES,
        "resources/unsubscribe",
        r#""uri":"file:///srv/a""#,
        "resources/unsubscribe file:///srv/a",
    ),
    (
        FILES,
        "completion/complete",
        r#""ref":{"type":"ref/resource","uri":"file:///srv/{x}"}"#,
        "completion/complete file:///srv/{x}",
    ),
    (
        FILES,
        "subscriptions/listen",
        r#""notifications":{"resourceSubscriptions":["file:///srv/a","file:///srv/b"]}"#,
        r#"subscriptions/listen ["file:///srv/a","file:///srv/b"]"#,
    ),
    (
        FILES,
        "subscriptions/listen",
        r#""notifications":{"toolsListChanged":true}"#,
        "subscriptions/listen",
    ),
    (
        PROMPT,
        "prompts/get",
        r#""name":"p","arguments":{"name":"q"}"#,
        r#"prompts/get p {"name":"q"}"#,
    ),
    (
        PROMPT,
        "completion/complete",
        r#""ref":{"type":"ref/prompt","name":"p"}"#,
        "completion/complete p",
    ),
    (CALLS, "tools/call", r#""name":"x""#, "tools/call x"),
    (CALLS, "ping", "", "ping"),
    (SERVER, "logging/setLevel", r#""level":"info""#, "logging/setlevel"),
    (TOOL_METHODS, "tools/call", r#""name":"a""#, "tools/call a"),
    (EITHER, "tools/call", r#""name":"b","arguments":{"n":1}"#, r#"tools/call b {"n":1}"#),
    (EITHER, "prompts/get", r#""name":"p""#, "prompts/get p"),
];

#[test]
fn no_evasion_by_a_message_passes() {
    assert!(EVASIONS.len() >= 60);
    none(EVASIONS.iter().map(|(restriction, method, params, ran)| {
        evasion(restriction, request(method, params).as_bytes(), ran)
    }));
}

#[test]
fn honest_messages_pass() {
    assert!(HONEST.len() >= 20);
    none(HONEST.iter().map(|(restriction, method, params, ran)| {
        honest(restriction, request(method, params).as_bytes(), ran)
    }));
}
