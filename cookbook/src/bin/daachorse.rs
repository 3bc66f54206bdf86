//! Many words searched for in one pass, the crate `daachorse`, whose double array cannot be borrowed from bytes.
//!
//! A copy for each worker, made from the shared words when it starts. It is smaller than that of `aho-corasick`. Threads are better here:
//! `daachorse` is mostly safe Rust, and with `Executor::Threads` the same op needs one automaton.

use std::sync::OnceLock;
use std::time::Instant;

use cookbook::{Copies, Random, check, finish_threads, scaled, workers};
use daachorse::DoubleArrayAhoCorasick;
use invoker::{BoxError, Executor, Invoker, Strings};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Words {
    words: Strings,
    #[serde(skip)]
    automaton: OnceLock<DoubleArrayAhoCorasick<u32>>,
}

impl Words {
    fn automaton(&self) -> &DoubleArrayAhoCorasick<u32> {
        let build = || DoubleArrayAhoCorasick::new(self.words.iter()).expect("different words, none empty");
        self.automaton.get_or_init(build)
    }
}

/// Makes the automaton when the worker starts, so that no task waits for it.
fn load(words: &Words) -> Result<(), BoxError> {
    words.automaton();
    Ok(())
}

/// Returns where each word of the text starts.
fn find(words: &Words, _: &mut (), text: String) -> Vec<usize> {
    let found = words.automaton().find_iter(&text);
    found.map(|found| found.start()).collect()
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(20);
    let words: std::collections::BTreeSet<String> = (0..scaled(200_000)).map(|_| random.word(8)).collect();
    let words = Vec::from_iter(words);
    let mut text = |_| {
        let mut pick = || words[random.below(words.len() as u32) as usize].clone();
        format!("{}...{}, {}", pick(), pick(), pick())
    };
    let texts: Vec<String> = (0..300).map(&mut text).collect();
    let expected = vec![vec![0, 11, 21]; texts.len()];

    let words = Words {
        words: words.into(),
        automaton: OnceLock::new(),
    };
    let builder = Invoker::builder_with_state(load, find).model(words.clone());
    let start = Instant::now();
    let threads = builder.executor(Executor::Threads).workers(workers()).build()?;
    let bytes = threads.model().automaton().heap_bytes() as u64;
    let time = start.elapsed();
    let found: Vec<Vec<usize>> = threads.map(texts.clone()).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    finish_threads("daachorse", bytes, time, threads)?;

    let processes = Invoker::builder_with_state(load, find)
        .model(words)
        .workers(workers())
        .build()?;
    let found: Vec<Vec<usize>> = processes.map(texts).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    check("daachorse", Copies::PerWorker(bytes), processes)
}
