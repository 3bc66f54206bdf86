//! The baseline of `payloads`: two child processes on streams, with buffers of 1 MiB.
//!
//! A thread for each child reads into new vectors, and does not zero them. A child receives the range of its tasks in one message, not
//! a message for each task.

#![allow(unsafe_code, reason = "reads into vectors that are not zeroed")]

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::thread;

use super::buffers::element_sum;
use super::{KEPT, echo, echo_inputs, first, make, number};
use crate::child::PART;
use crate::{Failure, WORKERS, os};

/// How parent and child are connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Pipes,
    #[cfg(unix)]
    Sockets,
}

/// Two child processes, each with a stream in each direction.
pub(super) struct Streams {
    transport: Transport,
    children: Vec<StreamChild>,
    bytes: usize,
}

/// A child process with streams to and from it; dropping this kills it.
struct StreamChild {
    child: Child,
    input: File,
    output: File,
}

impl Drop for StreamChild {
    fn drop(&mut self) {
        // This fails if the child has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Streams {
    /// Starts children that run this part, on every transport that this system has; pipes first.
    pub(super) fn all(what: &str, bytes: usize) -> Result<Vec<Self>, Failure> {
        let transports = [
            Transport::Pipes,
            #[cfg(unix)]
            Transport::Sockets,
        ];
        let started = transports.map(|transport| Self::start(transport, what, bytes));
        started.into_iter().collect()
    }

    pub(super) fn start(transport: Transport, what: &str, bytes: usize) -> Result<Self, Failure> {
        let start = || match transport {
            Transport::Pipes => on_pipes(&[what, &bytes.to_string()]),
            #[cfg(unix)]
            Transport::Sockets => on_sockets(&[what, &bytes.to_string()]),
        };
        Ok(Self {
            transport,
            children: (0..WORKERS).map(|_| start()).collect::<Result<_, _>>()?,
            bytes,
        })
    }

    pub(super) fn name(&self) -> &'static str {
        match self.transport {
            Transport::Pipes => "strong pipes",
            #[cfg(unix)]
            Transport::Sockets => "Unix sockets",
        }
    }

    pub(super) fn pids(&self) -> Vec<u32> {
        self.children.iter().map(|child| child.child.id()).collect()
    }

    pub(super) fn outputs(&mut self, tasks: u64) -> Result<u64, Failure> {
        self.read(tasks, |output, _| first(&output, output.len() * size_of::<f32>()))
    }

    /// Does the same as [`outputs`](Self::outputs), and sums the elements of each output.
    pub(super) fn summed(&mut self, tasks: u64) -> Result<u64, Failure> {
        self.read(tasks, |output, _| {
            std::hint::black_box(element_sum(&output));
            first(&output, output.len() * size_of::<f32>())
        })
    }

    pub(super) fn kept(&mut self, tasks: u64) -> Result<u64, Failure> {
        let most = KEPT / self.bytes / WORKERS;
        self.read(tasks, |output, kept| {
            let first = first(&output, output.len() * size_of::<f32>());
            kept.push(output);
            if kept.len() >= most {
                kept.clear();
            }
            first
        })
    }

    /// Has the children make the outputs of `0..tasks`, and calls `take` for each in the thread of its child.
    fn read(
        &mut self,
        tasks: u64,
        take: impl Fn(Vec<f32>, &mut Vec<Vec<f32>>) -> Result<u64, Failure> + Sync,
    ) -> Result<u64, Failure> {
        let (bytes, take) = (self.bytes, &take);
        thread::scope(|scope| {
            let mut readers = Vec::new();
            for (worker, child) in (0..).zip(&mut self.children) {
                let share = share(tasks, worker, WORKERS);
                child.input.write_all(&share.start.to_ne_bytes())?;
                child.input.write_all(&share.end.to_ne_bytes())?;
                let output = &mut child.output;
                readers.push(scope.spawn(move || {
                    let mut kept = Vec::new();
                    share.map(|_| take(read_numbers(output, bytes)?, &mut kept)).sum()
                }));
            }
            sum_of(readers)
        })
    }

    pub(super) fn echoes(&mut self, tasks: u64) -> Result<u64, Failure> {
        let bytes = self.bytes;
        let (mut inputs, outputs): (Vec<_>, Vec<_>) = self
            .children
            .iter_mut()
            .map(|child| (&mut child.input, &mut child.output))
            .unzip();
        thread::scope(|scope| {
            let mut readers = Vec::new();
            for (worker, output) in (0..).zip(outputs) {
                let mut turns = (worker..tasks).step_by(WORKERS);
                readers.push(scope.spawn(move || {
                    turns.try_fold(0, |sum, _| Ok(sum + number(&read_bytes(output, bytes)?)?))
                }));
            }
            // In turns, so that both children are busy.
            for (turn, input) in echo_inputs(tasks, bytes).enumerate() {
                inputs[turn % WORKERS].write_all(&input)?;
            }
            sum_of(readers)
        })
    }
}

type Reader<'s> = thread::ScopedJoinHandle<'s, Result<u64, Failure>>;

pub(super) fn sum_of(readers: Vec<Reader<'_>>) -> Result<u64, Failure> {
    readers.into_iter().try_fold(0, |sum, reader| {
        Ok(sum + reader.join().map_err(|_| "a reader panicked")??)
    })
}

