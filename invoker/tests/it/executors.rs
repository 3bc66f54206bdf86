//! The same op, model and tasks with every executor.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use invoker::{
    Backing, Buffer, Error, Executor, ExitCause, Fault, Image, Invoke, Invoker, IsolatedError, Processes,
    Render, Reporter, Total, Workers, run_isolated, share, step,
};
use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::mapped;

#[derive(Serialize, Deserialize)]
struct Powers {
    squares: Buffer<u64>,
    name: String,
}

fn powers() -> Powers {
    Powers {
        squares: (0..10_000u64).map(|n| n * n).collect(),
        name: "powers".into(),
    }
}

fn square(model: &Powers, n: u32) -> (u64, String) {
    tracing::info!(n, "squared");
    if n % 1000 == 999 {
        panic!("{n} is too much for {}", model.name);
    }
    (model.squares[n as usize], model.name.clone())
}

pub(crate) const EXECUTORS: [(Executor, Workers); 4] = [
    (Executor::Processes, Workers::Count(1)),
    (Executor::Processes, Workers::Count(3)),
    (Executor::Threads, Workers::Count(3)),
    (Executor::Inline, Workers::Count(1)),
];

#[test]
fn outputs_and_errors_are_the_same_everywhere() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(square)
            .model(powers())
            .executor(executor)
            .workers(workers);
        let invoker = builder.build().expect("the invoker builds");
        assert_eq!(invoker.model().squares[7], 49);
        for round in 0..2 {
            let mut count = 0;
            for (n, output) in (0u32..).zip(invoker.map(0..5000)) {
                count += 1;
                match output {
                    Ok(output) => assert_eq!(output, (u64::from(n) * u64::from(n), "powers".to_owned())),
                    Err(error) => {
                        assert_eq!((n % 1000, error.task), (999, u64::from(n)), "{executor:?}");
                        let Fault::Panicked {
                            message, location, ..
                        } = error.fault
                        else {
                            panic!("{executor:?}: {error}")
                        };
                        assert_eq!(message, format!("{n} is too much for powers"));
                        assert!(location.contains("executors.rs"), "{location}");
                    }
                }
            }
            assert_eq!(count, 5000, "{executor:?}, round {round}");
        }
        let mut unordered: Vec<u64> = invoker
            .map_unordered(0..900)
            .map(|output| output.expect("no task fails").0)
            .collect();
        unordered.sort_unstable();
        assert!(
            unordered
                .iter()
                .eq((0..900u64).map(|n| n * n).collect::<Vec<_>>().iter())
        );
        // An infinite input, left early.
        assert_eq!(invoker.map(0..).take(10).filter(Result::is_ok).count(), 10);

        let report = invoker.finish().expect("no error");
        assert_eq!(
            (report.tasks.done, report.tasks.failed),
            (2 * 4995 + 900 + 10, 10),
            "{executor:?}"
        );
        assert_eq!(report.model.is_some(), executor == Executor::Processes);
        assert!(report.tasks.per_second > 0.0);
    }
}

#[test]
fn every_backing_shares_the_model() {
    let _watchdog = crate::watchdog::watchdog(120);
    for backing in [Backing::Named, Backing::File(std::env::temp_dir())] {
        let builder = Invoker::builder(square).model(powers()).workers(1);
        let builder = builder.executor(Processes::new().backing(backing));
        let invoker = builder.build().expect("the invoker builds");
        assert!(
            invoker
                .map(0..100)
                .enumerate()
                .all(|(n, out)| out.expect("no task fails").0 == (n * n) as u64)
        );
    }
}

