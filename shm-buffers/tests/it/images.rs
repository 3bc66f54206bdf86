//! Model images: the names of their buffers, and saving, opening, loading and verifying them.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, Buffer, Image, LoadError, LoadSharedError, OpenError, VerifyError, share};

use crate::backings::wine_lacks;
use crate::mapped;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Layer {
    weights: Buffer<f32>,
    bias: Option<Buffer<f64>>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Wrapped(Buffer<u64>);

#[derive(Debug, PartialEq, Serialize, Deserialize)]
enum Head {
    Linear(Buffer<f32>),
    Pair(Buffer<u8>, Buffer<i16>),
    Tree { splits: Buffer<u32>, leaves: Layer },
    None,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Model {
    name: String,
    counts: Vec<u32>,
    layers: Vec<Layer>,
    by_name: BTreeMap<String, Buffer<i64>>,
    by_id: BTreeMap<u32, Buffer<i8>>,
    heads: (Head, Head, Head, Head),
    wrapped: Wrapped,
    skeleton: Buffer<u16>,
}

fn buffer<T>(len: usize, element: impl Fn(usize) -> T) -> Buffer<T>
where
    T: bytemuck::Pod + Send + Sync,
{
    (0..len).map(element).collect()
}

fn layer(size: usize, k: usize) -> Layer {
    Layer {
        weights: buffer(size, |i| (i * k) as f32 / 3.0),
        bias: (k % 2 == 1).then(|| buffer(k, |i| i as f64)),
    }
}

fn model(size: usize) -> Model {
    Model {
        name: "all kinds".into(),
        counts: vec![0, 1, 2, 3, 4, 5, 6],
        layers: vec![layer(size, 1), layer(size, 2)],
        by_name: [
            ("user".to_owned(), buffer(2, |i| i as i64)),
            ("a.b".to_owned(), buffer(3, |i| i as i64)),
        ]
        .into(),
        by_id: [(7, buffer(2, |i| i as i8))].into(),
        heads: (
            Head::Linear(buffer(2, |i| i as f32 + 0.5)),
            Head::Pair(buffer(9, |i| i as u8), buffer(1, |_| -1)),
            Head::Tree {
                splits: buffer(2, |i| i as u32),
                leaves: layer(3, 3),
            },
            Head::None,
        ),
        wrapped: Wrapped(buffer(4, |i| i as u64)),
        skeleton: buffer(5, |i| i as u16),
    }
}

fn names(image: &Image) -> Result<Vec<String>, LoadError> {
    let mut names: Vec<_> = image
        .tensors()?
        .iter()
        .map(|tensor| tensor.name().to_owned())
        .collect();
    names.sort();
    Ok(names)
}

#[test]
fn buffers_are_named_after_their_fields() -> Result<(), Box<dyn Error>> {
    let image = share(&model(10), &Backing::Auto)?;
    assert_eq!(
        names(&image)?,
        [
            "by_id.7",
            "by_name.a.b",
            "by_name.user",
            "heads.0.Linear",
            "heads.1.Pair.0",
            "heads.1.Pair.1",
            "heads.2.Tree.leaves.bias",
            "heads.2.Tree.leaves.weights",
            "heads.2.Tree.splits",
            "layers.0.bias",
            "layers.0.weights",
            "layers.1.weights",
            "skeleton",
            "skeleton#2",
            "wrapped",
        ]
    );
    let weights = image.tensors()?.buffer::<f32>("layers.1.weights")?;
    assert_eq!(weights[3], 2.0);
    assert_eq!(image.load::<Model>()?, model(10));
    Ok(())
}

#[test]
fn duplicate_names_get_a_suffix() -> Result<(), Box<dyn Error>> {
    /// Serializes two fields under one name, which serde allows.
    struct Twins(Buffer<u8>, Buffer<u8>);
    impl Serialize for Twins {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeStruct;
            let mut both = serializer.serialize_struct("Twins", 2)?;
            both.serialize_field("twin", &self.0)?;
            both.serialize_field("twin", &self.1)?;
            both.end()
        }
    }
    let image = share(&Twins(vec![1].into(), vec![2].into()), &Backing::Auto)?;
    assert_eq!(names(&image)?, ["skeleton", "twin", "twin#2"]);
    let (one, two): (Buffer<u8>, Buffer<u8>) = image.load()?;
    assert_eq!((&one[..], &two[..]), (&[1][..], &[2][..]));

    let image = share(&Buffer::from(vec![1.0f32]), &Backing::Auto)?;
    assert_eq!(names(&image)?, ["buffer", "skeleton"]);
    Ok(())
}

#[test]
fn buffers_inside_of_other_encodings_are_restored() -> Result<(), Box<dyn Error>> {
    mod text {
        //! A field that is encoded as JSON.
        use serde::de::Error as _;
        use serde::ser::Error as _;
        use serde::{Deserialize, Deserializer, Serializer};
        use shm_buffers::Buffer;

        pub(super) fn serialize<S: Serializer>(
            value: &Buffer<u16>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            let text = serde_json::to_string(value).map_err(S::Error::custom)?;
            serializer.serialize_str(&text)
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Buffer<u16>, D::Error> {
            serde_json::from_str(&String::deserialize(d)?).map_err(D::Error::custom)
        }
    }
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Model {
        #[serde(with = "text")]
        inner: Buffer<u16>,
        count: u32,
    }
    let model = Model {
        inner: vec![1, 2, 3].into(),
        count: 9,
    };
    let image = share(&model, &Backing::Auto)?;
    assert_eq!(image.load::<Model>()?, model);
    assert_eq!(names(&image)?, ["buffer.0", "skeleton"]);
    Ok(())
}

#[test]
fn a_saved_image_is_mapped_attached_and_verified() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    let shared = share(&model(3000), &Backing::Auto)?;
    assert!(matches!(shared.verify(), Err(VerifyError::NoChecksum)));
    shared.save(&path)?;

    let opened = mapped::open(&path)?;
    opened.verify()?;
    assert_eq!(opened.load::<Model>()?, model(3000));
    let handle = serde_json::from_str(&serde_json::to_string(&opened.handle()?)?)?;
    let attached = Image::attach(&handle)?;
    assert_eq!(attached.load::<Model>()?, model(3000));
    assert_eq!(Image::attach(&attached.handle()?)?.load::<Model>()?, model(3000));

    if wine_lacks("NtSetInformationFile(FileRenameInformationEx) to replace a file that is open") {
        return Ok(());
    }
    // Replacing the file: a process that has mapped it keeps it, and the handle never leads to the new file.
    share(&model(10), &Backing::Auto)?.save(&path)?;
    assert_eq!(opened.load::<Model>()?, model(3000));
    opened.verify()?;
    let again = Image::attach(&handle);
    match cfg!(target_os = "linux") {
        true => assert_eq!(again?.load::<Model>()?, model(3000)),
        false => assert!(matches!(again, Err(LoadError::Attach(_))), "{again:?}"),
    }
    assert_eq!(mapped::open(&path)?.load::<Model>()?, model(10));
    assert_eq!(files(dir.path())?, 1);
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_handle_leads_to_its_file_after_the_name_has_changed() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    share(&model(3000), &Backing::Auto)?.save(&path)?;
    let opened = mapped::open(&path)?;
    let handle = opened.handle()?;
    let works = || -> Result<(), Box<dyn Error>> {
        assert_eq!(Image::attach(&handle)?.load::<Model>()?, model(3000));
        assert_eq!(opened.handle()?, handle);
        Ok(())
    };
    let file = std::fs::File::options().write(true).open(&path)?;
    file.set_modified(std::time::SystemTime::UNIX_EPOCH)?;
    works()?;
    if cfg!(target_os = "linux") {
        std::fs::rename(&path, dir.path().join("elsewhere"))?;
        works()?;
        share(&model(10), &Backing::Auto)?.save(&path)?;
        works()?;
        std::fs::remove_file(dir.path().join("elsewhere"))?;
        works()?;
    }
    Ok(())
}

fn files(dir: &Path) -> std::io::Result<usize> {
    Ok(std::fs::read_dir(dir)?.count())
}

#[test]
fn a_plain_image_is_loaded_into_every_backing() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    share(&model(700_000), &Backing::Auto)?.save(&path)?;
    for backing in [
        Backing::Auto,
        Backing::Named,
        Backing::File(dir.path().to_owned()),
    ] {
        let image = Image::load_shared(&path, &backing)?;
        image.verify()?;
        assert!(image.load::<Model>()? == model(700_000));
        assert!(Image::attach(&image.handle()?)?.load::<Model>()? == model(700_000));
    }
    Ok(())
}

