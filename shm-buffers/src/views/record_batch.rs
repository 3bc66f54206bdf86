//! [`SharedRecordBatch`]: an Arrow record batch that a model can contain.

use std::fmt;
use std::sync::Arc;

use arrow_array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{ArrowError, Schema};
use serde::{Deserialize, Serialize};

use super::SharedArrow;

/// An immutable Arrow record batch over [`Buffer`](crate::Buffer)s, as a part of a model. Its schema, with the metadata, is
/// serialized with the model.
///
/// ```
/// use std::sync::Arc;
///
/// use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
/// use shm_buffers::{Backing, SharedRecordBatch, share_move};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let titles: ArrayRef = Arc::new(StringArray::from(vec![Some("Solaris"), None]));
/// let years: ArrayRef = Arc::new(Int64Array::from(vec![1972, 1979]));
/// let films = RecordBatch::try_from_iter([("title", titles), ("year", years)])?;
/// let expected = films.clone();
/// let image = share_move(SharedRecordBatch::from(films), &Backing::Auto)?;
///
/// let theirs: SharedRecordBatch = image.load()?; // in this or another process
/// assert_eq!(theirs.to_batch()?, expected); // reads the shared memory
/// # Ok(()) }
/// ```
#[derive(Clone, Serialize, Deserialize)]
pub struct SharedRecordBatch {
    schema: Schema,
    rows: usize,
    columns: Vec<SharedArrow>,
}

impl SharedRecordBatch {
    /// Copies the buffers of a batch, which are then shared or moved with the model.
    ///
    /// [`from`](Self::from) keeps them without a copy.
    pub fn copy(batch: &RecordBatch) -> Self {
        Self {
            schema: batch.schema_ref().as_ref().clone(),
            rows: batch.num_rows(),
            columns: batch
                .columns()
                .iter()
                .map(|column| SharedArrow::copy(column))
                .collect(),
        }
    }

    /// Returns the batch, over the shared memory. Each call checks everything that Arrow trusts (offsets, UTF-8, and that the
    /// columns match the schema), so keep the result.
    ///
    /// # Errors
    /// If the columns are not a valid batch of the schema.
    pub fn to_batch(&self) -> Result<RecordBatch, ArrowError> {
        let columns = self.columns.iter().map(SharedArrow::to_array);
        // A batch without columns has rows as well.
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        RecordBatch::try_new_with_options(
            self.schema.clone().into(),
            columns.collect::<Result<_, _>>()?,
            &options,
        )
    }

    /// Returns the names and types of the columns.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the columns, in the order of the schema.
    pub fn columns(&self) -> &[SharedArrow] {
        &self.columns
    }
}

/// Keeps the buffers of the batch, without a copy. They are copied once, when the model is shared. If nothing else refers to them, and
/// Arrow has allocated them, [`share_move`](crate::share_move) releases them while it copies.
impl From<RecordBatch> for SharedRecordBatch {
    fn from(batch: RecordBatch) -> Self {
        let (schema, columns, rows) = batch.into_parts();
        Self {
            schema: Arc::unwrap_or_clone(schema),
            rows,
            columns: columns.into_iter().map(SharedArrow::from).collect(),
        }
    }
}

impl fmt::Debug for SharedRecordBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRecordBatch")
            .field("schema", &self.schema)
            .field("rows", &self.rows)
            .finish_non_exhaustive()
    }
}
