//! The cost of counting in a worker.
//!
//! - baselines: a relaxed load and store in a word that one thread owns, and a relaxed atomic addition;
//! - peers: `ProgressBar::inc` of indicatif, hidden and drawn.
//!
//! The group `inc from several threads` has one thread for each core, up to eight, that count at the same time. Its times
//! are those of one call in one of the threads.
//!
//! Run it with `cargo bench -p progress --bench count`, or with `cargo xtask bench progress` for the comparisons.

use std::hint::black_box;
use std::io;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use criterion::Criterion;
use indicatif::{ProgressBar, ProgressDrawTarget, TermLike};
use progress::{Bar, Counters, Outcome, Total};

fn count(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inc");
    let slot = AtomicU64::new(0);
    group.bench_function("load and store", |bencher| {
        bencher.iter(|| {
            let slot = black_box(&slot);
            slot.store(slot.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        });
    });
    let counters = Counters::in_process();
    let done = counters.counter(Outcome::Done);
    group.bench_function("counter", |bencher| bencher.iter(|| black_box(done).inc()));
    group.bench_function("counter looked up", |bencher| {
        bencher.iter(|| black_box(&counters).counter(Outcome::Done).inc());
    });
    let steps = Counters::in_process();
    let mut step = 0;
    group.bench_function("step", |bencher| {
        bencher.iter(|| {
            step += 1;
            black_box(&steps).step(step, Total::Known(1 << 40));
        });
    });
    let shared = AtomicU64::new(0);
    group.bench_function("relaxed addition", |bencher| {
        bencher.iter(|| black_box(&shared).fetch_add(1, Ordering::Relaxed));
    });
    let bar = Bar::new("bar", Total::Unknown);
    group.bench_function("bar", |bencher| {
        bencher.iter(|| black_box(&bar).inc(Outcome::Done))
    });
    let hidden = ProgressBar::with_draw_target(Some(u64::MAX), ProgressDrawTarget::hidden());
    group.bench_function("indicatif hidden", |bencher| {
        bencher.iter(|| black_box(&hidden).inc(1))
    });
    let target = ProgressDrawTarget::term_like_with_hz(Box::new(NullTerminal), 20);
    let drawn = ProgressBar::with_draw_target(Some(u64::MAX), target);
    group.bench_function("indicatif drawn", |bencher| {
        bencher.iter(|| black_box(&drawn).inc(1))
    });
    group.finish();
}

fn count_from_several_threads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("inc from several threads");
    let bar = Bar::new("bar", Total::Unknown);
    group.bench_function("counters of each", |bencher| {
        bencher.iter_custom(|calls| {
            in_threads(|| {
                let counters = bar.counters();
                let done = counters.counter(Outcome::Done);
                (0..calls).for_each(|_| black_box(done).inc());
            })
        });
    });
    group.bench_function("bar", |bencher| {
        bencher
            .iter_custom(|calls| in_threads(|| (0..calls).for_each(|_| black_box(&bar).inc(Outcome::Done))));
    });
    let shared = AtomicU64::new(0);
    group.bench_function("relaxed addition", |bencher| {
        bencher.iter_custom(|calls| {
            in_threads(|| {
                (0..calls).for_each(|_| {
                    black_box(&shared).fetch_add(1, Ordering::Relaxed);
                })
            })
        });
    });
    let hidden = ProgressBar::with_draw_target(Some(u64::MAX), ProgressDrawTarget::hidden());
    group.bench_function("indicatif hidden", |bencher| {
        bencher.iter_custom(|calls| in_threads(|| (0..calls).for_each(|_| black_box(&hidden).inc(1))));
    });
    group.finish();
}

/// Runs `work` in several threads at the same time, and returns the longest of their times.
fn in_threads(work: impl Fn() + Sync) -> Duration {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let barrier = Barrier::new(threads);
    let timed = || {
        barrier.wait();
        let start = Instant::now();
        work();
        start.elapsed()
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(timed)).collect();
        let times = threads.into_iter().map(|thread| thread.join().expect("no panic"));
        times.max().unwrap_or_default()
    })
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    count(&mut criterion);
    count_from_several_threads(&mut criterion);
    criterion.final_summary();
}

/// A terminal that discards everything.
#[derive(Debug)]
struct NullTerminal;

impl TermLike for NullTerminal {
    fn width(&self) -> u16 {
        120
    }
    fn move_cursor_up(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_down(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_right(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn move_cursor_left(&self, _: usize) -> io::Result<()> {
        Ok(())
    }
    fn write_line(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn write_str(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
    fn clear_line(&self) -> io::Result<()> {
        Ok(())
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}
