//! A buffer is used as a slice or a `Vec` is: compared, converted, serialized and cast.

use std::collections::{BTreeSet, HashSet};
use std::error::Error;
use std::io::Write;

use shm_buffers::bytemuck::{Pod, Zeroable};
use shm_buffers::{AlignedBytes, Backing, Buffer, CastError, share, share_move};

/// A struct without serde.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable)]
#[bytemuck(crate = "shm_buffers::bytemuck")]
#[repr(C)]
struct Point {
    x: f32,
    id: u32,
}

fn points() -> Buffer<Point> {
    (0..50)
        .map(|id| Point {
            x: id as f32 / 3.0,
            id,
        })
        .collect()
}

#[test]
fn a_buffer_equals_every_array_of_the_same_elements() {
    let array = [1_u16, 2, 3];
    let buffers: [Buffer<u16>; 5] = [
        array.into(),
        array[..].into(),
        array.to_vec().into(),
        array.to_vec().into_boxed_slice().into(),
        array.into_iter().collect(),
    ];
    for buffer in &buffers {
        let slice: &[u16] = &array;
        assert_eq!(*buffer, array);
        assert_eq!(array, *buffer);
        assert_eq!(*buffer, *slice);
        assert_eq!(*slice, *buffer);
        assert_eq!(*buffer, slice);
        assert_eq!(slice, *buffer);
        assert_eq!(*buffer, array.to_vec());
        assert_eq!(array.to_vec(), *buffer);
        assert!(*buffer == buffers[0] && *buffer != [1, 2]);
        assert_eq!(AsRef::<[u16]>::as_ref(buffer), array);
        assert_eq!(buffer.into_iter().sum::<u16>(), 6);
    }
}

#[test]
fn buffers_are_hashed_and_ordered_as_slices() {
    let [low, high]: [Buffer<u8>; 2] = [[1, 9].into(), [2].into()];
    let set: HashSet<Buffer<u8>> = [low.clone(), high.clone(), low.clone()].into();
    assert_eq!(set.len(), 2);
    assert!(set.contains(&[1, 9][..]) && !set.contains(&[1][..]));
    let ordered: BTreeSet<Buffer<u8>> = [high.clone(), low.clone()].into();
    assert!(ordered.iter().eq([&low, &high]));
    assert!(ordered.contains(&[2][..]) && !ordered.contains(&[1, 10][..]));
    let numbers: [Buffer<f32>; 2] = [[f32::NAN].into(), [1.0].into()];
    assert_eq!(numbers[0].partial_cmp(&numbers[1]), None);
}

#[test]
fn a_boxed_slice_is_taken_over_without_a_copy() {
    let boxed = vec![1_u64; 1000].into_boxed_slice();
    let start = boxed.as_ptr();
    assert_eq!(Buffer::from(boxed).as_ptr(), start);
}

