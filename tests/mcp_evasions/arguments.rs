//! Arguments against conditions.

#[cfg(target_arch = "wasm32")]
use wasm_bindgen_test::wasm_bindgen_test as test;

use super::*;

const LIMIT: &str = r#""args":[{"at":"/limit","max":100}]"#;
const FLOOR: &str = r#""args":[{"at":"/n","min":1}]"#;
const DATABASE: &str = r#""args":[{"at":"/db","in":["a","b"]}]"#;
const MODE: &str = r#""args":[{"at":"/opt/mode","equals":"ro"}]"#;
const NO_FORCE: &str = r#""args":[{"at":"/force","absent":true}]"#;
const NO_DEEP_FORCE: &str = r#""args":[{"at":"/opt/force","absent":true}]"#;
const NO_ITEM_FORCE: &str = r#""args":[{"at":"/items/*/force","absent":true}]"#;
const ITEMS: &str = r#""args":[{"at":"/items/*/n","max":10}]"#;
const TABLES: &str = r#""args":[{"at":"/tables/*","glob":"public.*"}]"#;
const PATH: &str = r#""args":[{"at":"/path","glob":"/srv/*"}]"#;
const WORD: &str = r#""args":[{"at":"/word","glob":"prod"}]"#;
const ANY_TEXT: &str = r#""args":[{"at":"/word","glob":"*"}]"#;
const EXACT: &str = r#""args":[{"at":"/id","equals":9007199254740993}]"#;
const NOT_FORCED: &str = r#""args":[{"at":"/flag","equals":false}]"#;
const NULL: &str = r#""args":[{"at":"/x","equals":null}]"#;
const SLASH: &str = r#""args":[{"at":"/a~1b","equals":"ro"}]"#;
const TASK: &str = r#""args":[{"at":"/task","equals":"a"}]"#;
const ONLY: &str = r#""only_args":["limit","db"]"#;
const BOTH: &str =
    r#""args":[{"at":"/limit","max":100},{"at":"/db","in":["a"]}],"only_args":["limit","db"]"#;

