//! The op, which evaluates one user, and its model, task and outcome.

use serde::{Deserialize, Serialize};
use shm_buffers::Buffer;

use crate::csr::Csr;
use crate::knn::ItemKnn;
use crate::metrics::UserMetrics;
use crate::split::Split;

/// The data of the op, shared by all workers. Users are addressed by their position.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EvalModel {
    knn: ItemKnn,
    /// User ids, ascending.
    users: Buffer<u32>,
    /// Training ratings (row = user, column = item position, ascending).
    train: Csr,
    /// Held-out ratings, in the same form.
    held_out: Csr,
    /// Length of the lists of recommendations.
    top: u32,
}

/// One user to evaluate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Task {
    /// Position of the user.
    pub(crate) user: u32,
    /// Evaluate the user, or crash.
    pub(crate) action: Action,
}

/// The action of the op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Action {
    /// Evaluate the user.
    Evaluate,
    /// Abort the process, as a bug in native code would.
    Abort,
}

/// The result for one user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Item ids with predicted ratings, best first.
    pub(crate) recs: Vec<(u32, f64)>,
    /// Quality against the held-out ratings, if there are any.
    pub(crate) metrics: Option<UserMetrics>,
}

impl EvalModel {
    /// Creates the model; `users` are the ids of the rows of `split`.
    pub(crate) fn new(knn: ItemKnn, users: Vec<u32>, split: Split, top: u32) -> Self {
        Self {
            knn,
            users: users.into(),
            train: split.train,
            held_out: split.held_out,
            top,
        }
    }

    /// Returns the recommender.
    pub(crate) fn knn(&self) -> &ItemKnn {
        &self.knn
    }

    /// Returns the size of the arrays in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.knn.bytes() + size_of_val(&self.users[..]) + self.train.bytes() + self.held_out.bytes()
    }
}

/// Recommends for one user and judges the recommendations.
pub(crate) fn evaluate_user(model: &EvalModel, task: Task) -> Outcome {
    let row = task.user as usize;
    let user = model.users[row];
    if task.action == Action::Abort {
        tracing::error!(user, "aborting because of --crash-user");
        std::process::abort();
    }
    let profile = model.knn.profile(model.train.row(row));
    let recs = profile.recommend(model.top as usize);
    if recs.is_empty() {
        tracing::warn!(
            user,
            "no item has a neighbour that this user rated: nothing to recommend"
        );
    }
    let metrics = UserMetrics::judge(
        recs.iter().map(|rec| rec.item),
        model.top as usize,
        model.held_out.row(row),
        |item| profile.score(item),
    );
    tracing::debug!(
        user,
        rated = model.train.row(row).0.len(),
        recommended = recs.len(),
        ndcg = metrics.map(|m| m.ndcg),
        "evaluated"
    );
    Outcome {
        recs: recs
            .iter()
            .map(|rec| (model.knn.item_id(rec.item), rec.score))
            .collect(),
        metrics,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ratings::Ratings;
    use crate::split;

    /// The top 10 of some users by LensKit; `data/README.md` describes how the file was made.
    const LENSKIT: &str = include_str!("data/lenskit-0.14.4-top10.csv");

    fn evaluate(model: &EvalModel, user: usize) -> Outcome {
        evaluate_user(
            model,
            Task {
                user: user as u32,
                action: Action::Evaluate,
            },
        )
    }

    #[test]
    fn recommendations_agree_with_lenskit() {
        let ratings = Ratings::bundled().unwrap();
        let split = split::keep_all(&ratings);
        let Ratings { users, items, .. } = ratings;
        let model = EvalModel::new(ItemKnn::train(items, &split.train), users.clone(), split, 10);
        let rows: Vec<Vec<&str>> = LENSKIT
            .lines()
            .skip(1)
            .map(|line| line.split(',').collect())
            .collect();
        let mut lists = 0;
        for list in rows.chunk_by(|a, b| a[0] == b[0]) {
            let user = users.binary_search(&list[0][0].parse().unwrap()).unwrap();
            let outcome = evaluate(&model, user);
            assert_eq!(outcome.recs.len(), list.len());
            for (ours, theirs) in outcome.recs.iter().zip(list) {
                let [user, rank, item, score] = theirs[..] else {
                    panic!("{theirs:?}")
                };
                assert_eq!(ours.0.to_string(), item, "user {user}, rank {rank}");
                assert!(
                    (ours.1 - score.parse::<f64>().unwrap()).abs() < 1e-12,
                    "user {user}, rank {rank}"
                );
            }
            assert_eq!(outcome.metrics, None);
            lists += 1;
        }
        assert_eq!(lists, 40);
    }

    #[test]
    fn held_out_items_may_be_recommended_and_training_items_may_not() {
        let ratings = Ratings::bundled().unwrap();
        let split = split::hold_out(&ratings, 0.2, 0);
        let knn = ItemKnn::train(ratings.items.clone(), &split.train);
        // Lists long enough for all recommendations.
        let top = ratings.items.len() as u32;
        let model = EvalModel::new(knn, ratings.users, split, top);
        for user in 0..10 {
            let outcome = evaluate(&model, user);
            let listed = |items: &[u32]| {
                let listed = |item: u32| outcome.recs.iter().any(|rec| rec.0 == model.knn.item_id(item));
                items.iter().filter(|item| listed(**item)).count()
            };
            let metrics = outcome.metrics.unwrap();
            let held_out = model.held_out.row(user).0;
            assert_eq!(listed(model.train.row(user).0), 0);
            assert_eq!(listed(held_out), metrics.predicted as usize);
            assert_eq!(
                metrics.recall,
                f64::from(metrics.predicted) / held_out.len() as f64
            );
            assert!(metrics.predicted > 0);
        }
    }
}
