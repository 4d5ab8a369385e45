//! Bodies that are not read.

use super::*;

#[test]
fn values_of_another_type_are_not_guessed() {
    use Unreadable::{EmptyModel, FlawedText, OutOfRange, TooLong, WrongType};
    let long = format!(r#"{{"model":"{}"}}"#, "m".repeat(MAX_NAME_BYTES + 1));
    for (path, body, cause) in [
        (CHAT, r#"{"model":1}"#, WrongType),
        (CHAT, r#"{"model":{"name":"a"}}"#, WrongType),
        (CHAT, r#"{"model":true}"#, WrongType),
        (CHAT, r#"{"model":""}"#, EmptyModel),
        (CHAT, r#"{"model":"a\u0000"}"#, FlawedText),
        (CHAT, &long, TooLong),
        (CHAT, r#"{"models":{"a":"b"}}"#, WrongType),
        (CHAT, r#"{"models":["a",1]}"#, WrongType),
        (CHAT, r#"{"models":[["a"]]}"#, WrongType),
        (CHAT, r#"{"fallbacks":[{"model":["a"]}]}"#, WrongType),
        (CHAT, r#"{"moderation":["a"]}"#, WrongType),
        (CHAT, r#"{"max_tokens":true}"#, WrongType),
        (CHAT, r#"{"max_tokens":[1]}"#, WrongType),
        (CHAT, r#"{"max_tokens":-0}"#, OutOfRange),
        (CHAT, r#"{"n":"2"}"#, WrongType),
        (CHAT, r#"{"n":1.5}"#, OutOfRange),
        (CHAT, r#"{"n":-1}"#, OutOfRange),
        (CHAT, r#"{"n":0.0}"#, OutOfRange),
        (COMPLETIONS, r#"{"best_of":0}"#, OutOfRange),
        (COMPLETIONS, r#"{"prompt":{"a":1}}"#, WrongType),
        (COMPLETIONS, r#"{"prompt":["a",{"b":1}]}"#, WrongType),
        (CHAT, r#"{"stream":"true"}"#, WrongType),
        (CHAT, r#"{"stream":1}"#, WrongType),
        (CHAT, r#"{"stream_options":[]}"#, WrongType),
        (CHAT, r#"{"stream_options":{"include_usage":"yes"}}"#, WrongType),
        (CHAT, r#"{"tools":{"type":"mcp"}}"#, WrongType),
        (CHAT, r#"{"tools":[[{"type":"mcp"}]]}"#, WrongType),
        (RESPONSES, r#"{"tools":[{"type":["mcp"]}]}"#, WrongType),
        (RESPONSES, r#"{"tools":[{"type":"mcp","server_url":{}}]}"#, WrongType),
        (RESPONSES, r#"{"background":"yes"}"#, WrongType),
        (MESSAGES, r#"{"mcp_servers":{"url":"a"}}"#, WrongType),
        (MESSAGES, r#"{"mcp_servers":["https://a"]}"#, WrongType),
        ("/v1/messages/batches", r#"{"requests":{}}"#, WrongType),
        ("/v1/messages/batches", r#"{"requests":[[]]}"#, WrongType),
        ("/v1/messages/batches", r#"{"requests":[{"params":[]}]}"#, WrongType),
        (GEMINI, r#"{"generationConfig":[]}"#, WrongType),
        (GEMINI, r#"{"generationConfig":{"maxOutputTokens":"1e3"}}"#, WrongType),
        (GEMINI, r#"{"generationConfig":{"maxOutputTokens":""}}"#, WrongType),
        (GEMINI, r#"{"generationConfig":{"maxOutputTokens":"-5"}}"#, OutOfRange),
        ("/api/chat", r#"{"options":{"num_predict":-1.5}}"#, OutOfRange),
        ("/api/chat", r#"{"options":{"num_predict":"5"}}"#, WrongType),
        ("/v2/chat", "[]", WrongType),
        ("/v2/chat", "null", WrongType),
        ("/model/b/count-tokens", "1", WrongType),
    ] {
        assert_eq!(read(path, body).err(), Some(cause), "{path} {body}");
    }
}

/// What other readers accept, and what slips past a gate if it does too.
#[test]
fn what_readers_understand_in_different_ways_is_refused() {
    use Unreadable::*;
    for (path, body, cause) in [
        (CHAT, r#"{"model":"a","model":"b"}"#, DuplicateMember),
        (CHAT, r#"{"model":"a","messages":[{"x":{"y":1,"y":2}}]}"#, DuplicateMember),
        (CHAT, r#"{"model":"a","MODEL":"b"}"#, SimilarMember),
        (CHAT, r#"{"Fallbacks":["b"]}"#, SimilarMember),
        (CHAT, "{\"model\":\"a\",\"fallbac\u{212a}s\":[\"b\"]}", SimilarMember),
        (CHAT, "{\"model\":\"a\",\"fallback\u{17f}\":[\"b\"]}", SimilarMember),
        (CHAT, r#"{"model\u0000":"b"}"#, SimilarMember),
        (CHAT, r#"{"tools":[{"Server_URL":"b"}]}"#, SimilarMember),
        (MESSAGES, r#"{"mcp_servers":[{"URL":"b"}]}"#, SimilarMember),
        ("/api/chat", r#"{"options":{"Num_Predict":-1}}"#, SimilarMember),
        (GEMINI, r#"{"generationConfig":{},"generation_config":{}}"#, DuplicateMember),
        (
            GEMINI,
            r#"{"generationConfig":{"routingConfig":{},"routing_config":{}}}"#,
            DuplicateMember,
        ),
        (GEMINI, r#"{"generationconfig":{}}"#, SimilarMember),
        (CHAT, "\u{feff}{}", NotUtf8),
        (CHAT, r#"{"model":"a","x":NaN}"#, NotJson),
        (CHAT, r#"{"model":"a","x":Infinity}"#, NotJson),
        (CHAT, r#"{"model":"a"} {"model":"b"}"#, TrailingBytes),
        (CHAT, r#"[{"model":"a"},{"model":"b"}]"#, WrongType),
        (CHAT, r#"{"model":"a","messages":["cut o"#, Incomplete),
        (CHAT, "", Empty),
    ] {
        assert_eq!(read(path, body).err(), Some(cause), "{path} {body}");
    }
    // Names below an object that decides nothing may be anything.
    assert_eq!(models(CHAT, r#"{"model":"a","metadata":{"Model":"b","model":1}}"#), "a");
}
