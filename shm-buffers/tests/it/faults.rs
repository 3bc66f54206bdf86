//! What other processes do to shared memory: scribble on it, or die and leave it.
#![cfg(target_os = "linux")]
#![allow(unsafe_code)]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, BackingKind, Buffer, Image, Segment, SegmentHandle, SegmentMut, share_move};

use crate::backings::backings;
use crate::children;

#[derive(Serialize, Deserialize)]
struct Model {
    weights: Buffer<u64>,
}

/// What a worker's stray pointer does.
fn scribble(target: &[u64]) {
    // SAFETY: none: this is the bug that the test is about. The memory is mapped read-only, so the store faults and
    // nothing after it runs.
    unsafe { std::ptr::write_volatile(target.as_ptr().cast_mut(), 0xBAD) };
}

#[test]
fn a_worker_that_writes_the_model_faults_itself_alone() -> Result<(), Box<dyn Error>> {
    const SIGSEGV: i32 = 11;
    if let Some(handle) = children::part() {
        let image = Image::attach(&serde_json::from_str(&handle)?)?;
        let model: Model = image.load()?;
        // The system's own way around protection stops at memory that was opened for reading only.
        let memory = File::options().read(true).write(true).open("/proc/self/mem")?;
        let address = model.weights.as_ptr().addr() as u64;
        assert!(
            memory.write_at(&[1], address).is_err(),
            "wrote through /proc/self/mem"
        );
        println!("reads {}", model.weights[1]);
        scribble(&model.weights);
        println!("wrote the model");
        return Ok(());
    }
    for (backing, _) in backings() {
        let weights: Buffer<u64> = (0..10_000).collect();
        let image = share_move(Model { weights }, &backing)?;
        let handle = serde_json::to_string(&image.handle()?)?;
        let test = "faults::a_worker_that_writes_the_model_faults_itself_alone";
        let (status, said) = children::run(&mut children::again(&[], test, &handle));
        assert_eq!(status.signal(), Some(SIGSEGV), "{backing:?}: {status}, {said}");
        assert!(
            said.contains("reads 1") && !said.contains("wrote"),
            "{backing:?}: {said}"
        );
        let model: Model = image.load()?;
        assert!(
            model.weights.iter().copied().eq(0..10_000),
            "{backing:?}: the model is harmed"
        );
    }
    Ok(())
}

/// The path of a named segment.
fn path_of(handle: &SegmentHandle) -> PathBuf {
    let handle = serde_json::to_value(handle).expect("handles serialize");
    let name = handle["locator"]["Name"].as_str().expect("found by name");
    Path::new("/dev/shm").join(name.trim_start_matches('/'))
}

/// As if it had been made two minutes ago: the sweep leaves young ones alone.
fn age(path: &Path) -> std::io::Result<()> {
    let then = SystemTime::now() - Duration::from_secs(120);
    File::options().write(true).open(path)?.set_modified(then)
}

#[test]
fn what_a_killed_leader_left_is_swept_and_nothing_else() -> Result<(), Box<dyn Error>> {
    if children::part().is_some() {
        let segment = SegmentMut::create(&Backing::Named, 4096)?.freeze()?;
        println!("made {}", serde_json::to_string(&segment.handle()?)?);
        // Until it is killed.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let test = "faults::what_a_killed_leader_left_is_swept_and_nothing_else";
    let mut leader = children::again(&[], test, "leader")
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let said = BufReader::new(leader.stdout.take().expect("piped"));
    let handle = said
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("made ").map(|(_, handle)| handle.to_owned()))
        .expect("the child tells its handle");
    let theirs = path_of(&serde_json::from_str(&handle)?);
    let mine = SegmentMut::create(&Backing::Named, 4096)?.freeze()?;
    let mine_at = path_of(&mine.handle()?);
    // What only looks like a segment: nobody's lock, but not a file either; or too young to judge.
    let link = Path::new("/dev/shm/shm-buffers-test-link");
    let young = Path::new("/dev/shm/shm-buffers-test-young");
    let _ = std::fs::remove_file(link);
    std::os::unix::fs::symlink(&mine_at, link)?;
    File::create(young)?.set_permissions(std::fs::Permissions::from_mode(0o600))?;

    // Both leaders live: nothing is swept.
    age(&mine_at)?;
    age(&theirs)?;
    drop(SegmentMut::create(&Backing::Named, 1)?);
    let alive = (theirs.exists(), mine_at.exists());

    leader.kill()?;
    leader.wait()?;
    let left = theirs.exists();
    // Somebody else's sweep may be looking at it just now, with its lock.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while theirs.exists() && std::time::Instant::now() < deadline {
        drop(SegmentMut::create(&Backing::Named, 1)?);
    }
    let kept = (mine_at.exists(), link.is_symlink(), young.exists());
    std::fs::remove_file(link)?;
    std::fs::remove_file(young)?;

    assert_eq!(alive, (true, true), "a living leader's segment was swept");
    assert!(left, "a killed leader can't remove it: this test tests nothing");
    assert!(!theirs.exists(), "{} was not swept", theirs.display());
    assert_eq!(kept, (true, true, true), "more than the orphan was swept");
    Ok(())
}

/// Memory without a name, and unlinked files, go with their leader.
#[test]
fn a_killed_leader_leaves_nothing_without_a_name() -> Result<(), Box<dyn Error>> {
    if let Some(dir) = children::part() {
        let anonymous = SegmentMut::create(&Backing::Anonymous, 4096)?.freeze()?;
        let file = SegmentMut::create(&Backing::File(dir.into()), 4096)?.freeze()?;
        println!("made {anonymous:?} {file:?}");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let at = dir.path().to_str().expect("a path in UTF-8");
    let test = "faults::a_killed_leader_leaves_nothing_without_a_name";
    let mut leader = children::again(&[], test, at)
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let said = BufReader::new(leader.stdout.take().expect("piped"));
    let made = said
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains("made "));
    leader.kill()?;
    leader.wait()?;
    assert!(made, "the child died before it made anything");
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "something was left");
    Ok(())
}

/// Runs `child` in a forked child of this process; returns its exit status, 0 if `child` returned.
fn in_forked_child(child: impl FnOnce()) -> i32 {
    // SAFETY: the child runs `child` in a copy of this thread and ends by `_exit`. Locks that other threads hold now stay
    // held there. `child` takes the allocator's alone, and the C library resets that one.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child();
        // SAFETY: no preconditions.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    let reaped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(reaped, pid, "{}", std::io::Error::last_os_error());
    status
}

#[test]
fn a_forked_child_that_drops_a_segment_leaves_its_name() -> Result<(), Box<dyn Error>> {
    for (backing, kind) in backings() {
        let mut segment = SegmentMut::create(&backing, 4096)?;
        segment[..4].copy_from_slice(b"ours");
        let segment = segment.freeze()?;
        let handle = segment.handle()?;
        let mut copy = Some(segment);
        assert_eq!(in_forked_child(|| drop(copy.take())), 0, "{kind:?}");
        // It can still be attached, by the name if it has one.
        let attached = Segment::attach(&handle)?;
        assert_eq!(&attached[..4], b"ours", "{kind:?}");
        drop(copy);
        if kind == BackingKind::Named {
            assert!(!path_of(&handle).exists(), "its maker removes it");
        }
    }
    Ok(())
}
