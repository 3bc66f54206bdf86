//! What models are made of beside plain arrays: views of buffers in the terms of other crates, one feature each.

#[cfg(feature = "arrow")]
mod arrow;
#[cfg(feature = "ndarray")]
mod ndarray;
#[cfg(feature = "sprs")]
mod sprs;

#[cfg(feature = "arrow")]
pub use arrow::SharedArrow;
#[cfg(feature = "ndarray")]
pub use ndarray::SharedArray;
#[cfg(feature = "sprs")]
pub use sprs::SharedCsMat;
