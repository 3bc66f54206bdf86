//! [`Csr`]: a compressed sparse row matrix whose arrays are shared buffers.

use serde::{Deserialize, Serialize};
use shm_buffers::Buffer;

/// A sparse matrix of `f64` in compressed sparse row form.
///
/// Row `r` holds `indices[indptr[r]..indptr[r + 1]]` and the values at the same positions.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Csr {
    indptr: Buffer<u64>,
    indices: Buffer<u32>,
    values: Buffer<f64>,
}

impl Csr {
    /// Builds a matrix from rows, each a list of (column, value). Entries are stored in the given order.
    pub(crate) fn from_rows<R>(rows: impl IntoIterator<Item = R>) -> Self
    where
        R: IntoIterator<Item = (u32, f64)>,
    {
        let (mut indptr, mut indices, mut values) = (vec![0], Vec::new(), Vec::new());
        for row in rows {
            for (column, value) in row {
                indices.push(column);
                values.push(value);
            }
            indptr.push(indices.len() as u64);
        }
        Self {
            indptr: indptr.into(),
            indices: indices.into(),
            values: values.into(),
        }
    }

    /// Returns the number of rows.
    pub(crate) fn rows(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Returns the number of stored entries.
    pub(crate) fn entries(&self) -> usize {
        self.indices.len()
    }

    /// Returns the columns and the values of row `row`, in stored order.
    pub(crate) fn row(&self, row: usize) -> (&[u32], &[f64]) {
        let range = self.indptr[row] as usize..self.indptr[row + 1] as usize;
        (&self.indices[range.clone()], &self.values[range])
    }

    /// Returns the size of the three arrays in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.indptr[..]) + size_of_val(&self.indices[..]) + size_of_val(&self.values[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_the_order_of_their_entries() {
        let m = Csr::from_rows([vec![(3, 1.0), (1, 2.0)], vec![], vec![(0, -1.0)]]);
        assert_eq!((m.rows(), m.entries()), (3, 3));
        assert_eq!(m.row(0), (&[3, 1][..], &[1.0, 2.0][..]));
        assert_eq!(m.row(1), (&[][..], &[][..]));
        assert_eq!(m.row(2), (&[0][..], &[-1.0][..]));
        assert_eq!(m.bytes(), 4 * 8 + 3 * 4 + 3 * 8);
    }

    #[test]
    fn a_matrix_may_have_no_rows() {
        let m = Csr::from_rows(Vec::<Vec<(u32, f64)>>::new());
        assert_eq!((m.rows(), m.entries()), (0, 0));
    }
}
