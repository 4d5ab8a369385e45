//! Which responses are read, and how.

use super::*;

fn handling(asked: Asked, status: u16, fields: &[(&str, &str)]) -> Handling {
    filter_of(asked, status, fields).handling()
}

fn filter_of(asked: Asked, status: u16, fields: &[(&str, &str)]) -> Filter {
    Filter::new(asked, true, &head(status, fields), 1000, Limits::default())
}

const ALL: [Asked; 4] = [Asked::List, Asked::Discover, Asked::Stream, Asked::Other];
const NOT_OTHER: [Asked; 3] = [Asked::List, Asked::Discover, Asked::Stream];

#[test]
fn the_method_tells_what_is_asked() {
    for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        assert_eq!(Asked::by(method), Asked::List);
    }
    assert_eq!(Asked::by("server/discover"), Asked::Discover);
    for method in ["tools/call", "tools/List", "tools/list ", "", "roots/list"] {
        assert_eq!(Asked::by(method), Asked::Other, "{method}");
    }
}

#[test]
fn json_is_held_and_a_stream_is_replaced() {
    for status in [0, 200, 202, 400, 404, 500] {
        for asked in NOT_OTHER {
            let json = [("content-type", "Application/JSON; charset=utf-8")];
            assert_eq!(handling(asked, status, &json), Handling::Hold);
        }
        for asked in ALL {
            for value in
                ["text/event-stream", "Text/Event-Stream; charset=utf-8", "a, text/event-stream"]
            {
                let stream = [("content-type", value)];
                assert_eq!(handling(asked, status, &stream), Handling::Replace, "{value}");
            }
            let both = [("content-type", "text/event-stream"), ("content-type", JSON)];
            assert_eq!(handling(asked, status, &both), Handling::Replace);
        }
        let json = [("content-type", JSON), ("content-encoding", "gzip")];
        assert_eq!(handling(Asked::Other, status, &json), Handling::Hold);
        for value in [JSON, "text/plain, Application/JSON;charset=utf-16"] {
            let json = [("content-type", value)];
            assert_eq!(handling(Asked::Other, status, &json), Handling::Watch, "{value}");
        }
    }
}

#[test]
fn what_may_have_a_list_but_cannot_be_read_is_blocked_unless_it_is_empty() {
    let blocked = |asked, status, fields: &[(&str, &str)], expected: Unreadable| {
        assert_eq!(handling(asked, status, fields), Handling::Hold, "{fields:?}");
        assert_eq!(pass(filter_of(asked, status, fields), &[b"", b""]).as_deref(), Ok(""));
        let passed = pass(filter_of(asked, status, fields), &[b"", b"x"]);
        assert_eq!(cause(passed), Cause::Unreadable(expected), "{fields:?}");
    };
    for status in [0, 200, 202, 299] {
        for asked in NOT_OTHER {
            for value in
                ["text/plain", "application/json; charset=utf-16", "", "application/problem+json"]
            {
                blocked(asked, status, &[("content-type", value)], Unreadable::UndeclaredType);
            }
            blocked(asked, status, &[], Unreadable::UndeclaredType);
            let twice = [("content-type", JSON); 2];
            blocked(asked, status, &twice, Unreadable::UndeclaredType);
            let encoded = [("content-type", "text/plain"), ("content-encoding", "br")];
            blocked(asked, status, &encoded, Unreadable::Encoded);
        }
    }
    for status in [200, 404] {
        for asked in NOT_OTHER {
            let encoded = [("content-encoding", "gzip"), ("content-type", JSON)];
            blocked(asked, status, &encoded, Unreadable::Encoded);
        }
        for asked in ALL {
            let encoded = [("content-type", EVENTS), ("content-encoding", "gzip")];
            blocked(asked, status, &encoded, Unreadable::Encoded);
        }
    }
}

#[test]
fn an_error_that_is_no_message_passes() {
    let page = [("content-type", "text/html"), ("content-encoding", "gzip")];
    for status in [101, 199, 300, 304, 401, 404, 500] {
        for asked in ALL {
            assert_eq!(handling(asked, status, &page), Handling::Pass);
            assert_eq!(handling(asked, status, &[]), Handling::Pass);
        }
    }
    assert_eq!(
        pass(filter_of(Asked::List, 404, &page), &[b"\x1f\x00", b"x"]).as_deref(),
        Ok("\u{1f}\0x")
    );
    // What is declared as a message is read, whatever the status is.
    let list = br#"{"result":{"tools":[{"name":"x"}]}}"#;
    let json = [("content-type", JSON)];
    let passed = pass(filter_of(Asked::List, 400, &json), &[list]).unwrap();
    assert_eq!(passed, r#"{"result":{"tools":[],"cacheScope":"private"}}"#);
    for message in [&b"not JSON"[..], b"{", b"null "] {
        let passed = pass(filter_of(Asked::List, 400, &json), &[message]);
        assert_eq!(passed.is_err(), message != b"null ");
    }
}

#[test]
fn only_white_space_is_no_list() {
    for (asked, content_type) in [
        (Asked::List, JSON),
        (Asked::List, EVENTS),
        (Asked::Stream, EVENTS),
        (Asked::Other, EVENTS),
    ] {
        assert_eq!(pass_all(asked, content_type, " \r\n\t\n\n").as_deref(), Ok(" \r\n\t\n\n"));
        assert_eq!(pass_all(asked, content_type, "").as_deref(), Ok(""));
    }
}

/// A server may mix up the responses to two requests with one id, or show a list by a method of its own.
#[test]
fn json_passes_as_it_is_unless_it_has_a_list_that_was_not_asked_for() {
    let json = [("content-type", JSON)];
    let new = || filter_of(Asked::Other, 200, &json);
    assert_eq!(new().handling(), Handling::Watch);
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"tools":[{"name":"x"}]}],"tools":{}}}"#,
        r#"{"result":{"a":1,"a":2}} {"#,
        r#"[{"result":{"tools":[]}}]"#,
        "no JSON",
        "",
    ] {
        assert_eq!(pass_all(Asked::Other, JSON, body).as_deref(), Ok(body));
    }
    for name in ["tools", "prompts", "resources", "resourceTemplates"] {
        let list = format!(r#"{{"id":1,"result":{{"a":1,"{name}":[{{"name":"a"}}]}}}}"#);
        let blocked = pass(new(), &[list.as_bytes()]).unwrap_err();
        assert_eq!((blocked.cause, blocked.is_torn), (Cause::Unasked, false), "{name}");
        assert_eq!(blocked.id.as_deref(), Some(&b"1"[..]));
        let (first, rest) = list.split_at(20);
        let blocked = pass(new(), &[first.as_bytes(), rest.as_bytes()]).unwrap_err();
        assert_eq!((blocked.cause, blocked.is_torn), (Cause::Unasked, true), "{name}");
        assert_eq!(blocked.before, first.as_bytes());
    }
}
