//! The time until a pool of 2 workers is ready. Floor: the start of 2 processes of the same program that write one byte.

use std::io::Read;
use std::time::Instant;

use crate::child::Part;
use crate::report::{Report, Target, span};
use crate::rounds::Samples;
use crate::{Effort, Failure, WORKERS, null};

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    const LARGE: usize = 2 << 30;
    report.heading("Start: a pool of 2 ready, against 2 processes of the same program that answer one byte");
    measure_with("the leader is small", effort, report)?;
    // Not zero, so that every page is touched.
    let memory = vec![1_u8; LARGE];
    measure_with("the leader holds 2 GiB", effort, report)?;
    std::hint::black_box(memory);
    Ok(())
}

fn measure_with(name: &str, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let (mut pools, mut processes) = (Samples::new(), Samples::new());
    for _ in 0..effort.repeats {
        let started = Instant::now();
        let mut parts = Vec::new();
        for _ in 0..WORKERS {
            parts.push(Part::start(&["byte"])?);
        }
        for part in &mut parts {
            part.output.read_exact(&mut [0])?;
        }
        processes.push(started.elapsed().as_nanos() as f64);
        drop(parts);
        let started = Instant::now();
        let pool = null::pool(WORKERS)?;
        pools.push(started.elapsed().as_nanos() as f64);
        drop(pool);
    }
    report.row(
        name,
        span(pools.median()),
        ("processes", span(processes.median())),
        &pools.over(&processes),
        Target::AtMost(1.5),
    );
    Ok(())
}
