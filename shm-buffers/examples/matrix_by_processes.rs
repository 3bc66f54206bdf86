//! Child processes score the rows of a matrix in shared memory. One child is killed: its scores stay, and another child goes on
//! after them. Nothing is left behind.
//!
//! `cargo run -p shm-buffers --no-default-features --example matrix_by_processes`

use std::process::Command;

use shm_buffers::slots::Slots;
use shm_buffers::{Backing, Layout, Region, Segment, SegmentMut};

type Failure = Box<dyn std::error::Error>;

const ROWS: usize = 1000;
const ROW_BYTES: usize = 256 * size_of::<f32>();
const CHILDREN: usize = 4;
/// The row at which the first child hangs, as if by a bug.
const HANGS_AT: usize = 100;

/// A child scores its share of the rows, from its next row on.
fn score(matrix: &Segment, scores: &Slots, next: &Slots, child: usize, hangs: bool) {
    let next = next.slot(child);
    for row in next.load_acquire() as usize..(child + 1) * ROWS / CHILDREN {
        if hangs && row == HANGS_AT {
            loop {
                std::thread::park();
            }
        }
        let cells = matrix[row * ROW_BYTES..][..ROW_BYTES].as_chunks().0;
        let score: f32 = cells.iter().map(|cell| f32::from_ne_bytes(*cell)).sum();
        scores.slot(row).set(score.to_bits().into());
        next.store_release(row as u64 + 1); // after the score
    }
}

fn main() -> Result<(), Failure> {
    let mut layout = Layout::new();
    let (scores, next) = (layout.slots(ROWS), layout.slots(CHILDREN)); // the same in all processes
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [_, matrix, region, child, hangs] = &args[..] {
        let matrix = Segment::attach(&matrix.parse()?)?;
        let region = Region::attach(&region.parse()?)?;
        let (scores, next) = (Slots::new(&region, scores), Slots::new(&region, next));
        score(&matrix, &scores, &next, child.parse()?, hangs.parse()?);
        return Ok(());
    }
    let mut matrix = SegmentMut::create(&Backing::Auto, ROWS * ROW_BYTES)?;
    for (row, cells) in matrix.chunks_exact_mut(ROW_BYTES).enumerate() {
        cells.as_chunks_mut().0.fill((row as f32).to_ne_bytes());
    }
    let matrix = matrix.freeze()?;
    let region = Region::create(&Backing::Auto, layout.byte_len())?;
    let (scores, next) = (Slots::new(&region, scores), Slots::new(&region, next));
    let handles = [matrix.handle()?.to_string(), region.handle()?.to_string()];
    let spawn = |child: usize, hangs: bool| {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("score")
            .args(&handles)
            .args([child.to_string(), hangs.to_string()])
            .spawn()
    };
    let mut children = Vec::new();
    for child in 0..CHILDREN {
        next.slot(child).store_release((child * ROWS / CHILDREN) as u64);
        children.push(spawn(child, child == 0)?);
    }
    while next.slot(0).load_acquire() < HANGS_AT as u64 {
        std::thread::yield_now();
    }
    children[0].kill()?;
    for (number, mut child) in children.into_iter().enumerate() {
        if !child.wait()?.success() {
            println!("child {number} died at row {}", next.slot(number).get());
            assert!(spawn(number, false)?.wait()?.success());
        }
    }
    for row in 0..ROWS {
        assert_eq!(f32::from_bits(scores.slot(row).get() as u32), row as f32 * 256.0);
    }
    drop(matrix);
    assert!(
        Segment::attach(&handles[0].parse()?).is_err(),
        "the matrix is still there"
    );
    println!("all {ROWS} rows have their scores");
    Ok(())
}