/// Returns the tasks of one of several children or threads.
pub(super) fn share(tasks: u64, worker: usize, workers: usize) -> Range<u64> {
    let (worker, workers) = (worker as u64, workers as u64);
    tasks * worker / workers..tasks * (worker + 1) / workers
}

/// Runs in a child: makes outputs for ranges of tasks.
pub(crate) fn make_outputs(mut bytes: usize) -> Result<(), Failure> {
    let (mut input, mut output) = os::stdio()?;
    let mut range = [0; 16];
    while read_or_end(&mut input, &mut range)? {
        let numbers = range.as_chunks().0;
        for task in u64::from_ne_bytes(numbers[0])..u64::from_ne_bytes(numbers[1]) {
            output.write_all(bytemuck::cast_slice(&make(&mut bytes, task)))?;
        }
    }
    Ok(())
}

/// Runs in a child: writes back what it reads.
pub(crate) fn return_echoes(bytes: usize) -> Result<(), Failure> {
    let (mut input, mut output) = os::stdio()?;
    loop {
        let Ok(task) = read_bytes(&mut input, bytes) else {
            return Ok(());
        };
        output.write_all(&echo(task))?;
    }
}

fn read_or_end(input: &mut File, bytes: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}

/// Reads into a new vector. It is not zeroed before.
#[cfg(target_os = "linux")]
fn read_bytes(input: &mut impl std::os::fd::AsFd, bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut vec = Vec::with_capacity(bytes);
    while vec.len() < bytes {
        if rustix::io::read(&mut *input, rustix::buffer::spare_capacity(&mut vec))? == 0 {
            return Err("the pipe has ended".into());
        }
    }
    Ok(vec)
}

#[cfg(not(target_os = "linux"))]
fn read_bytes(input: &mut impl Read, bytes: usize) -> Result<Vec<u8>, Failure> {
    let mut vec = vec![0; bytes];
    input.read_exact(&mut vec)?;
    Ok(vec)
}

/// Reads into a new vector. It is not zeroed before.
#[cfg(target_os = "linux")]
fn read_numbers(input: &mut impl std::os::fd::AsFd, bytes: usize) -> Result<Vec<f32>, Failure> {
    use std::mem::MaybeUninit;

    let mut vec = Vec::<f32>::with_capacity(bytes / size_of::<f32>());
    let mut filled = 0;
    while filled < bytes {
        let spare = vec.spare_capacity_mut();
        // SAFETY: the spare capacity is memory of the vector; any bytes may be uninitialized, and bytes have no alignment.
        let spare = unsafe {
            std::slice::from_raw_parts_mut(spare.as_mut_ptr().cast::<MaybeUninit<u8>>(), size_of_val(spare))
        };
        let (read, _) = rustix::io::read(&mut *input, &mut spare[filled..bytes])?;
        if read.is_empty() {
            return Err("the pipe has ended".into());
        }
        filled += read.len();
    }
    // SAFETY: `bytes` bytes were read, and any bytes are valid numbers.
    unsafe { vec.set_len(bytes / size_of::<f32>()) };
    Ok(vec)
}

#[cfg(not(target_os = "linux"))]
fn read_numbers(input: &mut impl Read, bytes: usize) -> Result<Vec<f32>, Failure> {
    let mut vec = vec![0.0; bytes / size_of::<f32>()];
    input.read_exact(bytemuck::cast_slice_mut(&mut vec))?;
    Ok(vec)
}

/// The size that the buffer of a stream is enlarged to, in bytes.
#[cfg(unix)]
const BUFFER: usize = 1 << 20;

fn command(part: &[&str]) -> Result<Command, Failure> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(PART).args(part);
    Ok(command)
}

fn on_pipes(part: &[&str]) -> Result<StreamChild, Failure> {
    let mut child = command(part)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let input = child.stdin.take().ok_or("no input")?;
    let output = child.stdout.take().ok_or("no output")?;
    #[cfg(target_os = "linux")]
    {
        rustix::pipe::fcntl_setpipe_size(&input, BUFFER)?;
        rustix::pipe::fcntl_setpipe_size(&output, BUFFER)?;
    }
    Ok(StreamChild {
        child,
        input: file(input),
        output: file(output),
    })
}

#[cfg(unix)]
fn file(stream: impl Into<std::os::fd::OwnedFd>) -> File {
    stream.into().into()
}

#[cfg(windows)]
fn file(stream: impl Into<std::os::windows::io::OwnedHandle>) -> File {
    stream.into().into()
}

/// Starts a child whose standard input and output are one socket.
#[cfg(unix)]
fn on_sockets(part: &[&str]) -> Result<StreamChild, Failure> {
    use std::os::unix::net::UnixStream;

    let (ours, theirs) = UnixStream::pair()?;
    for socket in [&ours, &theirs] {
        rustix::net::sockopt::set_socket_send_buffer_size(socket, BUFFER)?;
        rustix::net::sockopt::set_socket_recv_buffer_size(socket, BUFFER)?;
    }
    let child = command(part)?
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone()?)))
        .stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .spawn()?;
    Ok(StreamChild {
        child,
        input: file(ours.try_clone()?),
        output: file(ours),
    })
}
