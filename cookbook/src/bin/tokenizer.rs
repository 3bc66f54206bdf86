//! A tokenizer of the crate `tokenizers`, whose vocabulary is an object full of strings.
//!
//! A copy for each worker, made from the shared bytes of `tokenizer.json`. It costs its load time at every start of a worker. Threads are
//! better for very large vocabularies: `tokenizers` is mostly safe Rust, and one `Tokenizer` serves all threads.

use cookbook::{Copies, Random, WORKERS, check, scaled};
use invoker::{BoxError, Buffer, Invoker};
use tokenizers::Tokenizer;

fn load(json: &Buffer<u8>) -> Result<Tokenizer, BoxError> {
    Tokenizer::from_bytes(&json[..])
}

fn encode(_: &Buffer<u8>, tokenizer: &mut Tokenizer, text: String) -> Vec<u32> {
    let encoding = tokenizer.encode(text, false).expect("any text can be encoded");
    encoding.get_ids().to_vec()
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

    let json: Buffer<u8> = json(words).into_bytes().into();
    let invoker = Invoker::builder_with_state(load, encode)
        .model(json)
        .workers(WORKERS)
        .build()?;
    let mut found: Vec<Vec<u32>> = invoker.map(texts).collect::<Result<_, _>>()?;
    assert_eq!(found[0].pop(), Some(0));
    assert_eq!(found, expected);
    // The vocabulary has two maps, by word and by number. This is their entries alone.
    let bytes = u64::from(words) * 2 * size_of::<(String, u32)>() as u64;
    check("tokenizer", Copies::PerWorker(bytes), invoker)
}
