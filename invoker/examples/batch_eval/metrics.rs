//! Quality of recommendations and predictions: per user, and over all users.
//!
//! An item is relevant to a user if the user's rating of it was held out. Gains are binary, because a held-out rating shows
//! that the user chose the item; the RMSE judges how much the user liked it. All top-N metrics use the list of N
//! recommendations, with N from `--top`.
//!
//! - nDCG@N: `DCG / ideal DCG`, `DCG = sum over relevant ranks k <= N of 1 / log2(k + 1)`; the ideal list has
//!   `min(N, held out)` relevant items at its head. K. Järvelin, J. Kekäläinen, "Cumulated gain-based
//!   evaluation of IR techniques", ACM TOIS 20(4), 2002, with the discount of C. Burges et al., "Learning to
//!   rank using gradient descent", ICML 2005. (LensKit 0.14 uses the older discount `max(1, log2 k)`.)
//! - recall@N: relevant items in the list / held-out items. C. Manning, P. Raghavan, H. Schütze,
//!   "Introduction to Information Retrieval", 2008, §8.3.
//! - reciprocal rank: 1 / rank of the first relevant item in the list, 0 without one; its mean over users
//!   is the MRR. E. Voorhees, "The TREC-8 question answering track report", 1999.
//! - RMSE: `sqrt(mean((r - prediction)^2))` over all held-out ratings of all users that could be predicted; the coverage is
//!   their share. J. Herlocker et al., "Evaluating collaborative filtering
//!   recommender systems", ACM TOIS 22(1), 2004.
//!
//! Users without a held-out rating do not count; users with one but without recommendations count as 0.

use serde::{Deserialize, Serialize};

/// The quality of one user's recommendations and predictions. Exists only for users with held-out ratings.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct UserMetrics {
    /// Number of held-out ratings.
    pub(crate) held_out: u32,
    /// nDCG of the list, 0 to 1.
    pub(crate) ndcg: f64,
    /// Recall of the list, 0 to 1.
    pub(crate) recall: f64,
    /// Reciprocal rank of the first relevant item, 0 to 1.
    pub(crate) reciprocal_rank: f64,
    /// Number of held-out ratings that could be predicted.
    pub(crate) predicted: u32,
    /// Sum of the squared errors of these predictions.
    pub(crate) squared_error: f64,
}

impl UserMetrics {
    /// Judges a list of recommended items, best first, against the user's held-out items (ascending), their ratings, and
    /// their predictions. `None` without held-out items.
    pub(crate) fn judge(
        recommended: impl IntoIterator<Item = u32>,
        top: usize,
        (held_out, ratings): (&[u32], &[f64]),
        predict: impl Fn(u32) -> Option<f64>,
    ) -> Option<Self> {
        if held_out.is_empty() {
            return None;
        }
        let (mut dcg, mut hits, mut reciprocal_rank) = (0.0, 0_usize, 0.0);
        for (rank, item) in (1..=top).zip(recommended) {
            if held_out.binary_search(&item).is_ok() {
                dcg += discount(rank);
                hits += 1;
                if hits == 1 {
                    reciprocal_rank = 1.0 / rank as f64;
                }
            }
        }
        let ideal: f64 = (1..=top.min(held_out.len())).map(discount).sum();
        let (mut predicted, mut squared_error) = (0, 0.0);
        for (item, rating) in held_out.iter().zip(ratings) {
            if let Some(prediction) = predict(*item) {
                predicted += 1;
                squared_error += (rating - prediction).powi(2);
            }
        }
        Some(Self {
            held_out: held_out.len() as u32,
            ndcg: dcg / ideal,
            recall: hits as f64 / held_out.len() as f64,
            reciprocal_rank,
            predicted,
            squared_error,
        })
    }
}

/// Returns the gain of a relevant item at this rank (from 1).
fn discount(rank: usize) -> f64 {
    1.0 / (rank as f64 + 1.0).log2()
}

/// Means over users. Summed in the given order of users.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Number of judged users.
    pub(crate) users: usize,
    /// Mean nDCG.
    pub(crate) ndcg: f64,
    /// Mean recall.
    pub(crate) recall: f64,
    /// Mean reciprocal rank.
    pub(crate) mrr: f64,
    /// Root mean squared error of the predicted held-out ratings; `None` if no rating could be predicted.
    pub(crate) rmse: Option<f64>,
    /// Number of held-out ratings of the judged users.
    pub(crate) held_out: u64,
    /// Number of these ratings that could be predicted.
    pub(crate) predicted: u64,
}

