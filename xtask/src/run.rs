//! Test runs: shows their output, counts their tests, and finds processes that outlive them. `xshell` runs everything else.

use std::fmt;
use std::io::{self, Read, Write};
use std::ops::AddAssign;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use xshell::Cmd;

/// How long the output of a finished test run may stay open. Workers exit within 2 s of their leader; a process that
/// holds the pipe for longer was left behind by a test.
const LEAK_GRACE: Duration = Duration::from_secs(10);

/// Returns whether the program exists and succeeds. Prints nothing.
pub(crate) fn succeeds(cmd: Cmd<'_>) -> bool {
    cmd.quiet().ignore_stdout().ignore_stderr().run().is_ok()
}

/// Runs a test runner, shows its output as it arrives, and adds what libtest counted to `tally`, also when it fails.
pub(crate) fn tests(cmd: Cmd<'_>, tally: &mut Tally) -> Result<()> {
    tests_with(cmd, tally, |_| {})
}

/// Like `tests`, and passes each line of the output to `on_line`.
pub(crate) fn tests_with(cmd: Cmd<'_>, tally: &mut Tally, mut on_line: impl FnMut(&str)) -> Result<()> {
    let (name, mut command) = named(cmd);
    eprintln!("$ {name}");
    watch(&name, &mut command, &mut io::stdout(), LEAK_GRACE, |line| {
        *tally += results(line).unwrap_or_default();
        on_line(line);
    })
}

/// Returns the command line with its variables, and the command.
fn named(cmd: Cmd<'_>) -> (String, Command) {
    let (mut name, command) = (cmd.to_string(), Command::from(cmd));
    for (variable, value) in command.get_envs() {
        name = format!("{}={:?} {name}", variable.display(), value.unwrap_or_default());
    }
    (name, command)
}

/// Runs `command`, copies its output to `out` and its lines to `on_line`. Fails if the output is still open `grace` after the
/// end of the command.
fn watch(
    name: &str,
    command: &mut Command,
    out: &mut dyn Write,
    grace: Duration,
    mut on_line: impl FnMut(&str),
) -> Result<()> {
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.with_context(|| format!("cannot run `{name}`"))?;
    let mut output = child.stdout.take().expect("standard output is piped");
    let (sender, chunks) = mpsc::channel();
    thread::spawn(move || {
        let mut buffer = [0; 8192];
        // Chunks, not lines: the name of a test that hangs is shown before its line is complete.
        while let Ok(n @ 1..) = output.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                break;
            }
        }
    });
    let (mut exited, mut line) = (None::<Instant>, Vec::new());
    let leaked = loop {
        match chunks.recv_timeout(Duration::from_millis(200)) {
            Ok(chunk) => {
                // A closed standard output is no reason to stop testing.
                let _ = out.write_all(&chunk).and_then(|()| out.flush());
                line.extend(chunk);
                while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                    let complete: Vec<u8> = line.drain(..=end).collect();
                    on_line(String::from_utf8_lossy(&complete).trim_end());
                }
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if exited.is_none() && child.try_wait()?.is_some() {
            exited = Some(Instant::now());
        }
        if exited.is_some_and(|at| at.elapsed() > grace) {
            break true;
        }
    };
    let status = child.wait()?;
    ensure!(status.success(), "`{name}`: {status}");
    ensure!(
        !leaked,
        "`{name}` exited, its output was still open {grace:?} later"
    );
    Ok(())
}

/// How many tests passed, failed and were skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) ignored: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (passed, failed, ignored) = (self.passed, self.failed, self.ignored);
        write!(f, "{passed} passed, {failed} failed, {ignored} skipped")
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; ...`.
fn results(line: &str) -> Option<Tally> {
    let counts = line.trim_start().strip_prefix("test result: ")?;
    let (_, counts) = counts.split_once(". ")?;
    let number = |what| {
        let mut counts = counts.split("; ");
        counts.find_map(|count| count.strip_suffix(what)?.parse().ok())
    };
    let (passed, failed, ignored) = (number(" passed")?, number(" failed")?, number(" ignored")?);
    Some(Tally {
        passed,
        failed,
        ignored,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_result_lines_are_counted() {
        let line = "test result: FAILED. 3 passed; 2 failed; 1 ignored; 0 measured; finished in 0.01s";
        let tally = results(line).expect("a result");
        assert_eq!(tally.to_string(), "3 passed, 2 failed, 1 skipped");
        for other in ["3 passed; 0 failed; 1 ignored", "test result: ok"] {
            assert_eq!(results(other), None, "{other}");
        }
    }

    /// Runs a script for `sh`, and returns its output, its lines and its result.
    #[cfg(unix)]
    fn watched(script: &str, input: Stdio, grace: Duration) -> (Vec<u8>, Vec<String>, Result<()>) {
        let (mut out, mut lines) = (Vec::new(), Vec::new());
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(input);
        let read = |line: &str| lines.push(line.to_owned());
        let result = watch("script", &mut command, &mut out, grace, read);
        (out, lines, result)
    }

    #[test]
    fn missing_program_is_named_with_its_variables() {
        let sh = xshell::Shell::new().expect("a shell");
        let cmd = sh.cmd("no-such-program").arg("it").env("SEED", "1 2");
        let error = tests(cmd, &mut Tally::default()).expect_err("ran a missing program");
        assert_eq!(error.to_string(), "cannot run `SEED=\"1 2\" no-such-program it`");
    }

    #[cfg(unix)]
    #[test]
    fn failing_run_is_read_to_its_end() {
        let script = r"printf 'one\ntw'; sleep 0.01; printf 'o\r\n'; exit 3";
        let (out, lines, result) = watched(script, Stdio::null(), LEAK_GRACE);
        let error = result.expect_err("exit status 3 passed");
        assert_eq!(error.to_string(), "`script`: exit status: 3");
        assert_eq!(lines, ["one", "two"]);
        assert_eq!(out, b"one\ntwo\r\n");
    }

    #[cfg(unix)]
    #[test]
    fn process_left_behind_is_reported() {
        // The background process holds the output until this end of its input is closed.
        let (input, held) = io::pipe().expect("a pipe");
        let script = "exec 3<&0; cat <&3 & exit 0";
        let (.., result) = watched(script, input.into(), Duration::ZERO);
        drop(held);
        let error = result.expect_err("a leak passed");
        assert!(error.to_string().contains("its output was still open"), "{error}");
    }
}
