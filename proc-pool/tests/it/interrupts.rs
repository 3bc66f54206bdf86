//! Interrupts that the program itself asks for: finish, cancel, kill.

use std::thread;

use proc_pool::{Fault, Interrupt, PoolError, TaskError};
#[cfg(any(target_os = "linux", windows))]
use {
    proc_pool::{Pool, WorkerState},
    serde::{Serialize, de::DeserializeOwned},
};

use crate::support::{
    IsolatedTest, Rendezvous, hang, has_children, is_isolated, pool, release, report, test_name,
    wait_for_release, watchdog,
};

fn is_interrupted(error: &TaskError) -> bool {
    matches!(error.fault, Fault::Pool(PoolError::Interrupted))
}

/// Waits until the pool has been interrupted.
#[cfg(any(target_os = "linux", windows))]
pub(crate) fn wait_for_interrupt<T, R>(pool: &Pool<T, R>)
where
    T: Serialize,
    R: DeserializeOwned,
{
    while pool.bytes().interrupted().is_none() {
        thread::yield_now();
    }
}

/// Runs tasks that hang on two workers, and calls `interrupt` the given number of times: first when the tasks run, then
/// when the first interrupt has had its effect. In the end the pool must be killed.
#[cfg(any(target_os = "linux", windows))]
pub(crate) fn interrupt_hung_tasks(pool: &Pool<u64, ()>, first: Interrupt, times: u32, interrupt: impl Fn()) {
    thread::scope(|scope| {
        let map = scope.spawn(|| pool.map(0..5).collect::<Vec<_>>());
        let running = || {
            let workers = pool.snapshot().workers;
            workers.iter().filter(|w| w.state == WorkerState::Busy).count()
        };
        while running() < 2 {
            thread::yield_now();
        }
        interrupt();
        wait_for_interrupt(pool);
        assert_eq!(pool.bytes().interrupted(), Some(first));
        (1..times).for_each(|_| interrupt());
        for result in map.join().expect("no thread panics") {
            let error = result.expect_err("the task hangs");
            assert!(is_interrupted(&error), "{error}");
        }
    });
    assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Kill));
}

#[test]
fn finish_yields_the_outputs_of_all_tasks_taken_from_the_input() {
    let _watchdog = watchdog(60);
    for ordered in [true, false] {
        let pool = pool(2, |n: u64| n);
        assert_eq!(pool.bytes().interrupted(), None);
        let mut taken = 0;
        // An infinite input.
        let input = (0..).inspect(|_| taken += 1);
        let mut outputs = Vec::new();
        let mut take = |n: Result<u64, TaskError>| {
            outputs.push(n.expect("the task succeeds"));
            if outputs.len() == 1000 {
                let interrupter = pool.bytes().interrupter();
                let thread = thread::spawn(move || interrupter.interrupt(Interrupt::Finish));
                thread.join().expect("no thread panics");
            }
        };
        if ordered {
            pool.map(input).for_each(&mut take);
        } else {
            pool.map_unordered(input).for_each(&mut take);
            outputs.sort_unstable();
        }
        assert!((0..taken).eq(outputs), "{taken} taken");
        assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Finish));
        assert_eq!(pool.map(0..10).count(), 0, "later maps take no tasks");
        let stats = pool
            .shutdown(std::time::Duration::from_secs(20))
            .expect("the pool works");
        assert_eq!((stats.answered, stats.deaths), (taken, 0));
    }
}

/// Only the running task, and a task that may have been sent behind it, have an output.
#[test]
fn cancel_fails_the_tasks_that_no_worker_has() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(1, |path: String| wait_for_release(&path));
    thread::scope(|scope| {
        let map = scope.spawn(|| {
            let results: Vec<_> = pool
                .map_unordered(std::iter::repeat(rendezvous.address.clone()))
                .collect();
            let cancelled = results
                .iter()
                .filter(|r| r.as_ref().is_err_and(is_interrupted))
                .count();
            let done = results.iter().filter(|r| r.is_ok()).count();
            assert_eq!(cancelled + done, results.len(), "{results:?}");
            done
        });
        let running = rendezvous.accept();
        pool.bytes().interrupt(Interrupt::Cancel);
        // A weaker interrupt has no effect any more.
        pool.bytes().interrupt(Interrupt::Finish);
        assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Cancel));
        release(running);
        while !map.is_finished() {
            // Another task may have been sent behind it.
            let stats = pool.bytes().stats();
            if stats.submitted > stats.answered + stats.failed && stats.answered > 0 {
                rendezvous.release_next();
            }
            thread::yield_now();
        }
        assert!((1..=2).contains(&map.join().expect("no thread panics")));
    });
    let stats = pool.bytes().stats();
    assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
}

#[test]
fn kill_ends_every_wait() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool(2, |path: String| -> () {
        report(&path, std::process::id());
        hang()
    });
    thread::scope(|scope| {
        let maps = [(); 3].map(|()| {
            let tasks = std::iter::repeat_n(rendezvous.address.clone(), 5);
            scope.spawn(|| pool.map(tasks).collect::<Vec<_>>())
        });
        let workers = [rendezvous.receive(), rendezvous.receive()];
        pool.bytes().interrupt(Interrupt::Kill);
        for map in maps {
            let results = map.join().expect("no thread panics");
            assert!(
                results.iter().all(|r| r.as_ref().is_err_and(is_interrupted)),
                "{results:?}"
            );
        }
        assert_ne!(workers[0], workers[1]);
    });
    assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Kill));
    let ended = pool.shutdown(std::time::Duration::from_secs(20));
    assert!(matches!(ended, Err(PoolError::Interrupted)), "{ended:?}");
    assert!(!has_children());
}

/// Workers ignore Ctrl-C, which their leader handles; programs that they start do not inherit that.
#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_programs_of_a_worker_but_not_the_worker() {
    use std::os::unix::process::ExitStatusExt;

    let _watchdog = watchdog(60);
    fn shell() -> Option<i32> {
        let shell = std::process::Command::new("sh")
            .args(["-c", "kill -INT $$"])
            .status();
        shell.expect("the shell can be started").signal()
    }
    let pool = pool(1, |(): ()| {
        use rustix::process::{Signal, getpid, kill_process};
        kill_process(getpid(), Signal::INT).expect("this process exists");
        shell()
    });
    // These tests may have inherited that SIGINT is ignored, as background jobs of a shell do.
    let in_leader = shell();
    for result in pool.map([(); 2]) {
        assert_eq!(result.expect("the worker survives"), in_leader);
    }
}
