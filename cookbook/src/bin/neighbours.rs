//! The nearest neighbours of vectors, the C++ library `usearch`: an index over the bytes of a `Buffer<u8>`.
//!
//! One copy. Each worker makes a view of the index when it starts, which has a table with a few words for each vector. Vectors and
//! graph are read in place.
#![allow(unsafe_code, reason = "usearch borrows the bytes without a lifetime")]

use std::marker::PhantomData;

use cookbook::{Copies, Random, check, scaled, workers};
use invoker::{AlignedBytes, BoxError, Buffer, Invoker, View};
use usearch::{Index, IndexOptions, MetricKind, ScalarKind};

const DIMENSIONS: usize = 512;
const NEAREST: usize = 10;

fn options() -> IndexOptions {
    IndexOptions {
        dimensions: DIMENSIONS,
        metric: MetricKind::L2sq,
        quantization: ScalarKind::F32,
        connectivity: 16,
        expansion_add: 32,
        expansion_search: 32,
        multi: false,
    }
}

/// An index that reads borrowed bytes.
struct Borrowed<'m> {
    index: Index,
    bytes: PhantomData<&'m [u8]>,
}

struct Neighbours;

impl View<Buffer<u8>> for Neighbours {
    type Of<'m> = Borrowed<'m>;

    fn view(bytes: &Buffer<u8>) -> Result<Borrowed<'_>, BoxError> {
        let index = Index::new(&options())?;
        // SAFETY: the index is dropped before the bytes, which `Borrowed` borrows. They don't change, since a buffer is immutable. The
        // index does not write to them: nothing here adds or removes vectors. This program made them with `save_to_buffer`.
        unsafe { index.view_from_buffer(bytes)? };
        Ok(Borrowed {
            index,
            bytes: PhantomData,
        })
    }
}

/// Returns the numbers of the nearest vectors, from the nearest on.
fn nearest(_: &Buffer<u8>, borrowed: &mut Borrowed, vector: Vec<f32>) -> Vec<u64> {
    find(&borrowed.index, &vector)
}

fn find(index: &Index, vector: &[f32]) -> Vec<u64> {
    let found = index.search(vector, NEAREST);
    found.expect("a vector of the right length").keys
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(13);
    let count = u64::from(scaled(15_000));
    let index = Index::new(&options())?;
    index.reserve(count as usize)?;
    let mut vector = || -> Vec<f32> { (0..DIMENSIONS).map(|_| random.below(1000) as f32).collect() };
    for key in 0..count {
        index.add(key, &vector())?;
    }
    let vectors: Vec<Vec<f32>> = (0..300).map(|_| vector()).collect();
    let expected: Vec<Vec<u64>> = vectors.iter().map(|vector| find(&index, vector)).collect();
    assert!(expected.iter().all(|found| found.len() == NEAREST));

    let mut bytes = AlignedBytes::zeroed(index.serialized_length());
    index.save_to_buffer(&mut bytes)?;
    drop(index);
    let model: Buffer<u8> = bytes.into();
    let builder = Invoker::builder_with_view::<Neighbours>(nearest).model(model);
    let invoker = builder.workers(workers()).build()?;
    let found: Vec<Vec<u64>> = invoker.map(vectors).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    check("neighbours", Copies::One, invoker)
}
