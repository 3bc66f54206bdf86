//! What the tests have in common, Linux.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::Duration;

mod alone;
mod everywhere;
pub(crate) use alone::{Alone, is_alone, test_name};
pub(crate) use everywhere::{Dir, NO_PRIVATE_BYTES, hang, pool, random, watchdog, wine_lacks};

/// Processes whose temporary directory this is: a leader and its workers.
pub(crate) fn processes_within(tmp: &Path) -> Vec<u32> {
    use std::os::unix::ffi::OsStrExt;
    let mark = [b"TMPDIR=", tmp.as_os_str().as_bytes()].concat();
    let processes = std::fs::read_dir("/proc").expect("it is readable").flatten();
    let of_it = |path: &Path| {
        let environment = std::fs::read(path.join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|it| it == mark)
    };
    let pid = |path: PathBuf| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        of_it(&path).then_some(pid)
    };
    processes.filter_map(|entry| pid(entry.path())).collect()
}

/// What a leader, who may be dead, has left running.
pub(crate) fn processes_of(_: &Child, tmp: &Dir) -> Vec<u32> {
    processes_within(tmp.path())
}

/// What is in the name space of shared memory, of this project.
pub(crate) fn shared_memory() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().to_string_lossy().contains("shm-buffers"));
    ours.map(|entry| entry.path()).collect()
}

/// Nothing new may be there that has no living owner. Other tests, of other packages as well, come and go meanwhile:
/// an owner holds a lock on what is his from shortly after he made it.
pub(crate) fn assert_left_nothing(before: &[PathBuf]) {
    let orphaned = |path: &PathBuf| {
        let exclusive = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        std::fs::File::open(path).is_ok_and(|file| rustix::fs::flock(&file, exclusive).is_ok())
    };
    let mut new = shared_memory();
    new.retain(|path| !before.contains(path));
    for _ in 0..20 {
        new.retain(orphaned);
        if new.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("left behind: {new:?}");
}

/// Whether this process was started as a worker and has not called `init` yet: its standard input is a socket then, which
/// these tests give to no other process.
pub(crate) fn is_worker_before_init() -> bool {
    let stdin = std::fs::read_link("/proc/self/fd/0");
    stdin.is_ok_and(|target| target.to_string_lossy().starts_with("socket:"))
}

/// Open files of this process.
pub(crate) fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd")
        .expect("it is readable")
        .count()
}

/// Threads of this process.
pub(crate) fn threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .expect("it is readable")
        .count()
}

/// Whether this process has children, dead or alive.
pub(crate) fn has_children() -> bool {
    let waited = rustix::process::wait(rustix::process::WaitOptions::NOHANG);
    !matches!(waited, Err(rustix::io::Errno::CHILD))
}

/// Where tests hear of pids.
pub(crate) struct Ear {
    listener: UnixListener,
    pub(crate) path: String,
    _dir: Dir,
}

impl Ear {
    pub(crate) fn new() -> Self {
        let dir = Dir::new();
        let path = dir.path().join("ear");
        Self {
            listener: UnixListener::bind(&path).expect("a socket can be made"),
            path: path.to_str().expect("it is UTF-8").to_owned(),
            _dir: dir,
        }
    }

    /// The next number that somebody tells.
    pub(crate) fn hear(&self) -> u32 {
        let (mut stream, _) = self.listener.accept().expect("somebody connects");
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).expect("it says something");
        u32::from_ne_bytes(bytes)
    }
}

/// Tells the ear at `path` a number.
pub(crate) fn tell(path: &str, number: u32) {
    let mut stream = UnixStream::connect(path).expect("somebody listens");
    stream.write_all(&number.to_ne_bytes()).expect("it is heard");
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("no pid is 0");
    rustix::process::kill_process(pid, signal).expect("it lives");
}

/// User and system time that this process has used, without its children.
pub(crate) fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("it is readable");
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or("").split(' ').collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap_or(0) + fields[12].parse::<u64>().unwrap_or(0);
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// User and system time that this thread has used.
pub(crate) fn thread_cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("it is readable");
    let ns = stat.split(' ').next().and_then(|ns| ns.parse().ok());
    Duration::from_nanos(ns.expect("a number"))
}

impl Ear {
    /// Somebody who [waits](hear_from) for an answer.
    pub(crate) fn accept(&self) -> UnixStream {
        self.listener.accept().expect("somebody connects").0
    }

    /// Lets one go on who [waits](hear_from) for an answer.
    pub(crate) fn answer(&self) {
        let mut stream = self.accept();
        stream.write_all(&[1]).expect("it is there");
    }
}

/// Waits for the [`answer`](Ear::answer) of the ear at `path`.
pub(crate) fn hear_from(path: &str) {
    let mut stream = UnixStream::connect(path).expect("somebody listens");
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("it answers");
}

/// Waits until none of the processes has used any time for a while: they have nothing to do.
pub(crate) fn wait_until_all_sleep(pids: &[u32]) {
    let used = || -> Vec<String> {
        let stat = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/schedstat"));
        pids.iter().map(|pid| stat(pid).unwrap_or_default()).collect()
    };
    let mut before = used();
    loop {
        thread::sleep(Duration::from_millis(300));
        let now = used();
        if now == before {
            return;
        }
        before = now;
    }
}

/// Kills a process.
pub(crate) fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

/// Kills a process that may have ended already.
pub(crate) fn try_kill(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("no pid is 0");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok()
}

/// Whether a process is stopped.
pub(crate) fn is_stopped(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
}
