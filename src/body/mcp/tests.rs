//! Tests of the reader of messages. The vectors have many more cases.

mod arguments;
mod headers;

use super::*;
use crate::body::Declared;
use crate::body::json::{Limits, Unreadable};

fn read_for(wanted: Wanted, body: &str) -> Result<Message, Unreadable> {
    let declared = Declared::read([(&b"content-type"[..], &b"application/json"[..])]);
    let mut reader = MessageReader::new(wanted, declared, Limits::default())?;
    reader.feed(body.as_bytes())?;
    reader.finish()
}

fn read(body: &str) -> Result<Message, Unreadable> {
    read_for(Wanted::default(), body)
}

/// A request with a method and the members of its parameters.
fn request(method: &str, params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
}

/// What a request names.
fn named(method: &str, params: &str) -> Result<Option<Objects>, Unreadable> {
    read(&request(method, params)).map(|message| message.object)
}

#[test]
fn only_json_is_read() {
    let reader = |headers: &[(&'static [u8], &'static [u8])]| {
        let declared = Declared::read(headers.iter().copied());
        MessageReader::new(Wanted::default(), declared, Limits::default()).err()
    };
    assert_eq!(reader(&[]), Some(Unreadable::UndeclaredType));
    let json = (&b"content-type"[..], &b"application/json"[..]);
    let gzip = (&b"content-encoding"[..], &b"gzip"[..]);
    assert_eq!(reader(&[json, gzip]), Some(Unreadable::Encoded));
    assert_eq!(reader(&[json]), None);
}

