//! The counts of a bar, and its memory.

use super::*;
use crate::Outcome::{Done, Failed, Retried};
use crate::counting::step::StepState;
use crate::counting::writers::MAX_FREE;

/// Returns counts of done and failed tasks.
fn counts(done: u64, failed: u64) -> Counts {
    Counts {
        done,
        failed,
        ..Counts::default()
    }
}

#[test]
fn counts_of_several_threads_sum_exactly() {
    let bar = Bar::new("threads", Total::Unknown);
    std::thread::scope(|scope| {
        for n in 1..=4_u64 {
            let counters = bar.counters();
            scope.spawn(move || {
                for _ in 0..n * 10_000 {
                    counters.counter(Done).inc();
                }
                counters.counter(Failed).add(n);
            });
        }
    });
    assert_eq!(bar.counts(), counts(100_000, 10));
}

#[test]
fn dropped_counters_keep_their_counts_and_use_no_memory() {
    let bar = Bar::new("many", Total::Unknown);
    for _ in 0..300_000 {
        bar.counters().counter(Done).inc();
    }
    assert_eq!(bar.counts().ended(), 300_000);
    assert_eq!(bar.kept(), (0, 1, 0));
}

#[test]
fn slots_are_zeroed_before_reuse_and_not_reused_if_shared() {
    let bar = Bar::new("reuse", Total::Unknown);
    let other = Bar::new("other", Total::Unknown);
    let counters = bar.counters();
    let _source = other.add_source(counters.slots());
    counters.counter(Done).add(3);
    drop(counters);
    assert_eq!(bar.kept().1, 0);
    let counters = bar.counters();
    counters.counter(Failed).inc();
    counters.bytes().add(7);
    counters.step(1, Total::Known(2));
    drop(counters);
    let again = bar.counters();
    assert_eq!(bar.kept().1, 0, "reused");
    assert_eq!(Counts::read(&again.slots()), Counts::default());
    assert_eq!(StepState::read(&again.slots()), StepState::NeverReported);
    again.counter(Done).inc();
    let expected = Counts {
        bytes: 7,
        ..counts(4, 1)
    };
    assert_eq!(bar.counts(), expected);
    assert_eq!(other.counts().ended(), 3);
    let live: Vec<Counters> = (0..2 * MAX_FREE).map(|_| bar.counters()).collect();
    drop(live);
    assert_eq!(bar.kept().1, MAX_FREE);
}

#[test]
fn sum_never_decreases_while_counters_are_made_and_dropped() {
    const THREADS: u64 = 4;
    const ROUNDS: u64 = if cfg!(debug_assertions) { 3_000 } else { 30_000 };
    let bar = Bar::new("stress", Total::Unknown);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|_| {
                scope.spawn(|| {
                    for round in 0..ROUNDS {
                        let counters = bar.counters();
                        (0..round % 5).for_each(|_| counters.counter(Done).inc());
                        if round % 7 == 0 {
                            // They are dropped in another thread, and a new writer may get their slots.
                            std::thread::scope(|scope| {
                                scope.spawn(move || drop(counters));
                            });
                        }
                    }
                })
            })
            .collect();
        let mut last = 0;
        while !writers.iter().all(|writer| writer.is_finished()) {
            let now = bar.counts().ended();
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
    });
    assert_eq!(
        bar.counts().ended(),
        THREADS * (0..ROUNDS).map(|round| round % 5).sum::<u64>()
    );
    assert_eq!(bar.kept().0, 0);
}

#[test]
fn bar_reads_slots_in_a_shared_region() {
    let mut layout = shm_buffers::Layout::new();
    let spans = [layout.slots(crate::SLOTS), layout.slots(crate::SLOTS)];
    let region = shm_buffers::Region::on_heap(layout.byte_len());
    let bar = Bar::new("workers", Total::Known(10));
    for (n, span) in (1..).zip(spans) {
        bar.add_source(Slots::new(&region, span));
        Counters::new(Slots::new(&region, span)).counter(Done).add(n);
    }
    assert_eq!(bar.counts().ended(), 3);
}

#[test]
fn retired_writer_keeps_its_counts_and_frees_its_slots() {
    let bar = Bar::new("retire", Total::Known(10));
    let counters = Counters::in_process();
    let source = bar.add_source(counters.slots());
    counters.counter(Done).add(4);
    source.retire();
    counters.counter(Done).add(100);
    assert_eq!(bar.counts().ended(), 4);
    assert_eq!(bar.kept().0, 0);
}

