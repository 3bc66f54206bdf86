//! Reserves the space of files before it is touched.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::backing::BackingKind;
use crate::error::CreateError;

/// Sets the length of the file to `len` bytes, and allocates the space from `start` on, so that touching it can't fail.
pub(super) fn reserve(file: &File, start: usize, len: usize, kind: BackingKind) -> Result<(), CreateError> {
    let size = || {
        file.set_len(len as u64)
            .map_err(|e| CreateError::os("size", len, kind, e))
    };
    let more = len.saturating_sub(start) as u64;
    if more == 0 {
        return size();
    }
    // macOS allocates space after the end of a file, so the length is set afterwards.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    let reserved = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), start as u64, more);
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    let reserved = Err(rustix::io::Errno::OPNOTSUPP);
    match reserved {
        Ok(()) => size(),
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(full(file, len, kind)),
        // Some file systems can't (mostly network file systems): written zeros reserve the space.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) if kind == BackingKind::File => {
            // Checked first: writing until it fails would fill the disk for all users.
            if available(file).is_some_and(|available| available < more) {
                return Err(full(file, len, kind));
            }
            let zeros = vec![0; 1 << 20];
            let mut at = start;
            while at < len {
                let n = (len - at).min(zeros.len());
                file.write_all_at(&zeros[..n], at as u64)
                    .map_err(|e| match e.kind() {
                        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(file, len, kind),
                        _ => CreateError::os("reserve", len, kind, e),
                    })?;
                at += n;
            }
            size()
        }
        Err(e) => Err(CreateError::os("reserve", len, kind, e.into())),
    }
}

/// Returns the error for a file system without space for `len` bytes.
fn full(file: &File, len: usize, kind: BackingKind) -> CreateError {
    CreateError::NoSpace {
        needed: len as u64,
        available: available(file).unwrap_or(0),
        backing: kind,
        hint: "free disk space, or choose another backing",
    }
}

/// Returns the bytes that this user may still write to the file system of `file`.
fn available(file: &File) -> Option<u64> {
    let stat = rustix::fs::fstatvfs(file).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
