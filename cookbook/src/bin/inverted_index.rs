//! An inverted index, from a word to the documents with it: `HashMap<String, Vec<u32>>` as a `StringMap<Lists<u32>>`.
//!
//! One copy. The workers look words up in the shared memory, and rebuild nothing.

use std::collections::{BTreeSet, HashMap};

use cookbook::{Copies, Random, check, scaled, workers};
use invoker::{BoxError, Invoker, Lists, StringMap};
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize)]
struct Index {
    documents: StringMap<Lists<u32>>,
}

/// Returns the documents with both words. The lists are sorted.
fn both(index: &Index, (one, other): (String, String)) -> Vec<u32> {
    let find = |word: &str| index.documents.get(word).unwrap_or_default();
    let (one, other) = (find(&one), find(&other));
    one.iter()
        .filter(|id| other.binary_search(id).is_ok())
        .copied()
        .collect()
}

fn word(number: u32) -> String {
    format!("word-{number}")
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let words = scaled(500_000);
    let mut random = Random::new(5);
    let mut documents: HashMap<String, Vec<u32>> = HashMap::new();
    for number in 0..words {
        // Frequent words first. A document has a word at most once.
        let ids: BTreeSet<u32> = (0..10 + 20_000 / (number + 1))
            .map(|_| random.below(40_000))
            .collect();
        documents.insert(word(number), ids.into_iter().collect());
    }

    let queries: Vec<(String, String)> = (0..400)
        .map(|n| (word(n % 20), word(words - 30 + n % 40)))
        .collect();
    let expected: Vec<Vec<u32>> = queries
        .iter()
        .map(|(one, other)| {
            let set = |word: &String| {
                documents
                    .get(word)
                    .into_iter()
                    .flatten()
                    .copied()
                    .collect::<BTreeSet<u32>>()
            };
            set(one).intersection(&set(other)).copied().collect()
        })
        .collect();
    assert!(
        expected.iter().any(|ids| !ids.is_empty()),
        "some queries find documents"
    );

    let index = Index {
        documents: documents.into(),
    };
    let invoker = Invoker::builder(both).model(index).workers(workers()).build()?;
    let found: Vec<Vec<u32>> = invoker.map(queries).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    check("inverted_index", Copies::One, invoker)
}
