//! Reading many pipes: a thread for each, because anonymous pipes can't be waited for together here.

use std::fs::File;
use std::io::{self, Read};
use std::os::windows::io::OwnedHandle;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};

/// The end of a pipe that is read.
pub(crate) type Pipe = OwnedHandle;

/// Bytes read from a pipe at once.
const SLICE: usize = 64 << 10;
/// How long a pipe may stay open after the process's end: a child of its own may have it.
const ENDING: Duration = Duration::from_millis(200);

/// A pipe's key and what was read; nothing at its end. No key: the waker's.
type News = (Option<u64>, Vec<u8>);

/// Pipes, each with a key.
#[derive(Debug)]
pub(crate) struct Pipes {
    news: Receiver<News>,
    tell: Sender<News>,
    open: Vec<u64>,
}

/// Ends a wait of [`Pipes`].
#[derive(Debug)]
pub(crate) struct Waker(Sender<News>);

impl Waker {
    pub(crate) fn wake(&self) {
        // When it is full it wakes anyway.
        let _ = self.0.try_send((None, Vec::new()));
    }
}

impl Pipes {
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let (tell, news) = crossbeam_channel::bounded(16);
        let pipes = Self {
            news,
            tell: tell.clone(),
            open: Vec::new(),
        };
        Ok((pipes, Waker(tell)))
    }

    pub(crate) fn add(&mut self, key: u64, pipe: Pipe) -> io::Result<()> {
        let tell = self.tell.clone();
        // It ends with the pipe: that of a child that outlives its worker ends with the child.
        let read = move || {
            let mut pipe = File::from(pipe);
            let mut buffer = vec![0; SLICE];
            loop {
                let count = pipe.read(&mut buffer).unwrap_or(0);
                if tell.send((Some(key), buffer[..count].to_vec())).is_err() || count == 0 {
                    return;
                }
            }
        };
        thread::Builder::new().name("proc-pool pipe".into()).spawn(read)?;
        self.open.push(key);
        Ok(())
    }

    /// Waits until there is something to read, or for the waker; `heard` gets what was read, or nothing at a pipe's
    /// end.
    pub(crate) fn wait(&mut self, heard: impl FnMut(u64, &[u8])) -> io::Result<()> {
        // Not while we hold a sender.
        if let Ok(news) = self.news.recv() {
            self.hear(news, heard);
        }
        Ok(())
    }

    fn hear(&mut self, (key, bytes): News, mut heard: impl FnMut(u64, &[u8])) {
        let Some(key) = key.filter(|key| self.open.contains(key)) else {
            return;
        };
        if bytes.is_empty() {
            self.open.retain(|it| *it != key);
        }
        heard(key, &bytes);
    }

    /// The process at the pipe's other end has ended: reads the rest, and listens no longer.
    pub(crate) fn finish(&mut self, key: u64, mut heard: impl FnMut(u64, &[u8])) {
        let until = Instant::now() + ENDING;
        while self.open.contains(&key) {
            match self.news.recv_deadline(until) {
                Ok(news) => self.hear(news, &mut heard),
                Err(_) => self.hear((Some(key), Vec::new()), &mut heard),
            }
        }
    }
}
