//! Allocations for each null op in steady state, in the leader and in a worker. Baseline: a floor of none.
//!
//! This program counts the allocations of each of its threads; its workers run this program, too. The leader's allocations
//! are those of the thread that maps: it encodes, sends, receives and decodes.

#![allow(unsafe_code, reason = "counts the requests of the allocator")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proc_pool::{Builder, Workers};

use crate::report::{Report, Target};
use crate::rounds::Samples;
use crate::{Effort, Failure, WORKERS, null};

/// The system's allocator; it counts the allocations of each thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    // A thread that ends has lost its counter.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: every call goes to `System` unchanged, which keeps the contract; counting neither allocates nor unwinds,
// because the counter is a constant-initialised `Cell` without a destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc`'s contract, and `System` has the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps `alloc_zeroed`'s contract, and `System` has the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: `block` came from `System` by one of these methods with this layout; the rest is the caller's contract.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: `block` came from `System` by one of these methods with this layout.
        unsafe { System.dealloc(block, layout) }
    }
}

fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// The task whose output is the worker's count.
const GET_COUNT: u64 = u64::MAX;

fn op(task: u64) -> u64 {
    match task {
        GET_COUNT => allocations(),
        task => null::op(task),
    }
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("Allocations of null ops in steady state, for 1,000 tasks, of 1,000,000");
    const TASKS: u64 = 1_000_000;
    let build = |workers| Builder::new().workers(Workers::Count(workers)).build_op(op);
    let per_thousand = |count: u64| count as f64 * 1000.0 / TASKS as f64;
    let pool = build(WORKERS)?;
    for name in ["leader, unordered", "leader, ordered"] {
        let mut counts = Samples::new();
        // The first round is not counted: buffers reach their size in it.
        for round in 0..=effort.rounds {
            let mut outputs: Box<dyn Iterator<Item = _>> = match name {
                "leader, ordered" => Box::new(pool.map(0..TASKS)),
                _ => Box::new(pool.map_unordered(0..TASKS)),
            };
            let mut before = None;
            let mut seen = 0;
            // Counted from the middle of the map, because its start may allocate.
            for output in outputs.by_ref() {
                output?;
                seen += 1;
                if seen == TASKS / 10 {
                    before = Some(allocations());
                }
            }
            let after = allocations();
            if round > 0 {
                counts.push(per_thousand((after - before.unwrap_or(after)) * 10 / 9));
            }
        }
        report_counts(report, name, &counts);
    }
    // With one worker, every count is of the same process.
    let pool = build(1)?;
    let count = || -> Result<u64, Failure> { Ok(pool.map([GET_COUNT]).next().ok_or("no output")??) };
    let mut counts = Samples::new();
    for round in 0..=effort.rounds {
        let before = count()?;
        null::sum(pool.map_unordered(0..TASKS))?;
        if round > 0 {
            counts.push(per_thousand(count()? - before));
        }
    }
    report_counts(report, "worker", &counts);
    Ok(())
}

fn report_counts(report: &mut Report, name: &str, counts: &Samples) {
    let measured = format!("{:.3}", counts.median());
    report.row(
        name,
        measured,
        ("none, rounded to", "0.1"),
        counts,
        Target::AtMost(0.1),
    );
}
