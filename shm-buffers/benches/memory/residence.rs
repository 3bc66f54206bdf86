//! The memory of a leader and its workers after all of them have read the whole model.

use std::io::BufRead;

use shm_buffers::{Backing, ByteSize, share_move};

use crate::child::{LineChild, proportional};
use crate::model::Model;
use crate::report::{Report, Target};
use crate::{Failure, Size};

/// The numbers of workers.
const WORKERS: [usize; 4] = [1, 2, 4, 8];

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    for workers in WORKERS {
        // Not this process: memory that earlier measures freed may still be resident, and would count as baseline.
        let mut leader = LineChild::spawn(&format!("leader {} {workers}", size.bytes))?;
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
            ByteSize(after),
            ("model + baseline", ByteSize(floor)),
            // The target: 1.02 times the model, besides the processes' own baseline.
            (after.saturating_sub(baseline)) as f64 / size.bytes as f64,
            Target::AtMost(1.02),
        );
    }
    Ok(())
}

/// Runs the leader: answers with the memory of all processes before they have the model, then after all have read it.
pub(crate) fn serve(bytes: usize, workers: usize) -> Result<(), Failure> {
    let mut lines = std::io::stdin().lock().lines();
    let mut workers = (0..workers)
        .map(|_| LineChild::spawn("worker"))
        .collect::<Result<Vec<_>, _>>()?;
    lines.next().ok_or("no line")??;
    // Twice: a process reaches its baseline with the first answer.
    let _ = total_memory(&mut workers, "")?;
    println!("{}", total_memory(&mut workers, "")?);

    lines.next().ok_or("no line")??;
    let image = share_move(Model::on_heap(bytes, 8), &Backing::Auto)?;
    let model: Model = image.load()?;
    std::hint::black_box(model.touch());
    let handle = serde_json::to_string(&image.handle()?)?;
    let _ = total_memory(&mut workers, &handle)?;
    println!("{}", total_memory(&mut workers, "")?);
    workers.into_iter().try_for_each(LineChild::end)
}

/// Sends a line to each worker, and returns the sum of their memory and that of this process.
fn total_memory(workers: &mut [LineChild], line: &str) -> Result<u64, Failure> {
    let mut sum = 0;
    for worker in workers {
        sum += worker.ask(line)?;
    }
    Ok(sum + proportional()?)
}
