//! [`PipeSet`]: reads many pipes in one thread on Unix, with `poll`. `process::output_reader` uses it for what workers print.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};

/// The reading end of a pipe.
pub(crate) type Pipe = OwnedFd;

/// Maximum number of bytes that are read from a pipe before the next one's turn.
const SLICE: usize = 64 << 10;

/// A set of pipes, each with a key.
#[derive(Debug)]
pub(crate) struct PipeSet {
    woken: UnixStream,
    open: Vec<(u64, Pipe)>,
    buffer: Vec<u8>,
}

/// Ends the wait of its [`PipeSet`], or the next one if it does not wait now.
#[derive(Debug)]
pub(crate) struct PipeSetWaker(UnixStream);

impl PipeSetWaker {
    pub(crate) fn wake(&self) {
        // If the socket is full, the set wakes anyway.
        let _ = (&self.0).write(&[1]);
    }
}

impl PipeSet {
    pub(crate) fn new() -> io::Result<(Self, PipeSetWaker)> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let pipes = Self {
            woken,
            open: Vec::new(),
            buffer: vec![0; SLICE],
        };
        Ok((pipes, PipeSetWaker(waker)))
    }

    pub(crate) fn add(&mut self, key: u64, pipe: Pipe) -> io::Result<()> {
        self.open.push((key, pipe));
        Ok(())
    }

    /// Waits until a pipe can be read, or for the waker. Passes the bytes that were read to `on_read`, and an empty slice at the
    /// end of a pipe.
    pub(crate) fn wait(&mut self, mut on_read: impl FnMut(u64, &[u8])) -> io::Result<()> {
        let watch = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut polled: Vec<PollFd<'_>> = self.open.iter().map(|(_, pipe)| watch(pipe.as_fd())).collect();
        polled.push(watch(self.woken.as_fd()));
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            polled => polled?,
        };
        let mut ready: Vec<bool> = polled.iter().map(|fd| !fd.revents().is_empty()).collect();
        if ready.pop() == Some(true) {
            while matches!((&self.woken).read(&mut self.buffer), Ok(1..)) {}
        }
        let mut ready = ready.into_iter();
        self.open.retain(|(key, pipe)| {
            if ready.next() != Some(true) {
                return true;
            }
            // It does not block: the pipe can be read, and no other thread reads it.
            match rustix::io::read(pipe, &mut self.buffer[..]) {
                Err(rustix::io::Errno::INTR) => true,
                Ok(count @ 1..) => {
                    on_read(*key, &self.buffer[..count]);
                    true
                }
                Ok(0) | Err(_) => {
                    on_read(*key, &[]);
                    false
                }
            }
        });
        Ok(())
    }

    /// Reads what is in the pipe now, and closes it. It is called after the process at the other end has ended, so this is all
    /// that the process wrote. The pipe is closed even if a child of that process continues to write.
    pub(crate) fn finish(&mut self, key: u64, mut on_read: impl FnMut(u64, &[u8])) {
        let Some(index) = self.open.iter().position(|(it, _)| *it == key) else {
            return;
        };
        let (_, pipe) = self.open.swap_remove(index);
        let mut left = rustix::io::ioctl_fionread(&pipe).unwrap_or(0) as usize;
        while left > 0 {
            let wanted = left.min(SLICE);
            match rustix::io::read(&pipe, &mut self.buffer[..wanted]) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(count @ 1..) => {
                    on_read(key, &self.buffer[..count]);
                    left -= count;
                }
                Ok(0) | Err(_) => break,
            }
        }
        on_read(key, &[]);
    }
}
