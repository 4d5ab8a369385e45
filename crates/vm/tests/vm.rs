//! The embedded host, with modules that misbehave in ways the built one never does.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is the report"
)]

#[path = "vm/callbacks.rs"]
mod callbacks;

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use vkey::host::Level;
use vkey::host::Rules;
use vkey::host::{Action, MemoryHost, MemoryStore, SharedData as _};
use vkey_vm::{
    Failure, Limits, Module, ModuleError, Opened, Response, Setup, StartError, Vm, Worker,
};

/// A module whose request headers callback is `body`; `$say` logs the letter of a status, `A` for 0.
fn source(imports: &str, body: &str, rest: &str) -> String {
    format!(
        r#"(module
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            {imports}
            (memory (export "memory") 1)
            (global $free (mut i32) (i32.const 4096))
            (func (export "proxy_abi_version_0_2_1"))
            (func (export "proxy_on_memory_allocate") (param $size i32) (result i32)
                (global.get $free)
                (global.set $free (i32.add (global.get $free) (local.get $size))))
            (func $say (param $status i32)
                (i32.store8 (i32.const 0) (i32.add (local.get $status) (i32.const 65)))
                (drop (call $log (i32.const 2) (i32.const 0) (i32.const 1))))
            (func (export "proxy_on_request_headers") (param i32 i32 i32) (result i32)
                {body} (i32.const 0))
            {rest})"#
    )
}

fn compile(source: &str) -> Result<Module, ModuleError> {
    let limits = Limits { deadline: Duration::from_millis(200), memory_bytes: 1 << 20 };
    Module::compile(&wat::parse_str(source).unwrap(), limits)
}

fn unusable(source: &str) -> String {
    let Err(error) = compile(source) else { panic!("it is usable: {source}") };
    error.to_string()
}

fn host() -> MemoryHost {
    MemoryHost::new(MemoryStore::new(Rules::Envoy))
}

fn start(source: &str) -> Result<Vm, Failure> {
    let env = [("NAME".to_owned(), "value".to_owned()), ("OTHER".to_owned(), "2".to_owned())];
    Vm::start(&compile(source).unwrap(), host(), &env)
}

/// What the module logs about a request, and the result.
fn ask(source: &str, request: MemoryHost) -> (String, Result<Action, Failure>) {
    let mut vm = start(source).unwrap();
    let id = vm.open(request).unwrap();
    let done = vm.on_request_headers(id, true);
    let host = vm.host(id).unwrap();
    let said = host.log.borrow().iter().map(|(_, text)| text.clone()).collect();
    (said, done)
}

fn failure(body: &str) -> Failure {
    ask(&source("", body, ""), host()).1.unwrap_err()
}

#[track_caller]
fn says(error: &impl Display, part: &str) {
    assert!(error.to_string().contains(part), "{error} lacks {part}");
}

#[test]
fn an_unusable_module_is_rejected_with_the_cause() {
    let limits = Limits::default();
    let Err(invalid) = Module::compile(b"\0asm garbage", limits) else { panic!("garbage runs") };
    says(&invalid, "not valid code for this machine");
    says(&unusable("(module)"), "proxy_abi_version_0_2_1");
    let unknown = r#"(import "env" "proxy_http_call" (func (param i32) (result i32)))"#;
    says(&unusable(&source(unknown, "", "")), "proxy_http_call");
    let other_form = r#"(import "env" "proxy_get_property" (func (param i64) (result i32)))"#;
    says(&unusable(&source(other_form, "", "")), "proxy_get_property");
    let file = r#"(import "wasi_snapshot_preview1" "path_open" (func))"#;
    says(&unusable(&source(file, "", "")), "path_open");
}

