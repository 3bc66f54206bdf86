//! `share` compared with memcpy into a new segment of the same backing, on the same number of threads.

use std::thread;

use shm_buffers::{Backing, BufferMut, SegmentMut, share};

use crate::model::{Model, best, timed};
use crate::report::{Ratio, Report, Target, speed};
use crate::{Failure, Size};

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    let model = Model::on_heap(size.bytes, 8);
    let bytes = model.bytes();
    let backings = [
        (Backing::Anonymous, Target::AtLeast(0.9)),
        (Backing::Named, Target::AtLeast(0.9)),
        (Backing::File(std::env::temp_dir()), Target::None),
    ];
    for (backing, target) in backings {
        // Alternating, and the best of each: the load of the host changes from second to second.
        let (mut floors, mut shares) = (Vec::new(), Vec::new());
        for _ in 0..size.rounds {
            let (floor, segment) = timed(|| memcpy(&model, &backing));
            drop(segment?);
            let (time, image) = timed(|| share(&model, &backing));
            drop(image?);
            floors.push(floor);
            shares.push(time);
        }
        let ratio = Ratio::of_best(&floors, &shares);
        let (floor, time) = (best(floors), best(shares));
        report.row(
            &format!("share, 8 arrays, {} memory", name(&backing)),
            speed(bytes, time),
            ("memcpy", speed(bytes, floor)),
            ratio,
            target,
        );
    }
    building(size, report)
}

/// Copies the bytes of the arrays on all cores: the floor.
fn memcpy(model: &Model, backing: &Backing) -> Result<SegmentMut, Failure> {
    let mut segment = SegmentMut::create(backing, model.bytes())?;
    let threads = thread::available_parallelism()?.get();
    let mut rest = &mut segment[..];
    for array in &model.arrays {
        let source: &[u8] = bytemuck::cast_slice(array);
        let target;
        (target, rest) = rest.split_at_mut(source.len());
        let chunk = source.len().div_ceil(threads);
        thread::scope(|scope| {
            for (target, source) in target.chunks_mut(chunk).zip(source.chunks(chunk)) {
                scope.spawn(move || target.copy_from_slice(source));
            }
        });
    }
    Ok(segment)
}

fn name(backing: &Backing) -> &'static str {
    match backing {
        Backing::Named => "named",
        Backing::File(_) => "file",
        _ => "anonymous",
    }
}

/// Measures building an array in a segment, compared with building it on the heap and moving it.
fn building(size: Size, report: &mut Report) -> Result<(), Failure> {
    let len = size.bytes / size_of::<u64>();
    let (mut in_place, mut copied, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..size.rounds {
        let (time, built) = timed(|| -> Result<_, Failure> {
            let mut built = BufferMut::new(&Backing::Anonymous)?;
            built.extend((0..len).map(|i| i as u64))?;
            Ok(share(&built.freeze()?, &Backing::Anonymous)?)
        });
        bytes = built?.segment().len();
        in_place.push(time);
        let (time, image) = timed(|| {
            let mut built = Vec::new();
            built.extend((0..len).map(|i| i as u64));
            shm_buffers::share_move(shm_buffers::Buffer::from(built), &Backing::Anonymous)
        });
        drop(image?);
        copied.push(time);
    }
    let ratio = Ratio::of_best(&copied, &in_place);
    let (time, floor) = (best(in_place), best(copied));
    report.row(
        &format!("build with BufferMut and share ({bytes} B copied)"),
        speed(size.bytes, time),
        ("Vec, move", speed(size.bytes, floor)),
        ratio,
        Target::None,
    );
    Ok(())
}
