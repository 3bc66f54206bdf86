//! The messages between leader and nodes. Each starts with the version of this format; then follows a value in postcard's encoding.
//!
//! Nothing that is received is trusted: a message of another version, with missing bytes or with bytes left over is refused, and
//! lengths are checked against the bytes that were received.

mod lists;

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub(crate) use lists::{Outcome, Outcomes, Tasks};

/// The version of these messages: the first byte of each.
pub(crate) const VERSION: u8 = 3;

/// Returns the hash that identifies an encoded task, in answers and after a restart of the leader: XXH3 with 64 bits.
pub(crate) fn task_hash(encoded: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(encoded)
}

/// Bytes that are encoded as they are, and decoded without a copy.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Blob<'a>(pub(crate) Cow<'a, [u8]>);

impl<'a> From<&'a [u8]> for Blob<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Blob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl Serialize for Blob<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Blob<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&[u8]>::deserialize(deserializer).map(Self::from)
    }
}

/// The description of a run: a node must agree with it before it gets a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    /// The version of this crate.
    pub(crate) version: String,
    pub(crate) op: String,
    pub(crate) task: String,
    pub(crate) output: String,
    pub(crate) seed: Option<u64>,
    /// The encoded values of the op, such as its context.
    pub(crate) data: Vec<u8>,
    /// Chosen at random for each run: batches and answers of other runs do not have it.
    pub(crate) session: u64,
    pub(crate) ack_wait_ms: u64,
    /// How long nodes wait for a silent leader.
    pub(crate) lease_ms: u64,
    pub(crate) node_losses: u32,
}

impl Manifest {
    /// Describes each difference of op and types between a node, `self`, and the leader.
    pub(crate) fn differences(&self, leader: &Self) -> String {
        let pairs = [
            ("version of invoker-nats", &self.version, &leader.version),
            ("op", &self.op, &leader.op),
            ("task", &self.task, &leader.task),
            ("output", &self.output, &leader.output),
        ];
        let different = pairs.into_iter().filter(|(_, node, leader)| node != leader);
        let texts: Vec<String> = different
            .map(|(what, node, leader)| format!("its {what} is `{node}`, and `{leader}` for the leader"))
            .collect();
        texts.join("; ")
    }
}

/// A node, as it introduces itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Join {
    pub(crate) node: u64,
    pub(crate) name: String,
    pub(crate) workers: u32,
    /// The checksum of the model, and its size in bytes.
    pub(crate) checksum: u64,
    pub(crate) model_bytes: u64,
}

/// The counts of a node since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NodeCounts {
    pub(crate) done: u64,
    pub(crate) failed: u64,
    pub(crate) worker_deaths: u64,
    /// The memory of the node's processes, each shared page counted once: only of a node that leaves.
    pub(crate) pss: Option<u64>,
}

/// What nodes send to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Asks for the [`Manifest`].
    Manifest,
    Join(Join),
    /// The node is about to run the tasks of a batch between these positions, and asks which tasks of the batch are open. Those before
    /// `from` have cost no node.
    Begin {
        node: u64,
        batch: u64,
        from: u32,
        upto: u32,
    },
    /// The node has published all answers of a batch, the last one at this sequence number of the stream.
    Finish {
        node: u64,
        batch: u64,
        sequence: u64,
        /// The node gives back the other tasks, which have not started.
        released: bool,
    },
    /// Still alive, and has these batches.
    Beat {
        node: u64,
        held: Vec<u64>,
        counts: NodeCounts,
    },
    Leave {
        node: u64,
        counts: NodeCounts,
    },
}

/// The leader's replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Manifest(Box<Manifest>),
    Welcome,
    Refused(String),
    /// The leader does not know the node: it must join again.
    Unknown,
    Grant(Grant),
    Noted,
}

/// The tasks of a batch that a node may run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Grant {
    All,
    /// The tasks at these positions of the batch.
    Only(Vec<u32>),
    /// None: another node has the batch, or it was answered.
    Drop,
}

/// A message of the leader to all nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Broadcast {
    /// The leader is alive. A leader that resumes a run has another number.
    Beat { session: u64, leader: u64 },
    /// The run has ended.
    End,
}

/// The contents of a message: in it, or an object of the store, if they are large.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Body<'a> {
    #[serde(borrow)]
    Inline(Blob<'a>),
    Stored(String),
}

/// Tasks, as they lie in the stream of tasks. The body is a [`Tasks`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch<'a> {
    pub(crate) session: u64,
    pub(crate) job: u32,
    pub(crate) batch: u64,
    /// The node must run nothing else at the same time: the tasks have cost a node before.
    pub(crate) alone: bool,
    #[serde(borrow)]
    pub(crate) body: Body<'a>,
}

/// Outputs of some of a batch's tasks. The body is an [`Outcomes`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer<'a> {
    pub(crate) session: u64,
    pub(crate) node: u64,
    pub(crate) job: u32,
    /// The node's time for these tasks, in nanoseconds.
    pub(crate) took_ns: u64,
    #[serde(borrow)]
    pub(crate) body: Body<'a>,
}

/// The error of a message that is not valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// Encodes a message.
pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    let bytes = postcard::to_extend(message, vec![VERSION]);
    // Only a value that has no length known in advance, or a writer without room, can fail.
    bytes.unwrap_or_else(|e| unreachable!("a message encodes: {e}"))
}

/// Decodes a message that is exactly these bytes.
pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    match bytes.split_first() {
        Some((&VERSION, value)) => match postcard::take_from_bytes(value) {
            Ok((value, [])) => Ok(value),
            _ => Err(Malformed),
        },
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_other_lengths_and_versions_are_refused() {
        let request = Request::Begin {
            node: u64::MAX,
            batch: 7,
            from: 0,
            upto: 300,
        };
        let bytes = encode(&request);
        assert_eq!(decode::<Request>(&bytes), Ok(request));
        for len in 0..bytes.len() {
            assert_eq!(decode::<Request>(&bytes[..len]), Err(Malformed), "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode::<Request>(&longer), Err(Malformed));
        let mut other = bytes;
        other[0] = VERSION + 1;
        assert_eq!(decode::<Request>(&other), Err(Malformed));
    }
}
