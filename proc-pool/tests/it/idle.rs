//! Idle pools: how often their leader wakes up.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{IsolatedTest, builder, is_isolated, test_name, watchdog};

/// Returns how often threads of this process have gone to sleep.
fn sleeps() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc is readable");
    let sleeps = tasks.flatten().filter_map(|task| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    });
    sleeps.sum()
}

/// Fewer than ten wake-ups a second in all threads of the leader, with deadlines and memory limits, too.
#[test]
fn idle_pool_sleeps() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let plain = builder(2);
    let watched = plain.clone().deadline(Duration::from_millis(40));
    for builder in [plain, watched.recycle_above(1 << 30)] {
        let pool = builder.build_op(|n: u64| n).expect("the pool starts");
        for _ in 0..2 {
            assert_eq!(pool.map(0..1000).filter(Result::is_ok).count(), 1000);
            // The pool takes a moment to become idle.
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
