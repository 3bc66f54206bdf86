//! Seeds of tasks: each depends only on the root seed and the position of the task.

use proc_pool::{BoxError, Codec, Native, OwnedBytes};
use run_journal::SharedInput;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The odd number nearest to 2^64 over the golden ratio: SplitMix64's step.
const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// Returns output number `index` (from 0) of the generator SplitMix64 seeded with `root`.
///
/// Guy L. Steele Jr., Doug Lea, Christine H. Flood: Fast splittable pseudorandom number generators. OOPSLA 2014.
/// <https://doi.org/10.1145/2660193.2660195>; constants as in Sebastiano Vigna's public domain `splitmix64.c`.
fn seed(root: u64, index: u64) -> u64 {
    let mut z = root.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Returns the root whose seed number 0 is number `first` of `root`, and so on: the generator counts by adding.
pub(crate) fn root_from(root: u64, first: u64) -> u64 {
    root.wrapping_add(first.wrapping_mul(GOLDEN_GAMMA))
}

/// A task, with a seed if the builder has a root seed.
pub(crate) struct Seeded<T> {
    pub(crate) seed: Option<u64>,
    pub(crate) task: T,
}

impl<T> Seeded<T> {
    pub(crate) fn new(root: Option<u64>, index: u64, task: T) -> Self {
        let seed = root.map(|root| seed(root, index));
        Self { seed, task }
    }
}

/// An iterator that adds seeds to tasks.
pub(crate) struct Seeds<I: Iterator> {
    pub(crate) root: Option<u64>,
    pub(crate) tasks: Indexed<I>,
}

/// Tasks with their indices.
pub(crate) enum Indexed<I: Iterator> {
    /// All of them.
    All(std::iter::Enumerate<I>),
    /// Those without an output in the journal.
    Journaled(SharedInput<I>),
}

impl<I: Iterator> Iterator for Seeds<I> {
    type Item = Seeded<I::Item>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (index, task) = match &mut self.tasks {
            Indexed::All(tasks) => {
                let (index, task) = tasks.next()?;
                (index as u64, task)
            }
            Indexed::Journaled(input) => input.next_for_workers()?,
        };
        Some(Seeded::new(self.root, index, task))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.tasks {
            Indexed::All(tasks) => tasks.size_hint(),
            Indexed::Journaled(input) => input.size_hint(),
        }
    }
}

/// The codec of tasks without seeds.
#[derive(Clone, Copy)]
pub(crate) struct Bare;

impl<T: Serialize + DeserializeOwned> Codec<Seeded<T>> for Bare {
    fn encode(seeded: &Seeded<T>, into: &mut Vec<u8>) -> Result<(), BoxError> {
        Native::encode(&seeded.task, into)
    }

    fn as_bytes(seeded: &Seeded<T>) -> Option<&[u8]> {
        Native::as_bytes(&seeded.task)
    }

    fn into_owned(seeded: Seeded<T>) -> Result<OwnedBytes, Seeded<T>> {
        let Seeded { seed, task } = seeded;
        Native::into_owned(task).map_err(|task| Seeded { seed, task })
    }

    fn alignment() -> usize {
        <Native as Codec<T>>::alignment()
    }

    fn decode_owned(bytes: &mut OwnedBytes) -> Result<Seeded<T>, BoxError> {
        let task = Native::decode_owned(bytes)?;
        Ok(Seeded { seed: None, task })
    }

    fn decode(bytes: &[u8]) -> Result<Seeded<T>, BoxError> {
        let task = Native::decode(bytes)?;
        Ok(Seeded { seed: None, task })
    }
}

/// The codec of tasks with seeds: the seed comes before its task.
#[derive(Clone, Copy)]
pub(crate) struct SeedFirst;

impl<T: Serialize + DeserializeOwned> Codec<Seeded<T>> for SeedFirst {
    fn encode(seeded: &Seeded<T>, into: &mut Vec<u8>) -> Result<(), BoxError> {
        into.extend_from_slice(&seeded.seed.unwrap_or_default().to_le_bytes());
        Native::encode(&seeded.task, into)
    }

    fn decode(bytes: &[u8]) -> Result<Seeded<T>, BoxError> {
        let (seed, task) = bytes.split_first_chunk().ok_or("a task without its seed")?;
        let (seed, task) = (Some(u64::from_le_bytes(*seed)), Native::decode(task)?);
        Ok(Seeded { seed, task })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first outputs of `splitmix64.c`, seeded with 1234567 (as in Rosetta Code's test of it) and with 0.
    #[test]
    fn seeds_equal_the_reference_implementation() {
        let reference = [
            6_457_827_717_110_365_317,
            3_203_168_211_198_807_973,
            9_817_491_932_198_370_423,
            4_593_380_528_125_082_431,
            16_408_922_859_458_223_821,
        ];
        assert!((0..5).map(|index| seed(1_234_567, index)).eq(reference));
        assert_eq!(seed(0, 0), 0xe220_a839_7b1d_cdaf);
    }

    #[test]
    fn seeds_of_a_part_are_those_of_the_whole() {
        for first in [0, 1, 1000, u64::MAX - 5] {
            let seeds = |root, first| (0..10_u64).map(move |index| seed(root, index.wrapping_add(first)));
            assert!(seeds(root_from(77, first), 0).eq(seeds(77, first)), "{first}");
        }
    }

    #[test]
    fn vectors_without_seeds_keep_their_memory() {
        let task = vec![1.5_f64; 1000];
        let address = task.as_ptr();
        let mut bytes = Bare::into_owned(Seeded { seed: None, task })
            .ok()
            .expect("a vector of numbers");
        let back: Seeded<Vec<f64>> = Bare::decode_owned(&mut bytes).expect("the same memory");
        assert_eq!((back.task.as_ptr(), back.task), (address, vec![1.5; 1000]));
        assert_eq!(<Bare as Codec<Seeded<Vec<f64>>>>::alignment(), 8);
    }

    #[test]
    fn tasks_without_seeds_have_no_extra_bytes() {
        let bytes = |seed, encode: fn(&Seeded<u8>, &mut Vec<u8>) -> Result<(), BoxError>| {
            let mut bytes = Vec::new();
            encode(&Seeded { seed, task: 7 }, &mut bytes).expect("a number");
            bytes
        };
        assert_eq!(bytes(None, Bare::encode), [7]);
        let seeded = bytes(Some(u64::MAX - 1), SeedFirst::encode);
        let back: Seeded<u8> = SeedFirst::decode(&seeded).expect("just encoded");
        assert_eq!((back.seed, back.task), (Some(u64::MAX - 1), 7));
        assert!(<SeedFirst as Codec<Seeded<u8>>>::decode(&seeded[..5]).is_err());
    }
}
