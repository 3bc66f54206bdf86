//! Images align every buffer, and hold very many of them.

use std::error::Error;

use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, Buffer, Image, inspect, share, share_move};

use crate::mapped;

const ALIGN: usize = shm_buffers::MAX_ALIGN;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Model {
    bytes: Vec<Buffer<u8>>,
    triples: Buffer<[u16; 3]>,
    wide: Buffer<f64>,
}

/// Returns a model of buffers whose lengths are 0, 1, 2, … bytes.
fn model(buffers: usize) -> Model {
    let bytes = |i: usize| (0..i % 100).map(|k| (i + k) as u8).collect();
    Model {
        bytes: (0..buffers).map(bytes).collect(),
        triples: (0..7).map(|i| [i, i + 1, i + 2]).collect(),
        wide: (0..1000).map(f64::from).collect(),
    }
}

#[track_caller]
fn assert_aligned(model: &Model) {
    let starts = model.bytes.iter().map(|it| it.as_ptr().addr());
    let others = [model.triples.as_ptr().addr(), model.wide.as_ptr().addr()];
    assert!(starts.chain(others).all(|start| start.is_multiple_of(ALIGN)));
}

#[test]
fn every_buffer_of_an_image_is_aligned_to_a_cache_line() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    // A model with a tensor for each buffer, and one whose small buffers are packed.
    for buffers in [100, 20_000] {
        let image = share_move(model(buffers), &Backing::Auto)?;
        image.save(&path)?;
        for image in [
            Image::attach(&image.handle()?)?,
            mapped::open(&path)?,
            Image::load_shared(&path, &Backing::Auto)?,
        ] {
            let loaded = image.load::<Model>()?;
            assert_aligned(&loaded);
            assert!(loaded == model(buffers));
        }
    }
    Ok(())
}

#[test]
fn padding_is_no_tensor_of_an_image() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    let image = share(&model(3), &Backing::Auto)?;
    image.save(&path)?;
    let wanted = ["bytes.0", "bytes.1", "bytes.2", "skeleton", "triples", "wide"];
    let mut lists = [
        Vec::from_iter(image.tensors()?.iter().map(|it| it.name().to_owned())),
        Vec::from_iter(
            mapped::open_safetensors(&path)?
                .iter()
                .map(|it| it.name().to_owned()),
        ),
        Vec::from_iter(
            inspect(&path, &Default::default())?
                .tensors()
                .iter()
                .map(|it| it.name().to_owned()),
        ),
    ];
    for list in &mut lists {
        list.sort();
        assert_eq!(*list, wanted);
    }
    // Any reader of the format accepts the file, and sees the padding.
    let file = std::fs::read(&path)?;
    let tensors = safetensors::SafeTensors::deserialize(&file)?;
    let paddings = tensors.iter().filter(|(name, _)| name.starts_with("__pad__."));
    assert_eq!(paddings.count(), 3, "after bytes.1, bytes.2 and triples");
    assert_eq!(tensors.tensor("bytes.2")?.data(), [2, 3]);
    Ok(())
}

#[test]
fn small_buffers_of_a_large_model_are_packed_and_large_ones_are_tensors() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    let image = share(&model(20_000), &Backing::Auto)?;
    let mut names: Vec<String> = image.tensors()?.iter().map(|it| it.name().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["packed", "skeleton", "wide"]);
    assert_eq!(image.tensors()?.buffer::<f64>("wide")?[..], model(0).wide[..]);

    // A model of buffers in another segment is saved with the same names.
    let again = share(&image.load::<Model>()?, &Backing::Auto)?;
    assert!(
        again.segment().len() < image.segment().len() / 2,
        "its buffers stay in the first image"
    );
    assert!(again.load::<Model>()? == model(20_000));
    again.save(&path)?;
    let mut names: Vec<String> = mapped::open_safetensors(&path)?
        .iter()
        .map(|it| it.name().to_owned())
        .collect();
    names.sort();
    assert_eq!(names, ["packed", "skeleton", "wide"]);
    assert!(Image::load_shared(&path, &Backing::Auto)?.load::<Model>()? == model(20_000));
    Ok(())
}

#[test]
fn a_wrong_type_is_reported_with_the_buffer_that_has_it() -> Result<(), Box<dyn Error>> {
    let reason = |buffers| -> Result<String, Box<dyn Error>> {
        let image = share(&model(buffers), &Backing::Auto)?;
        type Other = (Vec<Buffer<u8>>, Buffer<f32>);
        Ok(image.load::<Other>().expect_err("other elements").to_string())
    };
    let few = reason(3)?;
    assert!(few.contains("buffer triples has elements U8 of 6 bytes"), "{few}");
    let many = reason(20_000)?;
    assert!(many.contains("has elements U8 of 6 bytes"), "{many}");
    Ok(())
}
