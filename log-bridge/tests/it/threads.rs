//! Threads of one worker in different spans, and callsites that are defined while others are dropped.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};

use tracing::dispatcher::with_default;
use tracing::{Dispatch, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use crate::support::{Bridge, Capture, bridge};

/// Counts spans opened and closed.
#[derive(Clone, Default)]
struct Lives(Arc<[AtomicU32; 2]>);

impl<S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>> Layer<S> for Lives {
    fn on_new_span(&self, _: &span::Attributes<'_>, _: &span::Id, _: Context<'_, S>) {
        self.0[0].fetch_add(1, Ordering::Relaxed);
    }

    fn on_close(&self, _: span::Id, _: Context<'_, S>) {
        self.0[1].fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_thread_keeps_its_spans_while_others_are_in_theirs() {
    const THREADS: usize = 3;
    const TURNS: usize = 50;
    let (capture, lives) = (Capture::default(), Lives::default());
    let leader = tracing_subscriber::registry()
        .with(capture.clone())
        .with(lives.clone());
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
    assert_eq!(seen.len(), THREADS * TURNS);
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
    let opened = lives.0[0].load(Ordering::Relaxed) as usize;
    assert_eq!(opened, 1 + 2 * THREADS, "each span is opened once");
    collector.remove(3);
    assert_eq!(lives.0[1].load(Ordering::Relaxed) as usize, opened, "and closed");
}

#[test]
fn more_threads_than_are_remembered_start_afresh() {
    let (capture, lives) = (Capture::default(), Lives::default());
    let leader = tracing_subscriber::registry()
        .with(capture.clone())
        .with(lives.clone());
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
    let [opened, closed] = [0, 1].map(|index| lives.0[index].load(Ordering::Relaxed));
    assert_eq!((opened, closed), (41, 24), "the worker's and sixteen are open");
    collector.remove(3);
    assert_eq!(lives.0[1].load(Ordering::Relaxed), 41);
}

#[test]
fn a_definition_that_was_dropped_is_sent_again() {
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