#[test]
fn exports_with_another_signature_are_named() {
    for (rest, name) in [
        (r#"(func (export "proxy_on_log"))"#, "proxy_on_log"),
        (r#"(func (export "proxy_on_configure") (param i32 i32))"#, "proxy_on_configure"),
        (r#"(func (export "_initialize") (result i32) (i32.const 0))"#, "_initialize"),
    ] {
        let Err(failure) = start(&source("", "", rest)) else { panic!("{name} is taken") };
        says(&failure, name);
    }
    let without = r#"(module (func (export "proxy_abi_version_0_2_1")))"#;
    says(&start(without).err().unwrap(), "no memory");
    let without =
        r#"(module (func (export "proxy_abi_version_0_2_1")) (memory (export "memory") 1))"#;
    says(&start(without).err().unwrap(), "proxy_on_memory_allocate");
}

/// nginx calls them without checking that they exist, and its worker crashes if they do not.
#[test]
fn callbacks_that_nginx_calls_unchecked_must_exist() {
    let start = |rules, rest| {
        let host = || MemoryHost::new(MemoryStore::new(rules));
        let mut vm = Vm::start(&compile(&source("", "", rest)).unwrap(), host(), &[]).unwrap();
        let id = vm.open(host()).unwrap();
        (vm, id)
    };
    let body = r#"(func (export "proxy_on_response_body") (param i32 i32 i32) (result i32) (i32.const 0))"#;
    let (mut envoy, id) = start(Rules::Envoy, "");
    assert_eq!(envoy.on_response_body(id, 1, true), Ok(Action::Continue));
    assert_eq!(envoy.on_log(id), Ok(()));
    let (mut nginx, id) = start(Rules::Nginx, "");
    says(&nginx.on_response_body(id, 1, true).unwrap_err(), "no proxy_on_response_body");
    let (mut nginx, id) = start(Rules::Nginx, body);
    assert_eq!(nginx.on_response_body(id, 1, true), Ok(Action::Continue));
    says(&nginx.on_log(id).unwrap_err(), "no proxy_on_done");
}

/// nginx also crashes on a property that it has only for a connection.
#[test]
fn what_crashes_a_worker_of_nginx_ends_the_vm() {
    let import =
        r#"(import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))"#;
    let data = r#"(data (i32.const 64) "upstream\00address")"#;
    let body = "(drop (call $get (i32.const 64) (i32.const 16) (i32.const 8) (i32.const 12)))";
    let ask = |rules| {
        let host = || MemoryHost::new(MemoryStore::new(rules));
        let module = compile(&source(import, body, data)).unwrap();
        let mut vm = Vm::start(&module, host(), &[]).unwrap();
        let id = vm.open(host()).unwrap();
        vm.on_request_headers(id, true)
    };
    assert_eq!(ask(Rules::Envoy), Ok(Action::Continue));
    says(&ask(Rules::Nginx).unwrap_err(), "no upstream whose address");
}

#[test]
fn a_vm_that_has_trapped_fails_every_later_callback() {
    let mut vm = start(&source("", "(unreachable)", "")).unwrap();
    let (one, other) = (vm.open(host()).unwrap(), vm.open(host()).unwrap());
    let trap = vm.on_request_headers(one, true).unwrap_err();
    says(&trap, "unreachable");
    assert_eq!(vm.on_log(other), Err(trap.clone()));
    assert_eq!(vm.open(host()).unwrap_err(), trap);
    assert_eq!(vm.configure(b"{}"), Err(trap));
}

#[test]
fn the_deadline_of_a_callback_includes_its_allocations() {
    let most = Duration::from_millis(200);
    assert_eq!(failure("(loop (br 0))"), Failure::Deadline(most));
    let allocating = source(
        r#"(import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))"#,
        r#"(call $say (call $get (i32.const 16) (i32.const 1) (i32.const 8) (i32.const 12)))"#,
        r#"(data (i32.const 16) "p")"#,
    );
    let endless = allocating.replace("(global.get $free)\n", "(loop (br 0)) (global.get $free)\n");
    assert_ne!(endless, allocating);
    let request = host();
    request.show("p", "value");
    assert_eq!(ask(&endless, request).1, Err(Failure::Deadline(most)));
}

#[test]
fn several_callbacks_can_share_a_deadline() {
    // About 20 million iterations. A single callback may run any number within its own deadline.
    let turns = "(local $n i32) (loop (local.set $n (i32.add (local.get $n) (i32.const 1))) \
                 (br_if 0 (i32.lt_u (local.get $n) (i32.const 20000000))))";
    let mut vm = start(&source("", turns, "")).unwrap();
    let id = vm.open(host()).unwrap();
    let alone = (0..200).all(|_| vm.on_request_headers(id, true).is_ok());
    assert!(alone, "a callback alone takes too long on this machine");
    let together = vm.within_one_deadline(|vm| {
        (0..200).try_for_each(|_| vm.on_request_headers(id, true).map(|_| ()))
    });
    assert_eq!(together, Err(Failure::Deadline(Duration::from_millis(200))));
}

#[test]
fn memory_and_the_stack_are_limited() {
    let grow = "(if (i32.eq (memory.grow (i32.const 100)) (i32.const -1)) (then (unreachable)))";
    assert_eq!(failure(grow), Failure::Memory);
    let within = "(if (i32.eq (memory.grow (i32.const 10)) (i32.const -1)) (then (unreachable)))";
    assert_eq!(ask(&source("", within, ""), host()).1, Ok(Action::Continue));
    let deep = source("", "(call $deep)", "(func $deep (call $deep))");
    says(&ask(&deep, host()).1.unwrap_err(), "stack");
    let huge =
        r#"(module (func (export "proxy_abi_version_0_2_1")) (memory (export "memory") 17))"#;
    assert!(start(huge).is_err());
}

/// Statuses: `A` 0, `B` 1 not found, `C` 2 bad argument, `G` 6 invalid address, `I` 8 mismatch, `M` 12.
#[test]
fn host_calls_with_invalid_arguments_return_a_status() {
    let get =
        r#"(import "env" "proxy_get_property" (func $f (param i32 i32 i32 i32) (result i32)))"#;
    let value = r#"(import "env" "proxy_get_header_map_value"
        (func $f (param i32 i32 i32 i32 i32) (result i32)))"#;
    let add = r#"(import "env" "proxy_add_header_map_value"
        (func $f (param i32 i32 i32 i32 i32) (result i32)))"#;
    let buffer = r#"(import "env" "proxy_get_buffer_bytes"
        (func $f (param i32 i32 i32 i32 i32) (result i32)))"#;
    let splice = r#"(import "env" "proxy_set_buffer_bytes"
        (func $f (param i32 i32 i32 i32 i32) (result i32)))"#;
    let set = r#"(import "env" "proxy_set_shared_data"
        (func $f (param i32 i32 i32 i32 i32) (result i32)))"#;
    let enter =
        r#"(import "env" "proxy_set_effective_context" (func $f (param i32) (result i32)))"#;
    let metric =
        r#"(import "env" "proxy_increment_metric" (func $f (param i32 i64) (result i32)))"#;
    let define = r#"(import "env" "proxy_define_metric"
        (func $f (param i32 i32 i32 i32) (result i32)))"#;
    let reply = r#"(import "env" "proxy_send_local_response"
        (func $f (param i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))"#;
    for (import, arguments, status) in [
        (get, "16 1 8 12", 'A'),
        (get, "17 1 8 12", 'B'),
        (get, "24 2 8 12", 'C'),     // not UTF-8
        (get, "-1 1 8 12", 'G'),     // an address past the end
        (get, "16 -1 8 12", 'G'),    // a length past the end
        (get, "16 1 65533 12", 'G'), // a receiver that is partly outside
        (get, "16 1 8 -4", 'G'),
        (value, "0 16 1 8 12", 'B'), // no such header
        (value, "7 16 1 8 12", 'C'), // no such map
        (add, "0 16 1 17 1", 'A'),
        (add, "2 16 1 17 1", 'C'), // not a map to add to
        (add, "0 16 1 24 2", 'C'),
        (buffer, "7 0 99 8 12", 'A'),
        (buffer, "7 1 99 8 12", 'C'), // starts past the end
        (buffer, "0 1 2 8 12", 'A'),
        (buffer, "3 0 1 8 12", 'C'), // no such buffer
        (splice, "0 0 2 16 3", 'A'),
        (splice, "0 99 0 16 3", 'A'),
        (splice, "0 1 1 16 3", 'C'), // in the middle
        (splice, "7 0 0 16 3", 'C'), // not a body
        (splice, "0 0 2 16 -1", 'G'),
        (set, "16 1 17 1 0", 'A'),
        (set, "18 1 17 1 7", 'I'), // there with another value
        (enter, "2", 'A'),
        (enter, "77", 'C'),
        (define, "0 16 1 8", 'A'),
        (define, "2 16 1 8", 'C'), // a histogram
        (define, "0 16 1 -2", 'G'),
        (reply, "403 16 1 17 1 0 0 -1", 'A'),
        (reply, "70000 16 1 17 1 0 0 -1", 'C'),
        (reply, "403 16 1 17 1 16 3 -1", 'C'), // not a header map
    ] {
        let push: String =
            arguments.split(' ').map(|argument| format!("(i32.const {argument}) ")).collect();
        let body = format!("(call $say (call $f {push}))");
        let data = r#"(data (i32.const 16) "pqr") (data (i32.const 24) "\ff\fe")"#;
        let request = host();
        request.show("p", "value");
        request.request_body.push("body");
        request.request_body.arrive();
        request.store().set_shared_data("r", b"1", 0).unwrap();
        let said = ask(&source(import, &body, data), request);
        assert_eq!(said, (status.to_string(), Ok(Action::Continue)), "{import} {arguments}");
    }
    let by = |by| format!("(call $say (call $f (i32.const 5) (i64.const {by})))");
    assert_eq!(ask(&source(metric, &by(1), ""), host()).0, "B");
    assert_eq!(ask(&source(metric, &by(-1), ""), host()).0, "C");
}

