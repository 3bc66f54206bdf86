//! Threads of one worker in different spans, and definitions of callsites that are dropped.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

use tracing::dispatcher::with_default;
use tracing::{Dispatch, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::support::{Bridge, Capture, bridge};

/// Counts how many spans were created and closed.
#[derive(Clone, Default)]
struct SpanCounts(Arc<[AtomicU32; 2]>);

impl<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>> Layer<S> for SpanCounts {
    fn on_new_span(&self, _: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        self.0[0].fetch_add(1, Ordering::Relaxed);
    }

    fn on_close(&self, _: span::Id, _: Context<'_, S>) {
        self.0[1].fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn the_spans_of_threads_stay_open_while_their_events_take_turns() {
    const THREADS: usize = 3;
    const TURNS: usize = 50;
    let (capture, counts) = (Capture::default(), SpanCounts::default());
    let leader = tracing_subscriber::registry()
        .with(capture.clone())
        .with(counts.clone());
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 20, Dispatch::new(leader));
    let turn = Barrier::new(THREADS);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (worker, turn) = (&worker, &turn);
            scope.spawn(move || {
                with_default(worker, || {
                    let _outer = tracing::info_span!("outer", thread).entered();
                    let inner = tracing::info_span!("inner", last = tracing::field::Empty).entered();
                    for n in 0..TURNS {
                        inner.record("last", n);
                        tracing::info!(thread, n, "turn");
                        turn.wait();
                    }
                });
            });
        }
    });
    collector.drain();
    let seen = capture.take();
    // An event that finds the ring busy for too long is dropped, and reported.
    let (dropped, seen): (Vec<_>, Vec<_>) = seen
        .into_iter()
        .partition(|seen| seen.fields.contains("log events dropped"));
    assert!(seen.len() == THREADS * TURNS || (seen.len() < THREADS * TURNS && !dropped.is_empty()));
    assert!(seen.len() > THREADS * TURNS / 2, "{}", seen.len());
    for seen in &seen {
        let number = |name: &str, text: &str| {
            let (_, rest) = text.split_once(&format!("[{name} u64 ")).unwrap();
            rest.split_once(']').unwrap().0.parse::<usize>().unwrap()
        };
        assert_eq!(seen.spans.len(), 3, "the worker's and two more");
        assert_eq!(number("thread", &seen.fields), number("thread", &seen.spans[1]));
        assert_eq!(
            seen.spans[2].matches(" then ").count(),
            number("n", &seen.fields) + 1
        );
    }
    let created = counts.0[0].load(Ordering::Relaxed) as usize;
    assert_eq!(created, 1 + 2 * THREADS, "each span is created once");
    collector.remove(3);
    assert_eq!(
        counts.0[1].load(Ordering::Relaxed) as usize,
        created,
        "and closed"
    );
}

#[test]
fn only_the_spans_of_sixteen_threads_stay_open() {
    let (capture, counts) = (Capture::default(), SpanCounts::default());
    let leader = tracing_subscriber::registry()
        .with(capture.clone())
        .with(counts.clone());
    let Bridge {
        worker,
        mut collector,
    } = bridge(1 << 20, Dispatch::new(leader));
    for thread in 0..40 {
        let worker = worker.clone();
        let emit = move || {
            with_default(&worker, || {
                tracing::info_span!("own").in_scope(|| tracing::info!(thread))
            })
        };
        std::thread::spawn(emit).join().unwrap();
    }
    collector.drain();
    assert!(capture.take().iter().all(|seen| seen.spans.len() == 2));
    let [created, closed] = [0, 1].map(|index| counts.0[index].load(Ordering::Relaxed));
    assert_eq!(
        (created, closed),
        (41, 24),
        "the worker's span and sixteen others are open"
    );
    collector.remove(3);
    assert_eq!(counts.0[1].load(Ordering::Relaxed), 41);
}

#[test]
fn a_dropped_definition_is_sent_again() {
    let capture = Capture::default();
    let Bridge {
        worker,
        mut collector,
    } = bridge(4096, capture.dispatch());
    with_default(&worker, || {
        let late = |n: u64| tracing::debug!(n, "late");
        let span = tracing::debug_span!("late span");
        (0..100).for_each(|n| tracing::debug!(n, "fills the ring"));
        span.in_scope(|| late(0));
        collector.drain();
        span.in_scope(|| late(1));
        span.in_scope(|| late(2));
    });
    collector.drain();
    let late: Vec<_> = capture
        .take()
        .into_iter()
        .filter(|seen| seen.fields.contains("late"))
        .collect();
    assert_eq!(late.len(), 2);
    assert!(
        late.iter().all(|seen| seen.spans[1].contains("late span")),
        "{late:?}"
    );
    assert_eq!(collector.remove(3).unwrap().error, None);
}
