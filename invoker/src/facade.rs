//! Items that the crates `cluster-run` and `invoker-nats` need to run ops on other machines. They are not part of the public interface, and change
//! freely.
//!
//! The leader has the op's types, encodes tasks and decodes outputs; a node has an invoker, whose pool takes the encoded tasks as
//! they are. To publish these would fix how seeds and values of ops travel.

use proc_pool::{BoxError, BytePool, Codec, Native};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::Image;

use crate::builder::Builder;
use crate::error::Error;
use crate::invoker::Invoker;
use crate::op::Op;
use crate::op_builder::OpBuilder;
pub use crate::run_progress::RunProgress;
pub use crate::runner::OneShot;
use crate::seed::{Bare, SeedFirst, Seeded};

/// Returns the values of an op that are sent to workers: contexts, retries, initial values of folds.
pub fn op_data<F, M, T, R>(op: OpBuilder<F, M, T, R>) -> F::Data
where
    F: Op<M, T, R>,
{
    op.into_op().split().1
}

/// Replaces the values of an op that are sent to workers.
pub fn with_op_data<'m, F, M, T, R>(
    builder: Builder<'m, F, M, T, R>,
    data: F::Data,
) -> Builder<'m, F, M, T, R>
where
    F: Op<M, T, R>,
{
    builder.map_op(|op| F::join(op.split().0, data))
}

/// Appends the encoding of a task as workers of an invoker with this root seed decode it. `index` is the task's position.
///
/// # Errors
/// That of the task's own serialization.
pub fn encode_task<T: Serialize + DeserializeOwned>(
    root: Option<u64>,
    index: u64,
    task: T,
    into: &mut Vec<u8>,
) -> Result<(), BoxError> {
    let seeded = Seeded::new(root, index, task);
    match root {
        Some(_) => SeedFirst::encode(&seeded, into),
        None => match Bare::as_bytes(&seeded) {
            Some(bytes) => {
                into.extend_from_slice(bytes);
                Ok(())
            }
            None => Bare::encode(&seeded, into),
        },
    }
}

/// Decodes an output as the pool of an invoker encodes it.
///
/// # Errors
/// That of the output's own deserialization.
pub fn decode_output<R: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<R, BoxError> {
    Native::decode(bytes)
}

/// Returns the pool of an invoker with worker processes, for tasks that are encoded already, and the image of its model.
///
/// # Errors
/// [`Error::Unsupported`] with other executors.
pub fn pool<M, T, R>(invoker: &Invoker<M, T, R>) -> Result<(&BytePool, &Image), Error>
where
    M: Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    invoker.pool_and_image()
}

/// Counts outputs of that pool in the invoker's report and bar.
pub fn count<M, T, R>(invoker: &Invoker<M, T, R>, done: u64, failed: u64) {
    invoker.count_all(done, failed);
}

/// Starts the clock of the invoker's report.
pub fn start_run<M, T, R>(invoker: &Invoker<M, T, R>) {
    invoker.start_run();
}
