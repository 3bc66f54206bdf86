//! The memory of a leader and its workers that have all read the whole model.

use std::io::BufRead;

use shm_buffers::{Backing, share_move};

use crate::child::{Talker, proportional};
use crate::model::Model;
use crate::report::{Report, Target, mib};
use crate::{Failure, Size};

/// The last is what is promised.
const WORKERS: [usize; 4] = [1, 2, 4, 8];

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    for workers in WORKERS {
        // Not this process: what it freed in earlier measures may still be there, and would be taken for a baseline.
        let mut leader = Talker::spawn(&format!("leader {} {workers}", size.bytes))?;
        let baseline = leader.ask("baseline")?;
        let after = leader.ask("after")?;
        leader.end()?;
        let floor = size.bytes as u64 + baseline;
        let mebi = (1 << 20) as f64;
        let point = |series, y: f64| {
            report.point(
                "Memory of leader and workers that have read the model",
                series,
                "MiB over workers",
                workers,
                y,
            );
        };
        point("sum of PSS", after as f64 / mebi);
        point(
            "a copy in each process",
            ((1 + workers) * size.bytes) as f64 / mebi,
        );
        report.row(
            &format!("leader + {workers} workers: sum of PSS"),
            mib(after),
            ("model + baseline", mib(floor)),
            // The promise: 1.02 x the model, and the processes' own baseline.
            (after.saturating_sub(baseline)) as f64 / size.bytes as f64,
            Target::AtMost(1.02),
        );
    }
    Ok(())
}

/// The leader: answers with the sum of everybody's memory, before the model and after all have read it.
pub(crate) fn serve(bytes: usize, workers: usize) -> Result<(), Failure> {
    let mut lines = std::io::stdin().lock().lines();
    let mut workers = (0..workers)
        .map(|_| Talker::spawn("worker"))
        .collect::<Result<Vec<_>, _>>()?;
    lines.next().ok_or("no line")??;
    // Twice: the first answer is what brings a process to its baseline.
    let _ = everybody(&mut workers, "")?;
    println!("{}", everybody(&mut workers, "")?);

    lines.next().ok_or("no line")??;
    let image = share_move(Model::on_heap(bytes, 8), &Backing::Auto)?;
    let model: Model = image.load()?;
    std::hint::black_box(model.touch());
    let handle = serde_json::to_string(&image.handle()?)?;
    let _ = everybody(&mut workers, &handle)?;
    println!("{}", everybody(&mut workers, "")?);
    workers.into_iter().try_for_each(Talker::end)
}

/// The sum over the workers' answers and this process.
fn everybody(workers: &mut [Talker], line: &str) -> Result<u64, Failure> {
    let mut sum = 0;
    for worker in workers {
        sum += worker.ask(line)?;
    }
    Ok(sum + proportional()?)
}
