//! The time to attach a segment, which must not depend on its size.

use shm_buffers::{Backing, CreateError, Segment, SegmentHandle, SegmentMut};

use crate::model::timed;
use crate::report::{Report, Target};
use crate::rows::median;
use crate::{Failure, Size};

const SMALL: usize = 8 << 10;
/// Sparse: no page is allocated.
const LARGE: usize = 8 << 30;

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    let name = "attach, sparse 8 GiB";
    let small = SegmentMut::create(&Backing::Anonymous, SMALL)?.freeze()?;
    let large = match SegmentMut::create(&Backing::Anonymous, LARGE) {
        Ok(segment) => segment.freeze()?,
        Err(error @ CreateError::NoSpace { .. }) => {
            report.skipped(name, error);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let (mut smalls, mut larges) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds * 300 {
        smalls.push(attach(&small.handle()?, 7)?);
        larges.push(attach(&large.handle()?, LARGE - 1)?);
    }
    let (floor, time) = (median(smalls), median(larges));
    report.row(
        name,
        format!("{:.1} us", time * 1e6),
        ("8 KiB", format!("{:.1} us", floor * 1e6)),
        time / floor,
        Target::AtMost(2.0),
    );
    Ok(())
}

/// Returns the seconds to attach a segment and to read one byte of it.
fn attach(handle: &SegmentHandle, at: usize) -> Result<f64, Failure> {
    let (time, attached) = timed(|| {
        Segment::attach(handle).inspect(|segment| {
            std::hint::black_box(segment[at]);
        })
    });
    attached?;
    Ok(time)
}
