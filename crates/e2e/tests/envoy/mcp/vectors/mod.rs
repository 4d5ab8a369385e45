//! The vectors of MCP on a real Envoy: messages of clients, and lists of servers.

mod lists;
mod requests;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};

use crate::support::{Connection, Response};

/// The header by which a request tells the upstream which one of a test it is.
const NUMBER: &str = "x-number";

/// As many as keep two cores busy: most of the time is spent waiting for the other side.
const THREADS: usize = 4;

/// The gate with one named server.
fn plugin() -> Value {
    json!({"mcp": {"routes": [{"path": "/mcp", "server": "main"}]}, "tiers": {"default": {}}})
}

/// A client that keeps its connection as long as Envoy does.
struct Client {
    gate: SocketAddr,
    connection: Option<Connection>,
}

impl Client {
    /// Sends a request to `/mcp`. A `POST` has a body in chunks: each piece is a chunk, and is sent on its own.
    fn send(&mut self, method: &str, headers: &[(&str, &str)], pieces: &[Vec<u8>]) -> Response {
        let mut head = format!("{method} /mcp HTTP/1.1\r\nhost: gate.test\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let is_chunked = method == "POST";
        head.push_str(if is_chunked { "transfer-encoding: chunked\r\n\r\n" } else { "\r\n" });
        let kept = self.connection.take();
        let mut connection = kept.unwrap_or_else(|| Connection::open(self.gate));
        connection.send_raw(head.as_bytes()).expect("the connection was kept");
        if is_chunked {
            send_chunks(&mut connection, pieces);
        }
        let response = connection.read_response().unwrap_or_else(|error| {
            panic!("{error}: {head}{}", pieces.concat().escape_ascii());
        });
        let is_kept = response.status == 200 && response.header("connection").is_none();
        self.connection = is_kept.then_some(connection);
        response
    }
}

fn send_chunks(connection: &mut Connection, pieces: &[Vec<u8>]) {
    for piece in pieces {
        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
        chunk.extend_from_slice(piece);
        chunk.extend_from_slice(b"\r\n");
        // The gate may have refused what came so far, and closed the connection.
        if connection.send_raw(&chunk).is_err() {
            return;
        }
    }
    _ = connection.send_raw(b"0\r\n\r\n");
}

/// Hands out the numbers below `count` to clients in threads of their own.
fn in_parallel(gate: SocketAddr, count: usize, work: impl Fn(&mut Client, usize) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut client = Client { gate, connection: None };
                loop {
                    let number = next.fetch_add(1, Ordering::SeqCst);
                    if number >= count {
                        return;
                    }
                    work(&mut client, number);
                }
            });
        }
    });
}
