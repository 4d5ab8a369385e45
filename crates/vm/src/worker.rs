//! A worker: runs requests through a VM, and replaces the VM after a failure.

use std::fmt;
use std::mem::take;
use std::sync::Arc;

use vkey::host::Level;
use vkey::host::{Action, Arrived, MemoryHost, MemoryStore, Property};

use super::instance::{ContextId, Failure, Vm};
use super::module::Module;

/// What all workers of a host share.
pub struct Setup {
    /// The plugin's configuration.
    pub configuration: Vec<u8>,
    /// The environment variables that the module sees.
    pub environment: Vec<(String, String)>,
    /// The shared data.
    pub store: MemoryStore,
}

/// One worker of a host. It always has a VM, except between a failure and the next request.
pub struct Worker {
    module: Module,
    setup: Arc<Setup>,
    vm: Option<Vm>,
    /// Log lines of the root context, which belong to no request.
    log: Vec<(Level, String)>,
}

/// Why a worker did not start.
#[derive(Clone, Debug)]
pub enum StartError {
    /// The module failed.
    Failed(Failure),
    /// The module rejected the configuration; its log says why.
    Refused(Vec<(Level, String)>),
}

/// The module's decision on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// The request is forwarded.
    Forwarded(ContextId),
    /// The module replied, or paused the request although all of it has arrived.
    Held(ContextId),
}

/// The response to a request.
#[derive(Clone, Debug, Default)]
pub struct Response {
    /// The status, if there was a response.
    pub status: Option<u16>,
    /// The size in bytes, if known.
    pub bytes: Option<u64>,
    /// The upstream's own part of it; `None` if the response is the host's own.
    pub upstream: Option<UpstreamResponse>,
    /// Whether the upstream is no server on a connection, of which the module could check anything.
    pub is_local: bool,
    /// When the response was complete, Unix nanoseconds.
    pub now_ns: u64,
}

/// What an upstream sends.
#[derive(Clone, Debug, Default)]
pub struct UpstreamResponse {
    /// Headers besides the status.
    pub headers: Vec<(String, String)>,
    /// The parts of the body.
    pub body: Vec<Vec<u8>>,
    /// Why the body ends before its end, as a proxy names it (Envoy: response code details); `None` if it does not.
    pub cut: Option<String>,
}

/// A finished request.
pub struct Closed {
    /// Everything that the module did.
    pub host: MemoryHost,
    /// Whether the module withheld the response from the client.
    pub withheld: bool,
}

// === impl Worker ===

impl Worker {
    /// Starts a worker. `now_ns` is the time, Unix nanoseconds.
    ///
    /// # Errors
    ///
    /// [`StartError`] if the module does not start, or rejects the configuration.
    pub fn start(module: Module, setup: Arc<Setup>, now_ns: u64) -> Result<Self, StartError> {
        let mut worker = Self { module, setup, vm: None, log: Vec::new() };
        worker.vm = Some(worker.start_vm(now_ns)?);
        Ok(worker)
    }

    /// Takes the log lines of the root context.
    pub fn take_log(&mut self) -> Vec<(Level, String)> {
        if let Some(root) = self.vm.as_ref().and_then(Vm::root) {
            self.log.append(&mut root.log.borrow_mut());
        }
        take(&mut self.log)
    }

    /// Passes a request to the module: the headers, then the body and the trailers, if there are any.
    ///
    /// # Errors
    ///
    /// [`Failure`] if the module failed: all requests of the VM are lost, and the next one starts a new VM.
    pub fn open(&mut self, host: MemoryHost) -> Result<Opened, Failure> {
        let now_ns = host.now_ns.get().unwrap_or(0);
        self.with(now_ns, |vm| {
            let id = vm.open(host)?;
            let action = vm.pass_request(id)?;
            let forwarded = action == Action::Continue && vm.reply(id).is_none();
            Ok(if forwarded { Opened::Forwarded(id) } else { Opened::Held(id) })
        })
    }

    /// Passes the response to the module, and ends the request.
    ///
    /// # Errors
    ///
    /// [`Failure`] like [`Self::open`]; the request then has no audit line.
    pub fn close(&mut self, id: ContextId, response: &Response) -> Result<Option<Closed>, Failure> {
        self.with(response.now_ns, |vm| {
            let Some(host) = vm.host(id) else {
                return Ok(None);
            };
            response.show(host);
            vm.show_reply(id);
            let withheld = vm.on_response_headers(id)? == Action::Pause;
            vm.pass_response_body(id, response.is_cut())?;
            if let Some(host) = vm.host(id) {
                response.show_end(host);
            }
            vm.show_reply(id);
            vm.on_log(id)?;
            Ok(vm.close(id)?.map(|host| Closed { host, withheld }))
        })
    }

    /// What the module has done so far about an open request.
    pub fn host(&self, id: ContextId) -> Option<&MemoryHost> {
        self.vm.as_ref()?.host(id)
    }

