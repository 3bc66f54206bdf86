//! Leaders that are killed: their workers go with them, and nothing is left behind.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout};

use proc_pool::{BoxError, Builder, Worker, WorkerContext, Workers};
use serde::{Deserialize, Serialize};

use crate::crash::ends_within;
use crate::support::{
    Alone, Dir, assert_left_nothing, hang, is_alone, pool, processes_of, shared_memory, test_name, watchdog,
};

pub(crate) fn say(what: &str, pids: impl IntoIterator<Item = u32>) {
    let pids: Vec<String> = pids.into_iter().map(|pid| pid.to_string()).collect();
    let line = format!("<<{what} {}>>\n", pids.join(" "));
    std::io::stdout()
        .write_all(line.as_bytes())
        .expect("somebody reads");
}

/// Reads until `<<what pids>>`.
pub(crate) fn listen(stdout: &mut BufReader<ChildStdout>, what: &str) -> Vec<u32> {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(
            stdout.read_line(&mut line).expect("it is readable") > 0,
            "it ended without {what}"
        );
        let said = line
            .split_once(&format!("<<{what} "))
            .and_then(|(_, rest)| rest.split_once(">>"));
        if let Some((pids, _)) = said {
            return pids
                .split_whitespace()
                .map(|pid| pid.parse().expect("a pid"))
                .collect();
        }
    }
}

fn kill(mut leader: Child, workers: &[u32], tmp: &Dir) {
    let shm = shared_memory();
    assert!(workers.iter().all(|pid| !ends_within(&[*pid], 0)));
    leader.kill().expect("it lives");
    assert!(ends_within(workers, 2000), "workers outlive their leader");
    leader.wait().expect("it is ours");
    assert_eq!(tmp.entries(), Vec::<PathBuf>::new());
    assert_left_nothing(&shm);
}

#[test]
fn a_leader_killed_idle() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let pool = pool(2, |n: u64| n);
        assert_eq!(pool.map(0..10).count(), 10);
        say("idle", pool.bytes().pids().into_iter().map(|(_, pid)| pid));
        hang()
    }
    let (mut leader, tmp) = Alone::new(&test_name!()).start();
    let mut stdout = BufReader::new(leader.stdout.take().expect("it is piped"));
    let workers = listen(&mut stdout, "idle");
    assert_eq!(workers.len(), 2);
    kill(leader, &workers, &tmp);
}

/// Ops that never look up from their work, with workers of their own.
#[test]
fn a_leader_killed_while_workers_compute() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let pool = pool(2, |(): ()| {
            let inner = Builder::new().workers(Workers::Count(1)).build_op(|n: u64| {
                say("compute", [std::process::id()]);
                spin(n)
            });
            say("compute", [std::process::id()]);
            inner.expect("it starts").map([0]).count()
        });
        assert_eq!(pool.map([(); 2]).count(), 2);
        unreachable!("the ops never end")
    }
    let (mut leader, tmp) = Alone::new(&test_name!()).start();
    let mut stdout = BufReader::new(leader.stdout.take().expect("it is piped"));
    let workers: Vec<u32> = (0..4).flat_map(|_| listen(&mut stdout, "compute")).collect();
    assert_eq!(workers.len(), 4);
    kill(leader, &workers, &tmp);
}

/// What other systems have: no signal comes with the leader's end, so that the channel's closing must do.
#[cfg(target_os = "linux")]
#[test]
fn a_leader_is_missed_without_a_signal_too() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let pool = pool(2, |(): ()| {
            rustix::process::set_parent_process_death_signal(None).expect("it is Linux");
            say("deaf", [std::process::id()]);
            spin(5)
        });
        assert_eq!(pool.map([(); 2]).count(), 2);
        unreachable!("the ops never end")
    }
    let (mut leader, tmp) = Alone::new(&test_name!()).start();
    let mut stdout = BufReader::new(leader.stdout.take().expect("it is piped"));
    let workers: Vec<u32> = (0..2).flat_map(|_| listen(&mut stdout, "deaf")).collect();
    assert_eq!(workers.len(), 2);
    kill(leader, &workers, &tmp);
}

