//! Faults of other processes: they write to a model, or are killed and leave memory behind.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "writes a model through a stray pointer; forks")]

use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;

use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, BackingKind, Buffer, Image, Segment, SegmentMut, share_move};

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

/// The child has a copy of the writable mapping, with which the kernel refuses to seal the memory.
#[test]
fn a_segment_is_frozen_while_a_forked_child_lives() -> Result<(), Box<dyn Error>> {
    let segment = SegmentMut::create(&Backing::Anonymous, 4096)?;
    // SAFETY: the child calls functions that are safe after a fork, and ends with `_exit`.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: `usleep` has no preconditions.
        unsafe { libc::usleep(200_000) };
        // SAFETY: `_exit` has no preconditions.
        unsafe { libc::_exit(0) };
    }
    assert_eq!(segment.freeze()?.len(), 4096);
    // SAFETY: a null pointer asks for no status.
    let reaped = unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    assert_eq!(reaped, pid);
    Ok(())
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
            assert!(
                !crate::orphans::path_of(&handle).exists(),
                "its creator removes it"
            );
        }
    }
    Ok(())
}
