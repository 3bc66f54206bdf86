//! [`PipeSet`]: reads many pipes on Windows, with one thread for each, because a thread can't wait for several anonymous pipes.
//! `process::output_reader` uses it for what workers print.

use std::fs::File;
use std::io::{self, Read};
use std::os::windows::io::OwnedHandle;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

/// The reading end of a pipe.
pub(crate) type Pipe = OwnedHandle;

/// Maximum number of bytes of one read.
const SLICE: usize = 64 << 10;
/// The longest wait for the end of a pipe after the process has ended. A child of the process may keep the pipe open.
const ENDING: Duration = Duration::from_millis(200);

/// The key of a pipe and the bytes that were read. No bytes: the end of the pipe. No key: a wakeup.
type PipeRead = (Option<u64>, Vec<u8>);

/// A set of pipes, each with a key.
#[derive(Debug)]
pub(crate) struct PipeSet {
    receiver: Receiver<PipeRead>,
    sender: Sender<PipeRead>,
    open: Vec<u64>,
}

/// Ends the wait of its [`PipeSet`], or the next one if it does not wait now.
#[derive(Debug)]
pub(crate) struct PipeSetWaker(Sender<PipeRead>);

impl PipeSetWaker {
    pub(crate) fn wake(&self) {
        // If the channel is full, the set wakes anyway.
        let _ = self.0.try_send((None, Vec::new()));
    }
}

impl PipeSet {
    pub(crate) fn new() -> io::Result<(Self, PipeSetWaker)> {
        let (sender, receiver) = crossbeam_channel::bounded(16);
        let pipes = Self {
            receiver,
            sender: sender.clone(),
            open: Vec::new(),
        };
        Ok((pipes, PipeSetWaker(sender)))
    }

    pub(crate) fn add(&mut self, key: u64, pipe: Pipe) -> io::Result<()> {
        let sender = self.sender.clone();
        // The thread ends with the pipe. If a child outlives its worker, the pipe ends with the child.
        let read = move || {
            let mut pipe = File::from(pipe);
            let mut buffer = vec![0; SLICE];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                if sender.send((Some(key), buffer[..count].to_vec())).is_err() || count == 0 {
                    return;
                }
            }
        };
        thread::Builder::new().name("proc-pool pipe".into()).spawn(read)?;
        self.open.push(key);
        Ok(())
    }

    /// Waits until a pipe was read, or for the waker. Passes the bytes that were read to `on_read`, and an empty slice at the
    /// end of a pipe.
    pub(crate) fn wait(&mut self, on_read: impl FnMut(u64, &[u8])) -> io::Result<()> {
        // It does not fail, because this value has a sender itself.
        if let Ok(read) = self.receiver.recv() {
            self.process(read, on_read);
        }
        Ok(())
    }

    fn process(&mut self, (key, bytes): PipeRead, mut on_read: impl FnMut(u64, &[u8])) {
        let Some(key) = key.filter(|key| self.open.contains(key)) else {
            return;
        };
        if bytes.is_empty() {
            self.open.retain(|it| *it != key);
        }
        on_read(key, &bytes);
    }

    /// Reads the rest, and ignores the pipe from then on. It is called after the process at the other end has ended.
    pub(crate) fn finish(&mut self, key: u64, mut on_read: impl FnMut(u64, &[u8])) {
        let until = Instant::now() + ENDING;
        while self.open.contains(&key) {
            match self.receiver.recv_deadline(until) {
                Ok(read) => self.process(read, &mut on_read),
                Err(_) => self.process((Some(key), Vec::new()), &mut on_read),
            }
        }
    }
}
