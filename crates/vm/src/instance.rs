//! A VM: one instance of a module, and its callbacks.

use std::cell::RefCell;
use std::fmt;
use std::time::Duration;

use wasmtime::{Instance, Store, Trap, TypedFunc, WasmParams, WasmResults};

use vkey::host::{Action, HeaderList, MemoryHost, Rules};

use super::module::Module;
use super::state::State;

/// The context id of the root context. A VM has one plugin.
const ROOT: u32 = 1;

/// The key of the root context's host under nginx. nginx numbers root contexts (by a checksum) and requests
/// (from 1) separately, so a request may have the id of the root context; the first one here does.
const NGINX_ROOT: u32 = 0;

/// `proxy_action_t`: continue.
const CONTINUE: u32 = 0;

/// One instance of a module. After a failure, every callback returns that failure.
pub struct Vm {
    store: Store<State>,
    callbacks: Callbacks,
    deadline: Duration,
    deadline_ticks: u64,
    /// Whether several callbacks share one deadline.
    shared_deadline: bool,
    /// The key of the root context's host.
    root: u32,
    last_context: u32,
    failure: Option<Failure>,
}

/// The context of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContextId(u32);

/// Why a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A callback exceeded the deadline.
    Deadline(Duration),
    /// The module was refused memory, and trapped.
    Memory,
    /// An export is missing, or has another signature.
    Exports(String),
    /// The module trapped.
    Trap(String),
}

/// The callbacks that the module exports. Others are not called.
struct Callbacks {
    context_create: Option<TypedFunc<(u32, u32), ()>>,
    vm_start: Option<TypedFunc<(u32, u32), u32>>,
    configure: Option<TypedFunc<(u32, u32), u32>>,
    request_headers: Option<TypedFunc<(u32, u32, u32), u32>>,
    request_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    request_trailers: Option<TypedFunc<(u32, u32), u32>>,
    response_headers: Option<TypedFunc<(u32, u32, u32), u32>>,
    response_body: Option<TypedFunc<(u32, u32, u32), u32>>,
    done: Option<TypedFunc<u32, u32>>,
    tick: Option<TypedFunc<u32, ()>>,
    log: Option<TypedFunc<u32, ()>>,
    delete: Option<TypedFunc<u32, ()>>,
}

// === impl Vm ===

impl Vm {
    /// Starts a VM. `root` handles the host calls of the root context; `environment` is all that the module
    /// sees of one.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the module does not start.
    pub fn start(
        module: &Module,
        root: MemoryHost,
        environment: &[(String, String)],
    ) -> Result<Self, Failure> {
        let limits = module.limits;
        let state = State::new(environment, limits.memory_bytes);
        let mut store = Store::new(module.instance.module().engine(), state);
        store.limiter(|state| state);
        store.set_epoch_deadline(limits.ticks());
        let id = if root.store().rules() == Rules::Nginx { NGINX_ROOT } else { ROOT };
        store.data_mut().hosts.insert(id, root);
        store.data_mut().current = id;
        let failure = |store: &Store<State>, error| Failure::of(store, error, limits.deadline);
        let instance = module.instance.instantiate(&mut store);
        let instance = instance.map_err(|error| failure(&store, error))?;
        let callbacks = Callbacks::find(&mut store, instance)?;
        let mut vm = Self {
            store,
            callbacks,
            deadline: limits.deadline,
            deadline_ticks: limits.ticks(),
            shared_deadline: false,
            root: id,
            last_context: id,
            failure: None,
        };
        let initialize = optional::<(), ()>(&mut vm.store, instance, "_initialize")?;
        vm.call(id, initialize, (), ())?;
        vm.call(id, vm.callbacks.context_create.clone(), (ROOT, 0), ())?;
        vm.call(id, vm.callbacks.vm_start.clone(), (ROOT, 0), 1)?;
        Ok(vm)
    }

    /// Passes a configuration to the module; `false` if the module rejects it.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the VM has failed, now or before. The same holds for every callback.
    pub fn configure(&mut self, configuration: &[u8]) -> Result<bool, Failure> {
        self.store.data_mut().configuration = configuration.to_vec();
        let len = u32::try_from(configuration.len()).unwrap_or(u32::MAX);
        let accepted = self.call(self.root, self.callbacks.configure.clone(), (ROOT, len), 1)?;
        Ok(accepted != 0)
    }

    /// The memory of the module, in bytes. It never shrinks.
    pub fn memory_bytes(&self) -> usize {
        self.store.data().guest.as_ref().map_or(0, |(memory, _)| memory.data_size(&self.store))
    }

