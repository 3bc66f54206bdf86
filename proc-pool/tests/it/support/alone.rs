//! Tests that run once more in a process of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Dir, assert_left_nothing, shared_memory};

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

/// The variable that names the directory for temporary files.
const TEMPORARY: &str = if cfg!(windows) { "TMP" } else { "TMPDIR" };
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
            .env(TEMPORARY, tmp.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Self { command, tmp }
    }

    /// By another program, which is given this one and its arguments.
    #[cfg(target_os = "linux")]
    pub(crate) fn through(mut self, wrapper: &[&str]) -> Self {
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

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn env_remove(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    /// At a console that it shares with its workers alone, and that is not shown.
    #[cfg(windows)]
    pub(crate) fn at_own_console(mut self) -> Self {
        use std::os::windows::process::CommandExt;
        const CREATE_NO_WINDOW: u32 = 0x0800_0000;
        self.command.creation_flags(CREATE_NO_WINDOW);
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
    #[cfg(target_os = "linux")]
    pub(crate) fn run_aloud(mut self) {
        let shm = shared_memory();
        let mut child = self.command.spawn().expect("it can be started");
        let said = std::io::BufReader::new(child.stdout.take().expect("it is piped"));
        for line in std::io::BufRead::lines(said) {
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
    #[cfg(target_os = "linux")]
    pub(crate) fn report(mut self) -> (std::process::Output, Vec<PathBuf>) {
        let output = self.command.output().expect("it can be started");
        let pids = super::processes_within(self.tmp.path()).into_iter();
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
