//! Running programs: each is echoed before it starts, and its end is an error that names it.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::ops::AddAssign;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::outcome::Error;

/// How long the output of a finished test run may stay open. Workers end within 2 s of their leader; whoever still holds
/// the pipe after this was left behind by a test.
const LEAK_GRACE: Duration = Duration::from_secs(10);

/// A program with its arguments, and the line to echo for it.
pub(crate) struct Cmd {
    command: Command,
    shown: String,
}

impl Cmd {
    pub(crate) fn new(program: impl AsRef<OsStr>) -> Self {
        let program = program.as_ref();
        Self {
            command: Command::new(program),
            shown: shell_word(program),
        }
    }

    /// The cargo that runs this tool.
    pub(crate) fn cargo() -> Self {
        let program = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
        Self {
            command: Command::new(program),
            shown: "cargo".to_owned(),
        }
    }

    pub(crate) fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        for arg in args {
            self.shown.push(' ');
            self.shown.push_str(&shell_word(arg.as_ref()));
            self.command.arg(arg);
        }
        self
    }

    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.shown = format!("{name}={} {}", shell_word(value.as_ref()), self.shown);
        self.command.env(name, value);
        self
    }

    /// Hides variables of this process's environment from it.
    pub(crate) fn without(mut self, names: &[&str]) -> Self {
        for name in names {
            self.command.env_remove(name);
        }
        self
    }

    pub(crate) fn current_dir(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// This command as the tail of another one's command line, `launcher... program args...`.
    ///
    /// Environment and directory set on `self` are kept.
    pub(crate) fn under(self, launcher: &[&str]) -> Self {
        let (first, rest) = launcher.split_first().expect("a launcher has a program");
        let mut outer = Self::new(first).args(rest);
        outer
            .command
            .arg(self.command.get_program())
            .args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => outer.command.env(name, value),
                None => outer.command.env_remove(name),
            };
        }
        if let Some(dir) = self.command.get_current_dir() {
            outer.command.current_dir(dir);
        }
        outer.shown = format!("{} {}", outer.shown, self.shown);
        outer
    }

    /// Runs it with this process's own input and output.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        self.echo();
        let status = self.command.status().map_err(|error| self.not_started(&error))?;
        self.judge(status)
    }

    /// Runs it with this process's own input and output; how it ends is the caller's to judge.
    pub(crate) fn status(mut self) -> Result<ExitStatus, Error> {
        self.echo();
        self.command.status().map_err(|error| self.not_started(&error))
    }

    /// Starts it; its standard error is to be read, and its standard output is not shown.
    pub(crate) fn start_to_read_stderr(mut self) -> Result<Child, Error> {
        self.echo();
        self.command.stdout(Stdio::null()).stderr(Stdio::piped());
        self.command.spawn().map_err(|error| self.not_started(&error))
    }

    /// Runs it and gives back what it wrote to standard output, which is not shown.
    pub(crate) fn stdout(mut self) -> Result<String, Error> {
        let output = self
            .command
            .stderr(Stdio::inherit())
            .output()
            .map_err(|error| self.not_started(&error))?;
        self.judge(output.status)?;
        String::from_utf8(output.stdout)
            .map_err(|_| Error::failed(format!("`{}` wrote something that is not UTF-8", self.shown)))
    }

    /// Asks a question: what it answers, if it exists and succeeds; says nothing.
    pub(crate) fn stdout_quietly(mut self) -> Option<String> {
        let output = self.command.stderr(Stdio::null()).output().ok()?;
        output.status.success().then_some(())?;
        String::from_utf8(output.stdout).ok()
    }

    /// Asks a question: says nothing, and tells whether the program exists and succeeded.
    pub(crate) fn succeeds(mut self) -> bool {
        self.command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.command.status().is_ok_and(|status| status.success())
    }

    /// Runs it as a test runner: shows its output as it comes, and adds what libtest counted to `tally`, also when it
    /// fails.
    pub(crate) fn run_tests(self, tally: &mut Tally) -> Result<(), Error> {
        self.run_tests_to(&mut io::stdout(), tally)
    }

    /// As [`run_tests`](Self::run_tests), and shows the output to `shown` instead.
    pub(crate) fn run_tests_to(self, shown: &mut dyn Write, tally: &mut Tally) -> Result<(), Error> {
        self.echo();
        self.run_tests_showing(shown, LEAK_GRACE, tally)
    }

    fn run_tests_showing(
        mut self,
        shown: &mut dyn Write,
        grace: Duration,
        tally: &mut Tally,
    ) -> Result<(), Error> {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| self.not_started(&error))?;
        let mut output = child.stdout.take().expect("standard output was asked for");
        let (chunks, received) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 8192];
            // Chunks, not lines: the name of a test that hangs is shown before its line is complete.
            while let Ok(n @ 1..) = output.read(&mut buffer) {
                if chunks.send(buffer[..n].to_vec()).is_err() {
                    break;
                }
            }
        });

        let (waited, exit) = mpsc::channel();
        thread::spawn(move || waited.send(child.wait()));
        let mut reader = TallyReader::default();
        let mut ended: Option<(io::Result<ExitStatus>, Instant)> = None;
        let leaked = loop {
            if ended.is_none() {
                ended = exit.try_recv().ok().map(|status| (status, Instant::now()));
            }
            if ended.as_ref().is_some_and(|(_, at)| at.elapsed() > grace) {
                break true;
            }
            match received.recv_timeout(Duration::from_millis(200)) {
                Ok(chunk) => {
                    // A closed standard output is no reason to stop testing.
                    let _ = shown.write_all(&chunk).and_then(|()| shown.flush());
                    reader.feed(&chunk);
                }
                Err(RecvTimeoutError::Disconnected) => break false,
                Err(RecvTimeoutError::Timeout) => {}
            }
        };
        *tally += reader.tally;
        let status = match ended {
            Some((status, _)) => status,
            None => exit.recv().expect("the waiting thread reports before it ends"),
        };
        self.judge(status.map_err(|error| self.not_started(&error))?)?;
        if leaked {
            return Err(Error::failed(format!(
                "`{}` ended, but something it started still holds its output {grace:?} later",
                self.shown
            )));
        }
        Ok(())
    }

    /// The line that is echoed for it.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    fn echo(&self) {
        eprintln!("$ {}", self.shown());
    }

    fn not_started(&self, error: &io::Error) -> Error {
        Error::failed(format!("cannot run `{}`: {error}", self.shown))
    }

    fn judge(&self, status: ExitStatus) -> Result<(), Error> {
        if status.success() {
            Ok(())
        } else {
            Err(Error::failed(format!("`{}`: {status}", self.shown)))
        }
    }
}

