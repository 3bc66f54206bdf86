//! Truncated, corrupted and hostile input: a short, deterministic version of the targets in `fuzz`.

#[path = "../checks/images.rs"]
mod images;
#[path = "../checks/rings.rs"]
mod rings;

use std::error::Error;
use std::fs;
use std::path::Path;

use images::{Layer, Model};
use shm_buffers::{Backing, Image, share};

use crate::mapped;

const CORRUPTIONS: u64 = 10_000;

/// Returns the number of corruptions. `IT_HOSTILE` (set by `cargo xtask hostile`) requests about as many as fit into that many
/// seconds.
fn corruptions() -> u64 {
    let seconds = std::env::var("IT_HOSTILE")
        .ok()
        .and_then(|seconds| seconds.parse::<u64>().ok());
    CORRUPTIONS * (1 + seconds.unwrap_or(0) / 5)
}

fn model() -> Model {
    let layer = |k: u32| Layer {
        weights: (0..20).map(|i| (i * k) as f32 / 3.0).collect(),
        edges: (0..k).map(|i| [i, k, 7]).collect(),
    };
    Model {
        name: "small".into(),
        layers: vec![layer(1), layer(3)],
        labels: Some((0..33).collect()),
        means: (0..9).map(f64::from).collect(),
    }
}

/// Returns the image of `model` as files: plain and, with the feature `zstd`, compressed in one frame and in several.
fn saved(dir: &Path) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    let image = share(&model(), &Backing::Auto)?;
    let path = dir.join("image");
    image.save(&path)?;
    let plain = fs::read(&path)?;
    Ok([vec![plain.clone()], compressed(&image, &path, &plain)?].concat())
}

#[cfg(not(feature = "zstd"))]
fn compressed(_: &Image, _: &Path, _: &[u8]) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    Ok(Vec::new())
}

/// Returns the compressed image in one frame, as `save` writes such a small image, and in several.
#[cfg(feature = "zstd")]
fn compressed(image: &Image, path: &Path, plain: &[u8]) -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
    image.save_compressed(path, shm_buffers::Compression::default())?;
    Ok(vec![fs::read(path)?, in_frames(plain, 500)])
}

/// Returns a seekable file with smaller frames than `save` writes, in the way of the format's own tool.
#[cfg(feature = "zstd")]
fn in_frames(plain: &[u8], frame: usize) -> Vec<u8> {
    let (mut bytes, mut table) = (Vec::new(), Vec::new());
    for plain in plain.chunks(frame) {
        let mut compressor = zstd::bulk::Compressor::new(3).expect("memory for a compressor");
        let checksum = zstd::zstd_safe::CParameter::ChecksumFlag(true);
        compressor.set_parameter(checksum).expect("a known parameter");
        let compressed = compressor.compress(plain).expect("it fits");
        table.extend((compressed.len() as u32).to_le_bytes());
        table.extend((plain.len() as u32).to_le_bytes());
        bytes.extend(compressed);
    }
    bytes.extend(0x184D_2A5E_u32.to_le_bytes());
    bytes.extend((table.len() as u32 + 9).to_le_bytes());
    bytes.extend(&table);
    bytes.extend((table.len() as u32 / 8).to_le_bytes());
    bytes.push(0);
    bytes.extend(0x8F92_EAB1_u32.to_le_bytes());
    bytes
}

/// A deterministic generator (xorshift64*), so that failures are reproducible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
}

/// Corrupts the bytes in one to four ways: changes, inserts, removes, repeats or zeroes some.
fn corrupt(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = (at + 1 + random.below(16)).min(bytes.len());
        match random.below(7) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => bytes.insert(at, random.next() as u8),
            3 => drop(bytes.drain(at..end)),
            4 => bytes[at..end].fill(0),
            5 => {
                let from = random.below(bytes.len() - (end - at) + 1);
                bytes.copy_within(from..from + (end - at), at);
            }
            // Numbers that are likely to break lengths and offsets.
            _ => {
                let numbers = [0, 1, 0x7f, 0xff, u64::from(u32::MAX), u64::MAX, 1 << 63];
                let number = numbers[random.below(numbers.len())].to_le_bytes();
                let width = (1 << random.below(4)).min(bytes.len() - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
        }
        if bytes.is_empty() {
            return;
        }
    }
}

