//! System calls and `/proc`: processors, processor time, wakeups.
#![allow(unsafe_code, reason = "asks the system for the usage of this process")]

use std::fs::File;
use std::io;

/// Returns standard input and output without the buffers of `std`.
#[cfg(unix)]
pub(crate) fn stdio() -> io::Result<(File, File)> {
    use std::os::fd::AsFd;
    let input = io::stdin().as_fd().try_clone_to_owned()?;
    let output = io::stdout().as_fd().try_clone_to_owned()?;
    Ok((input.into(), output.into()))
}

#[cfg(windows)]
pub(crate) fn stdio() -> io::Result<(File, File)> {
    use std::os::windows::io::AsHandle;
    let input = io::stdin().as_handle().try_clone_to_owned()?;
    let output = io::stdout().as_handle().try_clone_to_owned()?;
    Ok((input.into(), output.into()))
}

/// The resources that all threads of a process have used together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Processor time, user and system, in nanoseconds.
    pub(crate) nanos: u64,
    /// Page faults, without those that read from a disk.
    pub(crate) page_faults: u64,
    /// How often a thread went to sleep; each sleep ends with a wakeup.
    pub(crate) sleeps: u64,
}

impl Usage {
    /// Returns the usage of several processes together, in their threads that live; `None` where the system does not report it.
    pub(crate) fn of(pids: &[u32]) -> Option<Self> {
        pids.iter().try_fold(Self::default(), |sum, &pid| {
            let one = usage(pid)?;
            Some(Self {
                nanos: sum.nanos + one.nanos,
                page_faults: sum.page_faults + one.page_faults,
                sleeps: sum.sleeps + one.sleeps,
            })
        })
    }

    /// Returns the usage of this process, also in threads that have ended; `None` where the system does not report it.
    #[cfg(unix)]
    pub(crate) fn of_this_process() -> Option<Self> {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: the pointer is valid for a write of the type that the call fills.
        if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0 {
            return None;
        }
        // SAFETY: it was zeroed, and zeros are valid integers, and filled by the call.
        let usage = unsafe { usage.assume_init() };
        let nanos = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
        Some(Self {
            nanos: nanos(usage.ru_utime) + nanos(usage.ru_stime),
            page_faults: usage.ru_minflt as u64,
            sleeps: usage.ru_nvcsw as u64,
        })
    }

    #[cfg(not(unix))]
    pub(crate) fn of_this_process() -> Option<Self> {
        None
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(before.nanos),
            page_faults: self.page_faults.saturating_sub(before.page_faults),
            sleeps: self.sleeps.saturating_sub(before.sleeps),
        }
    }
}

#[cfg(target_os = "linux")]
fn usage(pid: u32) -> Option<Usage> {
    let mut usage = Usage::default();
    for thread in threads(pid).ok()? {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/task/{thread}/{file}"));
        // A thread that has just ended had no part in the measurement.
        let (Ok(schedule), Ok(stat), Ok(status)) = (read("schedstat"), read("stat"), read("status")) else {
            continue;
        };
        // Behind the name, which may contain anything: state, parent, group, session, terminal, its group, flags, minor faults.
        let (_, stat) = stat.rsplit_once(") ")?;
        usage.page_faults += stat.split(' ').nth(7)?.parse::<u64>().ok()?;
        usage.nanos += schedule.split(' ').next()?.parse::<u64>().ok()?;
        let sleeps = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        usage.sleeps += sleeps.trim().parse::<u64>().ok()?;
    }
    Some(usage)
}

#[cfg(not(target_os = "linux"))]
fn usage(_: u32) -> Option<Usage> {
    None
}

/// Returns the ids of the threads of a process, oldest first.
#[cfg(target_os = "linux")]
pub(crate) fn threads(pid: u32) -> io::Result<Vec<u32>> {
    let mut threads = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        threads.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok()),
        );
    }
    Ok(threads)
}

/// Returns the processors that this process may use; none where they cannot be chosen.
#[cfg(target_os = "linux")]
pub(crate) fn processors() -> Vec<usize> {
    let allowed = rustix::thread::sched_getaffinity(None);
    let allowed = allowed.iter();
    allowed
        .flat_map(|set| (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)))
        .collect()
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn processors() -> Vec<usize> {
    Vec::new()
}

/// Makes all threads of a process, and those that they start, run on these processors only.
#[cfg(target_os = "linux")]
pub(crate) fn pin(pid: u32, processors: &[usize]) -> io::Result<()> {
    let mut set = rustix::thread::CpuSet::new();
    processors.iter().for_each(|&cpu| set.set(cpu));
    for thread in threads(pid)? {
        let thread = rustix::thread::Pid::from_raw(thread as i32);
        rustix::thread::sched_setaffinity(thread, &set)?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn pin(_: u32, _: &[usize]) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
