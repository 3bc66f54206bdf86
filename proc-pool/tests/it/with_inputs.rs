//! Maps that return each task beside its output: whatever has become of a task, it comes back.

use std::cell::Cell;
use std::time::Duration;

use proc_pool::{Fault, Interrupt, PoolError};
use serde::{Deserialize, Serialize, Serializer};

use crate::support::{builder, hang, watchdog};

/// A task that cannot be cloned. It is its own op.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Task {
    Succeed(u64),
    Panic,
    Die,
    Hang,
    NotEncodable(#[serde(serialize_with = "fails")] ()),
    NotDecodable(#[serde(deserialize_with = "rejects")] u8),
    BadOutput,
}

fn fails<S: Serializer>((): &(), _: S) -> Result<S::Ok, S::Error> {
    Err(serde::ser::Error::custom("not today"))
}

fn rejects<'de, D: serde::Deserializer<'de>>(_: D) -> Result<u8, D::Error> {
    Err(serde::de::Error::custom("not here"))
}

/// An output that may fail to be encoded.
#[derive(Debug, Serialize, Deserialize)]
enum Output {
    Good(u64),
    Bad(#[serde(serialize_with = "fails")] ()),
}

fn run(task: Task) -> Output {
    match task {
        Task::Succeed(n) => Output::Good(n),
        Task::Panic => panic!("the op panics"),
        Task::Die => std::process::abort(),
        Task::Hang => hang(),
        Task::NotEncodable(()) | Task::NotDecodable(_) => unreachable!("it does not reach a worker"),
        Task::BadOutput => Output::Bad(()),
    }
}

fn task(index: u64) -> Task {
    match index {
        3 => Task::Panic,
        5 => Task::Die,
        13 => Task::NotEncodable(()),
        21 => Task::NotDecodable(1),
        34 => Task::BadOutput,
        n => Task::Succeed(n),
    }
}

#[test]
fn each_task_comes_back_with_its_output_or_error() {
    let _watchdog = watchdog(120);
    let pool = builder(2).build_op(run).expect("the pool starts");
    for ordered in [true, false] {
        let tasks = (0..100).map(task);
        let map = match ordered {
            true => pool.map(tasks),
            false => pool.map_unordered(tasks),
        };
        let map = map.with_inputs();
        assert_eq!(map.size_hint(), (100, Some(100)));
        let mut returned = Vec::new();
        for (position, (task_of, result)) in (0..).zip(map) {
            let index = match &result {
                Ok(Output::Good(n)) => *n,
                Ok(Output::Bad(())) => panic!("it cannot be encoded"),
                Err(error) => error.task,
            };
            assert_eq!(task_of, task(index));
            assert!(!ordered || index == position);
            let expected = match (task_of, result.map_err(|error| error.fault)) {
                (Task::Succeed(_), result) => result.is_ok(),
                (Task::Panic, Err(Fault::Panicked { .. })) => true,
                (Task::Die, Err(Fault::WorkerDied { .. })) => true,
                (Task::NotEncodable(()) | Task::NotDecodable(_), Err(Fault::Task(_))) => true,
                (Task::BadOutput, Err(Fault::Output(_))) => true,
                _ => false,
            };
            assert!(expected, "{index}");
            returned.push(index);
        }
        returned.sort_unstable();
        assert!(returned.into_iter().eq(0..100));
    }
}

#[test]
fn task_beyond_its_deadline_comes_back() {
    let _watchdog = watchdog(60);
    let builder = builder(1).deadline(Duration::from_millis(100));
    let pool = builder.build_op(run).expect("the pool starts");
    let (task, result) = pool.map([Task::Hang]).with_inputs().next().expect("one output");
    assert_eq!(task, Task::Hang);
    let error = result.expect_err("the task hangs");
    assert!(matches!(error.fault, Fault::TimedOut { .. }), "{error}");
}

#[test]
fn tasks_that_an_interrupt_has_withdrawn_come_back() {
    let _watchdog = watchdog(60);
    let pool = builder(1).build_op(|n: u64| n).expect("the pool starts");
    let taken = Cell::new(0);
    let input = (0..).inspect(|_| taken.set(taken.get() + 1));
    let mut withdrawn = 0;
    let mut returned = 0;
    for (index, (task, result)) in (0..).zip(pool.map(input).with_inputs()) {
        assert_eq!(task, index);
        match result {
            Ok(output) => assert_eq!(output, index),
            Err(error) => {
                assert_eq!(error.task, index);
                assert!(
                    matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
                    "{error}"
                );
                withdrawn += 1;
            }
        }
        returned += 1;
        if index == 10 {
            pool.interrupt(Interrupt::Kill);
        }
    }
    assert_eq!(returned, taken.get(), "no task that was taken is lost");
    // Those that are in flight when the pool is killed depend on the time.
    assert!(withdrawn <= returned);
}

#[test]
fn tasks_of_bytes_come_back_too() {
    struct Fails;
    impl proc_pool::Service for Fails {
        fn start(_: &mut proc_pool::WorkerContext, _: &[u8]) -> Result<Self, proc_pool::BoxError> {
            Ok(Self)
        }

        fn call(&mut self, _: &[u8], _: &mut proc_pool::OutputBuf) -> Result<(), proc_pool::CallError> {
            panic!("always")
        }
    }
    let _watchdog = watchdog(60);
    let entry_point = proc_pool::EntryPoint::service::<Fails>();
    let pool = builder(1).build(entry_point, &[]).expect("the pool starts");
    let tasks = [vec![1; 3], vec![2; 100_000]];
    let failed = pool
        .map(tasks.clone())
        .with_inputs()
        .filter(|(_, result)| result.is_err());
    assert!(failed.map(|(task, _)| task).eq(tasks));
}

#[test]
#[should_panic(expected = "was called after `next`")]
fn inputs_that_were_not_kept_cannot_be_asked_for() {
    let _watchdog = watchdog(60);
    let pool = builder(1).build_op(|n: u64| n).expect("the pool starts");
    let mut map = pool.map(0..10);
    map.next();
    drop(map.with_inputs());
}
