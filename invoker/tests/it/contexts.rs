//! The context of an invoker, and what ops learn of their worker.

use std::collections::HashMap;

use invoker::{
    Backing, BoxError, Buffer, Executor, Image, Invoker, Processes, View, WithContext, WorkerInfo, Workers,
    share, worker,
};
use serde::{Deserialize, Serialize};

use crate::executors::EXECUTORS;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Query {
    k: usize,
    name: String,
}

type Run = WithContext<Buffer<f64>, Query>;

/// Returns the `k` largest scores from `start` on.
fn top_k(run: &Run, start: usize) -> (String, Vec<f64>) {
    let mut scores = run.model[start..].to_vec();
    scores.sort_by(|one, other| other.total_cmp(one));
    scores.truncate(run.context.k);
    (run.context.name.clone(), scores)
}

fn query(k: usize) -> Query {
    Query {
        k,
        name: format!("top {k}"),
    }
}

#[test]
fn one_image_serves_runs_with_different_contexts() {
    let _watchdog = crate::watchdog::watchdog(120);
    let scores: Buffer<f64> = vec![1.0, 4.0, 2.0, 3.0].into();
    let file = tempfile::NamedTempFile::new().expect("a file");
    let image = share(&scores, &Backing::Auto).expect("there is room");
    image.save(file.path()).expect("it is saved");
    for (executor, workers) in EXECUTORS {
        for k in 1..3 {
            let expected = (format!("top {k}"), [4.0, 3.0][..k].to_vec());
            let check = |invoker: Invoker<Run, usize, _>| {
                let outputs: Vec<_> = invoker
                    .map(0..2)
                    .collect::<Result<_, _>>()
                    .expect("no task fails");
                assert_eq!(outputs, [expected.clone(), expected.clone()], "{executor:?}");
                assert_eq!(invoker.model().context, query(k));
                assert_eq!(invoker.model().model, scores);
            };
            let builder = || Invoker::builder(top_k).context(query(k));
            let of_file = Image::load_shared(file.path(), &Backing::Auto).expect("it is loaded");
            let of_file = builder().image(of_file).executor(executor).workers(workers);
            check(of_file.build().expect("the invoker builds"));
            let by_value = builder()
                .model(scores.clone())
                .executor(executor)
                .workers(workers);
            check(by_value.build().expect("the invoker builds"));
            let by_reference = builder().model_ref(&scores).executor(executor).workers(workers);
            check(by_reference.build().expect("the invoker builds"));
        }
    }
}

/// The largest scores, as a view that depends on the context.
struct Largest;

impl View<Run> for Largest {
    type Of<'m> = Vec<&'m f64>;

    fn view(run: &Run) -> Result<Vec<&f64>, BoxError> {
        if run.context.k == 0 {
            return Err("k is 0".into());
        }
        let mut scores: Vec<&f64> = run.model.iter().collect();
        scores.sort_by(|one, other| other.total_cmp(one));
        scores.truncate(run.context.k);
        Ok(scores)
    }
}

#[test]
fn states_and_views_are_made_by_the_context() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        let op = |run: &Run, largest: &mut Vec<&f64>, rank: usize| (run.context.k, *largest[rank]);
        let builder = |k| {
            Invoker::builder_with_view::<Largest>(op)
                .context(query(k))
                .model(vec![1.0, 3.0, 2.0].into())
        };
        let invoker = builder(2)
            .executor(executor)
            .workers(workers)
            .build()
            .expect("the invoker builds");
        let outputs: Vec<_> = invoker
            .map(0..2)
            .collect::<Result<_, _>>()
            .expect("no task fails");
        assert_eq!(outputs, [(2, 3.0), (2, 2.0)]);
        let failed = builder(0)
            .executor(executor)
            .workers(workers)
            .build()
            .map(drop)
            .expect_err("k is 0");
        assert!(
            failed.in_full().contains("failed to start: k is 0"),
            "{}",
            failed.in_full()
        );

        let state = |run: &WithContext<(), u64>| Ok(run.context);
        let op = |_: &WithContext<(), u64>, next: &mut u64, step: u64| {
            *next += step;
            *next
        };
        let builder = Invoker::builder_with_state(state, op).context(10).model(());
        let invoker = builder
            .executor(executor)
            .workers(1)
            .build()
            .expect("the invoker builds");
        let outputs: Vec<u64> = invoker
            .map([1, 1])
            .collect::<Result<_, _>>()
            .expect("no task fails");
        assert_eq!(outputs, [11, 12]);
    }
}

