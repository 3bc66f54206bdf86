//! Runs the benchmark again, for measures that need a process of their own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use shm_buffers::{Image, SegmentHandle};

use crate::model::Model;
use crate::{Failure, many, moving, residence};

const PART: &str = "SHM_BUFFERS_BENCH_PART";

/// Runs the measure of a child and returns true, if this process is a child.
pub(crate) fn serve() -> Result<bool, Failure> {
    let Ok(part) = std::env::var(PART) else {
        return Ok(false);
    };
    match part.split_whitespace().collect::<Vec<_>>()[..] {
        ["move", bytes, arrays] => moving::serve(bytes.parse()?, arrays.parse()?)?,
        #[cfg(feature = "zstd")]
        ["load", ref path @ ..] => crate::loading::serve(path.join(" ").as_ref())?,
        ["leader", bytes, workers] => residence::serve(bytes.parse()?, workers.parse()?)?,
        ["worker"] => worker()?,
        ["many"] => many::serve()?,
        _ => return Err(format!("no such part: {part}").into()),
    }
    Ok(true)
}

/// Runs a worker: attaches the model whose handle is on a line, and answers each line with its memory.
fn worker() -> Result<(), Failure> {
    let mut model = None;
    for line in std::io::stdin().lines() {
        let line = line?;
        if !line.is_empty() {
            let handle: SegmentHandle = serde_json::from_str(&line)?;
            let attached: Model = Image::attach(&handle)?.load()?;
            std::hint::black_box(attached.touch());
            model = Some(attached);
        }
        println!("{}", proportional()?);
    }
    drop(model);
    Ok(())
}

/// Returns this process's share of all memory: a page that n processes map counts one n-th for each (proc(5)).
pub(crate) fn proportional() -> Result<u64, Failure> {
    kib("/proc/self/smaps_rollup", "Pss:")
}

/// Returns the number of KiB after `key`, in bytes.
pub(crate) fn kib(path: &str, key: &str) -> Result<u64, Failure> {
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number
        .ok_or_else(|| format!("{path} has no {key}"))?
        .parse::<u64>()?
        * 1024)
}

/// A child that answers each line with a number.
pub(crate) struct LineChild {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl LineChild {
    pub(crate) fn spawn(part: &str) -> Result<Self, Failure> {
        let mut child = Command::new(std::env::current_exe()?)
            .env(PART, part)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or("no input")?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        Ok(Self { child, input, output })
    }

    pub(crate) fn ask(&mut self, line: &str) -> Result<u64, Failure> {
        writeln!(self.input, "{line}")?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        Ok(answer.trim().parse()?)
    }

    pub(crate) fn end(self) -> Result<(), Failure> {
        let Self { mut child, input, .. } = self;
        drop(input);
        match child.wait()? {
            status if status.success() => Ok(()),
            status => Err(format!("a child ended with {status}").into()),
        }
    }
}
