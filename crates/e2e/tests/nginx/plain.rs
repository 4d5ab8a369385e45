//! The shipped configuration on a plain nginx: what the seal, the guards and the pass list do by
//! themselves, and what nginx's variables are, by which the module judges.
//!
//! Where the module ran, nothing stands, or `ALLOW`, which does what the module does last of all.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use serde_json::{Value, json};
use vkey::config::Config as Plugin;

use crate::config::Config;
use crate::http2;
use crate::process::Nginx;
use crate::support::tls::{Authority, Client, Serve};
use crate::support::{DEADLINE, Request, TempDir, artefact, root, vkey, wait_for};
use crate::upstream::Recorder;

const ALLOW: &str = "set $vkey_decision allow;";

/// Shows what the module sees of a request, and where it went.
const FACTS: &str = "add_header x-host $host always; add_header x-http-host $http_host always; \
    add_header x-uri $request_uri always; add_header x-upstream $upstream_addr always;";

/// Headers that no upstream may get.
const WITHHELD: [&str; 17] = [
    "api-key",
    "authorization",
    "cookie",
    "forwarded",
    "proxy-authorization",
    "te",
    "upgrade",
    "x-api-key",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-goog-api-key",
    "x-http-method-override",
    "x-original-url",
    "x-real-ip",
    "x-rewrite-url",
    "x-vkey-other",
    "x_vkey_key",
];

fn binary() -> PathBuf {
    artefact("VKEY_TEST_NGINX")
}

fn request(path: impl AsRef<[u8]>) -> Request {
    Request::new("GET", path).header("host", "gw.example")
}

/// A second name for the listeners, where HTTP/2 is spoken without TLS.
fn with_http2(config: Config) -> Option<Config> {
    let version = Command::new(binary()).arg("-V").output().expect("nginx can be run");
    if !String::from_utf8_lossy(&version.stderr).contains("http_v2_module") {
        println!("skipped: this nginx has no HTTP/2");
        return None;
    }
    let (old, new) = ("        listen 127.0.0.1:10000", "        listen 127.0.0.1:10443 http2");
    let refuses = format!("{old} default_server;");
    let both = format!("{refuses}\n{new} default_server;");
    let config = config.replace(&refuses, &both, 1);
    Some(config.replace(&format!("{old};"), &format!("{old};\n{new};"), 1))
}

// === the seal ===

#[test]
fn without_the_module_nothing_reaches_the_upstream() {
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &Config::plain(""), &service);
    for method in ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        for path in ["/", "/v1/models", "/.vkey/usage", "/v1/models?vkey_decision=allow"] {
            let request = Request::new(method, path).header("host", "gw.example");
            let request = request.header("vkey-decision", "allow").header("vkey_decision", "allow");
            assert_eq!(nginx.send(&request).status, 502, "{method} {path}");
        }
    }
    assert_eq!(nginx.send_raw(b"GET / HTTP/1.0\r\nhost: gw.example\r\n\r\n").status, 502);
    assert_eq!((service.connections(), service.received().len()), (0, 0));
}

#[test]
fn without_the_module_nothing_reaches_the_upstream_over_http_2() {
    let Some(config) = with_http2(Config::plain("")) else { return };
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &config, &service);
    for path in ["/", "/v1/models"] {
        let fields = [
            (":method", "GET"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "gw.example"),
        ];
        assert_eq!(http2::send(nginx.gate_tls(), &fields).unwrap().status, Some(502));
    }
    assert_eq!((service.connections(), service.received().len()), (0, 0));
}

#[test]
fn a_location_whose_module_was_forgotten_is_sealed() {
    let service = Recorder::start();
    let forgotten = "        location /v1/forgotten { proxy_pass $vkey_upstream$request_uri; }\n";
    let location = "        location / {\n";
    let config = Config::plain(ALLOW).replace(location, &format!("{forgotten}{location}"), 1);
    let nginx = Nginx::start(&binary(), &config, &service);
    assert_eq!(nginx.send(&request("/v1/forgotten")).status, 502);
    assert_eq!(service.connections(), 0);
    assert_eq!(nginx.send(&request("/v1/models")).status, 200, "the others are open");
    assert_eq!(service.take_one().target(), b"/v1/models");
}

/// Only the one word opens; nginx itself compares it without regard to case.
#[test]
fn what_is_not_allow_opens_nothing() {
    let service = Recorder::start();
    for word in ["deny", "allowed", "' allow'", "1", "$http_vkey_decision"] {
        let config = Config::plain(&format!("set $vkey_decision {word};"));
        let nginx = Nginx::start(&binary(), &config, &service);
        assert_eq!(nginx.send(&request("/v1/models")).status, 502, "{word}");
    }
    assert_eq!(service.connections(), 0);
}

