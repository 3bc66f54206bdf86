//! What holds for an image made of any bytes: it is refused, or it can be used; nothing panics or reads outside.

use std::hint::black_box;

use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, Buffer, Image, Segment, SegmentMut, Tensor, Tensors};

/// A small model with buffers of several widths.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) layers: Vec<Layer>,
    pub(crate) labels: Option<Buffer<u8>>,
    pub(crate) means: Buffer<f64>,
}

/// A part of it.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) weights: Buffer<f32>,
    pub(crate) edges: Buffer<[u32; 3]>,
}

/// The segment that has these bytes.
pub(crate) fn segment(bytes: &[u8]) -> Segment {
    let mut segment = SegmentMut::create(&Backing::Auto, bytes.len()).expect("there is memory for an input");
    segment.copy_from_slice(bytes);
    segment.freeze().expect("a fresh segment can be frozen")
}

/// The model of an image, plain or compressed, if it is one and passes every check.
pub(crate) fn trusted(bytes: &[u8]) -> Option<Model> {
    let image = match bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        true => decoded(bytes)?,
        false => {
            let image = Image::from_segment(segment(bytes));
            image.verify().ok()?;
            image
        }
    };
    image.load().ok()
}

#[cfg(feature = "zstd")]
fn decoded(bytes: &[u8]) -> Option<Image> {
    Image::decode(bytes, &Backing::Auto).ok()
}

#[cfg(not(feature = "zstd"))]
fn decoded(_: &[u8]) -> Option<Image> {
    None
}

/// Uses the bytes as everything that they could be, without asking whether they are intact.
pub(crate) fn used(bytes: &[u8]) {
    let segment = segment(bytes);
    used_as_image(&Image::from_segment(segment.clone()));
    if let Some(image) = decoded(bytes) {
        used_as_image(&image);
    }
    if let Ok(tensor) = Tensor::from_npy(&segment, "input") {
        read(&tensor);
    }
}

fn used_as_image(image: &Image) {
    black_box(image.verify().is_ok());
    if let Ok(model) = image.load::<Model>() {
        black_box(model == model_of_nothing());
    }
    if let Ok(tensors) = Tensors::from_segment(image.segment()) {
        tensors.iter().for_each(read);
    }
}

/// Reads every byte of it, as every type.
fn read(tensor: &Tensor) {
    let sum: u64 = tensor.bytes().iter().map(|byte| u64::from(*byte)).sum();
    let elements = tensor.buffer::<u8>().map_or(0, |b| b.len())
        + tensor
            .buffer::<[u32; 3]>()
            .map_or(0, |b| b.iter().flatten().count())
        + tensor
            .buffer::<u16>()
            .map_or(0, |b| b.iter().filter(|x| **x > 0).count())
        + tensor
            .buffer::<f32>()
            .map_or(0, |b| b.iter().filter(|x| **x > 0.0).count())
        + tensor
            .buffer::<f64>()
            .map_or(0, |b| b.iter().filter(|x| **x > 0.0).count())
        + tensor
            .to_buffer::<i64>()
            .map_or(0, |b| b.iter().filter(|x| **x > 0).count());
    black_box((sum, elements));
}

fn model_of_nothing() -> Model {
    Model {
        name: String::new(),
        layers: Vec::new(),
        labels: None,
        means: Buffer::default(),
    }
}
