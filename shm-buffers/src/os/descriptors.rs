//! Descriptors that are sent along with handles: [`collect`] finds the descriptors of handles while the handles are
//! serialized or displayed, and [`adopt`] keeps them in the process that receives the handles.
//!
//! A handle to anonymous memory refers to a descriptor of its owner. A process that has received that descriptor attaches
//! through it. Any other process has to open it through `/proc`, which needs the same user, a mounted `/proc`, and an owner
//! that is dumpable.

use super::{Access, Locator};

/// The open descriptors that handles refer to. They are closed when this is dropped. Always empty on systems whose shared
/// memory has names.
#[derive(Debug, Default)]
#[must_use = "the descriptors are closed when this is dropped"]
pub struct Descriptors(#[cfg(unix)] Vec<unix::Descriptor>);

impl Descriptors {
    /// Returns the number of descriptors.
    pub fn len(&self) -> usize {
        #[cfg(unix)]
        {
            self.0.len()
        }
        #[cfg(not(unix))]
        {
            0
        }
    }

    /// Returns whether there are no descriptors.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Runs `serialize` and returns its result and the descriptors of the handles that it serialized or displayed. The descriptors
/// stay open and refer to the same memory even after the owners of the handles are dropped.
///
/// A handle has one text, which `Display` writes and serializers contain, so both count: the text of a handle is what another
/// process attaches by. (`Debug` does not write that text, and does not count.)
///
/// A descriptor that can't be duplicated (this process has reached its limit of open files) is left out: its handle is then
/// attached through `/proc`.
pub fn collect<R>(serialize: impl FnOnce() -> R) -> (R, Descriptors) {
    #[cfg(unix)]
    {
        unix::collect(serialize)
    }
    #[cfg(not(unix))]
    {
        (serialize(), Descriptors::default())
    }
}

/// Collects the descriptor of a locator, whose text is written and which is attached with `access`.
pub(crate) fn note(locator: &Locator, access: Access) {
    #[cfg(unix)]
    unix::note(locator, access);
    #[cfg(not(unix))]
    let _ = (locator, access);
}

#[cfg(unix)]
pub use unix::adopt;
#[cfg(unix)]
pub(crate) use unix::adopted;

#[cfg(unix)]
#[allow(unsafe_code, reason = "duplicates a descriptor by its number")]
mod unix {
    use std::cell::RefCell;
    use std::io;
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
    use std::sync::{Arc, Mutex, PoisonError};

    use rustix::fs::{Mode, OFlags};

    use super::{Access, Descriptors, Locator};

    /// An open file and its identity.
    #[derive(Debug)]
    pub(super) struct Descriptor {
        fd: OwnedFd,
        file: FileId,
        access: Access,
    }

    /// Device and inode.
    type FileId = (u64, u64);

    fn file_id(fd: impl AsFd) -> io::Result<FileId> {
        let stat = rustix::fs::fstat(fd)?;
        Ok((stat.st_dev as u64, stat.st_ino as u64))
    }

    impl Descriptors {
        /// Returns the descriptors, to send them to the process that receives the handles.
        pub fn as_fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
            self.0.iter().map(|descriptor| descriptor.fd.as_fd())
        }
    }

    thread_local! {
        /// The descriptors that this thread is collecting.
        static COLLECTING: RefCell<Option<Vec<Descriptor>>> = const { RefCell::new(None) };
    }

    pub(super) fn collect<R>(serialize: impl FnOnce() -> R) -> (R, Descriptors) {
        /// Restores the outer collection when dropped, also after a panic of `serialize`.
        struct Restore(Option<Vec<Descriptor>>);
        impl Drop for Restore {
            fn drop(&mut self) {
                let outer = self.0.take();
                COLLECTING.with(|collecting| *collecting.borrow_mut() = outer);
            }
        }
        let outer = COLLECTING.with(|collecting| collecting.replace(Some(Vec::new())));
        let _restore = Restore(outer);
        let result = serialize();
        let found = COLLECTING.with(|collecting| collecting.take());
        (result, Descriptors(found.unwrap_or_default()))
    }

    pub(super) fn note(locator: &Locator, access: Access) {
        let Locator::Descriptor {
            pid,
            fd,
            device,
            inode,
            ..
        } = locator
        else {
            return;
        };
        COLLECTING.with(|collecting| {
            let Some(found) = &mut *collecting.borrow_mut() else {
                return;
            };
            let file = (*device, *inode);
            if found.iter().any(|it| it.file == file && it.access == access) {
                return;
            }
            let own = *pid == std::process::id();
            let fd = match adopted(file) {
                Some(adopted) => adopted.try_clone().ok(),
                None if own => reopen(*fd, access).ok(),
                None => None,
            };
            // If the handle has outlived its memory, the descriptor may be another file.
            if let Some(fd) = fd.filter(|fd| file_id(fd).is_ok_and(|it| it == file)) {
                found.push(Descriptor { fd, file, access });
            }
        });
    }

    /// Opens a file of this process again. A descriptor that is opened read-only can't be mapped for writing later.
    fn reopen(fd: i32, access: Access) -> io::Result<OwnedFd> {
        if access == Access::ReadOnly && cfg!(target_os = "linux") {
            // NONBLOCK: the descriptor may have been reused for a pipe.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            if let Ok(fd) = rustix::fs::open(format!("/proc/self/fd/{fd}"), flags, Mode::empty()) {
                return Ok(fd);
            }
        }
        // SAFETY: the descriptor is borrowed for one system call, which refuses a number that is not open; the duplicate
        // is compared with the file that the handle was made for before it is used.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
    }

    /// The descriptors that this process has received: a few, for its whole life.
    static ADOPTED: Mutex<Vec<(FileId, Arc<OwnedFd>)>> = Mutex::new(Vec::new());

    /// Keeps a descriptor that was sent along with handles, so that they can be attached through it.
    ///
    /// # Errors
    /// If the descriptor is not open.
    pub fn adopt(fd: OwnedFd) -> io::Result<()> {
        let file = file_id(&fd)?;
        let mut adopted = ADOPTED.lock().unwrap_or_else(PoisonError::into_inner);
        adopted.push((file, Arc::new(fd)));
        Ok(())
    }

    /// Returns the adopted descriptor of a file, if there is one.
    pub(crate) fn adopted(file: FileId) -> Option<Arc<OwnedFd>> {
        let adopted = ADOPTED.lock().unwrap_or_else(PoisonError::into_inner);
        let found = adopted.iter().find(|(it, _)| *it == file);
        found.map(|(_, fd)| fd.clone())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::{Backing, Region, Segment, SegmentHandle, SegmentMut};

    fn segment(bytes: &[u8]) -> Segment {
        let mut segment = SegmentMut::create(&Backing::Anonymous, bytes.len()).expect("there is memory");
        segment.copy_from_slice(bytes);
        segment.freeze().expect("it can be sealed")
    }

    fn encoded(handles: &[SegmentHandle]) -> String {
        serde_json::to_string(handles).expect("handles can be serialized")
    }

    #[test]
    fn collect_returns_each_descriptor_once() {
        let (one, other) = (segment(b"one"), segment(b"other"));
        let handles = [&one, &other, &one].map(|it| it.handle().expect("it is its owner"));
        let (_, none) = collect(|| ());
        assert!(none.is_empty());
        let (_, found) = collect(|| encoded(&handles));
        assert_eq!(found.len(), 2);
        // Outside of `collect`, serializing a handle has no effect.
        let _ = encoded(&handles);
        // Displaying counts like serializing, `Debug` does not.
        let (_, displayed) = collect(|| handles.each_ref().map(ToString::to_string));
        assert_eq!(displayed.len(), 2);
        let (_, none) = collect(|| format!("{handles:?}"));
        assert!(none.is_empty());
        let (inner, outer) = collect(|| {
            let _ = encoded(&handles[..1]);
            collect(|| encoded(&handles[1..2])).1
        });
        assert_eq!((inner.len(), outer.len()), (1, 1));
    }

    #[test]
    fn an_adopted_descriptor_outlives_the_owner_of_its_segment() {
        let owner = segment(b"kept");
        let handle = owner.handle().expect("it is its owner");
        let (_, found) = collect(|| encoded(std::slice::from_ref(&handle)));
        drop(owner);
        for fd in found.as_fds() {
            adopt(fd.try_clone_to_owned().expect("a free descriptor")).expect("it is open");
        }
        drop(found);
        let attached = Segment::attach(&handle).expect("the descriptor was adopted");
        assert_eq!(&attached[..], b"kept");
        // It can be passed on.
        let (_, again) = collect(|| encoded(&[handle]));
        assert_eq!(again.len(), 1);
    }

    #[test]
    fn a_segment_is_sent_read_only_and_a_region_writable() {
        let (segment, region) = (
            segment(b"bytes"),
            Region::create(&Backing::Anonymous, 64).expect("there is memory"),
        );
        let mode = |found: &Descriptors| {
            let fd = found
                .as_fds()
                .next()
                .expect("one")
                .as_fd()
                .try_clone_to_owned()
                .expect("files");
            rustix::fs::fcntl_getfl(fd).expect("it is open") & rustix::fs::OFlags::RWMODE
        };
        let (_, found) = collect(|| encoded(&[segment.handle().expect("its owner")]));
        assert_eq!(mode(&found), rustix::fs::OFlags::RDONLY);
        let (_, found) = collect(|| serde_json::to_string(&region.handle().expect("its owner")));
        assert_eq!(mode(&found), rustix::fs::OFlags::RDWR);
    }

    #[test]
    fn collect_skips_a_handle_that_outlived_its_memory() {
        let owner = segment(b"gone");
        let handle = owner.handle().expect("it is its owner");
        drop(owner);
        let (_, found) = collect(|| encoded(&[handle]));
        assert!(found.is_empty());
    }
}