impl Summary {
    /// Summarizes the metrics of users; `None` without any.
    pub(crate) fn of<'a>(users: impl IntoIterator<Item = &'a UserMetrics>) -> Option<Self> {
        let mut sum = Self {
            users: 0,
            ndcg: 0.0,
            recall: 0.0,
            mrr: 0.0,
            rmse: None,
            held_out: 0,
            predicted: 0,
        };
        let mut squared_error = 0.0;
        for user in users {
            sum.users += 1;
            sum.ndcg += user.ndcg;
            sum.recall += user.recall;
            sum.mrr += user.reciprocal_rank;
            sum.held_out += u64::from(user.held_out);
            sum.predicted += u64::from(user.predicted);
            squared_error += user.squared_error;
        }
        let users = sum.users as f64;
        (sum.users > 0).then(|| Self {
            ndcg: sum.ndcg / users,
            recall: sum.recall / users,
            mrr: sum.mrr / users,
            rmse: (sum.predicted > 0).then(|| (squared_error / sum.predicted as f64).sqrt()),
            ..sum
        })
    }

    /// Returns the share of held-out ratings that could be predicted, 0 to 1.
    pub(crate) fn coverage(&self) -> f64 {
        self.predicted as f64 / self.held_out as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-12
    }

    #[test]
    fn a_list_has_the_metrics_worked_out_by_hand() {
        // Relevant: 2, 5, 9. Recommended: 7, 5, 1, 9. Ranks hit: 2 and 4.
        let m = UserMetrics::judge([7, 5, 1, 9], 4, (&[2, 5, 9], &[4.0, 3.0, 1.0]), |item| {
            (item != 2).then_some(2.0)
        })
        .unwrap();
        let dcg = 1.0 / 3_f64.log2() + 1.0 / 5_f64.log2();
        let ideal = 1.0 + 1.0 / 3_f64.log2() + 0.5;
        assert!(near(m.ndcg, dcg / ideal));
        assert!(near(m.recall, 2.0 / 3.0));
        assert!(near(m.reciprocal_rank, 0.5));
        assert_eq!((m.held_out, m.predicted), (3, 2));
        assert!(near(m.squared_error, 1.0 + 1.0));
    }

    #[test]
    fn a_perfect_list_scores_one_even_if_more_items_are_relevant_than_fit() {
        let m = UserMetrics::judge([1, 2], 2, (&[1, 2, 3, 4], &[5.0; 4]), |_| None).unwrap();
        assert!(near(m.ndcg, 1.0) && near(m.reciprocal_rank, 1.0) && near(m.recall, 0.5));
    }

    #[test]
    fn an_empty_list_scores_zero_and_users_without_held_out_ratings_have_no_metrics() {
        let m = UserMetrics::judge([], 10, (&[1], &[5.0]), |_| None).unwrap();
        assert_eq!((m.ndcg, m.recall, m.reciprocal_rank), (0.0, 0.0, 0.0));
        assert_eq!(UserMetrics::judge([1], 10, (&[], &[]), |_| None), None);
    }

    #[test]
    fn the_summary_weights_users_equally_and_pools_errors() {
        let one = UserMetrics {
            held_out: 1,
            ndcg: 1.0,
            recall: 1.0,
            reciprocal_rank: 0.5,
            predicted: 1,
            squared_error: 4.0,
        };
        let two = UserMetrics {
            held_out: 9,
            ndcg: 0.0,
            recall: 0.5,
            reciprocal_rank: 0.0,
            predicted: 3,
            squared_error: 0.0,
        };
        let s = Summary::of([&one, &two]).unwrap();
        assert_eq!((s.users, s.ndcg, s.recall, s.mrr), (2, 0.5, 0.75, 0.25));
        assert_eq!((s.rmse, s.coverage()), (Some(1.0), 0.4));
        assert_eq!(Summary::of([]), None);
        let unpredicted = UserMetrics {
            predicted: 0,
            squared_error: 0.0,
            ..one
        };
        assert_eq!(Summary::of([&unpredicted]).unwrap().rmse, None);
    }
}