/// The corpus has images that version 0.1 of the crate saved, in format 1.
#[test]
fn images_of_format_1_are_loaded() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/images");
    let kinds: &[&str] = match cfg!(feature = "zstd") {
        true => &["plain-1", "compressed-1", "frames-1"],
        false => &["plain-1"],
    };
    for kind in kinds {
        let bytes = fs::read(corpus.join(kind))?;
        assert_eq!(images::load_verified(&bytes), Some(model()), "{kind}");
    }
    let opened = mapped::open(corpus.join("plain-1"))?;
    let attached = Image::attach(&opened.handle()?)?;
    assert_eq!(attached.load::<Model>()?, model());
    Ok(())
}

/// Another program that writes the tensors again may move them: the table of positions is refused then.
#[test]
fn an_image_with_another_header_is_refused() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let file = saved(dir.path())?.swap_remove(0);
    let at = |text: &[u8]| file.windows(text.len()).position(|window| window == text);
    let refused = |bytes: &[u8]| match Image::from_segment(images::segment(bytes)).load::<Model>() {
        Err(shm_buffers::LoadError::Format(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let mut swapped = file.clone();
    let name = at(b"layers.0.weights").ok_or("no such tensor")?;
    swapped[name + 7] = b'7';
    assert!(refused(&swapped).contains("load_safetensors"));
    let mut reordered = file.clone();
    let key = at(b"\"shm-buffers\":\"2\",\"xxh64\":\"").ok_or("no metadata")?;
    let entries = b"\"xxh64\":\"0000000000000000\",\"shm-buffers\":\"2\"";
    reordered[key..key + entries.len()].copy_from_slice(entries);
    assert_eq!(reordered[key + entries.len()], b'}', "as many bytes");
    assert!(refused(&reordered).contains("another program"));
    Ok(())
}

#[test]
fn every_truncation_is_refused() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("cut");
    for file in saved(dir.path())? {
        assert_eq!(images::load_verified(&file), Some(model()));
        for len in 0..file.len() {
            fs::write(&path, &file[..len])?;
            assert!(
                Image::load_shared(&path, &Backing::Auto).is_err()
                    || Image::load_shared(&path, &Backing::Auto)?
                        .load::<Model>()
                        .is_err(),
                "{len} of {} bytes were loaded",
                file.len()
            );
            let opened = mapped::open(&path);
            assert!(
                opened.map_or(true, |image| image.verify().is_err()
                    && image.load::<Model>().is_err()),
                "{len} of {} bytes were opened",
                file.len()
            );
        }
    }
    Ok(())
}

#[test]
fn every_corruption_is_refused_or_harmless() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    for (kind, file) in saved(dir.path())?.into_iter().enumerate() {
        let mut refused = 0;
        // Only the last file has several frames; the second one gets fewer corruptions.
        let corruptions = if kind == 1 {
            corruptions() / 10
        } else {
            corruptions()
        };
        for seed in 1..=corruptions {
            let mut bytes = file.clone();
            corrupt(&mut bytes, &mut Random(seed));
            match images::load_verified(&bytes) {
                None => refused += 1,
                Some(loaded) => assert!(loaded == model(), "file {kind}, seed {seed}: other data"),
            }
            // Unverified use must not panic either.
            if seed % 10 == 0 {
                images::use_unverified(&bytes);
            }
        }
        // Some corruptions change nothing, or only bits that a decoder ignores.
        assert!(refused > corruptions * 9 / 10, "only {refused} were refused");
    }
    Ok(())
}

