//! What worker processes find around them, and what they may take.

use std::time::Duration;

use invoker::{Backing, Error, Executor, Filter, Invoker, Redirect, Threads, Workers};

use crate::executors::EXECUTORS;

fn around(_: &(), name: String) -> (Option<String>, String) {
    let here = std::env::current_dir().expect("it is somewhere");
    (std::env::var(name).ok(), here.display().to_string())
}

#[test]
fn environment_directory_and_threads_are_as_said() {
    let dir = tempfile::tempdir().expect("there is a temporary directory");
    let dir = dir.path().canonicalize().expect("it is there");
    let builder = Invoker::builder(around).model(()).executor(Executor::Processes);
    let builder = builder.workers(Workers::Count(1)).current_dir(&dir);
    let builder = builder
        .env("FACADE_TEST", "7")
        .env_remove("PATH")
        .threads(Threads::Count(3));
    let settings = builder.settings().expect("nothing is wrong").to_string();
    assert!(
        settings.contains("env               FACADE_TEST=…, no PATH code"),
        "{settings}"
    );
    let invoker = builder.build().expect("it builds");
    let names = ["FACADE_TEST", "PATH", "OMP_NUM_THREADS"].map(str::to_owned);
    let found: Vec<_> = invoker.map(names).map(|out| out.expect("none fails")).collect();
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
    let builder = Invoker::builder(pid).model(()).executor(Executor::Processes);
    let invoker = builder
        .workers(Workers::Count(1))
        .recycle_after(2)
        .build()
        .expect("it builds");
    let mut pids: Vec<_> = invoker.map(0..6).map(|out| out.expect("none fails")).collect();
    pids.dedup();
    assert!(pids.len() >= 3, "{pids:?}");
    invoker.resize(Workers::Count(2)).expect("it may");
    assert_eq!(invoker.workers(), 2);
    let snapshot = invoker.snapshot().expect("there are processes");
    assert!(!snapshot.workers.is_empty() && snapshot.to_string().contains("restarts"));
    assert!(matches!(invoker.resize(Workers::Count(0)), Err(Error::Pool(_))));
}

#[cfg(target_os = "linux")]
#[test]
fn a_task_that_takes_too_much_memory_fails_alone() {
    fn take(_: &(), mebibytes: usize) -> usize {
        let mut taken: Vec<Vec<u8>> = Vec::new();
        for _ in 0..mebibytes {
            taken.push(vec![1; 1 << 20]);
        }
        // It is to be killed, not to be in time.
        if mebibytes > 100 {
            loop {
                std::thread::park();
            }
        }
        taken.len()
    }
    let builder = Invoker::builder(take).model(()).executor(Executor::Processes);
    let builder = builder.workers(Workers::Count(1)).memory_limit(200 << 20);
    let invoker = builder.build().expect("it builds");
    let outputs: Vec<_> = invoker.map([1, 400, 2]).collect();
    assert!(matches!((&outputs[0], &outputs[2]), (Ok(1), Ok(2))));
    let error = outputs[1].as_ref().expect_err("too much");
    let reason = invoker::Cause::Killed {
        reason: invoker::KillReason::MemoryLimit,
    };
    assert!(
        matches!(&error.fault, invoker::Fault::WorkerDied { cause, .. } if *cause == reason),
        "{error}"
    );
}

#[test]
fn what_takes_processes_is_refused_without() {
    for (executor, _) in EXECUTORS {
        if executor == Executor::Processes {
            continue;
        }
        let builder = || Invoker::builder(pid).model(()).executor(executor);
        let asked = [
            builder().backing(Backing::Named),
            builder().deadline(Duration::from_secs(1)),
            builder().retries(0),
            builder().start_timeout(Duration::from_secs(1)),
            builder().recycle_after(1),
            builder().recycle_above(1 << 40),
            builder().memory_limit(1 << 40),
            builder().threads(Threads::Share),
            builder().env("A", "1"),
            builder().env_remove("A"),
            builder().env_clear(),
            builder().current_dir("."),
            builder().stdout(Redirect::Inherit),
            builder().stderr(Redirect::Null),
            builder().logs(Filter::off()),
            builder().log_panics(),
            builder().on_dump(|_| {}),
        ];
        for builder in asked {
            let said = format!("{:?}", builder.settings());
            let refused = builder.build().map(drop);
            assert!(matches!(refused, Err(Error::Unsupported { .. })), "{refused:?}");
            assert!(said.contains("does not support"), "{said}");
        }
        let invoker = builder().build().expect("it builds");
        assert!(invoker.snapshot().is_none() && invoker.pids().is_empty());
        let resized = invoker.resize(Workers::Count(1));
        assert!(matches!(resized, Err(Error::Unsupported { .. })));
        let filtered = invoker.set_filter(&Filter::off());
        assert!(matches!(filtered, Err(Error::Unsupported { .. })));
    }
}

#[cfg(all(feature = "stacks", target_os = "linux"))]
#[test]
fn a_hung_op_tells_where_it_hung() {
    #[inline(never)]
    fn stuck_here() -> u32 {
        loop {
            std::thread::park();
        }
    }
    let builder = Invoker::builder(|_: &(), _: u32| stuck_here()).model(());
    let builder = builder.executor(Executor::Processes).workers(Workers::Count(1));
    let builder = builder.deadline(Duration::from_millis(200)).stack_on_deadline();
    let error = builder
        .build()
        .expect("it builds")
        .submit(1)
        .wait()
        .expect_err("it hangs");
    match error.fault {
        invoker::Fault::TimedOut {
            stack: Some(stack), ..
        } => assert!(stack.contains("stuck_here"), "{stack}"),
        other => panic!("{other:?}"),
    }
}

/// The signal is for the whole process: it takes one of its own.
#[cfg(target_os = "linux")]
#[test]
fn a_process_that_is_asked_tells_what_its_workers_do() {
    use rustix::process::{Signal, getpid, kill_process};

    fn leader(_: ()) -> String {
        let (told, heard) = std::sync::mpsc::channel();
        let builder = Invoker::builder(pid).model(()).executor(Executor::Processes);
        let builder = builder.workers(Workers::Count(2)).on_dump(move |snapshot| {
            told.send(snapshot.to_string()).expect("the leader listens");
        });
        let _invoker = builder.build().expect("it builds");
        kill_process(getpid(), Signal::USR1).expect("it is ours");
        heard.recv_timeout(Duration::from_secs(60)).expect("it is told")
    }
    let table = invoker::run_isolated(leader, ()).expect("it survives");
    assert_eq!(table.matches("idle").count(), 2, "{table}");
}