fn here(_: &(), start: &mut Option<WorkerInfo>, n: usize) -> (WorkerInfo, bool) {
    assert_ne!(n, 7, "seven");
    let worker = worker().expect("an op runs");
    (worker, *start == Some(worker))
}

#[test]
fn ops_and_states_know_their_worker() {
    let _watchdog = crate::watchdog::watchdog(120);
    assert_eq!(worker(), None);
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder_with_state(|_: &()| Ok(worker()), here).model(());
        let invoker = builder
            .executor(executor)
            .workers(workers)
            .build()
            .expect("the invoker builds");
        let mut seen: HashMap<usize, u64> = HashMap::new();
        let mut failed = 0;
        for output in invoker.map(0..1000) {
            let Ok((worker, same)) = output else {
                failed += 1;
                continue;
            };
            assert!(same && worker.generation == 0, "{executor:?}: {worker:?}");
            assert!(
                worker.index < worker.workers && worker.workers == invoker.workers(),
                "{worker:?}"
            );
            *seen.entry(worker.index).or_default() += 1;
        }
        assert_eq!((failed, seen.values().sum()), (1, 999));
    }
    assert_eq!(worker(), None);
}

#[test]
fn a_replacement_has_the_next_generation() {
    let _watchdog = crate::watchdog::watchdog(120);
    fn generation(_: &(), n: u32) -> u32 {
        if n == 1 {
            std::process::abort();
        }
        worker().expect("an op runs").generation
    }
    let builder = Invoker::builder(generation).model(()).workers(1);
    let invoker = builder
        .executor(Processes::new())
        .build()
        .expect("the invoker builds");
    let generations: Vec<_> = invoker.map(0..4).map(Result::ok).collect();
    assert_eq!(generations, [Some(0), None, Some(1), Some(1)]);
}

#[test]
fn each_worker_process_has_its_own_environment() {
    let _watchdog = crate::watchdog::watchdog(120);
    fn device(_: &(), _: u32) -> (usize, String) {
        let index = worker().expect("an op runs").index;
        (index, std::env::var("DEVICE").expect("it is set"))
    }
    let options = Processes::new().worker_env(|worker| [("DEVICE", format!("gpu{}", worker.0 % 2))]);
    let builder = Invoker::builder(device)
        .model(())
        .executor(options)
        .workers(Workers::Count(3));
    assert!(
        builder
            .settings()
            .expect("valid")
            .to_string()
            .contains("worker_env")
    );
    let invoker = builder.build().expect("the invoker builds");
    for output in invoker.map(0..100) {
        let (index, device) = output.expect("no task fails");
        assert_eq!(device, format!("gpu{}", index % 2));
    }
}

#[test]
fn workers_of_ops_within_ops_are_their_own() {
    let _watchdog = crate::watchdog::watchdog(120);
    let nested = |_: &(), _: u32| {
        let builder = Invoker::builder(|_: &(), _: u32| worker())
            .model(())
            .executor(Executor::Inline);
        let inner = builder
            .build()
            .expect("the inner invoker builds")
            .submit(1)
            .wait()
            .expect("no panic");
        (inner, worker())
    };
    let builder = Invoker::builder(nested)
        .model(())
        .executor(Executor::Threads)
        .workers(2);
    let invoker = builder.build().expect("the invoker builds");
    for output in invoker.map(0..8) {
        let (inner, outer) = output.expect("no task fails");
        assert_eq!(
            (
                inner.expect("an op runs").workers,
                outer.expect("an op runs").workers
            ),
            (1, 2)
        );
    }
}
