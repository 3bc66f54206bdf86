//! Core dumps don't contain segments, unless that is asked for.
#![cfg(target_os = "linux")]

use std::error::Error;

use shm_buffers::{Backing, Buffer, BufferMut, CoreDump, Image, Segment, SegmentMut, share};

use crate::mapped;

/// Whether the kernel leaves the mapping of these bytes out of a core dump: the flag `dd` of proc_pid_smaps(5).
fn is_excluded(bytes: &[u8]) -> Result<bool, Box<dyn Error>> {
    let address = bytes.as_ptr().addr();
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    let mut here = false;
    for line in maps.lines() {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let parsed =
            range.map(|(start, end)| (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16)));
        if let Some((Ok(start), Ok(end))) = parsed {
            here = (start..end).contains(&address);
        }
        if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| here) {
            return Ok(flags.split_whitespace().any(|flag| flag == "dd"));
        }
    }
    Err("no mapping at that address".into())
}

#[test]
fn segments_are_left_out_of_core_dumps() -> Result<(), Box<dyn Error>> {
    assert!(!is_excluded(&vec![1; 1 << 20])?, "the heap is not ours");
    let dir = tempfile::tempdir()?;
    for backing in [
        Backing::Anonymous,
        Backing::HugePages,
        Backing::Named,
        Backing::File(dir.path().to_owned()),
    ] {
        let mut made = SegmentMut::create(&backing, 100_000)?;
        assert!(is_excluded(&made)?, "{backing:?}");
        made.resize(5_000_000)?;
        assert!(is_excluded(&made)?, "{backing:?}, grown");
        let frozen = made.freeze()?;
        assert!(is_excluded(&frozen)?, "{backing:?}, frozen");
        let attached = Segment::attach(&frozen.handle()?)?;
        assert!(is_excluded(&attached)?, "{backing:?}, attached");

        let built = BufferMut::from_fn(&backing, 100_000, |i| i as u64)?.freeze()?;
        let image = share(&built, &backing)?;
        let model: Buffer<u64> = Image::attach(&image.handle()?)?.load()?;
        assert!(is_excluded(bytemuck::cast_slice(&model))?, "{backing:?}, model");
    }
    Ok(())
}

#[test]
fn a_mapped_file_is_left_out_of_core_dumps() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    share(&Buffer::from(vec![1.0f32; 100_000]), &Backing::Auto)?.save(&path)?;
    let opened = mapped::open(&path)?;
    assert!(is_excluded(opened.segment())?);
    assert!(is_excluded(Image::attach(&opened.handle()?)?.segment())?);
    Ok(())
}

#[test]
fn a_segment_is_in_core_dumps_if_that_is_asked_for() -> Result<(), Box<dyn Error>> {
    let segment = SegmentMut::create(&Backing::Auto, 100_000)?.freeze()?;
    let attached = Segment::attach(&segment.handle()?)?;
    segment.core_dump(CoreDump::Include)?;
    assert!(!is_excluded(&segment)?);
    assert!(is_excluded(&attached)?, "each mapping has its own flag");
    segment.core_dump(CoreDump::Exclude)?;
    assert!(is_excluded(&segment)?);
    Ok(())
}
