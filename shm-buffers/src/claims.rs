//! Claims: numbered pieces of work that one side begins in order and the other may take back.
//!
//! A leader sends tasks to a worker through a ring. The worker begins each by [`Taker::begin`], and a task that it has
//! begun is its own. The leader may [`Giver::recall`] all that were not begun: it learns at once which those are,
//! without an answer of the worker, that may be busy for a long time. The worker finds out when it comes to them.
//!
//! Neither side waits. That nothing is run twice, nor never, rests on both writing first and looking then, with a
//! sequentially consistent fence in between: at least one sees what the other wrote (Dekker's way).

use crate::slots::Slots;
use crate::sync::{Ordering, fence};

/// Whether a piece is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Begin {
    /// It is the taker's.
    Go,
    /// It was taken back: somebody else does it.
    Recalled,
}

/// The side that does the work. Its number of pieces begun is a slot that everybody may read.
#[derive(Debug)]
pub struct Taker {
    begun: Slots,
    recalled: Slots,
}

impl Taker {
    /// Writes its count to the one slot of `begun` and looks at the one of `recalled`: both fresh.
    ///
    /// # Panics
    /// If one of them has no slot.
    pub fn new(begun: Slots, recalled: Slots) -> Self {
        let _ = (begun.slot(0), recalled.slot(0));
        Self { begun, recalled }
    }

    /// Begins the next piece.
    #[inline]
    pub fn begin(&mut self) -> Begin {
        let begun = self.begun.slot(0);
        begun.add(1);
        // With the one in `recall`: either we see the recall, or it sees that we have begun.
        fence(Ordering::SeqCst);
        let number = begun.get();
        match Range::of_word(self.recalled.slot(0).get()) {
            Some(range) if range.contains(number) => Begin::Recalled,
            _ => Begin::Go,
        }
    }
}

/// The side that gives work and may take it back.
#[derive(Debug)]
pub struct Giver {
    begun: Slots,
    recalled: Slots,
    range: Option<Range>,
}

impl Giver {
    /// The other side of a [`Taker::new`] on the same slots.
    ///
    /// # Panics
    /// If one of them has no slot.
    pub fn new(begun: Slots, recalled: Slots) -> Self {
        let _ = (begun.slot(0), recalled.slot(0));
        Self {
            begun,
            recalled,
            range: None,
        }
    }

    /// How many pieces were begun, the recalled ones that the taker has come to included. Whatever a hostile taker
    /// says.
    #[inline]
    pub fn begun(&self) -> u64 {
        self.begun.slot(0).get()
    }

    /// Takes back what was not begun of the first `given` pieces: those beyond the number that it gives will never
    /// be run by the taker. The ones up to there it has begun, or will find recalled ([`is_recalled`](Self::is_recalled)
    /// tells which ones may be): it says so when it comes to them.
    pub fn recall(&mut self, given: u64) -> u64 {
        let from = match self.range {
            // The taker may just be looking at one of those, or not have told yet: they stay recalled.
            Some(range) => range.from,
            None => self.begun().min(given),
        };
        let to = given.clamp(from, from.saturating_add(u64::from(u32::MAX)));
        let range = Range { from, to };
        self.range = Some(range);
        self.recalled.slot(0).set(range.to_word());
        // With the one in `begin`.
        fence(Ordering::SeqCst);
        self.begun().min(given)
    }

    /// Whether the taker may say that this piece, counted from 1, was recalled.
    pub fn is_recalled(&self, number: u64) -> bool {
        self.range.is_some_and(|range| range.contains(number))
    }

    /// To be called when the taker has told of its first `answered` pieces: forgets a recall that is over.
    #[inline]
    pub fn answered(&mut self, answered: u64) {
        if self.range.is_some_and(|range| range.to <= answered) {
            self.range = None;
            self.recalled.slot(0).set(0);
        }
    }
}

/// Pieces from `from + 1` to `to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    from: u64,
    to: u64,
}

impl Range {
    /// In one word, so that it is never seen half: the low half of `from`, and how many.
    fn to_word(self) -> u64 {
        (self.from & u64::from(u32::MAX)) << 32 | (self.to - self.from)
    }

