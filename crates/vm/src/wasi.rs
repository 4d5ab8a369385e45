//! The WASI preview 1 calls that the standard library of `wasm32-wasip1` makes to read the environment and to
//! report why it aborts, and the one for randomness. Everything else is proxy-wasm ABI.

use wasmtime::{Caller, Linker};

use vkey::host::Level;
use vkey::host::{Host as _, HostError};

use super::guest::{Fault, Guest, Span};
use super::state::State;

const WASI: &str = "wasi_snapshot_preview1";

/// `errno` values of preview 1.
const SUCCESS: u32 = 0;
const BADF: u32 = 8;
const FAULT: u32 = 21;
const IO: u32 = 29;

/// The file descriptors that exist.
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// The longest text of one write, in bytes.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// The most random bytes of one call.
const MAX_RANDOM_BYTES: usize = 256;

/// Adds these calls to the linker.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.func_wrap(
        WASI,
        "environ_sizes_get",
        |caller: Caller<'_, State>, count: u32, bytes: u32| {
            errno(environment_sizes(&mut Guest(caller), count, bytes))
        },
    )?;
    linker.func_wrap(
        WASI,
        "environ_get",
        |caller: Caller<'_, State>, pointers: u32, texts: u32| {
            errno(environment(&mut Guest(caller), pointers, texts))
        },
    )?;
    linker.func_wrap(
        WASI,
        "fd_write",
        |caller: Caller<'_, State>, file: u32, parts: u32, count: u32, written: u32| {
            let mut guest = Guest(caller);
            match file {
                STDOUT | STDERR => errno(write(&mut guest, parts, count, written)),
                _ => Ok(BADF),
            }
        },
    )?;
    linker.func_wrap(WASI, "random_get", |caller: Caller<'_, State>, bytes: u32, len: u32| {
        match random(len) {
            Some(random) => {
                errno(Guest(caller).view().and_then(|mut view| view.write(bytes, &random)))
            }
            None => Ok(IO),
        }
    })?;
    linker.func_wrap(WASI, "proc_exit", |code: u32| -> wasmtime::Result<()> {
        Err(wasmtime::Error::msg(format!("the module exited with code {code}")))
    })?;
    Ok(())
}

fn environment_sizes(guest: &mut Guest<'_>, count: u32, bytes: u32) -> Result<(), Fault> {
    let environment = &guest.0.data().environment;
    let sizes = [environment.len(), environment.iter().map(Vec::len).sum()];
    let mut view = guest.view()?;
    for (place, size) in [count, bytes].into_iter().zip(sizes) {
        view.write(place, &u32::try_from(size).unwrap_or(u32::MAX).to_le_bytes())?;
    }
    Ok(())
}

fn environment(guest: &mut Guest<'_>, pointers: u32, texts: u32) -> Result<(), Fault> {
    let environment = guest.0.data().environment.clone();
    let mut view = guest.view()?;
    let (mut pointer, mut text) = (pointers, texts);
    for entry in &environment {
        view.write(text, entry)?;
        view.write(pointer, &text.to_le_bytes())?;
        let len = u32::try_from(entry.len()).unwrap_or(u32::MAX);
        (pointer, text) = (pointer.saturating_add(4), text.saturating_add(len));
    }
    Ok(())
}

/// `None` if the system has no randomness, or is asked for too much.
fn random(len: u32) -> Option<Vec<u8>> {
    let len = usize::try_from(len).ok().filter(|len| *len <= MAX_RANDOM_BYTES)?;
    let mut random = vec![0; len];
    getrandom::fill(&mut random).ok().map(|()| random)
}

/// Writes the text to the log, as proxies do.
fn write(guest: &mut Guest<'_>, parts: u32, count: u32, written: u32) -> Result<(), Fault> {
    let mut view = guest.view()?;
    let mut text = Vec::new();
    let table = view.bytes(Span(parts, count.saturating_mul(8)))?;
    for part in table.as_chunks().0 {
        let [a, b, c, d, e, f, g, h] = *part;
        let part = Span(u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]));
        text.extend(view.bytes(part)?);
        if text.len() > MAX_TEXT_BYTES {
            return Err(HostError::BAD_ARGUMENT.into());
        }
    }
    view.host.log(Level::Error, String::from_utf8_lossy(&text).trim_end());
    view.write(written, &u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes())
}

fn errno(done: Result<(), Fault>) -> wasmtime::Result<u32> {
    match done {
        Ok(()) => Ok(SUCCESS),
        Err(Fault::Status(_)) => Ok(FAULT),
        Err(Fault::Failed(error)) => Err(error),
    }
}
