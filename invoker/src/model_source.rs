//! [`ModelSource`]: where a builder takes its model from.

use serde::Serialize;
use serde::de::DeserializeOwned;
use shm_buffers::{Backing, Image};

use crate::error::Error;

pub(crate) enum ModelSource<'m, M> {
    Value(M),
    Reference(&'m M),
    Image(Image),
}

impl<M: Serialize + DeserializeOwned> ModelSource<'_, M> {
    /// Returns the model in shared memory. A value is moved there: its pages are released on the way.
    pub(crate) fn share(self, backing: &Backing) -> Result<Image, Error> {
        Ok(match self {
            Self::Value(model) => shm_buffers::share_move(model, backing)?,
            Self::Reference(model) => shm_buffers::share(model, backing)?,
            Self::Image(image) => image,
        })
    }

    /// Returns the hash of the model's contents.
    pub(crate) fn fingerprint(&self) -> Result<u64, Error> {
        Ok(match self {
            Self::Value(model) => shm_buffers::fingerprint(model)?,
            Self::Reference(model) => shm_buffers::fingerprint(*model)?,
            Self::Image(image) => shm_buffers::fingerprint(&image.load::<M>()?)?,
        })
    }

    /// Returns the model for ops in this process. A value stays where it is.
    pub(crate) fn load(self) -> Result<M, Error> {
        match self {
            Self::Value(model) => Ok(model),
            shared => Ok(shared.share(&Backing::Auto)?.load()?),
        }
    }
}
