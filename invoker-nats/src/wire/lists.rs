//! The bodies of messages: [`Tasks`] and [`Outcomes`], column by column, so that a task costs little more than its bytes.

use serde::{Deserialize, Serialize};

use super::{Blob, Malformed};
use crate::batcher::MAX_TASKS;

/// Runs of successive positions: the first one of each run, and its length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Runs(Vec<(u64, u32)>);

impl Runs {
    fn push(&mut self, index: u64) {
        match self.0.last_mut() {
            Some((first, len)) if *first + u64::from(*len) == index => *len += 1,
            _ => self.0.push((index, 1)),
        }
    }

    /// Returns the number of positions, unless it is larger than that of any batch.
    fn len(&self) -> Result<usize, Malformed> {
        let valid = |&(first, len): &(u64, u32)| first.checked_add(u64::from(len)).is_some();
        let sum: u64 = self.0.iter().map(|(_, len)| u64::from(*len)).sum();
        match self.0.iter().all(valid) && sum <= MAX_TASKS as u64 {
            true => Ok(sum as usize),
            false => Err(Malformed),
        }
    }

    fn iter(&self) -> impl Iterator<Item = u64> {
        self.0
            .iter()
            .flat_map(|&(first, len)| first..first + u64::from(len))
    }
}

/// The lengths of items in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Lengths {
    Equal(u64),
    Each(Vec<u64>),
}

impl Default for Lengths {
    fn default() -> Self {
        Self::Equal(0)
    }
}

impl Lengths {
    /// Adds the length of item number `at`.
    fn push(&mut self, at: usize, len: usize) {
        let len = len as u64;
        match self {
            Self::Equal(equal) if at == 0 => *equal = len,
            Self::Equal(equal) if *equal == len => {}
            Self::Equal(equal) => {
                let mut each = vec![*equal; at];
                each.push(len);
                *self = Self::Each(each);
            }
            Self::Each(each) => each.push(len),
        }
    }

    /// Checks that these are `count` lengths, with this sum.
    fn check(&self, count: usize, sum: usize) -> Result<(), Malformed> {
        let total = match self {
            Self::Equal(len) => len.checked_mul(count as u64),
            Self::Each(each) if each.len() != count => None,
            Self::Each(each) => each.iter().try_fold(0_u64, |sum, len| sum.checked_add(*len)),
        };
        match total == Some(sum as u64) {
            true => Ok(()),
            false => Err(Malformed),
        }
    }

    /// Splits bytes that were [checked](Self::check) into items.
    fn split<'a>(&self, mut bytes: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let (equal, each) = match self {
            Self::Equal(len) => (Some(*len), &[][..]),
            Self::Each(each) => (None, &each[..]),
        };
        let mut each = each.iter();
        std::iter::from_fn(move || {
            let len = equal.or_else(|| each.next().copied())?;
            let (item, rest) = bytes.split_at_checked(len as usize)?;
            bytes = rest;
            Some(item)
        })
    }
}

/// Encoded tasks with their indices.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tasks<'a> {
    indices: Runs,
    lengths: Lengths,
    #[serde(borrow)]
    encoded: Blob<'a>,
}

impl<'a> Tasks<'a> {
    /// `encoded` are the encodings of tasks with these indices and lengths, one after the other.
    pub(crate) fn new(tasks: impl Iterator<Item = (u64, usize)>, encoded: &'a [u8]) -> Self {
        let mut all = Self::default();
        for (at, (index, len)) in tasks.enumerate() {
            all.indices.push(index);
            all.lengths.push(at, len);
        }
        all.encoded = encoded.into();
        all
    }

    /// Returns the tasks with their indices.
    pub(crate) fn items(&self) -> Result<impl Iterator<Item = (u64, &[u8])>, Malformed> {
        self.lengths.check(self.indices.len()?, self.encoded.0.len())?;
        Ok(self.indices.iter().zip(self.lengths.split(&self.encoded.0)))
    }
}

/// The outcomes of tasks, in the order in which they were completed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcomes<'a> {
    indices: Runs,
    /// The [`task_hash`](super::task_hash) of each task that was run, in little-endian order.
    #[serde(borrow)]
    hashes: Blob<'a>,
    lengths: Lengths,
    /// The positions of those that are faults, in ascending order.
    faults: Vec<u32>,
    #[serde(borrow)]
    encoded: Blob<'a>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Outcome<'a> {
    pub(crate) index: u64,
    /// The [`task_hash`](super::task_hash) of the task that was run.
    pub(crate) hash: u64,
    /// The encoded output, or the encoded fault.
    pub(crate) result: Result<&'a [u8], &'a [u8]>,
}