// === hosts and targets ===

#[test]
fn another_host_is_refused() {
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &Config::plain(ALLOW), &service);
    for host in ["other.example", "a.gw.example", "gw.example.evil", "gw.example@evil", "127.0.0.1"]
    {
        let request = Request::new("GET", "/v1/models").header("host", host);
        assert_eq!(nginx.send(&request).status, 421, "{host}");
    }
    assert_eq!(nginx.send_raw(b"GET /v1/models HTTP/1.0\r\n\r\n").status, 421, "no host");
    assert_eq!(service.connections(), 0);
}

#[test]
fn a_target_that_can_be_read_in_two_ways_is_refused() {
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &Config::plain(ALLOW), &service);
    let targets = [
        "http://gw.example/v1/models",
        "HTTP://gw.example/v1/models",
        "ftp://gw.example/v1/models",
        "http://gw.example",
        "http://gw.example?/v1/models",
        "/v1//models",
        "//v1/models",
        "/v1/./models",
        "/v1/x/../models",
        "/v1/models/..",
        "/v1/models/.",
        "/v1/models/..?x",
        "/v1%2fmodels",
        "/v1%2Fmodels",
        "/v1/%5cmodels",
        "/v1/%2e%2E/models",
        "/v1/%00",
        "/v1\\models",
        "/v1/models#fragment",
        "/v1/models?x#fragment",
        "/v1/mod\x01els",
        "*",
        "v1/models",
    ];
    for target in targets {
        assert_eq!(nginx.send(&request(target)).status, 400, "{target}");
    }
    let foreign = b"GET http://other.example/v1 HTTP/1.1\r\nhost: gw.example\r\n\r\n";
    assert_eq!(nginx.send_raw(foreign).status, 421);
    assert_eq!(nginx.send_raw(b"GET  /v1/models HTTP/1.1\r\nhost: gw.example\r\n\r\n").status, 400);
    assert_eq!(service.connections(), 0);
}

#[test]
fn a_path_is_sent_byte_for_byte() {
    let service = Recorder::start();
    let rewritten = format!("{ALLOW} rewrite ^ /elsewhere break;");
    for instead in [ALLOW, &rewritten] {
        let nginx = Nginx::start(&binary(), &Config::plain(instead), &service);
        let long = format!("/v1/{}", "a".repeat(4000));
        let paths: [&[u8]; 15] = [
            b"/",
            b"/?",
            b"/v1/models",
            b"/v1/a%20b?url=https%3A%2F%2Fx//y/../z",
            b"/v1/%C3%A9?%2f%2e%00",
            b"/v1/\xff\xfe",
            b"/v1/%61;b=c,d",
            b"/v1/a..b/.hidden/...",
            b"/v1/models/",
            b"/v1/x?a?b",
            b"/v1/\"'<>|{}^`$request_uri",
            b"/v1/%",
            b"/v1/%zz",
            b"/v1/@other.example:80/",
            long.as_bytes(),
        ];
        for path in paths {
            let sent = nginx.send(&request(path));
            // nginx itself refuses an invalid escape.
            if path.ends_with(b"%") || path.ends_with(b"%zz") {
                assert_eq!(sent.status, 400);
                continue;
            }
            assert_eq!(sent.status, 200, "{}", path.escape_ascii());
            let received = service.take_one();
            assert_eq!(received.target(), path, "{}", received.line().escape_ascii());
        }
    }
}

// === headers ===

