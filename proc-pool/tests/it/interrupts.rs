//! Pools that the program interrupts.

use std::thread;

use proc_pool::{Fault, Interrupt, PoolError, TaskError};

use crate::support::{Alone, Ear, hang, has_children, is_alone, pool, tell, test_name, watchdog};

fn interrupted(error: &TaskError) -> bool {
    matches!(error.fault, Fault::Pool(PoolError::Interrupted))
}

#[test]
fn finish_gives_all_that_was_taken_and_no_more() {
    let _watchdog = watchdog(60);
    for ordered in [true, false] {
        let pool = pool(2, |n: u64| n);
        assert_eq!(pool.bytes().interrupted(), None);
        let mut taken = 0;
        // Without an end of its own.
        let input = (0..).inspect(|_| taken += 1);
        let mut outputs = Vec::new();
        let mut take = |n: Result<u64, TaskError>| {
            outputs.push(n.expect("it is finished"));
            if outputs.len() == 1000 {
                let interrupter = pool.bytes().interrupter();
                let thread = thread::spawn(move || interrupter.interrupt(Interrupt::Finish));
                thread.join().expect("it does not panic");
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
        assert_eq!(pool.map(0..10).count(), 0, "and later ones take nothing");
        let stats = pool
            .shutdown(std::time::Duration::from_secs(20))
            .expect("no failure");
        assert_eq!((stats.answered, stats.deaths), (taken, 0));
    }
}

/// What is at no worker is given up, what is at one is not: here the one task that runs.
#[test]
fn cancel_gives_an_error_for_what_is_at_no_worker() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(1, |path: String| crate::support::hear_from(&path));
    thread::scope(|scope| {
        let map = scope.spawn(|| {
            let results: Vec<_> = pool.map_unordered(std::iter::repeat(ear.path.clone())).collect();
            let cancelled = results
                .iter()
                .filter(|r| r.as_ref().is_err_and(interrupted))
                .count();
            let done = results.iter().filter(|r| r.is_ok()).count();
            assert_eq!(cancelled + done, results.len(), "{results:?}");
            done
        });
        let mut running = ear.accept();
        pool.bytes().interrupt(Interrupt::Cancel);
        // Less comes too late.
        pool.bytes().interrupt(Interrupt::Finish);
        assert_eq!(pool.bytes().interrupted(), Some(Interrupt::Cancel));
        std::io::Write::write_all(&mut running, &[1]).expect("it listens");
        while !map.is_finished() {
            // Another one may have been sent ahead.
            let stats = pool.bytes().stats();
            if stats.submitted > stats.answered + stats.faulted && stats.answered > 0 {
                ear.answer();
            }
            thread::yield_now();
        }
        assert!((1..=2).contains(&map.join().expect("as expected")));
    });
    let stats = pool.bytes().stats();
    assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
}

#[test]
fn kill_ends_every_wait_at_once() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(2, |path: String| -> () {
        tell(&path, std::process::id());
        hang()
    });
    thread::scope(|scope| {
        let maps = [(); 3].map(|()| {
            let tasks = std::iter::repeat_n(ear.path.clone(), 5);
            scope.spawn(|| pool.map(tasks).collect::<Vec<_>>())
        });
        let workers = [ear.hear(), ear.hear()];
        pool.bytes().interrupt(Interrupt::Kill);
        for map in maps {
            let results = map.join().expect("it does not panic");
            assert!(
                results.iter().all(|r| r.as_ref().is_err_and(interrupted)),
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

/// Workers leave Ctrl-C to their leader; what they start has it as ever.
#[cfg(unix)]
#[test]
fn workers_are_spared_a_ctrl_c_and_their_programs_are_not() {
    use std::os::unix::process::ExitStatusExt;

    let _watchdog = watchdog(60);
    fn shell() -> Option<i32> {
        let shell = std::process::Command::new("sh")
            .args(["-c", "kill -INT $$"])
            .status();
        shell.expect("there is a shell").signal()
    }
    let pool = pool(1, |(): ()| {
        use rustix::process::{Signal, getpid, kill_process};
        kill_process(getpid(), Signal::INT).expect("it is this process");
        shell()
    });
    // Who runs these tests may have it ignored, as shells do for what they start in the background.
    let as_ever = shell();
    for result in pool.map([(); 2]) {
        assert_eq!(result.expect("it lives"), as_ever);
    }
}