#[test]
fn bytes_are_returned_in_memory_that_the_module_allocates() {
    let get =
        r#"(import "env" "proxy_get_property" (func $f (param i32 i32 i32 i32) (result i32)))"#;
    let body = "(drop (call $f (i32.const 16) (i32.const 1) (i32.const 8) (i32.const 12)))
        (drop (call $log (i32.const 3) (i32.load (i32.const 8)) (i32.load (i32.const 12))))";
    let text = source(get, body, r#"(data (i32.const 16) "p")"#);
    let request = host();
    request.show("p", "the value");
    assert_eq!(ask(&text, request).0, "the value");
    for nowhere in ["(i32.const 0)", "(i32.const 65530)", "(i32.const -1)"] {
        let lost = text.replacen("(global.get $free)", nowhere, 1);
        let lost = lost.replace("(drop (call $f ", "(call $say (call $f ");
        let request = host();
        request.show("p", "the value");
        assert!(ask(&lost, request).0.starts_with('G'), "{nowhere}");
    }
}

#[test]
fn the_calls_of_the_standard_library_exist() {
    let sizes = r#"(import "wasi_snapshot_preview1" "environ_sizes_get"
            (func $sizes (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_get" (func $get (param i32 i32) (result i32)))"#;
    let body = "(drop (call $sizes (i32.const 8) (i32.const 12)))
        (call $say (i32.load (i32.const 8)))
        (drop (call $get (i32.const 32) (i32.const 64)))
        (drop (call $log (i32.const 2) (i32.load (i32.const 36)) (i32.const 7)))
        (drop (call $log (i32.const 2) (i32.load (i32.const 32)) (i32.load (i32.const 12))))
        (call $say (call $get (i32.const -4) (i32.const 64)))";
    let (said, _) = ask(&source(sizes, body, ""), host());
    assert_eq!(said, "COTHER=2NAME=value\0OTHER=2\0V", "two variables, then a bad address");

    let write = r#"(import "wasi_snapshot_preview1" "fd_write"
        (func $write (param i32 i32 i32 i32) (result i32)))"#;
    let call = |file: &str, parts: &str| {
        format!(
            "(call $say (call $write (i32.const {file}) (i32.const 32) (i32.const {parts}) (i32.const 8)))"
        )
    };
    let data = r#"(data (i32.const 16) "why") (data (i32.const 32) "\10\00\00\00\03\00\00\00")"#;
    assert_eq!(ask(&source(write, &call("2", "1"), data), host()).0, "whyA");
    assert_eq!(ask(&source(write, &call("5", "1"), data), host()).0, "I", "no such file");
    assert_eq!(ask(&source(write, &call("2", "-1"), data), host()).0, "V", "no such parts");

    let exit = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;
    let (_, done) = ask(&source(exit, "(call $exit (i32.const 3))", ""), host());
    says(&done.unwrap_err(), "exited with code 3");
}

// === workers ===

fn setup() -> Arc<Setup> {
    let store = MemoryStore::new(Rules::Envoy);
    Arc::new(Setup { configuration: b"{}".to_vec(), environment: Vec::new(), store })
}

/// A module that traps on a request with property `p`, counts VMs in shared data, and logs when it starts.
fn fragile() -> String {
    source(
        r#"(import "env" "proxy_get_property" (func $get (param i32 i32 i32 i32) (result i32)))"#,
        "(if (i32.eqz (call $get (i32.const 16) (i32.const 1) (i32.const 8) (i32.const 12)))
            (then (drop (call $log (i32.const 4) (i32.const 17) (i32.const 4))) (unreachable)))",
        r#"(func (export "proxy_on_configure") (param i32 i32) (result i32)
            (drop (call $log (i32.const 2) (i32.const 17) (i32.const 4)))
            (i32.const 1))
        (data (i32.const 16) "plast")"#,
    )
}

