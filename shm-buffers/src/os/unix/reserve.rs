//! Space of files that is reserved before it is touched.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::failed;
use crate::backing::BackingKind;
use crate::error::CreateError;

/// Makes the file `len` bytes long and sure that touching its pages from `start` on can't fail later.
pub(super) fn reserve(file: &File, start: usize, len: usize, kind: BackingKind) -> Result<(), CreateError> {
    let size = || file.set_len(len as u64).map_err(|e| failed("size", len, kind, e));
    let more = len.saturating_sub(start) as u64;
    if more == 0 {
        return size();
    }
    // macOS allocates behind the end of a file: it must not have its size yet.
    #[cfg(any(target_os = "linux", target_os = "macos"))]
    let reserved = rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), start as u64, more);
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    let reserved = Err(rustix::io::Errno::OPNOTSUPP);
    match reserved {
        Ok(()) => size(),
        Err(rustix::io::Errno::NOSPC | rustix::io::Errno::DQUOT) => Err(full(file, len, kind)),
        // File systems that can't (network ones mostly): written zeros are reserved space.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) if kind == BackingKind::File => {
            // Not by trying: until that failed, everybody's disk would be full.
            if left(file).is_some_and(|left| left < more) {
                return Err(full(file, len, kind));
            }
            let zeros = vec![0; 1 << 20];
            let mut at = start;
            while at < len {
                let n = (len - at).min(zeros.len());
                file.write_all_at(&zeros[..n], at as u64)
                    .map_err(|e| match e.kind() {
                        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => full(file, len, kind),
                        _ => failed("reserve", len, kind, e),
                    })?;
                at += n;
            }
            size()
        }
        Err(e) => Err(failed("reserve", len, kind, e.into())),
    }
}

/// The file system of `file` has no room for `len` bytes of it.
fn full(file: &File, len: usize, kind: BackingKind) -> CreateError {
    CreateError::NoSpace {
        needed: len as u64,
        available: left(file).unwrap_or(0),
        backing: kind,
        hint: "free some, or choose another backing",
    }
}

/// Bytes that the file system of `file` has left.
fn left(file: &File) -> Option<u64> {
    let stat = rustix::fs::fstatvfs(file).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}
