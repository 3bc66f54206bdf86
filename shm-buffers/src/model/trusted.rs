//! Loads a model without validating again what another process has validated.
#![allow(
    unsafe_code,
    reason = "the caller promises that the bytes are those that were validated"
)]

use serde::de::DeserializeOwned;

use super::error::LoadError;
use super::image::Image;
use crate::buffer::Validated;

impl Image {
    /// Like [`load`](Self::load), and also returns which archives (`SharedArchive`, with the feature `rkyv`) of the model are valid.
    /// Another process can load the model with [`load_validated`](Self::load_validated) then.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_validating<M: DeserializeOwned>(&self) -> Result<(M, Validated), LoadError> {
        self.load_known(&Validated::default())
    }

    /// Like [`load`](Self::load), but does not validate the archives in `validated` again. So the time does not depend on their
    /// size. Everything else is checked as `load` does.
    ///
    /// # Safety
    /// `validated` comes from [`load_validating`](Self::load_validating) of an image of the same segments, in this process or in
    /// another one of the same executable, and the bytes have not changed since.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub unsafe fn load_validated<M: DeserializeOwned>(&self, validated: &Validated) -> Result<M, LoadError> {
        Ok(self.load_known(validated)?.0)
    }
}