/// An argument as a shell would need it, so that an echoed line can be pasted.
fn shell_word(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// How many tests ended which way.
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

/// Finds libtest's `test result:` lines in a stream of chunks.
#[derive(Default)]
struct TallyReader {
    line: Vec<u8>,
    tally: Tally,
}

impl TallyReader {
    fn feed(&mut self, chunk: &[u8]) {
        for &byte in chunk {
            if byte == b'\n' {
                if let Some(tally) = result_line(&String::from_utf8_lossy(&self.line)) {
                    self.tally += tally;
                }
                self.line.clear();
            } else {
                self.line.push(byte);
            }
        }
    }
}

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; ...`.
fn result_line(line: &str) -> Option<Tally> {
    let (_, counts) = line
        .trim_start()
        .strip_prefix("test result: ")?
        .split_once(". ")?;
    let mut tally = Tally::default();
    for part in counts.split("; ") {
        let (count, what) = part.split_once(' ')?;
        match what {
            "passed" => tally.passed = count.parse().ok()?,
            "failed" => tally.failed = count.parse().ok()?,
            "ignored" => tally.ignored = count.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str =
        "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.01s\n";
    const BAD: &str =
        "test result: FAILED. 1 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1.5s\n";

    #[test]
    fn results_are_counted_across_binaries_and_however_the_stream_is_cut() {
        let stream = format!("running 4 tests\ntest a ... ok\n{OK}\n   Doc-tests x\n{BAD}");
        let expected = Tally {
            passed: 4,
            failed: 2,
            ignored: 1,
        };
        for size in [1, 7, stream.len()] {
            let mut reader = TallyReader::default();
            stream
                .as_bytes()
                .chunks(size)
                .for_each(|chunk| reader.feed(chunk));
            assert_eq!(reader.tally, expected, "chunks of {size}");
        }
    }

    #[test]
    fn only_result_lines_count() {
        assert_eq!(result_line("3 passed; 0 failed"), None);
        assert_eq!(result_line("test result: ok"), None);
    }

    #[test]
    fn echoed_words_can_be_pasted_into_a_shell() {
        assert_eq!(shell_word(OsStr::new("--all-targets")), "--all-targets");
        assert_eq!(shell_word(OsStr::new("-D warnings")), "'-D warnings'");
        assert_eq!(shell_word(OsStr::new("it's")), r"'it'\''s'");
        assert_eq!(shell_word(OsStr::new("")), "''");
    }

    #[cfg(unix)]
    #[test]
    fn a_failed_test_run_still_tells_what_it_counted() {
        let mut tally = Tally::default();
        let script = format!("printf '{}'; exit 3", BAD.replace('\n', "\\n"));
        // Not to standard output, where whoever counts this tool's own tests would read it.
        let mut shown = Vec::new();
        let result = Cmd::new("sh")
            .args(["-c", &script])
            .run_tests_showing(&mut shown, LEAK_GRACE, &mut tally);
        let error = result.expect_err("exit 3 passed");
        assert_eq!(String::from_utf8_lossy(&shown), BAD);
        assert_eq!(
            tally,
            Tally {
                passed: 1,
                failed: 2,
                ignored: 0
            }
        );
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn whatever_a_test_run_leaves_behind_is_told() {
        let mut tally = Tally::default();
        // The background process holds the output until this end of its input is closed.
        let (input, held) = io::pipe().expect("a pipe");
        let mut cmd = Cmd::new("sh").args(["-c", "exec 3<&0; cat <&3 & exit 0"]);
        cmd.command.stdin(input);
        let result = cmd.run_tests_showing(&mut io::sink(), Duration::ZERO, &mut tally);
        drop(held);
        let error = result.expect_err("a leak passed");
        assert!(error.to_string().contains("still holds its output"), "{error}");
    }

    #[test]
    fn a_launcher_comes_first_and_the_environment_is_kept() {
        let inner = Cmd::new("sh")
            .args(["-c", "test \"$PLACE\" = here"])
            .env("PLACE", "here");
        let outer = inner.under(&["env", "--"]);
        assert_eq!(outer.shown(), r#"env -- PLACE=here sh -c 'test "$PLACE" = here'"#);
        if cfg!(unix) {
            assert!(outer.succeeds());
        }
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = Cmd::new("no-such-program-here")
            .run()
            .expect_err("ran a missing program");
        assert!(error.to_string().contains("no-such-program-here"), "{error}");
    }
}
