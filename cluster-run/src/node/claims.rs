//! [`Claims`]: the questions of a node's threads whether they may begin tasks, together in one request.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use crate::messages::{self, Claim, Reply, Request};

/// Why it is not known whether tasks may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// There was no reply.
    Silence,
    /// The leader does not know the node yet, or its reply is to another question.
    Unknown,
}

type Answer = Result<bool, Unanswered>;

/// While one thread waits for a reply, the questions of others gather, and go together in the next request.
#[derive(Debug, Default)]
pub(super) struct Claims {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    waiting: Vec<(u64, Claim)>,
    /// Whether a thread waits for a reply.
    asking: bool,
    answers: HashMap<u64, Answer>,
}

impl Claims {
    /// Returns whether the node may run these tasks. `ask` sends a request and waits for the reply.
    pub(super) fn may_begin(&self, node: u64, claim: Claim, ask: impl Fn(&Bytes) -> Option<Reply>) -> Answer {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.waiting.push((number, claim));
        loop {
            if let Some(answer) = state.answers.remove(&number) {
                return answer;
            }
            if state.asking {
                state = self.answered.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.asking = true;
            let asked = std::mem::take(&mut state.waiting);
            drop(state);
            let claims = asked.iter().map(|(_, claim)| *claim).collect();
            let reply = ask(&messages::encode(&Request::Begin { node, claims }, &[]));
            state = self.state();
            state.asking = false;
            for (at, (number, _)) in asked.into_iter().enumerate() {
                let answer = match &reply {
                    Some(Reply::Begin(may)) => may.get(at).copied().ok_or(Unanswered::Unknown),
                    Some(_) => Err(Unanswered::Unknown),
                    None => Err(Unanswered::Silence),
                };
                state.answers.insert(number, answer);
            }
            self.answered.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;
    use crate::messages::BatchId;

    fn claim(first: u64) -> Claim {
        Claim {
            batch: BatchId {
                job: 0,
                first,
                number: 1,
            },
            from: 0,
            upto: 1,
        }
    }

    fn claims_of(request: &Bytes) -> Vec<u64> {
        match messages::decode_all::<Request>(request) {
            Some(Request::Begin { node: 7, claims }) => claims.iter().map(|it| it.batch.first).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn questions_gather_while_one_waits_for_its_reply_and_each_gets_its_own_answer() {
        let claims = Claims::default();
        let (asked, requests) = mpsc::channel();
        let (reply, replies) = mpsc::channel::<Option<Reply>>();
        let replies = Mutex::new(replies);
        let ask = |request: &Bytes| {
            asked.send(claims_of(request)).expect("it is received");
            let replies = replies.lock().expect("no panic");
            replies.recv().expect("a reply")
        };
        thread::scope(|scope| {
            let first = scope.spawn(|| claims.may_begin(7, claim(0), ask));
            assert_eq!(requests.recv(), Ok(vec![0]));
            let others: Vec<_> = (1..4)
                .map(|n| {
                    let claims = &claims;
                    (n, scope.spawn(move || claims.may_begin(7, claim(n), ask)))
                })
                .collect();
            while claims.state().waiting.len() < 3 {
                thread::yield_now();
            }
            reply
                .send(Some(Reply::Begin(vec![true])))
                .expect("it is received");
            assert_eq!(first.join().expect("no panic"), Ok(true));
            let together = requests.recv().expect("a request");
            assert_eq!(together.len(), 3);
            let may = together.iter().map(|first| *first == 2).collect();
            reply.send(Some(Reply::Begin(may))).expect("it is received");
            for (n, other) in others {
                assert_eq!(other.join().expect("no panic"), Ok(n == 2), "{n}");
            }
        });
    }

    #[test]
    fn silence_and_replies_to_other_questions_are_no_answers() {
        let claims = Claims::default();
        for (reply, expected) in [
            (None, Unanswered::Silence),
            (Some(Reply::Unknown), Unanswered::Unknown),
            (Some(Reply::Yes), Unanswered::Unknown),
            (Some(Reply::Begin(Vec::new())), Unanswered::Unknown),
        ] {
            assert_eq!(claims.may_begin(7, claim(0), |_| reply.clone()), Err(expected));
        }
        let state = claims.state();
        assert!(state.answers.is_empty() && state.waiting.is_empty());
    }
}
