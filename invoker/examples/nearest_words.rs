//! Nearest neighbours over word vectors: a NumPy array is loaded once into shared memory, and worker processes search it.
//!
//! `cargo run --release -p invoker --example nearest_words`

use std::fs;

use invoker::{Buffer, Invoker};
use serde::{Deserialize, Serialize};
use shm_buffers::{Backing, load_npy};

/// Three groups of three related words.
const WORDS: [&str; 9] = [
    "cat", "dog", "horse", "red", "green", "blue", "run", "walk", "swim",
];
/// Components of a vector.
const AXES: usize = 4;
/// Neighbours per word.
const TOP: usize = 2;

#[derive(Serialize, Deserialize)]
struct Embedding {
    words: Vec<String>,
    /// Unit vectors of shape (words, [`AXES`]), row by row.
    vectors: Buffer<f32>,
}

impl Embedding {
    fn vector(&self, word: usize) -> &[f32] {
        &self.vectors[word * AXES..][..AXES]
    }
}

/// Returns the nearest words and the cosines of their angles, nearest first.
fn nearest(model: &Embedding, word: usize) -> Vec<(usize, f32)> {
    let query = model.vector(word);
    let others = (0..model.words.len()).filter(|other| *other != word);
    let mut scored: Vec<(usize, f32)> = others
        .map(|other| {
            let products = query.iter().zip(model.vector(other)).map(|(a, b)| a * b);
            (other, products.sum())
        })
        .collect();
    scored.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    scored.truncate(TOP);
    scored
}

/// Returns a file as `numpy.save` writes it for a float32 array of shape (rows, [`AXES`])
/// (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>). By hand, because the crate `ndarray-npy` brings a
/// parser generator along for these few lines.
fn npy(rows: usize, values: &[f32]) -> Vec<u8> {
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {AXES}), }}");
    let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    file.extend_from_slice(format!("{dict:<117}\n").as_bytes());
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    file
}

/// Returns the vectors of all words: each group has its own axis, and its words lean a little towards the last axis.
fn vectors() -> Vec<f32> {
    let rows = (0..WORDS.len()).flat_map(|word| {
        let mut row = [0.0; AXES];
        let lean = 0.1 * (word % 3) as f32;
        row[word / 3] = (1.0 - lean * lean).sqrt();
        row[AXES - 1] = lean;
        row
    });
    rows.collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    invoker::init();
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("vectors.npy");
    fs::write(&path, npy(WORDS.len(), &vectors()))?;

    // Loads the file into shared memory, where the workers attach it without another copy (unless it is as small as this one).
    let tensor = load_npy(&path, &Backing::Auto)?;
    assert_eq!(tensor.shape(), [WORDS.len(), AXES]);
    let model = Embedding {
        words: WORDS.map(str::to_owned).to_vec(),
        vectors: tensor.buffer()?,
    };
    let invoker = Invoker::builder(nearest).model(model).build()?;
    for (word, found) in invoker.map(0..WORDS.len()).enumerate() {
        let found = found?;
        let shown: Vec<String> = found
            .iter()
            .map(|(other, cosine)| format!("{} {cosine:.3}", WORDS[*other]))
            .collect();
        println!("{:6} {}", WORDS[word], shown.join(", "));
        // This example is also a test: neighbours belong to the word's own group.
        assert!(found.iter().all(|(other, _)| other / 3 == word / 3), "{found:?}");
    }
    println!("\n{}", invoker.finish()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    invoker::init_in_tests!();

    #[test]
    fn runs_to_the_end() {
        super::main().expect("no error");
    }
}
