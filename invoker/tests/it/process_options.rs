//! The options of worker processes.

use invoker::{Backing, Error, Executor, Filter, Invoker, NativeThreads, Processes, share};

use crate::executors::EXECUTORS;

/// Returns an environment variable and the working directory.
fn environment(_: &(), name: String) -> (Option<String>, String) {
    let here = std::env::current_dir().expect("there is a working directory");
    (std::env::var(name).ok(), here.display().to_string())
}

#[test]
fn workers_have_the_environment_directory_and_native_threads_of_the_options() {
    let _watchdog = crate::watchdog::watchdog(120);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let dir = dir.path().canonicalize().expect("it exists");
    let options = Processes::new()
        .current_dir(&dir)
        .env("FACADE_TEST", "7")
        .env_remove("PATH")
        .native_threads(NativeThreads::Count(3));
    let builder = Invoker::builder(environment).model(());
    let builder = builder.workers(1).executor(options);
    let settings = builder.settings().expect("valid settings").to_string();
    assert!(
        settings.contains("env                 FACADE_TEST=…, no PATH code"),
        "{settings}"
    );
    let invoker = builder.build().expect("the invoker builds");
    let names = ["FACADE_TEST", "PATH", "OMP_NUM_THREADS"].map(str::to_owned);
    let found: Vec<_> = invoker
        .map(names)
        .map(|out| out.expect("no task fails"))
        .collect();
    let [set, removed, threads] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(set.0.as_deref(), Some("7"));
    assert_eq!(removed.0, None);
    assert_eq!(threads.0.as_deref(), Some("3"));
    assert!(
        found.iter().all(|(_, here)| std::path::Path::new(here) == dir
            || cfg!(windows)
                && here.ends_with(&dir.file_name().expect("it has a name").display().to_string())),
        "{found:?}"
    );
}

fn pid(_: &(), _: u32) -> u32 {
    std::process::id()
}

#[test]
fn processes_are_recycled_and_resized() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = Invoker::builder(pid).model(()).workers(1);
    let builder = builder.executor(Processes::new().recycle_after(2));
    let invoker = builder.build().expect("the invoker builds");
    let mut pids: Vec<_> = invoker.map(0..6).map(|out| out.expect("no task fails")).collect();
    pids.dedup();
    assert!(pids.len() >= 3, "{pids:?}");
    invoker.resize(2).expect("there are processes");
    assert_eq!(invoker.workers(), 2);
    let snapshot = invoker.snapshot().expect("there are processes");
    assert!(!snapshot.workers.is_empty() && snapshot.to_string().contains("restarts"));
    assert!(matches!(invoker.resize(0), Err(Error::Pool(_))));
}

#[cfg(target_os = "linux")]
#[test]
fn a_task_above_the_memory_limit_fails_alone() {
    let _watchdog = crate::watchdog::watchdog(120);
    fn allocate(_: &(), mebibytes: usize) -> usize {
        let mut allocated: Vec<Vec<u8>> = Vec::new();
        for _ in 0..mebibytes {
            allocated.push(vec![1; 1 << 20]);
        }
        // The large task must not finish before it is killed.
        if mebibytes > 100 {
            loop {
                std::thread::park();
            }
        }
        allocated.len()
    }
    let builder = Invoker::builder(allocate).model(()).workers(1);
    let builder = builder.executor(Processes::new().memory_limit_bytes(200 << 20));
    let invoker = builder.build().expect("the invoker builds");
    let outputs: Vec<_> = invoker.map([1, 400, 2]).collect();
    assert!(matches!((&outputs[0], &outputs[2]), (Ok(1), Ok(2))));
    let error = outputs[1].as_ref().expect_err("above the limit");
    let reason = invoker::ExitCause::Killed {
        reason: invoker::KillReason::MemoryLimit,
    };
    assert!(
        matches!(&error.fault, invoker::Fault::WorkerDied { cause, .. } if *cause == reason),
        "{error}"
    );
}

#[test]
fn calls_that_need_processes_are_refused_without_them() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, _) in EXECUTORS {
        if executor == Executor::Processes {
            continue;
        }
        let builder = Invoker::builder(pid).model(()).executor(executor);
        let invoker = builder.build().expect("the invoker builds");
        assert!(invoker.snapshot().is_none() && invoker.pids().is_empty());
        let refused = [invoker.resize(1), invoker.set_filter(&Filter::off())];
        for (refused, call) in refused.into_iter().zip(["resize", "set_filter"]) {
            let error = refused.expect_err("there are no processes").to_string();
            let expected = format!("`{call}` needs worker processes: use `Executor::Processes`");
            assert_eq!(error, expected, "{executor}");
        }
    }
}

#[test]
fn a_backing_for_an_image_is_refused() {
    let _watchdog = crate::watchdog::watchdog(120);
    let image = share(&(), &Backing::Auto).expect("there is room");
    let builder = Invoker::builder(pid).image(image);
    let builder = builder.executor(Processes::new().backing(Backing::Named));
    let error = builder.settings().expect_err("it is shared already").to_string();
    assert!(error.starts_with("`backing` needs a model by value"), "{error}");
    assert!(matches!(
        builder.build().map(drop),
        Err(Error::Unsupported { .. })
    ));
}

#[cfg(all(feature = "stacks", target_os = "linux"))]
#[test]
fn the_error_of_a_hung_op_has_its_stack() {
    let _watchdog = crate::watchdog::watchdog(120);
    #[inline(never)]
    fn stuck_here() -> u32 {
        loop {
            std::thread::park();
        }
    }
    let options = Processes::new()
        .deadline(std::time::Duration::from_millis(200))
        .stack_on_deadline();
    let builder = Invoker::builder(|_: &(), _: u32| stuck_here()).model(());
    let builder = builder.workers(1).executor(options);
    let invoker = builder.build().expect("the invoker builds");
    match invoker.submit(1).wait().expect_err("the op hangs").fault {
        invoker::Fault::TimedOut {
            stack: Some(stack), ..
        } => assert!(stack.contains("stuck_here"), "{stack}"),
        other => panic!("{other:?}"),
    }
}

/// In a process of its own, because the signal is sent to the whole process.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_dumps_the_state_of_the_workers() {
    let _watchdog = crate::watchdog::watchdog(120);
    use rustix::process::{Signal, getpid, kill_process};

    fn leader(_: ()) -> String {
        let (sender, receiver) = std::sync::mpsc::channel();
        let options = Processes::new().on_dump(move |snapshot| {
            sender.send(snapshot.to_string()).expect("the leader waits");
        });
        let builder = Invoker::builder(pid).model(()).workers(2).executor(options);
        let _invoker = builder.build().expect("the invoker builds");
        kill_process(getpid(), Signal::USR1).expect("a signal to this process");
        receiver
            .recv_timeout(std::time::Duration::from_secs(60))
            .expect("a dump")
    }
    let table = invoker::run_isolated(leader, ()).expect("the leader survives");
    assert_eq!(table.matches("idle").count(), 2, "{table}");
}
