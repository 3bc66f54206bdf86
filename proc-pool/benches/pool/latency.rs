//! Latency of one task at a time on an idle pool, median and 99th percentile. Floor: a round trip of 8 bytes through bare
//! pipes.

use std::io::{Read, Write};
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use crate::child::Part;
use crate::report::{Report, Target, span};
use crate::rounds::Samples;
use crate::{Effort, Failure, null, os};

/// The processors on which leader and worker run.
#[derive(Debug, Clone, Copy)]
enum Place {
    Anywhere,
    One,
    Two,
    /// Anywhere, while another process keeps each processor busy.
    Busy,
}

/// The pauses between two round trips.
const PAUSES: [(&str, Option<Duration>); 2] = [
    ("back to back", None),
    ("1 ms apart", Some(Duration::from_millis(1))),
];

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("Round trip of one task on an idle pool, median and 99th percentile");
    let processors = os::processors();
    let places = [
        ("unpinned", Place::Anywhere, 0),
        ("both on one CPU", Place::One, 1),
        ("on two CPUs", Place::Two, 2),
        ("unpinned, all CPUs busy", Place::Busy, 1),
    ];
    for (name, place, needs) in places {
        if processors.len() < needs {
            report.skipped(name, "processors cannot be chosen here, or are too few");
            continue;
        }
        // Pinned before the pool is built, because the pool reads how many cores it has.
        match place {
            Place::Anywhere | Place::Busy => {}
            Place::One | Place::Two => os::pin(process::id(), &processors[..needs])?,
        }
        let measured = measure_at(name, place, &processors, effort, report);
        if !processors.is_empty() {
            os::pin(process::id(), &processors)?;
        }
        measured?;
    }
    Ok(())
}

fn measure_at(
    name: &str,
    place: Place,
    processors: &[usize],
    effort: Effort,
    report: &mut Report,
) -> Result<(), Failure> {
    let mut others = Vec::new();
    if let Place::Busy = place {
        for &processor in processors {
            let other = Part::start(&["busy"])?;
            os::pin(other.child.id(), &[processor])?;
            others.push(other);
        }
    }
    let (one, two) = (null::pool(1)?, null::pool(2)?);
    let mut peer = Part::start(&["echo"])?;
    let Part { child, input, output } = &mut peer;
    if let Place::Two = place {
        let workers = [&one, &two].into_iter().flat_map(|pool| pool.bytes().pids());
        for pid in workers.map(|(_, pid)| pid).chain([child.id()]) {
            os::pin(pid, &processors[1..2])?;
        }
        os::pin(process::id(), &processors[..1])?;
    }
    let through = |pool: &proc_pool::Pool<u64, u64>, task| null::sum(pool.map_unordered([task]));
    let mut sides: [Trip<'_>; 3] = [
        Box::new(|task| {
            input.write_all(&task.to_ne_bytes())?;
            let mut response = [0; 8];
            output.read_exact(&mut response)?;
            Ok(u64::from_ne_bytes(response))
        }),
        Box::new(|task| through(&one, task)),
        Box::new(|task| through(&two, task)),
    ];
    for (pause_name, pause) in PAUSES {
        let mut medians = [const { Samples::new() }; 3];
        let mut tails = medians.clone();
        for _ in 0..effort.rounds {
            for (index, trip) in sides.iter_mut().enumerate() {
                let (median, tail) = trips(trip, pause, effort.trips)?;
                medians[index].push(median);
                tails[index].push(tail);
            }
        }
        let times = |index: usize| {
            format!(
                "{} / {}",
                span(medians[index].median()),
                span(tails[index].median())
            )
        };
        let target = match place {
            Place::Anywhere => Target::AtMost(1.5),
            Place::One | Place::Two | Place::Busy => Target::None,
        };
        for (index, workers) in [(1, "1 worker"), (2, "2 workers")] {
            report.row(
                &format!("{name}, {pause_name}, {workers}"),
                times(index),
                ("bare pipes", times(0)),
                &medians[index].over(&medians[0]),
                target,
            );
        }
    }
    Ok(())
}

type Trip<'a> = Box<dyn FnMut(u64) -> Result<u64, Failure> + 'a>;

/// Makes round trips for this duration, and returns their median and 99th percentile in nanoseconds.
fn trips(trip: &mut Trip<'_>, pause: Option<Duration>, duration: Duration) -> Result<(f64, f64), Failure> {
    let mut times = Vec::new();
    let started = Instant::now();
    while started.elapsed() < duration {
        if let Some(pause) = pause {
            thread::sleep(pause);
        }
        let task = times.len() as u64;
        let sent = Instant::now();
        let output = trip(task)?;
        times.push(sent.elapsed().as_nanos() as f64);
        if output != task {
            return Err(format!("the output of {task} is {output}").into());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}
