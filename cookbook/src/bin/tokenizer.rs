//! A tokenizer of the crate `tokenizers`, whose vocabulary is an object full of strings.
//!
//! A copy for each worker, made from the shared bytes of `tokenizer.json`. It costs its load time at every start of a worker. Threads are
//! better for very large vocabularies: `tokenizers` is mostly safe Rust, and one `Tokenizer` serves all threads.

use std::sync::OnceLock;
use std::time::Instant;

use cookbook::{Copies, Random, check, finish_threads, scaled, workers};
use invoker::{BoxError, Buffer, Executor, Invoker};
use serde::{Deserialize, Serialize};
use tokenizers::Tokenizer;

#[derive(Clone, Serialize, Deserialize)]
struct Vocabulary {
    json: Buffer<u8>,
    #[serde(skip)]
    tokenizer: OnceLock<Tokenizer>,
}

impl Vocabulary {
    fn tokenizer(&self) -> &Tokenizer {
        let load = || Tokenizer::from_bytes(&self.json[..]).expect("a valid tokenizer");
        self.tokenizer.get_or_init(load)
    }
}

/// Makes the tokenizer when the worker starts, so that no task waits for it.
fn load(vocabulary: &Vocabulary) -> Result<(), BoxError> {
    vocabulary.tokenizer();
    Ok(())
}

fn encode(vocabulary: &Vocabulary, _: &mut (), text: String) -> Vec<u32> {
    let encoding = vocabulary.tokenizer().encode(text, false);
    let encoding = encoding.expect("any text can be encoded");
    encoding.get_ids().to_vec()
}

/// A model with the tokenizer itself, which is serialized in a way that images do not have.
#[derive(Serialize, Deserialize)]
struct Direct {
    tokenizer: Tokenizer,
}

/// Returns why a model with the tokenizer itself cannot be shared.
fn refusal(json: &[u8]) -> Result<String, BoxError> {
    let tokenizer = Tokenizer::from_bytes(json).map_err(|error| error.to_string())?;
    let op = |direct: &Direct, text: String| direct.tokenizer.encode(text, false).is_ok();
    match Invoker::builder(op).model(Direct { tokenizer }).build() {
        Ok(_) => Err("a tokenizer is shared".into()),
        Err(error) => Ok(shm_buffers::WithCauses(&error).to_string()),
    }
}

fn word(id: u32) -> String {
    format!("word{id}")
}

/// Returns a `tokenizer.json` with a vocabulary of `words` words. The first one stands for all unknown words.
fn json(words: u32) -> String {
    let vocabulary: Vec<String> = (0..words).map(|id| format!("{:?}:{id}", word(id))).collect();
    format!(
        r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{{"type":"WhitespaceSplit"}},"post_processor":null,"decoder":null,
        "model":{{"type":"WordLevel","vocab":{{{}}},"unk_token":"{}"}}}}"#,
        vocabulary.join(","),
        word(0)
    )
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let words = scaled(200_000);
    let mut random = Random::new(9);
    let mut ids = |_| (0..20).map(|_| random.below(words)).collect();
    let expected: Vec<Vec<u32>> = (0..300).map(&mut ids).collect();
    let text = |ids: &Vec<u32>| ids.iter().map(|id| word(*id)).collect::<Vec<_>>().join(" ");
    let mut texts: Vec<String> = expected.iter().map(text).collect();
    texts[0] += " unknown";

    // The vocabulary has two maps, by word and by number. This is their entries alone.
    let bytes = u64::from(words) * 2 * size_of::<(String, u32)>() as u64;
    let model = Vocabulary {
        json: json(words).into_bytes().into(),
        tokenizer: OnceLock::new(),
    };
    let refusal = refusal(&model.json)?;
    for part in ["`tokenizer", "keep these in a `Buffer<u8>`"] {
        assert!(refusal.contains(part), "{refusal}");
    }
    let builder = Invoker::builder_with_state(load, encode).model(model.clone());
    let start = Instant::now();
    let threads = builder.executor(Executor::Threads).workers(workers()).build()?;
    threads.model().tokenizer();
    let time = start.elapsed();
    let mut found: Vec<Vec<u32>> = threads.map(texts.clone()).collect::<Result<_, _>>()?;
    assert_eq!(found[0].pop(), Some(0));
    assert_eq!(found, expected);
    finish_threads("tokenizer", bytes, time, threads)?;

    let processes = Invoker::builder_with_state(load, encode)
        .model(model)
        .workers(workers())
        .build()?;
    let mut found: Vec<Vec<u32>> = processes.map(texts).collect::<Result<_, _>>()?;
    assert_eq!(found[0].pop(), Some(0));
    assert_eq!(found, expected);
    check("tokenizer", Copies::PerWorker(bytes), processes)
}
