//! Bodies that are no messages, or not for everybody.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const TOOL: &str = r#"{"mcp":{"tools":["a"]}}"#;

/// Whole bodies, and what the forgiving server runs.
const BODIES: &[(&[u8], &str)] = &[
    (br#"[{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b"}}]"#, "tools/call b"),
    (br#"{"jsonrpc":"2.0","id":1,"method":"ping"}{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"b"}}"#, "tools/call b"),
    (br#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"b"}}"#, "tools/call b"),
    (br#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call","params":{"name":"b"}}"#, "tools/call b"),
    (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"params":{"name":"b"}}"#, "tools/call b"),
    (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"},"Param\u017f":{"name":"b"}}"#, "tools/call b"),
    (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["b"]}"#, "tools/call"),
    (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":"{\"name\":\"b\"}"}"#, "tools/call b"),
    (br#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"a"}}"#, "tools/call a"),
    (br#"{"jsonrpc":"2.0","id":null,"method":"tools/call","params":{"name":"a"}}"#, "tools/call a"),
    (br#"{"jsonrpc":"2.0","id":[1],"method":"tools/call","params":{"name":"a"}}"#, "tools/call a"),
    (br#"{"jsonrpc":"2.0","id":1.5,"method":"tools/call","params":{"name":"a"}}"#, "tools/call a"),
    (br#"{"jsonrpc":"2.0","id":1,"ID":2,"method":"tools/call","params":{"name":"a"}}"#, "tools/call a"),
    (br#"{"jsonrpc":"2.0","id":1,"id":2,"method":"tools/call","params":{"name":"a"}}"#, "tools/call a"),
    (br#"{"jsonrpc":"2.0","id":1,"result":{},"method":"tools/call","params":{"name":"b"}}"#, "tools/call b"),
    (br#"{"jsonrpc":"1.0","id":1,"method":"tools/call","params":{"name":"a"}}"#, "tools/call a"),
    (br#"{"id":1,"method":"tools/call","params":{"name":"a"}}"#, "tools/call a"),
    (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\"}}\0", "tools/call a"),
    (b"\xEF\xBB\xBF{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\"}}", "tools/call a"),
    (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"x\":\"\xC0\xAF\"}}", "tools/call a"),
    (b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"a\",\"x\":\"\n\"}}", ""),
    (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}"#, ""),
    (br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}} x"#, "tools/call a"),
    (b"", ""),
];

#[test]
fn no_evasion_by_a_body_passes() {
    none(BODIES.iter().map(|(body, ran)| evasion(TOOL, body, ran)));
    let body = request("tools/call", r#""name":"a""#);
    let utf_16 =
        |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> { body.encode_utf16().flat_map(bytes).collect() };
    let bodies = [utf_16(u16::to_le_bytes), utf_16(u16::to_be_bytes)];
    let marked = [[&b"\xFF\xFE"[..], &bodies[0]].concat(), [&b"\xFE\xFF"[..], &bodies[1]].concat()];
    none(bodies.iter().chain(&marked).map(|body| evasion(TOOL, body, "tools/call a")));
    assert_eq!(judge(TOOL, body.as_bytes()), (Ok(true), "tools/call a".to_owned()));
}
