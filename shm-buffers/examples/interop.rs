//! The Rust half of `cargo xtask interop`: writes images for Python, and the values of files from Python.
//!
//! - `interop save DIR`: saves a known model as `model.safetensors` and `model.safetensors.zst`.
//! - `interop dump FILE DIR`: loads a safetensors or npy file and writes the values of each tensor, in C order, as
//!   raw little-endian numbers, with their names, types and shapes in `tensors.json`.

use std::error::Error;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use bytemuck::Pod;
use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, Buffer, Image, Order, Tensor, load_npy, load_safetensors, share};

type Failure = Box<dyn Error>;

#[derive(Serialize, Deserialize)]
struct Layer {
    weights: Buffer<f32>,
    edges: Buffer<[u16; 2]>,
}

/// One buffer of each type. The function `expected` of the Python half has the same values.
#[derive(Serialize, Deserialize)]
struct Model {
    name: String,
    layers: Vec<Layer>,
    u8: Buffer<u8>,
    i8: Buffer<i8>,
    i16: Buffer<i16>,
    u32: Buffer<u32>,
    i32: Buffer<i32>,
    u64: Buffer<u64>,
    i64: Buffer<i64>,
    f64: Buffer<f64>,
    empty: Buffer<f32>,
}

fn model() -> Model {
    let layer = |k: usize| Layer {
        weights: (0..1000).map(|i| (i * k) as f32 / 3.0).collect(),
        edges: (0..k as u16).map(|i| [i, i + 1]).collect(),
    };
    Model {
        name: "one of each".into(),
        layers: vec![layer(1), layer(2)],
        u8: (0..=255).collect(),
        i8: (-128..=127).collect(),
        i16: (0..50).map(|i| i * -3).collect(),
        u32: (0..50).map(|i| i * 80_000_000).collect(),
        i32: (0..50).map(|i| i * -40_000_000).collect(),
        u64: (0..50).map(|i| i << 57).collect(),
        i64: (0..50).map(|i| -(i << 56)).collect(),
        f64: (0..50).map(|i| f64::from(i) / 7.0).collect(),
        empty: Buffer::default(),
    }
}

fn save(dir: &Path) -> Result<(), Failure> {
    let image = share(&model(), &Backing::Auto)?;
    let path = dir.join("model.safetensors");
    image.save(&path)?;
    #[cfg(feature = "zstd")]
    image.save_compressed(
        dir.join("model.safetensors.zst"),
        shm_buffers::Compression::default(),
    )?;
    let loaded: Model = Image::load_shared(&path, &Backing::Auto)?.load()?;
    assert_eq!(loaded.name, "one of each");
    Ok(())
}

fn dump(file: &Path, dir: &Path) -> Result<(), Failure> {
    let tensors = match file.extension().is_some_and(|extension| extension == "npy") {
        true => vec![load_npy(file, &Backing::Auto)?],
        false => load_safetensors(file, &Backing::Auto)?.iter().cloned().collect(),
    };
    let mut list = Vec::new();
    for (index, tensor) in tensors.iter().enumerate() {
        fs::write(dir.join(format!("{index}.bin")), values(tensor)?)?;
        list.push((tensor.name(), tensor.dtype().to_string(), tensor.shape()));
    }
    fs::write(dir.join("tensors.json"), serde_json::to_vec(&list)?)?;
    println!("{}: {} tensors", file.display(), tensors.len());
    Ok(())
}

/// Returns the bytes of the elements, read through a typed buffer, in C order.
fn values(tensor: &Tensor) -> Result<Vec<u8>, Failure> {
    Ok(match tensor.dtype().to_string().as_str() {
        "BOOL" | "U8" => in_c_order::<u8>(tensor)?,
        "I8" => in_c_order::<i8>(tensor)?,
        "U16" | "F16" | "BF16" => in_c_order::<u16>(tensor)?,
        "I16" => in_c_order::<i16>(tensor)?,
        "U32" => in_c_order::<u32>(tensor)?,
        "I32" => in_c_order::<i32>(tensor)?,
        "F32" => in_c_order::<f32>(tensor)?,
        "U64" => in_c_order::<u64>(tensor)?,
        "I64" => in_c_order::<i64>(tensor)?,
        "F64" => in_c_order::<f64>(tensor)?,
        "C64" => in_c_order::<[f32; 2]>(tensor)?,
        other => return Err(format!("elements of type {other} are not supported").into()),
    })
}

fn in_c_order<T: Pod + Send + Sync>(tensor: &Tensor) -> Result<Vec<u8>, Failure> {
    let buffer = tensor.buffer::<T>()?;
    let shape = tensor.shape();
    let elements: Vec<T> = match tensor.order() {
        Order::C => buffer.to_vec(),
        Order::Fortran => (0..buffer.len())
            .map(|index| buffer[fortran_index(index, shape)])
            .collect(),
    };
    Ok(bytemuck::cast_slice(&elements).to_vec())
}

/// Converts an element's index in C order to its index in Fortran order.
fn fortran_index(mut index: usize, shape: &[usize]) -> usize {
    let mut coordinates = vec![0; shape.len()];
    for (coordinate, len) in coordinates.iter_mut().zip(shape).rev() {
        *coordinate = index % len;
        index /= len;
    }
    let (mut position, mut stride) = (0, 1);
    for (coordinate, len) in coordinates.iter().zip(shape) {
        position += coordinate * stride;
        stride *= len;
    }
    position
}

fn main() -> Result<(), Failure> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    match args.as_slice() {
        [command, dir] if command == "save" => save(Path::new(dir)),
        [command, file, dir] if command == "dump" => dump(Path::new(file), Path::new(dir)),
        _ => Err("usage: interop save DIR | interop dump FILE DIR".into()),
    }
}
