//! Segments and buffers that grow, and models that are built in segments.

use std::error::Error;

use shm_buffers::{Backing, Buffer, BufferMut, Image, Segment, SegmentMut};

use crate::backings::{NO_DELETE_PENDING, backings, through_serde, wine_lacks};
use crate::mapped;

#[test]
fn resize_keeps_the_bytes_and_zeroes_new_ones() -> Result<(), Box<dyn Error>> {
    for (backing, kind) in backings() {
        let mut segment = SegmentMut::create(&backing, 3)?;
        segment.copy_from_slice(b"abc");
        let mut expected = b"abc".to_vec();
        for len in [10, 5000, 3_000_000, 100, 4096, 0, 8192, 4_500_000, 7] {
            segment.resize(len)?;
            expected.resize(len, 0);
            assert_eq!((segment.len(), segment.backing()), (len, kind));
            assert!(segment[..] == expected[..], "{backing:?} at {len}");
            if let Some(last) = segment.last_mut() {
                *last = 7;
                expected[len - 1] = 7;
            }
        }
        let segment = segment.freeze()?;
        assert_eq!(&Segment::attach(&segment.handle()?)?[..], &expected[..]);
    }
    Ok(())
}

#[test]
fn failed_growth_leaves_the_elements_unchanged() -> Result<(), Box<dyn Error>> {
    for (backing, _) in backings() {
        let mut buffer = BufferMut::<u32>::new(&backing)?;
        buffer.extend(0..100_000)?;
        let error = buffer.reserve(1 << 48).expect_err("a petabyte");
        assert!(error.to_string().contains("bytes"), "{error}");
        buffer
            .reserve(usize::MAX)
            .expect_err("more than the address space");
        assert!(buffer.iter().copied().eq(0..100_000));
        buffer.push(100_000)?;
        assert!(buffer.freeze()?.iter().copied().eq(0..=100_000));
    }
    Ok(())
}

#[test]
fn a_buffer_is_filled_in_every_way() -> Result<(), Box<dyn Error>> {
    for (backing, kind) in backings() {
        let mut built = BufferMut::from_fn(&backing, 300_001, |i| i as u64)?;
        assert_eq!((built.len(), built.backing()), (300_001, kind));
        built.push(300_001)?;
        built.extend((300_002..400_000).filter(|_| true))?;
        built.extend_from_slice(&(400_000..900_000).collect::<Vec<_>>())?;
        built.truncate(800_000);
        built.extend(800_000..800_010)?;
        built.extend([])?;
        assert!(built.iter().copied().eq(0..800_010));
        built.fill_with(|i| 3 * i as u64);
        built[1] = 1;
        let frozen: Buffer<u64> = built.freeze()?;
        assert_eq!((frozen[0], frozen[1], frozen.len()), (0, 1, 800_010));
        assert!(frozen.iter().enumerate().skip(2).all(|(i, n)| *n == 3 * i as u64));

        // Unused capacity is released.
        let segment = frozen.segment().expect("a segment");
        assert_eq!(segment.len(), 800_010 * 8);
        let theirs = Segment::attach(&segment.handle()?)?;
        let view = Buffer::<u64>::view(&theirs, 8, 2).expect("it lies in the segment");
        assert_eq!(*view, [1, 6]);
        assert!(Buffer::<u64>::view(&theirs, 4, 2).is_none(), "not aligned");
        assert!(Buffer::<u64>::view(&theirs, 0, 800_011).is_none(), "too long");
        assert!(Buffer::<u64>::view(&theirs, usize::MAX, usize::MAX).is_none());
    }
    Ok(())
}

#[test]
fn extend_keeps_the_elements_before_a_panic() -> Result<(), Box<dyn Error>> {
    let mut buffer = BufferMut::<u16>::new(&Backing::Auto)?;
    let interrupted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        buffer.extend((0..10).map(|i| if i == 5 { panic!("at five") } else { i }))
    }));
    assert!(interrupted.is_err());
    assert_eq!(*buffer, [0, 1, 2, 3, 4]);
    assert_eq!(*BufferMut::<u8>::zeroed(&Backing::Auto, 3)?.freeze()?, [0; 3]);
    assert!(BufferMut::<u8>::new(&Backing::Auto)?.freeze()?.is_empty());
    Ok(())
}

#[test]
fn a_slice_shares_the_memory_and_keeps_it_alive() -> Result<(), Box<dyn Error>> {
    let whole = BufferMut::from_fn(&Backing::Auto, 1000, |i| i as u32)?.freeze()?;
    let part = whole.slice(10..20);
    assert!(std::ptr::eq(&*part, &whole[10..20]));
    drop(whole);
    let inner = part.slice(..=1);
    drop(part);
    assert_eq!(*inner, [10, 11]);
    assert!(inner.slice(2..).is_empty());
    assert_eq!(inner.segment().map(|s| s.len()), Some(4000));
    Ok(())
}