fn spin(mut n: u64) -> u64 {
    loop {
        n = std::hint::black_box(n.wrapping_mul(3));
    }
}

struct NeverReady;

impl Worker for NeverReady {
    type Op = ();
    type Init = ();
    type Task = ();
    type Output = ();

    fn start(_: &mut WorkerContext, (): (), (): ()) -> Result<Self, BoxError> {
        say("start", [std::process::id()]);
        hang()
    }

    fn run(&mut self, (): ()) {}
}

#[test]
fn a_leader_killed_while_workers_start() {
    let _watchdog = watchdog(60);
    if is_alone() {
        drop(
            Builder::new()
                .workers(Workers::Count(2))
                .build::<NeverReady>((), &()),
        );
        unreachable!("the workers never start")
    }
    let (mut leader, tmp) = Alone::new(&test_name!()).start();
    let mut stdout = BufReader::new(leader.stdout.take().expect("it is piped"));
    let workers: Vec<u32> = (0..2).flat_map(|_| listen(&mut stdout, "start")).collect();
    kill(leader, &workers, &tmp);
}

/// The earliest moment: the worker runs, and has not come to `init` yet.
#[cfg(target_os = "linux")]
#[test]
fn a_leader_killed_before_its_workers_connect() {
    let _watchdog = watchdog(60);
    if is_alone() {
        let builder = Builder::new()
            .workers(Workers::Count(1))
            .env("IT_STOP_BEFORE_INIT", "1");
        drop(builder.build_op(|n: u64| n));
        unreachable!("the worker never connects")
    }
    let (mut leader, tmp) = Alone::new(&test_name!()).start();
    let mut stdout = BufReader::new(leader.stdout.take().expect("it is piped"));
    let workers = listen(&mut stdout, "before");
    let stat = format!("/proc/{}/stat", workers[0]);
    while !std::fs::read_to_string(&stat).is_ok_and(|stat| stat.contains(") T ")) {
        std::thread::yield_now();
    }
    leader.kill().expect("it lives");
    leader.wait().expect("it is ours");
    // Nobody's child now; it goes on and finds nobody.
    crate::support::signal(workers[0], rustix::process::Signal::CONT);
    assert!(ends_within(&workers, 2000));
    assert_eq!(tmp.entries(), Vec::<PathBuf>::new());
}

/// For `crash::before_init`.
#[cfg(target_os = "linux")]
pub(crate) fn stop_before_init() {
    say("before", [std::process::id()]);
    crate::support::signal(std::process::id(), rustix::process::Signal::STOP);
}

/// What a leader is doing when it dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Doing {
    /// Workers are started all the time.
    Spawning,
    Attaching,
    Running,
    Encoding,
    /// Large tasks go out and large outputs come in.
    MovingMuch,
    /// Workers die all the time, and are replaced.
    Replacing,
    ShuttingDown,
}

const DOINGS: [Doing; 7] = [
    Doing::Spawning,
    Doing::Attaching,
    Doing::Running,
    Doing::Encoding,
    Doing::MovingMuch,
    Doing::Replacing,
    Doing::ShuttingDown,
];

/// Says so and never ends when it is encoded.
#[derive(Deserialize)]
struct Endless(bool, Vec<u8>);

impl Serialize for Endless {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0 {
            say("at it", []);
            spin(3);
        }
        (self.0, &self.1).serialize(to)
    }
}

struct Busy(Doing);

impl Worker for Busy {
    type Op = ();
    type Init = Doing;
    type Task = Vec<u8>;
    type Output = Endless;

    fn start(_: &mut WorkerContext, (): (), doing: Doing) -> Result<Self, BoxError> {
        if doing == Doing::Attaching {
            say("at it", []);
            spin(3);
        }
        Ok(Self(doing))
    }