#[test]
fn only_the_pass_list_goes_on() {
    let service = Recorder::start();
    let config = Config::plain(ALLOW);
    let mut list = config.pass_list();
    assert!(list.len() > 10, "{list:?}");
    let nginx = Nginx::start(&binary(), &config, &service);
    let mut request = Request::new("POST", "/v1/models").header("Host", "GW.example:8080");
    let named: Vec<String> = list.iter().filter(|name| *name != "host").cloned().collect();
    for name in named.iter().map(String::as_str).chain(WITHHELD) {
        assert!(!WITHHELD.contains(&name) || !named.iter().any(|n| n == name), "{name} is passed");
        // `connection` has words of its own, and the body is not encoded.
        if !matches!(name, "connection") {
            request = request.header(name, format!("sent-{name}"));
        }
    }
    assert_eq!(nginx.send(&request.body("the body")).status, 200);
    let received = service.take_one();
    let names: BTreeSet<String> = received.headers().into_iter().map(|(name, _)| name).collect();
    list.retain(|name| name != "connection");
    list.push("content-length".to_owned());
    assert_eq!(names, list.iter().cloned().collect(), "each of them, and no other");
    assert_eq!(received.headers().len(), names.len(), "each of them once");
    assert_eq!(received.header("host"), ["gw.example"]);
    assert_eq!(received.header("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(received.header("traceparent"), ["sent-traceparent"]);
    assert_eq!(received.body, b"the body");
    for name in WITHHELD {
        assert!(!received.holds(format!("sent-{name}").as_bytes()), "{name}");
    }
}

/// An absent header, and one that the module has blanked, are no header to the service.
#[test]
fn an_empty_header_does_not_go_on() {
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &Config::plain(ALLOW), &service);
    assert_eq!(
        nginx.send(&request("/v1").header("x-vkey-key", "").header("accept", "")).status,
        200
    );
    let names: Vec<String> = service.take_one().headers().into_iter().map(|(n, _)| n).collect();
    assert_eq!(names, ["host", "x-forwarded-for"]);
}

/// For many services x_vkey_key is x-vkey-key, and for nginx too when it looks a header up.
#[test]
fn a_name_with_underscores_is_no_name() {
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &Config::plain(ALLOW), &service);
    assert_eq!(nginx.send(&request("/v1").header("x_vkey_key", "forged")).status, 200);
    assert!(!service.take_one().holds(b"forged"));
}

#[test]
fn a_body_goes_on_however_it_is_sent() {
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &Config::plain(ALLOW), &service);
    let head = "POST /v1 HTTP/1.1\r\nhost: gw.example\r\ntransfer-encoding: chunked\r\n";
    let body = "3\r\nabc\r\n2\r\nde\r\n0\r\nauthorization: Bearer x\r\n\r\n";
    assert_eq!(nginx.send_raw(format!("{head}\r\n{body}").as_bytes()).status, 200);
    let received = service.take_one();
    assert_eq!(received.body, b"abcde");
    assert!(!received.holds(b"Bearer"), "nginx drops trailers");
    let two_lengths = format!("{head}content-length: 3\r\n\r\n0\r\n\r\n");
    assert_eq!(nginx.send_raw(two_lengths.as_bytes()).status, 400);
    assert_eq!(service.received().len(), 0);
}

// === answers ===

/// The first event is with the client before the service has written the second. The length of the answer
/// is not known: what is sent in chunks nginx does not keep back anyway.
#[test]
fn an_answer_streams() {
    let (go, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let service = Recorder::answering(move |stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nfirst")?;
        // An error is the end of the test, which has failed then.
        let _ = wait.lock().expect("no thread panics").recv();
        stream.write_all(b"second")?;
        stream.shutdown(Shutdown::Write)
    });
    let nginx = Nginx::start(&binary(), &Config::plain(ALLOW), &service);
    let mut stream = TcpStream::connect(nginx.gate()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let ask = request("/v1").header("connection", "close");
    stream.write_all(&ask.encode()).unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"first\r\n") {
        let mut chunk = [0; 1024];
        let count = stream.read(&mut chunk).expect("the first event");
        assert!(count > 0, "{}", answer.escape_ascii());
        answer.extend_from_slice(&chunk[..count]);
    }
    go.send(()).unwrap();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.ends_with(b"first\r\n6\r\nsecond\r\n0\r\n\r\n"), "{}", answer.escape_ascii());
}

/// The decision of the module stays while nginx sends a request on inside itself.
#[test]
fn the_service_cannot_send_a_request_elsewhere() {
    let service = Recorder::answering(|stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nx-accel-redirect: /other\r\ncontent-length: 3\r\n\r\nok\n",
        )
    });
    let config = Config::plain(ALLOW);
    let nginx = Nginx::start(&binary(), &config, &service);
    assert_eq!(nginx.send(&request("/v1")).text(), "ok\n");
    assert_eq!(service.take_one().target(), b"/v1");
}

// === what nginx says of a request ===