/// Conditions, the arguments, and those that the forgiving server runs.
const EVASIONS: &[(&str, &str, &str)] = &[
    // The same member again, or one that some server takes for it.
    (LIMIT, r#"{"limit":1,"limit":5000}"#, r#"{"limit":5000}"#),
    (LIMIT, r#"{"limit":1,"l\u0069mit":5000}"#, r#"{"limit":5000}"#),
    (LIMIT, r#"{"limit":1,"LIMIT":5000}"#, r#"{"limit":5000}"#),
    (LIMIT, r#"{"LIMIT":5000,"limit":1}"#, r#"{"limit":5000}"#),
    (LIMIT, r#"{"limit":1,"Lim\u0049t":5000}"#, r#"{"limit":5000}"#),
    (LIMIT, r#"{"limit":1,"limit\u0000":5000}"#, r#"{"limit":5000}"#),
    (LIMIT, r#"{"limit":1,"\u0000limit":5000}"#, r#"{"limit":5000}"#),
    (LIMIT, r#"{"limit":1,"lim\u0131t":5000}"#, r#"{"limit":5000}"#),
    (LIMIT, r#"{"limit":1,"L\u0130MIT":5000}"#, r#"{"limit":5000}"#),
    (TASK, r#"{"task":"a","ta\u017fk":"b"}"#, r#"{"task":"b"}"#),
    (TASK, r#"{"task":"a","taſk":"b"}"#, r#"{"task":"b"}"#),
    (TASK, r#"{"task":"a","tas\u212A":"b"}"#, r#"{"task":"b"}"#),
    (MODE, r#"{"opt":{"mode":"ro"},"opt":{"mode":"rw"}}"#, r#"{"opt":{"mode":"rw"}}"#),
    (MODE, r#"{"opt":{"mode":"ro","mode":"rw"}}"#, r#"{"opt":{"mode":"rw"}}"#),
    (MODE, r#"{"opt":{"mode":"ro","M\u006fde":"rw"}}"#, r#"{"opt":{"mode":"rw"}}"#),
    (MODE, r#"{"opt":{"mode":"ro"},"Opt":{"mode":"rw"}}"#, r#"{"opt":{"mode":"rw"}}"#),
    (MODE, r#"{"opt.mode":"ro","opt":{"mode":"rw"}}"#, r#"{"opt":{"mode":"rw"},"opt.mode":"ro"}"#),
    (MODE, r#"{"opt/mode":"ro","opt":{"mode":"rw"}}"#, r#"{"opt":{"mode":"rw"},"opt/mode":"ro"}"#),
    (MODE, r#"{"/opt/mode":"ro"}"#, r#"{"/opt/mode":"ro"}"#),
    (SLASH, r#"{"a/b":"rw","a":{"b":"ro"}}"#, r#"{"a":{"b":"ro"},"a/b":"rw"}"#),
    (SLASH, r#"{"a~1b":"ro"}"#, r#"{"a~1b":"ro"}"#),
    // Absent, but not for everybody.
    (NO_FORCE, r#"{"\u0066orce":true}"#, r#"{"force":true}"#),
    (NO_FORCE, r#"{"Force":true}"#, r#"{"force":true}"#),
    (NO_FORCE, r#"{"force":null}"#, r#"{"force":null}"#),
    (NO_FORCE, r#"{"force\u0000":true}"#, r#"{"force":true}"#),
    (NO_FORCE, r#"{"__proto__":{"force":true}}"#, r#"{"force":true}"#),
    (NO_FORCE, r#"{"__pr\u006fto__":{"force":true}}"#, r#"{"force":true}"#),
    (NO_DEEP_FORCE, r#"{"opt":"{\"force\":true}"}"#, r#"{"opt":{"force":true}}"#),
    (NO_DEEP_FORCE, r#"{"opt":[{"force":true}]}"#, r#"{"opt":[{"force":true}]}"#),
    (NO_DEEP_FORCE, r#"{"opt":{"__proto__":{"force":true}}}"#, r#"{"opt":{"force":true}}"#),
    (NO_ITEM_FORCE, r#"{"items":{"force":true}}"#, r#"{"items":{"force":true}}"#),
    (NO_ITEM_FORCE, r#"{"items":"[{\"force\":true}]"}"#, r#"{"items":[{"force":true}]}"#),
    (NO_ITEM_FORCE, r#"{"items":["{\"force\":true}"]}"#, r#"{"items":[{"force":true}]}"#),
    (NO_ITEM_FORCE, r#"{"items":[{},{"force":1}]}"#, r#"{"items":[{},{"force":1}]}"#),
    (NO_ITEM_FORCE, r#"{"items":[{},{"FORCE":1}]}"#, r#"{"items":[{},{"force":1}]}"#),
    // Other types.
    (LIMIT, r#"{"limit":"5000"}"#, r#"{"limit":5000}"#),
    (LIMIT, r#"{"limit":"1"}"#, r#"{"limit":1}"#),
    (LIMIT, r#"{"limit":[1]}"#, r#"{"limit":[1]}"#),
    (LIMIT, r#"{"limit":{"$gt":0}}"#, r#"{"limit":{"$gt":0}}"#),
    (LIMIT, r#"{"limit":null}"#, r#"{"limit":null}"#),
    (LIMIT, r#"{"limit":true}"#, r#"{"limit":true}"#),
    (LIMIT, "{}", "{}"),
    (LIMIT, "null", ""),
    (NOT_FORCED, r#"{"flag":0}"#, r#"{"flag":0}"#),
    (NOT_FORCED, r#"{"flag":"false"}"#, r#"{"flag":false}"#),
    (NOT_FORCED, r#"{"flag":null}"#, r#"{"flag":null}"#),
    (NULL, "{}", "{}"),
    (NULL, r#"{"x":"null"}"#, r#"{"x":null}"#),
    (DATABASE, r#"{"db":["a","secret"]}"#, r#"{"db":["a","secret"]}"#),
    // Numbers.
    (LIMIT, r#"{"limit":1E+3}"#, r#"{"limit":1000.0}"#),
    (LIMIT, r#"{"limit":101e0}"#, r#"{"limit":101.0}"#),
    (LIMIT, r#"{"limit":100.00001}"#, r#"{"limit":100.00001}"#),
    (LIMIT, r#"{"limit":100.00000000000000000001}"#, r#"{"limit":100.0}"#),
    (LIMIT, r#"{"limit":0.0001e7}"#, r#"{"limit":1000.0}"#),
    (LIMIT, r#"{"limit":-1e99999999999999999999}"#, ""),
    (LIMIT, r#"{"limit":1e400}"#, ""),
    (LIMIT, r#"{"limit":18446744073709551616}"#, r#"{"limit":1.8446744073709552e+19}"#),
    (FLOOR, r#"{"n":-0}"#, r#"{"n":-0.0}"#),
    (FLOOR, r#"{"n":1e-400}"#, r#"{"n":0.0}"#),
    (FLOOR, r#"{"n":0.99999999999999999999}"#, r#"{"n":1.0}"#),
    (FLOOR, r#"{"n":-1e2}"#, r#"{"n":-100.0}"#),
    (EXACT, r#"{"id":9007199254740992}"#, r#"{"id":9007199254740992}"#),
    (EXACT, r#"{"id":9007199254740993.1}"#, r#"{"id":9007199254740994.0}"#),
    (EXACT, r#"{"id":"9007199254740993"}"#, r#"{"id":9007199254740993}"#),
    // Elements.
    (ITEMS, r#"{"items":[]}"#, r#"{"items":[]}"#),
    (ITEMS, r#"{"items":[{"n":1},{"n":11},{"n":2}]}"#, r#"{"items":[{"n":1},{"n":11},{"n":2}]}"#),
    (ITEMS, r#"{"items":[{"n":1},{}]}"#, r#"{"items":[{"n":1},{}]}"#),
    (ITEMS, r#"{"items":[{"n":1},[{"n":11}]]}"#, r#"{"items":[{"n":1},[{"n":11}]]}"#),
    (ITEMS, r#"{"items":{"n":11}}"#, r#"{"items":{"n":11}}"#),
    (ITEMS, r#"{"items":{"*":{"n":1}}}"#, r#"{"items":{"*":{"n":1}}}"#),
    (ITEMS, r#"{"items":[{"n":1,"N":11}]}"#, r#"{"items":[{"n":11}]}"#),
    (ITEMS, r#"{"items":[{"n":1}],"ITEMS":[{"n":11}]}"#, r#"{"items":[{"n":11}]}"#),
    (ITEMS, r#"{"items":[{"n":1},"{\"n\":11}"]}"#, r#"{"items":[{"n":1},{"n":11}]}"#),
    (TABLES, r#"{"tables":["public.a","secret.b"]}"#, r#"{"tables":["public.a","secret.b"]}"#),
    (TABLES, r#"{"tables":["public.a",null]}"#, r#"{"tables":["public.a",null]}"#),
    (TABLES, r#"{"tables":"public.a"}"#, r#"{"tables":"public.a"}"#),
    (TABLES, r#"{"tables":["public.a",["secret.b"]]}"#, r#"{"tables":["public.a",["secret.b"]]}"#),
    // Texts.
    (DATABASE, r#"{"db":"A"}"#, r#"{"db":"A"}"#),
    (DATABASE, r#"{"db":"a\u0000"}"#, r#"{"db":"a"}"#),
    (DATABASE, r#"{"db":"a "}"#, r#"{"db":"a"}"#),
    (DATABASE, r#"{"db":"\ud800a"}"#, ""),
    (WORD, r#"{"word":"prod\n"}"#, r#"{"word":"prod"}"#),
    (WORD, r#"{"word":"x\nprod"}"#, r#"{"word":"x\nprod"}"#),
    (WORD, r#"{"word":""}"#, r#"{"word":""}"#),
    (WORD, r#"{"word":"p\u0000rod"}"#, r#"{"word":"p\u0000rod"}"#),
    (ANY_TEXT, r#"{"word":"\u0000"}"#, r#"{"word":""}"#),
    (ANY_TEXT, r#"{"word":1}"#, r#"{"word":1}"#),
    (PATH, r#"{"path":"/srv/../etc/passwd"}"#, r#"{"path":"/srv/../etc/passwd"}"#),
    (PATH, r#"{"path":"\/srv\/\u002e.\/etc"}"#, r#"{"path":"/srv/../etc"}"#),
    (PATH, r#"{"path":"/srv/%2e%2E%2fetc"}"#, r#"{"path":"/srv/%2e%2E%2fetc"}"#),
    (PATH, r#"{"path":"/srv/x\\..\\..\\etc"}"#, r#"{"path":"/srv/x\\..\\..\\etc"}"#),
    (PATH, r#"{"path":"/srv/a/.."}"#, r#"{"path":"/srv/a/.."}"#),
    (PATH, r#"{"path":"/srv/a\u0000/etc"}"#, r#"{"path":"/srv/a\u0000/etc"}"#),
    (PATH, r#"{"path":" /srv/a"}"#, r#"{"path":"/srv/a"}"#),
    (PATH, r#"{"path":"/SRV/a"}"#, r#"{"path":"/SRV/a"}"#),
    // Names that are not listed.
    (ONLY, r#"{"limit":1,"f\u006frce":true}"#, r#"{"force":true,"limit":1}"#),
    (ONLY, r#"{"limit":1,"LIMIT":5000}"#, r#"{"limit":5000}"#),
    (ONLY, r#"{"limit":1,"limit\u0000":5000}"#, r#"{"limit":5000}"#),
    (ONLY, r#"{"limit":1,"__proto__":{"force":true}}"#, r#"{"force":true,"limit":1}"#),
    (ONLY, r#"{"":1}"#, r#"{"":1}"#),
    (ONLY, r#"{"limit ":1}"#, r#"{"limit ":1}"#),
    (BOTH, r#"{"limit":100,"db":"b"}"#, r#"{"db":"b","limit":100}"#),
    (BOTH, r#"{"limit":101,"db":"a"}"#, r#"{"db":"a","limit":101}"#),
    (BOTH, r#"{"limit":100,"db":"a","c":1}"#, r#"{"c":1,"db":"a","limit":100}"#),
    // No objects.
    (LIMIT, r#"[{"limit":1}]"#, r#"[{"limit":1}]"#),
    (NO_FORCE, r#""{\"force\":true}""#, r#"{"force":true}"#),
    (NO_FORCE, r#"[["force",true]]"#, r#"[["force",true]]"#),
    (NO_FORCE, "0", "0"),
    (ONLY, r#"["force"]"#, r#"["force"]"#),
    // No JSON.
    (LIMIT, r#"{"limit":NaN}"#, ""),
    (LIMIT, r#"{"limit":0x10}"#, ""),
    (LIMIT, r#"{"limit":01}"#, ""),
    (LIMIT, r#"{"limit":+1}"#, ""),
    (LIMIT, r#"{"limit":1,}"#, ""),
    (LIMIT, r#"{"limit":1/**/}"#, ""),
    (LIMIT, "{'limit':1}", ""),
];

/// Conditions, and arguments that meet them.
const HONEST: &[(&str, &str, &str)] = &[
    (LIMIT, r#"{"limit":100}"#, r#"{"limit":100}"#),
    (LIMIT, r#"{"limit":1e2}"#, r#"{"limit":100.0}"#),
    (LIMIT, r#"{"limit":100.0}"#, r#"{"limit":100.0}"#),
    (LIMIT, r#"{"limit":1.0E+2}"#, r#"{"limit":100.0}"#),
    (LIMIT, r#"{"limit":-0}"#, r#"{"limit":-0.0}"#),
    (LIMIT, r#"{"l\u0069mit":-1,"x":{"LIMIT":5}}"#, r#"{"limit":-1,"x":{"limit":5}}"#),
    (FLOOR, r#"{"n":18446744073709551615}"#, r#"{"n":18446744073709551615}"#),
    (DATABASE, r#"{"x":["c"],"db":"\u0062"}"#, r#"{"db":"b","x":["c"]}"#),
    (
        MODE,
        r#"{"opt":{"mode":"ro","x":{"mode":"rw"}}}"#,
        r#"{"opt":{"mode":"ro","x":{"mode":"rw"}}}"#,
    ),
    (NO_FORCE, r#"{"x":{"force":true}}"#, r#"{"x":{"force":true}}"#),
    (NO_FORCE, "null", ""),
    (NO_DEEP_FORCE, r#"{"opt":null}"#, r#"{"opt":null}"#),
    (NO_DEEP_FORCE, r#"{"opt":{}}"#, r#"{"opt":{}}"#),
    (NO_ITEM_FORCE, r#"{"items":[]}"#, r#"{"items":[]}"#),
    (NO_ITEM_FORCE, r#"{"items":[{},null,{"n":1}]}"#, r#"{"items":[{},null,{"n":1}]}"#),
    (ITEMS, r#"{"items":[{"n":10},{"n":-3}]}"#, r#"{"items":[{"n":10},{"n":-3}]}"#),
    (TABLES, r#"{"tables":["public.a","public."]}"#, r#"{"tables":["public.a","public."]}"#),
    (PATH, r#"{"path":"/srv/a/b..c/...\n"}"#, r#"{"path":"/srv/a/b..c/..."}"#),
    (ANY_TEXT, r#"{"word":"a/../b"}"#, r#"{"word":"a/../b"}"#),
    (ANY_TEXT, r#"{"word":""}"#, r#"{"word":""}"#),
    (EXACT, r#"{"id":9007199254740993}"#, r#"{"id":9007199254740993}"#),
    (NOT_FORCED, r#"{"flag":false}"#, r#"{"flag":false}"#),
    (NULL, r#"{"x":null}"#, r#"{"x":null}"#),
    (SLASH, r#"{"a\/b":"ro"}"#, r#"{"a/b":"ro"}"#),
    (TASK, r#"{"task":"a","tasks":"b"}"#, r#"{"task":"a","tasks":"b"}"#),
    (ONLY, r#"{"d\u0062":{"force":true}}"#, r#"{"db":{"force":true}}"#),
    (ONLY, "{}", "{}"),
    (BOTH, r#"{"db":"a","limit":100}"#, r#"{"db":"a","limit":100}"#),
];

fn case(conditions: &str, arguments: &str, ran: &str) -> (String, String, String) {
    let restriction = format!(r#"{{"mcp":{{"tools":[{{"name":"sql",{conditions}}}]}}}}"#);
    let body = request("tools/call", &format!(r#""arguments":{arguments},"name":"sql""#));
    let is_run = !ran.is_empty() || arguments == "null";
    let ran =
        if is_run { format!("tools/call sql {ran}").trim_end().to_owned() } else { ran.to_owned() };
    (restriction, body, ran)
}

#[test]
fn no_evasion_by_arguments_passes() {
    assert!(EVASIONS.len() >= 60);
    none(EVASIONS.iter().map(|(conditions, arguments, ran)| {
        let (restriction, body, ran) = case(conditions, arguments, ran);
        evasion(&restriction, body.as_bytes(), &ran)
    }));
}

#[test]
fn honest_arguments_pass() {
    assert!(HONEST.len() >= 20);
    none(HONEST.iter().map(|(conditions, arguments, ran)| {
        let (restriction, body, ran) = case(conditions, arguments, ran);
        honest(&restriction, body.as_bytes(), &ran)
    }));
}

/// A text that is too long to be compared equals nothing, and a name that is too long may be another one.
#[test]
fn what_is_too_long_does_not_pass() {
    let long = "x".repeat(513);
    for (conditions, arguments) in [
        (ANY_TEXT, format!(r#"{{"word":"{long}"}}"#)),
        (PATH, format!(r#"{{"path":"/srv/{long}"}}"#)),
        (NO_FORCE, format!(r#"{{"{}force":true}}"#, r"\u0000".repeat(513))),
        (LIMIT, format!(r#"{{"limit":1,"{long}":2}}"#)),
        (LIMIT, format!(r#"{{"limit":0.{}}}"#, "0".repeat(64))),
        (ITEMS, format!(r#"{{"items":[{}{{"n":1}}]}}"#, r#"{"n":1},"#.repeat(1024))),
        (LIMIT, format!(r#"{{"x":{}{},"limit":1}}"#, "[".repeat(200), "]".repeat(200))),
    ] {
        let (restriction, body, _) = case(conditions, &arguments, "");
        assert_ne!(judge(&restriction, body.as_bytes()).0, Ok(true), "{conditions}");
    }
}