#[cfg(feature = "zstd")]
#[test]
fn a_compressed_image_is_restored() -> Result<(), Box<dyn Error>> {
    use shm_buffers::Compression;

    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors.zst");
    let plain = dir.path().join("model.safetensors");
    let shared = share(&model(700_000), &Backing::Auto)?;
    shared.save(&plain)?;
    for compression in [
        Compression::default(),
        Compression::level(-5).frame_bytes(0),
        Compression::level(9).frame_bytes(usize::MAX),
    ] {
        shared.save_compressed(&path, compression)?;
        let bytes = std::fs::read(&path)?;
        // Any zstd decoder restores the plain image.
        assert!(zstd::stream::decode_all(&*bytes)? == std::fs::read(&plain)?);
        let image = Image::load_shared(&path, &Backing::Auto)?;
        image.verify()?;
        assert!(image.load::<Model>()? == model(700_000));
        Image::decode(&bytes, &Backing::Auto)?.verify()?;
        let refused = mapped::open(&path);
        assert!(
            matches!(refused, Err(OpenError::Compressed { .. })),
            "{refused:?}"
        );
    }
    Ok(())
}

#[cfg(not(feature = "zstd"))]
#[test]
fn without_the_feature_a_compressed_image_is_refused() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.zst");
    std::fs::write(&path, [0x28, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0])?;
    let refused = Image::load_shared(&path, &Backing::Auto);
    assert!(
        matches!(refused, Err(LoadSharedError::NoZstd { .. })),
        "{refused:?}"
    );
    Ok(())
}

