//! A pool of 2 that is ready, against 2 processes that answer one byte.

use std::io::Read;
use std::time::Instant;

use crate::child::Part;
use crate::report::{Report, Target, span};
use crate::rounds::Samples;
use crate::{Effort, Failure, WORKERS, null};

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    const HELD: usize = 2 << 30;
    report.heading("Start: a pool of 2 ready, against 2 processes of the same program that answer one byte");
    one("the leader is small", effort, report)?;
    // Not zero, so that every page is touched.
    let held = vec![1_u8; HELD];
    one("the leader holds 2 GiB", effort, report)?;
    std::hint::black_box(held);
    Ok(())
}

fn one(name: &str, effort: Effort, report: &mut Report) -> Result<(), Failure> {
    let (mut pools, mut processes) = (Samples::new(), Samples::new());
    for _ in 0..effort.repeats {
        let begun = Instant::now();
        let mut parts = Vec::new();
        for _ in 0..WORKERS {
            parts.push(Part::start(&["byte"])?);
        }
        for part in &mut parts {
            part.output.read_exact(&mut [0])?;
        }
        processes.push(begun.elapsed().as_nanos() as f64);
        drop(parts);
        let begun = Instant::now();
        let pool = null::pool(WORKERS)?;
        pools.push(begun.elapsed().as_nanos() as f64);
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
