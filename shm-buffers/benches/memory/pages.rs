//! Huge pages compared with ordinary ones: filling a segment, and scattered reads after attaching it.

use shm_buffers::{Backing, Pages, Segment, SegmentMut};

use crate::model::{best, timed};
use crate::report::{Ratio, Report, Target, speed};
use crate::{Failure, Size};

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    let mut fills = [Vec::new(), Vec::new()];
    let mut reads = [Vec::new(), Vec::new()];
    let mut pages = Pages::Ordinary;
    for _ in 0..size.rounds {
        for (index, backing) in [Backing::Anonymous, Backing::HugePages].iter().enumerate() {
            let (time, segment) = timed(|| {
                SegmentMut::create(backing, size.bytes).map(|mut segment| {
                    segment.fill(1);
                    segment
                })
            });
            fills[index].push(time);
            let segment = segment?.freeze()?;
            pages = segment.pages().unwrap_or(pages);
            let attached = Segment::attach(&segment.handle()?)?;
            let (time, sum) = timed(|| scattered(&attached));
            std::hint::black_box(sum);
            reads[index].push(time);
        }
    }
    let ratio = Ratio::of_best(&fills[0], &fills[1]);
    let [floor, time] = fills.map(best);
    report.row(
        &format!("fill {pages} pages"),
        speed(size.bytes, time),
        ("ordinary", speed(size.bytes, floor)),
        ratio,
        Target::None,
    );
    let ratio = Ratio::of_best(&reads[0], &reads[1]);
    let [floor, time] = reads.map(best);
    report.row(
        &format!("attached, scattered reads, {pages} pages"),
        format!("{:.1} ns", time * 1e9 / READS as f64),
        ("ordinary", format!("{:.1} ns", floor * 1e9 / READS as f64)),
        ratio,
        Target::None,
    );
    Ok(())
}

const READS: usize = 1 << 20;

/// Reads bytes at pseudorandom offsets, which no prefetcher predicts (a linear congruential generator: Knuth, MMIX).
fn scattered(bytes: &[u8]) -> u64 {
    let mut state = 1_u64;
    let mut sum = 0;
    for _ in 0..READS {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        sum += u64::from(bytes[(state >> 16) as usize % bytes.len()]);
    }
    sum
}
