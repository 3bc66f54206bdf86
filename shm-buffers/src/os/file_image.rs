//! Files that are there already and stay: opened read-only, and found again by other processes as the very same
//! file.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use memmap2::MmapOptions;
use serde::{Deserialize, Serialize};

use super::{Locator, Mapping, space};
use crate::error::AttachError;

/// What tells one state of a file from another: a file that was replaced or rewritten since has another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileIdentity {
    /// Windows: the volume.
    device: u64,
    /// Windows: the file's index.
    inode: u64,
    len: u64,
    /// Nanoseconds since 1970.
    modified: u64,
}

impl FileIdentity {
    fn of(file: &File, metadata: &Metadata) -> io::Result<Self> {
        #[cfg(unix)]
        let (device, inode) = {
            use std::os::unix::fs::MetadataExt;
            let _ = file;
            (metadata.dev(), metadata.ino())
        };
        #[cfg(windows)]
        let (device, inode) = super::windows::file_id(file)?;
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Ok(Self {
            device,
            inode,
            len: metadata.len(),
            modified: modified.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)),
        })
    }
}

/// Where a regular file is and what it is now, and its length.
pub(crate) fn locate(path: &Path) -> io::Result<(Locator, usize)> {
    // Whoever gets the locator may have another working directory.
    let path = path.canonicalize()?;
    let file = open(&path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is no regular file",
        ));
    }
    let len = usize::try_from(metadata.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let identity = FileIdentity::of(&file, &metadata)?;
    Ok((Locator::File { path, identity }, len))
}

/// Maps the file read-only if it is still the same.
pub(super) fn attach(path: &Path, identity: &FileIdentity, len: usize) -> Result<Mapping, AttachError> {
    let what = || format!("file {}", path.display());
    let unreachable = |source| AttachError::Unreachable { what: what(), source };
    let file = open(path).map_err(unreachable)?;
    let metadata = file.metadata().map_err(unreachable)?;
    let found = FileIdentity::of(&file, &metadata).map_err(unreachable)?;
    if found != *identity || found.len < len as u64 {
        return Err(AttachError::Replaced { what: what() });
    }
    let mut options = MmapOptions::new();
    let options = options.len(len.max(1));
    // Windows maps no empty file.
    let mmap = match cfg!(windows) && found.len == 0 {
        true => options.map_anon().map(Into::into),
        false => options.map_raw_read_only(&file),
    };
    let mmap = mmap.map_err(|source| space::map_failed(what(), len, source))?;
    Ok(Mapping::from_mmap(mmap))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    // Without it, opening a pipe waits for somebody to write into it.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    options.open(path)
}

/// Fills `target` from `offset` of the file on, whoever else reads it at the same time.
pub(crate) fn read_exact_at(file: &File, target: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, target, offset);
    #[cfg(windows)]
    {
        use std::os::windows::fs::FileExt;
        let (mut target, mut offset) = (target, offset);
        while !target.is_empty() {
            match file.seek_read(target, offset)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => {
                    target = &mut target[n..];
                    offset += n as u64;
                }
            }
        }
        Ok(())
    }
}
