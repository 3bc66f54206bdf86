//! Leaders that die: their workers end, and nothing is left behind.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout};

use proc_pool::{BoxError, EntryPoint, Worker, WorkerContext};
use serde::{Deserialize, Serialize};

use crate::support::{
    IsolatedTest, TempDir, assert_no_shared_memory_left, builder, ends_within, hang, is_isolated, pids, pool,
    processes_of, shared_memory, test_name, watchdog,
};
#[cfg(target_os = "linux")]
use crate::support::{is_stopped, signal};

/// Prints a line for the test: an event, and pids. Leaders and workers call this.
fn print_event(event: &str, pids: impl IntoIterator<Item = u32>) {
    let pids: Vec<String> = pids.into_iter().map(|pid| pid.to_string()).collect();
    let line = format!("<<{event} {}>>\n", pids.join(" "));
    std::io::stdout()
        .write_all(line.as_bytes())
        .expect("stdout is open");
}

/// Reads until a line has this event, and returns its pids.
fn read_event(stdout: &mut BufReader<ChildStdout>, event: &str) -> Vec<u32> {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(
            stdout.read_line(&mut line).expect("stdout is readable") > 0,
            "the leader ended without the event {event}"
        );
        let pids = line
            .split_once(&format!("<<{event} "))
            .and_then(|(_, rest)| rest.split_once(">>"));
        if let Some((pids, _)) = pids {
            return pids
                .split_whitespace()
                .map(|pid| pid.parse().expect("the event has pids"))
                .collect();
        }
    }
}

/// Starts the leader of this test. Returns it, its output, and its temporary directory.
fn start(test: &str) -> (Child, BufReader<ChildStdout>, TempDir) {
    start_with(IsolatedTest::new(test))
}

fn start_with(leader: IsolatedTest) -> (Child, BufReader<ChildStdout>, TempDir) {
    let (mut leader, tmp) = leader.start();
    let stdout = BufReader::new(leader.stdout.take().expect("stdout is piped"));
    (leader, stdout, tmp)
}

/// Kills the leader, and checks that its workers end and that nothing is left.
fn kill_and_check(mut leader: Child, workers: &[u32], tmp: &TempDir) {
    let shm = shared_memory();
    assert!(workers.iter().all(|pid| !ends_within(&[*pid], 0)));
    leader.kill().expect("the leader runs");
    assert!(ends_within(workers, 2000), "workers outlive their leader");
    leader.wait().expect("the leader can be waited for");
    assert_eq!(tmp.entries(), Vec::<PathBuf>::new());
    assert_no_shared_memory_left(&shm);
}

#[test]
fn workers_end_with_an_idle_leader() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let pool = pool(2, |n: u64| n);
        assert_eq!(pool.map(0..10).count(), 10);
        print_event("idle", pids(&pool));
        hang()
    }
    let (leader, mut stdout, tmp) = start(&test_name!());
    let workers = read_event(&mut stdout, "idle");
    assert_eq!(workers.len(), 2);
    kill_and_check(leader, &workers, &tmp);
}

/// The ops compute without an end, and have workers of their own.
#[test]
fn workers_end_while_they_compute() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let pool = pool(2, |(): ()| {
            let inner = builder(1).build_op(|n: u64| {
                print_event("compute", [std::process::id()]);
                spin(n)
            });
            print_event("compute", [std::process::id()]);
            inner.expect("the pool starts").map([0]).count()
        });
        assert_eq!(pool.map([(); 2]).count(), 2);
        unreachable!("the ops never end")
    }
    let (leader, mut stdout, tmp) = start(&test_name!());
    let workers: Vec<u32> = (0..4).flat_map(|_| read_event(&mut stdout, "compute")).collect();
    assert_eq!(workers.len(), 4);
    kill_and_check(leader, &workers, &tmp);
}

