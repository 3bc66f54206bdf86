//! [`Gathered`]: collects one outcome per user, in user order, and every failure.

use serde::Serialize;

use crate::metrics::Summary;
use crate::op::{Action, Outcome, Task};

/// Returns the tasks of a run: all users in order, `passes` times. The op aborts for the user at position `crash_at`.
pub(crate) fn tasks(users: u32, passes: u32, crash_at: Option<u32>) -> impl Iterator<Item = Task> {
    // A single range knows its length, so that progress has a total.
    (0..u64::from(passes) * u64::from(users)).map(move |index| {
        let user = (index % u64::from(users)) as u32;
        let action = if crash_at == Some(user) {
            Action::Abort
        } else {
            Action::Evaluate
        };
        Task { user, action }
    })
}

/// The results so far.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Ids of the users.
    users: Vec<u32>,
    /// The first outcome of each user, if any.
    outcomes: Vec<Option<Outcome>>,
    /// Tasks without an outcome.
    failures: Vec<Failure>,
    /// Number of finished tasks, with or without an outcome.
    tasks: u64,
}

/// A task without an outcome, or with a wrong one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("user {user}, pass {pass}: {error}")]
pub(crate) struct Failure {
    /// Id of the user.
    pub(crate) user: u32,
    /// Number of the pass, from 1.
    pub(crate) pass: u64,
    /// The message of the error.
    pub(crate) error: String,
}

impl Gathered {
    /// Creates an empty collection for users with these ids.
    pub(crate) fn new(users: Vec<u32>) -> Self {
        Self {
            outcomes: vec![None; users.len()],
            users,
            failures: Vec::new(),
            tasks: 0,
        }
    }

    /// Adds the result of the task at position `index` of [`tasks`].
    ///
    /// The op is a pure function, so an outcome that differs between passes is a failure.
    pub(crate) fn add<E: std::fmt::Display>(&mut self, index: u64, result: Result<Outcome, E>) {
        self.tasks += 1;
        let users = self.users.len() as u64;
        let (user, pass) = ((index % users) as usize, index / users + 1);
        let error = match (result, &self.outcomes[user]) {
            (Err(error), _) => error.to_string(),
            (Ok(outcome), Some(first)) if outcome != *first => {
                "the outcome differs from that of an earlier pass".to_owned()
            }
            (Ok(_), Some(_)) => return,
            (Ok(outcome), None) => {
                self.outcomes[user] = Some(outcome);
                return;
            }
        };
        self.failures.push(Failure {
            user: self.users[user],
            pass,
            error,
        });
    }

    /// Returns the number of finished tasks.
    pub(crate) fn tasks(&self) -> u64 {
        self.tasks
    }

    /// Returns all failures, in the order of their completion.
    pub(crate) fn failures(&self) -> &[Failure] {
        &self.failures
    }

    /// Returns the users with an outcome and their recommendations, in user order.
    pub(crate) fn recs(&self) -> impl Iterator<Item = (u32, &[(u32, f64)])> {
        self.users
            .iter()
            .zip(&self.outcomes)
            .filter_map(|(user, outcome)| Some((*user, outcome.as_ref()?.recs.as_slice())))
    }

    /// Returns the metrics over all users that have any, summed in user order.
    pub(crate) fn summary(&self) -> Option<Summary> {
        Summary::of(
            self.outcomes
                .iter()
                .flatten()
                .filter_map(|outcome| outcome.metrics.as_ref()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(item: u32) -> Outcome {
        Outcome {
            recs: vec![(item, 4.0)],
            metrics: None,
        }
    }

    #[test]
    fn tasks_iterate_over_all_users_in_each_pass() {
        assert_eq!(tasks(3, 2, None).size_hint(), (6, Some(6)));
        let all: Vec<Task> = tasks(3, 2, Some(1)).collect();
        assert_eq!(
            all.iter().map(|task| task.user).collect::<Vec<_>>(),
            [0, 1, 2, 0, 1, 2]
        );
        let aborting: Vec<usize> = (0..6).filter(|i| all[*i].action == Action::Abort).collect();
        assert_eq!(aborting, [1, 4]);
    }

    #[test]
    fn a_failed_user_gets_the_outcome_of_a_later_pass_and_stays_a_failure() {
        let mut gathered = Gathered::new(vec![7, 9]);
        gathered.add(1, Err("worker 0 died"));
        gathered.add(0, Ok::<_, &str>(outcome(1)));
        gathered.add(3, Ok::<_, &str>(outcome(2)));
        gathered.add(2, Ok::<_, &str>(outcome(1)));
        assert_eq!(gathered.tasks(), 4);
        assert_eq!(
            gathered.recs().collect::<Vec<_>>(),
            [(7, &[(1, 4.0)][..]), (9, &[(2, 4.0)][..])]
        );
        let [failure] = gathered.failures() else {
            panic!("one failure")
        };
        assert_eq!(failure.to_string(), "user 9, pass 1: worker 0 died");
        assert_eq!(gathered.summary(), None);
    }

    #[test]
    fn an_outcome_that_differs_between_passes_is_a_failure() {
        let mut gathered = Gathered::new(vec![7]);
        gathered.add(0, Ok::<_, &str>(outcome(1)));
        gathered.add(1, Ok::<_, &str>(outcome(2)));
        assert_eq!(gathered.failures()[0].pass, 2);
        assert_eq!(gathered.recs().collect::<Vec<_>>(), [(7, &[(1, 4.0)][..])]);
    }

    #[test]
    fn users_without_an_outcome_are_left_out() {
        let mut gathered = Gathered::new(vec![7, 9]);
        gathered.add(0, Err("gone"));
        gathered.add(1, Ok::<_, &str>(outcome(2)));
        assert_eq!(gathered.recs().map(|(user, _)| user).collect::<Vec<_>>(), [9]);
    }
}
