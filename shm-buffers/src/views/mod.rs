//! Views of buffers as types of other crates, which models can contain. Each has a feature.

#[cfg(feature = "arrow")]
mod arrow;
#[cfg(feature = "ndarray")]
mod ndarray;
#[cfg(feature = "arrow")]
mod record_batch;
#[cfg(feature = "rkyv")]
mod rkyv;
#[cfg(feature = "sprs")]
mod sprs;

#[cfg(feature = "arrow")]
pub use arrow::SharedArrow;
#[cfg(feature = "ndarray")]
pub use ndarray::SharedArray;
#[cfg(feature = "arrow")]
pub use record_batch::SharedRecordBatch;
#[cfg(feature = "rkyv")]
pub use rkyv::{Archivable, ArchiveError, SharedArchive};
#[cfg(feature = "sprs")]
pub use sprs::SharedCsMat;
