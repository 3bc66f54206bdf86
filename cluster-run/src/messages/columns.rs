//! [`Numbers`] and [`Outcomes`]: values of many tasks by column, so that what most of them have in common is sent once.

use proc_pool::Fault;
use serde::{Deserialize, Serialize};

use super::MOST_TASKS;

/// Numbers of tasks, such as positions and lengths. Those that grow by equal steps, or are equal, take the room of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Numbers {
    Steps { first: u32, step: u32, count: u32 },
    Each(Vec<u32>),
}

impl Default for Numbers {
    fn default() -> Self {
        let (first, step, count) = (0, 0, 0);
        Self::Steps { first, step, count }
    }
}

impl Numbers {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Steps { count, .. } => *count as usize,
            Self::Each(numbers) => numbers.len(),
        }
    }

    pub(crate) fn push(&mut self, number: u32) {
        match self {
            Self::Each(numbers) => return numbers.push(number),
            Self::Steps { first, step, count } => {
                match *count {
                    0 => *first = number,
                    1 => *step = number.wrapping_sub(*first),
                    _ => {}
                }
                if number == nth(*first, *step, *count) {
                    *count += 1;
                    return;
                }
            }
        }
        *self = Self::Each(self.iter().chain([number]).collect());
    }

    /// Adds `count` numbers, each greater by `step` than the one before.
    pub(crate) fn push_steps(&mut self, first: u32, step: u32, count: u32) {
        for at in 0..count {
            let number = nth(first, step, at);
            match self {
                // They go on as they begin.
                Self::Steps {
                    first: own_first,
                    step: own_step,
                    count: own_count,
                } if *own_count > 1 && *own_step == step && number == nth(*own_first, step, *own_count) => {
                    *own_count += count - at;
                    return;
                }
                _ => self.push(number),
            }
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u32> {
        (0..self.len()).map(|at| self.get(at))
    }

    /// Returns their sum, if that is a number of bytes.
    pub(crate) fn sum(&self) -> Option<usize> {
        match self.equal() {
            Some(number) => (number as usize).checked_mul(self.len()),
            None if self.len() > MOST_TASKS => None,
            None => self
                .iter()
                .try_fold(0_usize, |sum, number| sum.checked_add(number as usize)),
        }
    }

    /// Returns the first one, if each is one more than the one before.
    pub(crate) fn successive_from(&self) -> Option<u32> {
        match *self {
            Self::Steps { first, step, count } if count == 1 || step == 1 && count > 0 => {
                first.checked_add(count - 1).map(|_| first)
            }
            _ => None,
        }
    }

    /// Returns the number that all of them are.
    pub(crate) fn equal(&self) -> Option<u32> {
        match *self {
            Self::Steps { first, step, count } if count == 1 || step == 0 && count > 0 => Some(first),
            _ => None,
        }
    }

    /// # Panics
    /// If there are not as many.
    #[inline]
    pub(crate) fn get(&self, at: usize) -> u32 {
        match self {
            Self::Steps { first, step, .. } => nth(*first, *step, at as u32),
            Self::Each(numbers) => numbers[at],
        }
    }
}

impl FromIterator<u32> for Numbers {
    fn from_iter<I: IntoIterator<Item = u32>>(numbers: I) -> Self {
        let mut all = Self::default();
        numbers.into_iter().for_each(|number| all.push(number));
        all
    }
}

fn nth(first: u32, step: u32, at: u32) -> u32 {
    first.wrapping_add(step.wrapping_mul(at))
}

/// The outcome of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The position in the batch.
    pub(crate) at: u32,
    /// The [`task_hash`](super::task_hash) of the task that was run.
    pub(crate) hash: u64,
    pub(crate) is_fault: bool,
    /// Bytes of the encoded output or fault.
    pub(crate) len: u32,
}

impl Outcome {
    /// Returns the encoded output, or the fault.
    pub(crate) fn result<'a>(&self, bytes: &'a [u8]) -> Result<Result<&'a [u8], Fault>, String> {
        match (self.is_fault, postcard::take_from_bytes) {
            (false, _) => Ok(Ok(bytes)),
            (true, decode) => match decode(bytes) {
                Ok((fault, [])) => Ok(Err(fault)),
                _ => Err("its fault is malformed".to_owned()),
            },
        }
    }
}

/// The outcomes of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcomes {
    at: Numbers,
    pub(crate) lengths: Numbers,
    /// Little endian.
    #[serde(with = "as_bytes")]
    hashes: Vec<u8>,
    /// Which of them are faults, in ascending order.
    faults: Vec<u32>,
}

impl Outcomes {
    pub(crate) fn len(&self) -> usize {
        self.lengths.len()
    }

    /// Returns the positions of the tasks in the batch.
    pub(crate) fn positions(&self) -> &Numbers {
        &self.at
    }

    pub(crate) fn clear(&mut self) {
        (self.at, self.lengths) = Default::default();
        self.hashes.clear();
        self.faults.clear();
    }