#[test]
fn elements_without_serde_are_shared_and_serialized() -> Result<(), Box<dyn Error>> {
    let wide: Buffer<[f32; 64]> = (0..9).map(|i| [i as f32; 64]).collect();
    let model = (points(), wide.clone());
    let image = share(&model, &Backing::Auto)?;
    let theirs: (Buffer<Point>, Buffer<[f32; 64]>) = image.load()?;
    assert_eq!(theirs, model);
    assert_eq!(image.tensors()?.get("1").ok_or("no tensor")?.shape(), [9, 256]);

    // On their own, in a format of text and in a binary one.
    let text = serde_json::to_string(&points().slice(..1))?;
    assert_eq!(text, r#"{"element_bytes":8,"bytes":[0,0,0,0,0,0,0,0]}"#);
    let text = serde_json::to_string(&points())?;
    assert_eq!(serde_json::from_str::<Buffer<Point>>(&text)?, points());
    let bytes = postcard::to_stdvec(&wide)?;
    assert!(bytes.len() < size_of_val(&wide[..]) + 8);
    assert_eq!(postcard::from_bytes::<Buffer<[f32; 64]>>(&bytes)?, wide);
    Ok(())
}

#[test]
fn numbers_on_their_own_are_a_sequence() -> Result<(), Box<dyn Error>> {
    fn check<T>(buffer: Buffer<T>, text: &str) -> Result<(), Box<dyn Error>>
    where
        T: Pod + Send + Sync + PartialEq + std::fmt::Debug,
    {
        assert_eq!(serde_json::to_string(&buffer)?, text);
        assert_eq!(serde_json::from_str::<Buffer<T>>(text)?, buffer);
        let bytes = postcard::to_stdvec(&buffer)?;
        assert_eq!(postcard::from_bytes::<Buffer<T>>(&bytes)?, buffer);
        Ok(())
    }
    check::<u8>([1, 2].into(), "[1,2]")?;
    check::<i64>([-1, i64::MAX].into(), "[-1,9223372036854775807]")?;
    check::<u128>([1, 1 << 70].into(), "[1,1180591620717411303424]")?;
    check::<usize>([7].into(), "[7]")?;
    check::<f32>([0.5].into(), "[0.5]")?;
    check::<f64>(Buffer::default(), "[]")
}

#[test]
fn other_elements_than_the_serialized_ones_are_refused() -> Result<(), Box<dyn Error>> {
    let text = serde_json::to_string(&points())?;
    let error = serde_json::from_str::<Buffer<[u8; 7]>>(&text).expect_err("another size");
    assert!(error.to_string().contains("elements of 8 bytes"), "{error}");
    let torn = r#"{"element_bytes":8,"bytes":[1,2,3]}"#;
    let error = serde_json::from_str::<Buffer<Point>>(torn).expect_err("not whole");
    assert!(error.to_string().contains("3 bytes"), "{error}");
    Ok(())
}

#[test]
fn a_cast_keeps_the_memory_and_checks_it() -> Result<(), Box<dyn Error>> {
    let points = points();
    let words: Buffer<u32> = points.cast()?;
    assert_eq!(words.as_ptr().addr(), points.as_ptr().addr());
    assert_eq!((words.len(), words[3]), (100, 1));
    assert_eq!(words.cast::<Point>()?, points);
    let size = words.slice(1..).cast::<Point>().expect_err("99 words");
    assert!(
        matches!(
            &size,
            CastError::Size {
                bytes: 396,
                size: 8,
                ..
            }
        ),
        "{size}"
    );
    let bytes = words.cast::<u8>()?;
    let misaligned = bytes.slice(1..5).cast::<u32>().expect_err("an odd address");
    assert!(
        matches!(&misaligned, CastError::Misaligned { align: 4, .. }),
        "{misaligned}"
    );

    // The memory of a cast buffer is moved as any other.
    let image = share_move(words, &Backing::Auto)?;
    let theirs: Buffer<u32> = image.load()?;
    assert_eq!(theirs.cast::<Point>()?, points);
    Ok(())
}

#[test]
fn aligned_bytes_grow_shrink_and_become_a_buffer() -> Result<(), Box<dyn Error>> {
    let mut bytes = AlignedBytes::with_capacity(10);
    let mut expected = Vec::new();
    for len in [0, 1, 63, 64, 65, 300] {
        let part: Vec<u8> = (1..=len).map(|i| i as u8).collect();
        bytes.write_all(&part)?;
        expected.extend(&part);
        assert_eq!(bytes[..], expected);
    }
    for len in [100, 70, 500, 64, 200, 0, 90] {
        bytes.resize(len);
        expected.resize(len, 0);
        assert_eq!(bytes[..], expected, "{len}");
    }
    bytes[7] = 9;
    let start = bytes.as_ptr();
    let buffer = Buffer::from(bytes.clone());
    assert_eq!((buffer.len(), buffer[7]), (90, 9));
    let buffer = Buffer::from(bytes);
    assert_eq!(buffer.as_ptr(), start, "no copy");
    assert!(start.addr().is_multiple_of(shm_buffers::MAX_ALIGN));
    assert_eq!(Buffer::from(AlignedBytes::zeroed(3)), [0; 3]);
    assert!(Buffer::from(AlignedBytes::new()).is_empty());
    Ok(())
}

#[cfg(feature = "bytes")]
#[test]
fn bytes_and_buffers_share_their_memory() -> Result<(), Box<dyn Error>> {
    use bytes::Bytes;
    let image = share(&Buffer::from(vec![7_u8; 1000]), &Backing::Auto)?;
    let buffer: Buffer<u8> = image.load()?;
    drop(image);
    let start = buffer.as_ptr();
    let bytes = Bytes::from(buffer);
    assert_eq!((bytes.as_ptr(), &bytes[..3]), (start, &[7; 3][..]));
    let part = bytes.slice(10..20);
    let buffer = Buffer::from(part);
    drop(bytes);
    assert_eq!(buffer.as_ptr().addr(), start.addr() + 10);
    assert_eq!(buffer, [7; 10]);
    // Memory that other `Bytes` may share is copied, not moved.
    let bytes = Bytes::from(vec![5_u8; 9000]);
    let moved: Buffer<u8> = share_move(Buffer::from(bytes.clone()), &Backing::Auto)?.load()?;
    assert!(moved[..] == bytes[..]);
    assert!(bytes.iter().all(|byte| *byte == 5));
    Ok(())
}
