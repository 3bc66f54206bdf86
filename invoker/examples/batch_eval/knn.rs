//! Item-item k-nearest-neighbour collaborative filtering for explicit ratings: training and scoring.
//!
//! The recommender of B. Sarwar, G. Karypis, J. Konstan, J. Riedl, "Item-based collaborative filtering
//! recommendation algorithms", WWW 2001, and M. Deshpande, G. Karypis, "Item-based top-N recommendation
//! algorithms", ACM TOIS 22(1), 2004, in the form that LensKit 0.14 calls
//! `ItemItem(nnbrs=20, min_sim=1e-6, save_nbrs=100)`, whose results it reproduces to rounding.

use serde::{Deserialize, Serialize};
use shm_buffers::Buffer;

use crate::csr::Csr;

/// Similarities below this are not kept.
const MIN_SIMILARITY: f64 = 1e-6;
/// Neighbours kept for an item.
const STORED_NEIGHBOURS: usize = 100;
/// Neighbours that take part in a score.
const SCORING_NEIGHBOURS: usize = 20;

/// A trained model. Items are addressed by their position in the table of ids.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ItemKnn {
    /// Item ids, ascending.
    items: Buffer<u32>,
    /// Mean training rating of each item; NaN for an item without one.
    means: Buffer<f64>,
    /// Row = target item: its neighbours and their similarities, most similar first.
    neighbours: Csr,
}

/// A recommended item.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rec {
    /// Position of the item.
    pub(crate) item: u32,
    /// Predicted rating.
    pub(crate) score: f64,
}

impl ItemKnn {
    /// Trains on ratings by user (row = user, column = item position).
    ///
    /// Ratings are centred on their item's mean. The similarity of two items is the cosine of their centred
    /// vectors over all users, where a missing rating counts as zero. An item is not its own neighbour. Among
    /// equally similar items at the cut, the bounded heap of LensKit decides, filled in the order of ids.
    pub(crate) fn train(items: Vec<u32>, ratings: &Csr) -> Self {
        let columns = transpose(ratings, items.len());
        let means: Vec<f64> = columns.iter().map(|column| mean(column)).collect();
        // The centred unit vectors, by user (rows of item and value) and by item (columns of user and position in
        // the user's row).
        let mut rows = vec![Vec::new(); ratings.rows()];
        let mut positions = vec![Vec::new(); items.len()];
        for (item, (column, mean)) in (0_u32..).zip(columns.iter().zip(&means)) {
            for (user, value) in unit_vector(column, *mean) {
                positions[item as usize].push((user as usize, rows[user as usize].len()));
                rows[user as usize].push((item, value));
            }
        }

        // For each item, the dot products with all later items, summed over users in ascending order. A product
        // serves both of its items; each item is offered its candidates in ascending order.
        let mut nearest: Vec<Nearest> = items.iter().map(|_| Nearest::default()).collect();
        let mut dots = vec![0.0; items.len()];
        let mut seen = vec![false; items.len()];
        let mut candidates = Vec::new();
        for (item, positions) in (0_u32..).zip(positions) {
            for (user, position) in positions {
                let (_, value) = rows[user][position];
                for &(other, other_value) in &rows[user][position + 1..] {
                    dots[other as usize] += value * other_value;
                    if !seen[other as usize] {
                        seen[other as usize] = true;
                        candidates.push(other);
                    }
                }
            }
            candidates.retain(|&other| {
                seen[other as usize] = false;
                let similar = dots[other as usize] >= MIN_SIMILARITY;
                if !similar {
                    dots[other as usize] = 0.0;
                }
                similar
            });
            candidates.sort_unstable();
            for other in candidates.drain(..) {
                let similarity = std::mem::take(&mut dots[other as usize]);
                nearest[item as usize].offer(other, similarity);
                nearest[other as usize].offer(item, similarity);
            }
        }
        let neighbours = Csr::from_rows(nearest.into_iter().map(Nearest::into_sorted));
        Self {
            items: items.into(),
            means: means.into(),
            neighbours,
        }
    }

