//! Tensors in files of other programs, as buffers.

use std::error::Error;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use shm_buffers::{Backing, Buffer, BufferFileError, Image, LoadOptions, load_npy, load_safetensors, share};
use shm_buffers::{OpenError, Order, Segment, SegmentMut, Tensor, TensorError, Tensors};

use crate::mapped;

fn segment(bytes: &[u8]) -> Result<Segment, Box<dyn Error>> {
    let mut segment = SegmentMut::create(&Backing::Auto, bytes.len())?;
    segment.copy_from_slice(bytes);
    Ok(segment.freeze()?)
}

#[test]
fn tensors_of_other_programs_are_buffers_by_name() -> Result<(), Box<dyn Error>> {
    let floats: Vec<u8> = bytemuck::cast_slice(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).to_vec();
    let halves = [0x00, 0x3c, 0x00, 0xc0];
    let views = [
        ("w", TensorView::new(Dtype::F32, vec![2, 3], &floats)?),
        ("h", TensorView::new(Dtype::F16, vec![2], &halves)?),
        ("mask", TensorView::new(Dtype::BOOL, vec![4], &[0, 1, 1, 0])?),
        ("c", TensorView::new(Dtype::C64, vec![3], &floats)?),
        ("scalar", TensorView::new(Dtype::F32, vec![], &floats[4..8])?),
    ];
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("theirs.safetensors");
    let note = [("format".to_owned(), "pt".to_owned())].into();
    safetensors::serialize_to_file(views, Some(note), &path)?;

    for tensors in [
        mapped::open_safetensors(&path)?,
        load_safetensors(&path, &Backing::Auto)?,
    ] {
        check_tensors(&tensors)?;
    }
    Ok(())
}

fn check_tensors(tensors: &Tensors) -> Result<(), Box<dyn Error>> {
    assert_eq!((tensors.len(), &*tensors.metadata()["format"]), (5, "pt"));
    let w = tensors.get("w").ok_or("no w")?;
    assert_eq!(
        (w.shape(), w.order(), w.dtype()),
        (&[2, 3][..], Order::C, Dtype::F32)
    );
    assert_eq!(w.buffer::<f32>()?[..], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(tensors.buffer::<u16>("h")?[..], [0x3c00, 0xc000]);
    assert_eq!(tensors.buffer::<u8>("mask")?[..], [0, 1, 1, 0]);
    assert_eq!(tensors.buffer::<[f32; 2]>("c")?[1], [3.0, 4.0]);
    assert_eq!(tensors.buffer::<f32>("scalar")?[..], [2.0]);
    assert_eq!(tensors.get("scalar").ok_or("none")?.shape(), [0; 0]);

    let other = tensors.buffer::<f64>("w");
    assert!(
        matches!(
            &other,
            Err(TensorError::Dtype {
                stored: Dtype::F32,
                ..
            })
        ),
        "{other:?}"
    );
    assert!(matches!(
        tensors.buffer::<i32>("w"),
        Err(TensorError::Dtype { .. })
    ));
    let none = tensors.buffer::<f32>("v");
    assert!(
        matches!(&none, Err(TensorError::NotFound { count: 5, .. })),
        "{none:?}"
    );
    Ok(())
}

#[test]
fn a_misaligned_tensor_is_refused_in_place_and_can_be_copied() -> Result<(), Box<dyn Error>> {
    let header = br#"{"b":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"f":{"dtype":"F32","shape":[2],"data_offsets":[1,9]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.push(7);
    bytes.extend_from_slice(bytemuck::cast_slice(&[1.5f32, -2.5]));
    // The floats are the last 8 bytes, so they are misaligned if the length of the file is not a multiple of 4.
    while bytes.len().is_multiple_of(4) {
        bytes.insert(8 + header.len() - 1, b' ');
        let len = u64::from_le_bytes(*bytes.first_chunk().ok_or("empty")?) + 1;
        bytes[..8].copy_from_slice(&len.to_le_bytes());
    }
    let tensors = Tensors::from_segment(&segment(&bytes)?)?;
    let in_place = tensors.buffer::<f32>("f");
    assert!(
        matches!(&in_place, Err(TensorError::Misaligned { align: 4, .. })),
        "{in_place:?}"
    );
    let copy = tensors.get("f").ok_or("no f")?.to_buffer::<f32>()?;
    assert_eq!(copy[..], [1.5, -2.5]);
    Ok(())
}

#[test]
fn a_buffer_of_a_file_is_shared_without_a_copy() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("numbers.npy");
    let numbers: Vec<f64> = (0..100_000).map(f64::from).collect();
    let header = "{'descr': '<f8', 'fortran_order': False, 'shape': (100000,), }";
    std::fs::write(&path, npy(1, header, bytemuck::cast_slice(&numbers)))?;
    for tensor in [load_npy(&path, &Backing::Auto)?, mapped::open_npy(&path)?] {
        let image = share(&tensor.buffer::<f64>()?, &Backing::Auto)?;
        assert!(image.segment().len() < 10_000);
        std::fs::rename(&path, dir.path().join("elsewhere"))?;
        let attached = Image::attach(&image.handle()?);
        let theirs = attached.and_then(|image| image.load::<Buffer<f64>>());
        std::fs::rename(dir.path().join("elsewhere"), &path)?;
        match cfg!(target_os = "linux") {
            true => assert_eq!(theirs?[..], numbers),
            false => drop(theirs),
        }
    }
    Ok(())
}

fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    let prefix = if version == 1 { 10 } else { 12 };
    let len = (prefix + header.len() + 1).next_multiple_of(64) - prefix;
    match version {
        1 => bytes.extend((len as u16).to_le_bytes()),
        _ => bytes.extend((len as u32).to_le_bytes()),
    }
    bytes.extend(format!("{header:<width$}\n", width = len - 1).as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn numpy_arrays_of_all_versions_and_orders_are_loaded() -> Result<(), Box<dyn Error>> {
    let numbers = [1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0];
    let dir = tempfile::tempdir()?;
    for version in 1..=3 {
        for (python, order) in [("False", Order::C), ("True", Order::Fortran)] {
            let header = format!("{{'descr': '<f8', 'fortran_order': {python}, 'shape': (2, 3), }}");
            let path = dir.path().join("numbers.npy");
            std::fs::write(&path, npy(version, &header, bytemuck::cast_slice(&numbers)))?;
            for tensor in [load_npy(&path, &Backing::Auto)?, mapped::open_npy(&path)?] {
                assert_eq!(
                    (tensor.name(), tensor.shape(), tensor.order()),
                    ("numbers", &[2, 3][..], order)
                );
                assert_eq!(tensor.buffer::<f64>()?[..], numbers);
            }
        }
    }
    Ok(())
}

#[test]
fn numpy_arrays_that_a_buffer_cannot_hold_are_refused() -> Result<(), Box<dyn Error>> {
    let read = |version, descr: &str, shape: &str, data: &[u8]| -> Result<_, Box<dyn Error>> {
        let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}");
        Ok(Tensor::from_npy(&segment(&npy(version, &header, data))?, "x"))
    };
    assert!(read(1, "'|u1'", "(4,)", &[0; 4])?.is_ok());
    // Python 2 wrote this form.
    assert_eq!(
        read(1, "'|u1'", "(4L,)", &[0; 4])?.map(|tensor| tensor.shape().to_vec())?,
        [4]
    );
    let big = read(1, "'>f4'", "(1,)", &[0; 4])?;
    assert!(
        matches!(&big, Err(OpenError::BigEndian { descr, .. }) if descr == ">f4"),
        "{big:?}"
    );
    for descr in ["'<U4'", "'|O'", "[('a', '<f4')]", "'<c16'", "''", "'é4'"] {
        let odd = read(3, descr, "(1,)", &[0; 16])?;
        assert!(
            matches!(&odd, Err(OpenError::Unsupported { .. })),
            "{descr}: {odd:?}"
        );
    }
    for (version, shape, data) in [
        (1, "(5,)", 4),
        (1, "(3,)", 4),
        (1, "(4611686018427387904, 4611686018427387904)", 4),
        (9, "(4,)", 4),
    ] {
        let cut = read(version, "'|u1'", shape, &vec![0; data])?;
        assert!(matches!(&cut, Err(OpenError::Format { .. })), "{shape}: {cut:?}");
    }
    Ok(())
}