    /// Runs several callbacks under one shared deadline.
    pub fn within_one_deadline<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> T {
        self.store.set_epoch_deadline(self.deadline_ticks);
        self.shared_deadline = true;
        let done = act(self);
        self.shared_deadline = false;
        done
    }

    /// Opens a context for a request. `host` handles its host calls.
    ///
    /// # Errors
    ///
    /// [`Failure`]
    pub fn open(&mut self, host: MemoryHost) -> Result<ContextId, Failure> {
        self.last_context = self.last_context.wrapping_add(1).max(self.root + 1);
        let id = self.last_context;
        self.store.data_mut().hosts.insert(id, host);
        self.call(id, self.callbacks.context_create.clone(), (id, ROOT), ())?;
        Ok(ContextId(id))
    }

    /// Passes the request headers.
    ///
    /// # Errors
    ///
    /// [`Failure`]
    pub fn on_request_headers(
        &mut self,
        ContextId(id): ContextId,
        end_of_stream: bool,
    ) -> Result<Action, Failure> {
        let count = self.count(id, |host| &host.headers);
        let callback = self.callbacks.request_headers.clone();
        self.call(id, callback, (id, count, end_of_stream.into()), CONTINUE).map(action)
    }

    /// Announces `bytes` more bytes of the request body.
    ///
    /// # Errors
    ///
    /// [`Failure`]
    pub fn on_request_body(
        &mut self,
        ContextId(id): ContextId,
        bytes: u32,
        end_of_stream: bool,
    ) -> Result<Action, Failure> {
        let callback = self.callbacks.request_body.clone();
        self.call(id, callback, (id, bytes, end_of_stream.into()), CONTINUE).map(action)
    }

    /// Passes the request trailers, which end the request.
    ///
    /// # Errors
    ///
    /// [`Failure`]
    pub fn on_request_trailers(&mut self, ContextId(id): ContextId) -> Result<Action, Failure> {
        let count = self.count(id, |host| &host.trailers);
        let callback = self.callbacks.request_trailers.clone();
        self.call(id, callback, (id, count), CONTINUE).map(action)
    }

    /// Passes the response headers.
    ///
    /// # Errors
    ///
    /// [`Failure`]
    pub fn on_response_headers(&mut self, ContextId(id): ContextId) -> Result<Action, Failure> {
        let callback = self.callbacks.response_headers.clone();
        self.call(id, callback, (id, 0, 0), CONTINUE).map(action)
    }

    /// Announces `bytes` more bytes of the response body.
    ///
    /// # Errors
    ///
    /// [`Failure`]
    pub fn on_response_body(
        &mut self,
        ContextId(id): ContextId,
        bytes: u32,
        end_of_stream: bool,
    ) -> Result<Action, Failure> {
        let callback = self.callbacks.response_body.clone();
        let callback = self.unchecked(id, callback, "proxy_on_response_body")?;
        self.call(id, callback, (id, bytes, end_of_stream.into()), CONTINUE).map(action)
    }

    /// Reports the end of the request, and calls the log callback.
    ///
    /// # Errors
    ///
    /// [`Failure`]
    pub fn on_log(&mut self, ContextId(id): ContextId) -> Result<(), Failure> {
        let callback = self.callbacks.done.clone();
        let callback = self.unchecked(id, callback, "proxy_on_done")?;
        self.call(id, callback, id, 1)?;
        self.call(id, self.callbacks.log.clone(), id, ())
    }

    /// Calls the tick callback of the root context.
    ///
    /// # Errors
    ///
    /// [`Failure`]
    pub fn on_tick(&mut self) -> Result<(), Failure> {
        self.call(self.root, self.callbacks.tick.clone(), ROOT, ())
    }

    /// Closes a context and returns its host.
    ///
    /// # Errors
    ///
    /// [`Failure`]
    pub fn close(&mut self, ContextId(id): ContextId) -> Result<Option<MemoryHost>, Failure> {
        self.call(id, self.callbacks.delete.clone(), id, ())?;
        Ok(self.store.data_mut().hosts.remove(&id))
    }

    /// The host of an open context.
    pub fn host(&self, ContextId(id): ContextId) -> Option<&MemoryHost> {
        self.store.data().hosts.get(&id)
    }

    /// The host of the root context.
    pub fn root(&self) -> Option<&MemoryHost> {
        self.host(ContextId(self.root))
    }