/// On systems other than Linux, a worker receives no signal when its leader dies: it must notice that its connection
/// is closed.
#[cfg(target_os = "linux")]
#[test]
fn workers_end_without_a_signal_of_the_leaders_death() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let pool = pool(2, |(): ()| {
            rustix::process::set_parent_process_death_signal(None).expect("the signal can be switched off");
            print_event("no signal", [std::process::id()]);
            spin(5)
        });
        assert_eq!(pool.map([(); 2]).count(), 2);
        unreachable!("the ops never end")
    }
    let (leader, mut stdout, tmp) = start(&test_name!());
    let workers: Vec<u32> = (0..2)
        .flat_map(|_| read_event(&mut stdout, "no signal"))
        .collect();
    assert_eq!(workers.len(), 2);
    kill_and_check(leader, &workers, &tmp);
}

/// Computes without an end.
fn spin(mut n: u64) -> u64 {
    loop {
        n = std::hint::black_box(n.wrapping_mul(3));
    }
}

/// A worker that reports its start, and never gets ready.
struct NeverReady;

impl Worker for NeverReady {
    type Op = ();
    type Init = ();
    type Task = ();
    type Output = ();

    fn start(_: &mut WorkerContext, (): (), (): ()) -> Result<Self, BoxError> {
        print_event("start", [std::process::id()]);
        hang()
    }

    fn run(&mut self, (): ()) {}
}

#[test]
fn workers_end_while_they_start() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        drop(builder(2).build(EntryPoint::worker::<NeverReady>(()), &()));
        unreachable!("the workers never start")
    }
    let (leader, mut stdout, tmp) = start(&test_name!());
    let workers: Vec<u32> = (0..2).flat_map(|_| read_event(&mut stdout, "start")).collect();
    kill_and_check(leader, &workers, &tmp);
}

/// The worker's process runs, and has not called `init` yet.
#[cfg(target_os = "linux")]
#[test]
fn workers_end_before_they_call_init() {
    let _watchdog = watchdog(60);
    if is_isolated() {
        let builder = builder(1).env(crate::support::before_init::STOP, "1");
        drop(builder.build_op(|n: u64| n));
        unreachable!("the worker never connects")
    }
    let (mut leader, mut stdout, tmp) = start(&test_name!());
    let workers = read_event(&mut stdout, "before");
    while !is_stopped(workers[0]) {
        std::thread::yield_now();
    }
    leader.kill().expect("the leader runs");
    leader.wait().expect("the leader can be waited for");
    // It continues without a leader.
    signal(workers[0], rustix::process::Signal::CONT);
    assert!(ends_within(&workers, 2000));
    assert_eq!(tmp.entries(), Vec::<PathBuf>::new());
}

/// Reports and stops this worker before it calls `init`.
#[cfg(target_os = "linux")]
pub(crate) fn stop_before_init() {
    print_event("before", [std::process::id()]);
    signal(std::process::id(), rustix::process::Signal::STOP);
}

/// The activity of a leader and its workers when the leader dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Activity {
    /// The leader builds one pool after another.
    Spawning,
    Attaching,
    Running,
    Encoding,
    /// Large tasks and outputs are sent.
    SendingLarge,
    /// Workers die and are replaced, one after another.
    Replacing,
    ShuttingDown,
}

const ACTIVITIES: [Activity; 7] = [
    Activity::Spawning,
    Activity::Attaching,
    Activity::Running,
    Activity::Encoding,
    Activity::SendingLarge,
    Activity::Replacing,
    Activity::ShuttingDown,
];

/// The variable with the activity of a leader, one of [`ACTIVITIES`].
const ACTIVITY: &str = "IT_ACTIVITY";

/// Bytes. If the flag is set, encoding them prints an event and has no end.
#[derive(Deserialize)]
struct Bytes(bool, Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 {
            print_event("busy", []);
            spin(3);
        }
        (self.0, &self.1).serialize(to)
    }
}

struct Busy(Activity);

impl Worker for Busy {
    type Op = ();
    type Init = Activity;
    type Task = Vec<u8>;
    type Output = Bytes;

    fn start(_: &mut WorkerContext, (): (), activity: Activity) -> Result<Self, BoxError> {
        if activity == Activity::Attaching {
            print_event("busy", []);
            spin(3);
        }
        Ok(Self(activity))
    }

