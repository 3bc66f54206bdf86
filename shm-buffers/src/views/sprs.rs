//! [`SharedCsMat`]: a sparse matrix over [`Buffer`]s.

use std::fmt;
use std::ops::Deref;

use bytemuck::Pod;
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use sprs::errors::StructureError;
use sprs::{CompressedStorage, CsMatBase, CsMatI, CsMatViewI, SpIndex};

use crate::buffer::{Buffer, out_of_band};

type Matrix<T, I, Iptr> = CsMatBase<T, I, Buffer<Iptr>, Buffer<I>, Buffer<T>, Iptr>;

/// An immutable sparse matrix, compressed by rows (CSR) or by columns (CSC), over [`Buffer`]s, as a part of a model.
///
/// It dereferences to a `sprs` matrix whose three arrays are shared. `sprs` trusts their structure, so loading the matrix
/// checks it: each process reads the indices once, but not the data. Indices of type `u32` take half the memory of the
/// default and have the same size on every platform.
///
/// ```
/// use shm_buffers::{Backing, SharedCsMat, share};
/// use sprs::{CsMatI, TriMatI};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut ratings = TriMatI::<f32, u32>::new((3, 4));
/// ratings.add_triplet(0, 1, 5.0);
/// ratings.add_triplet(2, 3, 4.0);
/// let ratings: CsMatI<f32, u32> = ratings.to_csr();
/// let image = share(&SharedCsMat::from(ratings), &Backing::Auto)?;
///
/// let theirs: SharedCsMat<f32, u32> = image.load()?; // in this or another process
/// assert_eq!(theirs.view().get(2, 3), Some(&4.0));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SharedCsMat<T, I: SpIndex = usize, Iptr: SpIndex = I>(Matrix<T, I, Iptr>);

impl<T, I, Iptr> SharedCsMat<T, I, Iptr>
where
    T: Pod + Send + Sync,
    I: SpIndex + Pod,
    Iptr: SpIndex + Pod,
{
    /// Creates a matrix of `shape` (rows, columns) from its arrays: the start of each row (CSR) or column (CSC), the sorted
    /// indices in each of them, and their values.
    ///
    /// # Errors
    /// If the arrays are not a valid matrix.
    pub fn new(
        storage: CompressedStorage,
        shape: (usize, usize),
        indptr: Buffer<Iptr>,
        indices: Buffer<I>,
        data: Buffer<T>,
    ) -> Result<Self, StructureError> {
        let matrix = match storage {
            CompressedStorage::CSR => CsMatBase::try_new(shape, indptr, indices, data),
            CompressedStorage::CSC => CsMatBase::try_new_csc(shape, indptr, indices, data),
        };
        matrix.map(Self).map_err(|(.., error)| error)
    }

    /// Returns the matrix as a view of `sprs`.
    pub fn view(&self) -> CsMatViewI<'_, T, I, Iptr> {
        self.0.view()
    }
}

impl<T, I, Iptr> Deref for SharedCsMat<T, I, Iptr>
where
    I: SpIndex,
    Iptr: SpIndex,
{
    type Target = CsMatBase<T, I, Buffer<Iptr>, Buffer<I>, Buffer<T>, Iptr>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Takes over the three arrays.
impl<T, I, Iptr> From<CsMatI<T, I, Iptr>> for SharedCsMat<T, I, Iptr>
where
    T: Pod + Send + Sync,
    I: SpIndex + Pod,
    Iptr: SpIndex + Pod,
{
    fn from(matrix: CsMatI<T, I, Iptr>) -> Self {
        let (storage, shape) = (matrix.storage(), matrix.shape());
        let (indptr, indices, data) = matrix.into_raw_storage();
        Self::new(storage, shape, indptr.into(), indices.into(), data.into())
            .expect("the structure of a valid matrix")
    }
}

impl<T: fmt::Debug, I: SpIndex, Iptr: SpIndex> fmt::Debug for SharedCsMat<T, I, Iptr> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedCsMat")
            .field("storage", &self.0.storage())
            .field("shape", &self.0.shape())
            .field("stored", &self.0.nnz())
            .finish_non_exhaustive()
    }
}

impl<T: PartialEq, I: SpIndex, Iptr: SpIndex> PartialEq for SharedCsMat<T, I, Iptr> {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        a.storage() == b.storage()
            && a.shape() == b.shape()
            && a.indptr().raw_storage() == b.indptr().raw_storage()
            && a.indices() == b.indices()
            && a.data() == b.data()
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
enum Storage {
    Csr,
    Csc,
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "SharedCsMat")]
#[serde(bound(
    serialize = "T: Pod + Send + Sync, I: Pod + Send + Sync, P: Pod + Send + Sync",
    deserialize = "T: Pod + Send + Sync, I: Pod + Send + Sync, P: Pod + Send + Sync"
))]
struct MatrixRepr<T, I, P> {
    storage: Storage,
    rows: usize,
    columns: usize,
    indptr: Buffer<P>,
    indices: Buffer<I>,
    data: Buffer<T>,
}

impl<T, I, Iptr> Serialize for SharedCsMat<T, I, Iptr>
where
    T: Pod + Send + Sync,
    I: SpIndex + Pod,
    Iptr: SpIndex + Pod,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (rows, columns) = self.0.shape();
        let storage = match self.0.storage() {
            CompressedStorage::CSR => Storage::Csr,
            CompressedStorage::CSC => Storage::Csc,
        };
        let (indptr, indices, data) = self.0.clone().into_raw_storage();
        let repr = MatrixRepr {
            storage,
            rows,
            columns,
            indptr,
            indices,
            data,
        };
        repr.serialize(serializer)
    }
}

impl<'de, T, I, Iptr> Deserialize<'de> for SharedCsMat<T, I, Iptr>
where
    T: Pod + Send + Sync,
    I: SpIndex + Pod,
    Iptr: SpIndex + Pod,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let repr = MatrixRepr::deserialize(deserializer)?;
        let storage = match repr.storage {
            Storage::Csr => CompressedStorage::CSR,
            Storage::Csc => CompressedStorage::CSC,
        };
        let shape = (repr.rows, repr.columns);
        Self::new(storage, shape, repr.indptr, repr.indices, repr.data).map_err(out_of_band::refused)
    }
}