/// What `Host`, `$host` and `$request_uri` are, without the guards that refuse most of it.
#[test]
fn nginx_names_host_path_and_upstream_as_the_module_relies_on() {
    let service = Recorder::start();
    let config = Config::plain(&format!("{ALLOW} {FACTS}")).without_guards();
    let nginx = Nginx::start(&binary(), &config, &service);
    let cases = [
        // target, Host header, $host, $request_uri
        ("/v1/%2f//./x?a=%2F", "gw.example", "gw.example", "/v1/%2f//./x?a=%2F"),
        ("/v1", "GW.Example:8080", "gw.example", "/v1"),
        ("/v1", "gw.example.", "gw.example", "/v1"),
        // nginx reads any text as a port.
        ("/v1", "gw.example:x", "gw.example", "/v1"),
        // Of an absolute target the host wins, and $request_uri is the path. `Host` stays as it was.
        ("http://gw.example/v1?a", "other.example", "gw.example", "/v1?a"),
        ("http://GW.example:81/v1", "other.example", "gw.example", "/v1"),
        ("ftp://gw.example/v1", "gw.example", "gw.example", "/v1"),
    ];
    for (target, sent, host, uri) in cases {
        let answer = nginx.send(&Request::new("GET", target).header("host", sent));
        assert_eq!(answer.status, 200, "{target} {sent}");
        let facts = ["x-http-host", "x-host", "x-uri"].map(|name| answer.header(name).unwrap());
        assert_eq!(facts, [sent, host, uri], "{target}");
        assert_eq!(answer.header("x-upstream"), Some(service.address().to_string()));
        service.take_one();
    }
    // These are refused by nginx itself, in front of the module.
    for head in [
        "host: gw.example\r\nhost: other.example\r\n",
        "host: gw.example\r\nhost: gw.example\r\n",
        "host:\r\n",
        "host: gw.example, other.example\r\n",
        "host: gw.example/\r\n",
        "",
    ] {
        let request = format!("GET /v1 HTTP/1.1\r\n{head}\r\n");
        assert_eq!(nginx.send_raw(request.as_bytes()).status, 400, "{head}");
    }
    assert_eq!(service.received().len(), 0);
}

#[test]
fn over_http_2_the_host_header_is_the_authority() {
    let facts = r#"proxy_set_header x-facts "$http_host $host $request_uri $request";"#;
    let config = Config::plain(&format!("{ALLOW} {facts}")).without_guards();
    let Some(config) = with_http2(config) else { return };
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &config, &service);
    let ask = |fields: &[(&str, &str)]| {
        let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/v1/%2f?a")];
        http2::send(nginx.gate_tls(), &[&pseudo, fields].concat()).unwrap().status
    };
    assert_eq!(ask(&[(":authority", "GW.example:99")]), Some(200));
    let facts = "GW.example:99 gw.example /v1/%2f?a GET /v1/%2f?a HTTP/2.0";
    assert_eq!(service.take_one().header("x-facts"), [facts]);
    assert_eq!(ask(&[("host", "gw.example")]), Some(200), "no authority");
    let facts = "gw.example gw.example /v1/%2f?a GET /v1/%2f?a HTTP/2.0";
    assert_eq!(service.take_one().header("x-facts"), [facts]);
    let two_hosts = [(":authority", "gw.example"), ("host", "other.example")];
    assert_ne!(ask(&[(":authority", "other.example")]), Some(200));
    assert_ne!(ask(&two_hosts), Some(200));
    assert_ne!(ask(&[]), Some(200), "no host");
    assert_eq!(service.received().len(), 0);
}

/// Where nothing was allowed, `$upstream_addr` names the group that is never connected to.
#[test]
fn a_sealed_request_has_no_address() {
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &Config::plain(FACTS), &service);
    let answer = nginx.send(&request("/v1"));
    assert_eq!((answer.status, answer.header("x-upstream")), (502, Some("nowhere".to_owned())));
}

// === the file ===

/// What a `return` in the gated location does, which the file warns of: it answers in front of the
/// module, seal or not.
#[test]
fn a_return_in_the_gated_location_answers_before_anything() {
    let service = Recorder::start();
    let config = Config::plain("if ($arg_x = 1) { return 204; }");
    let nginx = Nginx::start(&binary(), &config, &service);
    assert_eq!(nginx.send(&request("/v1?x=1")).status, 204);
    assert_eq!(nginx.send(&request("/v1?x=2")).status, 502);
}

#[test]
fn the_access_log_shows_what_the_module_did_not_see_and_no_query() {
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &Config::plain(ALLOW), &service);
    nginx.send(&request("/v1/models?token=secret"));
    nginx.send(&Request::new("GET", "/x").header("host", "other.example"));
    nginx.send(&request("/v1%2fmodels"));
    let lines = wait_for(
        || Some(nginx.access_log()).filter(|lines| lines.len() == 3),
        || format!("{:?}", nginx.access_log()),
    );
    let parse = |line: &String| serde_json::from_str::<Value>(line).expect(line);
    let mut lines: Vec<Value> = lines.iter().map(parse).collect();
    lines.sort_by_key(|line| line["status"].as_u64()); // two workers write them
    let members = ["status", "decision", "host", "path"];
    let lines = lines.iter().map(|line| members.map(|member| line[member].clone()));
    assert_eq!(
        Value::from_iter(lines.map(Value::from_iter)),
        json!([
            [200, "allow", "gw.example", "/v1/models"],
            [400, "", "gw.example", "/v1/models"],
            [421, "", "other.example", "/x"],
        ])
    );
}