#[test]
fn every_flipped_bit_of_a_plain_image_is_found() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let file = saved(dir.path())?.swap_remove(0);
    for bit in 0..file.len() * 8 {
        let mut bytes = file.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(images::load_verified(&bytes), None, "bit {bit}");
    }
    Ok(())
}

#[cfg(feature = "zstd")]
#[test]
fn an_index_that_declares_a_huge_content_is_refused() -> Result<(), Box<dyn Error>> {
    use shm_buffers::{CreateError, LoadOptions, LoadSharedError};
    // The first frame has a header. The others are invalid, so only the index has their sizes.
    let frames = 100_000_u32;
    let mut bytes = zstd::stream::encode_all(&b"\x02\0\0\0\0\0\0\0{}"[..], 1)?;
    let first = u32::try_from(bytes.len())?;
    bytes.resize(bytes.len() + 9 * (frames as usize - 1), 0xff);
    bytes.extend(0x184D_2A5E_u32.to_le_bytes());
    bytes.extend((frames * 8 + 9).to_le_bytes());
    for len in std::iter::once(first).chain(std::iter::repeat_n(9, frames as usize - 1)) {
        bytes.extend(len.to_le_bytes());
        bytes.extend([0, 0, 0, 0x40]);
    }
    bytes.extend(frames.to_le_bytes());
    bytes.push(0);
    bytes.extend(0x8F92_EAB1_u32.to_le_bytes());
    let refused = Image::decode(&bytes, &Backing::Auto);
    assert!(
        matches!(&refused, Err(LoadSharedError::TooLarge { needed, .. }) if *needed > 1 << 46),
        "{refused:?}"
    );
    let refused = Image::decode_with(&bytes, &LoadOptions::new().max_bytes(u64::MAX));
    assert!(
        matches!(
            &refused,
            Err(LoadSharedError::Create(CreateError::NoSpace { needed, .. })) if *needed > 1 << 46
        ),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn the_corpus_and_random_ring_operations_pass() -> Result<(), Box<dyn Error>> {
    for (name, run) in [
        ("images", images::use_unverified as fn(&[u8])),
        ("rings", rings::run),
    ] {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/corpus")
            .join(name);
        let mut files = 0;
        for entry in fs::read_dir(corpus)? {
            run(&fs::read(entry?.path())?);
            files += 1;
        }
        assert!(files > 0, "no corpus for {name}");
    }
    for seed in 1..=corruptions() {
        let mut random = Random(seed);
        let input: Vec<u8> = (0..random.below(200)).map(|_| random.next() as u8).collect();
        rings::run(&input);
    }
    Ok(())
}

/// Writes the corpus again after a change of the format:
/// `cargo test -p shm-buffers --test it rewrite_corpus -- --ignored`.
#[test]
#[ignore = "writes into the source tree"]
fn rewrite_corpus() -> Result<(), Box<dyn Error>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    fs::create_dir_all(corpus.join("images"))?;
    fs::create_dir_all(corpus.join("rings"))?;
    let dir = tempfile::tempdir()?;
    for (file, name) in saved(dir.path())?.iter().zip(["plain", "compressed", "frames"]) {
        fs::write(corpus.join("images").join(name), file)?;
    }
    let npy = b"\x93NUMPY\x01\x00\x46\0{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }           \n\0\0\x80\x3f\0\0\0\x40";
    fs::write(corpus.join("images/npy"), npy)?;
    let foreign = b"\x3e\0\0\0\0\0\0\0{\"w\":{\"dtype\":\"F16\",\"shape\":[2],\"data_offsets\":[0,4]}}        \0\x3c\0\xc0";
    fs::write(corpus.join("images/foreign"), foreign)?;
    for seed in 1..=4 {
        let mut random = Random(seed * 77);
        let mut input: Vec<u8> = (0..64).map(|_| random.next() as u8).collect();
        if seed < 3 {
            // Without false words.
            input.retain(|op| op % 8 != 7);
        }
        fs::write(corpus.join("rings").join(format!("random-{seed}")), input)?;
    }
    Ok(())
}
