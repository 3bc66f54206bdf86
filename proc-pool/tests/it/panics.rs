//! Panics that end a process, and panics of other threads: the task's error contains their message and location.

use std::panic;
use std::sync::{Arc, Mutex};
use std::thread;

use proc_pool::{
    BoxError, EntryPoint, ExitCause, Fault, Observer, Pool, PoolError, Redirect, Stream, TaskError, Worker,
    WorkerContext, WorkerId,
};
use serde::{Deserialize, Serialize};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::support::{builder, watchdog};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Action {
    InCallback,
    InCallbackOfAnotherThread,
    InDropWhileUnwinding,
    Caught,
    Abort,
    JoinedAndPassedOn,
    UnderAnotherHook,
    UnderAHookThatCallsOurs,
    MadeWithoutAPanic,
}

/// A function as C code calls it: it must not unwind.
extern "C" fn callback() {
    panic!("in a callback\nof two lines");
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("in the drop");
    }
}

fn run(action: Action) -> u32 {
    match action {
        Action::InCallback => callback(),
        Action::InCallbackOfAnotherThread => drop(thread::spawn(callback_of_thread).join()),
        Action::InDropWhileUnwinding => {
            let _last = PanicsInDrop;
            panic!("the first one");
        }
        Action::Caught => assert!(panic::catch_unwind(|| panic!("caught by the op")).is_err()),
        Action::Abort => {
            run(Action::Caught);
            std::process::abort()
        }
        Action::JoinedAndPassedOn => {
            let other = thread::spawn(|| panic!("in another thread"));
            other
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        }
        Action::UnderAnotherHook => {
            panic::set_hook(Box::new(|_| {}));
            panic!("unseen")
        }
        Action::UnderAHookThatCallsOurs => {
            let ours = panic::take_hook();
            panic::set_hook(Box::new(move |info| ours(info)));
            panic!("seen")
        }
        Action::MadeWithoutAPanic => panic::resume_unwind(Box::new("from nowhere")),
    }
    7
}

/// Panics in a function that must not unwind, on a thread of its own.
fn callback_of_thread() {
    callback();
}

/// Collects what workers print.
#[derive(Default)]
struct Printed(Mutex<String>);

impl Observer for Printed {
    fn started(&self, _: WorkerId, _: Consumer, _: Slots) {}

    fn ended(&self, _: WorkerId, _: &ExitCause) -> Vec<String> {
        Vec::new()
    }

    fn printed(&self, _: WorkerId, _: Stream, line: &str) {
        let mut text = self.0.lock().expect("the lock is not poisoned");
        text.push_str(line);
        text.push('\n');
    }
}

/// Runs a task with this action, and returns its error and what the worker printed.
fn fail(action: Action) -> (TaskError, String) {
    let printed = Arc::new(Printed::default());
    let builder = builder(1).stderr(Redirect::Capture);
    let pool: Pool<Action, u32> = builder
        .observer(printed.clone())
        .build_op(run)
        .expect("the pool starts");
    let error = pool.submit(action).wait().expect_err("the task fails");
    drop(pool);
    let printed = printed.0.lock().expect("the lock is not poisoned").clone();
    (error, printed)
}

/// Returns the panics that the error of a worker's death contains.
fn last_panics(error: &TaskError) -> &[String] {
    match &error.fault {
        Fault::WorkerDied { last_panics, .. } => last_panics,
        other => panic!("{other:?}"),
    }
}

#[test]
fn panic_in_an_extern_c_function_is_in_the_error_and_printed() {
    let _watchdog = watchdog(60);
    let (error, printed) = fail(Action::InCallback);
    let panics = last_panics(&error);
    let [first, second] = panics else {
        panic!("{panics:?}")
    };
    assert!(
        first.starts_with("panicked at ") && first.contains("panics.rs:"),
        "{first}"
    );
    assert!(first.ends_with(r": in a callback\nof two lines"), "{first}");
    assert!(second.contains("cannot unwind"), "{second}");
    assert!(
        error
            .to_string()
            .contains(&format!("; before that, it {first}, then {second}")),
        "{error}"
    );
    assert!(
        printed.contains("in a callback") && printed.contains("cannot unwind"),
        "{printed}"
    );
}