    #[inline]
    fn of_word(word: u64) -> Option<Self> {
        let from = word >> 32;
        let to = from + (word & u64::from(u32::MAX));
        (to > from).then_some(Self { from, to })
    }

    /// As far as the low half tells: a recall is over long before it could mean another piece.
    #[inline]
    fn contains(self, number: u64) -> bool {
        let offset = (number as u32).wrapping_sub(self.from as u32);
        offset > 0 && u64::from(offset) <= self.to - self.from
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn pair() -> (Taker, Giver) {
        let (begun, recalled) = (Slots::in_process(1), Slots::in_process(1));
        (
            Taker::new(begun.clone(), recalled.clone()),
            Giver::new(begun, recalled),
        )
    }

    #[test]
    fn what_was_begun_is_not_recalled_and_the_rest_is() {
        let (mut taker, mut giver) = pair();
        assert_eq!(taker.begin(), Begin::Go);
        assert_eq!(giver.recall(3), 1);
        assert_eq!(
            [1, 2, 3, 4].map(|n| giver.is_recalled(n)),
            [false, true, true, false]
        );
        assert_eq!([taker.begin(), taker.begin()], [Begin::Recalled; 2]);
        // What is given later is not.
        assert_eq!(taker.begin(), Begin::Go);
        giver.answered(2);
        assert!(giver.is_recalled(3));
        giver.answered(3);
        assert!(!giver.is_recalled(3));
    }

    #[test]
    fn a_second_recall_keeps_the_first() {
        let (mut taker, mut giver) = pair();
        assert_eq!(taker.begin(), Begin::Go);
        assert_eq!(giver.recall(2), 1);
        assert_eq!(taker.begin(), Begin::Recalled);
        assert_eq!(giver.recall(4), 2);
        assert!(giver.is_recalled(2) && giver.is_recalled(4));
        assert_eq!([taker.begin(), taker.begin()], [Begin::Recalled; 2]);
        assert_eq!([taker.begin(), taker.begin()], [Begin::Go; 2]);
        assert_eq!(giver.recall(7), 6);
        assert!(giver.is_recalled(4) && giver.is_recalled(7));
    }

    #[test]
    fn numbers_may_wrap_and_lies_do_no_harm() {
        let (begun, recalled) = (Slots::in_process(1), Slots::in_process(1));
        let mut giver = Giver::new(begun.clone(), recalled.clone());
        let before = u64::from(u32::MAX) - 1;
        begun.slot(0).set(before);
        let mut taker = Taker::new(begun.clone(), recalled);
        assert_eq!(taker.begin(), Begin::Go);
        assert_eq!(giver.recall(before + 4), before + 1);
        assert_eq!(
            [taker.begin(), taker.begin(), taker.begin()],
            [Begin::Recalled; 3]
        );
        assert_eq!(taker.begin(), Begin::Go);
        for lie in [0, 1 << 40, u64::MAX - 1, u64::MAX] {
            begun.slot(0).set(lie);
            assert!(giver.recall(before + 9) <= before + 9);
        }
    }
}

#[cfg(all(test, loom))]
mod model {
    //! Every interleaving, by loom.

    use super::*;
    use loom::thread;

    /// Each piece is run by the taker or taken back for certain, or the taker says that it found it recalled.
    #[test]
    fn loom_a_piece_is_run_once_whatever_the_recall_meets() {
        for recalls in [&[2u64][..], &[1, 2]] {
            loom::model(move || {
                let (begun, recalled) = (Slots::in_process(1), Slots::in_process(1));
                let mut taker = Taker::new(begun.clone(), recalled.clone());
                let mut giver = Giver::new(begun, recalled);
                let worker = thread::spawn(move || [taker.begin(), taker.begin()]);
                // Whose second running nobody could prevent any more.
                let mut certain = [false; 2];
                for &given in recalls {
                    for number in giver.recall(given)..given {
                        certain[number as usize] = true;
                    }
                }
                let ran = worker.join().unwrap();
                for (index, begin) in ran.into_iter().enumerate() {
                    match begin {
                        Begin::Go => assert!(!certain[index], "piece {index} runs twice"),
                        // Then somebody else runs it.
                        Begin::Recalled => assert!(giver.is_recalled(index as u64 + 1)),
                    }
                }
            });
        }
    }
}