/// Collects what a subscriber prints.
#[derive(Clone, Default)]
pub(crate) struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("not poisoned").clone()).expect("UTF-8")
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("not poisoned").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Printed {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

fn log_and_abort(_: &(), n: u32) -> u32 {
    let _span = tracing::info_span!("request", n).entered();
    tracing::warn!(half = n / 2, "computing");
    if n == 13 {
        std::process::abort();
    }
    n
}

#[test]
fn the_error_of_a_dead_worker_has_its_last_logs() {
    let _watchdog = crate::watchdog::watchdog(120);
    let printed = Printed::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(printed.clone())
        .with_ansi(false)
        .with_max_level(LevelFilter::INFO)
        .finish();
    let report = tracing::subscriber::with_default(subscriber, || {
        let builder = Invoker::builder(log_and_abort).model(()).workers(2);
        let options = Processes::new().logs("info".parse().expect("a filter"));
        let invoker = builder.executor(options).build().expect("the invoker builds");
        let failed: Vec<_> = invoker.map(0..20).filter_map(Result::err).collect();
        let [error] = &failed[..] else {
            panic!("{failed:?}")
        };
        assert_eq!(error.task, 13);
        match &error.fault {
            Fault::WorkerDied {
                cause: ExitCause::Signal { name, .. } | ExitCause::Exception { name, .. },
                last_logs,
                ..
            } => {
                assert!(
                    matches!(name.as_str(), "SIGABRT" | "STATUS_STACK_BUFFER_OVERRUN"),
                    "{name}"
                );
                let last = last_logs.last().expect("it had logged");
                assert!(last.contains("computing") && last.contains("half=6"), "{last}");
            }
            other => panic!("{other}"),
        }
        invoker.finish().expect("no error")
    });
    let logs = report.logs.expect("there were processes");
    assert_eq!((logs.emitted, logs.delivered, logs.dropped), (20, 20, 0));
    let processes = report.processes.expect("there were processes");
    // The run may end before the dead worker is replaced.
    assert_eq!(processes.died, 1);
    assert!((2..=3).contains(&processes.spawned), "{processes:?}");
    let text = printed.text();
    for n in 0..20 {
        let line = format!("request{{n={n}}}: it::executors: computing half={}", n / 2);
        assert!(
            text.lines()
                .any(|l| l.contains("WARN worker{id=") && l.contains(&line)),
            "{line}\n{text}"
        );
    }
}

#[test]
fn the_bar_counts_done_and_failed_tasks() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let printed = Printed::default();
        let reporter = Reporter::builder()
            .render(Render::Lines)
            .output(printed.clone())
            .start();
        let reporter = Arc::new(reporter.expect("it starts"));
        let builder = Invoker::builder(square)
            .model(powers())
            .executor(executor)
            .workers(workers);
        let invoker = builder
            .progress_by(reporter.clone(), "square")
            .build()
            .expect("the invoker builds");
        assert_eq!(invoker.map(0..2000).count(), 2000);
        invoker.finish().expect("no error");
        Arc::into_inner(reporter)
            .expect("the invoker has dropped it")
            .finish();
        let text = printed.text();
        let last = text.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("square: 2000/2000 (100 %), 2 failed, "),
            "{executor:?}: {text}"
        );
    }
}

#[test]
fn invalid_numbers_of_workers_are_refused() {
    let _watchdog = crate::watchdog::watchdog(120);
    let build = |executor, workers| {
        Invoker::builder(square)
            .model(powers())
            .executor(executor)
            .workers(workers)
            .build()
            .map(drop)
    };
    let several = build(Executor::Inline, Workers::Count(2));
    assert!(matches!(several, Err(Error::Unsupported { .. })), "{several:?}");
    for executor in [Executor::Processes, Executor::Threads] {
        let none = build(executor, Workers::Count(0));
        assert!(matches!(none, Err(Error::Pool(_))), "{none:?}");
    }
}

