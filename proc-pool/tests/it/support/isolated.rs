//! Tests that run again in a process of their own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{TempDir, assert_no_shared_memory_left, shared_memory};

/// The name of the test that this macro is used in, as the test harness spells it.
macro_rules! test_name {
    () => {{
        fn here() {}
        let name = std::any::type_name_of_val(&here);
        let name = name.strip_suffix("::here").unwrap_or(name);
        let name = name.trim_end_matches("::{{closure}}");
        name.split_once("::").map_or(name, |(_, name)| name).to_owned()
    }};
}
pub(crate) use test_name;

/// The variable that names the directory for temporary files.
const TEMPORARY: &str = if cfg!(windows) { "TMP" } else { "TMPDIR" };
const ISOLATED: &str = "IT_ISOLATED";

/// Whether [`IsolatedTest`] has started this process for one test.
pub(crate) fn is_isolated() -> bool {
    std::env::var_os(ISOLATED).is_some()
}

/// Runs one test again in a process of its own, where no other test opens files, has children or changes limits.
pub(crate) struct IsolatedTest {
    command: Command,
    tmp: TempDir,
}

impl IsolatedTest {
    pub(crate) fn new(test: &str) -> Self {
        Self::with_program(test, &std::env::current_exe().expect("this program has a path"))
    }

    /// Runs the test from `program`, a copy of this one.
    pub(crate) fn with_program(test: &str, program: &Path) -> Self {
        let tmp = TempDir::new();
        let mut command = Command::new(program);
        command
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(ISOLATED, "1")
            .env(TEMPORARY, tmp.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self { command, tmp }
    }

    /// Starts the test through another program, which receives this program and its arguments as further arguments.
    #[cfg(target_os = "linux")]
    pub(crate) fn wrapped_in(mut self, wrapper: &[&str]) -> Self {
        let mut command = Command::new(wrapper[0]);
        command
            .args(&wrapper[1..])
            .arg(self.command.get_program())
            .args(self.command.get_args())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for (name, value) in self.command.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        self.command = command;
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Lets all threads of the process allocate from the arena of the main thread. glibc returns the free memory at the end of
    /// another arena to the system only as far as it exceeds 64 MiB, whatever a program does.
    #[cfg(target_os = "linux")]
    pub(crate) fn with_one_arena(self) -> Self {
        self.env("MALLOC_ARENA_MAX", "1")
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Starts the process at a hidden console that it shares with its workers only.
    #[cfg(windows)]
    pub(crate) fn at_own_console(mut self) -> Self {
        use std::os::windows::process::CommandExt;
        const CREATE_NO_WINDOW: u32 = 0x0800_0000;
        self.command.creation_flags(CREATE_NO_WINDOW);
        self
    }

    /// Runs the test to its end. Panics if it fails or leaves files or shared memory behind.
    pub(crate) fn run(mut self) {
        let shm = shared_memory();
        let output = self
            .command
            .stderr(Stdio::piped())
            .output()
            .expect("the test can be started");
        assert!(
            output.status.success(),
            "{}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        let printed = String::from_utf8_lossy(&output.stdout);
        let ran = printed.contains("1 passed");
        assert!(ran, "no such test: {:?}", self.command);
        printed
            .lines()
            .filter_map(without_harness)
            .for_each(|line| println!("{line}"));
        self.assert_nothing_left(&shm);
    }

    /// Does the same as [`run`](Self::run), and prints the test's lines as they come.
    #[cfg(target_os = "linux")]
    pub(crate) fn run_and_echo(mut self) {
        let shm = shared_memory();
        let mut child = self.command.spawn().expect("the test can be started");
        let stdout = std::io::BufReader::new(child.stdout.take().expect("stdout is piped"));
        for line in std::io::BufRead::lines(stdout) {
            if let Some(line) = without_harness(&line.expect("the output is UTF-8")) {
                println!("{line}");
            }
        }
        let status = child.wait().expect("the child can be waited for");
        assert!(status.success(), "{status}");
        self.assert_nothing_left(&shm);
    }

    fn assert_nothing_left(&self, shm: &[PathBuf]) {
        assert_eq!(self.tmp.entries(), Vec::<PathBuf>::new());
        assert_no_shared_memory_left(shm);
    }

    /// Runs the test to its end, successful or not. Returns its output, and what it left behind: temporary files, and
    /// processes as `/proc/PID`.
    #[cfg(target_os = "linux")]
    pub(crate) fn run_and_collect(mut self) -> (std::process::Output, Vec<PathBuf>) {
        let output = self.command.output().expect("the test can be started");
        let pids = super::processes_within(self.tmp.path()).into_iter();
        let mut left: Vec<PathBuf> = pids.map(|pid| format!("/proc/{pid}").into()).collect();
        left.extend(self.tmp.entries());
        (output, left)
    }

    /// Starts the test, with its standard output piped, and returns its process and its temporary directory.
    pub(crate) fn start(mut self) -> (Child, TempDir) {
        let child = self.command.spawn().expect("the test can be started");
        (child, self.tmp)
    }
}

/// Returns what the test itself printed in this line, without what the harness prints about the test: a program that
/// counts tests would count the test twice.
fn without_harness(line: &str) -> Option<&str> {
    // The test's first line follows its name.
    let line = match line.split_once(" ... ") {
        Some((name, line)) if name.starts_with("test ") => line,
        _ => line,
    };
    let harness = ["running ", "test result: "];
    let own = !line.is_empty() && line != "ok" && !harness.iter().any(|it| line.starts_with(it));
    own.then_some(line)
}
