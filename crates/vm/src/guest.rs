//! The module's memory, as host calls read and write it.

use wasmtime::Caller;

use vkey::host::{HostError, MemoryHost};

use super::state::State;

/// A range of the module's memory: address and length.
#[derive(Clone, Copy)]
pub(super) struct Span(pub(super) u32, pub(super) u32);

/// Out parameters of a host call that returns bytes: where to write their address, and where their length.
#[derive(Clone, Copy)]
pub(super) struct Receiver(pub(super) u32, pub(super) u32);

/// Why a host call failed.
pub(super) enum Fault {
    /// The module gets a status.
    Status(HostError),
    /// The module failed while the host called it back to allocate.
    Failed(wasmtime::Error),
}

/// The result of a host call.
pub(super) type Done = Result<(), Fault>;

/// The module that makes a host call.
pub(super) struct Guest<'a>(pub(super) Caller<'a, State>);

/// The module's memory, and the host that handles the call.
pub(super) struct View<'a> {
    memory: &'a mut [u8],
    /// The host of the context that the call applies to.
    pub(super) host: &'a MemoryHost,
}

impl Guest<'_> {
    /// The memory and the host, borrowed together.
    pub(super) fn view(&mut self) -> Result<View<'_>, Fault> {
        let memory = self.0.data().guest.as_ref().map(|(memory, _)| *memory);
        let (memory, state) =
            memory.ok_or(HostError::INTERNAL_FAILURE)?.data_and_store_mut(&mut self.0);
        Ok(View { memory, host: state.host().ok_or(HostError::BAD_ARGUMENT)? })
    }

    /// Returns bytes to the module, in memory that it allocates.
    pub(super) fn hand_over(&mut self, bytes: &[u8], receiver: Receiver) -> Done {
        self.hand_over_as(bytes, bytes.len(), receiver)
    }

    /// Like [`Self::hand_over`], with an allocation of `size` bytes, which may differ from the length of
    /// `bytes`.
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
    /// The bytes of a span.
    pub(super) fn bytes(&self, span: Span) -> Result<&[u8], Fault> {
        let found = place(span.0, span.1).and_then(|range| self.memory.get(range));
        found.ok_or(HostError::INVALID_MEMORY_ACCESS.into())
    }

    /// The UTF-8 text of a span.
    pub(super) fn text(&self, span: Span) -> Result<&str, Fault> {
        std::str::from_utf8(self.bytes(span)?).map_err(|_| HostError::BAD_ARGUMENT.into())
    }

    /// Writes bytes at an address.
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

/// The status that the host call returns: 0, or why it failed.
pub(super) fn status(done: Done) -> wasmtime::Result<u32> {
    match done {
        Ok(()) => Ok(0),
        Err(Fault::Status(HostError(status))) => Ok(status),
        Err(Fault::Failed(error)) => Err(error),
    }
}
