//! Reading many pipes from one thread, with `poll`.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags, poll};

/// The end of a pipe that is read.
pub(crate) type Pipe = OwnedFd;

/// Bytes read from a pipe before it is the next one's turn.
const SLICE: usize = 64 << 10;

/// Pipes, each with a key.
#[derive(Debug)]
pub(crate) struct Pipes {
    woken: UnixStream,
    open: Vec<(u64, Pipe)>,
    buffer: Vec<u8>,
}

/// Ends a wait of [`Pipes`].
#[derive(Debug)]
pub(crate) struct Waker(UnixStream);

impl Waker {
    pub(crate) fn wake(&self) {
        // When it is full it wakes anyway.
        let _ = (&self.0).write(&[1]);
    }
}

impl Pipes {
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let (woken, waker) = UnixStream::pair()?;
        woken.set_nonblocking(true)?;
        waker.set_nonblocking(true)?;
        let pipes = Self {
            woken,
            open: Vec::new(),
            buffer: vec![0; SLICE],
        };
        Ok((pipes, Waker(waker)))
    }

    pub(crate) fn add(&mut self, key: u64, pipe: Pipe) -> io::Result<()> {
        self.open.push((key, pipe));
        Ok(())
    }

    /// Waits until there is something to read, or for the waker; `heard` gets what was read, or nothing at a pipe's
    /// end.
    pub(crate) fn wait(&mut self, mut heard: impl FnMut(u64, &[u8])) -> io::Result<()> {
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
            // Somebody is here to read it only once, and there is something: it does not block.
            match rustix::io::read(pipe, &mut self.buffer[..]) {
                Err(rustix::io::Errno::INTR) => true,
                Ok(count @ 1..) => {
                    heard(*key, &self.buffer[..count]);
                    true
                }
                Ok(0) | Err(_) => {
                    heard(*key, &[]);
                    false
                }
            }
        });
        Ok(())
    }

    /// The process at the pipe's other end has ended: reads what is in the pipe now, which is all that it wrote, and
    /// closes it, also if a child of that process goes on writing.
    pub(crate) fn finish(&mut self, key: u64, mut heard: impl FnMut(u64, &[u8])) {
        let Some(place) = self.open.iter().position(|(it, _)| *it == key) else {
            return;
        };
        let (_, pipe) = self.open.swap_remove(place);
        let mut left = rustix::io::ioctl_fionread(&pipe).unwrap_or(0) as usize;
        while left > 0 {
            let wanted = left.min(SLICE);
            match rustix::io::read(&pipe, &mut self.buffer[..wanted]) {
                Err(rustix::io::Errno::INTR) => {}
                Ok(count @ 1..) => {
                    heard(key, &self.buffer[..count]);
                    left -= count;
                }
                Ok(0) | Err(_) => break,
            }
        }
        heard(key, &[]);
    }
}