    /// Returns the id of the item at a position.
    pub(crate) fn item_id(&self, item: u32) -> u32 {
        self.items[item as usize]
    }

    /// Returns the number of items.
    pub(crate) fn items(&self) -> usize {
        self.items.len()
    }

    /// Returns the number of stored (item, neighbour) pairs.
    pub(crate) fn pairs(&self) -> usize {
        self.neighbours.entries()
    }

    /// Returns the size of the arrays in bytes.
    pub(crate) fn bytes(&self) -> usize {
        size_of_val(&self.items[..]) + size_of_val(&self.means[..]) + self.neighbours.bytes()
    }

    /// Prepares scoring for a user with these training ratings (item positions and ratings).
    pub(crate) fn profile(&self, (items, ratings): (&[u32], &[f64])) -> Profile<'_> {
        let mut deviations = vec![f64::NAN; self.items()];
        for (&item, rating) in items.iter().zip(ratings) {
            deviations[item as usize] = rating - self.means[item as usize];
        }
        Profile {
            model: self,
            deviations,
        }
    }
}

/// The ratings of one user, prepared for scoring.
#[derive(Debug)]
pub(crate) struct Profile<'a> {
    model: &'a ItemKnn,
    /// The user's rating minus the item's mean; NaN for an item the user has not rated.
    deviations: Vec<f64>,
}

impl Profile<'_> {
    /// Returns the predicted rating of an item:
    /// `mean_i + sum(w_ij * (r_uj - mean_j)) / sum(w_ij)` over the first 20 of the item's neighbours `j` that
    /// the user has rated. `None` if the user has rated none of them.
    pub(crate) fn score(&self, item: u32) -> Option<f64> {
        let (neighbours, similarities) = self.model.neighbours.row(item as usize);
        let (mut used, mut weighted, mut weights, mut last) = (0, 0.0, 0.0, 0.0);
        for (&neighbour, &similarity) in neighbours.iter().zip(similarities) {
            let deviation = self.deviations[neighbour as usize];
            if deviation.is_nan() {
                continue;
            }
            weighted += similarity * deviation;
            weights += similarity;
            last = deviation;
            used += 1;
            if used == SCORING_NEIGHBOURS {
                break;
            }
        }
        let mean = self.model.means[item as usize];
        match used {
            0 => None,
            // The weight of a single neighbour cancels; dividing by it would only add a rounding error.
            1 => Some(mean + last),
            _ => Some(mean + weighted / weights),
        }
    }

    /// Returns the `top` items with the highest scores among those the user has not rated, best first; ties by lower id.
    pub(crate) fn recommend(&self, top: usize) -> Vec<Rec> {
        let unrated = (0_u32..)
            .zip(&self.deviations)
            .filter(|(_, deviation)| deviation.is_nan());
        let mut recs: Vec<Rec> = unrated
            .filter_map(|(item, _)| {
                Some(Rec {
                    item,
                    score: self.score(item)?,
                })
            })
            .collect();
        // Ids ascend with positions.
        let best_first = |a: &Rec, b: &Rec| b.score.total_cmp(&a.score).then(a.item.cmp(&b.item));
        if recs.len() > top {
            recs.select_nth_unstable_by(top, best_first);
            recs.truncate(top);
        }
        recs.sort_unstable_by(best_first);
        recs
    }
}

/// Returns the columns of a matrix as lists of (row, value), rows ascending.
fn transpose(matrix: &Csr, columns: usize) -> Vec<Vec<(u32, f64)>> {
    let mut transposed = vec![Vec::new(); columns];
    for row in 0..matrix.rows() {
        let (indices, values) = matrix.row(row);
        for (&column, &value) in indices.iter().zip(values) {
            transposed[column as usize].push((row as u32, value));
        }
    }
    transposed
}

/// Returns the mean rating of an item. Exact if all ratings are equal: they are then centred to zero, and not to a
/// rounding error that would be scaled up to a unit vector.
fn mean(column: &[(u32, f64)]) -> f64 {
    match column {
        [(_, first), rest @ ..] if rest.iter().all(|(_, value)| value == first) => *first,
        _ => column.iter().map(|(_, value)| value).sum::<f64>() / column.len() as f64,
    }
}

