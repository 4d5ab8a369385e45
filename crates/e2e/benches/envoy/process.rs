//! What a process has used, from `/proc`.

use std::fs;
use std::io;

/// Linux counts the times in `/proc/PID/stat` in this unit (`USER_HZ`, proc(5)), on all its
/// architectures.
const TICK_NS: u64 = 10_000_000;

/// The CPU time that a process has used, in nanoseconds: user and system, of all its threads.
///
/// Where the kernel keeps them, the nanoseconds of each thread are added up (`schedstat`); the time
/// of threads that have ended is not among them. Elsewhere it is counted in hundredths of a second.
///
/// # Errors
///
/// When the process is gone, or `/proc` is not that of Linux.
pub(crate) fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        match fs::read_to_string(thread?.path().join("schedstat")) {
            Ok(text) => sum += run_ns(&text).ok_or_else(|| unreadable("schedstat"))?,
            Err(_) => return stat_ns(pid),
        }
    }
    Ok(sum)
}

/// The memory of a process that is in use, in bytes (`VmRSS`, proc(5)).
///
/// # Errors
///
/// As [`cpu_ns`].
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    resident(&status).ok_or_else(|| unreadable("status"))
}

fn stat_ns(pid: u32) -> io::Result<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = used_ticks(&stat).ok_or_else(|| unreadable("stat"))?;
    Ok(ticks * TICK_NS)
}

/// The first number of a thread's `schedstat`: the time it ran.
pub(crate) fn run_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().next()?.parse().ok()
}

/// `utime` and `stime`, the 14th and 15th field of `stat`. The second field, the name in
/// parentheses, may hold anything, parentheses and spaces too.
pub(crate) fn used_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    Some(fields.next()?.ok()? + fields.next()?.ok()?)
}

pub(crate) fn resident(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = value.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024)
}

fn unreadable(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("/proc shows no {what} as Linux writes it"))
}
