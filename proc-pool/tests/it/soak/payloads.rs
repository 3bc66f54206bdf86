//! The tasks and outputs of the soak test: of several types, and of any size.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shm_buffers::Buffer;

use crate::support::random;

/// The largest payload in bytes.
const MAX: u64 = 64 << 20;
/// The largest payload of many small parts, which this unoptimized code encodes slowly.
const MAX_PARTS: u64 = 4 << 20;

/// A type of payload, for tasks and outputs.
pub(super) trait Payload: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Makes a task of about `bytes` bytes whose output has about `output` bytes.
    fn task(number: u64, bytes: u64, output: u64) -> Self;

    /// The op.
    fn run(self) -> Self;

    /// Returns whether this is the output of that task.
    fn is_output_of(&self, number: u64, bytes: u64, output: u64) -> bool;

    /// Returns the number of the task whose output this is, if it is large enough for a number.
    fn number(&self) -> Option<u64>;

    /// Returns about the number of bytes.
    fn bytes(&self) -> u64;
}

/// Returns the sizes of a task and of its output in bytes. Most are small, and a few large.
pub(super) fn sizes(seed: u64, number: u64) -> (u64, u64) {
    let mut random = random(seed << 32 ^ number);
    let mut size = || {
        let max = match random() % 40 {
            0 => MAX,
            1..6 => 1 << 20,
            _ => 4 << 10,
        };
        (random() % max) >> (random() % 12)
    };
    (size(), size())
}

impl Payload for Vec<u8> {
    fn task(number: u64, bytes: u64, output: u64) -> Self {
        let mut task = vec![number as u8; bytes as usize];
        if let Some((head, _)) = task.split_first_chunk_mut::<16>() {
            head[..8].copy_from_slice(&number.to_le_bytes());
            head[8..].copy_from_slice(&output.to_le_bytes());
        }
        task
    }

    fn run(self) -> Self {
        match self.split_first_chunk::<16>() {
            // It has no room for numbers.
            None => self,
            Some((&head, filler)) => {
                let [number, output] = [0, 8].map(|at| {
                    let bytes = head[at..].first_chunk().copied().unwrap_or_default();
                    u64::from_le_bytes(bytes)
                });
                assert!(filler == vec![number as u8; filler.len()], "the task has changed");
                Self::task(number, output, output)
            }
        }
    }

    fn is_output_of(&self, number: u64, bytes: u64, output: u64) -> bool {
        match bytes {
            ..16 => *self == vec![number as u8; bytes as usize],
            _ => *self == Self::task(number, output, output),
        }
    }

    fn number(&self) -> Option<u64> {
        let (head, _) = self.split_first_chunk::<16>()?;
        head.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn bytes(&self) -> u64 {
        self.len() as u64
    }
}

impl Payload for Vec<f32> {
    fn task(number: u64, bytes: u64, output: u64) -> Self {
        let mut task = vec![number as f32; bytes as usize / 4];
        if let [_, second, ..] = &mut task[..] {
            *second = (output / 4) as f32;
        }
        task
    }

    fn run(self) -> Self {
        match self[..] {
            [number, output, ref filler @ ..] => {
                assert!(filler == vec![number; filler.len()], "the task has changed");
                Self::task(number as u64, output as u64 * 4, output as u64 * 4)
            }
            _ => self,
        }
    }

    fn is_output_of(&self, number: u64, bytes: u64, output: u64) -> bool {
        match bytes {
            ..8 => *self == vec![number as f32; bytes as usize / 4],
            _ => *self == Self::task(number, output, output),
        }
    }

    fn number(&self) -> Option<u64> {
        self.first().map(|number| *number as u64)
    }

    fn bytes(&self) -> u64 {
        4 * self.len() as u64
    }
}

/// A struct of structs, strings, numbers and a buffer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Mixed {
    number: u64,
    output: u64,
    title: Option<String>,
    records: Vec<Record>,
    texts: Vec<String>,
    /// It travels apart from the rest.
    weights: Buffer<f32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    id: u64,
    score: f32,
    position: (i32, i32),
    name: String,
    is_new: bool,
}

impl Payload for Mixed {
    fn task(number: u64, bytes: u64, output: u64) -> Self {
        let part = bytes.min(MAX_PARTS) / 3;
        let record = |id| Record {
            id,
            score: id as f32,
            position: (number as i32, -1),
            name: format!("record {id}"),
            is_new: id.is_multiple_of(2),
        };
        let text = |at: u64| format!("{at}: {}", "x".repeat(90));
        Self {
            number,
            output,
            title: number.is_multiple_of(2).then(|| format!("task {number}")),
            records: (0..part / 40).map(record).collect(),
            texts: (0..part / 100).map(text).collect(),
            weights: vec![number as f32; (bytes - 2 * part) as usize / 4].into(),
        }
    }

    fn run(self) -> Self {
        let Self { number, output, .. } = self;
        assert!(
            self.weights
                .iter()
                .take(10)
                .all(|weight| *weight == number as f32)
        );
        Self::task(number, output, output)
    }

    fn is_output_of(&self, number: u64, _: u64, output: u64) -> bool {
        *self == Self::task(number, output, output)
    }

    fn number(&self) -> Option<u64> {
        Some(self.number)
    }

    fn bytes(&self) -> u64 {
        (40 * self.records.len() + 100 * self.texts.len() + 4 * self.weights.len()) as u64
    }
}
