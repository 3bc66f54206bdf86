//! Throughput of null ops: tasks that are nothing but overhead. Peers: rayon, procspawn. Floors: `ipc-channel`, bare pipes,
//! bare rings.

use std::iter;

use proc_pool::{Builder, Pool, Workers};
use rayon::iter::{ParallelBridge, ParallelIterator};

use crate::peers::{self, Ipc, Procspawn};
use crate::pipes::Pipes;
use crate::report::{Report, Target, rate};
use crate::rings::Rings;
use crate::rounds::{Contender, contest};
use crate::{Effort, Failure, WORKERS};

/// The op of all contenders.
pub(crate) fn op(task: u64) -> u64 {
    std::hint::black_box(task)
}

pub(crate) fn pool(workers: usize) -> Result<Pool<u64, u64>, Failure> {
    Ok(Builder::new().workers(Workers::Count(workers)).build_op(op)?)
}

/// Returns the sum of the outputs, or the first error.
pub(crate) fn sum<E: Into<Failure>>(
    mut outputs: impl Iterator<Item = Result<u64, E>>,
) -> Result<u64, Failure> {
    outputs.try_fold(0, |sum, output| Ok(sum + output.map_err(Into::into)?))
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("Null op, u64 to u64, over a lazy iterator, summed");
    let pool = pool(WORKERS)?;
    let threads = peers::rayon()?;
    let (mut ipc, mut pipes, mut rings) = (Ipc::start()?, Pipes::start()?, Rings::start()?);
    let procspawn = Procspawn::start()?;
    let mut contenders = [
        Contender::new("unordered", |tasks| sum(pool.map_unordered(0..tasks))),
        Contender::new("ordered", |tasks| sum(pool.map(0..tasks))),
        Contender::new("rayon par_bridge", |tasks| {
            Ok(threads.install(|| (0..tasks).par_bridge().map(op).sum()))
        }),
        Contender::new("procspawn", |tasks| procspawn.run(0..tasks, op)),
        Contender::new("ipc-channel, unbatched", |tasks| ipc.run(tasks)),
        Contender::new("bare pipes, 256 a batch", |tasks| pipes.run(tasks)),
        Contender::new("bare rings, 256 a batch", |tasks| rings.run(tasks)),
    ];
    let rates = contest(&mut contenders, effort)?;
    let (ours, others) = rates.split_at(2);
    let targets = [
        [
            Target::AtLeast(1.0),
            Target::AtLeast(1000.0),
            Target::None,
            Target::None,
        ],
        [Target::AtLeast(1.0), Target::None, Target::None, Target::None],
    ];
    for ((ours, contender), targets) in ours.iter().zip(&contenders).zip(targets) {
        for ((other, peer), target) in others
            .iter()
            .zip(&contenders[2..])
            .zip(targets.into_iter().chain(iter::repeat(Target::None)))
        {
            report.row(
                contender.name,
                rate(ours.median()),
                (peer.name, rate(other.median())),
                &ours.over(other),
                target,
            );
        }
    }
    Ok(())
}
