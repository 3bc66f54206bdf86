//! Buffers of mapped files as fields of a model: `.npy`, safetensors and a model image, and a part of one of them.
//!
//! One copy: the pages of the files. Neither the leader nor a worker copies them, wherever in the model the buffers are.
#![allow(
    unsafe_code,
    reason = "mapping a file is unsafe: nothing may change it meanwhile"
)]

use cookbook::{Copies, Random, measure, scaled, workers};
use invoker::{Backing, BoxError, Buffer, Image, Invoker, bytemuck, share};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Model {
    name: String,
    npy: Buffer<f32>,
    tensors: Buffer<f32>,
    image: Buffer<f32>,
    last: Buffer<f32>,
}

/// Returns the sum of every hundredth element from `start` on, over all files.
fn sum(model: &Model, start: usize) -> f64 {
    let buffers = [&model.npy, &model.tensors, &model.image, &model.last];
    let elements = buffers
        .into_iter()
        .flat_map(|buffer| buffer.iter().skip(start).step_by(100));
    elements.copied().map(f64::from).sum()
}

/// Returns the bytes of a NumPy file of format 1.0: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
fn npy(elements: &[f32]) -> Vec<u8> {
    let header = format!(
        "{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}",
        elements.len()
    );
    // The data is aligned to 64 bytes; 10 bytes come before the header, and a newline ends it.
    let header = format!(
        "{header:<width$}\n",
        width = (header.len() + 11).next_multiple_of(64) - 11
    );
    let len = (header.len() as u16).to_le_bytes();
    [
        b"\x93NUMPY\x01\x00",
        &len[..],
        header.as_bytes(),
        bytemuck::cast_slice(elements),
    ]
    .concat()
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(15);
    let mut elements = || -> Vec<f32> { (0..scaled(8_000_000)).map(|_| random.below(99) as f32).collect() };
    let files = [elements(), elements(), elements()];
    let bytes: usize = files.iter().map(|file| size_of_val(&**file)).sum();
    let last = files[2].len() / 2;
    let expected: Vec<f64> = (0..100)
        .map(|start| {
            let all = files.iter().map(Vec::as_slice).chain([&files[2][last..]]);
            let every = all.flat_map(|file| file.iter().skip(start).step_by(100));
            every.copied().map(f64::from).sum()
        })
        .collect();

    let dir = tempfile::tempdir()?;
    let path = |name| dir.path().join(name);
    let [first, second, third] = files;
    std::fs::write(path("first.npy"), npy(&first))?;
    share(&Buffer::from(second), &Backing::Auto)?.save(path("second.safetensors"))?;
    share(&Buffer::from(third), &Backing::Auto)?.save(path("third.image"))?;
    drop(first);

    // SAFETY: the files are in a directory of this program, and nothing changes them.
    let npy = unsafe { shm_buffers::open_npy(path("first.npy"))? };
    // SAFETY: as above.
    let tensors = unsafe { shm_buffers::open_safetensors(path("second.safetensors"))? };
    // SAFETY: as above.
    let image = unsafe { Image::open(path("third.image"))? };
    let image: Buffer<f32> = image.load()?;
    let model = Model {
        name: "of three files".to_owned(),
        npy: npy.buffer()?,
        tensors: tensors.buffer("buffer")?,
        last: image.slice(last..),
        image,
    };
    let invoker = Invoker::builder(sum).model(model).workers(workers()).build()?;
    let sums: Vec<f64> = invoker.map(0..100).collect::<Result<_, _>>()?;
    assert_eq!(sums, expected);
    let measured = measure("mapped_files", Copies::One, invoker)?;
    assert!(
        measured.mapped >= bytes as u64 && measured.shared < 1 << 20,
        "{measured:?}"
    );
    Ok(())
}
