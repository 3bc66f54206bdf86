//! Properties of an image of arbitrary bytes: it is refused or can be used, and no operation panics or reads out of bounds.

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

/// A layer of the model.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Layer {
    pub(crate) weights: Buffer<f32>,
    pub(crate) edges: Buffer<[u32; 3]>,
}

/// Returns a segment with these bytes.
pub(crate) fn segment(bytes: &[u8]) -> Segment {
    let mut segment = SegmentMut::create(&Backing::Auto, bytes.len()).expect("memory for the input");
    segment.copy_from_slice(bytes);
    segment.freeze().expect("a new segment can be frozen")
}

/// Returns the model of an image, plain or compressed, if the bytes are one and pass all checks.
pub(crate) fn load_verified(bytes: &[u8]) -> Option<Model> {
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

/// Uses the bytes in every format that they could have, without comparing checksums.
pub(crate) fn use_unverified(bytes: &[u8]) {
    let segment = segment(bytes);
    use_as_image(&Image::from_segment(segment.clone()));
    if let Some(image) = decoded(bytes) {
        use_as_image(&image);
    }
    if let Ok(tensor) = Tensor::from_npy(&segment, "input") {
        read(&tensor);
    }
}

fn use_as_image(image: &Image) {
    black_box(image.verify().is_ok());
    if let Ok(model) = image.load::<Model>() {
        black_box(model == empty_model());
    }
    if let Ok(tensors) = Tensors::from_segment(image.segment()) {
        tensors.iter().for_each(read);
    }
}

/// Reads every byte of a tensor, as elements of several types.
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

fn empty_model() -> Model {
    Model {
        name: String::new(),
        layers: Vec::new(),
        labels: None,
        means: Buffer::default(),
    }
}
