//! More events than the ring has room for: each is delivered or counted.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::Level;
use tracing::dispatcher::with_default;

use crate::support::{ALL, Bridge, Capture, bridge};

fn emit(nth: u64) -> Level {
    match nth % 10 {
        0 => tracing::error!(nth, "flood"),
        1 => tracing::warn!(nth, "flood"),
        2 => tracing::info!(nth, "flood"),
        3 => tracing::trace!(nth, "flood"),
        _ => tracing::debug!(nth, "flood"),
    }
    match nth % 10 {
        0 => Level::ERROR,
        1 => Level::WARN,
        2 => Level::INFO,
        3 => Level::TRACE,
        _ => Level::DEBUG,
    }
}

#[test]
fn every_event_is_delivered_or_counted() {
    let capture = Capture::default();
    let Bridge {
        worker,
        mut collector,
    } = bridge(4096, capture.dispatch());
    let mut emitted = [0; 5];
    for round in 0..50 {
        with_default(&worker, || {
            for nth in 0..round * 7 {
                let level = emit(nth);
                emitted[ALL.iter().position(|l| *l == level).unwrap()] += 1;
            }
        });
        collector.drain();
    }
    let tally = collector.remove(3).unwrap().tally;
    assert_eq!(collector.tally(), tally);
    let seen = capture.take();
    for (index, level) in ALL.into_iter().enumerate() {
        let delivered = seen
            .iter()
            .filter(|s| !s.is_of_bridge() && s.level == level)
            .count() as u64;
        let counts = tally.level(level);
        assert_eq!((counts.emitted, counts.delivered), (emitted[index], delivered));
        assert_eq!(counts.emitted, counts.delivered + counts.dropped);
        assert!(
            counts.dropped > 0 && counts.delivered > 0,
            "{level}: no flood {counts:?}"
        );
    }
    // Notices report each drop once.
    let mut noticed = [0; 5];
    for notice in seen.iter().filter(|s| s.is_of_bridge()) {
        assert!(notice.fields.contains("log events dropped") && notice.level == Level::WARN);
        for (total, name) in noticed
            .iter_mut()
            .zip(["error", "warn", "info", "debug", "trace"])
        {
            let (_, rest) = notice.fields.split_once(&format!("[{name} u64 ")).unwrap();
            *total += rest.split_once(']').unwrap().0.parse::<u64>().unwrap();
        }
    }
    assert_eq!(noticed, ALL.map(|level| tally.level(level).dropped));
}

#[test]
fn a_flood_of_debug_events_costs_no_warning() {
    const RING: usize = 16 * 1024;
    let capture = Capture::default();
    let Bridge {
        worker,
        mut collector,
    } = bridge(RING, capture.dispatch());
    // Less than 300 bytes each, so that together they fit into a quarter of the ring.
    const IMPORTANT: usize = RING / 4 / 300;
    for _ in 0..20 {
        with_default(&worker, || {
            for important in 0..IMPORTANT {
                (0..500).for_each(|n| tracing::debug!(n, "noise"));
                match important % 2 {
                    0 => tracing::warn!(important, "kept"),
                    _ => tracing::error!(important, "kept"),
                }
            }
        });
        collector.drain();
    }
    let tally = collector.remove(3).unwrap().tally;
    for level in [Level::WARN, Level::ERROR] {
        assert_eq!(tally.level(level).dropped, 0);
    }
    assert_eq!(
        tally.level(Level::WARN).delivered + tally.level(Level::ERROR).delivered,
        20 * IMPORTANT as u64
    );
    assert!(tally.level(Level::DEBUG).dropped > 0);
}

#[test]
fn counts_are_exact_if_threads_share_the_ring() {
    const EACH: u64 = 5_000;
    let capture = Capture::default();
    let Bridge {
        worker,
        mut collector,
    } = bridge(8192, capture.dispatch());
    let running = AtomicU64::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                with_default(&worker, || (0..EACH).map(emit).count());
                running.fetch_sub(1, Ordering::Release);
            });
        }
        while running.load(Ordering::Acquire) > 0 {
            collector.drain();
        }
    });
    let tally = collector.remove(3).unwrap().tally;
    let seen = capture.take();
    for level in ALL {
        let share = if level == Level::DEBUG { 6 } else { 1 };
        let counts = tally.level(level);
        assert_eq!(counts.emitted, 4 * EACH / 10 * share);
        assert_eq!(counts.emitted, counts.delivered + counts.dropped);
        let delivered = seen
            .iter()
            .filter(|s| !s.is_of_bridge() && s.level == level)
            .count() as u64;
        assert_eq!(counts.delivered, delivered);
    }
}
