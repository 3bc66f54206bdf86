//! What each process rebuilds of a model is counted by field, errors name their field, and memory is returned after a move.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;

use serde::ser::{SerializeSeq as _, Serializer};
use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, Buffer, BufferMut, Image, LoadError, ModelMemory, ShareError, share, share_move};

#[derive(Serialize, Deserialize)]
struct Layer {
    weights: Vec<f32>,
    means: Buffer<f64>,
}

#[derive(Serialize, Deserialize)]
struct Model {
    layers: Vec<Layer>,
    index: HashMap<String, Vec<u32>>,
    names: Option<Vec<String>>,
    pair: (Vec<u64>, Box<[u8]>),
}

fn model() -> Model {
    let layer = |_| Layer {
        weights: vec![0.5; 1000],
        means: vec![0.5; 1000].into(),
    };
    Model {
        layers: (0..1000).map(layer).collect(),
        index: (0..20_000)
            .map(|i| (format!("word {i}"), vec![i, i + 1]))
            .collect(),
        names: Some(
            (0..50_000)
                .map(|i| format!("the name of item number {i}"))
                .collect(),
        ),
        pair: (vec![1; 20_000], vec![1; 100_000].into()),
    }
}

/// The path, type and suggestion of each field.
fn fields(memory: &ModelMemory) -> Vec<[&str; 3]> {
    let fields = memory.fields.iter();
    let texts = fields.map(|it| [&*it.path, &*it.type_name, it.suggestion.as_deref().unwrap_or("")]);
    texts.collect()
}

#[test]
fn the_largest_fields_are_named_with_their_bytes_and_what_to_use() -> Result<(), Box<dyn Error>> {
    let image = share(&model(), &Backing::Auto)?;
    let memory = image.memory();
    assert_eq!(
        fields(&memory),
        [
            ["layers.*.weights", "Vec<f32>", "Buffer<f32>"],
            ["names", "Vec<String>", "Strings"],
            ["index", "HashMap<String, Vec<u32>>", "StringMap<Lists<u32>>"],
            ["pair.0", "Vec<u64>", "Buffer<u64>"],
            ["pair.1", "Box<[u8]>", "Buffer<u8>"],
        ]
    );
    // 4000 bytes and those of the allocator, 1000 times.
    assert_eq!(memory.fields[0].bytes, 1000 * 4016);
    // A String of 24 bytes, and up to 40 of text in 48.
    assert_eq!(memory.fields[1].bytes, 50_000 * 24 + 16 + 50_000 * 48);
    assert_eq!(memory.buffers, 1000);
    let listed: u64 = memory.fields.iter().map(|field| field.bytes).sum();
    let vec_of_layers = 1000 * size_of::<Layer>() as u64;
    assert!(
        (listed..listed + vec_of_layers + 4096).contains(&memory.per_process),
        "{memory:?}"
    );
    assert_eq!(
        (memory.shared, memory.mapped, memory.copied),
        (image.byte_len(), 0, 0)
    );

    // Another process knows only how much it decodes.
    let theirs = Image::attach(&image.handle()?)?.memory();
    assert!((1..memory.per_process).contains(&theirs.per_process));
    assert_eq!(
        (theirs.shared, theirs.buffers, theirs.fields),
        (memory.shared, 1000, Vec::new())
    );
    Ok(())
}

#[test]
fn a_model_of_buffers_is_rebuilt_by_nobody() -> Result<(), Box<dyn Error>> {
    let built = BufferMut::from_fn(&Backing::Auto, 1_000_000, |i| i as f32)?.freeze()?;
    let small = BufferMut::from_fn(&Backing::Auto, 100, |i| i as u8)?.freeze()?;
    let image = share_move((built, small, Buffer::from(vec![1u8; 1000])), &Backing::Auto)?;
    let memory = image.memory();
    assert!(memory.per_process < 200, "{memory:?}");
    assert_eq!(memory.fields, []);
    assert_eq!((memory.copied, memory.shared), (100, image.byte_len()));
    Ok(())
}

#[test]
fn mapped_files_are_told_apart_from_shared_memory() -> Result<(), Box<dyn Error>> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("model.safetensors");
    let buffer = Buffer::from(vec![1u64; 100_000]);
    share(&buffer, &Backing::Auto)?.save(&path)?;
    let opened = crate::mapped::open(&path)?;
    let memory = opened.memory();
    assert_eq!(
        (memory.shared, memory.mapped),
        (0, std::fs::metadata(&path)?.len())
    );
    // Its buffer, as a part of another model, stays in the file.
    let loaded: Buffer<u64> = opened.load()?;
    let image = share(&(loaded, buffer), &Backing::Auto)?;
    for image in [Image::attach(&image.handle()?)?, image] {
        let memory = image.memory();
        assert_eq!(memory.mapped, 800_000);
        assert_eq!(memory.shared, image.segment().len() as u64);
    }
    Ok(())
}

/// The number of paths of a recursive type grows with the model.
#[test]
fn a_recursive_model_is_counted_whole() -> Result<(), Box<dyn Error>> {
    #[derive(Serialize, Deserialize)]
    struct Tree {
        children: BTreeMap<u8, Tree>,
        left: Option<Box<Tree>>,
        right: Option<Box<Tree>>,
        text: String,
    }
    fn tree(depth: u32) -> Tree {
        let child = || (depth > 0).then(|| Box::new(tree(depth - 1)));
        Tree {
            children: BTreeMap::new(),
            left: child(),
            right: child(),
            text: "x".repeat(100),
        }
    }
    let memory = share(&tree(12), &Backing::Auto)?.memory();
    let trees = (1 << 13) - 1;
    let each = 112 + size_of::<Tree>() as u64;
    assert!(
        (trees * each..trees * (each + 32)).contains(&memory.per_process),
        "{memory:?}"
    );
    Ok(())
}

