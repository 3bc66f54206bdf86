//! A catalogue as it is, nested structs with strings and maps, in the format of the crate `rkyv`: a `SharedArchive`.
//!
//! One copy. The types derive `rkyv::Archive`, and need not become buffers. The leader validates the archive once; the workers attach it
//! in a time that does not depend on its size, and read it in place.

use std::collections::HashMap;

use cookbook::{Copies, Random, check, scaled, workers};
use invoker::{BoxError, Invoker};
use shm_buffers::SharedArchive;

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Catalogue {
    products: HashMap<String, Product>,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Product {
    cents: u32,
    /// Its parts, with quantities.
    parts: Vec<Part>,
}

#[derive(rkyv::Archive, rkyv::Serialize)]
struct Part {
    code: String,
    quantity: Option<u32>,
}

/// Returns the price of a product with its parts, or `None` if it is not in the catalogue.
fn price(catalogue: &SharedArchive<Catalogue>, code: String) -> Option<u64> {
    let product = catalogue.products.get(code.as_str())?;
    let parts = product.parts.iter().map(|part| {
        let quantity = part.quantity.as_ref().map_or(1, |quantity| quantity.to_native());
        let part = catalogue.products.get(part.code.as_str());
        u64::from(quantity) * part.map_or(0, |part| u64::from(part.cents.to_native()))
    });
    Some(u64::from(product.cents.to_native()) + parts.sum::<u64>())
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(12);
    let codes: Vec<String> = (0..scaled(300_000)).map(|_| random.word(12)).collect();
    let mut part = |_| Part {
        code: codes[random.below(codes.len() as u32) as usize].clone(),
        quantity: Some(random.below(5)).filter(|quantity| *quantity > 0),
    };
    let mut product = |(number, code): (usize, &String)| {
        let parts = (0..number % 6).map(&mut part).collect();
        let cents = number as u32 % 9973;
        (code.clone(), Product { cents, parts })
    };
    let products: HashMap<String, Product> = codes.iter().enumerate().map(&mut product).collect();

    let mut asked: Vec<String> = codes.iter().step_by(100).take(300).cloned().collect();
    asked.push("unknown".to_owned());
    let expected: Vec<Option<u64>> = asked
        .iter()
        .map(|code| {
            let product = products.get(code)?;
            let cents = |part: &Part| u64::from(part.quantity.unwrap_or(1) * products[&part.code].cents);
            Some(u64::from(product.cents) + product.parts.iter().map(cents).sum::<u64>())
        })
        .collect();
    assert!(expected.iter().flatten().any(|cents| *cents > 10_000));

    let catalogue = SharedArchive::new(&Catalogue { products })?;
    let invoker = Invoker::builder(price)
        .model(catalogue)
        .workers(workers())
        .build()?;
    let prices: Vec<Option<u64>> = invoker.map(asked).collect::<Result<_, _>>()?;
    assert_eq!(prices, expected);
    check("archive", Copies::One, invoker)
}
