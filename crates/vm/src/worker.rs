//! A worker: takes requests through a VM, and makes a new one when that has failed.

use std::fmt;
use std::mem::take;
use std::sync::Arc;

use vkey::host::Level;
use vkey::host::{Action, MemoryHost, MemoryStore, Property};

use super::instance::{ContextId, Failure, Vm};
use super::module::Module;

/// What all workers of a host have in common.
pub struct Setup {
    /// The plugin's configuration.
    pub configuration: Vec<u8>,
    /// The environment variables that the module sees.
    pub environment: Vec<(String, String)>,
    /// The shared data.
    pub store: MemoryStore,
}

/// One of the workers of a host. It has a VM, except between a failure and the request after it.
pub struct Worker {
    module: Module,
    setup: Arc<Setup>,
    vm: Option<Vm>,
    /// What the module said of itself, not of a request.
    log: Vec<(Level, String)>,
}

/// Why a worker does not start.
#[derive(Clone, Debug)]
pub enum StartError {
    /// The module has failed.
    Failed(Failure),
    /// The module refuses the configuration, and says why.
    Refused(Vec<(Level, String)>),
}

/// A request that the module has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It goes on.
    Forwarded(ContextId),
    /// It does not: the module has answered, or holds it with no more to come.
    Held(ContextId),
}

/// What came back for a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Answer {
    /// The status, where there was an answer.
    pub status: Option<u16>,
    /// Its size in bytes, where it is known.
    pub bytes: Option<u64>,
    /// When it was complete, Unix nanoseconds.
    pub now_ns: u64,
}

/// A request that is over: what the module did about it.
pub struct Ended {
    /// All that the module did.
    pub host: MemoryHost,
    /// Whether the answer was kept from the client.
    pub withheld: bool,
}

// === impl Worker ===

impl Worker {
    /// Starts a worker; `now_ns` is the time, Unix nanoseconds.
    ///
    /// # Errors
    ///
    /// [`StartError`] when the module does not start, or refuses the configuration.
    pub fn start(module: Module, setup: Arc<Setup>, now_ns: u64) -> Result<Self, StartError> {
        let mut worker = Self { module, setup, vm: None, log: Vec::new() };
        worker.vm = Some(worker.start_vm(now_ns)?);
        Ok(worker)
    }

    /// What the module has said of itself since it was last asked.
    pub fn take_log(&mut self) -> Vec<(Level, String)> {
        if let Some(root) = self.vm.as_ref().and_then(Vm::root) {
            self.log.append(&mut root.log.borrow_mut());
        }
        take(&mut self.log)
    }

    /// Shows a request to the module: its headers, and then its body at once where it has one.
    ///
    /// # Errors
    ///
    /// [`Failure`] when the module has failed: all its requests are lost, and the next one starts a new VM.
    pub fn open(&mut self, host: MemoryHost) -> Result<Opened, Failure> {
        let now_ns = host.now_ns.get().unwrap_or(0);
        let bytes = u32::try_from(host.body.borrow().len()).unwrap_or(u32::MAX);
        self.with(now_ns, |vm| {
            let id = vm.open(host)?;
            let mut action = vm.on_request_headers(id, bytes == 0)?;
            if bytes > 0 && vm.reply(id).is_none() {
                action = vm.on_request_body(id, bytes, true)?;
            }
            let goes_on = action == Action::Continue && vm.reply(id).is_none();
            Ok(if goes_on { Opened::Forwarded(id) } else { Opened::Held(id) })
        })
    }

    /// Shows the module what came back, and ends the request.
    ///
    /// # Errors
    ///
    /// [`Failure`] as with [`Self::open`]; then the request has no audit line.
    pub fn close(&mut self, id: ContextId, answer: &Answer) -> Result<Option<Ended>, Failure> {
        self.with(answer.now_ns, |vm| {
            let Some(host) = vm.host(id) else {
                return Ok(None);
            };
            answer.show(host);
            vm.show_reply(id);
            let withheld = vm.on_response_headers(id)? == Action::Pause;
            let bytes = answer.bytes.and_then(|bytes| u32::try_from(bytes).ok());
            vm.on_response_body(id, bytes.unwrap_or(u32::MAX))?;
            vm.show_reply(id);
            vm.on_log(id)?;
            Ok(vm.close(id)?.map(|host| Ended { host, withheld }))
        })
    }

    /// What the module has done so far about a request that is open.
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
            // What it said last tells why.
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
    /// The status that the module has answered a request with.
    fn reply(&self, id: ContextId) -> Option<u16> {
        Some(self.host(id)?.reply.borrow().as_ref()?.status)
    }

    /// Makes the module's own answer the one that the client gets.
    fn show_reply(&self, id: ContextId) {
        if let Some((host, status)) = self.host(id).zip(self.reply(id)) {
            host.status.set(Some(status.into()));
        }
    }
}

impl Answer {
    /// There is no upstream: the answer is the host's own.
    fn show(&self, host: &MemoryHost) {
        host.now_ns.set(Some(self.now_ns));
        host.status.set(self.status.map(u64::from));
        host.show(Property::ResponseCodeDetails.path(), "direct_response");
        if let Some(bytes) = self.bytes {
            host.show(Property::ResponseTotalSize.path(), bytes.to_le_bytes());
        }
    }
}

impl StartError {
    /// What it is to a request: a configuration that was accepted before is not refused now, unless the
    /// module has changed its mind.
    fn into_failure(self) -> Failure {
        match self {
            Self::Failed(failure) => failure,
            Self::Refused(_) => Failure::Trap("it refuses the configuration now".to_owned()),
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
            Self::Refused(_) => f.write_str("the module refuses the configuration"),
        }
    }
}
