//! [`replace_file`]: a file is written whole, or not at all.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// Why a file was not written. The old file is still there.
#[derive(thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub struct SaveError {
    pub(crate) step: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) source: io::Error,
}

impl From<SaveError> for io::Error {
    fn from(error: SaveError) -> Self {
        Self::new(error.source.kind(), error)
    }
}

/// Writes a file, whole or not at all: `write` fills one with another name in the same directory, which takes the place of
/// `path` when all of it is on the disk. Readers see the old file or the new one, and a process that has mapped the old one
/// keeps it.
///
/// Only a regular file is replaced. A device, a pipe, a directory or a symbolic link at `path` is refused, so that a link
/// that another user planted leads nowhere; links in its directory's path are followed.
///
/// # Errors
/// The old file is still there then. After the rename the result is `Ok`: the directory is synchronized to the disk as well,
/// but a failure of that is not reported.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::io::Write;
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("notes.txt");
/// shm_buffers::replace_file(&path, |file| file.write_all(b"done"))?;
/// assert_eq!(std::fs::read(&path)?, b"done");
/// # Ok(()) }
/// ```
pub fn replace_file(
    path: impl AsRef<Path>,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), SaveError> {
    replace(path.as_ref(), None, write)
}

/// Reports early what [`replace_file`] would refuse: a path that leads to anything but a regular file, or to nothing in a
/// directory that exists.
///
/// # Errors
/// As [`replace_file`].
pub fn check_replaceable(path: impl AsRef<Path>) -> Result<(), SaveError> {
    let path = path.as_ref();
    check(path)?;
    match fs::metadata(directory(path)) {
        Ok(_) => Ok(()),
        Err(error) => Err(failed("make a file beside", path)(error)),
    }
}

/// As [`replace_file`], with the permissions of the new file (Unix).
pub(crate) fn replace(
    path: &Path,
    mode: Option<u32>,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> Result<(), SaveError> {
    let failed = |step| failed(step, path);
    check(path)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".shm-buffers-");
    #[cfg(unix)]
    let builder = {
        use std::os::unix::fs::PermissionsExt;
        // The umask applies, as to any new file.
        builder.permissions(fs::Permissions::from_mode(mode.unwrap_or(0o666)))
    };
    let dir = directory(path);
    let mut file = builder.tempfile_in(dir).map_err(failed("make a file beside"))?;
    #[cfg(unix)]
    if let Some(mode) = mode {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::Permissions::from_mode(mode);
        let set = file.as_file().set_permissions(mode);
        set.map_err(failed("set the mode of"))?;
    }
    #[cfg(not(unix))]
    let _ = mode;
    let out = file.as_file_mut();
    write(out).map_err(failed("write"))?;
    out.sync_all().map_err(failed("write to the disk"))?;
    // Not `NamedTempFile::persist`: on Windows only `rename` replaces a file that is open or mapped.
    let finished = file
        .into_temp_path()
        .keep()
        .map_err(|e| failed("keep a file beside")(e.error))?;
    let removed = |_: &SaveError| drop(fs::remove_file(&finished));
    // Again: writing may have taken long.
    check(path).inspect_err(removed)?;
    fs::rename(&finished, path)
        .map_err(failed("replace"))
        .inspect_err(removed)?;
    // The new name is on the disk when its directory is. The file is replaced already, so that an error would mislead.
    #[cfg(unix)]
    drop(File::open(dir).and_then(|dir| dir.sync_all()));
    Ok(())
}

/// The directory that `path` is in.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

/// Refuses a path that leads to anything but a regular file or to nothing.
pub(crate) fn check(path: &Path) -> Result<(), SaveError> {
    let refused = match fs::symlink_metadata(path) {
        Ok(metadata) => match unfit(&metadata) {
            Some(reason) => io::Error::new(io::ErrorKind::InvalidInput, reason),
            None => return Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => error,
    };
    Err(failed("replace", path)(refused))
}

fn unfit(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_symlink() {
        Some("it is a symbolic link, which is not followed; give the path that it leads to")
    } else if kind.is_dir() {
        Some("it is a directory; give the path of a file")
    } else {
        Some("it is a device, a pipe or a socket; give the path of a regular file, or of none yet")
    }
}

fn failed(step: &'static str, path: &Path) -> impl Fn(io::Error) -> SaveError {
    move |source| SaveError {
        step,
        path: path.to_owned(),
        source,
    }
}

crate::debug_with_causes!(SaveError);
