//! What a pool costs that has nothing to do.

use std::thread;
use std::time::Instant;

use crate::support::{kill, watchdog};

#[cfg(target_os = "linux")]
mod wake_ups {
    use std::thread;
    use std::time::{Duration, Instant};

    use proc_pool::{Builder, Workers};

    use crate::support::{Alone, is_alone, test_name, watchdog};

    /// How often threads of this process have gone to sleep.
    fn sleeps() -> u64 {
        let tasks = std::fs::read_dir("/proc/self/task").expect("it is readable");
        let sleeps = tasks.flatten().filter_map(|task| {
            let status = std::fs::read_to_string(task.path().join("status")).ok()?;
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            line.trim().parse::<u64>().ok()
        });
        sleeps.sum()
    }

    /// Fewer than ten wake-ups a second in all threads of the leader, whatever is looked after while there are tasks.
    #[test]
    fn an_idle_pool_sleeps() {
        if !is_alone() {
            return Alone::new(&test_name!()).run();
        }
        let _watchdog = watchdog(60);
        let plain = Builder::new().workers(Workers::Count(2));
        let watched = plain.clone().deadline(Duration::from_millis(40));
        for builder in [plain, watched.recycle_above(1 << 30)] {
            let pool = builder.build_op(|n: u64| n).expect("it starts");
            for _ in 0..2 {
                assert_eq!(pool.map(0..1000).filter(Result::is_ok).count(), 1000);
                // Until it has come to rest; a second that is not idle enough is followed by another one.
                loop {
                    let (before, began) = (sleeps(), Instant::now());
                    thread::sleep(Duration::from_secs(1));
                    let rate = (sleeps() - before) as f64 / began.elapsed().as_secs_f64();
                    println!("{rate:.1} wake-ups a second");
                    if rate < 10.0 {
                        break;
                    }
                }
            }
        }
    }
}

/// With nobody calling: by the closing of its connection, not by looking.
#[test]
fn the_death_of_an_idle_worker_is_noticed() {
    let _watchdog = watchdog(60);
    // With one worker, so that it is this one that has run tasks in between: else it would seem unable to start.
    let pool = crate::support::pool(1, |n: u64| n);
    for deaths in 1..5 {
        kill(pool.bytes().pids()[0].1);
        let began = Instant::now();
        while pool.bytes().stats().deaths < deaths {
            thread::yield_now();
        }
        println!("noticed and reaped after {:?}", began.elapsed());
        while pool.bytes().pids().is_empty() {
            thread::yield_now();
        }
        assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 10);
    }
}
