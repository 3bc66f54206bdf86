//! Faults of other processes on Windows, as in `faults`: they write to a model, or are killed and leave memory behind.
#![cfg(windows)]
#![allow(unsafe_code, reason = "writes a model through a stray pointer")]

use std::error::Error;
use std::io::{BufRead, BufReader, Read};

use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, Buffer, Image, Segment, SegmentHandle, SegmentMut, share_move};

use crate::backings::{NO_DELETE_PENDING, backings, wine_lacks};
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
    const ACCESS_VIOLATION: i32 = 0xC000_0005_u32.cast_signed();
    if let Some(handle) = children::part() {
        let image = Image::attach(&serde_json::from_str(&handle)?)?;
        let model: Model = image.load()?;
        println!("reads {}", model.weights[1]);
        scribble(&model.weights);
        println!("wrote the model");
        return Ok(());
    }
    for (backing, _) in backings() {
        let weights: Buffer<u64> = (0..10_000).collect();
        let image = share_move(Model { weights }, &backing)?;
        let handle = serde_json::to_string(&image.handle()?)?;
        let test = "windows::a_worker_that_writes_the_model_only_kills_itself";
        let (status, output) = children::run(&mut children::again(&[], test, &handle));
        assert_eq!(
            status.code(),
            Some(ACCESS_VIOLATION),
            "{backing:?}: {status}, {output}"
        );
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

/// Names and files of a killed leader disappear when no process has them open any more. Until then, attached processes keep
/// them.
#[test]
fn a_killed_leader_leaves_no_names_and_files() -> Result<(), Box<dyn Error>> {
    if let Some(dir) = children::part() {
        let mut segments = Vec::new();
        for backing in [Backing::Named, Backing::File(dir.into())] {
            let mut segment = SegmentMut::create(&backing, 4096)?;
            segment.fill(7);
            segments.push(segment.freeze()?);
        }
        let handles: Result<Vec<SegmentHandle>, _> = segments.iter().map(Segment::handle).collect();
        println!("made {}", serde_json::to_string(&handles?)?);
        // Waits until it is killed.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let at = dir.path().to_str().expect("a path in UTF-8");
    let mut leader = children::again(&[], "windows::a_killed_leader_leaves_no_names_and_files", at)
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let output = BufReader::new(leader.stdout.take().expect("piped"));
    let line = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("made ").map(|(_, handles)| handles.to_owned()))
        .expect("the child prints its handles");
    let handles: Vec<SegmentHandle> = serde_json::from_str(&line)?;
    let attached: Result<Vec<Segment>, _> = handles.iter().map(Segment::attach).collect();
    let attached = attached?;
    leader.kill()?;
    leader.wait()?;
    for segment in &attached {
        assert!(segment.len() == 4096 && segment.iter().all(|byte| *byte == 7));
    }
    drop(attached);
    for handle in &handles {
        let late = Segment::attach(handle);
        let file = handle.backing() == shm_buffers::BackingKind::File;
        assert!(
            late.is_err() || (file && wine_lacks(NO_DELETE_PENDING)),
            "{late:?}"
        );
    }
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "files are left");
    Ok(())
}
