//! What the tests have in common, Linux.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

mod everywhere;
pub(crate) use everywhere::{Dir, NO_PRIVATE_BYTES, hang, pool, watchdog, wine_lacks};

/// The test that this is used in, as the harness names it.
macro_rules! test_name {
    () => {{
        fn here() {}
        let name = std::any::type_name_of_val(&here);
        let name = name.strip_suffix("::here").unwrap_or(name);
        name.split_once("::").map_or(name, |(_, name)| name).to_owned()
    }};
}
pub(crate) use test_name;

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

const ALONE: &str = "IT_ALONE";

/// Whether this process was started by [`Alone`] for one test.
pub(crate) fn is_alone() -> bool {
    std::env::var_os(ALONE).is_some()
}

/// Runs one test again in a process of its own, where nothing else opens files, has children or changes limits.
pub(crate) struct Alone {
    command: Command,
    tmp: Dir,
}

impl Alone {
    pub(crate) fn new(test: &str) -> Self {
        Self::with_program(test, &std::env::current_exe().expect("it has a path"))
    }

    pub(crate) fn with_program(test: &str, program: &Path) -> Self {
        let tmp = Dir::new();
        let mut command = Command::new(program);
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ALONE, "1")
            .env("TMPDIR", tmp.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self { command, tmp }
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Runs it to its end; it must succeed and leave nothing behind.
    pub(crate) fn run(mut self) {
        let shm = shared_memory();
        let output = self
            .command
            .stderr(Stdio::piped())
            .output()
            .expect("it can be started");
        assert!(
            output.status.success(),
            "{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
        assert!(ran, "no such test: {:?}", self.command);
        let said = String::from_utf8_lossy(&output.stdout);
        said.lines().filter_map(told).for_each(|line| println!("{line}"));
        assert_eq!(self.tmp.entries(), Vec::<PathBuf>::new());
        assert_left_nothing(&shm);
    }

    /// As [`run`](Self::run), and shows what it prints as it comes.
    pub(crate) fn run_aloud(mut self) {
        let shm = shared_memory();
        let mut child = self.command.spawn().expect("it can be started");
        let said = BufReader::new(child.stdout.take().expect("it is piped"));
        for line in said.lines() {
            if let Some(line) = told(&line.expect("it is UTF-8")) {
                println!("{line}");
            }
        }
        let status = child.wait().expect("it is ours");
        assert!(status.success(), "{status}");
        assert_eq!(self.tmp.entries(), Vec::<PathBuf>::new());
        assert_left_nothing(&shm);
    }

    /// Runs it to its end, whatever that is; tells what it left behind, as well: files, and processes of its own.
    pub(crate) fn report(mut self) -> (std::process::Output, Vec<PathBuf>) {
        let output = self.command.output().expect("it can be started");
        let pids = processes_within(self.tmp.path()).into_iter();
        let mut left: Vec<PathBuf> = pids.map(|pid| format!("/proc/{pid}").into()).collect();
        left.extend(self.tmp.entries());
        (output, left)
    }

    /// Starts it, to be killed: what it prints can be read.
    pub(crate) fn start(mut self) -> (Child, Dir) {
        let child = self.command.spawn().expect("it can be started");
        (child, self.tmp)
    }
}

/// What a test said in this line, without what the harness says about it: who counts tests would count it twice.
fn told(line: &str) -> Option<&str> {
    // It begins on the line of the test's name.
    let line = match line.split_once(" ... ") {
        Some((name, line)) if name.starts_with("test ") => line,
        _ => line,
    };
    let harness = ["running ", "test result: "];
    let own = !line.is_empty() && line != "ok" && !harness.iter().any(|it| line.starts_with(it));
    own.then_some(line)
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

/// Kills a process that may have ended already.
pub(crate) fn try_kill(pid: u32) -> bool {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("no pid is 0");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok()
}

/// Numbers that look random, always the same for the same seed.
pub(crate) fn random(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    // SplitMix64.
    move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Whether a process is stopped.
pub(crate) fn is_stopped(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") T "))
}
