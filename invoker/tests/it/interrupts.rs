//! Runs that end early, on every executor.

use std::sync::Arc;
use std::time::Duration;

use invoker::{Executor, Fault, Interrupt, Invoker, PoolError, Render, Reporter, Workers};

use crate::executors::EXECUTORS;

fn square(_: &(), n: u64) -> u64 {
    n * n
}

#[test]
fn an_endless_run_is_finished_or_cancelled() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        for how in [Interrupt::Finish, Interrupt::Cancel, Interrupt::Kill] {
            let builder = Invoker::builder(square).model(()).executor(executor);
            let invoker = builder.workers(workers).build().expect("it builds");
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
            let error = invoker.submit(7).wait().expect_err("too late");
            assert!(
                matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
                "{error}"
            );
            assert_eq!(invoker.interrupted(), Some(how));
            let report = invoker.finish().expect("there is a report all the same");
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
            // It is gone: nothing happens.
            interrupter.interrupt(Interrupt::Kill);
        }
    }
}

#[test]
fn the_bar_of_an_interrupted_run_is_cleared() {
    let _watchdog = crate::watchdog::watchdog(120);
    for (executor, workers) in EXECUTORS {
        for how in [None, Some(Interrupt::Finish)] {
            let reporter = Reporter::builder().render(Render::Bar).rehearse();
            let (reporter, rehearsal) = reporter.expect("it starts");
            let builder = Invoker::builder(square)
                .model(())
                .executor(executor)
                .workers(workers);
            let builder = builder.progress_by(Arc::new(reporter), "square");
            let invoker = builder.build().expect("it builds");
            assert_eq!(invoker.map(0..10).count(), 10);
            rehearsal.tick(Duration::from_secs(1));
            assert!(rehearsal.screen().contains("square"), "{}", rehearsal.screen());
            how.into_iter()
                .for_each(|how| invoker.interrupter().interrupt(how));
            invoker.finish().expect("it ends well");
            rehearsal.tick(Duration::from_secs(1));
            let screen = rehearsal.screen();
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
fn what_waits_is_given_up_at_once() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads] {
        let dir = tempfile::tempdir().expect("there is a temporary directory");
        let file = dir.path().join("go").to_str().expect("it is text").to_owned();
        let builder = Invoker::builder(wait_for).model(()).executor(executor);
        let invoker = builder.workers(Workers::Count(1)).build().expect("it builds");
        let handles: Vec<_> = (0..20).map(|_| invoker.submit(file.clone())).collect();
        let first = handles.into_iter().rev();
        let mut waiting: Vec<_> = first.collect();
        let first = waiting.pop().expect("there are twenty");
        let first = first
            .wait_timeout(Duration::from_millis(50))
            .expect_err("it waits");
        invoker.interrupter().interrupt(Interrupt::Cancel);
        let last = waiting.remove(0);
        let error = last
            .wait()
            .expect_err("it was given up, while the first one runs");
        assert!(
            matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
            "{executor:?}: {error}"
        );
        std::fs::write(&file, "").expect("the directory is writable");
        assert!(first.wait().expect("it had begun"), "{executor:?}");
        drop(waiting);
    }
}

/// Ctrl-C is a signal to the whole process: it takes one of its own.
#[cfg(target_os = "linux")]
#[test]
fn the_first_ctrl_c_finishes_and_the_report_says_so() {
    use rustix::process::{Pid, Signal, getpid, kill_process};

    // A background job of a script ignores Ctrl-C, and so do the processes that it starts.
    let status = std::fs::read_to_string("/proc/self/status").expect("it is readable");
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = u64::from_str_radix(ignored.expect("it is there").trim(), 16).expect("a number");
    if ignored >> (Signal::INT.as_raw() - 1) & 1 == 1 {
        println!("not tested: this process ignores SIGINT");
        return;
    }
    let _watchdog = crate::watchdog::watchdog(120);
    fn leader(executor: String) -> (u64, String) {
        let pid: Pid = getpid();
        let executor = Executor::of_name(&executor).expect("it is one");
        let builder = Invoker::builder(square).model(()).executor(executor);
        let invoker = builder
            .on_interrupt(invoker::OnInterrupt::Finish)
            .build()
            .expect("it builds");
        let mut outputs = invoker.map(0..);
        assert!(outputs.next().expect("it is endless").is_ok());
        kill_process(pid, Signal::INT).expect("it is ours");
        let rest = outputs.filter(Result::is_ok).count() as u64;
        let report = invoker.finish().expect("it ends well");
        assert_eq!(report.tasks.done, rest + 1);
        (rest, report.to_string())
    }
    for (executor, _) in EXECUTORS {
        let ran = invoker::run_isolated(leader, executor.name().to_owned());
        let (rest, report) = ran.expect("it survives");
        assert!(report.contains(", interrupted (finish)"), "{rest}\n{report}");
    }
}