#[test]
fn the_variants_of_the_file_are_configurations() {
    let service = Recorder::start();
    let authority = Authority::new("gate");
    let dir = TempDir::new("nginx-tls");
    let files = authority.server(&["gw.example"]).write(dir.path(), "gate");
    assert!(files.certificate.ends_with("gate.pem") && files.key.ends_with("gate.key"));
    let config = Config::plain(ALLOW).variant("tls");
    let nginx = Nginx::start_in(dir, &binary(), &config, &service, &[]);
    let mut client = Client::new(&authority, None).connect(nginx.gate_tls(), "gw.example").unwrap();
    assert_eq!(client.send(&request("/v1")).status, 200);
    assert_eq!(client.send(&Request::new("GET", "/v1").header("host", "other")).status, 421);
}

/// The upstream is verified: one with a certificate of another authority, or for another name, gets
/// nothing.
#[test]
fn the_variant_for_upstreams_verifies_them() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let cases =
        [(&ours, "service.example", 200), (&ours, "other", 502), (&theirs, "service.example", 502)];
    for (signer, name, status) in cases {
        let upstream = Serve::tls(&signer.server(&[name])).start();
        let dir = TempDir::new("nginx-upstream-tls");
        ours.write(dir.path(), "authorities.pem");
        let config = Config::plain(ALLOW).variant("upstream-tls");
        let config = config.replace("allow   http://service;", "allow   https://service;", 1);
        let address = format!("server {};", upstream.address());
        let config = config.replace("server 127.0.0.1:10001;", &address, 1);
        let unused = Recorder::start();
        let nginx = Nginx::start_in(dir, &binary(), &config, &unused, &[]);
        let answer = nginx.send(&request("/v1"));
        assert_eq!(answer.status, status, "{name}: {}", nginx.log());
        drop(nginx); // and with it the connections that it keeps
        assert_eq!(upstream.final_counts().requests, u64::from(status == 200));
    }
}

/// nginx cuts directives at 4 KiB, with an error that does not say so.
#[test]
fn a_configuration_over_4_kib_is_refused_by_nginx() {
    for (bytes, fits) in [(4000, true), (4200, false)] {
        let (ok, said) =
            Nginx::check(&binary(), &Config::plain(&format!("set $x '{}';", "a".repeat(bytes))));
        assert_eq!((ok, said.contains("too long parameter")), (fits, !fits), "{said}");
    }
}

/// The command reads what the file gives to the module.
#[test]
fn the_configuration_of_the_module_is_one() {
    let file = Config::shipped();
    let run = Command::new(vkey())
        .args(["config", "envoy", "--config", "examples/nginx/nginx.conf"])
        .current_dir(root())
        .output()
        .expect("the command");
    let printed: Value = serde_json::from_slice(&run.stdout).expect("JSON");
    let plugin = &printed["resources"][0]["typed_config"]["config"];
    assert_eq!(plugin["configuration"]["value"], file.plugin());
    Plugin::parse(file.plugin().as_bytes()).expect("a configuration");
    assert!(file.plugin().len() < 4096 && !file.plugin().contains('\''));
}

// === what the tests with the module stand on ===

#[test]
fn a_reload_replaces_the_workers_and_a_crash_shows() {
    let service = Recorder::start();
    let nginx = Nginx::start(&binary(), &Config::plain(""), &service);
    assert_eq!(nginx.send(&request("/v1")).status, 502);
    let before = nginx.workers();
    assert_eq!(before.len(), 2);
    nginx.reload(&Config::plain(ALLOW));
    assert_eq!(nginx.send(&request("/v1")).status, 200);
    nginx.no_worker_crashed();
    let kill = Command::new("kill").args(["-9", &nginx.workers()[0].to_string()]).status();
    assert!(kill.expect("kill").success());
    wait_for(|| nginx.log().contains("exited on signal 9").then_some(()), || nginx.log());
    assert!(catch_unwind(AssertUnwindSafe(|| nginx.no_worker_crashed())).is_err());
}

#[test]
fn another_configuration_of_the_module_stands_in_the_place_of_the_shipped_one() {
    let plugin = r#"{"keyring": []}"#;
    let changed = Config::shipped().with_plugin(plugin);
    assert_eq!(changed.plugin(), plugin);
    assert_eq!(changed.module("").text(), Config::shipped().module("").text());
}
