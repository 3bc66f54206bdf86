//! Saving replaces regular files only, and leaves the old file unchanged after an error.
#![cfg(unix)]

use std::error::Error;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, symlink};
use std::path::Path;

use shm_buffers::{Backing, Buffer, Image, SaveOptions, replace_file, share};

use crate::children;

fn image() -> Result<Image, Box<dyn Error>> {
    Ok(share(&Buffer::from(vec![1.0f32; 100]), &Backing::Auto)?)
}

/// Saves in every way. Each must be refused with an error that names the path and the remedy, and leave no other file in the
/// directory.
fn assert_refused(path: &Path, remedy: &str) -> Result<(), Box<dyn Error>> {
    let files = || fs::read_dir(path.parent().unwrap_or(path)).map(Iterator::count);
    let before = files()?;
    let image = image()?;
    let errors = [
        image.save(path).err(),
        image.save_with(path, &SaveOptions::new().mode(0o600)).err(),
        replace_file(path, |file| file.write_all(b"x")).err(),
        #[cfg(feature = "zstd")]
        image
            .save_compressed(path, shm_buffers::Compression::default())
            .err(),
    ];
    for error in errors {
        let error = error.ok_or("it was saved")?;
        let reason = error.source().ok_or("no reason")?.to_string();
        assert!(reason.contains(remedy), "{reason}");
        assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::InvalidInput);
    }
    assert_eq!(files()?, before);
    Ok(())
}

#[test]
fn save_refuses_a_fifo() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("fifo");
    let status = std::process::Command::new("mkfifo").arg(&path).status()?;
    assert!(status.success());
    assert_refused(&path, "regular file")?;
    assert!(fs::symlink_metadata(&path)?.file_type().is_fifo());
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
fn save_refuses_a_device() -> Result<(), Box<dyn Error>> {
    use rustix::fs::{CWD, FileType, Mode};

    let dir = tempfile::tempdir()?;
    let path = dir.path().join("null");
    // Not the system's own device, which root could replace.
    let null = rustix::fs::makedev(1, 3);
    if rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::RWXU, null).is_err() {
        eprintln!("skipped: creating a device is not allowed here");
        return Ok(());
    }
    assert_refused(&path, "regular file")?;
    assert!(fs::symlink_metadata(&path)?.file_type().is_char_device());
    Ok(())
}

#[test]
fn save_refuses_a_directory() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("directory");
    fs::create_dir(&path)?;
    assert_refused(&path, "directory")?;
    assert!(path.is_dir());
    Ok(())
}

#[test]
fn save_refuses_a_symbolic_link() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let target = dir.path().join("target");
    fs::write(&target, "precious")?;
    for to in [&target, &dir.path().join("nothing"), Path::new("/dev/null")] {
        let path = dir.path().join("link");
        symlink(to, &path)?;
        assert_refused(&path, "symbolic link")?;
        assert_eq!(fs::read_link(&path)?, to);
        fs::remove_file(&path)?;
    }
    assert_eq!(fs::read(&target)?, b"precious");
    Ok(())
}

#[test]
fn save_follows_a_link_in_the_path_of_the_directory() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real)?;
    symlink(&real, &link)?;
    image()?.save(link.join("image"))?;
    assert!(real.join("image").is_file());
    Ok(())
}

#[test]
fn a_failed_replace_keeps_the_old_file_and_leaves_no_other() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("file");
    fs::write(&path, "old")?;
    let failed = replace_file(&path, |file| {
        file.write_all(b"half")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert!(failed.is_err());
    // A link that is created while the file is written is refused as well.
    let failed = replace_file(dir.path().join("late"), |_| {
        symlink(&path, dir.path().join("late"))
    });
    assert!(failed.is_err());
    assert_eq!(fs::read(&path)?, b"old");
    assert_eq!(fs::read_dir(dir.path())?.count(), 2);
    Ok(())
}

#[test]
fn save_succeeds_if_only_the_directory_cannot_be_synchronized() -> Result<(), Box<dyn Error>> {
    use std::os::unix::fs::PermissionsExt;

    let test = "saving::save_succeeds_if_only_the_directory_cannot_be_synchronized";
    if let Some(dir) = children::part() {
        // Files can be created in this directory, but it can't be opened, and so can't be synchronized to the disk.
        let dir = Path::new(&dir);
        fs::set_permissions(dir, fs::Permissions::from_mode(0o300))?;
        let opened = fs::File::open(dir).is_ok();
        let saved = image()?.save(dir.join("image"));
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        assert!(!opened, "the directory is readable to this user");
        saved?;
        assert!(dir.join("image").is_file());
        children::report_success();
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let part = dir.path().to_string_lossy().into_owned();
    let as_other_user: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534))?;
            let mut probe = std::process::Command::new(as_other_user[0]);
            let exe = std::env::current_exe()?;
            let listed = probe.args(&as_other_user[1..]).arg(exe).arg("--list").output();
            if !listed.is_ok_and(|listed| listed.status.success()) {
                eprintln!("skipped: the test binary can't be run as another user here");
                return Ok(());
            }
            children::again(as_other_user, test, &part)
        }
        false => children::again(&[], test, &part),
    };
    children::assert_success(&mut command);
    Ok(())
}