/// Returns the centred vector of an item, scaled to length 1; empty if all entries are zero.
///
/// Multiplies by the reciprocal of the norm, as LensKit does: a division would round differently, and similarities that
/// are equal there would differ here.
fn unit_vector(column: &[(u32, f64)], mean: f64) -> Vec<(u32, f64)> {
    let norm = column
        .iter()
        .map(|(_, value)| (value - mean).powi(2))
        .sum::<f64>()
        .sqrt();
    if norm == 0.0 {
        return Vec::new();
    }
    let scale = norm.recip();
    column
        .iter()
        .map(|&(user, value)| (user, (value - mean) * scale))
        .collect()
}

/// The most similar items offered so far: a min-heap of at most [`STORED_NEIGHBOURS`].
///
/// It moves its entries exactly as LensKit's `kvp_minheap_insert` and `kvp_minheap_sort` do. Many similarities in rating
/// data are equal (two items with the same two raters have a cosine of 1), so scores depend on which of them are kept, and
/// in which order.
#[derive(Default)]
struct Nearest(Vec<(u32, f64)>);

impl Nearest {
    fn offer(&mut self, item: u32, similarity: f64) {
        let heap = &mut self.0;
        if heap.len() < STORED_NEIGHBOURS {
            heap.push((item, similarity));
            let mut at = heap.len() - 1;
            while at > 0 && heap[(at - 1) / 2].1 > heap[at].1 {
                heap.swap(at, (at - 1) / 2);
                at = (at - 1) / 2;
            }
        } else if similarity > heap[0].1 {
            heap[0] = (item, similarity);
            sift_down(heap);
        }
    }

    fn into_sorted(self) -> Vec<(u32, f64)> {
        let mut heap = self.0;
        for last in (1..heap.len()).rev() {
            heap.swap(0, last);
            sift_down(&mut heap[..last]);
        }
        heap
    }
}

