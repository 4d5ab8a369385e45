//! The built module and a host that calls it back in every order, also from inside a host call.
//!
//! Envoy has called `proxy_on_response_headers` for a context that the module did not know (proxy-wasm-rust-sdk, issue
//! 304), and hosts have called back from inside a host call (issues 43, 70 and 255). The SDK's dispatcher traps: these
//! tests fail if `VKEY_TEST_WASM` names a module that exports the SDK's callbacks, like that of `make build-noop`.

use std::sync::LazyLock;

use wasmtime::{Caller, Engine, Extern, Instance, Linker, Module, Store};

const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;
const NOT_READY: u32 = 503;
const ROOT: u32 = 1;

/// A callback: its name behind `proxy_on_`, and its arguments.
type Callback = (&'static str, &'static [u32]);

#[derive(Default)]
struct State {
    configuration: &'static [u8],
    now_ns: u64,
    replies: Vec<u32>,
    /// What the host calls back when it is asked to send a reply or to set the period of the tick.
    inside: Vec<Callback>,
    /// What came of that.
    actions: Vec<Option<u32>>,
}

struct Host {
    store: Store<State>,
    instance: Instance,
}

static MODULE: LazyLock<Module> = LazyLock::new(|| {
    let path =
        std::env::var_os("VKEY_TEST_WASM").expect("VKEY_TEST_WASM is not set: run `make test`");
    Module::from_file(&Engine::default(), path).unwrap()
});

fn call(
    store: &mut impl wasmtime::AsContextMut,
    export: Option<Extern>,
    arguments: &[u32],
) -> wasmtime::Result<Option<u32>> {
    let callback = export.and_then(Extern::into_func).expect("a callback");
    let arguments: Vec<_> = arguments.iter().map(|n| n.cast_signed().into()).collect();
    let mut results = vec![wasmtime::Val::I32(0); callback.ty(&*store).results().len()];
    callback.call(&mut *store, &arguments, &mut results)?;
    Ok(results.first().and_then(wasmtime::Val::i32).map(i32::cast_unsigned))
}

fn send_reply(mut host: Caller<'_, State>, status: u32) {
    host.data_mut().replies.push(status);
    call_back(host);
}

fn call_back(mut host: Caller<'_, State>) {
    for (name, arguments) in std::mem::take(&mut host.data_mut().inside) {
        let export = host.get_export(&format!("proxy_on_{name}"));
        let action = call(&mut host, export, arguments).unwrap();
        host.data_mut().actions.push(action);
    }
}

fn write(host: &mut Caller<'_, State>, at: u32, bytes: &[u8]) {
    let memory = host.get_export("memory").and_then(Extern::into_memory).unwrap();
    memory.write(host, at as usize, bytes).unwrap();
}

fn get_configuration(mut host: Caller<'_, State>, data: u32, len: u32) {
    let text = host.data().configuration;
    let size = u32::try_from(text.len()).unwrap();
    let allocate = host.get_export("proxy_on_memory_allocate");
    let at = call(&mut host, allocate, &[size]).unwrap().unwrap();
    write(&mut host, at, text);
    write(&mut host, data, &at.to_le_bytes());
    write(&mut host, len, &size.to_le_bytes());
}

impl Host {
    /// A host that grants every host call and has nothing to show, with a root context without a configuration.
    fn start() -> Self {
        Self::configured(b"")
    }

    fn configured(configuration: &'static [u8]) -> Self {
        let state = State { configuration, ..State::default() };
        let mut store = Store::new(MODULE.engine(), state);
        let mut linker = Linker::new(MODULE.engine());
        let reply = |host: Caller<'_, State>,
                     status,
                     _: u32,
                     _: u32,
                     _: u32,
                     _: u32,
                     _: u32,
                     _: u32,
                     _: u32| {
            send_reply(host, status);
            0_u32
        };
        linker.func_wrap("env", "proxy_send_local_response", reply).unwrap();
        let buffer = |host: Caller<'_, State>, _: u32, _: u32, _: u32, data, len| {
            get_configuration(host, data, len);
            0_u32
        };
        linker.func_wrap("env", "proxy_get_buffer_bytes", buffer).unwrap();
        let time = |mut host: Caller<'_, State>, at| {
            let now_ns = host.data().now_ns;
            write(&mut host, at, &now_ns.to_le_bytes());
            0_u32
        };
        linker.func_wrap("env", "proxy_get_current_time_nanoseconds", time).unwrap();
        let set_tick = |host: Caller<'_, State>, _: u32| {
            call_back(host);
            0_u32
        };
        linker.func_wrap("env", "proxy_set_tick_period_milliseconds", set_tick).unwrap();
        linker.define_unknown_imports_as_default_values(&mut store, &MODULE).unwrap();
        let instance = linker.instantiate(&mut store, &MODULE).unwrap();
        let mut host = Self { store, instance };
        let initialize = host.instance.get_export(&mut host.store, "_initialize");
        call(&mut host.store, initialize, &[]).unwrap();
        host.on("context_create", &[ROOT, 0]);
        assert_eq!(host.on("configure", &[ROOT, 0]), Some(1));
        host
    }

    #[track_caller]
    fn on(&mut self, name: &str, arguments: &[u32]) -> Option<u32> {
        let export = self.instance.get_export(&mut self.store, &format!("proxy_on_{name}"));
        let done = call(&mut self.store, export, arguments);
        done.unwrap_or_else(|trap| panic!("{name} {arguments:?}: {trap:?}"))
    }

    fn replies(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.store.data_mut().replies)
    }
}

