//! Streams of events.

use super::*;

const LIST: &str =
    r#"{"id":1,"result":{"tools":[{"name":"x"},{"name":"a"}],"cacheScope":"private"}}"#;
const LEFT: &str = r#"{"id":1,"result":{"tools":[{"name":"a"}],"cacheScope":"private"}}"#;

#[track_caller]
fn assert_stream(stream: &str, expected: &str) {
    for asked in [Asked::List, Asked::Stream, Asked::Other] {
        assert_eq!(pass_all(asked, EVENTS, stream).as_deref(), Ok(expected));
    }
}

#[test]
fn events_without_a_list_to_change_stay_as_they_are() {
    for stream in [
        "event: endpoint\ndata: /messages?id=1\n\n",
        ": ping\n\nid: 1\ndata:\n\nretry: 5\n\n: a\ndata:  \ndata:\n\n",
        "data: \"tools\"\n: [\ndata: 7\n\ndata: x\n\ndata",
        "data:{\"id\":1,\ndata\ndata: \"result\": {} } \n\nx: {\n\ndata: 1",
        "\u{feff}data: {\"a\":\"tools\"}\nid: 7\n\n\u{feff}data: {\"result\":[]}\n\n",
        &format!("event: message\ndata: {LEFT}\n\ndata:\t{LEFT}\ndata:\n\n"),
    ] {
        for end in ["\n", "\r\n", "\r"] {
            let stream = stream.replace('\n', end);
            assert_stream(&stream, &stream);
        }
    }
}

#[test]
fn a_changed_event_keeps_its_other_lines() {
    let (first, second) = LIST.split_at(LIST.find("[{").unwrap());
    for end in ["\n", "\r\n", "\r"] {
        let stream = |lines: &[&str]| lines.join(end);
        let data = format!("data: {LEFT}");
        let whole = format!("data:{LIST}");
        let halves = [format!("data: {first}"), format!("data:{second}")];
        let joined = LEFT.replace("[{", " [{");
        let joined = format!("data: {joined}");
        for (lines, left) in [
            (vec![whole.as_str(), "", ""], vec![data.as_str(), "", ""]),
            (
                vec!["id: 7", &whole, "event: message", "", ": a"],
                vec!["id: 7", &data, "event: message", "", ": a"],
            ),
            (
                vec![": a", "", &whole, "retry: 1", "", ""],
                vec![": a", "", &data, "retry: 1", "", ""],
            ),
            (
                vec![&halves[0], "datax: 1", &halves[1], "id: 1", "", "data: 1", "", ""],
                vec![&joined, "datax: 1", "id: 1", "", "data: 1", "", ""],
            ),
        ] {
            assert_stream(&stream(&lines), &stream(&left));
        }
        // The last event may lack its empty line.
        assert_stream(&format!("data: 1{end}{end}{whole}"), &format!("data: 1{end}{end}{data}"));
        assert_stream(&format!("{whole}{end}"), &format!("{data}{end}"));
    }
    // Data before the JSON are white space: they stay, or go as white space.
    let padded = format!("data:\ndata: {LIST}\ndata:\n\n");
    assert_stream(&padded, &format!("data:\ndata:  {LEFT} \n\n"));
}

#[test]
fn a_byte_order_mark_hides_no_data() {
    let stream = format!("\u{feff}data: {LIST}\n\ndata: {LIST}\n\n");
    assert_stream(&stream, &format!("data: {LEFT}\n\ndata: {LEFT}\n\n"));
    // Later it is part of another name for the standard, but not for everybody.
    let stream = format!("data: {LIST}\n\u{feff}data: {LIST}\n\n");
    assert_stream(&stream, &format!("data: {LEFT}\n\n"));
}

#[test]
fn what_cannot_be_a_list_is_not_held() {
    let mut filter = filter(Asked::Other, EVENTS, 1000);
    let mut feed = |bytes: &str| {
        String::from_utf8(filter.feed(bytes.as_bytes(), &allows).unwrap().into_owned()).unwrap()
    };
    assert_eq!(feed(": ping\n"), ": ping\n");
    assert_eq!(feed("id: 1\nevent: mess"), "id: 1\n");
    assert_eq!(feed("age\nda"), "event: message\n");
    assert_eq!(feed("ta: {\"id\""), "");
    assert_eq!(feed(":1}\n: a\n"), "");
    assert_eq!(feed("\n"), "data: {\"id\":1}\n: a\n\n");
}

