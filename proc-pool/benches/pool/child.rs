//! Child processes of the benchmark: this program, started again with a part to run.

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::{Failure, idle, os, payloads, peers, pipes, rings, side, waking};

/// The argument before the name of a part and its arguments.
pub(crate) const PART: &str = "--part";

/// Runs the part of a child process.
pub(crate) fn run_part(part: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = part.iter().map(String::as_str).collect();
    match words[..] {
        ["byte"] => {
            let (_, mut output) = os::stdio()?;
            Ok(output.write_all(b"!")?)
        }
        // Until the parent kills it.
        ["busy"] => loop {
            std::hint::spin_loop();
        },
        ["echo"] => respond(|_: &mut [u8; 8]| {}),
        ["batches"] => respond(|batch: &mut [u8; pipes::BATCH_BYTES]| pipes::run_batch(batch)),
        ["rings"] => rings::worker(),
        ["outputs", bytes] => payloads::make_outputs(bytes.parse()?),
        ["echoes", bytes] => payloads::return_echoes(bytes.parse()?),
        ["cost", what, bytes, tasks] => payloads::run_payloads(what, bytes.parse()?, tasks.parse()?),
        ["idle", bytes] => idle::run(bytes.parse()?),
        ["ipc", server] => peers::ipc_worker(server),
        ["side", model, users] => side::run(model.parse()?, users.parse()?),
        ["steady", case, tasks] => waking::steady(case, tasks.parse()?),
        _ => Err(format!("no such part: {part:?}").into()),
    }
}

/// Reads `BYTES` bytes, changes them and writes them back, until the input ends.
fn respond<const BYTES: usize>(change: impl Fn(&mut [u8; BYTES])) -> Result<(), Failure> {
    let (mut input, mut output) = os::stdio()?;
    let mut bytes = [0; BYTES];
    loop {
        match input.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        change(&mut bytes);
        output.write_all(&bytes)?;
    }
}

/// A child process with pipes to and from it; dropping this kills it.
pub(crate) struct Part {
    pub(crate) child: Child,
    pub(crate) input: ChildStdin,
    pub(crate) output: ChildStdout,
}

impl Part {
    pub(crate) fn start(part: &[&str]) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg(PART)
            .args(part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no input")?;
        let output = child.stdout.take().ok_or("no output")?;
        Ok(Self { child, input, output })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // This fails if the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
