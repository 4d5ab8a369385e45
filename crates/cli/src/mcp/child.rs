//! The server process. It has a process group of its own, which ends with this command.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// A running server. Dropping it kills the group and reaps the server.
pub(super) struct Server {
    child: Child,
    reaped: bool,
}

impl Server {
    /// Starts the command in our environment, without the `hidden` variables.
    pub(super) fn start(
        command: &[OsString],
        without: impl Iterator<Item = String>,
    ) -> io::Result<Self> {
        let (program, args) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(args).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in without {
            command.env_remove(name);
        }
        Ok(Self { child: command.spawn()?, reaped: false })
    }

    /// Takes its pipes, once.
    pub(super) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout, ChildStderr)> {
        let child = &mut self.child;
        Some((child.stdin.take()?, child.stdout.take()?, child.stderr.take()?))
    }

    /// Its process id.
    pub(super) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// Sends SIGTERM to the group.
    pub(super) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Kills the rest of the group, and reaps the server.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.reaped {
            self.signal(Signal::KILL);
        }
        let status = self.child.wait();
        self.reaped |= status.is_ok();
        status
    }

    /// Signals the group. The number is the group's until the server is reaped, so it cannot be another's. A
    /// group that has ended needs no signal.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            _ = kill_process_group(pid, signal);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        _ = self.end();
    }
}

/// Waits until a server has ended, without reaping it.
pub(super) fn await_end(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(pid), options).err() == Some(rustix::io::Errno::INTR) {}
}