/// An event of that many bytes, whose result has these members.
fn event(len: usize, members: &str) -> String {
    let event = |padding: &str| {
        format!("data: {{\"id\":1,\"x\":\"{padding}\",\"result\":{{{members}}}}}\n\n")
    };
    let padded = event(&"p".repeat(len - event("").len()));
    assert_eq!(padded.len(), len);
    padded
}

#[test]
fn an_event_with_a_list_is_held_up_to_the_bound() {
    for asked in [Asked::List, Asked::Stream, Asked::Other] {
        let list = r#""tools":[{"name":"x"}],"cacheScope":"private""#;
        let stream = format!("data: 1\n\n{}", event(300, list));
        let passed = pass_bounded(asked, EVENTS, 300, &stream);
        assert_eq!(passed, Ok(stream.replace(r#"{"name":"x"}"#, "")));
        let blocked = pass_bounded(asked, EVENTS, 299, &stream).unwrap_err();
        assert_eq!((blocked.cause, blocked.is_torn), (Cause::TooLarge, false));
        assert_eq!(blocked.id.as_deref(), Some(&b"1"[..]));
        assert_eq!(blocked.before, b"data: 1\n\n");
    }
}

#[test]
fn a_larger_event_passes_until_it_has_a_list() {
    for asked in [Asked::List, Asked::Stream, Asked::Other] {
        let large = format!("{}data: 1\n\n{}", event(350, ""), event(350, "\"content\":[{}]"));
        assert_eq!(pass_bounded(asked, EVENTS, 100, &large).as_deref(), Ok(large.as_str()));
        let comment = format!(":{}\ndata: {LIST}\n\n", "c".repeat(300));
        let passed = pass_bounded(asked, EVENTS, 100, &comment);
        assert_eq!(passed, Ok(comment.replace(LIST, LEFT)));
        let text = format!("data: {}\n\ndata: 1\n\n", "x".repeat(400));
        assert_eq!(pass_bounded(asked, EVENTS, 100, &text).as_deref(), Ok(text.as_str()));
        let late = event(350, r#""tools":[{"name":"x"}]"#);
        for len in [1, 7, 100, 300] {
            let pieces = Vec::from_iter(late.as_bytes().chunks(len));
            let blocked = pass(filter(asked, EVENTS, 100), &pieces).unwrap_err();
            assert_eq!((blocked.cause, blocked.is_torn), (Cause::TooLarge, true), "{len}");
            assert!(!String::from_utf8(blocked.before).unwrap().contains("tools\":["), "{len}");
        }
        // After a large event, one with a list is held again.
        let both = format!("{}data: {LIST}\n\n", event(350, ""));
        let passed = pass_bounded(asked, EVENTS, 100, &both);
        assert_eq!(passed, Ok(both.replace(LIST, LEFT)));
    }
}

#[test]
fn json_is_read_up_to_the_bound() {
    let list = r#"{"result":{"tools":[{"name":"x"}],"cacheScope":"private"}}"#;
    for content_type in [JSON, EVENTS] {
        let passed = pass_bounded(Asked::List, content_type, list.len(), list);
        assert_eq!(passed, Ok(list.replace(r#"{"name":"x"}"#, "")));
        let passed = pass_bounded(Asked::List, content_type, list.len() - 1, list);
        assert_eq!(cause(passed), Cause::TooLarge);
        let blank = pass_bounded(Asked::List, content_type, 9, "          ");
        assert_eq!(cause(blank), Cause::TooLarge);
    }
}

#[test]
fn memory_is_bounded() {
    for start in [
        "data: {\"result\":{\"a\":\"",
        ": ",
        "data: \n",
        "data: {\"result\":{\"tools\":[\"",
        "{\"a\":\"",
    ] {
        for asked in [Asked::List, Asked::Stream, Asked::Other] {
            let mut stream = events::Stream::new(1000);
            let mut document = document::Document::new(asked, true, Limits::default());
            let mut feed = |bytes: &[u8]| {
                let result = stream.feed(bytes, &mut document, &allows);
                let passed = std::mem::take(&mut stream.passed);
                assert!(stream.memory_bytes() < 4100, "{start}");
                result.map(|()| passed)
            };
            feed(start.as_bytes()).unwrap();
            for _ in 0..10_000 {
                if feed(b"xx").is_err() {
                    break;
                }
            }
        }
    }
}
