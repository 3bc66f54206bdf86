//! Models are shared or moved, and loaded.

use std::error::Error;

use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, Buffer, Image, LoadError, share, share_move};

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Edge {
    to: u32,
    weight: f32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Layer {
    weights: Buffer<f32>,
    edges: Buffer<Edge>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Model {
    name: String,
    layers: Vec<Layer>,
    bytes: Option<Buffer<u8>>,
    means: Buffer<f64>,
    same_means: Buffer<f64>,
    empty: Buffer<u16>,
    wide: Buffer<u128>,
}

fn model(size: usize) -> Model {
    let layer = |k: usize| Layer {
        weights: (0..size).map(|i| (i + k) as f32 / 3.0).collect(),
        edges: (0..size / 2)
            .map(|i| Edge {
                to: i as u32,
                weight: k as f32,
            })
            .collect(),
    };
    let means: Buffer<f64> = (0..size).map(|i| i as f64 / 7.0).collect();
    Model {
        name: "ünïcode".into(),
        layers: vec![layer(1), layer(2), layer(3)],
        bytes: Some((0..size * 3 + 1).map(|i| i as u8).collect()),
        same_means: means.clone(),
        means,
        empty: Buffer::default(),
        wide: (0..5).map(|i| 1u128 << (20 * i)).collect(),
    }
}

fn attached<M: serde::de::DeserializeOwned>(image: &Image) -> Result<M, Box<dyn Error>> {
    let handle = serde_json::from_str(&serde_json::to_string(&image.handle()?)?)?;
    Ok(Image::attach(&handle)?.load()?)
}

#[test]
fn shared_and_moved_models_are_restored() -> Result<(), Box<dyn Error>> {
    for size in [0, 1, 1000, 3_000_000] {
        let model = model(size);
        let image = share(&model, &Backing::Auto)?;
        assert!(attached::<Model>(&image)? == model);
        drop(image);

        let image = share_move(self::model(size), &Backing::Auto)?;
        assert!(attached::<Model>(&image)? == model);
    }
    Ok(())
}

#[test]
fn memory_of_several_buffers_is_stored_once() -> Result<(), Box<dyn Error>> {
    let model = model(100_000);
    let image = share(&model, &Backing::Auto)?;
    let theirs: Model = attached(&image)?;
    assert!(std::ptr::eq(&*theirs.means, &*theirs.same_means));
    // Per element: 3 layers of (4 + 4) bytes, 3 of `bytes`, and 8 of the means, which occur twice.
    let expected = 100_000 * (3 * 8 + 3 + 8);
    assert!(
        (expected..expected + 4096).contains(&image.segment().len()),
        "{}",
        image.segment().len()
    );
    Ok(())
}

#[test]
fn share_move_leaves_clones_unchanged() -> Result<(), Box<dyn Error>> {
    let model = model(100_000);
    let kept = model.means.clone();
    let expected = model.clone();
    let only_this = model.layers[0].weights.to_vec();
    let image = share_move(model, &Backing::Auto)?;
    assert!(kept == expected.means);
    assert!(expected.layers[0].weights[..] == only_this);
    assert!(attached::<Model>(&image)? == expected);
    Ok(())
}

#[test]
fn a_loaded_model_can_be_moved_again() -> Result<(), Box<dyn Error>> {
    let first = share_move(model(1000), &Backing::Auto)?;
    let theirs: Model = first.load()?;
    let second = share_move(theirs, &Backing::Auto)?;
    assert!(second.load::<Model>()? == first.load::<Model>()?);
    Ok(())
}

#[test]
fn an_image_is_a_safetensors_file() -> Result<(), Box<dyn Error>> {
    let model = model(10);
    let image = share(&model, &Backing::Auto)?;
    let tensors = safetensors::SafeTensors::deserialize(image.segment())?;
    let means = tensors
        .tensors()
        .into_iter()
        .find(|(_, t)| t.dtype() == safetensors::Dtype::F64)
        .expect("the means")
        .1;
    assert_eq!(means.shape(), [10]);
    assert_eq!(means.data(), bytemuck::cast_slice::<f64, u8>(&model.means));
    Ok(())
}

#[test]
fn loading_another_type_is_refused_with_a_reason() -> Result<(), Box<dyn Error>> {
    #[derive(Debug, Serialize, Deserialize)]
    struct One {
        values: Buffer<f64>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Other {
        values: Buffer<f32>,
    }
    let image = share(
        &One {
            values: vec![1.0].into(),
        },
        &Backing::Auto,
    )?;
    match image.load::<Other>() {
        Err(LoadError::Decode { model, reason }) => {
            assert!(
                model.ends_with("Other") && reason.contains("f32"),
                "{model}: {reason}"
            );
        }
        other => panic!("{other:?}"),
    }
    Ok(())
}

#[test]
fn outside_a_share_a_buffer_is_a_sequence() -> Result<(), Box<dyn Error>> {
    let buffer = Buffer::from(vec![1u16, 2, 3]);
    assert_eq!(serde_json::to_string(&buffer)?, "[1,2,3]");
    assert_eq!(serde_json::from_str::<Buffer<u16>>("[4,5]")?[..], [4, 5]);
    Ok(())
}

#[test]
fn a_panic_during_serialization_leaves_no_scope_behind() -> Result<(), Box<dyn Error>> {
    struct Bomb;
    impl Serialize for Bomb {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("on purpose")
        }
    }
    let caught = std::panic::catch_unwind(|| share(&Bomb, &Backing::Auto).map(drop));
    assert!(caught.is_err());
    outside_a_share_a_buffer_is_a_sequence()
}