    pub(crate) fn push(&mut self, outcome: Outcome) {
        if outcome.is_fault {
            self.faults.push(self.len() as u32);
        }
        self.at.push(outcome.at);
        self.lengths.push(outcome.len);
        self.hashes.extend_from_slice(&outcome.hash.to_le_bytes());
    }

    /// Adds outputs of successive tasks, each of `len` bytes. The first task is at `at`.
    pub(crate) fn push_run(&mut self, at: u32, len: u32, hashes: impl ExactSizeIterator<Item = u64>) {
        let count = hashes.len() as u32;
        self.at.push_steps(at, 1, count);
        self.lengths.push_steps(len, 0, count);
        self.hashes.reserve(8 * hashes.len());
        hashes.for_each(|hash| self.hashes.extend_from_slice(&hash.to_le_bytes()));
    }

    /// Returns whether the outcomes are those of tasks with these hashes.
    pub(crate) fn have_hashes(&self, hashes: &[u64]) -> bool {
        let own = self.hashes.as_chunks().0.iter();
        own.map(|hash| u64::from_le_bytes(*hash))
            .eq(hashes.iter().copied())
    }

    pub(crate) fn is_fault(&self, index: usize) -> bool {
        !self.faults.is_empty() && self.faults.binary_search(&(index as u32)).is_ok()
    }

    /// Returns whether all columns have the same length. Those of a message may not.
    pub(crate) fn is_consistent(&self) -> bool {
        let (hashes, rest) = self.hashes.as_chunks::<8>();
        self.at.len() == self.len() && hashes.len() == self.len() && rest.is_empty()
    }

    /// # Panics
    /// If there is no such outcome, or they are not [consistent](Self::is_consistent).
    pub(crate) fn get(&self, index: usize) -> Outcome {
        Outcome {
            at: self.at.get(index),
            hash: u64::from_le_bytes(self.hashes.as_chunks().0[index]),
            is_fault: self.is_fault(index),
            len: self.lengths.get(index),
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Outcome> {
        (0..self.len()).map(|index| self.get(index))
    }
}

impl FromIterator<Outcome> for Outcomes {
    fn from_iter<I: IntoIterator<Item = Outcome>>(outcomes: I) -> Self {
        let mut all = Self::default();
        outcomes.into_iter().for_each(|outcome| all.push(outcome));
        all
    }
}

/// Bytes as one value, and not as a sequence of numbers.
mod as_bytes {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Copied;

        impl Visitor<'_> for Copied {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }

        deserializer.deserialize_bytes(Copied)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_steps_take_the_room_of_one_and_all_numbers_come_back() {
        for (numbers, is_short) in [
            (vec![], true),
            (vec![7], true),
            (vec![8; 1000], true),
            ((5..2000).collect(), true),
            (vec![9, 6, 3, 0], true),
            (vec![u32::MAX, 0, 1], true),
            (vec![1, 2, 4], false),
            (vec![8, 8, 8, 9, 8], false),
        ] {
            let column: Numbers = numbers.iter().copied().collect();
            assert_eq!(matches!(column, Numbers::Steps { .. }), is_short, "{numbers:?}");
            assert_eq!(column.len(), numbers.len());
            assert!(column.iter().eq(numbers.iter().copied()), "{numbers:?}");
        }
    }

    #[test]
    fn a_run_is_the_same_as_its_outcomes_one_by_one() {
        let outcomes = |(at, count, len)| {
            (at..at + count).map(move |at| Outcome {
                at,
                hash: 3 * u64::from(at),
                is_fault: false,
                len,
            })
        };
        let runs = [
            (0, 5, 8),
            (5, 1, 8),
            (6, 7, 8),
            (20, 4, 8),
            (24, 3, 9),
            (27, 0, 9),
            (2, 9, 0),
        ];
        for first in 0..runs.len() {
            for last in first..runs.len() {
                let mut by_runs = Outcomes::default();
                for (at, count, len) in &runs[first..=last] {
                    let hashes: Vec<u64> = (*at..at + count).map(|at| 3 * u64::from(at)).collect();
                    by_runs.push_run(*at, *len, hashes.into_iter());
                }
                let one_by_one = runs[first..=last].iter().copied().flat_map(outcomes).collect();
                assert_eq!(by_runs, one_by_one, "{first} to {last}");
            }
        }
    }

    #[test]
    fn outcomes_come_back_and_columns_of_other_lengths_are_noticed() {
        let outcomes = [(0, 1), (1, 1), (5, 9), (2, 0)].map(|(at, len)| Outcome {
            at,
            hash: u64::MAX - u64::from(at),
            is_fault: len == 9,
            len,
        });
        let all: Outcomes = outcomes.into_iter().collect();
        assert!(all.is_consistent() && all.iter().eq(outcomes));
        let bytes = postcard::to_allocvec(&all).expect("it encodes");
        assert_eq!(postcard::from_bytes(&bytes), Ok(all.clone()));
        let mut more = all.clone();
        more.hashes.push(0);
        assert!(!more.is_consistent());
        let mut fewer = all;
        fewer.hashes.truncate(24);
        assert!(!fewer.is_consistent());
    }
}
