//! Runs that end early, with every executor.

use std::sync::Arc;
use std::time::Duration;

use invoker::{Executor, Fault, Interrupt, Invoker, PoolError, Render, Reporter};

use crate::executors::EXECUTORS;

fn square(_: &(), n: u64) -> u64 {
    n * n
}

#[test]
fn every_interrupt_ends_an_endless_run() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        for how in [Interrupt::Finish, Interrupt::Cancel, Interrupt::Kill] {
            let builder = Invoker::builder(square).model(()).executor(executor);
            let invoker = builder.workers(workers).build().expect("the invoker builds");
            let interrupter = invoker.interrupter();
            assert_eq!(invoker.interrupted(), None);
            let mut done = 0;
            let mut taken = 0;
            let tasks = (0..).inspect(|_| taken += 1);
            for (n, output) in (0..).zip(invoker.map(tasks)) {
                match output {
                    Ok(square) => {
                        assert_eq!(square, n * n);
                        done += 1;
                    }
                    Err(error) => assert!(
                        matches!(error.fault, Fault::Pool(PoolError::Interrupted)) && how > Interrupt::Finish,
                        "{executor:?} {how:?}: {error}"
                    ),
                }
                if n == 100 {
                    let interrupter = interrupter.clone();
                    let other = std::thread::spawn(move || interrupter.interrupt(how));
                    other.join().expect("no panic");
                }
            }
            assert!(done > 100);
            assert_eq!(invoker.map(0..10).count(), 0);
            let error = invoker.submit(7).wait().expect_err("interrupted before");
            assert!(
                matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
                "{error}"
            );
            assert_eq!(invoker.interrupted(), Some(how));
            let report = invoker.finish().expect("an interrupted run has a report");
            assert_eq!(
                (report.tasks.done, report.tasks.done + report.tasks.failed),
                (done, taken + 1)
            );
            let name = match how {
                Interrupt::Finish => "finish",
                Interrupt::Cancel => "cancel",
                _ => "kill",
            };
            assert!(
                report.to_string().contains(&format!(", interrupted ({name})")),
                "{report}"
            );
            // The invoker does not exist any more: no effect.
            interrupter.interrupt(Interrupt::Kill);
        }
    }
}

#[test]
fn the_bar_of_an_interrupted_run_is_cleared() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        for how in [None, Some(Interrupt::Finish)] {
            let reporter = Reporter::builder().render(Render::Bar).start_in_memory();
            let (reporter, screen) = reporter.expect("it starts");
            let builder = Invoker::builder(square)
                .model(())
                .executor(executor)
                .workers(workers);
            let builder = builder.progress_by(Arc::new(reporter), "square");
            let invoker = builder.build().expect("the invoker builds");
            assert_eq!(invoker.map(0..10).count(), 10);
            screen.advance(Duration::from_secs(1));
            assert!(screen.contents().contains("square"), "{}", screen.contents());
            how.into_iter()
                .for_each(|how| invoker.interrupter().interrupt(how));
            invoker.finish().expect("no error");
            screen.advance(Duration::from_secs(1));
            let screen = screen.contents();
            assert_eq!(screen.contains("square"), how.is_none(), "{executor:?}: {screen}");
        }
    }
}

fn wait_for(_: &(), file: String) -> bool {
    while !std::fs::exists(&file).expect("its directory is there") {
        std::thread::yield_now();
    }
    true
}

#[test]
fn cancel_ends_waiting_tasks_immediately() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("go").to_str().expect("UTF-8").to_owned();
        let builder = Invoker::builder(wait_for).model(()).executor(executor);
        let invoker = builder.workers(1).build().expect("the invoker builds");
        let handles: Vec<_> = (0..20).map(|_| invoker.submit(file.clone())).collect();
        let first = handles.into_iter().rev();
        let mut waiting: Vec<_> = first.collect();
        let first = waiting.pop().expect("there are twenty");
        let first = first
            .wait_timeout(Duration::from_millis(50))
            .expect_err("it waits");
        invoker.interrupter().interrupt(Interrupt::Cancel);
        let last = waiting.remove(0);
        let error = last.wait().expect_err("cancelled while the first task runs");
        assert!(
            matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
            "{executor:?}: {error}"
        );
        std::fs::write(&file, "").expect("writable");
        assert!(first.wait().expect("it had started"), "{executor:?}");
        drop(waiting);
    }
}

/// In a process of its own, because the signal is sent to the whole process.
#[cfg(target_os = "linux")]
#[test]
fn the_first_ctrl_c_finishes_the_run_with_a_report() {
    use rustix::process::{Pid, Signal, getpid, kill_process};

    // A background job of a script ignores Ctrl-C, as do the processes that it starts.
    let status = std::fs::read_to_string("/proc/self/status").expect("readable");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("Linux reports it").trim(), 16).expect("a number");
    if ignored >> (Signal::INT.as_raw() - 1) & 1 == 1 {
        println!("not tested: this process ignores SIGINT");
        return;
    }
    let _watchdog = crate::watchdog::watchdog(120);
    fn leader(executor: String) -> (u64, String) {
        let pid: Pid = getpid();
        let executor: Executor = executor.parse().expect("an executor");
        let builder = Invoker::builder(square).model(()).executor(executor);
        let invoker = builder
            .on_interrupt(invoker::OnInterrupt::Finish)
            .build()
            .expect("the invoker builds");
        let mut outputs = invoker.map(0..);
        assert!(outputs.next().expect("an endless run").is_ok());
        kill_process(pid, Signal::INT).expect("a signal to this process");
        let rest = outputs.filter(Result::is_ok).count() as u64;
        let report = invoker.finish().expect("no error");
        assert_eq!(report.tasks.done, rest + 1);
        (rest, report.to_string())
    }
    for (executor, _) in EXECUTORS {
        let ran = invoker::run_isolated(leader, executor.to_string());
        let (rest, report) = ran.expect("the leader survives");
        assert!(report.contains(", interrupted (finish)"), "{rest}\n{report}");
    }
}