#[test]
fn fatal_panic_of_another_thread_is_in_the_error() {
    let _watchdog = watchdog(60);
    let (error, printed) = fail(Action::InCallbackOfAnotherThread);
    let panics = last_panics(&error);
    assert!(panics[0].contains("in a callback"), "{panics:?}");
    assert!(printed.contains("in a callback"), "{printed}");
}

#[test]
fn panic_in_a_drop_during_unwinding_is_in_the_error() {
    let _watchdog = watchdog(60);
    let (error, printed) = fail(Action::InDropWhileUnwinding);
    let panics = last_panics(&error);
    for (index, message) in ["the first one", "in the drop", "destructor"].iter().enumerate() {
        assert!(panics[index].contains(message), "{panics:?}");
        assert!(printed.contains(message), "{printed}");
    }
}

#[test]
fn caught_panic_is_not_blamed_for_a_later_death() {
    let _watchdog = watchdog(60);
    let (error, printed) = fail(Action::Abort);
    let panics = last_panics(&error);
    assert!(
        panics.is_empty() && !printed.contains("caught by the op"),
        "{error}: {printed}"
    );
}

#[test]
fn panic_resumed_from_another_thread_keeps_its_location() {
    let _watchdog = watchdog(60);
    let (error, _) = fail(Action::JoinedAndPassedOn);
    let Fault::Panicked {
        message, location, ..
    } = &error.fault
    else {
        panic!("{error}")
    };
    assert_eq!(message, "in another thread");
    assert!(location.contains("panics.rs:"), "{location}");
}

#[test]
fn unknown_location_of_a_panic_is_left_out() {
    let _watchdog = watchdog(60);
    for (action, expected) in [
        (Action::UnderAnotherHook, "task 0: panicked in worker 0: unseen"),
        (
            Action::MadeWithoutAPanic,
            "task 0: panicked in worker 0: from nowhere",
        ),
    ] {
        assert_eq!(fail(action).0.to_string(), expected);
    }
    let seen = fail(Action::UnderAHookThatCallsOurs).0.to_string();
    assert!(seen.contains("panics.rs:") && seen.ends_with(": seen"), "{seen}");
}

struct DiesAtStart;

impl Worker for DiesAtStart {
    type Op = ();
    type Init = ();
    type Task = ();
    type Output = ();

    fn start(_: &mut WorkerContext, (): (), (): ()) -> Result<Self, BoxError> {
        callback();
        Ok(Self)
    }

    fn run(&mut self, (): ()) {}
}

#[test]
fn panic_at_start_is_in_the_pools_error() {
    let _watchdog = watchdog(60);
    let builder = builder(1).stderr(Redirect::Null);
    let error = builder
        .build(EntryPoint::worker::<DiesAtStart>(()), &())
        .map(drop)
        .expect_err("no worker starts");
    let PoolError::Start { reason, .. } = &error else {
        panic!("{error}")
    };
    assert!(reason.contains("in a callback"), "{reason}");
    assert!(reason.contains("panics.rs:"), "{reason}");
}

#[cfg(target_os = "linux")]
#[test]
fn worker_that_cannot_start_a_thread_reports_it() {
    let _watchdog = watchdog(120);
    for _ in 0..5 {
        let builder = builder(1).env(crate::support::before_init::NO_THREADS, "1");
        let error = builder.build_op(run).map(drop).expect_err("no worker starts");
        let PoolError::Start { reason, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            reason.contains("cannot start a thread") && reason.contains("os error 11"),
            "{reason}"
        );
    }
}

#[test]
fn forgotten_init_is_reported_with_its_remedy() {
    let _watchdog = watchdog(60);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_proc-pool-test-worker"))
        .arg("without-init")
        .output()
        .expect("the program can be started");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(
        printed.starts_with("Error: `init()` was not called; make it the first line of `main`"),
        "{printed}"
    );
    assert!(!printed.contains("NotInitialized"), "{printed}");
}
