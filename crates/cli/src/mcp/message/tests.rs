use vkey::body::mcp::MAX_ID_BYTES;
use vkey::config::BodySettings;

use super::*;

fn read(line: &str) -> Content {
    read_bytes(line.as_bytes())
}

fn read_bytes(line: &[u8]) -> Content {
    Content::read(line, BodySettings::default().limits()).0
}

fn of(unreadable: Unreadable) -> Content {
    Content::InvalidMessage(unreadable.message().into())
}

fn id(json: &str) -> Id {
    Id::new(&Json::parse(json.as_bytes()).unwrap()).unwrap()
}

#[test]
fn each_kind_of_message_is_recognized() {
    let request =
        r#" { "method":"a/b" , "id" : 7,"params":{"x":[{"y":1},{"y":1}]},"jsonrpc":"2.0"} "#;
    assert_eq!(read(request), Content::Request(id("7"), false));
    let first = r#"{"jsonrpc":"2.0","id":"é\u0041","method":"initialize"}"#;
    assert_eq!(read(first), Content::Request(id(r#""éA""#), true));
    let notice = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    assert_eq!(read(notice), Content::Notification);
    for params in [r#"{"requestId":3}"#, r#"{"reason":{"requestId":9},"requestId":3.0}"#] {
        let line =
            format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{params}}}"#);
        assert_eq!(read(&line), Content::Cancelled(id("3")));
    }
    let none = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[3]}}"#;
    assert_eq!(read(none), Content::Notification);
    for outcome in [r#""result":{}"#, r#""error":{"code":1,"message":""}"#] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,{outcome}}}"#);
        assert_eq!(read(&line), Content::Response(Some(id("1"))));
    }
}

#[test]
fn invalid_json_and_invalid_messages_are_distinguished() {
    let no_json =
        ["", "x", "{", "{}{}", r#"{"a":"\ud80"}"#, "\u{feff}{}", "{\"a\":\"\t\"}", r#"{"a":NaN}"#];
    for line in no_json {
        assert!(matches!(read(line), Content::InvalidJson(_)), "{line}: {:?}", read(line));
    }
    assert!(matches!(read_bytes(b"{\"a\":\"\xff\"}"), Content::InvalidJson(_)));
    let invalid_message = [
        "[]",
        "1",
        "null",
        "{}",
        r#"[{"jsonrpc":"2.0","id":1,"method":"a"}]"#,
        r#"{"id":1,"method":"a"}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{},"result":{}}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"n":[{"x":1,"\u0078":2}]}}"#,
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"params\":\r{}}",
    ];
    for line in invalid_message {
        assert!(matches!(read(line), Content::InvalidMessage(_)), "{line}: {:?}", read(line));
    }
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"a"}}"#, "x".repeat(MAX_ID_BYTES));
    assert!(matches!(read(&long), Content::InvalidMessage(_)));
}

#[test]
fn a_reserved_member_in_another_case_makes_a_message_invalid() {
    let lookalikes = [
        r#"{"jsonrpc":"2.0","id":1,"method":"a","Method":"b"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","PARAMS":{}}"#,
        r#"{"JSONRPC":"2.0","jsonrpc":"2.0","id":1,"method":"a"}"#,
        r#"{"jsonrpc":"2.0","method":"a","ID":1}"#,
        r#"{"jsonrpc":"2.0","method":"a","\u0049d":1}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","param\u017f":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","method\u0000":"b"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"a","Result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{},"Error":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"NAME":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"Uri":"b"}}"#,
    ];
    for line in lookalikes {
        assert_eq!(read(line), of(Unreadable::SimilarMember), "{line}");
    }
    // An escape is another spelling of the same name, and names inside `params` are data.
    let escaped = r#"{"jsonrpc":"2.0","i\u0064":1,"method":"a","x":{"Id":1,"ID":2}}"#;
    let inside = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call",
        "params":{"name":"a","arguments":{"Name":1,"NAME":2,"id":3,"ID":4}}}"#;
    for line in [escaped, inside] {
        assert_eq!(read(line), Content::Request(id("1"), false), "{line}");
    }
    let twice = r#"{"jsonrpc":"2.0","id":1,"i\u0064":1,"method":"a"}"#;
    assert_eq!(read(twice), of(Unreadable::DuplicateMember));
    assert_eq!(read("1"), of(Unreadable::WrongType));
}