#[test]
fn an_isolated_call_runs_in_its_own_process() {
    let _watchdog = crate::watchdog::watchdog(120);
    let doubled = run_isolated(|n: u32| (n * 2, std::process::id()), 21).expect("no error");
    assert_eq!(doubled.0, 42);
    assert_ne!(doubled.1, std::process::id());
    let exited = run_isolated(|code: i32| -> () { std::process::exit(code) }, 3);
    match exited {
        Err(IsolatedError::Failed(Fault::WorkerDied { cause, .. })) => {
            assert_eq!(cause, ExitCause::Exited { code: 3 })
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn nested_invokers_have_one_worker() {
    let _watchdog = crate::watchdog::watchdog(120);
    fn nested(_: &(), n: usize) -> (usize, usize) {
        let inner = Invoker::builder(|_: &(), n: usize| n + 1)
            .model(())
            .build()
            .expect("the inner invoker builds");
        let sum = (0..n).invoke(&inner).map(|out| out.expect("no task fails")).sum();
        (inner.workers(), sum)
    }
    let invoker = Invoker::builder(nested)
        .model(())
        .workers(2)
        .build()
        .expect("the invoker builds");
    let outputs: Vec<_> = (1..4)
        .invoke_unordered(&invoker)
        .map(|out| out.expect("no task fails"))
        .collect();
    let mut sums: Vec<_> = outputs.iter().map(|(_, sum)| *sum).collect();
    sums.sort_unstable();
    assert_eq!(sums, [1, 3, 6]);
    assert!(outputs.iter().all(|(workers, _)| *workers == 1));
    let mut sum = 0;
    invoker.for_each(1..3, |output| sum += output.expect("no task fails").1);
    assert_eq!(sum, 1 + 3);
}

#[test]
fn a_hung_op_times_out_alone() {
    let _watchdog = crate::watchdog::watchdog(120);
    fn hang(_: &(), n: u32) -> u32 {
        if n == 3 {
            loop {
                std::thread::park();
            }
        }
        n
    }
    let options = Processes::new().deadline(Duration::from_millis(200)).retries(1);
    let builder = Invoker::builder(hang).model(()).workers(2);
    let invoker = builder.executor(options).build().expect("the invoker builds");
    let failed: Vec<_> = invoker.map(0..50).filter_map(Result::err).collect();
    assert!(
        matches!(&failed[..], [error] if error.task == 3 && matches!(error.fault, Fault::TimedOut { .. }))
    );
    let processes = invoker
        .finish()
        .expect("no error")
        .processes
        .expect("there were processes");
    assert_eq!((processes.died, processes.retried), (2, 1));
}

#[test]
fn a_model_image_works_with_every_executor() {
    let _watchdog = crate::watchdog::watchdog(120);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("powers.safetensors");
    let model = powers();
    let shared = share(&model, &Backing::Auto).expect("there is room");
    shared.save(&path).expect("writable");
    for (executor, workers) in EXECUTORS {
        let loaded = Image::load_shared(&path, &Backing::Auto).expect("a saved file");
        for image in [shared.clone(), loaded, mapped::open(&path)] {
            let builder = Invoker::builder(square).image(image).executor(executor);
            let invoker = builder.workers(workers).build().expect("the invoker builds");
            let outputs = invoker.map(0..500).map(|out| out.expect("no task fails").0);
            assert!(outputs.eq((0..500u64).map(|n| n * n)), "{executor:?}");
        }
    }
}

/// Reports that it is half done, and waits for the file.
fn wait_half_done(_: &(), file: String) {
    step(1, Total::Known(2));
    while !std::fs::exists(&file).expect("its directory is there") {
        std::thread::yield_now();
    }
}

#[test]
fn the_bar_moves_with_the_steps_of_an_op() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("go").to_str().expect("UTF-8").to_owned();
        let (reporter, screen) = Reporter::builder()
            .render(Render::Bar)
            .start_in_memory()
            .expect("it starts");
        let reporter = Arc::new(reporter);
        let builder = Invoker::builder(wait_half_done).model(()).executor(executor);
        let builder = builder.workers(1).progress_by(reporter, "wait");
        let invoker = builder.build().expect("the invoker builds");
        std::thread::scope(|scope| {
            let tasks = vec![file.clone()];
            let run = scope.spawn(|| invoker.map(tasks).filter(Result::is_ok).count());
            let watchdog = std::time::Instant::now() + Duration::from_secs(60);
            while !screen.contents().contains("0/1 (50.0 %)") {
                assert!(
                    std::time::Instant::now() < watchdog,
                    "{executor:?}: {}",
                    screen.contents()
                );
                screen.advance(Duration::from_millis(100));
            }
            std::fs::write(&file, "").expect("writable");
            assert_eq!(run.join().expect("no panic"), 1);
        });
        invoker.finish().expect("no error");
        screen.advance(Duration::from_secs(1));
        assert!(screen.contents().contains("1/1 (100 %)"), "{}", screen.contents());
    }
}

#[test]
fn outputs_know_how_many_remain_and_end_once() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(|_: &(), n: u32| n).model(());
        let builder = builder.executor(executor).workers(workers);
        let invoker = builder.build().expect("the invoker builds");
        let mut outputs = invoker.map(0..3);
        for remaining in (0..3).rev() {
            outputs.next().expect("an output").expect("no task fails");
            assert_eq!(outputs.size_hint(), (0, Some(remaining)), "{executor}");
        }
        assert!(outputs.next().is_none() && outputs.next().is_none());
        assert_eq!(invoker.map(0..).size_hint(), (0, None));
    }
}
