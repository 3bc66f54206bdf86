//! A recommender: for each user the items with the best scores, from two matrices of `ndarray` as `SharedArray`s.
//!
//! One copy. `view` returns an `ndarray::ArrayView` over the shared memory, with all of its operations.

use cookbook::{Copies, Random, check, scaled, workers};
use invoker::{BoxError, Invoker};
use ndarray::{Array1, Array2, ArrayView1, Ix2};
use serde::{Deserialize, Serialize};
use shm_buffers::SharedArray;

const FACTORS: usize = 64;
const BEST: usize = 10;

#[derive(Serialize, Deserialize)]
struct Factors {
    users: SharedArray<f32, Ix2>,
    items: SharedArray<f32, Ix2>,
}

/// Returns the best items for the user, with their scores.
fn top_k(factors: &Factors, user: usize) -> Vec<(usize, f32)> {
    best(factors.items.view().dot(&factors.users.view().row(user)).view())
}

fn best(scores: ArrayView1<'_, f32>) -> Vec<(usize, f32)> {
    let mut scores: Vec<(usize, f32)> = scores.iter().copied().enumerate().collect();
    let order = |a: &(usize, f32), b: &(usize, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    scores.select_nth_unstable_by(BEST, order);
    scores.truncate(BEST);
    scores.sort_by(order);
    scores
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let mut random = Random::new(1);
    // Small whole numbers: sums of their products are exact in any order.
    let mut matrix = |rows| Array2::from_shape_simple_fn((rows, FACTORS), || random.below(17) as f32 - 8.0);
    let (users, items) = (matrix(scaled(50_000) as usize), matrix(scaled(100_000) as usize));

    let tasks: Vec<usize> = (0..200).map(|n| n * 7).collect();
    let expected: Vec<Vec<(usize, f32)>> = tasks
        .iter()
        .map(|user| {
            let user = users.row(*user);
            let score = |item: ArrayView1<'_, f32>| item.iter().zip(user).map(|(a, b)| a * b).sum();
            best(
                items
                    .rows()
                    .into_iter()
                    .map(score)
                    .collect::<Array1<f32>>()
                    .view(),
            )
        })
        .collect();

    let factors = Factors {
        users: users.into(),
        items: items.into(),
    };
    let invoker = Invoker::builder(top_k)
        .model(factors)
        .workers(workers())
        .build()?;
    let found: Vec<Vec<(usize, f32)>> = invoker.map(tasks).collect::<Result<_, _>>()?;
    assert_eq!(found, expected);
    check("top_k", Copies::One, invoker)
}
