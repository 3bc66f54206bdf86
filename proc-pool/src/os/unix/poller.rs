//! [`Poller`]: waits for many sockets, with `epoll` on Linux and `poll` on other systems. [`listener`](super::listener) uses it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::Timespec;

/// The longest timeout that all systems accept.
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

fn timespec(timeout: Duration) -> Timespec {
    let timeout = timeout.min(LONGEST);
    Timespec {
        tv_sec: timeout.as_secs() as _,
        tv_nsec: timeout.subsec_nanos().into(),
    }
}

/// Ends the wait of its poller, or the next one if it does not wait now.
#[derive(Debug)]
pub(crate) struct ListenerWaker(Arc<OwnedFd>);

#[cfg(target_os = "linux")]
mod imp {
    use std::mem::MaybeUninit;

    use rustix::event::{EventfdFlags, epoll, eventfd};

    use super::*;

    /// A set of sockets to wait for.
    #[derive(Debug)]
    pub(crate) struct Poller {
        epoll: OwnedFd,
        waker: Arc<OwnedFd>,
    }

    /// The waker's key.
    const WAKER: u64 = u64::MAX;
    /// Maximum number of sockets that one call reports. The next call reports the others.
    const EVENTS: usize = 64;

    impl ListenerWaker {
        pub(crate) fn wake(&self) {
            // It fails only if the count is at its maximum, which wakes as well.
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<(Self, ListenerWaker)> {
            let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
            let waker = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            let data = epoll::EventData::new_u64(WAKER);
            epoll::add(&epoll, &waker, data, epoll::EventFlags::IN)?;
            let poller = Self {
                epoll,
                waker: waker.clone(),
            };
            Ok((poller, ListenerWaker(waker)))
        }

        pub(crate) fn add(&mut self, key: u64, socket: &OwnedFd) -> io::Result<()> {
            let data = epoll::EventData::new_u64(key);
            Ok(epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN)?)
        }

        pub(crate) fn remove(&mut self, _key: u64, socket: &OwnedFd) {
            // It fails only for a socket that was not added.
            let _ = epoll::delete(&self.epoll, socket);
        }

        /// Waits, and appends the keys of sockets that can be read to `ready`. Returns whether the waker has ended the wait.
        pub(crate) fn wait(&mut self, timeout: Duration, ready: &mut Vec<u64>) -> io::Result<bool> {
            let mut events = [MaybeUninit::uninit(); EVENTS];
            let events: &[epoll::Event] =
                match epoll::wait(&self.epoll, &mut events, Some(&timespec(timeout))) {
                    Ok((events, _)) => events,
                    Err(rustix::io::Errno::INTR) => &[],
                    Err(e) => return Err(e.into()),
                };
            let mut woken = false;
            for event in events {
                match event.data.u64() {
                    WAKER => {
                        woken = true;
                        // The number of wakeups does not matter.
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

    /// A set of sockets to wait for.
    #[derive(Debug)]
    pub(crate) struct Poller {
        waker: OwnedFd,
        /// Duplicates of the added descriptors. The listener removes each before it drops its own.
        sockets: Vec<(u64, OwnedFd)>,
    }

    impl ListenerWaker {
        pub(crate) fn wake(&self) {
            // If the pipe is full, the poller wakes anyway.
            let _ = rustix::io::write(&self.0, &[1]);
        }
    }

    impl Poller {
        pub(crate) fn new() -> io::Result<(Self, ListenerWaker)> {
            let (reader, writer) = io::pipe()?;
            let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
            for end in [&reader, &writer] {
                rustix::io::ioctl_fionbio(end, true)?;
            }
            let poller = Self {
                waker: reader,
                sockets: Vec::new(),
            };
            Ok((poller, ListenerWaker(Arc::new(writer))))
        }

        pub(crate) fn add(&mut self, key: u64, socket: &OwnedFd) -> io::Result<()> {
            self.sockets.push((key, socket.try_clone()?));
            Ok(())
        }

        pub(crate) fn remove(&mut self, key: u64, _socket: &OwnedFd) {
            self.sockets.retain(|(it, _)| *it != key);
        }

        /// Waits, and appends the keys of sockets that can be read to `ready`. Returns whether the waker has ended the wait.
        pub(crate) fn wait(&mut self, timeout: Duration, ready: &mut Vec<u64>) -> io::Result<bool> {
            let mut polled = vec![PollFd::new(&self.waker, PollFlags::IN)];
            polled.extend(
                self.sockets
                    .iter()
                    .map(|(_, socket)| PollFd::new(socket, PollFlags::IN)),
            );
            match poll(&mut polled, Some(&timespec(timeout))) {
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
