//! Views that borrow from the model, made once per worker.

use std::sync::atomic::{AtomicUsize, Ordering};

use invoker::{BoxError, Buffer, Error, Executor, Fault, Invoker, PoolError, Processes, View, Workers};
use serde::{Deserialize, Serialize};

use crate::executors::EXECUTORS;

/// Words, separated by spaces.
#[derive(Serialize, Deserialize)]
struct Text(Buffer<u8>);

fn text() -> Text {
    Text(b"six sixty seven".to_vec().into())
}

/// A view with an address of its own, borrowed parts, and a count of its uses.
struct Words<'m> {
    words: Vec<&'m str>,
    uses: u64,
    id: String,
}

struct WordsView;

impl View<Text> for WordsView {
    type Of<'m> = Words<'m>;

    fn view(text: &Text) -> Result<Words<'_>, BoxError> {
        let thread = std::thread::current().id();
        Ok(Words {
            words: std::str::from_utf8(&text.0)?.split(' ').collect(),
            uses: 0,
            id: format!("{} {thread:?}", std::process::id()),
        })
    }
}

fn word<'m>(text: &'m Text, view: &mut Words<'m>, n: usize) -> (String, u64, String) {
    view.uses += 1;
    assert_ne!(n % 100, 99, "ninety-nine");
    let word = view.words[n % 3];
    // The parts of the view lie in the model.
    assert!(text.0.as_ptr_range().contains(&word.as_ptr()));
    // A view may be changed to other parts of the model.
    view.words[n % 3] = std::str::from_utf8(&text.0).expect("checked")[..]
        .split(' ')
        .nth(n % 3)
        .expect("three");
    (view.id.clone(), view.uses, word.to_owned())
}

#[test]
fn each_worker_makes_one_view_and_keeps_it() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder_with_view::<WordsView>(word).model(text());
        let builder = builder.executor(executor).workers(workers);
        let invoker = builder.build().expect("the invoker builds");
        let mut most = std::collections::HashMap::new();
        let mut failed = 0;
        for (n, output) in (0..).zip(invoker.map(0..1000)) {
            match output {
                Ok((id, uses, word)) => {
                    assert_eq!(word, ["six", "sixty", "seven"][n % 3]);
                    let most = most.entry(id).or_insert(0);
                    assert!(
                        uses > *most || workers != Workers::Count(1),
                        "{executor:?}: {uses}, {most}"
                    );
                    *most = uses.max(*most);
                }
                Err(error) => {
                    assert!(matches!(error.fault, Fault::Panicked { .. }), "{error}");
                    failed += 1;
                }
            }
        }
        assert_eq!(failed, 10);
        assert!(most.len() <= invoker.workers(), "{executor:?}: {most:?}");
        let uses: u64 = most.values().sum();
        assert!((990..=1000).contains(&uses), "{executor:?}: {most:?}");
        assert_eq!(&invoker.model().0[..3], b"six");
    }
}

#[test]
fn an_invalid_model_is_the_same_build_error_with_every_executor() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder_with_view::<WordsView>(word).model(Text(vec![0xff].into()));
        let built = builder.executor(executor).workers(workers).build().map(drop);
        let Err(Error::Pool(PoolError::Start { reason, .. })) = built else {
            panic!("{executor:?}: {built:?}")
        };
        assert!(
            reason.starts_with("failed to start: invalid utf-8 sequence"),
            "{reason}"
        );
    }
}

struct Panics;

impl View<Text> for Panics {
    type Of<'m> = &'m [u8];

    fn view(text: &Text) -> Result<&[u8], BoxError> {
        panic!("{} bytes are too many", text.0.len())
    }
}

#[test]
fn a_panic_in_the_view_is_a_build_error() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let op = |_: &Text, view: &mut &[u8], (): ()| view.len();
        let builder = Invoker::builder_with_view::<Panics>(op).model(text());
        let built = builder.executor(executor).workers(workers).build().map(drop);
        let Err(Error::Pool(PoolError::Start { reason, .. })) = built else {
            panic!("{executor:?}: {built:?}")
        };
        assert!(reason.ends_with(": 15 bytes are too many"), "{reason}");
    }
}

#[test]
fn a_killed_worker_is_replaced_with_a_new_view() {
    let _watchdog = crate::watchdog::watchdog(120);
    fn die<'m>(text: &'m Text, view: &mut Words<'m>, n: usize) -> (String, u64, String) {
        match n {
            5 => std::process::abort(),
            n => word(text, view, n),
        }
    }
    let builder = Invoker::builder_with_view::<WordsView>(die).model(text());
    let builder = builder.executor(Processes::new()).workers(1);
    let invoker = builder.build().expect("the invoker builds");
    let outputs: Vec<_> = invoker.map(0..10).collect();
    let uses: Vec<_> = outputs
        .iter()
        .map(|output| output.as_ref().ok().map(|(_, uses, _)| *uses))
        .collect();
    let expected = [1, 2, 3, 4, 5, 0, 1, 2, 3, 4].map(|uses| (uses > 0).then_some(uses));
    assert_eq!(uses, expected);
}

/// The number of models and views that exist.
static MODELS: AtomicUsize = AtomicUsize::new(0);
static VIEWS: AtomicUsize = AtomicUsize::new(0);

#[derive(Serialize, Deserialize)]
struct Counted(String);

impl Drop for Counted {
    fn drop(&mut self) {
        MODELS.fetch_sub(1, Ordering::SeqCst);
    }
}

struct CountedView<'m>(&'m Counted);

impl Drop for CountedView<'_> {
    fn drop(&mut self) {
        assert_eq!(self.0.0, "model");
        // The model outlives its views.
        assert_ne!(MODELS.load(Ordering::SeqCst), 0);
        VIEWS.fetch_sub(1, Ordering::SeqCst);
    }
}

struct CountedViews;

impl View<Counted> for CountedViews {
    type Of<'m> = CountedView<'m>;

    fn view(model: &Counted) -> Result<CountedView<'_>, BoxError> {
        VIEWS.fetch_add(1, Ordering::SeqCst);
        Ok(CountedView(model))
    }
}

#[test]
fn nothing_of_a_dropped_invoker_remains() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Threads, Executor::Inline] {
        MODELS.fetch_add(1, Ordering::SeqCst);
        let op = |_: &Counted, view: &mut CountedView<'_>, n: usize| view.0.0.len() + n;
        let builder = Invoker::builder_with_view::<CountedViews>(op).model(Counted("model".into()));
        let invoker = builder.executor(executor).build().expect("the invoker builds");
        assert!(
            invoker
                .map(0..9)
                .map(|output| output.expect("no task fails"))
                .eq(5..14)
        );
        assert_ne!(VIEWS.load(Ordering::SeqCst), 0);
        drop(invoker);
        assert_eq!(
            (VIEWS.load(Ordering::SeqCst), MODELS.load(Ordering::SeqCst)),
            (0, 0),
            "{executor:?}"
        );
    }
}
