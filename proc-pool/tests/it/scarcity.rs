//! Workers that are killed for want of memory.

use std::fs;
use std::path::{Path, PathBuf};

use proc_pool::{Cause, Fault};

use crate::support::{Alone, is_alone, pool, test_name, watchdog};

const GROUP: &str = "IT_GROUP";
const MIB: usize = 1 << 20;

/// A control group of its own, for as long as nobody is in it any more.
struct Group(PathBuf);

impl Group {
    /// `None` where this process may make none.
    fn with_limit(bytes: usize) -> Option<Self> {
        let name = format!("proc-pool-test-{}", std::process::id());
        let versions = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        for (root, limit) in versions {
            let group = Path::new(root).join(&name);
            if fs::create_dir(&group).is_ok() {
                let group = Self(group);
                if fs::write(group.0.join(limit), bytes.to_string()).is_ok() {
                    return Some(group);
                }
            }
        }
        None
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Task {
    Easy,
    Greedy,
    KilledByOthers,
}

fn run(task: Task) {
    match task {
        Task::Easy => {}
        Task::Greedy => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(std::hint::black_box(vec![1u8; MIB]));
            }
        }
        Task::KilledByOthers => {
            crate::support::try_kill(std::process::id());
            crate::support::hang()
        }
    }
}

#[test]
fn a_worker_out_of_memory_is_told_from_one_that_was_killed() {
    let _watchdog = watchdog(120);
    if !is_alone() {
        let Some(group) = Group::with_limit(96 * MIB) else {
            println!("skipped: no control group can be made here");
            return;
        };
        return Alone::new(&test_name!()).env(GROUP, &group.0).run();
    }
    let group = PathBuf::from(std::env::var_os(GROUP).expect("it was told"));
    fs::write(group.join("cgroup.procs"), std::process::id().to_string()).expect("it may");
    let pool = pool(2, run);
    for round in 0..2 {
        for (greedy, bad) in [(true, Task::Greedy), (false, Task::KilledByOthers)] {
            let results: Vec<_> = pool.map([Task::Easy, bad, Task::Easy]).collect();
            assert!(results[0].is_ok() && results[2].is_ok(), "{results:?}");
            let Err(Fault::WorkerDied { cause, .. }) = results[1].as_ref().map_err(|e| &e.fault) else {
                panic!("{results:?}")
            };
            match cause {
                Cause::OutOfMemory { cgroup: Some(name) } if greedy => {
                    assert!(name.contains("proc-pool-test"), "{name}");
                }
                Cause::Signal { number: 9, .. } if !greedy => {}
                _ => panic!("round {round}: {cause}"),
            }
        }
    }
}