    fn run(&mut self, task: Vec<u8>) -> Endless {
        match self.0 {
            Doing::ShuttingDown if task.is_empty() => {}
            Doing::Running | Doing::ShuttingDown => {
                say("at it", []);
                spin(3);
            }
            Doing::Replacing => {
                say("at it", []);
                std::process::exit(1)
            }
            Doing::MovingMuch => say("at it", []),
            Doing::Spawning | Doing::Attaching | Doing::Encoding => {}
        }
        Endless(self.0 == Doing::Encoding, task)
    }
}

fn lead(doing: Doing) -> ! {
    let build = || {
        Builder::new()
            .workers(Workers::Count(2))
            .build::<Busy>((), &doing)
    };
    if doing == Doing::Spawning {
        loop {
            drop(build().expect("it starts"));
            say("at it", []);
        }
    }
    let pool = build().expect("it starts");
    let tasks = std::iter::repeat(vec![1; if doing == Doing::MovingMuch { 3 << 20 } else { 10 }]);
    if doing == Doing::ShuttingDown {
        // One task ends, the other one stays with its worker.
        let _stays = pool.submit(vec![1]);
        assert!(pool.submit(vec![]).wait().is_ok());
        say("at it", []);
        let _ = pool.shutdown(std::time::Duration::from_secs(100));
        unreachable!("the worker never ends")
    }
    pool.map_unordered(tasks).for_each(drop);
    unreachable!("tasks never end")
}

/// How a leader ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blow {
    Killed,
    /// By a signal, which only Unix has.
    #[cfg(unix)]
    Aborted,
}

const BLOWS: &[Blow] = &[
    Blow::Killed,
    #[cfg(unix)]
    Blow::Aborted,
];

impl Blow {
    fn strike(self, leader: &mut Child) {
        match self {
            Self::Killed => leader.kill().expect("it lives"),
            #[cfg(unix)]
            Self::Aborted => {
                let pid = rustix::process::Pid::from_child(leader);
                rustix::process::kill_process(pid, rustix::process::Signal::ABORT).expect("it lives");
            }
        }
    }
}

/// Killed, and aborted, in every phase, at moments that differ a little.
#[test]
fn leaders_that_die_doing_anything() {
    // Elsewhere processes take long to start.
    let _watchdog = watchdog(if cfg!(target_os = "linux") { 200 } else { 900 });
    if is_alone() {
        let doing = std::env::var(DOING).expect("a leader is told what to do");
        let doing = DOINGS.into_iter().find(|it| format!("{it:?}") == doing);
        lead(doing.expect("one of them"))
    }
    for (doing, end) in DOINGS
        .into_iter()
        .flat_map(|doing| BLOWS.iter().map(move |end| (doing, *end)))
    {
        // Who never goes on is one of two; of what goes on for ever, it is an earlier or a later one.
        let moments: &[usize] = match doing {
            Doing::Spawning | Doing::MovingMuch | Doing::Replacing => &[1, 4],
            _ => &[2],
        };
        for &moment in moments {
            let leader = Alone::new(&test_name!()).env(DOING, format!("{doing:?}"));
            let (mut leader, tmp) = leader.start();
            let mut stdout = BufReader::new(leader.stdout.take().expect("it is piped"));
            for _ in 0..moment {
                listen(&mut stdout, "at it");
            }
            let shm = shared_memory();
            end.strike(&mut leader);
            leader.wait().expect("it is ours");
            let workers = processes_of(&leader, &tmp);
            let starts = matches!(doing, Doing::Spawning | Doing::Replacing);
            // On Windows, one that was just started is in no job yet, and has to come to `init` to find out.
            let ms = if starts && cfg!(windows) { 30_000 } else { 2000 };
            assert!(
                ends_within(&workers, ms),
                "{doing:?}, {end:?}: workers outlive their leader"
            );
            let left = tmp.entries();
            // Between the making of a socket's directory and the start of the worker that will remove it, nobody else
            // can: one is left then, by a leader that starts workers.
            assert!(left.len() <= usize::from(starts), "{doing:?}, {end:?}: {left:?}");
            assert_left_nothing(&shm);
        }
    }
}

/// One of [`DOINGS`].
const DOING: &str = "IT_DOING";
