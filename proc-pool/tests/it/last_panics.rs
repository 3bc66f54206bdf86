//! Panics that no process survives, and those that reach an op from elsewhere: the task's error says what and where.

use std::panic;
use std::sync::{Arc, Mutex};
use std::thread;

use proc_pool::{
    BoxError, Builder, Cause, Fault, Observer, Pool, PoolError, Redirect, Stream, TaskError, Worker,
    WorkerContext, WorkerId, Workers,
};
use serde::{Deserialize, Serialize};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::support::watchdog;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Deed {
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

/// As a function that C code calls: it must not unwind.
extern "C" fn callback() {
    panic!("in a callback\nof two lines");
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        panic!("in the drop");
    }
}

fn run(deed: Deed) -> u32 {
    match deed {
        Deed::InCallback => callback(),
        Deed::InCallbackOfAnotherThread => drop(thread::spawn(callback_of_thread).join()),
        Deed::InDropWhileUnwinding => {
            let _last = PanicsInDrop;
            panic!("the first one");
        }
        Deed::Caught => assert!(panic::catch_unwind(|| panic!("caught by the op")).is_err()),
        Deed::Abort => {
            run(Deed::Caught);
            std::process::abort()
        }
        Deed::JoinedAndPassedOn => {
            let other = thread::spawn(|| panic!("in another thread"));
            other
                .join()
                .unwrap_or_else(|payload| panic::resume_unwind(payload))
        }
        Deed::UnderAnotherHook => {
            panic::set_hook(Box::new(|_| {}));
            panic!("unseen")
        }
        Deed::UnderAHookThatCallsOurs => {
            let ours = panic::take_hook();
            panic::set_hook(Box::new(move |info| ours(info)));
            panic!("seen")
        }
        Deed::MadeWithoutAPanic => panic::resume_unwind(Box::new("from nowhere")),
    }
    7
}

fn callback_of_thread() {
    callback();
}

/// All that workers print.
#[derive(Default)]
struct Printed(Mutex<String>);

impl Observer for Printed {
    fn started(&self, _: WorkerId, _: Consumer, _: Slots) {}

    fn ended(&self, _: WorkerId, _: &Cause) -> Vec<String> {
        Vec::new()
    }

    fn printed(&self, _: WorkerId, _: Stream, line: &str) {
        let mut text = self.0.lock().expect("it is whole");
        text.push_str(line);
        text.push('\n');
    }
}

/// The error of a task that does this, and what the worker has printed.
fn one(deed: Deed) -> (TaskError, String) {
    let printed = Arc::new(Printed::default());
    let builder = Builder::new()
        .workers(Workers::Count(1))
        .stderr(Redirect::Capture);
    let pool: Pool<Deed, u32> = builder
        .observer(printed.clone())
        .build_op(run)
        .expect("it starts");
    let error = pool.submit(deed).wait().expect_err("it fails");
    drop(pool);
    let printed = printed.0.lock().expect("it is whole").clone();
    (error, printed)
}

/// The panics of a worker that has died.
fn died(error: &TaskError) -> &[String] {
    match &error.fault {
        Fault::WorkerDied { last_panics, .. } => last_panics,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_panic_in_an_extern_c_function_is_in_the_error_and_printed() {
    let _watchdog = watchdog(60);
    let (error, printed) = one(Deed::InCallback);
    let panics = died(&error);
    let [first, second] = panics else {
        panic!("{panics:?}")
    };
    assert!(
        first.starts_with("panicked at ") && first.contains("last_panics.rs:"),
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
fn a_fatal_panic_of_another_thread_is_in_the_error() {
    let _watchdog = watchdog(60);
    let (error, printed) = one(Deed::InCallbackOfAnotherThread);
    let panics = died(&error);
    assert!(panics[0].contains("in a callback"), "{panics:?}");
    assert!(printed.contains("in a callback"), "{printed}");
}

#[test]
fn a_panic_in_a_drop_while_another_one_unwinds_is_in_the_error() {
    let _watchdog = watchdog(60);
    let (error, printed) = one(Deed::InDropWhileUnwinding);
    let panics = died(&error);
    for (index, message) in ["the first one", "in the drop", "destructor"].iter().enumerate() {
        assert!(panics[index].contains(message), "{panics:?}");
        assert!(printed.contains(message), "{printed}");
    }
}

#[test]
fn a_panic_that_was_caught_is_not_blamed_for_a_death() {
    let _watchdog = watchdog(60);
    let (error, printed) = one(Deed::Abort);
    let panics = died(&error);
    assert!(
        panics.is_empty() && !printed.contains("caught by the op"),
        "{error}: {printed}"
    );
}

#[test]
fn a_panic_that_another_thread_has_passed_on_has_its_location() {
    let _watchdog = watchdog(60);
    let (error, _) = one(Deed::JoinedAndPassedOn);
    let Fault::Panicked {
        message, location, ..
    } = &error.fault
    else {
        panic!("{error}")
    };
    assert_eq!(message, "in another thread");
    assert!(location.contains("last_panics.rs:"), "{location}");
}

#[test]
fn a_location_that_is_not_known_is_left_out() {
    let _watchdog = watchdog(60);
    for (deed, expected) in [
        (Deed::UnderAnotherHook, "task 0: panicked in worker 0: unseen"),
        (
            Deed::MadeWithoutAPanic,
            "task 0: panicked in worker 0: from nowhere",
        ),
    ] {
        assert_eq!(one(deed).0.to_string(), expected);
    }
    let seen = one(Deed::UnderAHookThatCallsOurs).0.to_string();
    assert!(
        seen.contains("last_panics.rs:") && seen.ends_with(": seen"),
        "{seen}"
    );
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
fn a_worker_that_aborts_while_it_starts_says_why() {
    let _watchdog = watchdog(60);
    let builder = Builder::new().workers(Workers::Count(1)).stderr(Redirect::Null);
    let error = builder
        .build::<DiesAtStart>((), &())
        .map(drop)
        .expect_err("it aborts");
    let PoolError::Start { reason, .. } = &error else {
        panic!("{error}")
    };
    assert!(reason.contains("in a callback"), "{reason}");
    assert!(reason.contains("last_panics.rs:"), "{reason}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_that_cannot_make_its_thread_says_so_in_every_run() {
    let _watchdog = watchdog(120);
    for _ in 0..5 {
        let builder = Builder::new()
            .workers(Workers::Count(1))
            .env("IT_NO_THREADS", "1");
        let error = builder.build_op(run).map(drop).expect_err("it has no thread");
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
fn a_main_that_forgets_init_prints_the_remedy() {
    let _watchdog = watchdog(60);
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_proc-pool-test-worker"))
        .arg("without-init")
        .output()
        .expect("it can be started");
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(
        printed.starts_with("Error: `init()` was not called; make it the first line of `main`"),
        "{printed}"
    );
    assert!(!printed.contains("NotInitialized"), "{printed}");
}
