//! Segments that a process may write for itself, and images of tensors without a model.

use std::error::Error;
use std::fs;

use shm_buffers::{Backing, CopyOnWrite, Dtype, Image, LoadError, SegmentMut, ShareError, TensorWriter};

type TestResult = Result<(), Box<dyn Error>>;

#[test]
fn writes_stay_in_the_mapping_that_made_them() -> TestResult {
    for backing in [Backing::Auto, Backing::File(std::env::temp_dir())] {
        let mut segment = SegmentMut::create(&backing, 10_000)?;
        segment.fill(7);
        let segment = segment.freeze()?;
        let handle = segment.handle()?;
        let mut first = CopyOnWrite::attach(&handle)?;
        let second = CopyOnWrite::attach(&handle)?;
        assert_eq!((first.len(), first[9_999]), (10_000, 7));
        first[0] = 1;
        first[9_999] = 2;
        assert_eq!((first[0], first[9_999]), (1, 2));
        assert!(
            segment.iter().chain(second.iter()).all(|byte| *byte == 7),
            "{backing:?}"
        );
        // The memory outlives the segment's owner.
        drop(segment);
        assert_eq!(second.as_mut_ptr().cast_const(), second.as_ptr());
        assert_eq!(second[5_000], 7);
    }
    Ok(())
}

#[test]
fn tensors_are_saved_and_found_again() -> TestResult {
    let numbers: Vec<u8> = (0..6u16).flat_map(u16::to_le_bytes).collect();
    let mut writer = TensorWriter::new();
    writer.add("empty", Dtype::F64, &[0, 3], &[])?;
    writer.add("numbers", Dtype::U16, &[2, 3], &numbers)?;
    writer.add("odd", Dtype::U8, &[3], b"odd")?;
    let image = writer.write(&Backing::Auto)?;
    assert!(matches!(image.load::<u32>(), Err(LoadError::Format(_))));
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("tensors.safetensors");
    image.save(&path)?;
    assert!(fs::metadata(&path)?.len() < 1024);
    let loaded = Image::load_shared(&path, &Backing::Auto)?;
    loaded.verify()?;
    for tensors in [image.tensors()?, loaded.tensors()?] {
        let names: Vec<&str> = tensors.iter().map(|tensor| tensor.name()).collect();
        assert_eq!(names, ["empty", "numbers", "odd"]);
        let numbers = tensors.get("numbers").ok_or("it was added")?;
        assert_eq!((numbers.dtype(), numbers.shape()), (Dtype::U16, &[2, 3][..]));
        assert_eq!(numbers.buffer::<u16>()?, [0, 1, 2, 3, 4, 5]);
        assert_eq!(tensors.get("odd").ok_or("it was added")?.bytes(), b"odd");
    }
    Ok(())
}

#[test]
fn tensors_that_do_not_fit_their_shape_or_name_are_refused() -> TestResult {
    let mut writer = TensorWriter::new();
    writer.add("a", Dtype::U8, &[1], b"a")?;
    for (name, shape, part) in [
        ("b", &[2][..], "[2] elements"),
        ("b", &[usize::MAX, usize::MAX], "elements"),
        ("a", &[1], "two tensors"),
        ("__metadata__", &[1], "belongs to the format"),
        ("__pad__.0", &[1], "belongs to the format"),
    ] {
        let refused = writer.add(name, Dtype::U8, shape, b"a");
        let Err(ShareError::Layout(reason)) = refused else {
            panic!("{name} {shape:?}: {refused:?}")
        };
        assert!(reason.contains(part), "{reason}");
    }
    Ok(())
}
