//! The parts that this program plays when it runs itself again.

use std::io::{ErrorKind, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::{Failure, os, peers, pipes, rings, side, waking};

/// The argument before a part.
pub(crate) const PART: &str = "--part";

pub(crate) fn play(part: &[String]) -> Result<(), Failure> {
    let words: Vec<&str> = part.iter().map(String::as_str).collect();
    match words[..] {
        ["byte"] => {
            let (_, mut output) = os::stdio()?;
            Ok(output.write_all(b"!")?)
        }
        // Until it is killed.
        ["busy"] => loop {
            std::hint::spin_loop();
        },
        ["echo"] => answer(|_: &mut [u8; 8]| {}),
        ["batches"] => answer(|batch: &mut [u8; pipes::BATCH_BYTES]| pipes::answer_batch(batch)),
        ["rings"] => rings::worker(),
        ["ipc", server] => peers::ipc_worker(server),
        ["side", model, users] => side::tell(model.parse()?, users.parse()?),
        ["steady", case, tasks] => waking::steady(case, tasks.parse()?),
        _ => Err(format!("no such part: {part:?}").into()),
    }
}

/// Reads so many bytes, gives them back changed, until there are no more.
fn answer<const BYTES: usize>(change: impl Fn(&mut [u8; BYTES])) -> Result<(), Failure> {
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

/// A child with pipes to and from it; killed in the end.
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
        // It fails if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