#[test]
fn after_a_failure_the_next_request_gets_a_new_vm() {
    let setup = setup();
    let mut worker = Worker::start(compile(&fragile()).unwrap(), Arc::clone(&setup), 7).unwrap();
    assert_eq!(worker.take_log(), [(Level::Info, "last".to_owned())]);
    let Opened::Forwarded(first) = worker.open(host()).unwrap() else { panic!("held") };
    let bad = host();
    bad.show("p", "value");
    says(&worker.open(bad).unwrap_err(), "unreachable");
    // The open request is lost with its VM; the new VM does not know it.
    assert!(worker.close(first, &Response::default()).unwrap().is_none());
    assert_eq!(worker.take_log(), [(Level::Info, "last".to_owned())], "a VM was started");
    let Opened::Forwarded(next) = worker.open(host()).unwrap() else { panic!("held") };
    let response = Response { status: Some(200), bytes: Some(3), now_ns: 9, ..Response::default() };
    let ended = worker.close(next, &response).unwrap().unwrap();
    assert_eq!((ended.host.status.get(), ended.withheld), (Some(200), false));
    assert_eq!(worker.take_log(), [], "and only that");
}

#[test]
fn a_request_that_is_paused_at_its_end_is_not_forwarded() {
    let held = source("", "(return (i32.const 1))", "");
    let mut worker = Worker::start(compile(&held).unwrap(), setup(), 0).unwrap();
    assert!(matches!(worker.open(host()), Ok(Opened::Held(_))));
    // A module that waits for the body decides when it has it.
    let body = r#"(func (export "proxy_on_request_body") (param i32 i32 i32) (result i32)
        (i32.ne (local.get 1) (i32.const 4)))"#;
    let wants_body = source("", "(return (i32.const 1))", body);
    let mut worker = Worker::start(compile(&wants_body).unwrap(), setup(), 0).unwrap();
    let with_body = |text: &str| {
        let request = host();
        request.request_body.push(text);
        request
    };
    assert!(matches!(worker.open(with_body("good")), Ok(Opened::Forwarded(_))));
    assert!(matches!(worker.open(with_body("other")), Ok(Opened::Held(_))));
}

#[test]
fn a_worker_does_not_start_with_a_rejected_configuration() {
    let refusing =
        fragile().replace("(i32.const 1))\n        (data", "(i32.const 0))\n        (data");
    assert_ne!(refusing, fragile());
    match Worker::start(compile(&refusing).unwrap(), setup(), 0) {
        Err(StartError::Refused(log)) => assert_eq!(log, [(Level::Info, "last".to_owned())]),
        other => panic!("{:?}", other.err()),
    }
    let trapping = source(
        "",
        "",
        r#"(func (export "proxy_on_vm_start") (param i32 i32) (result i32) (unreachable))"#,
    );
    let failed = Worker::start(compile(&trapping).unwrap(), setup(), 0);
    assert!(matches!(failed, Err(StartError::Failed(Failure::Trap(_)))));
}
