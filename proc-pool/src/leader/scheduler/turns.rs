//! [`Turns`]: which worker's outcomes are taken first.

/// The number of turns in a row in which parts of one large output are taken. Each part has up to 1 MiB.
const MAX_PARTS: u32 = 16;

/// Whose turn it is. One large output is received after the other, so that only one takes memory; but a very large one, or one that never
/// ends, does not keep the outcomes of other workers waiting.
#[derive(Debug, Default)]
pub(super) struct Turns {
    first: usize,
    parts: u32,
}

impl Turns {
    /// Returns the indices of `workers` workers, in the order of this turn.
    pub(super) fn order(&self, workers: usize) -> impl Iterator<Item = usize> + use<> {
        let first = self.first;
        (0..workers).map(move |step| (first + step) % workers)
    }

    /// Ends a turn in which the outcomes of all workers were taken.
    pub(super) fn all_taken(&mut self) {
        *self = Self::default();
    }

    /// Ends a turn in which worker `index` was the last one. `is_receiving` is whether a part of its output is missing.
    pub(super) fn ended_with(&mut self, index: usize, is_receiving: bool) {
        *self = match is_receiving && self.parts < MAX_PARTS {
            true => Self {
                first: index,
                parts: self.parts + 1,
            },
            false => Self {
                first: index + 1,
                parts: 0,
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(turns: &Turns) -> Vec<usize> {
        turns.order(3).collect()
    }

    #[test]
    fn each_worker_has_its_turn() {
        let mut turns = Turns::default();
        assert_eq!(order(&turns), [0, 1, 2]);
        turns.ended_with(0, false);
        assert_eq!(order(&turns), [1, 2, 0]);
        turns.ended_with(2, false);
        assert_eq!(order(&turns), [0, 1, 2]);
        turns.ended_with(1, false);
        turns.all_taken();
        assert_eq!(order(&turns), [0, 1, 2]);
        assert_eq!(turns.order(0).count(), 0);
    }

    #[test]
    fn an_output_is_received_to_its_end_unless_it_is_very_large() {
        let mut turns = Turns::default();
        for _ in 0..MAX_PARTS {
            turns.ended_with(1, true);
            assert_eq!(order(&turns), [1, 2, 0]);
        }
        turns.ended_with(1, true);
        assert_eq!(order(&turns), [2, 0, 1], "the others have waited long enough");
        turns.ended_with(1, true);
        assert_eq!(order(&turns), [1, 2, 0]);
    }
}
