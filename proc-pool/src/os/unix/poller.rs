//! Waiting for many sockets: `epoll` on Linux, `poll` elsewhere.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::Timespec;

/// The longest wait that every system takes.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn timespec(patience: Duration) -> Timespec {
    let patience = patience.min(LONGEST);
    Timespec {
        tv_sec: patience.as_secs() as _,
        tv_nsec: patience.subsec_nanos().into(),
    }
}

/// Ends a wait of its poller's: also one that begins later.
#[derive(Debug)]
pub(crate) struct Waker(Arc<OwnedFd>);

#[cfg(target_os = "linux")]
mod imp {
    use std::mem::MaybeUninit;

    use rustix::event::{EventfdFlags, epoll, eventfd};

    use super::*;

    /// Sockets that are waited for.
    #[derive(Debug)]
    pub(crate) struct Poller {
        epoll: OwnedFd,
        waker: Arc<OwnedFd>,
    }

    /// The waker's key.
    const WAKER: u64 = u64::MAX;
    /// Sockets that are reported in one turn, at most; the others' turn is the next.
    const EVENTS: usize = 64;

    impl Waker {
        pub(crate) fn wake(&self) {
            // It fails only when the count is full, which wakes as well.
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<(Self, Waker)> {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let waker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            let data = epoll::EventData::new_u64(WAKER);
            epoll::add(&epoll, &waker, data, epoll::EventFlags::IN)?;
            let poller = Self {
                epoll,
                waker: waker.clone(),
            };
            Ok((poller, Waker(waker)))
        }

        pub(crate) fn add(&mut self, key: u64, socket: &OwnedFd) -> io::Result<()> {
            let data = epoll::EventData::new_u64(key);
            Ok(epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN)?)
        }

        pub(crate) fn remove(&mut self, _key: u64, socket: &OwnedFd) {
            // It fails only for one that is not waited for.
            let _ = epoll::delete(&self.epoll, socket);
        }

        /// Appends the keys of sockets that can be read; returns whether the waker woke.
        pub(crate) fn wait(&mut self, patience: Duration, ready: &mut Vec<u64>) -> io::Result<bool> {
            let mut events = [MaybeUninit::uninit(); EVENTS];
            let events: &[epoll::Event] =
                match epoll::wait(&self.epoll, &mut events, Some(&timespec(patience))) {
                    Ok((events, _)) => events,
                    Err(rustix::io::Errno::INTR) => &[],
                    Err(e) => return Err(e.into()),
                };
            let mut woken = false;
            for event in events {
                match event.data.u64() {
                    WAKER => {
                        woken = true;
                        // Its count is of no interest.
                        let _ = rustix::io::read(&self.waker, &mut [0; 8]);
                    }
                    key => ready.push(key),
                }
            }
            Ok(woken)
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use rustix::event::{PollFd, PollFlags, poll};

    use super::*;

    /// Sockets that are waited for.
    #[derive(Debug)]
    pub(crate) struct Poller {
        waker: OwnedFd,
        /// Shared with the owner of the notes, which removes it before it lets go.
        sockets: Vec<(u64, OwnedFd)>,
    }

    impl Waker {
        pub(crate) fn wake(&self) {
            // When the pipe is full it wakes anyway.
            let _ = rustix::io::write(&self.0, &[1]);
        }
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<(Self, Waker)> {
            let (reader, writer) = io::pipe()?;
            let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
            for end in [&reader, &writer] {
                rustix::io::ioctl_fionbio(end, true)?;
            }
            let poller = Self {
                waker: reader,
                sockets: Vec::new(),
            };
            Ok((poller, Waker(Arc::new(writer))))
        }

        pub(crate) fn add(&mut self, key: u64, socket: &OwnedFd) -> io::Result<()> {
            self.sockets.push((key, socket.try_clone()?));
            Ok(())
        }

        pub(crate) fn remove(&mut self, key: u64, _socket: &OwnedFd) {
            self.sockets.retain(|(it, _)| *it != key);
        }

        /// Appends the keys of sockets that can be read; returns whether the waker woke.
        pub(crate) fn wait(&mut self, patience: Duration, ready: &mut Vec<u64>) -> io::Result<bool> {
            let mut polled = vec![PollFd::new(&self.waker, PollFlags::IN)];
            polled.extend(
                self.sockets
                    .iter()
                    .map(|(_, socket)| PollFd::new(socket, PollFlags::IN)),
            );
            match poll(&mut polled, Some(&timespec(patience))) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
            let woken = !polled[0].revents().is_empty();
            let sockets = self.sockets.iter().zip(&polled[1..]);
            ready.extend(
                sockets
                    .filter(|(_, polled)| !polled.revents().is_empty())
                    .map(|((key, _), _)| *key),
            );
            if woken {
                let mut bytes = [0; 64];
                while matches!(rustix::io::read(&self.waker, &mut bytes), Ok(1..)) {}
            }
            Ok(woken)
        }
    }
}

pub(super) use imp::Poller;
