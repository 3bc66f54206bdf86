//! A table of sales as an Arrow record batch, `SharedRecordBatch`.
//!
//! One copy. The memory of the batch is moved into shared memory, without a copy in between. Each worker checks the columns once, when
//! it starts, and keeps the batch over the shared memory as its state.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, UInt32Type};
use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray, UInt32Array};
use cookbook::{Copies, Random, check, scaled, workers};
use invoker::{BoxError, Invoker};
use shm_buffers::SharedRecordBatch;

/// Returns the sum of a day's sales of books, in cents.
fn books(_: &SharedRecordBatch, sales: &mut RecordBatch, day: u32) -> i64 {
    let (days, products) = (
        sales["day"].as_primitive::<UInt32Type>(),
        sales["product"].as_string::<i32>(),
    );
    let cents = sales["cents"].as_primitive::<Int64Type>().values();
    // The days are sorted.
    let start = days.values().partition_point(|it| *it < day);
    let end = days.values().partition_point(|it| *it <= day);
    let is_book = |row: &usize| products.value(*row).starts_with("book");
    (start..end).filter(is_book).map(|row| cents[row]).sum()
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    const KINDS: [&str; 3] = ["book", "film", "game"];
    let mut random = Random::new(3);
    let rows: Vec<(u32, String, i64)> = (0..scaled(1_500_000))
        .map(|row| {
            let kind = KINDS[random.below(3) as usize];
            (
                row / 500,
                format!("{kind} {:05}", random.below(50_000)),
                random.below(9000).into(),
            )
        })
        .collect();

    let days: Vec<u32> = (0..300).collect();
    let mut expected = vec![0; days.len()];
    for (day, product, cents) in &rows {
        if let (Some(sum), true) = (expected.get_mut(*day as usize), product.starts_with("book")) {
            *sum += cents;
        }
    }

    let columns: [(&str, ArrayRef); 3] = [
        (
            "day",
            Arc::new(rows.iter().map(|row| row.0).collect::<UInt32Array>()),
        ),
        (
            "product",
            Arc::new(rows.iter().map(|row| Some(&row.1)).collect::<StringArray>()),
        ),
        (
            "cents",
            Arc::new(rows.iter().map(|row| row.2).collect::<Int64Array>()),
        ),
    ];
    let sales = SharedRecordBatch::from(RecordBatch::try_from_iter(columns)?);
    let state = |sales: &SharedRecordBatch| Ok(sales.to_batch()?);
    let builder = Invoker::builder_with_state(state, books).model(sales);
    let invoker = builder.workers(workers()).build()?;
    let sums: Vec<i64> = invoker.map(days).collect::<Result<_, _>>()?;
    assert_eq!(sums, expected);
    check("record_batch", Copies::One, invoker)
}
