//! [`replace_file`]: writes a file completely or not at all.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

/// Why a file was not written. The old file is unchanged.
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

/// Writes a file completely or not at all: `write` fills a temporary file in the same directory. Once all of it is on the
/// disk, it is renamed to `path`. Readers see the old file or the new one, and a process that has mapped the old file keeps it.
///
/// Only a regular file is replaced. A device, a pipe, a directory or a symbolic link at `path` is refused, so that a link
/// that another user planted has no effect; links in the path of its directory are followed.
///
/// # Errors
/// If the file can't be written or replaced. The old file is unchanged then. After the rename the result is `Ok`: the
/// directory is synchronized to the disk as well, but a failure of that is not reported.
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

/// Checks early whether [`replace_file`] would refuse a path.
///
/// # Errors
/// If the path leads to something other than a regular file, or its directory does not exist.
pub fn check_replaceable(path: impl AsRef<Path>) -> Result<(), SaveError> {
    let path = path.as_ref();
    check(path)?;
    match fs::metadata(directory(path)) {
        Ok(_) => Ok(()),
        Err(error) => Err(failed("create a file beside", path)(error)),
    }
}

/// Like [`replace_file`], with the permissions of the new file (Unix).
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
        // The umask applies as to any new file.
        builder.permissions(fs::Permissions::from_mode(mode.unwrap_or(0o666)))
    };
    let dir = directory(path);
    let mut file = builder.tempfile_in(dir).map_err(failed("create a file beside"))?;
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
    // Checked again, because writing may have taken long.
    check(path).inspect_err(removed)?;
    fs::rename(&finished, path)
        .map_err(failed("replace"))
        .inspect_err(removed)?;
    // The new name is on the disk once its directory is. An error would mislead: the file is already replaced.
    #[cfg(unix)]
    drop(File::open(dir).and_then(|dir| dir.sync_all()));
    Ok(())
}

/// Returns the directory of `path`.
pub(crate) fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    }
}

/// Refuses a path that leads to something other than a regular file.
pub(crate) fn check(path: &Path) -> Result<(), SaveError> {
    let error = match fs::symlink_metadata(path) {
        Ok(metadata) => match refusal(&metadata) {
            Some(reason) => io::Error::new(io::ErrorKind::InvalidInput, reason),
            None => return Ok(()),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => error,
    };
    Err(failed("replace", path)(error))
}

/// Returns why a file is not replaced.
fn refusal(metadata: &Metadata) -> Option<&'static str> {
    let kind = metadata.file_type();
    if kind.is_file() {
        None
    } else if kind.is_symlink() {
        Some("it is a symbolic link, which is not followed; pass the path that it leads to")
    } else if kind.is_dir() {
        Some("it is a directory; pass the path of a file")
    } else {
        Some("it is a device, a pipe or a socket; pass the path of a regular file, or of a new one")
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
