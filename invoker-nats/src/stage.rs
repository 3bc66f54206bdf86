//! [`stage`]: the file of a model, copied once to a disk of this machine.

mod store;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use invoker::{Image, LoadOptions};

use crate::error::Error;

/// Bytes at the beginning of two files that are compared: they have the checksum of the rest.
const HEAD: u64 = 4096;

/// Copies a saved model image from a slow or busy file system into a directory of this machine, unless it is there, and returns the path
/// of the copy. Several processes may do so at the same time: one copies, and the others wait.
///
/// ```no_run
/// # use invoker::{Backing, Buffer, Image, Invoker};
/// # fn score(model: &Buffer<f64>, item: u32) -> f64 { model[item as usize] }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let cluster = invoker_nats::Cluster::from_env()?;
/// let path = invoker_nats::stage("/shared/model.safetensors", "/scratch/models")?;
/// let image = Image::load_shared(path, &Backing::Auto)?;
/// cluster.serve(Invoker::builder(score).image(image))?;
/// # Ok(()) }
/// ```
///
/// The copy has another name until it is complete and its checksum is right. A copy of an earlier version of the file is replaced.
///
/// # Errors
/// [`Error::Stage`] if a file cannot be read or written; [`Error::Damaged`] if the copy is not the image that was saved.
pub fn stage(source: impl AsRef<Path>, dir: impl AsRef<Path>) -> Result<PathBuf, Error> {
    let (source, dir) = (source.as_ref(), dir.as_ref());
    fs::create_dir_all(dir).map_err(failed("create", dir))?;
    let name = source.file_name().unwrap_or(source.as_os_str());
    let copy = dir.join(name);
    let _lock = lock(&copy)?;
    let head = |path: &Path| {
        let mut bytes = Vec::new();
        let mut file = File::open(path)?;
        file.by_ref().take(HEAD).read_to_end(&mut bytes)?;
        Ok::<_, std::io::Error>((file.metadata()?.len(), bytes))
    };
    let wanted = head(source).map_err(failed("read", source))?;
    if head(&copy).is_ok_and(|there| there == wanted) {
        return Ok(copy);
    }
    let new = beside(&copy, "new");
    fs::copy(source, &new).map_err(failed("copy to", &new))?;
    if let Err(error) = verify(&new, source) {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    fs::rename(&new, &copy).map_err(failed("rename to", &copy))?;
    Ok(copy)
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Stage { step, path, source }
}

/// Returns the path of a hidden file beside another one.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let name = path.file_name().unwrap_or(path.as_os_str());
    path.with_file_name(format!(".{}.{ending}", name.to_string_lossy()))
}

/// Checks that a file is an image as it was saved. An error names `original`.
fn verify(file: &Path, original: &Path) -> Result<(), Error> {
    let checked = Image::verify_file(file, &LoadOptions::new());
    checked.map(drop).map_err(|error| Error::Damaged {
        path: original.to_owned(),
        source: Box::new(error),
    })
}

/// Waits until no other process of this machine makes the file at `path`, until the returned file is closed.
fn lock(path: &Path) -> Result<File, Error> {
    let path = beside(path, "lock");
    let lock = File::create(&path).map_err(failed("create", &path))?;
    wait_for_turn(&lock).map_err(failed("lock", &path))?;
    Ok(lock)
}

/// Waits until no other process of this machine has the lock, which ends with the file.
#[cfg(unix)]
fn wait_for_turn(lock: &File) -> std::io::Result<()> {
    Ok(rustix::fs::flock(
        lock,
        rustix::fs::FlockOperation::LockExclusive,
    )?)
}

/// Without locks, several processes may copy, and the last copy stays.
#[cfg(not(unix))]
fn wait_for_turn(_: &File) -> std::io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use invoker::{Backing, Buffer};

    use super::*;

    fn save(path: &Path, value: u64) {
        let image = invoker::share(&Buffer::from(vec![value; 100_000]), &Backing::Auto).expect("memory");
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
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(!dir.path().join("local/model.safetensors").exists());
        let error = stage(dir.path().join("missing"), dir.path().join("local")).expect_err("it is missing");
        assert!(error.to_string().starts_with("cannot read "), "{error}");
    }
}
