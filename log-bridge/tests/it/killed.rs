//! A worker process that is killed while it emits.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use log_bridge::{Collector, Filter, SLOTS, Source, WorkerLayer};
use shm_buffers::slots::Slots;
use shm_buffers::{Backing, Layout, Region, RegionHandle, ring};
use tracing::Level;
use tracing::level_filters::LevelFilter;

use crate::support::{ALL, Capture};

const HANDLE: &str = "LOG_BRIDGE_TEST_REGION";
const THREADS: &str = "LOG_BRIDGE_TEST_THREADS";

/// The ring, the bridge's slots, and the test's own counts of events per level: before and after each event.
fn layout(layout: &mut Layout) -> [shm_buffers::Span; 3] {
    [layout.ring(16 * 1024), layout.slots(SLOTS), layout.slots(10)]
}

fn emit_until_killed(handle: &str) -> ! {
    let handle: RegionHandle = serde_json::from_str(handle).unwrap();
    let region = Region::attach(&handle).unwrap();
    let [ring, slots, own] = layout(&mut Layout::new());
    let own = Slots::new(&region, own);
    let _guard = WorkerLayer::builder(ring::Producer::new(&region, ring), Slots::new(&region, slots))
        .filter(Filter::new(LevelFilter::TRACE))
        .install()
        .unwrap();
    let threads: usize = std::env::var(THREADS).unwrap().parse().unwrap();
    for _ in 1..threads {
        let own = own.clone();
        std::thread::spawn(move || emit(&own));
    }
    emit(&own)
}

fn emit(own: &Slots) -> ! {
    for nth in 0_u64.. {
        let index = (nth % 5) as usize;
        own.slot(index).fetch_add(1);
        match ALL[index] {
            Level::ERROR => tracing::error!(nth, "flood"),
            Level::WARN => tracing::warn!(nth, "flood"),
            Level::INFO => tracing::info!(nth, "flood"),
            Level::DEBUG => tracing::debug!(nth, "flood"),
            _ => tracing::trace!(nth, "flood"),
        }
        own.slot(5 + index).fetch_add(1);
    }
    unreachable!("the leader kills this process")
}

/// Kills the worker when it is dropped, also if the test fails.
struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_counts_of_a_killed_worker_are_exact() {
    if let Ok(handle) = std::env::var(HANDLE) {
        emit_until_killed(&handle);
    }
    let capture = Capture::default();
    let mut collector = Collector::new()
        .dispatch(capture.dispatch())
        .notice_interval(Duration::ZERO);
    for round in 0..6 {
        let mut sized = Layout::new();
        let [ring, slots, own] = layout(&mut sized);
        let region = Region::create(&Backing::Auto, sized.byte_len()).unwrap();
        let own = Slots::new(&region, own);
        let consumer = ring::Consumer::new(&region, ring);
        collector
            .add(Source::new(round), consumer, Slots::new(&region, slots))
            .unwrap();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "killed::the_counts_of_a_killed_worker_are_exact"])
            // One thread, or three that share the ring.
            .env(THREADS, (1 + round % 2 * 2).to_string())
            .env(HANDLE, serde_json::to_string(&region.handle().unwrap()).unwrap())
            .stdout(Stdio::null())
            .spawn();
        let mut child = KillOnDrop(child.unwrap());
        let mut drained_at = 0;
        while drained_at < 1000 * (round + 1) {
            assert!(
                child.0.try_wait().unwrap().is_none(),
                "the worker has ended before it was killed"
            );
            let emitted = own.slot(4).load_acquire();
            // The worker has emitted five hundred events, more than the ring has room for.
            if emitted > drained_at + 100 {
                collector.drain();
                drained_at = emitted;
            }
        }
        drop(child);
        let removed = collector.remove(round).unwrap();
        let seen = capture.take();
        for (index, level) in ALL.into_iter().enumerate() {
            let counts = removed.tally.level(level);
            let (started, finished) = (own.slot(index).load_acquire(), own.slot(5 + index).load_acquire());
            assert!(
                finished <= counts.emitted && counts.emitted <= started,
                "{started} {finished} {counts:?}"
            );
            assert_eq!(counts.emitted, counts.delivered + counts.dropped);
            let replayed = seen.iter().filter(|s| s.level == level && !s.is_of_bridge());
            assert_eq!(counts.delivered, replayed.count() as u64);
        }
        assert!(removed.tally.total().dropped > 0);
        assert_eq!(removed.last_records.len(), 16);
        assert_eq!(removed.error, None);
    }
}
