//! Runs tests that need a second process: the test binary runs one of its own tests again.

use std::process::{Command, ExitStatus, Stdio};

/// The environment variable that a child finds. Its value is the child's parameter.
const PART: &str = "SHM_BUFFERS_TEST_PART";
/// A child prints this at the end, so that a child that ran no test is a failure.
#[cfg(unix)]
const SUCCESS: &str = "all checks passed";

/// Returns the parameter of this process, if it is a child.
pub(crate) fn part() -> Option<String> {
    std::env::var(PART).ok()
}

/// Returns a command that runs `test` (its path in this binary) in a child with the parameter `part`. The command line starts
/// with `launcher`.
pub(crate) fn again(launcher: &[&str], test: &str, part: &str) -> Command {
    let exe = std::env::current_exe().expect("the path of the test binary");
    let mut words = launcher.iter().map(std::ffi::OsStr::new).chain([exe.as_os_str()]);
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

/// Runs a command, and returns its exit status and its output.
pub(crate) fn run(command: &mut Command) -> (ExitStatus, String) {
    let output = command.output().expect("a child can be spawned");
    let text = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&text).into_owned())
}

/// Reports from a child that it has reached its end.
#[cfg(unix)]
pub(crate) fn report_success() {
    println!("{SUCCESS}");
}

/// Runs a command, and panics unless the child succeeds and calls [`report_success`].
#[cfg(unix)]
#[track_caller]
pub(crate) fn assert_success(command: &mut Command) {
    let (status, output) = run(command);
    assert!(
        status.success() && output.contains(SUCCESS),
        "{command:?}: {status}, with the output\n{output}"
    );
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