/// Moving a slice that is the last reference to a heap buffer must not release memory that is still read.
#[test]
fn share_move_accepts_a_slice_of_a_buffer() -> Result<(), Box<dyn Error>> {
    for range in [0..100_000, 0..50_000, 50_000..100_000, 7..7, 1000..90_000] {
        let part = Buffer::from((0..100_000).collect::<Vec<u32>>()).slice(range.clone());
        let image = shm_buffers::share_move(part, &Backing::Auto)?;
        let moved: Buffer<u32> = image.load()?;
        assert!(moved.iter().copied().eq(range.start as u32..range.end as u32));
    }
    Ok(())
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Built {
    name: String,
    large: Buffer<u64>,
    part: Buffer<u64>,
    odd: Buffer<[u8; 3]>,
    small: Buffer<u64>,
    heap: Buffer<f32>,
}

/// A model that was built in segments is not copied when it is shared or attached; only a saved file contains all of it.
#[test]
fn a_model_built_in_segments_is_shared_without_a_copy() -> Result<(), Box<dyn Error>> {
    let build = |backing: &Backing| -> Result<Built, Box<dyn Error>> {
        let large = BufferMut::from_fn(backing, 100_000, |i| i as u64)?.freeze()?;
        Ok(Built {
            name: "built".to_owned(),
            part: large.slice(50_000..90_000),
            odd: BufferMut::from_fn(backing, 30_000, |i| [i as u8; 3])?.freeze()?,
            small: large.slice(..3),
            large,
            heap: (0..1000).map(|i| i as f32).collect(),
        })
    };
    let dir = tempfile::tempdir()?;
    for (backing, _) in backings() {
        let image = shm_buffers::share(&build(&backing)?, &Backing::Auto)?;
        let bytes = image.segment().len();
        assert!(bytes < 64 << 10, "{backing:?}: {bytes} bytes were copied");
        // The model is dropped: the image keeps its segments alive, for other processes as well.
        let handle = through_serde(&image.handle()?);
        let attached = Image::attach(&handle)?;
        let theirs: Built = attached.load()?;
        assert_eq!(theirs, build(&backing)?);
        assert_eq!(
            theirs.large[50_000..].as_ptr(),
            theirs.part.as_ptr(),
            "one mapping"
        );

        // An attached segment is handed on.
        let again = shm_buffers::share(&theirs, &Backing::Auto)?;
        assert!(
            again.segment().len() < 64 << 10,
            "{backing:?}: attached buffers were copied"
        );
        assert_eq!(again.load::<Built>()?, theirs);

        let path = dir.path().join("built.safetensors");
        image.save(&path)?;
        let opened = mapped::open(&path)?;
        opened.verify()?;
        assert_eq!(opened.load::<Built>()?, theirs);

        drop(image);
        let file = matches!(backing, Backing::File(_));
        assert!(
            attached.load::<Built>().is_err() || (file && wine_lacks(NO_DELETE_PENDING)),
            "{backing:?}: their owner dropped them"
        );
        assert_eq!(theirs, build(&backing)?);
    }
    Ok(())
}

/// A file can't make a reader attach other segments.
#[test]
fn references_to_other_segments_are_refused_in_foreign_bytes() -> Result<(), Box<dyn Error>> {
    let large = BufferMut::from_fn(&Backing::Auto, 100_000, |i| i as u64)?.freeze()?;
    let image = shm_buffers::share(&large, &Backing::Auto)?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), &image.segment()[..])?;
    let copied = Image::from_segment(image.segment().clone());
    let loaded = Image::load_shared(file.path(), &Backing::Auto)?;
    for untrusted in [
        copied,
        Image::attach(&loaded.handle()?)?,
        loaded.clone(),
        mapped::open(file.path())?,
        Image::attach(&mapped::open(file.path())?.handle()?)?,
    ] {
        let error = untrusted.load::<Buffer<u64>>().expect_err("a refused reference");
        assert!(error.to_string().contains("the process that made it"), "{error}");
    }
    Ok(())
}

#[test]
fn byte_len_counts_buffers_in_other_segments_once() -> Result<(), Box<dyn Error>> {
    const LEN: usize = 100_000;
    let built = BufferMut::from_fn(&Backing::Auto, LEN, |i| i as u32)?.freeze()?;
    let heap: Buffer<u32> = (0..LEN as u32).collect();
    let elsewhere = shm_buffers::share(&(built.clone(), built, &heap), &Backing::Auto)?;
    let within = shm_buffers::share(&(&heap, &heap), &Backing::Auto)?;
    let theirs = shm_buffers::Image::attach(&elsewhere.handle()?)?;
    for (image, buffers) in [(elsewhere, 2), (within, 1), (theirs, 2)] {
        let bytes = buffers * 4 * LEN as u64;
        assert!(
            (bytes..bytes + 4096).contains(&image.byte_len()),
            "{}",
            image.byte_len()
        );
    }
    Ok(())
}
