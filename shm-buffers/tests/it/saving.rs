//! Saving replaces regular files only, and keeps the old file after an error.
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

/// Saves in every way; each must be refused, name the path and the remedy, and leave nothing else in the directory.
fn refused(path: &Path, remedy: &str) -> Result<(), Box<dyn Error>> {
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
    let made = std::process::Command::new("mkfifo").arg(&path).status()?;
    assert!(made.success());
    refused(&path, "regular file")?;
    assert!(fs::symlink_metadata(&path)?.file_type().is_fifo());
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
fn save_refuses_a_device() -> Result<(), Box<dyn Error>> {
    use rustix::fs::{CWD, FileType, Mode};

    let dir = tempfile::tempdir()?;
    let path = dir.path().join("null");
    // Not the machine's own, which root could replace.
    let null = rustix::fs::makedev(1, 3);
    if rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::RWXU, null).is_err() {
        eprintln!("skipped: making a device is not allowed here");
        return Ok(());
    }
    refused(&path, "regular file")?;
    assert!(fs::symlink_metadata(&path)?.file_type().is_char_device());
    Ok(())
}

#[test]
fn save_refuses_a_directory() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("directory");
    fs::create_dir(&path)?;
    refused(&path, "directory")?;
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
        refused(&path, "symbolic link")?;
        assert_eq!(fs::read_link(&path)?, to);
        fs::remove_file(&path)?;
    }
    assert_eq!(fs::read(&target)?, b"precious");
    Ok(())
}

#[test]
fn a_link_in_the_path_of_the_directory_is_followed() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let (real, link) = (dir.path().join("real"), dir.path().join("link"));
    fs::create_dir(&real)?;
    symlink(&real, &link)?;
    image()?.save(link.join("image"))?;
    assert!(real.join("image").is_file());
    Ok(())
}

#[test]
fn after_an_error_the_old_file_is_there_and_no_other() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("file");
    fs::write(&path, "old")?;
    let failed = replace_file(&path, |file| {
        file.write_all(b"half")?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert!(failed.is_err());
    // What comes into being while the file is written is found as well.
    let failed = replace_file(dir.path().join("late"), |_| {
        symlink(&path, dir.path().join("late"))
    });
    assert!(failed.is_err());
    assert_eq!(fs::read(&path)?, b"old");
    assert_eq!(fs::read_dir(dir.path())?.count(), 2);
    Ok(())
}

#[test]
fn once_it_is_renamed_it_is_saved() -> Result<(), Box<dyn Error>> {
    use std::os::unix::fs::PermissionsExt;

    let test = "saving::once_it_is_renamed_it_is_saved";
    if let Some(dir) = children::part() {
        // Files can be made in this directory, but it can't be opened, so that its name can't be brought to the disk.
        let dir = Path::new(&dir);
        fs::set_permissions(dir, fs::Permissions::from_mode(0o300))?;
        let opened = fs::File::open(dir).is_ok();
        let saved = image()?.save(dir.join("image"));
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        assert!(!opened, "the directory is readable to this user");
        saved?;
        assert!(dir.join("image").is_file());
        println!("all well");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let part = dir.path().to_string_lossy().into_owned();
    let root: &[&str] = &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            std::os::unix::fs::chown(dir.path(), Some(65534), Some(65534))?;
            let mut probe = std::process::Command::new(root[0]);
            let exe = std::env::current_exe()?;
            let listed = probe.args(&root[1..]).arg(exe).arg("--list").output();
            if !listed.is_ok_and(|listed| listed.status.success()) {
                eprintln!("skipped: the test binary can't be run as another user here");
                return Ok(());
            }
            children::again(root, test, &part)
        }
        false => children::again(&[], test, &part),
    };
    let (status, said) = children::run(&mut command);
    assert!(
        status.success() && said.contains("all well"),
        "{status}, having said\n{said}"
    );
    Ok(())
}
