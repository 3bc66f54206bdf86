//! What other processes do to shared memory, as in `faults`: scribble on it, or die and leave it.
#![cfg(windows)]
#![allow(unsafe_code)]

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

/// What a worker's stray pointer does.
fn scribble(target: &[u64]) {
    // SAFETY: none: this is the bug that the test is about. The memory is mapped read-only, so the store faults and
    // nothing after it runs.
    unsafe { std::ptr::write_volatile(target.as_ptr().cast_mut(), 0xBAD) };
}

#[test]
fn a_worker_that_writes_the_model_faults_itself_alone() -> Result<(), Box<dyn Error>> {
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
        let test = "windows::a_worker_that_writes_the_model_faults_itself_alone";
        let (status, said) = children::run(&mut children::again(&[], test, &handle));
        assert_eq!(
            status.code(),
            Some(ACCESS_VIOLATION),
            "{backing:?}: {status}, {said}"
        );
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

/// Names and files of a killed leader go when nobody has them open any more; until then, who is attached has them.
#[test]
fn a_killed_leader_leaves_nothing() -> Result<(), Box<dyn Error>> {
    if let Some(dir) = children::part() {
        let mut segments = Vec::new();
        for backing in [Backing::Named, Backing::File(dir.into())] {
            let mut segment = SegmentMut::create(&backing, 4096)?;
            segment.fill(7);
            segments.push(segment.freeze()?);
        }
        let handles: Result<Vec<SegmentHandle>, _> = segments.iter().map(Segment::handle).collect();
        println!("made {}", serde_json::to_string(&handles?)?);
        // Until it is killed.
        std::io::stdin().read_to_end(&mut Vec::new())?;
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let at = dir.path().to_str().expect("a path in UTF-8");
    let mut leader = children::again(&[], "windows::a_killed_leader_leaves_nothing", at)
        .stdin(std::process::Stdio::piped())
        .spawn()?;
    let said = BufReader::new(leader.stdout.take().expect("piped"));
    let made = said
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("made ").map(|(_, handles)| handles.to_owned()))
        .expect("the child tells its handles");
    let handles: Vec<SegmentHandle> = serde_json::from_str(&made)?;
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
    assert_eq!(std::fs::read_dir(dir.path())?.count(), 0, "something was left");
    Ok(())
}
