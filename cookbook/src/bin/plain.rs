//! A plain model, `Vec<f32>` and `HashMap<String, Vec<u32>>`, and the same with its two fields changed to `Buffer<f32>` and
//! `StringMap<Lists<u32>>`.
//!
//! Unchanged, each worker rebuilds the whole model, and the error of `Copies::Refuse` names both fields with their bytes and the types to
//! use. Changed, there is one copy, which the workers attach within milliseconds.

use std::collections::HashMap;
use std::time::Duration;

use cookbook::{Copies, Random, measure, scaled, workers};
use invoker::{BoxError, Buffer, Invoker, Lists, Processes, StringMap};
use serde::{Deserialize, Serialize};

/// Number of the parts of the weights: each task reads one, so that all of them are read.
const PARTS: usize = 400;

#[derive(Serialize, Deserialize)]
struct Plain {
    weights: Vec<f32>,
    postings: HashMap<String, Vec<u32>>,
}

#[derive(Serialize, Deserialize)]
struct Shared {
    weights: Buffer<f32>,
    postings: StringMap<Lists<u32>>,
}

type Task = (usize, String);

/// Returns the sum of a part of the weights, and that of the weights of a word.
fn sums(weights: &[f32], postings: Option<&[u32]>, part: usize) -> (f64, f64) {
    let len = weights.len() / PARTS;
    let sum = |weights: &mut dyn Iterator<Item = f32>| weights.map(f64::from).sum();
    let mut of_part = weights[part * len..][..len].iter().copied();
    let mut of_word = postings
        .unwrap_or_default()
        .iter()
        .map(|id| weights[*id as usize]);
    (sum(&mut of_part), sum(&mut of_word))
}

fn plain(model: &Plain, (part, word): Task) -> (f64, f64) {
    sums(&model.weights, model.postings.get(&word).map(Vec::as_slice), part)
}

fn shared(model: &Shared, (part, word): Task) -> (f64, f64) {
    sums(&model.weights, model.postings.get(&word), part)
}

fn word(number: u32) -> String {
    format!("word {number}")
}

fn model() -> Plain {
    let mut random = Random::new(14);
    let weights: Vec<f32> = (0..scaled(50_000_000)).map(|n| (n % 17) as f32).collect();
    let postings = (0..scaled(500_000)).map(|number| {
        let ids = (0..3).map(|_| random.below(weights.len() as u32)).collect();
        (word(number), ids)
    });
    Plain {
        postings: postings.collect(),
        weights,
    }
}

fn tasks() -> impl Iterator<Item = Task> {
    (0..PARTS).map(|part| (part, word(part as u32 * 199)))
}

/// Returns the proportional set sizes of leader and workers without a model.
fn baseline() -> Result<u64, BoxError> {
    let invoker = Invoker::builder(|(): &(), n: u32| n)
        .model(())
        .workers(workers())
        .build()?;
    invoker.map(0..100).collect::<Result<Vec<_>, _>>()?;
    Ok(invoker.finish()?.memory.map_or(0, |memory| memory.total_pss))
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let baseline = baseline()?;
    let Plain { weights, postings } = model();
    let model_of = |weights: Vec<f32>, postings: HashMap<String, Vec<u32>>| Shared {
        weights: weights.into(),
        postings: postings.into(),
    };
    let expected: Vec<(f64, f64)> = tasks()
        .map(|(part, word)| sums(&weights, postings.get(&word).map(Vec::as_slice), part))
        .collect();
    let invoker = Invoker::builder(shared)
        .model(model_of(weights, postings))
        .workers(workers())
        .build()?;
    let found: Vec<(f64, f64)> = invoker.map(tasks()).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    let changed = measure("plain, changed", Copies::One, invoker)?;
    assert!(changed.attach < Duration::from_millis(20), "{changed:?}");
    let limit = changed.shared as f64 * 1.05 + baseline as f64;
    assert!((changed.pss as f64) < limit, "{changed:?}, more than {limit}");

    let model = model();
    let copy = size_of_val(&*model.weights) as u64;
    let build = |copies| {
        let builder = Invoker::builder(plain).model_ref(&model);
        let options = Processes::new().copies(copies);
        builder.executor(options).workers(workers()).build()
    };
    let Err(refused) = build(invoker::Copies::Refuse) else {
        return Err("the plain model was not refused".into());
    };
    let text = refused.to_string();
    for field in [
        format!(
            "weights: Vec<f32>, {:.1} MiB per worker → Buffer<f32>",
            copy as f64 / (1 << 20) as f64
        ),
        "postings: HashMap<String, Vec<u32>>, ".to_owned(),
        " MiB per worker → StringMap<Lists<u32>>".to_owned(),
    ] {
        assert!(text.contains(&field), "{field}: {text}");
    }
    let invoker = build(invoker::Copies::Allow)?;
    drop(model);
    let found: Vec<(f64, f64)> = invoker.map(tasks()).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    measure("plain, unchanged", Copies::PerWorker(copy), invoker).map(drop)
}
