//! Standard error, written by the thread that has something to write, as far as that cannot block it.
//!
//! A write by another thread costs ten times as much, because the caller waits for it. On Linux, a terminal or a pipe can be
//! opened again with `O_NONBLOCK`, which other programs that share it do not notice: a write takes as much as fits, and
//! returns. Other systems have no such way and use the thread.

use std::io;

/// Standard error as it is now.
#[derive(Debug)]
pub(crate) struct Direct {
    #[cfg(target_os = "linux")]
    opened: Option<linux::Opened>,
}

impl Direct {
    pub(crate) fn new() -> Self {
        Self {
            #[cfg(target_os = "linux")]
            opened: None,
        }
    }

    /// Whether it has found a way to write.
    #[cfg(feature = "indicatif")]
    pub(crate) fn is_possible(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.opened.as_ref().is_some_and(linux::Opened::is_possible);
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Writes what can be written now, and returns how many bytes that was.
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
        /// Device and inode of standard error: a program may put another file in its place.
        identity: (u64, u64),
        way: Way,
    }

    #[derive(Debug)]
    enum Way {
        /// A regular file takes everything, or fails.
        Same,
        /// Opened again, not to block.
        Nonblocking(OwnedFd),
        Terminal(OwnedFd),
        /// Something that cannot be opened again.
        None,
    }

    pub(super) fn write(opened: &mut Option<Opened>, bytes: &[u8]) -> io::Result<usize> {
        let stderr = io::stderr();
        let stat = rustix::fs::fstat(&stderr)?;
        let identity = (stat.st_dev, stat.st_ino);
        let opened = match opened {
            Some(same) if same.identity == identity => same,
            _ => opened.insert(Opened {
                identity,
                way: Way::find(FileType::from_raw_mode(stat.st_mode)),
            }),
        };
        match &opened.way {
            Way::Same => write_now(&stderr, bytes),
            Way::Nonblocking(file) => write_now(file, bytes),
            Way::Terminal(file) => tty::from_the_background(|| write_now(file, bytes)),
            Way::None => Ok(0),
        }
    }

    impl Opened {
        #[cfg(feature = "indicatif")]
        pub(super) fn is_possible(&self) -> bool {
            !matches!(self.way, Way::None)
        }
    }

    impl Way {
        fn find(file_type: FileType) -> Self {
            let stderr = io::stderr();
            match file_type {
                FileType::RegularFile => Self::Same,
                FileType::Fifo | FileType::CharacterDevice => match open_again() {
                    Ok(file) if rustix::termios::isatty(&stderr) => Self::Terminal(file),
                    Ok(file) => Self::Nonblocking(file),
                    Err(_) => Self::None,
                },
                _ => Self::None,
            }
        }
    }

    fn open_again() -> rustix::io::Result<OwnedFd> {
        // What may not be written to is not opened for it.
        let mode = rustix::fs::fcntl_getfl(io::stderr())? & OFlags::RWMODE;
        if mode != OFlags::WRONLY && mode != OFlags::RDWR {
            return Err(Errno::BADF);
        }
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        rustix::fs::open("/proc/self/fd/2", flags, Mode::empty())
    }

    fn write_now(file: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
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
