//! The built module, in the embedded host.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::sync::OnceLock;

use vkey::host::{Action, MemoryHost, MemoryStore, Rules};
use vkey::key::keyring::{Ring, RingState, Secret};
use vkey::key::token::mint;
use vkey::vm::{BuiltIn, ContextId, Limits, Module, Precompiled, Vm};

use crate::scenario::Log;
use crate::scenario::memory::{Callbacks, Request};
use crate::scenario::text::env_value;

/// The modules that the command carries.
// SAFETY: the files are written by `precompile` alone, or empty.
const MODULES: BuiltIn = unsafe {
    BuiltIn {
        module: Precompiled::new(include_bytes!(env!("VKEY_MODULE"))),
        nginx: Precompiled::new(include_bytes!(env!("VKEY_NGINX_MODULE"))),
    }
};

/// A worker.
pub(crate) struct Wasm {
    vm: Vm,
}

struct WasmRequest<'a> {
    vm: &'a mut Vm,
    id: ContextId,
}

fn module(rules: Rules) -> &'static Module {
    static LOADED: [OnceLock<Module>; 2] = [const { OnceLock::new() }; 2];
    let [plain, nginx] = &LOADED;
    let loaded = if rules == Rules::Nginx { nginx } else { plain };
    let load = || Module::load(MODULES.of(rules), Limits::default());
    loaded.get_or_init(|| load().unwrap_or_else(|unusable| panic!("{unusable}: run `make test`")))
}

/// A request of a good key on nginx, which has loaded the module that is for other hosts.
pub(crate) fn wrong_module_on_nginx() -> (Vm, ContextId) {
    let module = Module::load(MODULES.module, Limits::default()).unwrap();
    let host = || MemoryHost::new(MemoryStore::new(Rules::Nginx));
    let secret = env_value("@secret:main");
    let mut vm = Vm::start(&module, host(), &[("S".to_owned(), secret.clone())]).unwrap();
    assert!(vm.configure(br#"{"keyring": [{"name": "main", "secret": "${S}"}]}"#).unwrap());
    let ring =
        Ring::new("main", &Secret::parse(&secret).unwrap(), RingState::Active, None).unwrap();
    let kid = ring.kid_at(0).unwrap();
    let claims = br#"{"jti":"k","tenant":"acme","iat":0,"exp":4000000000}"#;
    let token = mint(&ring.signing_key(&kid), &kid, claims);
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

    fn on_headers(&mut self) -> Action {
        self.vm.on_request_headers(self.id, false).unwrap()
    }

    fn on_body(&mut self, bytes: u64) -> Action {
        let bytes = u32::try_from(bytes).expect("a size that fits a callback");
        self.vm.on_request_body(self.id, bytes, false).unwrap()
    }

    fn on_trailers(&mut self) -> Action {
        self.vm.on_request_trailers(self.id).unwrap()
    }

    fn on_response_headers(&mut self) -> Action {
        self.vm.on_response_headers(self.id).unwrap()
    }

    fn on_response_body(&mut self) {
        self.vm.on_response_body(self.id, 0).unwrap();
    }

    fn on_log(&mut self) {
        self.vm.on_log(self.id).unwrap();
    }
}
