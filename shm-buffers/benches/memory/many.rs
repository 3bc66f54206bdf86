//! The cost of a buffer in a worker, in a model of very many small ones.

use std::io::Write;

use shm_buffers::{Backing, Buffer, Image, SegmentHandle, share};

use crate::child::{LineChild, kib};
use crate::model::{best, timed};
use crate::report::{Report, Target};
use crate::{Failure, Size};

const COUNTS: [(usize, &str); 2] = [(100_000, "100,000"), (1_000_000, "1,000,000")];
/// Bytes of a buffer.
const BYTES: usize = 64;

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    for (count, name) in COUNTS {
        let model: Vec<Buffer<u8>> = (0..count).map(|i| vec![i as u8; BYTES].into()).collect();
        let (time, image) = timed(|| share(&model, &Backing::Auto));
        let image = image?;
        drop(model);
        report.row(
            &format!("share, {name} buffers of {BYTES} bytes, for each"),
            format!("{:.0} ns", time / count as f64 * 1e9),
            ("limit", "2000 ns"),
            time / count as f64 * 1e9 / 2000.0,
            Target::AtMost(1.0),
        );
        let handle = serde_json::to_string(&image.handle()?)?;
        let (mut times, mut private) = (Vec::new(), 0);
        for _ in 0..size.rounds {
            let mut worker = LineChild::spawn("many")?;
            times.push(worker.ask(&handle)? as f64 / count as f64);
            private = worker.ask("")?;
            worker.end()?;
        }
        let time = best(times);
        report.row(
            &format!("attach, {name} buffers, for each"),
            format!("{time:.0} ns"),
            ("limit", "200 ns"),
            time / 200.0,
            Target::AtMost(1.0),
        );
        let private = private as f64 / count as f64;
        report.row(
            &format!("private memory, {name} buffers, for each"),
            format!("{private:.0} B"),
            ("limit", "64 B"),
            private / 64.0,
            Target::AtMost(1.0),
        );
    }
    Ok(())
}

/// Runs a worker: attaches the model whose handle is on the first line, answers with the nanoseconds, and answers the next line
/// with the private memory that the model takes.
pub(crate) fn serve() -> Result<(), Failure> {
    let mut lines = std::io::stdin().lines();
    let handle: SegmentHandle = serde_json::from_str(&lines.next().ok_or("no handle")??)?;
    let before = private()?;
    let (time, model) = timed(|| Image::attach(&handle).and_then(|image| image.load::<Vec<Buffer<u8>>>()));
    let model = model?;
    println!("{}", (time * 1e9) as u64);
    std::io::stdout().flush()?;
    let taken = private()?.saturating_sub(before);
    for line in lines {
        line?;
        println!("{taken}");
    }
    std::hint::black_box(model);
    Ok(())
}

/// Returns the bytes of this process's memory that no other process shares.
fn private() -> Result<u64, Failure> {
    kib("/proc/self/smaps_rollup", "Private_Dirty:")
}
