use super::*;

fn read(line: &str) -> Content {
    Content::read(line.as_bytes())
}

fn id(json: &str) -> Id {
    Id::new(&Json::parse(json.as_bytes()).unwrap()).unwrap()
}

#[test]
fn messages_are_told_apart() {
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
    let none = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":[3]}"#;
    assert_eq!(read(none), Content::Notification);
    for outcome in [r#""result":{}"#, r#""error":{"code":1,"message":""}"#] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,{outcome}}}"#);
        assert_eq!(read(&line), Content::Response);
    }
}

#[test]
fn what_is_no_json_is_told_from_what_is_no_message() {
    let deep = format!(r#"{{"jsonrpc":"2.0","method":"a","params":{}"#, "[".repeat(200));
    let no_json = [
        "", "x", "{", "{}{}", r#"{"a":1e999}"#, r#"{"a":"\ud800"}"#, "\u{feff}{}", &deep,
        "{\"a\":\"\t\"}",
    ];
    for line in no_json {
        assert!(matches!(read(line), Content::NoJson(_)), "{line}: {:?}", read(line));
    }
    assert!(matches!(Content::read(b"{\"a\":\"\xff\"}"), Content::NoJson(_)));
    let no_message = [
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
    for line in no_message {
        assert!(matches!(read(line), Content::NoMessage(_)), "{line}: {:?}", read(line));
    }
    let long = format!(r#"{{"jsonrpc":"2.0","id":"{}","method":"a"}}"#, "x".repeat(MAX_ID_BYTES));
    assert!(matches!(read(&long), Content::NoMessage(_)));
}

/// In time and memory that grow with the length alone.
#[test]
fn many_members_are_read_quickly() {
    let members: Vec<_> = (0..200_000).map(|n| format!("\"m{n}\":0")).collect();
    let params = members.join(",");
    let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"a","params":{{{params}}}}}"#);
    assert_eq!(read(&line), Content::Request(id("1"), false));
}

#[test]
fn ids_of_one_value_are_the_same() {
    assert_eq!(id("1.0"), id("1"));
    assert_eq!(id(r#""\u0061""#), id(r#""a""#));
    assert_ne!(id("1"), id(r#""1""#));
    assert_eq!(id("18446744073709551615").to_string(), "18446744073709551615");
    assert_eq!(id("-1.5").to_string(), "-1.5");
    assert_eq!(id(r#""a\"\\\n""#).to_string(), r#""a\"\\\n""#);
}

#[test]
fn answers_are_known_by_their_id() {
    let of = |line: &str| answered(line.as_bytes()).unwrap();
    assert_eq!(of(r#"{"result":{"id":3,"a":1,"a":2},"jsonrpc":"2.0","id":4}"#), Some(id("4")));
    assert_eq!(of(r#"{"jsonrpc":"2.0","id":4,"method":"ping"}"#), None);
    assert_eq!(of(r#"{"jsonrpc":"2.0","method":"a"}"#), None);
    assert_eq!(of(r#"{"jsonrpc":"2.0","id":null,"error":{}}"#), None);
    for line in ["listening", "[]", "1", "{", "{}x"] {
        assert!(answered(line.as_bytes()).is_err(), "{line}");
    }
}