#[test]
fn lower_counts_of_a_retired_writer_do_not_move_the_bar_back() {
    let bar = Bar::new("retire with", Total::Known(10));
    let dead = Counters::in_process();
    let source = bar.add_source(dead.slots());
    dead.counter(Done).add(6);
    assert_eq!(bar.sample().position, 6);

    // The results of two of its tasks were lost with it.
    source.retire_with(counts(4, 0));
    assert_eq!(bar.sample().position, 6);
    assert_eq!(bar.counts().ended(), 4);

    let replacement = bar.counters();
    replacement.counter(Done).add(1);
    assert_eq!(bar.sample().position, 6);
    replacement.counter(Done).add(5);
    assert_eq!(bar.sample().position, 10);
}

#[test]
fn last_position_is_the_exact_sum() {
    let bar = Bar::new("exact", Total::Known(10));
    let dead = Counters::in_process();
    let source = bar.add_source(dead.slots());
    dead.counter(Done).add(6);
    let _ = bar.sample();
    source.retire_with(counts(4, 0));
    bar.finish();
    assert_eq!(bar.sample().position, 4);
}

#[test]
fn bytes_move_a_bar_with_the_unit_bytes() {
    let bar = Bar::new("load", Total::Known(100)).unit(Unit::Bytes);
    let counters = bar.counters();
    counters.counter(Done).inc();
    counters.bytes().add(70);
    assert_eq!(bar.sample().position, 70);
}

#[test]
fn clearing_a_finished_bar_has_no_effect() {
    let bar = Bar::new("end", Total::Unknown);
    bar.finish();
    bar.finish_and_clear();
    assert_eq!(bar.sample().state, BarState::Finished);
}

#[test]
fn bar_counts_what_any_thread_adds_without_counters() {
    let bar = Bar::new("shared", Total::Known(8)).unit(Unit::Bytes);
    let counters = bar.counters();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                bar.inc(Done);
                bar.add(Failed, 2);
                bar.add(Retried, 3);
                bar.add_bytes(10);
            });
        }
    });
    counters.counter(Done).add(5);
    counters.bytes().add(1);
    let expected = Counts {
        retried: 12,
        bytes: 41,
        ..counts(9, 8)
    };
    assert_eq!(bar.counts(), expected);
    assert_eq!(bar.sample().position, 41);
}

/// The number of detached writers that have ended and may still be in memory.
const UNSWEPT: usize = 130;

/// Adds and drops many writers in one way. Each counts once.
fn bounded(way: &str, bar: &Bar, number: u64, mut writer: impl FnMut(&Bar)) {
    for added in 1..=number {
        writer(bar);
        let (writers, free, lines) = bar.kept();
        assert!(
            writers <= UNSWEPT && free <= MAX_FREE && lines <= UNSWEPT,
            "{way}: {:?} after {added}",
            bar.kept()
        );
    }
    assert_eq!(bar.counts(), counts(number, 0), "{way}");
    // Drawing retires the rest.
    assert_eq!(bar.sample().position, number);
    assert_eq!(bar.kept().0, 0, "{way}");
    assert_eq!(bar.counts(), counts(number, 0), "{way}");
}

