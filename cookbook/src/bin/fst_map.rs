//! An ordered map of strings as a finite state transducer, the crate `fst`: `fst::Map<&[u8]>` over the bytes of a `Buffer<u8>`.
//!
//! One copy. Each worker verifies the checksum of the map once, when it starts, and keeps the map as its view of the bytes.

use std::collections::BTreeMap;

use cookbook::{Copies, Random, check, scaled, workers};
use fst::automaton::{Automaton as _, Str};
use fst::{IntoStreamer as _, Streamer as _};
use invoker::{BoxError, Buffer, Invoker, View};

struct Prices;

impl View<Buffer<u8>> for Prices {
    type Of<'m> = fst::Map<&'m [u8]>;

    fn view(bytes: &Buffer<u8>) -> Result<fst::Map<&[u8]>, BoxError> {
        let map = fst::Map::new(&bytes[..])?;
        map.as_fst().verify()?;
        Ok(map)
    }
}

/// Returns the number of the articles whose codes have this prefix, and the sum of their prices.
fn total(_: &Buffer<u8>, prices: &mut fst::Map<&[u8]>, prefix: String) -> (usize, u64) {
    let mut found = prices.search(Str::new(&prefix).starts_with()).into_stream();
    let mut total = (0, 0);
    while let Some((_, price)) = found.next() {
        total = (total.0 + 1, total.1 + price);
    }
    total
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(2);
    let article = |_| {
        (
            format!("{:016x}", random.number()),
            u64::from(random.below(10_000)),
        )
    };
    let prices: BTreeMap<String, u64> = (0..scaled(2_000_000)).map(article).collect();

    let prefixes: Vec<String> = (0..300).map(|n| format!("{:03x}", n * 13)).collect();
    let expected: Vec<(usize, u64)> = prefixes
        .iter()
        .map(|prefix| {
            let from_prefix = prices.range(prefix.clone()..);
            let found = from_prefix.take_while(|(code, _)| code.starts_with(prefix));
            found.fold((0, 0), |(count, sum), (_, price)| (count + 1, sum + price))
        })
        .collect();
    assert!(
        expected.iter().all(|(count, _)| *count > 0),
        "each prefix finds articles"
    );

    let bytes: Buffer<u8> = fst::Map::from_iter(prices)?.into_fst().into_inner().into();
    let builder = Invoker::builder_with_view::<Prices>(total).model(bytes);
    let invoker = builder.workers(workers()).build()?;
    let totals: Vec<(usize, u64)> = invoker.map(prefixes).collect::<Result<_, _>>()?;
    assert_eq!(totals, expected);
    check("fst_map", Copies::One, invoker)
}
