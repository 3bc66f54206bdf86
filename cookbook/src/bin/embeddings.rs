//! Rows of fixed length, `Buffer<[f32; 64]>`: arrays of any length are elements of a buffer, as is any `Pod` type.
//!
//! One copy.

use cookbook::{Copies, Random, check, scaled, workers};
use invoker::{BoxError, Buffer, Invoker};

type Row = [f32; 64];

fn dot(one: &Row, other: &Row) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

/// Returns the row that is most similar to this one, apart from itself.
fn nearest(rows: &Buffer<Row>, of: usize) -> Option<usize> {
    let others = (0..rows.len()).filter(|row| *row != of);
    others.max_by(|a, b| dot(&rows[*a], &rows[of]).total_cmp(&dot(&rows[*b], &rows[of])))
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(17);
    // Small whole numbers: sums of their products are exact.
    let mut rows: Vec<Row> = (0..scaled(200_000))
        .map(|_| std::array::from_fn(|_| random.below(17) as f32 - 8.0))
        .collect();
    // Each of the first hundred has a row that is as long as possible in its direction.
    let count = rows.len();
    for row in 0..100 {
        rows[count - 1 - row] = rows[row].map(|element| 8.0 * element.signum());
    }
    let expected: Vec<Option<usize>> = (0..100).map(|row| Some(count - 1 - row)).collect();
    let rows: Buffer<Row> = rows.into();
    let invoker = Invoker::builder(nearest).model(rows).workers(workers()).build()?;
    let found: Vec<Option<usize>> = invoker.map(0..100).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    check("embeddings", Copies::One, invoker)
}