#[test]
fn memory_is_bounded_and_counts_are_exact_in_every_way_to_end_a_writer() {
    type Way = (&'static str, fn(&Bar));
    let ways: [Way; 9] = [
        ("dropped", |bar| bar.counters().counter(Done).inc()),
        ("dropped in another thread", |bar| {
            let counters = bar.counters();
            std::thread::scope(|scope| {
                scope.spawn(move || counters.counter(Done).inc());
            });
        }),
        ("slots taken", |bar| {
            let counters = bar.counters();
            let _slots = counters.slots();
            counters.counter(Done).inc();
        }),
        ("source retired first", |bar| {
            let counters = Counters::in_process();
            let source = bar.add_source(counters.slots());
            counters.counter(Done).inc();
            source.retire();
        }),
        ("source dropped first", |bar| {
            let counters = Counters::in_process();
            drop(bar.add_source(counters.slots()));
            counters.counter(Done).inc();
        }),
        ("source dropped last", |bar| {
            let counters = Counters::in_process();
            let _source = bar.add_source(counters.slots());
            counters.counter(Done).inc();
            drop(counters);
        }),
        ("labeled, retired", |bar| {
            let counters = Counters::in_process();
            let source = bar.add_labeled_source("worker", counters.slots());
            counters.counter(Done).inc();
            source.retire();
        }),
        ("labeled, source dropped", |bar| {
            let counters = Counters::in_process();
            drop(bar.add_labeled_source("worker", counters.slots()));
            counters.counter(Done).inc();
        }),
        ("counters of another bar added", |bar| {
            let other = Bar::new("other", Total::Unknown);
            let counters = other.counters();
            drop(bar.add_source(counters.slots()));
            counters.counter(Done).inc();
        }),
    ];
    for (way, writer) in ways {
        bounded(way, &Bar::new(way, Total::Unknown), 10_000, writer);
        let finished = Bar::new(way, Total::Unknown);
        finished.finish();
        bounded(&format!("{way}, bar finished first"), &finished, 10_000, writer);
    }
}

#[test]
fn detached_writer_is_counted_until_its_counters_are_dropped() {
    let bar = Bar::new("detached", Total::Unknown);
    let counters = Counters::in_process();
    let slots = counters.slots();
    drop(bar.add_labeled_source("worker", slots.clone()));
    counters.counter(Done).inc();
    assert_eq!((bar.sample().sources.len(), bar.counts().done), (1, 1));
    counters.counter(Done).inc();
    // A second writer of the slots starts before the first one ends.
    let next = Counters::new(slots);
    drop(counters);
    assert_eq!((bar.sample().sources.len(), bar.counts().done), (1, 2));
    next.counter(Done).inc();
    drop(next);
    assert_eq!((bar.sample().sources.len(), bar.counts().done), (0, 3));
    assert_eq!(bar.kept(), (0, 0, 1));
}

#[test]
fn many_live_detached_writers_are_counted_exactly() {
    let bar = Bar::new("live", Total::Unknown);
    let all: Vec<Counters> = (0..1_000).map(|_| Counters::in_process()).collect();
    for counters in &all {
        drop(bar.add_source(counters.slots()));
        counters.counter(Done).inc();
    }
    assert_eq!((bar.kept().0, bar.counts().done), (1_000, 1_000));
    drop(all);
    let _ = bar.sample();
    assert_eq!((bar.kept().0, bar.counts().done), (0, 1_000));
}

#[test]
fn memory_of_remote_writers_is_bounded_and_their_counts_are_exact() {
    type Way = (&'static str, fn(&Bar));
    let ways: [Way; 4] = [
        ("retired at the end", |bar| {
            let (source, handle) = bar.remote_counters().expect("memory");
            let counters = handle.connect().expect("the first writer");
            counters.counter(Done).inc();
            source.retire();
        }),
        ("labeled, source dropped first", |bar| {
            let (source, handle) = bar.labeled_remote_counters("worker").expect("memory");
            drop(source);
            let counters = handle.connect().expect("the first writer");
            counters.counter(Done).inc();
        }),
        ("source dropped last", |bar| {
            let (_source, handle) = bar.remote_counters().expect("memory");
            handle.connect().expect("the first writer").counter(Done).inc();
        }),
        ("second writer refused", |bar| {
            let (_source, handle) = bar.remote_counters().expect("memory");
            let counters = handle.connect().expect("the first writer");
            counters.counter(Done).inc();
            assert!(handle.connect().is_err());
        }),
    ];
    for (way, writer) in ways {
        bounded(way, &Bar::new(way, Total::Unknown), 300, writer);
    }
}

#[test]
fn labeled_remote_writer_has_a_line_until_it_is_retired() {
    let bar = Bar::new("remote", Total::Unknown);
    let (source, handle) = bar.labeled_remote_counters("worker 7").expect("memory");
    let counters = handle.connect().expect("the first writer");
    counters.counter(Done).add(2);
    counters.step(1, Total::Known(4));
    source.set_message("on node 3");
    let lines = bar.sample().sources;
    let [(_, line)] = &*lines else {
        panic!("one line");
    };
    let text = (&*line.label, &*line.message, line.position);
    assert_eq!(text, ("worker 7", "on node 3", 2));
    source.retire();
    assert!(bar.sample().sources.is_empty());
    // The bar ignores later counts.
    counters.counter(Done).inc();
    assert_eq!(bar.counts().done, 2);
}
