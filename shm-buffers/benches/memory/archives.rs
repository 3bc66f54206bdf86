//! The time to attach an archive of rkyv that another process has validated, which must not depend on its size.
#![allow(unsafe_code, reason = "loads what this process has validated")]

use shm_buffers::{Backing, Image, SharedArchive, Validated, share_move};

use crate::model::timed;
use crate::report::{Report, Target};
use crate::rows::median;
use crate::{Failure, Size};

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Numbers {
    numbers: Vec<u64>,
}

/// An archive with the proof that it is valid.
struct Shared {
    image: Image,
    validated: Validated,
}

pub(crate) fn measure(size: Size, report: &mut Report) -> Result<(), Failure> {
    let bytes = 4 * size.bytes;
    let name = format!("attach, archive of {}", shm_buffers::ByteSize(bytes as u64));
    let small = share(8 << 10)?;
    let large = share(bytes)?;
    let (mut smalls, mut larges) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds * 300 {
        smalls.push(attach(&small)?);
        larges.push(attach(&large)?);
    }
    let (floor, time) = (median(smalls), median(larges));
    report.row(
        &name,
        format!("{:.1} us", time * 1e6),
        ("8 KiB", format!("{:.1} us", floor * 1e6)),
        time / floor,
        Target::AtMost(2.0),
    );
    Ok(())
}

fn share(bytes: usize) -> Result<Shared, Failure> {
    let numbers = (0..bytes as u64 / 8).collect();
    let archive = SharedArchive::new(&Numbers { numbers })?;
    let image = share_move(archive, &Backing::Anonymous)?;
    let (_, validated) = image.load_validating::<SharedArchive<Numbers>>()?;
    Ok(Shared { image, validated })
}

/// Returns the seconds to attach an archive and to read its last number.
fn attach(shared: &Shared) -> Result<f64, Failure> {
    let handle = shared.image.handle()?;
    let (time, attached) = timed(|| -> Result<(), Failure> {
        let image = Image::attach(&handle)?;
        let archive = load(&image, &shared.validated)?;
        std::hint::black_box(archive.numbers.last());
        Ok(())
    });
    attached?;
    Ok(time)
}

fn load(image: &Image, validated: &Validated) -> Result<SharedArchive<Numbers>, Failure> {
    // SAFETY: `share` has it from `load_validating` of the same frozen segment.
    let loaded = unsafe { image.load_validated(validated) };
    Ok(loaded?)
}
