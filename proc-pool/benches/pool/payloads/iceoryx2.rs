//! A peer that is optional: outputs through iceoryx2. Its program is a package of its own, `benchmarks/iceoryx2`, which
//! `cargo xtask bench pool --with iceoryx2` builds and names in a variable.

use std::io::{BufRead, BufReader, Write};
use std::ops::RangeInclusive;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::Failure;

/// The variable with the path of the program.
const PROGRAM: &str = "BENCH_ICEORYX2";
/// The sizes that are measured, in bytes.
const SIZES: RangeInclusive<usize> = 4 << 10..=8 << 20;

/// The program, with two children that make outputs of one size.
pub(super) struct Iceoryx2 {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Iceoryx2 {
    /// Returns `None` for other sizes, and if there is no program.
    pub(super) fn start(bytes: usize) -> Result<Option<Self>, Failure> {
        let program = std::env::var_os(PROGRAM).filter(|_| SIZES.contains(&bytes));
        let Some(program) = program else {
            return Ok(None);
        };
        let mut child = Command::new(program)
            .arg(bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Some(Self { child, input, output }))
    }

    pub(super) fn outputs(&mut self, tasks: u64) -> Result<u64, Failure> {
        let input = self.input.as_mut().ok_or("no input")?;
        writeln!(input, "{tasks}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        let sum = line.trim().parse();
        sum.map_err(|_| "the program with iceoryx2 has failed, see above".into())
    }
}

impl Drop for Iceoryx2 {
    fn drop(&mut self) {
        // It ends with its input, and removes its files: iceoryx2 would leave those of killed processes.
        self.input = None;
        let _ = self.child.wait();
    }
}