/// Restores the order of a min-heap after its root was replaced.
fn sift_down(heap: &mut [(u32, f64)]) {
    let mut at = 0;
    loop {
        let mut least = at;
        for child in [2 * at + 1, 2 * at + 2] {
            if child < heap.len() && heap[child].1 < heap[least].1 {
                least = child;
            }
        }
        if least == at {
            return;
        }
        heap.swap(at, least);
        at = least;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three items, four users, worked out by hand: item means 3, 3, 3; centred columns
    /// a = (-2, 0, 2, -), b = (-1, -, 1, 0), c = (-, 1, -1, 0).
    fn small() -> (ItemKnn, Csr) {
        let ratings = Csr::from_rows([
            vec![(0, 1.0), (1, 2.0)],
            vec![(0, 3.0), (2, 4.0)],
            vec![(0, 5.0), (1, 4.0), (2, 2.0)],
            vec![(1, 3.0), (2, 3.0)],
        ]);
        (ItemKnn::train(vec![10, 20, 30], &ratings), ratings)
    }

    #[test]
    fn similarities_are_cosines_of_centred_vectors_and_only_positive_ones_are_kept() {
        let (model, _) = small();
        assert_eq!(&model.means[..], [3.0; 3]);
        let (items, similarities) = model.neighbours.row(0);
        assert_eq!(items, [1]);
        assert!(
            (similarities[0] - 1.0).abs() < 1e-15,
            "(2 + 2) / (sqrt 8 * sqrt 2) = 1"
        );
        assert_eq!(model.neighbours.row(1).0, [0]);
        assert_eq!(
            model.neighbours.row(2).0,
            [] as [u32; 0],
            "a . c < 0 and b . c < 0"
        );
        assert_eq!(model.pairs(), 2);
    }

    #[test]
    fn a_score_is_the_item_mean_plus_the_weighted_deviation() {
        let (model, ratings) = small();
        let user_1 = model.profile(ratings.row(1));
        assert_eq!(
            user_1.score(1),
            Some(3.0),
            "the user rated the neighbour with its mean"
        );
        let new_user = model.profile((&[0], &[4.5]));
        assert_eq!(new_user.score(1), Some(4.5));
        assert_eq!(new_user.score(2), None);
        assert_eq!(new_user.recommend(10), [Rec { item: 1, score: 4.5 }]);
    }

    #[test]
    fn only_the_first_twenty_rated_neighbours_count() {
        let n = 30_u32;
        let model = ItemKnn {
            items: (0..=n).collect::<Vec<_>>().into(),
            means: vec![0.0; n as usize + 1].into(),
            neighbours: Csr::from_rows(
                std::iter::once((1..=n).map(|j| (j, 1.0 / f64::from(j))).collect())
                    .chain((1..=n).map(|_| Vec::new())),
            ),
        };
        // Every item except item 1 is rated with its own number.
        let rated: Vec<u32> = (2..=n).collect();
        let ratings: Vec<f64> = rated.iter().map(|j| f64::from(*j)).collect();
        let expected = 20.0 / (2..=21).map(|j| 1.0 / f64::from(j)).sum::<f64>();
        let score = model.profile((&rated, &ratings)).score(0).unwrap();
        assert!((score - expected).abs() < 1e-12);
    }

    #[test]
    fn ties_are_ordered_by_id_also_at_the_cut() {
        let model = ItemKnn {
            items: vec![1, 2, 3, 4].into(),
            means: vec![3.0; 4].into(),
            neighbours: Csr::from_rows([vec![(3, 0.5)], vec![(3, 0.25)], vec![(3, 1.0)], vec![]]),
        };
        let recs = model.profile((&[3], &[5.0])).recommend(2);
        assert_eq!(recs, [Rec { item: 0, score: 5.0 }, Rec { item: 1, score: 5.0 }]);
    }

    #[test]
    fn items_whose_ratings_are_all_equal_have_no_neighbours() {
        // The mean of three times 0.1 is not 0.1 in floating point.
        let row = vec![(0, 0.1), (1, 0.1)];
        let model = ItemKnn::train(vec![1, 2], &Csr::from_rows([row.clone(), row.clone(), row]));
        assert_eq!(model.pairs(), 0);
        assert_eq!(&model.means[..], [0.1, 0.1]);
    }

    #[test]
    fn an_item_without_training_ratings_is_never_scored() {
        let model = ItemKnn::train(vec![1, 2], &Csr::from_rows([vec![(0, 3.0)]]));
        assert!(model.means[1].is_nan());
        assert!(model.profile((&[0], &[3.0])).recommend(10).is_empty());
    }

    #[test]
    fn extreme_ratings_affect_only_their_item() {
        let ratings = Csr::from_rows([
            vec![(0, 1e308), (1, 1.0), (2, 2.0)],
            vec![(0, 1.5e308), (1, 5.0), (2, 4.0)],
            vec![(1, 3.0)],
        ]);
        let model = ItemKnn::train(vec![1, 2, 3], &ratings);
        assert_eq!(model.neighbours.row(0).0, [] as [u32; 0]);
        assert_eq!(model.neighbours.row(2).0, [1]);
    }

    #[test]
    fn the_heap_keeps_the_greatest_in_descending_order_and_the_first_of_equals() {
        let mut nearest = Nearest::default();
        for item in 0..250_u32 {
            nearest.offer(item, f64::from((item * 7919) % 250));
        }
        let kept: Vec<f64> = nearest
            .into_sorted()
            .iter()
            .map(|(_, similarity)| *similarity)
            .collect();
        assert_eq!(kept, (150..250).rev().map(f64::from).collect::<Vec<_>>());

        let mut equal = Nearest::default();
        (0..150).for_each(|item| equal.offer(item, 0.5));
        let mut kept: Vec<u32> = equal.into_sorted().iter().map(|(item, _)| *item).collect();
        kept.sort_unstable();
        assert_eq!(kept, (0..100).collect::<Vec<_>>());
    }
}