    /// A callback that nginx calls without checking that it exists, which crashes the worker if it does not.
    fn unchecked<F>(
        &mut self,
        id: u32,
        callback: Option<F>,
        name: &str,
    ) -> Result<Option<F>, Failure> {
        let rules = self.host(ContextId(id)).map(|host| host.store().rules());
        if callback.is_some() || rules != Some(Rules::Nginx) {
            return Ok(callback);
        }
        let failure = Failure::Exports(format!("no {name}, which nginx calls without checking"));
        Err(self.failure.insert(failure).clone())
    }

    /// The number of headers or trailers of a context.
    fn count(&self, id: u32, map: fn(&MemoryHost) -> &RefCell<Option<HeaderList>>) -> u32 {
        let len =
            self.host(ContextId(id)).and_then(|host| Some(map(host).borrow().as_ref()?.len()));
        u32::try_from(len.unwrap_or(0)).unwrap_or(u32::MAX)
    }

    /// Calls a callback for a context. Without the callback, the result is `default`.
    fn call<P: WasmParams, R: WasmResults>(
        &mut self,
        context: u32,
        callback: Option<TypedFunc<P, R>>,
        params: P,
        default: R,
    ) -> Result<R, Failure> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let Some(callback) = callback else {
            return Ok(default);
        };
        let state = self.store.data_mut();
        (state.current, state.wanted_more_memory) = (context, false);
        if !self.shared_deadline {
            self.store.set_epoch_deadline(self.deadline_ticks);
        }
        let called = callback.call(&mut self.store, params);
        let crash = self.store.data().host().and_then(|host| host.crashed.get());
        let failed = match (crash, called) {
            (None, Ok(result)) => return Ok(result),
            (Some(crash), _) => Failure::Trap(crash.to_owned()),
            (None, Err(error)) => Failure::of(&self.store, error, self.deadline),
        };
        Err(self.failure.insert(failed).clone())
    }
}

fn action(number: u32) -> Action {
    if number == CONTINUE { Action::Continue } else { Action::Pause }
}

// === impl Callbacks ===

impl Callbacks {
    fn find(store: &mut Store<State>, instance: Instance) -> Result<Self, Failure> {
        let memory = instance.get_memory(&mut *store, "memory");
        let memory = memory.ok_or_else(|| Failure::Exports("no memory".to_owned()))?;
        let allocate = optional(store, instance, "proxy_on_memory_allocate")?;
        let allocate =
            allocate.ok_or_else(|| Failure::Exports("no proxy_on_memory_allocate".to_owned()))?;
        store.data_mut().guest = Some((memory, allocate));
        Ok(Self {
            context_create: optional(store, instance, "proxy_on_context_create")?,
            vm_start: optional(store, instance, "proxy_on_vm_start")?,
            configure: optional(store, instance, "proxy_on_configure")?,
            request_headers: optional(store, instance, "proxy_on_request_headers")?,
            request_body: optional(store, instance, "proxy_on_request_body")?,
            request_trailers: optional(store, instance, "proxy_on_request_trailers")?,
            response_headers: optional(store, instance, "proxy_on_response_headers")?,
            response_body: optional(store, instance, "proxy_on_response_body")?,
            done: optional(store, instance, "proxy_on_done")?,
            tick: optional(store, instance, "proxy_on_tick")?,
            log: optional(store, instance, "proxy_on_log")?,
            delete: optional(store, instance, "proxy_on_delete")?,
        })
    }
}

/// The export of that name, if there is one. Its signature must be that of the ABI.
fn optional<P: WasmParams, R: WasmResults>(
    store: &mut Store<State>,
    instance: Instance,
    name: &str,
) -> Result<Option<TypedFunc<P, R>>, Failure> {
    let found = instance.get_export(&mut *store, name);
    let function = found.and_then(wasmtime::Extern::into_func);
    let typed = function.map(|function| function.typed(&*store));
    typed.transpose().map_err(|error| Failure::Exports(format!("{name}: {error:#}")))
}

// === impl Failure ===

impl Failure {
    #[expect(clippy::needless_pass_by_value, reason = "it is what errors are mapped by")]
    fn of(store: &Store<State>, error: wasmtime::Error, deadline: Duration) -> Self {
        if error.downcast_ref() == Some(&Trap::Interrupt) {
            Self::Deadline(deadline)
        } else if store.data().wanted_more_memory {
            Self::Memory
        } else {
            Self::Trap(error.root_cause().to_string())
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline(limit) => write!(f, "the module ran for longer than {limit:?}"),
            Self::Memory => f.write_str("the module wants more memory than it may have"),
            Self::Exports(problem) => write!(f, "the module's exports are unusable: {problem}"),
            Self::Trap(trap) => write!(f, "the module trapped: {trap}"),
        }
    }
}
