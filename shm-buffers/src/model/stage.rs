//! [`stage`]: the file of a model image, copied once to a disk of this machine.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Image, LoadOptions, LoadSharedError};

/// Bytes at the beginning of two files that are compared: they have the checksum of the rest.
const HEAD: u64 = 4096;

/// Why the file of a model image is not staged.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StageError {
    /// A file or a directory cannot be read or written.
    #[error("cannot {step} {}", path.display())]
    File {
        /// The step.
        step: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is not an image as it was [saved](Image::save).
    #[error("the model {} is damaged; save it again", path.display())]
    Damaged {
        /// The path.
        path: PathBuf,
        /// The error of the check.
        source: Box<LoadSharedError>,
    },
}

impl StageError {
    fn file(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { step, path, source }
    }
}

crate::debug_with_causes!(StageError);

/// Copies a saved model image from a slow or busy file system into a directory of this machine, unless it is there, and returns the path
/// of the copy. Several processes may do so at the same time: one copies, and the others wait.
///
/// The copy has another name until it is complete and its checksum is right. A copy of an earlier version of the file is replaced.
///
/// # Errors
/// [`StageError::File`] if a file cannot be read or written; [`StageError::Damaged`] if the copy is not the image that was saved.
///
/// # Examples
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Buffer, Image};
///
/// # let (shared, local) = (tempfile::tempdir()?, tempfile::tempdir()?);
/// # let (shared, local) = (shared.path(), local.path());
/// shm_buffers::share(&Buffer::from(vec![7_u64; 1000]), &Backing::Auto)?.save(shared.join("model.safetensors"))?;
///
/// let path = shm_buffers::stage(shared.join("model.safetensors"), local)?;
/// let model: Buffer<u64> = Image::load_shared(path, &Backing::Auto)?.load()?;
/// assert_eq!(model[999], 7);
/// # Ok(()) }
/// ```
pub fn stage(source: impl AsRef<Path>, dir: impl AsRef<Path>) -> Result<PathBuf, StageError> {
    let source = source.as_ref();
    let wanted = head(source).map_err(StageError::file("read", source))?;
    let copy = dir
        .as_ref()
        .join(source.file_name().unwrap_or(source.as_os_str()));
    let is_there = |copy: &Path| head(copy).is_ok_and(|there| there == wanted);
    let staged = stage_with(&copy, is_there, |new| fs::copy(source, new).map(drop));
    staged.map(|()| copy).map_err(|error| match error {
        StageError::Damaged { source: error, .. } => StageError::Damaged {
            path: source.to_owned(),
            source: error,
        },
        other => other,
    })
}

/// Like [`stage`], for an image that comes from elsewhere, such as a download: calls `write` with the path of a new file beside `path`,
/// checks the image in it, and renames it to `path`. Does nothing if `is_there` returns that the file at `path` is the right one.
///
/// # Errors
/// Those of [`stage`]. The error of `write` is the source of [`StageError::File`].
pub fn stage_with(
    path: impl AsRef<Path>,
    is_there: impl FnOnce(&Path) -> bool,
    write: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<(), StageError> {
    let path = path.as_ref();
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).map_err(StageError::file("create", dir))?;
    }
    let lock = beside(path, "lock");
    let file = File::create(&lock).map_err(StageError::file("create", &lock))?;
    wait_for_turn(&file).map_err(StageError::file("lock", &lock))?;
    if is_there(path) {
        return Ok(());
    }
    let new = beside(path, "new");
    write(&new).map_err(StageError::file("write", &new))?;
    if let Err(error) = Image::verify_file(&new, &LoadOptions::new()) {
        let _ = fs::remove_file(&new);
        let (path, source) = (path.to_owned(), Box::new(error));
        return Err(StageError::Damaged { path, source });
    }
    fs::rename(&new, path).map_err(StageError::file("rename to", path))
}

/// Returns the length of a file, and its first bytes.
fn head(path: &Path) -> io::Result<(u64, Vec<u8>)> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    file.take(HEAD).read_to_end(&mut bytes)?;
    Ok((len, bytes))
}

/// Returns the path of a hidden file beside another one.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or(path.as_os_str());
    path.with_file_name(format!(".{}.{ending}", name.to_string_lossy()))
}

/// Waits until no other process of this machine has the lock, which ends with the file.
#[cfg(unix)]
fn wait_for_turn(lock: &File) -> io::Result<()> {
    Ok(rustix::fs::flock(
        lock,
        rustix::fs::FlockOperation::LockExclusive,
    )?)
}

/// Without locks, several processes may copy, and the last copy stays.
#[cfg(not(unix))]
fn wait_for_turn(_: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backing, Buffer};

    fn save(path: &Path, value: u64) {
        let image = crate::share(&Buffer::from(vec![value; 100_000]), &Backing::Auto).expect("memory");
        image.save(path).expect("a writable directory");
    }

    fn first(path: &Path) -> u64 {
        let image = Image::load_shared(path, &Backing::Auto).expect("an image");
        let model: Buffer<u64> = image.load().expect("its model");
        model[0]
    }

    #[test]
    fn a_model_is_copied_once_and_again_when_it_has_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (source, local) = (
            dir.path().join("model.safetensors"),
            dir.path().join("local/models"),
        );
        save(&source, 7);
        let copies: Vec<PathBuf> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| stage(&source, &local).expect("room")))
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("no panic"))
                .collect()
        });
        assert!(copies.iter().all(|copy| *copy == local.join("model.safetensors")));
        let written = || {
            fs::metadata(&copies[0])
                .and_then(|it| it.modified())
                .expect("it exists")
        };
        let before = written();
        stage(&source, &local).expect("it is there");
        assert_eq!((written(), first(&copies[0])), (before, 7));
        save(&source, 8);
        stage(&source, &local).expect("room");
        assert_eq!(first(&copies[0]), 8);
    }

    #[test]
    fn a_damaged_model_is_not_staged() {
        let dir = tempfile::tempdir().expect("a directory");
        let source = dir.path().join("model.safetensors");
        save(&source, 7);
        let mut bytes = fs::read(&source).expect("it was saved");
        *bytes.last_mut().expect("it is not empty") ^= 1;
        fs::write(&source, bytes).expect("a writable directory");
        let error = stage(&source, dir.path().join("local")).expect_err("it is damaged");
        assert!(matches!(error, StageError::Damaged { .. }), "{error}");
        assert!(!dir.path().join("local/model.safetensors").exists());
        let error = stage(dir.path().join("missing"), dir.path().join("local")).expect_err("it is missing");
        assert!(error.to_string().starts_with("cannot read "), "{error}");
    }
}