    fn with<T>(
        &mut self,
        now_ns: u64,
        act: impl FnOnce(&mut Vm) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let mut vm = match self.vm.take() {
            Some(vm) => vm,
            None => self.start_vm(now_ns).map_err(StartError::into_failure)?,
        };
        let done = vm.within_one_deadline(act);
        self.vm = Some(vm);
        if done.is_err() {
            // The last log lines tell why.
            self.log = self.take_log();
            self.vm = None;
        }
        done
    }

    fn start_vm(&self, now_ns: u64) -> Result<Vm, StartError> {
        let root = MemoryHost::new(self.setup.store.clone());
        root.now_ns.set(Some(now_ns));
        let mut vm = Vm::start(&self.module, root, &self.setup.environment)?;
        if vm.configure(&self.setup.configuration)? {
            return Ok(vm);
        }
        let log = vm.root().map(|root| root.log.take());
        Err(StartError::Refused(log.unwrap_or_default()))
    }
}

impl Vm {
    /// Passes a request, until the module replies. Returns what the module wants done at its end.
    fn pass_request(&mut self, id: ContextId) -> Result<Action, Failure> {
        let has_trailers = self.host(id).is_some_and(|host| host.trailers.borrow().is_some());
        let has_body = self.host(id).is_some_and(|host| !host.request_body.has_come());
        let mut action = self.on_request_headers(id, !has_body && !has_trailers)?;
        while self.reply(id).is_none()
            && let Some(Arrived { bytes, is_last }) =
                self.host(id).and_then(|host| host.request_body.arrive())
        {
            action = self.on_request_body(id, number(bytes), is_last && !has_trailers)?;
            self.let_go_on(id, action);
        }
        if has_trailers && self.reply(id).is_none() {
            action = self.on_request_trailers(id)?;
            self.let_go_on(id, action);
        }
        Ok(action)
    }

    fn let_go_on(&self, id: ContextId, action: Action) {
        if let Some(host) = self.host(id).filter(|_| action == Action::Continue) {
            host.request_body.pass();
        }
    }

    /// Passes the body of the response, which may be cut.
    fn pass_response_body(&mut self, id: ContextId, is_cut: bool) -> Result<(), Failure> {
        let arrive = |vm: &Self| vm.host(id).and_then(|host| host.response_body.arrive());
        let mut ended = false;
        while let Some(Arrived { bytes, is_last }) = arrive(self) {
            ended = is_last && !is_cut;
            let action = self.on_response_body(id, number(bytes), ended)?;
            if let Some(host) = self.host(id).filter(|_| action == Action::Continue) {
                host.response_body.pass();
            }
        }
        if !ended && !is_cut {
            self.on_response_body(id, 0, true)?;
        }
        Ok(())
    }

    /// The status of the module's reply, if it replied.
    fn reply(&self, id: ContextId) -> Option<u16> {
        Some(self.host(id)?.reply.borrow().as_ref()?.status)
    }

    /// Makes the module's reply the response that the client gets.
    fn show_reply(&self, id: ContextId) {
        if let Some((host, status)) = self.host(id).zip(self.reply(id)) {
            host.status.set(Some(status.into()));
        }
    }
}

impl Response {
    fn is_cut(&self) -> bool {
        self.upstream.as_ref().is_some_and(|upstream| upstream.cut.is_some())
    }

    /// Shows it to the module. Of a request that the module has answered, the upstream knows nothing.
    fn show(&self, host: &MemoryHost) {
        host.now_ns.set(Some(self.now_ns));
        host.status.set(self.status.map(u64::from));
        let upstream = self.upstream.as_ref().filter(|_| host.reply.borrow().is_none());
        let details = match upstream {
            None => "direct_response",
            Some(upstream) => {
                host.response_headers.borrow_mut().extend(upstream.headers.iter().cloned());
                upstream.body.iter().for_each(|part| host.response_body.push(part.as_slice()));
                // Why it is cut shows at its end.
                if self.is_local { "direct_response" } else { "via_upstream" }
            }
        };
        host.show(Property::ResponseCodeDetails.path(), details.as_bytes());
        if let Some(bytes) = self.bytes {
            host.show(Property::ResponseSize.path(), bytes.to_le_bytes());
        }
    }

    /// Shows how it ended, after its last part: why it was cut, and how much of it the client got.
    fn show_end(&self, host: &MemoryHost) {
        let upstream = self.upstream.as_ref().filter(|_| host.reply.borrow().is_none());
        let Some(upstream) = upstream else { return };
        if let Some(cut) = upstream.cut.as_deref() {
            host.show(Property::ResponseCodeDetails.path(), cut.as_bytes());
        }
        if self.is_local {
            let bytes = u64::try_from(host.response_body.passed_bytes()).unwrap_or(u64::MAX);
            host.show(Property::ResponseSize.path(), bytes.to_le_bytes());
        }
    }
}

/// The size of a part, as callbacks report it.
fn number(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

impl StartError {
    /// A failure of the request: the configuration was accepted before.
    fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Refused(_) => Failure::Trap(
                "the module now rejects a configuration that it accepted before".to_owned(),
            ),
        }
    }
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(f),
            Self::Refused(_) => f.write_str("the module rejects the configuration"),
        }
    }
}
