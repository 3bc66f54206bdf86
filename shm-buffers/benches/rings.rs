//! The cost of a frame through a ring, and of a count in a slot, within one process.
//!
//! Run it with `cargo xtask bench shm`, or `cargo bench -p shm-buffers --bench rings` (criterion). Both ends of a ring are on
//! one thread, so no cache line moves between cores: this is the cost of the instructions. The floor of a frame is one copy
//! of its bytes in and one out. Its peer is a bounded channel of crossbeam, which works within one process, with a vector for
//! each frame. The floors of a count are a relaxed load and store of a thread's own number, and a relaxed atomic addition.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{BenchmarkId, Criterion, Throughput};
use shm_buffers::ring;
use shm_buffers::slots::Slots;

/// Bytes of a number, of a short text and of a page.
const SIZES: [usize; 3] = [7, 64, 4096];

fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frame");
    for size in SIZES {
        group.throughput(Throughput::Bytes(size as u64));
        let frame = vec![7; size];
        let (mut tx, mut rx) = ring::in_process(256 << 10);
        let mut out = Vec::with_capacity(size);
        group.bench_function(BenchmarkId::new("ring", size), |bencher| {
            bencher.iter(|| {
                out.clear();
                tx.push(black_box(&frame)).expect("there is space");
                let popped = rx.pop(&mut out).expect("sound");
                assert_eq!(popped, Some(size));
            });
        });
        let mut between = vec![0; size];
        group.bench_function(BenchmarkId::new("memcpy", size), |bencher| {
            bencher.iter(|| {
                black_box(&mut between[..]).copy_from_slice(black_box(&frame));
                out.clear();
                out.extend_from_slice(black_box(&between));
            });
        });
        let (tx, rx) = crossbeam_channel::bounded(1024);
        group.bench_function(BenchmarkId::new("crossbeam", size), |bencher| {
            bencher.iter(|| {
                tx.send(black_box(&frame).clone()).expect("there is space");
                black_box(rx.recv().expect("it was sent"))
            });
        });
    }
    group.finish();
}

fn counts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("count");
    let slots = Slots::in_process(1);
    let slot = slots.slot(0);
    group.bench_function("slot", |bencher| bencher.iter(|| black_box(slot).add(1)));
    let own = AtomicU64::new(0);
    group.bench_function("load and store", |bencher| {
        bencher.iter(|| {
            let own = black_box(&own);
            own.store(own.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        });
    });
    let shared = AtomicU64::new(0);
    group.bench_function("relaxed addition", |bencher| {
        bencher.iter(|| black_box(&shared).fetch_add(1, Ordering::Relaxed));
    });
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    frames(&mut criterion);
    counts(&mut criterion);
    criterion.final_summary();
}
