//! Models that stay their owner's, and models that were built where they are shared.

use invoker::{Backing, Buffer, Executor, Invoker, Workers};
use shm_buffers::BufferMut;

use crate::executors::EXECUTORS;

fn at(model: &Buffer<u64>, n: usize) -> u64 {
    model[n]
}

#[test]
fn a_model_by_reference_stays() {
    let model: Buffer<u64> = (0..1000).map(|n| n * n).collect();
    for (executor, workers) in EXECUTORS {
        let builder = Invoker::builder(at).model_ref(&model).executor(executor);
        let invoker = builder.workers(workers).build().expect("it builds");
        let outputs = invoker.map(0..1000).map(|out| out.expect("none fails"));
        assert!(outputs.eq(model.iter().copied()), "{executor:?}");
        assert_eq!(invoker.model(), &model);
    }
}

#[test]
fn the_report_tells_of_all_of_the_models_bytes() {
    const LEN: usize = 200_000;
    let built = BufferMut::from_fn(&Backing::Auto, LEN, |n| n as u64).expect("there is room");
    let model = built.freeze().expect("it freezes");
    let builder = Invoker::builder(at).model(model).executor(Executor::Processes);
    let invoker = builder.workers(Workers::Count(1)).build().expect("it builds");
    assert_eq!(invoker.map([7]).next().expect("an output").expect("it runs"), 7);
    let bytes = invoker
        .finish()
        .expect("it ends well")
        .model
        .expect("it was shared")
        .bytes;
    assert!(
        (8 * LEN as u64..8 * LEN as u64 + 4096).contains(&bytes),
        "{bytes}"
    );
}
