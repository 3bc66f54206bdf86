//! Many words searched for in one pass, the crate `aho-corasick`, whose automaton cannot be borrowed from bytes.
//!
//! A copy for each worker, made from the shared words. Threads are better here: `aho-corasick` is safe Rust, and with
//! `Executor::Threads` the same op needs one automaton. The field is filled by the first worker that needs it, in each process.

use std::sync::OnceLock;
use std::time::Instant;

use aho_corasick::AhoCorasick;
use cookbook::{Copies, Random, check, finish_threads, scaled, workers};
use invoker::{BoxError, Executor, Invoker, Strings};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Words {
    words: Strings,
    #[serde(skip)]
    automaton: OnceLock<AhoCorasick>,
}

impl Words {
    fn automaton(&self) -> &AhoCorasick {
        self.automaton
            .get_or_init(|| AhoCorasick::new(&self.words).expect("fewer than 2^31 states"))
    }
}

/// Makes the automaton when the worker starts, so that no task waits for it.
fn load(words: &Words) -> Result<(), BoxError> {
    words.automaton();
    Ok(())
}

/// Returns where each word of the text starts.
fn find(words: &Words, _: &mut (), text: String) -> Vec<usize> {
    words
        .automaton()
        .find_iter(&text)
        .map(|found| found.start())
        .collect()
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(8);
    let words: Vec<String> = (0..scaled(200_000)).map(|_| random.word(8)).collect();
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
    let bytes = threads.model().automaton().memory_usage() as u64;
    let time = start.elapsed();
    let found: Vec<Vec<usize>> = threads.map(texts.clone()).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    finish_threads("aho_corasick", bytes, time, threads)?;

    let processes = Invoker::builder_with_state(load, find)
        .model(words)
        .workers(workers())
        .build()?;
    let found: Vec<Vec<usize>> = processes.map(texts).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    check("aho_corasick", Copies::PerWorker(bytes), processes)
}
