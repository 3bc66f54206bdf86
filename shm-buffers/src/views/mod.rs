//! Views of buffers as types of other crates, which models can contain. Each has a feature.

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