#[test]
fn a_message_has_one_of_three_shapes() {
    let kind = |members: &str| {
        read(&format!(r#"{{"jsonrpc":"2.0",{members}}}"#)).map(|message| message.kind)
    };
    for (members, expected) in [
        (r#""id":1,"method":"ping""#, MessageKind::Request),
        (r#""id":1,"method":"ping","params":null"#, MessageKind::Request),
        (r#""method":"notifications/x""#, MessageKind::Notification),
        (r#""id":"","result":null"#, MessageKind::Response),
        (r#""id":-1,"error":{"code":1}"#, MessageKind::Response),
    ] {
        assert_eq!(kind(members), Ok(expected), "{members}");
    }
    for members in [
        r#""id":1"#,
        r#""id":1,"method":"""#,
        r#""id":1,"method":"notifications/x""#,
        r#""method":"ping""#,
        r#""method":"notification/x""#,
        r#""result":{}"#,
        r#""id":1,"params":{},"result":{}"#,
        r#""id":1,"result":{},"error":{}"#,
        r#""id":1,"result":null,"error":null"#,
        r#""id":1,"method":"ping","result":null"#,
        r#""id":1,"method":"ping","error":null"#,
        r#""method":"notifications/x","result":1"#,
        r#""id":null,"method":"ping""#,
        r#""id":true,"method":"ping""#,
        r#""id":[1],"method":"ping""#,
        r#""id":1.0,"method":"ping""#,
        r#""id":1e2,"method":"ping""#,
    ] {
        assert_eq!(kind(members), Err(Unreadable::NotRpc), "{members}");
    }
    for members in [
        r#""id":1,"method":null,"result":{}"#,
        r#""id":1,"method":["ping"]"#,
        r#""id":1,"method":"ping","params":[]"#,
        r#""id":1,"method":"ping","params":"x""#,
        r#""id":1,"method":"ping","params":{"_meta":[]}"#,
    ] {
        assert_eq!(kind(members), Err(Unreadable::WrongType), "{members}");
    }
    assert_eq!(kind(r#""id":1,"method":"ping\u0000""#), Err(Unreadable::FlawedText));
    assert_eq!(kind(r#""id":"\ud800","method":"ping""#), Err(Unreadable::FlawedText));
    for (body, cause) in [
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, Unreadable::Batch),
        ("[]", Unreadable::Batch),
        ("1", Unreadable::WrongType),
        (r#""x""#, Unreadable::WrongType),
        (r#"{"id":1,"method":"ping"}"#, Unreadable::NotRpc),
        (r#"{"jsonrpc":"2","id":1,"method":"ping"}"#, Unreadable::NotRpc),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, Unreadable::WrongType),
    ] {
        assert_eq!(read(body).err(), Some(cause), "{body}");
    }
}

#[test]
fn an_id_is_kept_as_it_was_sent_however_it_is_cut() {
    let longest = format!(r#""{}""#, "x".repeat(MAX_ID_BYTES - 2));
    let spaces = " ".repeat(3 * MAX_ID_BYTES);
    for id in ["0", "-7", "9007199254740993", r#""""#, r#""\u00e9\"\n""#, r#""é""#, &longest] {
        for body in [
            format!(r#"{{"id":{id},"jsonrpc":"2.0","method":"ping"}}"#),
            format!(r#"{{"jsonrpc":"2.0","method":"ping",{spaces}"id" : {id} {spaces}}}"#),
            format!(r#"{{"jsonrpc":"2.0","method":"ping","id":{id}}}"#),
        ] {
            for piece in [1, 2, 3, 7, 255, 256, 257, 1000] {
                let declared = Declared::read([(&b"content-type"[..], &b"application/json"[..])]);
                let mut reader =
                    MessageReader::new(Wanted::default(), declared, Limits::default()).unwrap();
                body.as_bytes().chunks(piece).for_each(|piece| reader.feed(piece).unwrap());
                let message = reader.finish().unwrap();
                assert_eq!(message.id.as_deref(), Some(id.as_bytes()), "{piece} {body}");
            }
        }
    }
    let too_long = [longest.trim_end_matches('"'), "x\""].concat();
    let escaped = format!(r#""{}""#, r"\u0061".repeat(MAX_ID_BYTES / 6 + 1));
    for id in [too_long, escaped, "1".repeat(65)] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
        assert_eq!(read(&body).err(), Some(Unreadable::TooLong), "{id}");
    }
}

#[test]
fn each_method_names_its_object() {
    for (method, params, kind, name) in [
        ("tools/call", r#""name":"a","uri":1,"taskId":[]"#, ObjectKind::Tool, "a"),
        ("prompts/get", r#""name":"a","uri":"b""#, ObjectKind::Prompt, "a"),
        ("resources/read", r#""name":1,"uri":"b""#, ObjectKind::Resource, "b"),
        ("resources/subscribe", r#""uri":"b""#, ObjectKind::Resource, "b"),
        ("resources/unsubscribe", r#""uri":"b""#, ObjectKind::Resource, "b"),
        ("tasks/get", r#""taskId":"c""#, ObjectKind::Task, "c"),
        ("tasks/result", r#""taskId":"c""#, ObjectKind::Task, "c"),
        ("tasks/cancel", r#""taskId":"c""#, ObjectKind::Task, "c"),
        ("tasks/update", r#""name":"d","taskId":"c""#, ObjectKind::Task, "c"),
        (
            "completion/complete",
            r#""name":"x","ref":{"name":"a","uri":"b","type":"ref/prompt"}"#,
            ObjectKind::Prompt,
            "a",
        ),
        (
            "completion/complete",
            r#""ref":{"name":"a","uri":"b","type":"ref/resource"}"#,
            ObjectKind::Resource,
            "b",
        ),
    ] {
        let expected = Some((kind, [Box::from(name)].into()));
        assert_eq!(named(method, params), Ok(expected), "{method} {params}");
    }
    for method in ["tools/list", "ping", "tools/Call", "x", "tasks/list", "initialize"] {
        assert_eq!(named(method, r#""name":1,"uri":{},"ref":"x""#), Ok(None), "{method}");
    }
}

#[test]
fn a_request_that_does_not_name_what_it_needs_is_not_read() {
    use Unreadable::{FlawedText, NothingNamed, SimilarMember, TooLong, WrongType};
    let long = format!(r#""name":"{}""#, "n".repeat(513));
    for (method, params, cause) in [
        ("tools/call", "", NothingNamed),
        ("tools/call", r#""uri":"a""#, NothingNamed),
        ("tools/call", r#""name":"""#, NothingNamed),
        ("tools/call", r#""name":null"#, WrongType),
        ("tools/call", r#""name":["a"]"#, WrongType),
        ("tools/call", r#""name":"a\u0000""#, FlawedText),
        ("tools/call", &long, TooLong),
        ("tools/call", r#""name":"a","TaskID":1"#, SimilarMember),
        ("prompts/get", r#""uri":"a""#, NothingNamed),
        ("resources/read", r#""name":"a""#, NothingNamed),
        ("resources/subscribe", r#""uri":"""#, NothingNamed),
        ("resources/subscribe", r#""uri":null"#, WrongType),
        ("tasks/cancel", "", NothingNamed),
        ("completion/complete", "", NothingNamed),
        ("completion/complete", r#""ref":"ref/prompt""#, NothingNamed),
        ("completion/complete", r#""ref":{"name":"a"}"#, NothingNamed),
        ("completion/complete", r#""ref":{"type":"ref/prompt","uri":"a"}"#, NothingNamed),
        ("completion/complete", r#""ref":{"type":["ref/prompt"],"name":"a"}"#, WrongType),
        ("completion/complete", r#""ref":{"type":"ref/prompt","name":7}"#, WrongType),
        (
            "completion/complete",
            r#""ref":{"type":"ref/prompt","name":"a","Type":1}"#,
            SimilarMember,
        ),
        ("subscriptions/listen", r#""notifications":[]"#, WrongType),
        ("subscriptions/listen", r#""notifications":{"resourceSubscriptions":"a"}"#, WrongType),
        ("subscriptions/listen", r#""notifications":{"resourceSubscriptions":{"a":1}}"#, WrongType),
        ("subscriptions/listen", r#""notifications":{"resourceSubscriptions":["a",1]}"#, WrongType),
        ("subscriptions/listen", r#""notifications":{"resourceSubscriptions":[["a"]]}"#, WrongType),
        (
            "subscriptions/listen",
            r#""notifications":{"resourceSubscriptions":[null,"a"]}"#,
            WrongType,
        ),
        ("subscriptions/listen", r#""notifications":{"resourceSubscriptions":[""]}"#, NothingNamed),
        ("ping", r#""_meta":{"io.modelcontextprotocol/protocolVersion":1}"#, WrongType),
        ("ping", r#""_meta":{"io.modelContextProtocol/protocolVersion":"1"}"#, SimilarMember),
        ("initialize", r#""protocolVersion":1"#, WrongType),
    ] {
        assert_eq!(named(method, params).err(), Some(cause), "{method} {params}");
    }
    // What is wrong there decides nothing here.
    assert_eq!(named("ping", r#""notifications":[],"protocolVersion":1,"arguments":[]"#), Ok(None));
}

#[test]
fn a_request_to_listen_names_every_resource_up_to_a_bound() {
    let listen = |resources: &str| {
        let list = format!(r#""notifications":{{"resourceSubscriptions":{resources}}}"#);
        named("subscriptions/listen", &list)
    };
    let names = |names: &[&str]| {
        Ok(Some((ObjectKind::Resource, names.iter().map(|name| Box::from(*name)).collect())))
    };
    assert_eq!(listen(r#"["b","a","b"]"#), names(&["b", "a", "b"]));
    assert_eq!(listen("[]"), Ok(None));
    assert_eq!(listen("null"), Ok(None));
    assert_eq!(named("subscriptions/listen", ""), Ok(None));
    assert_eq!(named("subscriptions/listen", r#""notifications":{"x":["a"]}"#), Ok(None));
    let many = |count: usize| listen(&serde_json::to_string(&vec!["a"; count]).unwrap());
    assert_eq!(many(MAX_OBJECTS), names(&["a"; MAX_OBJECTS]));
    assert_eq!(many(MAX_OBJECTS + 1), Err(Unreadable::TooManyArguments));
}

#[test]
fn the_revision_is_the_one_of_the_metadata_or_the_one_asked_for() {
    let meta = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"b"}"#;
    let revision = |method: &str, params: &str| {
        let message = read(&request(method, params)).unwrap();
        (message.revision.unwrap_or_default(), message.has_meta_revision)
    };
    let asked = r#""protocolVersion":"a""#;
    assert_eq!(revision("ping", meta), ("b".into(), true));
    assert_eq!(revision("initialize", asked), ("a".into(), false));
    assert_eq!(revision("initialize", &[asked, meta].join(",")), ("b".into(), true));
    assert_eq!(revision("ping", asked), ("".into(), false));
    assert_eq!(revision("ping", r#""_meta":null"#), ("".into(), false));
    assert_eq!(revision("ping", r#""_meta":{"protocolVersion":"a"}"#), ("".into(), false));
}
