//! [`Snapshot`]: what a pool's workers are doing now.

use std::fmt;
use std::time::{Duration, Instant};

use crate::driver::Driver;
use crate::error::WorkerId;
use crate::os::Memory;
use crate::stats::Stats;

/// What a pool's workers were doing at one moment. Displayed, it is a table with a line for each worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The workers, by their place.
    pub workers: Vec<WorkerSnapshot>,
    /// Tasks that came back from dead workers and wait for another one.
    pub backlog: usize,
    /// The pool's counts.
    pub stats: Stats,
}

/// What one worker was doing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// Its place in the pool.
    pub worker: WorkerId,
    /// Its process id; `None` when there is no process.
    pub pid: Option<u32>,
    /// How far it is.
    pub state: WorkerState,
    /// The task that it runs.
    pub task: Option<Running>,
    /// Tasks that it has and has not begun.
    pub waiting: usize,
    /// Tasks that this process has answered.
    pub done: u64,
    /// Processes that were in its place before.
    pub restarts: u32,
    /// Resident bytes, shared pages in full, where the system tells.
    pub memory: Option<u64>,
    /// How long ago its process was started.
    pub uptime: Option<Duration>,
}

/// A task in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Running {
    /// Its position in its own input, as in [`TaskError::task`](crate::TaskError).
    pub task: u64,
    /// How long it has been running, at most: a worker reads the clock about every 20 µs, so that an age may
    /// include tiny tasks before. Time during which the worker was stopped counts.
    pub age: Duration,
}

/// How far a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// There is no process; one will be started, perhaps after a pause.
    Due,
    /// Its process starts.
    Starting,
    /// It has nothing to do.
    Idle,
    /// It runs a task.
    Busy,
    /// It was told to end, or is being killed.
    Stopping,
    /// Its process has ended, and there will be no other.
    Ended,
}

impl Snapshot {
    pub(crate) fn of(driver: &Driver) -> Self {
        if driver.check().is_err() {
            return Self::default();
        }
        let mut snapshot = driver.fresh_core().snapshot(Instant::now());
        for worker in &mut snapshot.workers {
            worker.memory = worker.pid.and_then(Memory::resident_of);
        }
        snapshot
    }
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Due => "due",
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
        })
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEAD: [&str; 10] = [
            "worker", "pid", "state", "task", "age", "waiting", "done", "restarts", "memory", "up",
        ];
        line(f, HEAD.map(str::to_owned))?;
        for worker in &self.workers {
            let mib = |bytes| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
            let cells = [
                worker.worker.to_string(),
                or_dash(worker.pid),
                worker.state.to_string(),
                or_dash(worker.task.map(|running| running.task)),
                or_dash(worker.task.map(|running| rounded(running.age))),
                worker.waiting.to_string(),
                worker.done.to_string(),
                worker.restarts.to_string(),
                or_dash(worker.memory.map(mib)),
                or_dash(worker.uptime.map(rounded)),
            ];
            line(f, cells)?;
        }
        let (stats, backlog) = (self.stats, self.backlog);
        write!(
            f,
            "tasks: {} given, {} answered, {} failed, {backlog} waiting for another worker; {} workers died",
            stats.submitted, stats.answered, stats.faulted, stats.deaths
        )
    }
}

fn line(f: &mut fmt::Formatter<'_>, cells: [String; 10]) -> fmt::Result {
    let [worker, pid, state, task, age, waiting, done, restarts, memory, up] = cells;
    writeln!(
        f,
        "{worker:>6} {pid:>8} {state:<8} {task:>10} {age:>9} {waiting:>7} {done:>10} {restarts:>8} {memory:>11} {up:>9}"
    )
}

fn or_dash(value: Option<impl fmt::Display>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn rounded(time: Duration) -> String {
    format!("{time:.1?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_with_a_line_for_each_worker() {
        let idle = WorkerSnapshot {
            worker: WorkerId(0),
            pid: Some(4711),
            state: WorkerState::Idle,
            task: None,
            waiting: 0,
            done: 1_000_000,
            restarts: 0,
            memory: Some(5 << 19),
            uptime: Some(Duration::from_millis(2500)),
        };
        let busy = WorkerSnapshot {
            worker: WorkerId(1),
            state: WorkerState::Busy,
            task: Some(Running {
                task: 42,
                age: Duration::from_micros(1240),
            }),
            waiting: 3,
            memory: None,
            ..idle.clone()
        };
        let due = WorkerSnapshot {
            worker: WorkerId(2),
            pid: None,
            state: WorkerState::Due,
            done: 0,
            restarts: 7,
            memory: None,
            uptime: None,
            ..idle.clone()
        };
        let mut stats = Stats::default();
        (stats.submitted, stats.answered, stats.deaths) = (9, 5, 7);
        let snapshot = Snapshot {
            workers: vec![idle, busy, due],
            backlog: 1,
            stats,
        };
        let expected = [
            "worker      pid state          task       age waiting       done restarts      memory        up",
            "     0     4711 idle              -         -       0    1000000        0     2.5 MiB      2.5s",
            "     1     4711 busy             42     1.2ms       3    1000000        0           -      2.5s",
            "     2        - due               -         -       0          0        7           -         -",
            "tasks: 9 given, 5 answered, 0 failed, 1 waiting for another worker; 7 workers died",
        ];
        assert_eq!(snapshot.to_string(), expected.join("\n"));
    }
}