#[test]
fn a_context_that_the_host_did_not_announce_is_refused() {
    for first in
        ["request_headers", "request_body", "request_trailers", "response_headers", "log", "delete"]
    {
        let mut host = Host::start();
        let arguments: &[u32] = match first {
            "log" | "delete" => &[7],
            "request_trailers" => &[7, 0],
            _ => &[7, 0, 0],
        };
        let action = host.on(first, arguments);
        // What it may hold, it holds. A response to what was never forwarded is the host's own.
        let expected = match first {
            "log" | "delete" => None,
            "response_headers" => Some(CONTINUE),
            _ => Some(PAUSE),
        };
        assert_eq!(action, expected, "{first}");
        host.replies();
        if first != "log" {
            assert_eq!(host.on("request_headers", &[7, 0, 1]), Some(PAUSE), "{first}");
            assert_eq!(host.replies(), [NOT_READY], "{first}");
        }
        host.on("log", &[7]);
        host.on("delete", &[7]);
        host.on("delete", &[7]);
    }
}

#[test]
fn a_root_context_that_the_host_did_not_announce_is_one() {
    let mut host = Host::start();
    host.on("tick", &[77]);
    assert_eq!(host.on("vm_start", &[78, 0]), Some(1));
    assert_eq!(host.on("configure", &[79, 0]), Some(1));
    // And so is one that is gone, and one that there never was.
    host.on("delete", &[ROOT]);
    for (id, root) in [(2, ROOT), (3, 79), (4, 80)] {
        host.on("context_create", &[id, root]);
        assert_eq!(host.on("request_headers", &[id, 0, 1]), Some(PAUSE));
        assert_eq!(host.replies(), [NOT_READY]);
        host.on("log", &[id]);
        host.on("delete", &[id]);
    }
}

#[test]
fn a_context_may_be_announced_twice_and_have_the_id_of_a_root() {
    let mut host = Host::start();
    host.on("context_create", &[ROOT, 0]);
    for id in [ROOT, 2] {
        host.on("context_create", &[id, ROOT]);
        assert_eq!(host.on("request_headers", &[id, 0, 1]), Some(PAUSE));
        host.on("context_create", &[id, ROOT]);
        assert_eq!(host.on("request_headers", &[id, 0, 1]), Some(PAUSE));
        assert_eq!(host.replies(), [NOT_READY; 2]);
        host.on("delete", &[id]);
    }
    assert_eq!(host.on("configure", &[ROOT, 0]), Some(1));
}

#[test]
fn a_host_may_call_back_from_inside_a_host_call() {
    let mut host = Host::start();
    host.on("context_create", &[2, ROOT]);
    host.store.data_mut().inside = vec![
        ("request_body", &[2, 9, 1]),
        ("request_headers", &[2, 0, 1]),
        ("response_headers", &[2, 0, 0]),
        ("context_create", &[3, ROOT]),
        ("request_headers", &[3, 0, 1]),
        ("tick", &[ROOT]),
        ("log", &[3]),
        ("delete", &[3]),
        ("log", &[2]),
        ("delete", &[2]),
        ("delete", &[ROOT]),
    ];
    assert_eq!(host.on("request_headers", &[2, 0, 1]), Some(PAUSE));
    let held = Some(PAUSE);
    let none = None;
    let actions = std::mem::take(&mut host.store.data_mut().actions);
    assert_eq!(actions, [held, held, held, none, held, none, none, none, none, none, none]);
    assert_eq!(host.replies(), [NOT_READY; 2], "one for each context");
    assert_eq!(host.on("request_body", &[2, 9, 1]), Some(PAUSE), "it is gone");
}

const UPSTREAM_GATE: &[u8] = br#"{"role": "upstream_tls", "host": "bare", "deadline": "1s"}"#;

#[test]
fn an_attempt_that_is_announced_again_while_it_is_called_waits_no_longer_than_it_may() {
    let mut host = Host::configured(UPSTREAM_GATE);
    host.on("context_create", &[2, ROOT]);
    host.store.data_mut().inside =
        vec![("context_create", &[2, ROOT]), ("request_headers", &[2, 0, 1])];
    assert_eq!(host.on("request_headers", &[2, 0, 1]), Some(PAUSE));
    assert_eq!(host.store.data_mut().actions, [None, Some(PAUSE)]);
    host.store.data_mut().now_ns = 1_000_000_000;
    host.on("tick", &[ROOT]);
    assert_eq!(host.replies(), [502]);
}

#[test]
fn an_attempt_that_was_announced_twice_waits_no_longer_than_it_may() {
    let mut host = Host::configured(UPSTREAM_GATE);
    for _ in 0..2 {
        host.on("context_create", &[2, ROOT]);
        assert_eq!(host.on("request_headers", &[2, 0, 1]), Some(PAUSE));
        host.on("tick", &[ROOT]);
        assert_eq!(host.replies(), [0; 0]);
    }
    host.store.data_mut().now_ns = 1_000_000_000;
    host.on("tick", &[ROOT]);
    assert_eq!(host.replies(), [502]);
    host.on("tick", &[ROOT]);
    assert_eq!(host.replies(), [0; 0]);
    host.on("delete", &[2]);
}
