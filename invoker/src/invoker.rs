//! [`Invoker`]: an op on a model, for many tasks.

use proc_pool::{Memory, TaskError, WorkerId};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::builder::OpBuilder;
use crate::error::Error;
use crate::executor::{Ended, Executor, InProcess, Processes, Threads};
use crate::journal::Journal;
use crate::outputs::{Order, Outputs, Run};
use crate::report::{Logs, MemoryUse, Model, ProcessCounts, Report, Tasks, Times};

/// Runs an op on one model for any number of tasks: `op(&model, task)`.
///
/// ```no_run
/// use invoker::{Buffer, Invoker};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Scores(Buffer<f64>);
///
/// fn score(model: &Scores, item: u32) -> f64 {
///     model.0[item as usize]
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     invoker::init(); // the first line of main
///     let model = Scores(vec![0.5; 1_000_000].into());
///     let invoker = Invoker::builder(score).model(model).build()?;
///     for score in invoker.map(0..1000) {
///         println!("{}", score?);
///     }
///     println!("{}", invoker.finish()?);
///     Ok(())
/// }
/// ```
pub struct Invoker<M, T, R> {
    pub(crate) workers: usize,
    pub(crate) journal: Journal,
    pub(crate) place: Place<M, T, R>,
}

/// Where the ops of an invoker run.
pub(crate) enum Place<M, T, R> {
    Processes(Processes<M, T, R>),
    Threads(Threads<M, T, R>),
    InProcess(InProcess<M, T, R>),
}

impl<M, T, R> std::fmt::Debug for Invoker<M, T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Invoker")
            .field("workers", &self.workers)
            .finish_non_exhaustive()
    }
}

impl<M, T, R> Invoker<M, T, R>
where
    M: Serialize + DeserializeOwned + Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    /// Begins with the op: a plain `fn(&M, T) -> R`, or a closure that captures nothing.
    pub fn builder<F>(op: F) -> OpBuilder<F, M, T, R>
    where
        F: Fn(&M, T) -> R + Copy + Send + Sync + 'static,
    {
        OpBuilder::new(op)
    }

    /// Runs the op for every task and gives the outputs in the tasks' order.
    ///
    /// Tasks are taken from `tasks` as workers have room for them: it may be infinite.
    pub fn map<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, M, T, R, I::IntoIter> {
        self.run(tasks.into_iter(), Order::Ordered)
    }

    /// As [`map`](Self::map), with outputs as they come.
    pub fn map_unordered<I: IntoIterator<Item = T>>(&self, tasks: I) -> Outputs<'_, M, T, R, I::IntoIter> {
        self.run(tasks.into_iter(), Order::AsCompleted)
    }

    fn run<I: Iterator<Item = T>>(&self, tasks: I, order: Order) -> Outputs<'_, M, T, R, I> {
        let hint = tasks.size_hint();
        self.journal.begin(hint.1.filter(|high| *high == hint.0));
        let run = match &self.place {
            Place::Processes(processes) => Run::Processes(match order {
                Order::Ordered => processes.pool.map(tasks),
                Order::AsCompleted => processes.pool.map_unordered(tasks),
            }),
            Place::Threads(threads) => Run::Threads(threads.run(tasks, order)),
            Place::InProcess(caller) => Run::InProcess(caller.run(tasks)),
        };
        Outputs::new(run, &self.journal)
    }

    /// Runs the op for every task, and `use_output` here for every output as it comes.
    pub fn for_each<I: IntoIterator<Item = T>>(
        &self,
        tasks: I,
        use_output: impl FnMut(Result<R, TaskError>),
    ) {
        self.map_unordered(tasks).for_each(use_output);
    }

    /// The model; with worker processes a view of the shared one.
    pub fn model(&self) -> &M {
        match &self.place {
            Place::Processes(processes) => &processes.model,
            Place::Threads(threads) => &threads.model,
            Place::InProcess(caller) => &caller.model,
        }
    }

    /// Number of workers.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// Process ids of the worker processes that are there now.
    pub fn pids(&self) -> Vec<(WorkerId, u32)> {
        match &self.place {
            Place::Processes(processes) => processes.pool.bytes().pids(),
            _ => Vec::new(),
        }
    }

    /// Lets the workers end and tells what everything took. (Dropping an invoker kills them.)
    ///
    /// # Errors
    /// When the workers had failed.
    pub fn finish(self) -> Result<Report, Error> {
        let Self {
            workers,
            journal,
            place,
        } = self;
        let (done, failed) = journal.counts();
        let run = journal.elapsed().as_secs_f64();
        let per_second = if run > 0.0 {
            (done + failed) as f64 / run
        } else {
            0.0
        };
        let own = Memory::of(std::process::id()).and_then(|memory| memory.proportional);
        let mut report = Report {
            executor: Executor::InProcess.name(),
            workers,
            tasks: Tasks {
                done,
                failed,
                per_second,
            },
            times: Times {
                share: 0.0,
                start: 0.0,
                run,
            },
            model: None,
            memory: own.map(|leader_pss| MemoryUse {
                leader_pss,
                workers_pss: Vec::new(),
            }),
            processes: None,
            logs: None,
        };
        match place {
            Place::InProcess(_) => {}
            Place::Threads(_) => report.executor = Executor::Threads.name(),
            Place::Processes(processes) => {
                report.executor = Executor::Processes.name();
                report.times.share = processes.share.as_secs_f64();
                report.times.start = processes.start.as_secs_f64();
                let segment = processes.image.segment();
                report.model = segment.backing().map(|backing| Model {
                    bytes: segment.len() as u64,
                    backing: backing.name(),
                });
                if let Some(memory) = &mut report.memory {
                    let theirs = processes.pool.bytes().memory();
                    memory.workers_pss = theirs.iter().filter_map(|(_, m)| m.proportional).collect();
                }
                let Ended { stats, watch } = processes.end();
                let stats = stats?;
                report.processes = Some(ProcessCounts {
                    spawned: stats.spawned,
                    died: stats.deaths,
                    resent: stats.resent,
                    retried: stats.retried,
                });
                let logs = watch.tally().total();
                report.logs = Some(Logs {
                    emitted: logs.emitted,
                    delivered: logs.delivered,
                    dropped: logs.dropped,
                });
            }
        }
        // Last, so that what workers logged to the end stands above the finished bar.
        journal.close();
        Ok(report)
    }
}
