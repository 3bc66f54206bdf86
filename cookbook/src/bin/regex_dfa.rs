//! A dictionary as a deterministic automaton, the crate `regex-automata`: `dense::DFA<&[u32]>` over the bytes of a `Buffer<u8>`.
//!
//! One copy. The bytes must be aligned to 4 bytes, which every buffer in shared memory is. Each worker validates the automaton once, when
//! it starts, and keeps it as its view of the bytes.

use std::collections::HashSet;

use cookbook::{Copies, Random, check, scaled, workers};
use invoker::{AlignedBytes, BoxError, Buffer, Invoker, View};
use regex_automata::dfa::dense::{Builder, Config, DFA};
use regex_automata::dfa::{Automaton as _, StartKind};
use regex_automata::{Anchored, Input};

struct Dictionary;

impl View<Buffer<u8>> for Dictionary {
    type Of<'m> = DFA<&'m [u32]>;

    fn view(bytes: &Buffer<u8>) -> Result<DFA<&[u32]>, BoxError> {
        Ok(DFA::from_bytes(bytes)?.0)
    }
}

/// Returns for each word whether it is in the dictionary.
fn are_known(_: &Buffer<u8>, dictionary: &mut DFA<&[u32]>, text: String) -> Vec<bool> {
    let is_known = |word: &str| {
        let input = Input::new(word).anchored(Anchored::Yes);
        let found = dictionary
            .try_search_fwd(&input)
            .expect("the automaton never gives up");
        found.is_some_and(|end| end.offset() == word.len())
    };
    text.split(' ').map(is_known).collect()
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(6);
    let words: Vec<String> = (0..scaled(75_000)).map(|_| random.word(7)).collect();
    let mut text = |_| {
        let mut pick = || words[random.below(words.len() as u32) as usize].clone();
        [pick(), pick(), random.word(7), format!("{}a", random.word(7))].join(" ")
    };
    let texts: Vec<String> = (0..300).map(&mut text).collect();
    let known: HashSet<&str> = words.iter().map(String::as_str).collect();
    let are_in_set = |text: &String| text.split(' ').map(|word| known.contains(word)).collect();
    let expected: Vec<Vec<bool>> = texts.iter().map(are_in_set).collect();

    let config = Config::new().start_kind(StartKind::Anchored);
    let dfa = Builder::new().configure(config).build(&words.join("|"))?;
    // The padding aligns the automaton within that `Vec`. `AlignedBytes` need none.
    let (bytes, padding) = dfa.to_bytes_native_endian();
    let model: Buffer<u8> = AlignedBytes::from(&bytes[padding..]).into();
    let invoker = Invoker::builder_with_view::<Dictionary>(are_known)
        .model(model)
        .workers(workers())
        .build()?;
    let found: Vec<Vec<bool>> = invoker.map(texts).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    check("regex_dfa", Copies::One, invoker)
}
