//! A worker of `vkey run`: evaluates lines.

use std::sync::Arc;

use vkey_vm::{Opened, Response, Worker};

use super::super::embedded::EmbeddedHost;
use super::super::error::Error;
use super::super::lines::Line;
use super::line_result::{LineResult, UNAVAILABLE};
use super::request::RequestLine;

/// Evaluates lines, one at a time.
pub(super) struct Evaluator {
    host: Arc<EmbeddedHost>,
    worker: Worker,
    /// The longest line, in bytes.
    max_line_bytes: u32,
}

impl Evaluator {
    pub(super) fn new(host: Arc<EmbeddedHost>, worker: Worker, max_line_bytes: u32) -> Self {
        Self { host, worker, max_line_bytes }
    }

    /// The result of a line.
    ///
    /// # Errors
    ///
    /// [`Error`] if the clock cannot be read.
    pub(super) fn evaluate(&mut self, number: u64, line: Line) -> Result<LineResult, Error> {
        let Line::Whole(line) = line else {
            let problem = format!("longer than {} bytes", self.max_line_bytes);
            return Ok(LineResult::unreadable(number, None, &problem));
        };
        match RequestLine::read(&line, &self.host) {
            Err(invalid) => {
                let id = RequestLine::id_of(&line);
                Ok(LineResult::unreadable(number, id.as_ref(), &invalid.to_string()))
            }
            Ok(request) => self.put(number, &request),
        }
    }

    fn put(&mut self, number: u64, request: &RequestLine) -> Result<LineResult, Error> {
        let memory = self.host.request()?;
        request.show(&memory);
        let now_ns = memory.now_ns.get().unwrap_or(0);
        let taken = self.worker.open(memory).and_then(|opened| {
            let response = request.response(now_ns);
            let (id, forwarded, answer) = match opened {
                Opened::Forwarded(id) => (id, true, response),
                Opened::Held(id) => (id, false, Response { status: Some(UNAVAILABLE), ..response }),
            };
            let ended = self.worker.close(id, &answer)?;
            Ok(ended.map(|ended| (ended, forwarded)))
        });
        let mut result = match taken {
            Ok(Some((ended, forwarded))) => LineResult::new(number, request, &ended, forwarded),
            Ok(None) => LineResult::failed(number, request, "the request was lost"),
            Err(failure) => LineResult::failed(number, request, &failure.to_string()),
        };
        result.log.splice(0..0, self.worker.take_log());
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::super::line_result::Outcome;
    use super::*;
    use vkey_vm::{Limits, Module};

    /// A module that traps on a request with property `p`, and pauses any other.
    const FRAGILE: &str = r#"(module
        (import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "p")
        (func (export "proxy_abi_version_0_2_1"))
        (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 4096))
        (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
            (if (i32.eqz (call $get (i32.const 16) (i32.const 1) (i32.const 8) (i32.const 12)))
                (then (unreachable)))
            (i32.const 1)))"#;

    #[test]
    fn a_request_on_which_the_module_fails_is_denied_and_the_next_is_evaluated() {
        let wasm = wat::parse_str(FRAGILE).unwrap();
        let host = Arc::new(EmbeddedHost::of(Module::compile(&wasm, Limits::default()).unwrap()));
        let mut evaluator = Evaluator::new(Arc::clone(&host), host.worker().unwrap(), 10);
        let mut evaluate =
            |number, line: &str| evaluator.evaluate(number, Line::Whole(line.into())).unwrap();
        for number in [1, 3] {
            let trap = evaluate(number, r#"{"id": "a", "path": "/", "properties": {"p": "v"}}"#);
            assert_eq!(trap.outcome, Outcome::Failed);
            let expected = format!(
                r#"{{"line":{number},"id":"a","decision":"deny","reason":null,"status":503,"error":"the module trapped: "#
            );
            assert!(trap.text.starts_with(&expected), "{}", trap.text);
            // Paused without a reply: the host must not report it as forwarded.
            let held = evaluate(number + 1, r#"{"path": "/"}"#);
            assert_eq!(held.outcome, Outcome::Denied);
            assert!(held.text.contains(r#""decision":"deny","reason":null,"status":503"#));
        }
    }
}