impl Outcomes<'_> {
    /// The number of outcomes.
    pub(crate) fn len(&self) -> usize {
        self.hashes.0.len() / 8
    }

    /// About the number of bytes of the message.
    pub(crate) fn bytes(&self) -> usize {
        self.hashes.0.len() + self.encoded.0.len()
    }

    pub(crate) fn push(&mut self, outcome: Outcome<'_>) {
        let at = self.len();
        let Outcome { index, hash, result } = outcome;
        self.indices.push(index);
        self.hashes.0.to_mut().extend_from_slice(&hash.to_le_bytes());
        let bytes = result.unwrap_or_else(|fault| {
            self.faults.push(at as u32);
            fault
        });
        self.lengths.push(at, bytes.len());
        self.encoded.0.to_mut().extend_from_slice(bytes);
    }

    /// Returns their number, and each of them.
    pub(crate) fn items(&self) -> Result<(usize, impl Iterator<Item = Outcome<'_>>), Malformed> {
        let (hashes, rest) = self.hashes.0.as_chunks::<8>();
        let count = self.indices.len()?;
        let faults_ascend = self.faults.is_sorted_by(|a, b| a < b);
        if count != hashes.len() || !rest.is_empty() || !faults_ascend {
            return Err(Malformed);
        }
        self.lengths.check(count, self.encoded.0.len())?;
        let results = self.lengths.split(&self.encoded.0);
        let mut faults = self.faults.iter().peekable();
        let all = self.indices.iter().zip(hashes).zip(results).zip(0_u32..);
        let items = all.map(move |(((index, hash), bytes), at)| Outcome {
            index,
            hash: u64::from_le_bytes(*hash),
            result: match faults.next_if_eq(&&at) {
                Some(_) => Err(bytes),
                None => Ok(bytes),
            },
        });
        Ok((count, items))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Batch, Body, decode, encode};
    use super::*;

    fn outcomes(lengths: &[usize]) -> Vec<u8> {
        let mut builder = Outcomes::default();
        for (at, len) in lengths.iter().enumerate() {
            let (index, bytes) = (at as u64 + at as u64 / 3, vec![at as u8; *len]);
            let result = if at == 1 { Err(&bytes[..]) } else { Ok(&bytes[..]) };
            builder.push(Outcome {
                index,
                hash: u64::MAX - index,
                result,
            });
        }
        assert_eq!(builder.len(), lengths.len());
        encode(&builder)
    }

    #[test]
    fn outcomes_of_equal_and_other_lengths_come_back() {
        for lengths in [
            &[][..],
            &[0, 0, 0, 0],
            &[3, 3, 3, 3, 3, 3, 3],
            &[0, 7],
            &[4, 4, 1, 0, 9],
        ] {
            let bytes = outcomes(lengths);
            let decoded: Outcomes<'_> = decode(&bytes).expect("just encoded");
            let items: Vec<Outcome<'_>> = decoded.items().expect("just encoded").1.collect();
            assert_eq!(items.len(), lengths.len());
            for (at, (item, len)) in items.iter().zip(lengths).enumerate() {
                let index = at as u64 + at as u64 / 3;
                assert_eq!((item.index, item.hash), (index, u64::MAX - index));
                assert_eq!(item.result.is_err(), at == 1);
                let bytes = item.result.unwrap_or_else(|fault| fault);
                assert_eq!(bytes, vec![at as u8; *len]);
            }
        }
    }

    #[test]
    fn tasks_of_a_batch_are_borrowed() {
        let encoded = [1, 2, 3, 4, 5];
        let tasks = Tasks::new([(7, 2), (8, 0), (11, 3)].into_iter(), &encoded);
        let bytes = encode(&tasks);
        let decoded: Tasks<'_> = decode(&bytes).expect("just encoded");
        let items: Vec<(u64, &[u8])> = decoded.items().expect("just encoded").collect();
        assert_eq!(items, [(7, &encoded[..2]), (8, &[]), (11, &encoded[2..])]);
    }

    #[test]
    fn counts_beyond_any_batch_are_refused_before_memory_is_used() {
        for runs in [
            vec![(0, u32::MAX)],
            vec![(0, 1 << 15); 3],
            vec![(u64::MAX, 2)],
            vec![(5, 1), (u64::MAX - 1, 3)],
        ] {
            let tasks = Tasks {
                indices: Runs(runs),
                lengths: Lengths::Equal(0),
                encoded: Blob::default(),
            };
            assert_eq!(tasks.items().err(), Some(Malformed));
        }
    }

    /// Every byte of a message replaced by every value: the decoder returns, and never reads beyond.
    #[test]
    fn hostile_bytes_are_refused_or_decoded_but_never_more() {
        let encoded = b"tasktasks";
        let body = encode(&Tasks::new([(5, 4), (6, 5)].into_iter(), encoded));
        let bytes = encode(&Batch {
            session: 1,
            job: 2,
            batch: 3,
            alone: false,
            body: Body::Inline(body[..].into()),
        });
        let answer = outcomes(&[2, 3, 4]);
        let changed = |bytes: &[u8]| {
            let all = (0..bytes.len()).flat_map(|at| (0..=u8::MAX).map(move |value| (at, value)));
            let bytes = bytes.to_vec();
            all.map(move |(at, value)| {
                let mut hostile = bytes.clone();
                hostile[at] = value;
                hostile
            })
        };
        let mut refused = 0;
        for hostile in changed(&bytes) {
            if let Ok(Batch {
                body: Body::Inline(Blob(body)),
                ..
            }) = decode::<Batch<'_>>(&hostile)
                && let Ok(tasks) = decode::<Tasks<'_>>(&body)
                && let Ok(items) = tasks.items()
            {
                let read: usize = items.map(|(_, task)| task.len()).sum();
                assert!(read <= encoded.len());
            } else {
                refused += 1;
            }
        }
        for hostile in changed(&answer) {
            if let Ok(outcomes) = decode::<Outcomes<'_>>(&hostile)
                && let Ok((_, items)) = outcomes.items()
            {
                let len = |item: Outcome<'_>| item.result.unwrap_or_else(|fault| fault).len();
                assert!(items.map(len).sum::<usize>() <= answer.len());
            } else {
                refused += 1;
            }
        }
        assert!(refused > 1000, "{refused}");
    }
}
