//! The server: a process in a group of its own, which is gone when this command is.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// A server that runs. Its group is killed and the server reaped when this is dropped.
pub(super) struct Server {
    child: Child,
    reaped: bool,
}

impl Server {
    /// Starts the command in our environment, but for some variables.
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

    /// The ends of its pipes, once.
    pub(super) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout, ChildStderr)> {
        let child = &mut self.child;
        Some((child.stdin.take()?, child.stdout.take()?, child.stderr.take()?))
    }

    /// Its process.
    pub(super) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    /// Asks the server and all its processes to end.
    pub(super) fn ask_to_end(&self) {
        self.signal(Signal::TERM);
    }

    /// Ends whatever is left of the group, and reaps the server.
    pub(super) fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.reaped {
            self.signal(Signal::KILL);
        }
        let status = self.child.wait();
        self.reaped |= status.is_ok();
        status
    }

    /// Signals the group. It is the server's own as long as that is not reaped, whether it has ended or
    /// not, since its number is not free before. A group that is gone needs no signal.
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

/// Waits until a server has ended, and leaves it to be reaped.
pub(super) fn await_end(pid: Pid) {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while waitid(WaitId::Pid(pid), options).err() == Some(rustix::io::Errno::INTR) {}
}