    fn run(&mut self, task: Vec<u8>) -> Bytes {
        match self.0 {
            Activity::ShuttingDown if task.is_empty() => {}
            Activity::Running | Activity::ShuttingDown => {
                print_event("busy", []);
                spin(3);
            }
            Activity::Replacing => {
                print_event("busy", []);
                std::process::exit(1)
            }
            Activity::SendingLarge => print_event("busy", []),
            Activity::Spawning | Activity::Attaching | Activity::Encoding => {}
        }
        Bytes(self.0 == Activity::Encoding, task)
    }
}

/// Does this until the leader is killed.
fn lead(activity: Activity) -> ! {
    let build = || builder(2).build(EntryPoint::worker::<Busy>(()), &activity);
    if activity == Activity::Spawning {
        loop {
            drop(build().expect("the pool starts"));
            print_event("busy", []);
        }
    }
    let pool = build().expect("the pool starts");
    let tasks = std::iter::repeat(vec![
        1;
        if activity == Activity::SendingLarge {
            3 << 20
        } else {
            10
        }
    ]);
    if activity == Activity::ShuttingDown {
        // One task ends, the other one keeps its worker busy.
        let _running = pool.submit(vec![1]);
        assert!(pool.submit(vec![]).wait().is_ok());
        print_event("busy", []);
        let _ = pool.shutdown(std::time::Duration::from_secs(100));
        unreachable!("the worker never exits")
    }
    pool.map_unordered(tasks).for_each(drop);
    unreachable!("tasks never end")
}

/// How a leader ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Killed,
    /// By SIGABRT, which only Unix has.
    #[cfg(unix)]
    Aborted,
}

const DEATHS: &[Death] = &[
    Death::Killed,
    #[cfg(unix)]
    Death::Aborted,
];

impl Death {
    fn inflict(self, leader: &mut Child) {
        match self {
            Self::Killed => leader.kill().expect("the leader runs"),
            #[cfg(unix)]
            Self::Aborted => {
                let pid = rustix::process::Pid::from_child(leader);
                rustix::process::kill_process(pid, rustix::process::Signal::ABORT).expect("the leader runs");
            }
        }
    }
}

/// The leader is killed or aborted during each activity, at moments that differ a little.
#[test]
fn workers_end_whatever_they_and_the_leader_do() {
    // On other systems processes take long to start.
    let _watchdog = watchdog(if cfg!(target_os = "linux") { 200 } else { 900 });
    if is_isolated() {
        let activity = std::env::var(ACTIVITY).expect("the test sets the activity");
        let activity = ACTIVITIES.into_iter().find(|it| format!("{it:?}") == activity);
        lead(activity.expect("the activity exists"))
    }
    for (activity, death) in ACTIVITIES
        .into_iter()
        .flat_map(|activity| DEATHS.iter().map(move |death| (activity, *death)))
    {
        // After how many events the leader dies: two workers hang after one event each, other activities go on.
        let moments: &[usize] = match activity {
            Activity::Spawning | Activity::SendingLarge | Activity::Replacing => &[1, 4],
            _ => &[2],
        };
        for &moment in moments {
            let leader = IsolatedTest::new(&test_name!()).env(ACTIVITY, format!("{activity:?}"));
            let (mut leader, mut stdout, tmp) = start_with(leader);
            for _ in 0..moment {
                read_event(&mut stdout, "busy");
            }
            let shm = shared_memory();
            death.inflict(&mut leader);
            leader.wait().expect("the leader can be waited for");
            let workers = processes_of(&leader, &tmp);
            let starts = matches!(activity, Activity::Spawning | Activity::Replacing);
            // On Windows, a worker that was just started is in no job yet, and finds out in `init`.
            let ms = if starts && cfg!(windows) { 30_000 } else { 2000 };
            assert!(
                ends_within(&workers, ms),
                "{activity:?}, {death:?}: workers outlive their leader"
            );
            assert_eq!(tmp.entries(), Vec::<PathBuf>::new(), "{activity:?}, {death:?}");
            assert_no_shared_memory_left(&shm);
        }
    }
}
