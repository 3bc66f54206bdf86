//! A million buffers of 64 bytes, `Vec<Buffer<u8>>`, and the same as `Lists<u8>`.
//!
//! One copy of the bytes. Of the first, each worker makes an object for each buffer, of 64 bytes at most. `Lists` have none: prefer them
//! above 100,000 buffers, as the warning of `build` says.

use cookbook::{Copies, Random, check, scaled, workers};
use invoker::{BoxError, Buffer, Invoker, Lists};
use serde::{Deserialize, Serialize};

const BYTES: usize = 64;

#[derive(Serialize, Deserialize)]
struct Parts {
    parts: Vec<Buffer<u8>>,
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().copied().map(u64::from).sum()
}

fn of_buffers(model: &Parts, start: usize) -> u64 {
    let parts = model.parts.iter().skip(start).step_by(100);
    parts.map(|part| sum(part)).sum()
}

fn of_lists(model: &Lists<u8>, start: usize) -> u64 {
    model.iter().skip(start).step_by(100).map(sum).sum()
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(18);
    let count = scaled(1_000_000) as usize;
    let parts: Vec<[u8; BYTES]> = (0..count)
        .map(|_| std::array::from_fn(|_| random.number() as u8))
        .collect();
    let of_parts = |start| parts.iter().skip(start).step_by(100).map(|part| sum(part)).sum();
    let expected: Vec<u64> = (0..100).map(of_parts).collect();

    let lists: Lists<u8> = parts.iter().collect();
    let buffers = parts.iter().map(|part| Buffer::from(&part[..])).collect();
    drop(parts);
    let invoker = Invoker::builder(of_buffers)
        .model(Parts { parts: buffers })
        .workers(workers())
        .build()?;
    let found: Vec<u64> = invoker.map(0..100).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    check("many_buffers", Copies::OneInBuffers(count as u64), invoker)?;

    let invoker = Invoker::builder(of_lists)
        .model(lists)
        .workers(workers())
        .build()?;
    let found: Vec<u64> = invoker.map(0..100).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    check("many_buffers, Lists", Copies::One, invoker)
}
