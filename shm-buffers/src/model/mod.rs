//! Models: serde types whose big parts are [`Buffer`](crate::Buffer)s, shared as one image.

mod copy;
mod image;
pub(crate) mod scope;

pub use image::{Image, share, share_move};