#[test]
fn responses_are_recognized_by_their_id() {
    let of = |line: &str| ServerLine::read(line.as_bytes()).unwrap();
    let answer = r#"{"result":{"id":3,"a":1,"a":2,"ID":5},"jsonrpc":"2.0","id":4,"x":1,"x":2}"#;
    assert_eq!(of(answer), ServerLine::Response(id("4")));
    assert_eq!(of(r#"{"jsonrpc":"2.0","id":4,"method":"ping"}"#), ServerLine::Request(id("4")));
    assert_eq!(of(r#"{"jsonrpc":"2.0","method":"a"}"#), ServerLine::Other);
    // Some servers write all members in every message.
    let answer = r#"{"jsonrpc":"2.0","id":4,"method":null,"params":null,"result":{},"error":null}"#;
    assert_eq!(of(answer), ServerLine::Response(id("4")));
    let question = r#"{"jsonrpc":"2.0","id":4,"method":"ping","result":null,"error":null}"#;
    assert_eq!(of(question), ServerLine::Request(id("4")));
    assert_eq!(of(r#"{"jsonrpc":"2.0","id":null,"error":{}}"#), ServerLine::Other);
    for line in ["listening", "[]", "1", "{", "{}x"] {
        assert!(ServerLine::read(line.as_bytes()).is_err(), "{line}");
    }
}

#[test]
fn responses_that_readers_may_differ_about_are_ambiguous() {
    let of = |line: &str| ServerLine::read(line.as_bytes()).unwrap();
    for line in [
        r#"{"jsonrpc":"2.0","ID":4,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":4,"id":4,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":4,"i\u0064":4,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":4,"result":{},"RESULT":{}}"#,
        r#"{"jsonrpc":"2.0","id":4,"result":{},"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":4,"method":"ping","result":{}}"#,
        r#"{"error":{},"jsonrpc":"2.0","id":4,"method":"ping"}"#,
    ] {
        assert_eq!(of(line), ServerLine::Ambiguous(Some(id("4"))), "{line}");
    }
    for line in [
        r#"{"jsonrpc":"2.0","id":4,"Method":"ping"}"#,
        r#"{"jsonrpc":"2.0","Method":"ping"}"#,
        r#"{"jsonrpc":"2.0","method":"ping","Params":{}}"#,
    ] {
        assert_eq!(of(line), ServerLine::Ambiguous(None), "{line}");
    }
}

#[test]
fn a_lone_surrogate_is_refused_only_where_it_decides() {
    for params in [
        r#"{"name":"a","arguments":{"x":"\ud800","y":["\uDFFF\uD83D"],"\udc00":1}}"#,
        r#"{"x":"\ud83d\ude00 \ud83d\\ud83d"}"#,
        r#"{"arguments":{"\ud800":1,"x":{"name":"\ud800"}}}"#,
    ] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{params}}}"#);
        assert_eq!(read(&line), Content::Request(id("1"), false), "{line}");
    }
    let answer = r#"{"jsonrpc":"2.0","id":1,"result":{"text":"\ud800"}}"#;
    assert_eq!(read(answer), Content::Response(Some(id("1"))));
    for line in [
        r#"{"jsonrpc":"2.0","id":1,"method":"a\ud800"}"#,
        r#"{"jsonrpc":"2.0","id":"\ud800","method":"a"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"\ud800"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"x\ud800"}}"#,
    ] {
        assert_eq!(read(line), of(Unreadable::FlawedText), "{line}");
    }
    // Many readers take both for the same name.
    let twice = r#"{"jsonrpc":"2.0","id":1,"method":"a","params":{"x":{"\ud800":1,"\udc00":2}}}"#;
    assert_eq!(read(twice), of(Unreadable::DuplicateMember));
    // Without lone surrogates, the replacement character is ordinary.
    let whole = r#"{"jsonrpc":"2.0","id":1,"method":"a\ufffd\ud83d\ude00"}"#;
    assert_eq!(read(whole), Content::Request(id("1"), false));
}

#[test]
fn progress_is_recognized_by_its_token() {
    let of = |line: &str| ServerLine::read(line.as_bytes()).unwrap();
    for token in ["7", "7.0", r#""7""#] {
        let line = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/progress","params":{{"progressToken":{token}}}}}"#
        );
        assert_eq!(of(&line), ServerLine::Progress(id(token)));
        let request = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{"_meta":{{"progressToken":{token}}},"x":"\ud800"}}}}"#
        );
        assert_eq!(progress_token(request.as_bytes()), Some(id(token)));
    }
    for line in [
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"progressToken":7}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"_meta":{"progressToken":7}}}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/progress"}"#,
    ] {
        assert_eq!(of(line), ServerLine::Other, "{line}");
    }
    assert_eq!(progress_token(br#"{"id":1,"method":"a","params":{"progressToken":7}}"#), None);
}

#[test]
fn a_response_with_a_lone_surrogate_is_a_response() {
    let line = r#"{"jsonrpc":"2.0","id":4,"result":{"text":"\ud800","\udc00":1}}"#;
    assert_eq!(ServerLine::read(line.as_bytes()).unwrap(), ServerLine::Response(id("4")));
}
