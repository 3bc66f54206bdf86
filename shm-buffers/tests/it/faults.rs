//! Faults of other processes: they write to a model, or are killed and leave memory behind.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "writes a model through a stray pointer; forks")]

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

/// Writes through a stray pointer.
fn scribble(target: &[u64]) {
    // SAFETY: this is not sound: it is the bug that the test is about. The memory is mapped read-only, so the store
    // faults, and no code after it runs.
    unsafe { std::ptr::write_volatile(target.as_ptr().cast_mut(), 0xBAD) };
}

#[test]
fn a_worker_that_writes_the_model_only_kills_itself() -> Result<(), Box<dyn Error>> {
    const SIGSEGV: i32 = 11;
    if let Some(handle) = children::part() {
        let image = Image::attach(&serde_json::from_str(&handle)?)?;
        let model: Model = image.load()?;
        // /proc/self/mem ignores page protection, but not that the memory was opened for reading only.
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
        let test = "faults::a_worker_that_writes_the_model_only_kills_itself";
        let (status, output) = children::run(&mut children::again(&[], test, &handle));
        assert_eq!(status.signal(), Some(SIGSEGV), "{backing:?}: {status}, {output}");
        assert!(
            output.contains("reads 1") && !output.contains("wrote"),
            "{backing:?}: {output}"
        );
        let model: Model = image.load()?;
        assert!(
            model.weights.iter().copied().eq(0..10_000),
            "{backing:?}: the model has changed"
        );
    }
    Ok(())
}

/// Returns the path of a named segment.
fn path_of(handle: &SegmentHandle) -> PathBuf {
    let handle = serde_json::to_value(handle).expect("handles serialize");
    let name = handle["locator"]["Name"].as_str().expect("a name");
    Path::new("/dev/shm").join(name.trim_start_matches('/'))
}

/// Makes a file two minutes old: the sweep skips younger files.
fn age(path: &Path) -> std::io::Result<()> {
    let then = SystemTime::now() - Duration::from_secs(120);
    File::options().write(true).open(path)?.set_modified(then)
}

#[test]
fn the_sweep_removes_only_the_segments_of_killed_leaders() -> Result<(), Box<dyn Error>> {
    if children::part().is_some() {
        let segment = SegmentMut::create(&Backing::Named, 4096)?.freeze()?;
        println!("made {}", serde_json::to_string(&segment.handle()?)?);
        // Waits until it is killed.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let test = "faults::the_sweep_removes_only_the_segments_of_killed_leaders";
    let mut leader = children::again(&[], test, "leader")
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let output = BufReader::new(leader.stdout.take().expect("piped"));
    let handle = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("made ").map(|(_, handle)| handle.to_owned()))
        .expect("the child prints its handle");
    let theirs = path_of(&serde_json::from_str(&handle)?);
    let mine = SegmentMut::create(&Backing::Named, 4096)?.freeze()?;
    let mine_at = path_of(&mine.handle()?);
    // Neither of these is an abandoned segment: one is not a regular file, the other one is too young.
    let link = Path::new("/dev/shm/shm-buffers-test-link");
    let young = Path::new("/dev/shm/shm-buffers-test-young");
    let _ = std::fs::remove_file(link);
    std::os::unix::fs::symlink(&mine_at, link)?;
    File::create(young)?.set_permissions(std::fs::Permissions::from_mode(0o600))?;

    // Both leaders are alive: nothing is swept.
    age(&mine_at)?;
    age(&theirs)?;
    drop(SegmentMut::create(&Backing::Named, 1)?);
    let alive = (theirs.exists(), mine_at.exists());

    leader.kill()?;
    leader.wait()?;
    let abandoned = theirs.exists();
    // A sweep of another process may hold the lock for a moment.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while theirs.exists() && std::time::Instant::now() < deadline {
        drop(SegmentMut::create(&Backing::Named, 1)?);
    }
    let kept = (mine_at.exists(), link.is_symlink(), young.exists());
    std::fs::remove_file(link)?;
    std::fs::remove_file(young)?;

    assert_eq!(alive, (true, true), "a living leader's segment was swept");
    assert!(abandoned, "the killed leader has removed its segment");
    assert!(!theirs.exists(), "{} was not swept", theirs.display());
    assert_eq!(
        kept,
        (true, true, true),
        "more than the abandoned segment was swept"
    );
    Ok(())
}

/// Anonymous memory and unlinked files disappear with their leader.
#[test]
fn a_killed_leader_leaves_no_memory_without_a_name() -> Result<(), Box<dyn Error>> {
    if let Some(dir) = children::part() {
        let anonymous = SegmentMut::create(&Backing::Anonymous, 4096)?.freeze()?;
        let file = SegmentMut::create(&Backing::File(dir.into()), 4096)?.freeze()?;
        println!("made {anonymous:?} {file:?}");
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let at = dir.path().to_str().expect("a path in UTF-8");
    let test = "faults::a_killed_leader_leaves_no_memory_without_a_name";
    let mut leader = children::again(&[], test, at)
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let output = BufReader::new(leader.stdout.take().expect("piped"));
    let created = output
        .lines()
        .map_while(Result::ok)
        .any(|line| line.contains("made "));
    leader.kill()?;
    leader.wait()?;
    assert!(created, "the child died before it created a segment");
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "files are left");
    Ok(())
}

/// Runs `child` in a forked child of this process. Returns the child's wait status: 0 if `child` returned.
fn in_forked_child(child: impl FnOnce()) -> i32 {
    // SAFETY: the child runs `child` in a copy of this thread and ends with `_exit`. Locks that other threads hold stay
    // locked there. `child` only takes the allocator's lock, and the C library resets that one.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child();
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: `status` is valid for writes.
    let reaped = unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(reaped, pid, "{}", std::io::Error::last_os_error());
    status
}

#[test]
fn a_forked_child_that_drops_a_segment_keeps_its_name() -> Result<(), Box<dyn Error>> {
    for (backing, kind) in backings() {
        let mut segment = SegmentMut::create(&backing, 4096)?;
        segment[..4].copy_from_slice(b"ours");
        let segment = segment.freeze()?;
        let handle = segment.handle()?;
        let mut copy = Some(segment);
        assert_eq!(in_forked_child(|| drop(copy.take())), 0, "{kind:?}");
        // The segment can still be attached, by its name if it has one.
        let attached = Segment::attach(&handle)?;
        assert_eq!(&attached[..4], b"ours", "{kind:?}");
        drop(copy);
        if kind == BackingKind::Named {
            assert!(!path_of(&handle).exists(), "its creator removes it");
        }
    }
    Ok(())
}
