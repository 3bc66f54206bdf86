//! Writes to standard error from the calling thread that cannot block it.
//!
//! A write by another thread costs ten times as much, because the caller waits for it. On Linux, a terminal or a pipe
//! can be opened again with `O_NONBLOCK` without an effect on other programs that share it. A write then writes the
//! bytes for which there is space, and returns. Other systems have no such way, so all writes go through the thread.

use std::io;

/// Nonblocking access to standard error. It notices when the program replaces standard error.
#[derive(Debug)]
pub(crate) struct NonblockingStderr {
    #[cfg(target_os = "linux")]
    opened: Option<linux::Opened>,
}

impl NonblockingStderr {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            opened: None,
        }
    }

    /// Whether the last [`write`](Self::write) found a way to write without blocking.
    #[cfg(feature = "indicatif")]
    pub(crate) fn is_available(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.opened.as_ref().is_some_and(linux::Opened::is_available);
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Writes until the next byte would block, and returns the number of written bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(target_os = "linux")]
        return linux::write(&mut self.opened, bytes);
        #[cfg(not(target_os = "linux"))]
        {
            let _ = bytes;
            Ok(0)
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::{AsFd, OwnedFd};

    use rustix::fs::{FileType, Mode, OFlags};
    use rustix::io::Errno;

    use crate::tty;

    #[derive(Debug)]
    pub(super) struct Opened {
        /// Device and inode of standard error, because the program may replace it by another file.
        identity: (u64, u64),
        method: Method,
    }

    /// The way to write without blocking.
    #[derive(Debug)]
    enum Method {
        /// Standard error is a regular file, which takes all bytes or fails.
        RegularFile,
        /// A nonblocking descriptor of a pipe or device.
        Reopened(OwnedFd),
        /// A nonblocking descriptor of a terminal.
        ReopenedTerminal(OwnedFd),
        /// Standard error cannot be opened again.
        Unavailable,
    }

    pub(super) fn write(opened: &mut Option<Opened>, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let stat = rustix::fs::fstat(&stderr)?;
        let identity = (stat.st_dev, stat.st_ino);
        let opened = match opened {
            Some(opened) if opened.identity == identity => opened,
            _ => opened.insert(Opened {
                identity,
                method: Method::find(FileType::from_raw_mode(stat.st_mode)),
            }),
        };
        match &opened.method {
            Method::RegularFile => write_available(&stderr, bytes),
            Method::Reopened(file) => write_available(file, bytes),
            Method::ReopenedTerminal(file) => tty::allow_background_write(|| write_available(file, bytes)),
            Method::Unavailable => Ok(0),
        }
    }

    impl Opened {
        #[cfg(feature = "indicatif")]
        pub(super) fn is_available(&self) -> bool {
            !matches!(self.method, Method::Unavailable)
        }
    }

    impl Method {
        fn find(file_type: FileType) -> Self {
            let stderr = io::stderr();
            match file_type {
                FileType::RegularFile => Self::RegularFile,
                FileType::Fifo | FileType::CharacterDevice => match reopen() {
                    Ok(file) if rustix::termios::isatty(&stderr) => Self::ReopenedTerminal(file),
                    Ok(file) => Self::Reopened(file),
                    Err(_) => Self::Unavailable,
                },
                _ => Self::Unavailable,
            }
        }
    }

    fn reopen() -> rustix::io::Result<OwnedFd> {
        // A descriptor that is not open for writing is not a way to write.
        let mode = rustix::fs::fcntl_getfl(io::stderr())? & OFlags::RWMODE;
        if mode != OFlags::WRONLY && mode != OFlags::RDWR {
            return Err(Errno::BADF);
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::open("/proc/self/fd/2", flags, Mode::empty())
    }

    fn write_available(file: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
        let mut written = 0;
        while let Some(rest @ [_, ..]) = bytes.get(written..) {
            match rustix::io::write(&file, rest) {
                Ok(0) | Err(Errno::AGAIN) => break,
                Ok(n) => written += n,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(written)
    }
}
