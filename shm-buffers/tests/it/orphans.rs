//! Memory that killed owners leave behind, and its removal.
#![cfg(target_os = "linux")]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant, SystemTime};

use shm_buffers::{Backing, Region, RegionHandle, SegmentHandle, SegmentMut, remove_orphaned_segments};

use crate::children;

/// Returns the path of a named segment.
pub(crate) fn path_of(handle: &SegmentHandle) -> PathBuf {
    path_in(&handle.to_string())
}

fn path_in(handle: &str) -> PathBuf {
    let (_, name) = handle
        .split_once(":name:/")
        .expect("the text of a handle to named memory");
    Path::new("/dev/shm").join(name)
}

/// Makes a file two minutes old: the sweep skips younger files without a size.
fn age(path: &Path) -> std::io::Result<()> {
    let then = SystemTime::now() - Duration::from_secs(120);
    File::options().write(true).open(path)?.set_modified(then)
}

/// Prints the text of a handle, and waits until this process is killed.
fn await_death(handle: &str) -> Result<(), Box<dyn Error>> {
    println!("made {handle}");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Starts an owner that calls [`await_death`], and returns it with its handle.
fn owner(test: &str) -> Result<(Child, String), Box<dyn Error>> {
    let mut owner = children::again(&[], test, "owner")
        .stdin(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(owner.stdout.take().expect("piped"));
    let handle = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("made ").map(|(_, handle)| handle.to_owned()));
    Ok((owner, handle.expect("the child prints its handle")))
}

#[test]
fn a_new_named_segment_removes_those_of_killed_owners_only() -> Result<(), Box<dyn Error>> {
    if children::part().is_some() {
        let segment = SegmentMut::create(&Backing::Named, 4096)?.freeze()?;
        return await_death(&segment.handle()?.to_string());
    }
    let (mut owner, handle) = owner("orphans::a_new_named_segment_removes_those_of_killed_owners_only")?;
    let theirs = path_in(&handle);
    let mine = SegmentMut::create(&Backing::Named, 4096)?.freeze()?;
    let mine_at = path_of(&mine.handle()?);
    // Neither of these is an abandoned segment: one is not a regular file, the other one is too young.
    let link = Path::new("/dev/shm/shm-buffers-test-link");
    let young = Path::new("/dev/shm/shm-buffers-test-young");
    let _ = std::fs::remove_file(link);
    std::os::unix::fs::symlink(&mine_at, link)?;
    File::create(young)?.set_permissions(std::fs::Permissions::from_mode(0o600))?;

    // Both owners are alive: nothing is swept.
    age(&mine_at)?;
    age(&theirs)?;
    drop(SegmentMut::create(&Backing::Named, 1)?);
    let alive = (theirs.exists(), mine_at.exists());

    owner.kill()?;
    owner.wait()?;
    // A sweep of another process may hold the lock for a moment.
    let deadline = Instant::now() + Duration::from_secs(30);
    while theirs.exists() && Instant::now() < deadline {
        drop(SegmentMut::create(&Backing::Named, 1)?);
    }
    let kept = (mine_at.exists(), link.is_symlink(), young.exists());
    std::fs::remove_file(link)?;
    std::fs::remove_file(young)?;

    assert_eq!(alive, (true, true), "a living owner's segment was swept");
    assert!(!theirs.exists(), "{} was not swept", theirs.display());
    assert_eq!(
        kept,
        (true, true, true),
        "more than the abandoned segment was swept"
    );
    Ok(())
}

/// A process that attached a region keeps it, whatever becomes of its owner and its name.
#[test]
fn remove_orphaned_segments_removes_a_fresh_region_at_once() -> Result<(), Box<dyn Error>> {
    if children::part().is_some() {
        let region = Region::create(&Backing::Named, 4096)?;
        return await_death(&region.handle()?.to_string());
    }
    let (mut owner, text) = owner("orphans::remove_orphaned_segments_removes_a_fresh_region_at_once")?;
    let handle: RegionHandle = text.parse()?;
    remove_orphaned_segments()?;
    let attached = Region::attach(&handle)?;
    owner.kill()?;
    owner.wait()?;

    // Another test may remove it first.
    let deadline = Instant::now() + Duration::from_secs(30);
    while path_in(&text).exists() && Instant::now() < deadline {
        remove_orphaned_segments()?;
    }
    assert!(!path_in(&text).exists(), "{text} was not removed");
    assert!(Region::attach(&handle).is_err());
    let mut layout = shm_buffers::Layout::new();
    let span = layout.slots(512);
    shm_buffers::slots::Slots::new(&attached, span).slot(511).set(7);
    Ok(())
}
