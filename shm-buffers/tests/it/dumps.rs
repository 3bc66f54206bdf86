//! Core dumps contain segments only on request.
#![cfg(target_os = "linux")]

use std::error::Error;

use shm_buffers::{Backing, Buffer, BufferMut, CoreDump, Image, Segment, SegmentMut, share};

use crate::mapped;

/// Returns whether the kernel excludes the mapping of these bytes from core dumps: the flag `dd` of proc_pid_smaps(5).
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
fn core_dumps_exclude_segments() -> Result<(), Box<dyn Error>> {
    assert!(!is_excluded(&vec![1; 1 << 20])?, "the heap is not a segment");
    let dir = tempfile::tempdir()?;
    for backing in [
        Backing::Anonymous,
        Backing::HugePages,
        Backing::Named,
        Backing::File(dir.path().to_owned()),
    ] {
        let mut segment = SegmentMut::create(&backing, 100_000)?;
        assert!(is_excluded(&segment)?, "{backing:?}");
        segment.resize(5_000_000)?;
        assert!(is_excluded(&segment)?, "{backing:?}, grown");
        let frozen = segment.freeze()?;
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
fn core_dumps_exclude_mapped_files() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    share(&Buffer::from(vec![1.0f32; 100_000]), &Backing::Auto)?.save(&path)?;
    let opened = mapped::open(&path)?;
    assert!(is_excluded(opened.segment())?);
    assert!(is_excluded(Image::attach(&opened.handle()?)?.segment())?);
    Ok(())
}

#[test]
fn core_dumps_include_a_segment_on_request() -> Result<(), Box<dyn Error>> {
    let segment = SegmentMut::create(&Backing::Auto, 100_000)?.freeze()?;
    let attached = Segment::attach(&segment.handle()?)?;
    segment.core_dump(CoreDump::Include)?;
    assert!(!is_excluded(&segment)?);
    assert!(is_excluded(&attached)?, "each mapping has its own flag");
    segment.core_dump(CoreDump::Exclude)?;
    assert!(is_excluded(&segment)?);
    Ok(())
}
