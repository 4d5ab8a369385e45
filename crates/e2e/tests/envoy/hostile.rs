//! Requests that mean harm to the module itself.

use serde_json::json;

use crate::keys::{Minter, options, records};
use crate::support::{Connection, Envoy, Request};

/// One worker, so that a trap would take the next request with it.
#[test]
fn hostile_bytes_do_not_disturb_the_next_request() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("hostile", &main, json!({})));
    let key = main.key("k1", json!({}));
    let good = Request::new("GET", "/v1/models").bearer(&key);
    let bytes: Vec<u8> = (0x80..=0xff).collect();
    let hostile = [
        Request::new("GET", "/v1/models").header("authorization", &bytes),
        Request::new("GET", "/v1/models")
            .header("authorization", [b"Bearer vk1.", &*bytes].concat()),
        Request::new("GET", "/v1/models").bearer(&key).header("x-anything", &bytes),
        Request::new("GET", "/v1/models").bearer(&key).header("x-vkey-key", &bytes),
        Request::new("GET", "/v1/models").bearer(&key).header("x-request-id", &bytes),
        Request::new("GET", "/v1/models").bearer(&key).header("x-forwarded-for", &bytes),
        Request::new("GET", "/v1/models").bearer(&key).header("host", &bytes),
        Request::new("GET", [b"/v1/", &*bytes].concat()).bearer(&key),
        Request::new("GET", "/v1/models").bearer(&"A".repeat(50_000)),
        Request::new("GET", "/v1/models")
            .bearer(&format!("vk1.main-0.{}.e30", "e30.".repeat(1_000))),
        Request::new("GET", "/v1/models").bearer("eyJ9.e30.e30"),
        Request::new("GET", "/v1/models").header("authorization", "Bearer"),
        Request::new("GET", "/v1/models").header("x-api-key", ""),
        Request::new("OPTIONS", "*").bearer(&key),
        Request::new("CONNECT", "gw:443").bearer(&key),
    ];
    for request in &hostile {
        let mut connection = Connection::open(envoy.gate());
        // Envoy ends some of these connections itself, without an answer.
        if let Ok(answer) = connection.try_send(request) {
            assert!(matches!(answer.status, 200 | 400 | 401 | 403 | 404 | 431), "{answer:?}");
        }
        assert_eq!(envoy.send(&good).status, 200, "after {:?}", request.encode());
    }
    envoy.stop();
    let log = envoy.proxy_log();
    let of_module = |line: &&str| line.contains("wasm log vkey:");
    assert!(log.lines().any(|line| of_module(&line)), "{log}");
    assert!(!log.lines().filter(of_module).any(|line| line.contains("[error]")), "{log}");
    assert!(!log.contains("panicked") && !log.contains("Function: proxy_"), "{log}");
}

#[test]
fn many_headers_are_read_whole() {
    let main = Minter::new("main", None);
    let envoy = Envoy::start(options("headers", &main, json!({})));
    let key = main.key("k1", json!({}));
    let filler = (0..90).map(|number| (format!("x-filler-{number}"), "x".repeat(500)));
    let add = |request: Request, (name, value): (String, String)| request.header(&name, value);
    let request = filler.fold(Request::new("GET", "/v1/models"), add).bearer(&key);
    assert_eq!(envoy.send(&request).status, 200);
    let forged = request.header("x-vkey-tenant", "forged");
    let answer = envoy.send(&forged);
    assert!(answer.status == 200 && !answer.text().contains("forged"));
    assert_eq!(records(&envoy, 2).len(), 2);
}
