//! System calls: counted by the kernel for single processes, or by a tracer for a run of this program.
//!
//! [`Counter`] costs nothing, but the system must permit it: this process needs `CAP_PERFMON` and a mounted tracefs. `perf` needs
//! the same. `strace` works without privileges; it stops a process twice at each call, and changes how both sides meet.

#![allow(unsafe_code, reason = "opens a counter of the kernel")]

use std::fs;
use std::path::Path;
use std::process::{self, Command, Stdio};

use crate::rounds::Samples;
use crate::{Effort, Failure, child};

/// Counts the system calls of all threads of processes, and of the threads that these start.
#[cfg(target_os = "linux")]
pub(crate) struct Counter(Vec<fs::File>);

#[cfg(target_os = "linux")]
impl Counter {
    /// Returns `None` where the system does not permit it.
    pub(crate) fn start(pids: &[u32]) -> Option<Self> {
        let dirs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
        let event = dirs.iter().find_map(|dir| {
            let id = fs::read_to_string(format!("{dir}/events/raw_syscalls/sys_enter/id"));
            id.ok()?.trim().parse().ok()
        })?;
        let mut counters = Vec::new();
        for &pid in pids {
            // The main thread is last: it reads the counters, and shall not count that.
            for thread in crate::os::threads(pid).ok()?.into_iter().rev() {
                counters.push(open(event, thread)?);
            }
        }
        Some(Self(counters))
    }

    /// Returns the number of calls up to now.
    pub(crate) fn count(&self) -> Option<u64> {
        use std::io::Read;

        let mut sum = 0;
        for mut counter in &self.0 {
            let mut number = [0; 8];
            counter.read_exact(&mut number).ok()?;
            sum += u64::from_ne_bytes(number);
        }
        Some(sum)
    }
}

/// The oldest form of `struct perf_event_attr`, which all kernels know.
#[cfg(target_os = "linux")]
#[repr(C)]
#[derive(Default)]
struct EventAttributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint_type: u32,
    config_more: u64,
}

/// Opens a counter of a tracepoint for a thread.
#[cfg(target_os = "linux")]
fn open(event: u64, thread: u32) -> Option<fs::File> {
    use std::os::fd::FromRawFd;

    const TRACEPOINT: u32 = 2;
    const INHERIT: u64 = 1 << 1;
    let attributes = EventAttributes {
        kind: TRACEPOINT,
        size: size_of::<EventAttributes>() as u32,
        config: event,
        flags: INHERIT,
        ..EventAttributes::default()
    };
    // On any processor, in no group, closed in programs that this one starts.
    let [thread, processor, group, flags] = [thread as libc::c_long, -1, -1, 1 << 3];
    // SAFETY: the first argument is valid for reads of the size in its field `size`; the others are integers of a register's width.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            thread,
            processor,
            group,
            flags,
        )
    };
    let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0)?;
    // SAFETY: the call has just opened this descriptor, and nothing else owns it.
    Some(unsafe { fs::File::from_raw_fd(fd) })
}

#[cfg(not(target_os = "linux"))]
pub(crate) struct Counter;

#[cfg(not(target_os = "linux"))]
impl Counter {
    pub(crate) fn start(_: &[u32]) -> Option<Self> {
        None
    }

    pub(crate) fn count(&self) -> Option<u64> {
        None
    }
}

/// A program that counts the system calls of another one and its children.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Tracer {
    Perf,
    Strace,
}

/// Returns the command that runs a part of this program, under a tracer or without one.
pub(crate) fn command(tracer: Option<(Tracer, &Path)>, part: &[String]) -> Result<Command, Failure> {
    let program = std::env::current_exe()?;
    let mut command = match tracer {
        None => Command::new(program),
        Some((Tracer::Perf, output)) => {
            let mut perf = Command::new("perf");
            perf.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-o"])
                .arg(output)
                .arg(program);
            perf
        }
        Some((Tracer::Strace, output)) => {
            let mut strace = Command::new("strace");
            strace.args(["-c", "-f", "-o"]).arg(output).arg(program);
            strace
        }
    };
    command.arg(child::PART).args(part).stdin(Stdio::null());
    Ok(command)
}

/// Returns the system calls per task of all processes: the difference of a run with `most` tasks and one with a tenth of them.
/// `None` if they cannot be counted.
pub(crate) fn of_tasks(
    effort: Effort,
    most: u64,
    part: impl Fn(u64) -> Vec<String>,
) -> Option<(Samples, Tracer)> {
    let few = most / 10;
    [Tracer::Perf, Tracer::Strace].into_iter().find_map(|tracer| {
        let mut counts = Samples::new();
        for _ in 0..effort.rounds {
            let difference = of_run(tracer, &part(most))? as f64 - of_run(tracer, &part(few))? as f64;
            counts.push(difference / (most - few) as f64);
        }
        Some((counts, tracer))
    })
}

/// Returns the number of system calls of a whole run; `None` if they cannot be counted.
fn of_run(tracer: Tracer, part: &[String]) -> Option<u64> {
    let directory = std::env::temp_dir().join(format!("proc-pool-bench-{}", process::id()));
    fs::create_dir(&directory).ok()?;
    let output = directory.join("calls");
    let run = command(Some((tracer, &output)), part)
        .ok()
        .and_then(|mut command| {
            let ended = command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .ok()?;
            ended
                .success()
                .then(|| fs::read_to_string(&output).ok())
                .flatten()
        });
    let _ = fs::remove_dir_all(&directory);
    let text = run?;
    match tracer {
        Tracer::Perf => {
            let line = text
                .lines()
                .find(|line| line.contains("raw_syscalls:sys_enter"))?;
            line.split(',').next()?.parse().ok()
        }
        // "100.00 0.001 2 CALLS [ERRORS] total"
        Tracer::Strace => {
            let line = text.lines().find(|line| line.trim_end().ends_with("total"))?;
            line.split_whitespace().nth(3)?.parse().ok()
        }
    }
}
