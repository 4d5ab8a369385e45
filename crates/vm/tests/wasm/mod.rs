//! The built module in the embedded host.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use vkey::host::{Action, MemoryHost, MemoryStore, Rules};
use vkey::key::keyring::{Ring, RingState, Secret};
use vkey::key::token::mint;
use vkey_vm::{ContextId, Limits, Module, Precompiled, Vm};

use crate::scenario::Log;
use crate::scenario::memory::{Callbacks, Request};
use crate::scenario::text::env_value;

/// A worker.
pub(crate) struct Wasm {
    vm: Vm,
}

struct WasmRequest<'a> {
    vm: &'a mut Vm,
    id: ContextId,
}

/// A module that `make module` compiled for the command.
fn load(name: &str) -> Module {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(name);
    let code = fs::read(&path).unwrap_or_else(|error| panic!("{name}: {error}: run `make module`"));
    // SAFETY: only `precompile` writes these files.
    let precompiled = unsafe { Precompiled::new(Vec::leak(code)) };
    let loaded = Module::load(precompiled, Limits::default());
    loaded.unwrap_or_else(|error| panic!("{name}: {error}: run `make module`"))
}

fn module(rules: Rules) -> &'static Module {
    static PLAIN: LazyLock<Module> = LazyLock::new(|| load("vkey.cwasm"));
    static NGINX: LazyLock<Module> = LazyLock::new(|| load("vkey-nginx.cwasm"));
    if rules == Rules::Nginx { &NGINX } else { &PLAIN }
}

/// A request with a valid key on nginx, with the module that is for other hosts.
pub(crate) fn wrong_module_on_nginx() -> (Vm, ContextId) {
    let host = || MemoryHost::new(MemoryStore::new(Rules::Nginx));
    let secret = env_value("@secret:main");
    let mut vm =
        Vm::start(module(Rules::Envoy), host(), &[("S".to_owned(), secret.clone())]).unwrap();
    assert!(vm.configure(br#"{"keyring": [{"name": "main", "secret": "${S}"}]}"#).unwrap());
    let ring =
        Ring::new("main", &Secret::parse(&secret).unwrap(), RingState::Active, None).unwrap();
    let kid = ring.kid_at(0).unwrap();
    let claims = br#"{"jti":"k","tenant":"acme","iat":0,"exp":4000000000}"#;
    let token = mint(&ring.signing_key(&kid).unwrap(), &kid, claims);
    let request = host();
    let header = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    request.headers.replace(Some(vec![
        header(":method", "GET"),
        header(":path", "/v1"),
        header(":authority", "gw.example"),
        header("authorization", &format!("Bearer {token}")),
    ]));
    let id = vm.open(request).unwrap();
    (vm, id)
}

fn number(bytes: u64) -> u32 {
    u32::try_from(bytes).expect("a size that fits a callback")
}

impl Callbacks for Wasm {
    fn configure(
        config: &[u8],
        env: &BTreeMap<String, String>,
        host: MemoryHost,
    ) -> (Self, bool, Log) {
        let env: Vec<_> = env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let module = module(host.store().rules());
        let mut vm = Vm::start(module, host, &env).unwrap();
        let accepted = vm.configure(config).unwrap();
        let log = vm.root().unwrap().log.take();
        (Self { vm }, accepted, log)
    }

    fn with_request<T>(
        &mut self,
        host: MemoryHost,
        act: impl FnOnce(&mut dyn Request) -> T,
    ) -> (T, MemoryHost) {
        let id = self.vm.open(host).unwrap();
        let done = act(&mut WasmRequest { vm: &mut self.vm, id });
        (done, self.vm.close(id).unwrap().expect("a context that is open"))
    }
}

impl Request for WasmRequest<'_> {
    fn host(&self) -> &MemoryHost {
        self.vm.host(self.id).expect("a context that is open")
    }

    fn on_headers(&mut self, is_whole: bool) -> Action {
        self.vm.on_request_headers(self.id, is_whole).unwrap()
    }

    fn on_body(&mut self, bytes: u64, is_last: bool) -> Action {
        self.vm.on_request_body(self.id, number(bytes), is_last).unwrap()
    }

    fn on_trailers(&mut self) -> Action {
        self.vm.on_request_trailers(self.id).unwrap()
    }

    fn on_response_headers(&mut self) -> Action {
        self.vm.on_response_headers(self.id).unwrap()
    }

    fn on_response_body(&mut self, bytes: u64, is_last: bool) -> Action {
        self.vm.on_response_body(self.id, number(bytes), is_last).unwrap()
    }

    fn on_tick(&mut self) {
        self.vm.on_tick().unwrap();
    }

    fn on_log(&mut self) {
        self.vm.on_log(self.id).unwrap();
    }
}