#[test]
fn damage_is_reported_and_survives_saving() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    share(&model(1000), &Backing::Auto)?.save(&path)?;
    let mut bytes = std::fs::read(&path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, &bytes)?;

    let damaged = mapped::open(&path)?;
    assert!(matches!(damaged.verify(), Err(VerifyError::Mismatch { .. })));
    let refused = Image::load_shared(&path, &Backing::Auto);
    assert!(
        matches!(refused, Err(LoadSharedError::Verify { .. })),
        "{refused:?}"
    );
    let again = dir.path().join("again.safetensors");
    damaged.save(&again)?;
    assert!(matches!(
        mapped::open(&again)?.verify(),
        Err(VerifyError::Mismatch { .. })
    ));
    Ok(())
}

#[cfg(unix)]
#[test]
fn a_saved_file_has_the_requested_mode() -> Result<(), Box<dyn Error>> {
    use shm_buffers::SaveOptions;
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir()?;
    let image = share(&model(10), &Backing::Auto)?;
    let mode = |path: &Path| std::fs::metadata(path).map(|m| m.permissions().mode() & 0o777);
    for wanted in [0o600, 0o666] {
        let path = dir.path().join("with_mode");
        image.save_with(&path, &SaveOptions::new().mode(wanted))?;
        assert_eq!(mode(&path)?, wanted);
    }
    let (ours, theirs) = (dir.path().join("ours"), dir.path().join("theirs"));
    image.save(&ours)?;
    std::fs::write(&theirs, b"")?;
    assert_eq!(mode(&ours)?, mode(&theirs)?);
    Ok(())
}

#[test]
fn other_files_are_refused_with_a_reason() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("file");
    let missing = mapped::open(&path);
    assert!(matches!(missing, Err(OpenError::Io { .. })), "{missing:?}");
    let directory = mapped::open(dir.path());
    assert!(matches!(directory, Err(OpenError::Io { .. })), "{directory:?}");
    for bytes in [
        &b""[..],
        b"short",
        b"\xff\xff\xff\xff\xff\xff\xff\xff{}",
        b"\x02\0\0\0\0\0\0\0[]",
    ] {
        std::fs::write(&path, bytes)?;
        let refused = mapped::open(&path);
        assert!(
            matches!(refused, Err(OpenError::Format { .. })),
            "{bytes:?}: {refused:?}"
        );
    }
    // A safetensors file without a skeleton was written by another program.
    std::fs::write(&path, b"\x02\0\0\0\0\0\0\0{}")?;
    let foreign = mapped::open(&path)?;
    assert!(matches!(foreign.load::<Model>(), Err(LoadError::Format(_))));
    assert!(matches!(foreign.verify(), Err(VerifyError::NoChecksum)));
    let nowhere = foreign.save(dir.path().join("no/such/directory"));
    assert!(nowhere.is_err_and(|e| e.to_string().contains("no/such")));
    Ok(())
}
