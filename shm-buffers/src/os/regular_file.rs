//! Existing files, opened read-only. Other processes attach exactly the same file.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;

use memmap2::MmapOptions;

use super::locator::{FileIdentity, Locator};
use super::{Access, Mapping, mapping, space};
use crate::error::AttachError;

/// Returns the identity of a file.
fn identity_of(file: &File) -> io::Result<FileIdentity> {
    #[cfg(unix)]
    let (device, inode) = {
        use std::os::unix::fs::MetadataExt;
        let metadata = file.metadata()?;
        (metadata.dev(), metadata.ino())
    };
    #[cfg(windows)]
    let (device, inode) = super::windows::file_id(file)?;
    Ok(FileIdentity { device, inode })
}

/// An open regular file. It stays the same file while this value lives, whatever happens to its name.
#[derive(Debug)]
pub(crate) struct OpenFile {
    file: File,
    /// Linux finds the file by the descriptor.
    #[cfg(not(target_os = "linux"))]
    path: std::path::PathBuf,
    len: usize,
}

impl OpenFile {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        // Processes that attach the file may have other working directories.
        #[cfg(not(target_os = "linux"))]
        let path = &path.canonicalize()?;
        let (file, len) = open_regular(path)?;
        Ok(Self {
            file,
            #[cfg(not(target_os = "linux"))]
            path: path.clone(),
            len,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn map(&self) -> io::Result<Mapping> {
        map(&self.file, self.len, Access::ReadOnly)
    }

    /// Returns a locator of the open file: this process's descriptor on Linux, where other processes can open it, otherwise the
    /// path and the identity.
    pub(crate) fn locator(&self) -> io::Result<Locator> {
        let identity = identity_of(&self.file)?;
        #[cfg(target_os = "linux")]
        return Ok(Locator::Descriptor {
            pid: std::process::id(),
            fd: std::os::fd::AsRawFd::as_raw_fd(&self.file),
            device: identity.device,
            inode: identity.inode,
            kind: crate::backing::BackingKind::File,
        });
        #[cfg(not(target_os = "linux"))]
        Ok(Locator::File {
            path: self.path.clone(),
            identity,
        })
    }
}

/// Opens a regular file for reading, and returns its length.
pub(crate) fn open_regular(path: &Path) -> io::Result<(File, usize)> {
    let file = open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        ));
    }
    let len = usize::try_from(metadata.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    Ok((file, len))
}

/// Maps a file without changing it, if it is still the same file.
pub(super) fn attach(
    path: &Path,
    identity: &FileIdentity,
    len: usize,
    access: Access,
) -> Result<Mapping, AttachError> {
    let what = || format!("file {}", path.display());
    let unreachable = |source| AttachError::Unreachable { what: what(), source };
    let (file, found) = open_regular(path).map_err(unreachable)?;
    if identity_of(&file).map_err(unreachable)? != *identity || found < len {
        return Err(AttachError::Replaced { what: what() });
    }
    map(&file, len, access).map_err(|source| space::map_failed(what(), len, source))
}

fn map(file: &File, len: usize, access: Access) -> io::Result<Mapping> {
    let mut options = MmapOptions::new();
    let options = options.len(len.max(1));
    // Windows can't map an empty file.
    let mmap = match cfg!(windows) && len == 0 {
        true => options.map_anon().map(Into::into),
        false if access == Access::CopyOnWrite => mapping::copy_on_write(options, file),
        false => options.map_raw_read_only(file),
    };
    Ok(Mapping::from_mmap(mmap?))
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    // Without NONBLOCK, opening a pipe waits for a writer.
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    }
    options.open(path)
}

/// Fills `target` with the bytes from `offset` on. Several threads can read at the same time.
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
