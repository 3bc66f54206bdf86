//! Tests that need a second process: the test binary runs one of its own tests again.

use std::process::{Command, Stdio};

/// What a child finds in its environment; the value is for it to read.
const PART: &str = "SHM_BUFFERS_TEST_PART";

/// What this process is told to do instead of the test, if it is a child.
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// This binary, to run `test` (its path in the binary) in a child told `part`; `under` comes before it.
pub(crate) fn again(under: &[&str], test: &str, part: &str) -> Command {
    let exe = std::env::current_exe().expect("a test binary knows where it is");
    let mut words = under.iter().map(std::ffi::OsStr::new).chain([exe.as_os_str()]);
    let mut command = Command::new(words.next().expect("at least the binary"));
    command
        .args(words)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(PART, part)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs it; gives its exit status and all it said.
pub(crate) fn run(command: &mut Command) -> (std::process::ExitStatus, String) {
    let output = command.output().expect("a child can be spawned");
    let said = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&said).into_owned())
}

/// Aborts this process after `seconds`, so that a test that hangs fails.
#[cfg(target_os = "linux")]
pub(crate) fn watchdog(seconds: u64) {
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_secs(seconds));
        eprintln!("the test did not end in {seconds} s");
        std::process::abort();
    });
}
