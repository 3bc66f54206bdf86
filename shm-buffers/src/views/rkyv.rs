//! [`SharedArchive`]: an archive of rkyv in a buffer, read where it is.
#![allow(unsafe_code, reason = "reads validated bytes as the archived type")]

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use rkyv::api::high::{HighSerializer, HighValidator};
use rkyv::bytecheck::CheckBytes;
use rkyv::rancor::Error;
use rkyv::ser::allocator::ArenaHandle;
use rkyv::ser::writer::IoWriter;
use rkyv::{Archive, Portable};
use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

use crate::buffer::element::Element;
use crate::buffer::{AlignedBytes, Buffer, kind_of, out_of_band};

/// An immutable value in the format of rkyv, as a model or a part of one. Any type that derives [`rkyv::Archive`] can be shared as it
/// is: maps, strings and nested structs need not become buffers.
///
/// It dereferences to `T::Archived`, which is read in shared memory without being rebuilt, and is as large as a [`Buffer`]. All
/// bytes are validated before they are used: [`Image::load`](crate::Image::load) reads an archive once for that.
/// [`Image::load_validated`](crate::Image::load_validated) leaves it out if another process of the same executable has validated
/// the archive, so that loading takes the same time for any size. (In `invoker`, the leader validates, and its worker processes
/// rely on it.) Archives do not record their type: bytes of another type may be valid by chance, and are wrong values then.
///
/// `T::Archived` must be `Sync`, so cells are excluded. Do not use rkyv's wrapper `AsAtomic`: as its documentation says, it needs
/// memory that can be written.
///
/// ```
/// use std::collections::HashMap;
///
/// use shm_buffers::{Backing, SharedArchive, share_move};
///
/// #[derive(rkyv::Archive, rkyv::Serialize)]
/// struct Model {
///     names: HashMap<String, Vec<u32>>,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let names = [("apple".to_owned(), vec![3, 7])].into();
/// let model = SharedArchive::new(&Model { names })?;
/// let image = share_move(model, &Backing::Auto)?;
///
/// let theirs: SharedArchive<Model> = image.load()?; // in this or another process
/// let apple = theirs.names.get("apple").ok_or("no apple")?;
/// assert_eq!(apple.as_slice(), [3, 7]);
/// # Ok(()) }
/// ```
pub struct SharedArchive<T> {
    /// A valid archive of `T`.
    bytes: Buffer<u8>,
    archived: PhantomData<fn() -> T>,
}

/// Why bytes are not an archive, or a value has none.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The value can't be archived.
    #[error("cannot archive a value of {type_name}")]
    Archive {
        /// The type of the value.
        type_name: &'static str,
        /// The reason.
        source: Error,
    },
    /// The bytes are not a valid archive of the type.
    #[error("the {len} bytes are not a valid archive of {type_name}; archive the value again with this type")]
    Invalid {
        /// The requested type.
        type_name: &'static str,
        /// The number of bytes.
        len: usize,
        /// The reason.
        source: Error,
    },
}

crate::debug_with_causes!(ArchiveError);

/// A type whose archives can be shared: it derives [`rkyv::Archive`], and its archived form can be validated and read by several
/// threads. It is implemented for all such types.
pub trait Archivable:
    Archive<Archived: Sync + Send + Portable + for<'a> CheckBytes<HighValidator<'a, Error>>> + 'static
{
}

impl<T> Archivable for T
where
    T: Archive + 'static,
    T::Archived: Sync + Send + Portable + for<'a> CheckBytes<HighValidator<'a, Error>>,
{
}

impl<T: Archivable> SharedArchive<T> {
    /// Archives a value.
    ///
    /// # Errors
    /// [`ArchiveError::Archive`] if a part of the value refuses.
    pub fn new(value: &T) -> Result<Self, ArchiveError>
    where
        T: for<'a> rkyv::Serialize<HighSerializer<IoWriter<AlignedBytes>, ArenaHandle<'a>, Error>>,
    {
        let written = rkyv::api::high::to_bytes_in::<_, Error>(value, IoWriter::new(AlignedBytes::new()));
        let bytes = written.map_err(|source| ArchiveError::Archive {
            type_name: std::any::type_name::<T>(),
            source,
        })?;
        // rkyv promises that these bytes are valid, but a type's own code wrote them.
        Self::from_bytes(bytes.into_inner().into())
    }

    /// Takes over an archive that was made elsewhere, for example a mapped file, and validates it: reads all of it once.
    ///
    /// # Errors
    /// [`ArchiveError::Invalid`] if the bytes are not a valid archive of `T`, or not aligned for it. Buffers of an
    /// [`Image`](crate::Image) and [`AlignedBytes`] are.
    pub fn from_bytes(bytes: Buffer<u8>) -> Result<Self, ArchiveError> {
        match rkyv::access::<T::Archived, Error>(&bytes) {
            Ok(_) => Ok(Self {
                bytes,
                archived: PhantomData,
            }),
            Err(source) => Err(ArchiveError::Invalid {
                type_name: std::any::type_name::<T>(),
                len: bytes.len(),
                source,
            }),
        }
    }

    /// Returns the bytes of the archive.
    pub fn bytes(&self) -> &Buffer<u8> {
        &self.bytes
    }
}

impl<T: Archivable> Deref for SharedArchive<T> {
    type Target = T::Archived;

    #[inline]
    fn deref(&self) -> &T::Archived {
        // SAFETY: every constructor has validated these very bytes as `T::Archived`, or has found them among those that another
        // process of the same executable has validated (`Image::load_validated`). They are immutable: a buffer allows no writes
        // while it lives, and `T::Archived` has no interior mutability, since it is `Sync`
        // and the wrapper for atomics demands memory that can be written.
        unsafe { rkyv::access_unchecked::<T::Archived>(&self.bytes) }
    }
}

impl<T> Clone for SharedArchive<T> {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            archived: PhantomData,
        }
    }
}

impl<T: Archivable<Archived: fmt::Debug>> fmt::Debug for SharedArchive<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl<T: Archivable<Archived: PartialEq>> PartialEq for SharedArchive<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

/// As a `Buffer<u8>`.
impl<T> Serialize for SharedArchive<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.bytes.serialize(serializer)
    }
}

impl<'de, T: Archivable> Deserialize<'de> for SharedArchive<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let in_full = |error: ArchiveError| format!("{:#}", crate::WithCauses(&error));
        if !out_of_band::is_loading() {
            let bytes = Vec::<u8>::deserialize(deserializer)?;
            let bytes = AlignedBytes::from(&*bytes);
            return Self::from_bytes(bytes.into()).map_err(|error| D::Error::custom(in_full(error)));
        }
        let index = u32::deserialize(deserializer)?;
        let wanted = (Element::of::<u8>(), std::any::type_name::<u8>());
        let bytes = out_of_band::take_back(index, wanted, Buffer::view).map_err(D::Error::custom)?;
        let kind = kind_of::<T>();
        if out_of_band::is_validated(index, kind) {
            return Ok(Self {
                bytes,
                archived: PhantomData,
            });
        }
        let archive = Self::from_bytes(bytes).map_err(|error| out_of_band::refused(in_full(error)))?;
        out_of_band::add_validated(index, kind);
        Ok(archive)
    }
}
