//! The memory of a module, as host calls read and write it.

use wasmtime::Caller;

use vkey::host::{HostError, MemoryHost};

use super::state::State;

/// Where bytes of the module lie: an address and a length.
#[derive(Clone, Copy)]
pub(super) struct Span(pub(super) u32, pub(super) u32);

/// Where the module wants to learn of bytes that it is handed: the addresses for their address and
/// for their length.
#[derive(Clone, Copy)]
pub(super) struct Receiver(pub(super) u32, pub(super) u32);

/// Why a host call is not done.
pub(super) enum Fault {
    /// The module gets a status.
    Status(HostError),
    /// The module has failed while it was called back.
    Failed(wasmtime::Error),
}

/// What a host call comes to.
pub(super) type Done = Result<(), Fault>;

/// A module that calls its host.
pub(super) struct Guest<'a>(pub(super) Caller<'a, State>);

/// Its memory, and the host that answers.
pub(super) struct View<'a> {
    memory: &'a mut [u8],
    /// The host of the context that the call is about.
    pub(super) host: &'a MemoryHost,
}

impl Guest<'_> {
    /// What a host call needs to be answered.
    pub(super) fn view(&mut self) -> Result<View<'_>, Fault> {
        let memory = self.0.data().guest.as_ref().map(|(memory, _)| *memory);
        let (memory, state) =
            memory.ok_or(HostError::INTERNAL_FAILURE)?.data_and_store_mut(&mut self.0);
        Ok(View { memory, host: state.host().ok_or(HostError::BAD_ARGUMENT)? })
    }

    /// Hands bytes to the module, in memory that it provides.
    pub(super) fn hand_over(&mut self, bytes: &[u8], receiver: Receiver) -> Done {
        self.hand_over_as(bytes, bytes.len(), receiver)
    }

    /// Hands bytes over for which a host has taken room by a size that may be another.
    pub(super) fn hand_over_as(&mut self, bytes: &[u8], size: usize, receiver: Receiver) -> Done {
        let len = u32::try_from(size).map_err(|_| HostError::BAD_ARGUMENT)?;
        let start = if len == 0 { 0 } else { self.allocate(len)? };
        let mut view = self.view()?;
        view.write(start, bytes)?;
        view.write(receiver.0, &start.to_le_bytes())?;
        view.write(receiver.1, &len.to_le_bytes())
    }

    fn allocate(&mut self, len: u32) -> Result<u32, Fault> {
        let allocate = self.0.data().guest.as_ref().map(|(_, allocate)| allocate.clone());
        let start = allocate.ok_or(HostError::INTERNAL_FAILURE)?.call(&mut self.0, len);
        match start.map_err(Fault::Failed)? {
            0 => Err(HostError::INVALID_MEMORY_ACCESS.into()),
            start => Ok(start),
        }
    }
}

impl View<'_> {
    /// The bytes that the module points at.
    pub(super) fn bytes(&self, span: Span) -> Result<&[u8], Fault> {
        let found = place(span.0, span.1).and_then(|range| self.memory.get(range));
        found.ok_or(HostError::INVALID_MEMORY_ACCESS.into())
    }

    /// The text that it points at.
    pub(super) fn text(&self, span: Span) -> Result<&str, Fault> {
        std::str::from_utf8(self.bytes(span)?).map_err(|_| HostError::BAD_ARGUMENT.into())
    }

    /// Writes bytes to a place in the module's memory.
    pub(super) fn write(&mut self, start: u32, bytes: &[u8]) -> Done {
        let len = u32::try_from(bytes.len()).ok();
        let range = len.and_then(|len| place(start, len));
        let place = range.and_then(|range| self.memory.get_mut(range));
        place.ok_or(HostError::INVALID_MEMORY_ACCESS)?.copy_from_slice(bytes);
        Ok(())
    }
}

fn place(start: u32, len: u32) -> Option<std::ops::Range<usize>> {
    let (start, len) = (usize::try_from(start).ok()?, usize::try_from(len).ok()?);
    Some(start..start.checked_add(len)?)
}

impl From<HostError> for Fault {
    fn from(status: HostError) -> Self {
        Self::Status(status)
    }
}

/// What the module is answered: 0, or a status that says why nothing was done.
pub(super) fn status(done: Done) -> wasmtime::Result<u32> {
    match done {
        Ok(()) => Ok(0),
        Err(Fault::Status(HostError(status))) => Ok(status),
        Err(Fault::Failed(error)) => Err(error),
    }
}