/// The text of an error of sharing this part of a model.
fn refused(model: &impl Serialize) -> String {
    let error = share(model, &Backing::Auto).expect_err("it can't be shared");
    assert!(matches!(error, ShareError::Encode { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn errors_name_the_field_and_the_remedy() {
    #[derive(Serialize)]
    struct Outer<T> {
        parts: Vec<(u8, T)>,
    }
    #[derive(Serialize)]
    struct Flattened {
        #[serde(flatten)]
        map: BTreeMap<String, u8>,
    }
    #[derive(Serialize)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none")]
        maybe: Option<u8>,
    }
    struct Endless;
    impl Serialize for Endless {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_seq(None)?.end()
        }
    }
    struct Poisoned;
    impl Serialize for Poisoned {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("poisoned"))
        }
    }
    fn outer<T>(part: T) -> Outer<T> {
        Outer {
            parts: vec![(7, part)],
        }
    }
    let flattened = Flattened { map: BTreeMap::new() };
    let cases = [
        (
            refused(&outer(flattened)),
            "`parts.0.1` of the model (Flattened): the number of its entries",
            "`#[serde(flatten)]`, remove the attribute",
        ),
        (
            refused(&outer(Skips { maybe: None })),
            "`parts.0.1.maybe` of the model (Skips): it was left out",
            "remove `skip_serializing_if`",
        ),
        (
            refused(&outer(Endless)),
            "`parts.0.1` of the model (Endless): the number of its elements",
            "serialize the value to bytes",
        ),
        (
            refused(&outer(Poisoned)),
            "`parts.0.1` of the model (Poisoned): its `Serialize` implementation failed",
            "`serde_json::to_string` shows its own message",
        ),
        (
            refused(&Endless),
            "the model (Endless): the number of its elements",
            "keep these in a `Buffer<u8>`",
        ),
    ];
    for (text, part, remedy) in cases {
        assert!(
            text.starts_with("cannot serialize ") && text.contains(part),
            "{text}"
        );
        assert!(text.contains(remedy), "{text}");
    }
}

#[test]
fn an_untagged_enum_is_refused_by_its_path_when_it_is_loaded() -> Result<(), Box<dyn Error>> {
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u8),
        Text(String),
    }
    #[derive(Debug, Serialize, Deserialize)]
    struct Outer {
        before: (String, Option<u32>),
        parts: BTreeMap<String, Vec<Either>>,
    }
    let model = Outer {
        before: ("x".to_owned(), Some(1)),
        parts: [(
            "a".to_owned(),
            vec![Either::Number(1), Either::Text("t".to_owned())],
        )]
        .into(),
    };
    let image = share(&model, &Backing::Auto)?;
    let error = image.load::<Outer>().expect_err("postcard describes no types");
    let text = error.to_string();
    assert!(matches!(error, LoadError::Decode { .. }));
    assert!(text.contains("`parts.a.0`"), "{text}");
    assert!(
        text.contains("`#[serde(untagged)]`") && text.contains("remove"),
        "{text}"
    );
    Ok(())
}

/// The estimate is compared with the memory of a process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn the_estimate_of_a_map_is_close_to_the_memory_that_it_takes() {
    use crate::children;

    if children::part().is_none() {
        let test = "rebuilt::the_estimate_of_a_map_is_close_to_the_memory_that_it_takes";
        return children::assert_success(&mut children::again(&[], test, "map"));
    }
    let before = resident();
    // Growing would leave smaller tables behind, as free memory of the allocator.
    let mut postings: HashMap<String, Vec<u32>> = HashMap::with_capacity(300_000);
    postings.extend((0..300_000).map(|i| (format!("the word number {i}").as_str().to_owned(), vec![i; 5])));
    let taken = resident() - before;
    let image = share(&postings, &Backing::Auto).expect("there is room");
    let estimate = image.memory().per_process as f64 / taken as f64;
    assert!((0.8..1.25).contains(&estimate), "{estimate} of {taken} bytes");
    children::report_success();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = statm
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number of pages") * rustix::param::page_size() as u64
}

/// Many small allocations, freed after a move, are no part of this process any more.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_move_returns_the_memory_of_small_allocations() {
    use crate::children;

    if children::part().is_none() {
        let test = "rebuilt::a_move_returns_the_memory_of_small_allocations";
        return children::assert_success(&mut children::again(&[], test, "move"));
    }
    const MIB: u64 = 1 << 20;
    let before = resident();
    let lists: Vec<Vec<u32>> = (0..1_000_000).map(|i| vec![i; 16]).collect();
    // What stays at the top of the heap keeps the allocator from shrinking it.
    let stays = String::from("stays").into_boxed_str();
    let built = resident() - before;
    assert!(built > 90 * MIB, "{} MiB", built / MIB);
    let image = share_move(lists, &Backing::Auto).expect("there is room");
    let memory = image.memory();
    assert_eq!(memory.unreturned, 0);
    let estimate = memory.per_process as f64 / built as f64;
    assert!((0.9..1.1).contains(&estimate), "{estimate} of {built} bytes");
    drop(image);
    let left = resident().saturating_sub(before);
    assert!(left < 16 * MIB, "{} MiB of {} are left", left / MIB, built / MIB);
    drop(stays);
    children::report_success();
}
