//! [`attach`]: the model of a worker process.
#![allow(unsafe_code, reason = "the leader has validated the archives of the model")]

use proc_pool::BoxError;
use serde::de::DeserializeOwned;
use shm_buffers::{Image, SegmentHandle, Validated};

/// Attaches the model by the values of the leader's `Init`. Archives that the leader has validated are not validated again.
pub(super) fn attach<M: DeserializeOwned>(
    image: &SegmentHandle,
    validated: &Validated,
) -> Result<M, BoxError> {
    let image = Image::attach(image)?;
    // SAFETY: `ProcessRunner::start` made the values of `Init`, `validated` with the result of `load_validating` of the same image, and proc-pool gives
    // it only to processes of the leader's executable. A frozen segment does not change, and a mapped file must not: its opener
    // has promised that.
    let model = unsafe { image.load_validated(validated) }?;
    Ok(model)
}