/// Returns a `.npy` file of these numbers, whose header has `padding` spaces.
fn npy_file(numbers: &[f32], padding: usize) -> Vec<u8> {
    let shape = format!("({}, 2)", numbers.len() / 2);
    let mut head = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    head.push_str(&" ".repeat(padding));
    let len = (head.len() as u16).to_le_bytes();
    let parts: [&[u8]; 4] = [
        b"\x93NUMPY\x01\x00",
        &len,
        head.as_bytes(),
        bytemuck::cast_slice(numbers),
    ];
    parts.concat()
}

#[test]
fn a_file_of_one_array_is_a_buffer() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let numbers: Vec<f32> = (0..1000).map(|i| i as f32 / 7.0).collect();
    let raw = dir.path().join("weights.bin");
    std::fs::write(&raw, bytemuck::cast_slice(&numbers))?;
    // The magic string decides, whatever the name is.
    let (npy, other) = (dir.path().join("weights.npy"), dir.path().join("other"));
    std::fs::write(&npy, npy_file(&numbers, 0))?;
    std::fs::write(&other, npy_file(&numbers, 0))?;
    for path in [raw, npy, other] {
        let loaded = Buffer::<f32>::load(&path)?;
        assert_eq!(loaded, numbers);
        assert!(loaded.segment().is_some(), "no process copies it again");
        match mapped::map::<f32>(&path) {
            Ok(mapped) => assert_eq!(mapped, numbers),
            // The header is as long as NumPy makes it only by accident.
            Err(BufferFileError::Elements {
                source: TensorError::Misaligned { .. },
                ..
            }) => assert!(path.extension().is_none_or(|it| it == "npy")),
            Err(error) => return Err(error.into()),
        }
    }
    // Each remainder of the header's length: loading aligns the elements.
    for padding in 0..4 {
        let path = dir.path().join("padded.npy");
        std::fs::write(&path, npy_file(&numbers, padding))?;
        assert_eq!(Buffer::<f32>::load(&path)?, numbers, "{padding}");
    }
    std::fs::write(dir.path().join("empty"), b"")?;
    assert!(Buffer::<u64>::load(dir.path().join("empty"))?.is_empty());
    Ok(())
}

#[test]
fn a_file_of_other_elements_is_refused() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name);
    std::fs::write(path("torn"), [0; 10])?;
    std::fs::write(path("a.npy"), npy_file(&[1.0, 2.0], 0))?;
    std::fs::write(path("no.npy"), [0; 16])?;
    share(&Buffer::from([1.0_f32]), &Backing::Auto)?.save(path("model.safetensors"))?;
    let load = |name| Buffer::<f32>::load(path(name)).expect_err(name);
    let map = |name| mapped::map::<f32>(path(name)).expect_err(name);
    let limited = LoadOptions::new().max_bytes(15);
    for (error, wanted) in [
        (
            load("torn"),
            "10 bytes, which are no whole elements f32 of 4 bytes",
        ),
        (
            map("torn"),
            "10 bytes, which are no whole elements f32 of 4 bytes",
        ),
        (load("no.npy"), "not a valid npy file"),
        (map("no.npy"), "not a valid npy file"),
        (load("model.safetensors"), "load_safetensors"),
        (map("model.safetensors"), "load_safetensors"),
        (load("missing"), "missing"),
        (
            Buffer::<i32>::load(path("a.npy")).expect_err("other numbers"),
            "a.npy",
        ),
        (
            Buffer::<f32>::load_with(path("a.npy"), &limited).expect_err("too large"),
            "max_bytes",
        ),
    ] {
        shm_buffers::assert_said_once(&error);
        assert!(error.to_string().contains(wanted), "{error}");
    }
    Ok(())
}
