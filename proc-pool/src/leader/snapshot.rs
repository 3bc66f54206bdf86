//! [`Snapshot`]: the states and tasks of a pool's workers at one moment. The scheduler fills it in.

use std::fmt;
use std::time::Duration;

use crate::error::WorkerId;
use crate::leader::stats::Stats;

/// The states and tasks of a pool's workers at one moment. Its [`Display`](fmt::Display) is a table with one line per worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Snapshot {
    /// The workers, ordered by index.
    pub workers: Vec<WorkerSnapshot>,
    /// Tasks that wait in the leader for a worker: submitted alone, or taken back from a worker.
    pub backlog: usize,
    /// The pool's counters.
    pub stats: Stats,
}

/// The state and tasks of one worker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerSnapshot {
    /// The worker's index.
    pub worker: WorkerId,
    /// The process id; `None` if there is no process.
    pub pid: Option<u32>,
    /// The state of the worker.
    pub state: WorkerState,
    /// The task in progress.
    pub task: Option<RunningTask>,
    /// Number of tasks that were sent to it and that it has not started.
    pub waiting: usize,
    /// Number of tasks that this process has answered.
    pub done: u64,
    /// Number of processes that this worker had before.
    pub restarts: u32,
    /// Resident memory in bytes, with shared pages in full; `None` where the system does not report it.
    pub memory: Option<u64>,
    /// Time since its process was started.
    pub uptime: Option<Duration>,
}

/// A task in progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunningTask {
    /// The task's position in its own input, as in [`TaskError::task`](crate::TaskError).
    pub task: u64,
    /// How long it has been running, at most: a worker reads the clock about every 20 µs, so the age may include tiny tasks
    /// before it. It includes time during which the worker was stopped.
    pub age: Duration,
}

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// There is no process; one will be started, perhaps after a delay.
    Pending,
    /// Its process is starting.
    Starting,
    /// It has no task.
    Idle,
    /// It is running a task.
    Busy,
    /// It was asked to stop, or is being killed.
    Stopping,
    /// Its process has ended and will not be replaced.
    Ended,
}

impl fmt::Display for WorkerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pending => "pending",
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
            let cells = [
                worker.worker.to_string(),
                or_dash(worker.pid),
                worker.state.to_string(),
                or_dash(worker.task.map(|running| running.task)),
                or_dash(worker.task.map(|running| rounded(running.age))),
                worker.waiting.to_string(),
                worker.done.to_string(),
                worker.restarts.to_string(),
                or_dash(worker.memory.map(shm_buffers::ByteSize)),
                or_dash(worker.uptime.map(rounded)),
            ];
            line(f, cells)?;
        }
        let (stats, backlog) = (self.stats, self.backlog);
        write!(
            f,
            "tasks: {} submitted, {} answered, {} failed, {backlog} waiting for a worker; {} workers died",
            stats.submitted, stats.answered, stats.failed, stats.deaths
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
    fn table_has_a_line_for_each_worker() {
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
            task: Some(RunningTask {
                task: 42,
                age: Duration::from_micros(1240),
            }),
            waiting: 3,
            memory: None,
            ..idle.clone()
        };
        let pending = WorkerSnapshot {
            worker: WorkerId(2),
            pid: None,
            state: WorkerState::Pending,
            done: 0,
            restarts: 7,
            memory: None,
            uptime: None,
            ..idle.clone()
        };
        let mut stats = Stats::default();
        (stats.submitted, stats.answered, stats.deaths) = (9, 5, 7);
        let snapshot = Snapshot {
            workers: vec![idle, busy, pending],
            backlog: 1,
            stats,
        };
        let expected = [
            "worker      pid state          task       age waiting       done restarts      memory        up",
            "     0     4711 idle              -         -       0    1000000        0     2.5 MiB      2.5s",
            "     1     4711 busy             42     1.2ms       3    1000000        0           -      2.5s",
            "     2        - pending           -         -       0          0        7           -         -",
            "tasks: 9 submitted, 5 answered, 0 failed, 1 waiting for a worker; 7 workers died",
        ];
        assert_eq!(snapshot.to_string(), expected.join("\n"));
    }
}
