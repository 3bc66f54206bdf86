//! The messages between leader and nodes: the version of this format, a value in postcard's encoding, and then the bytes of tasks or
//! outputs, as they are.
//!
//! Nothing that is received is trusted: a message of another version, with missing bytes or with bytes left over is refused, and
//! lengths are checked against the bytes that were received.

mod columns;

use std::any::type_name;
use std::time::Duration;

use bytes::Bytes;
use invoker::{Builder, Op, OpBuilder, facade};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::value::Value;
pub(crate) use columns::{Numbers, Outcome, Outcomes};

/// The version of these messages: the first byte of each.
pub(crate) const VERSION: u8 = 5;

/// The most tasks of a message.
pub(crate) const MOST_TASKS: usize = 1 << 20;

/// Returns the hash that identifies an encoded task, in answers and after a restart of the leader: XXH3 with 64 bits.
pub(crate) fn task_hash(encoded: &[u8]) -> u64 {
    twox_hash::XxHash3_64::oneshot(encoded)
}

/// The description of a run: a node must agree with it before it gets a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    program: Program,
    /// The encoded values of the op, such as its context.
    data: Vec<u8>,
    /// The root of the tasks' seeds.
    pub seed: Option<u64>,
    /// Chosen at random for each run: batches and answers of other runs do not have it.
    pub session: u64,
    /// After this silence, a node is lost.
    pub ack_wait: Duration,
    /// How many nodes a task may cost before it fails. With 0, no task runs twice.
    pub node_losses: u32,
    /// Whether answers are kept until the end of the run, so that another leader can go on with it.
    pub resumable: bool,
}

impl Manifest {
    /// Describes a run of this op, with the defaults: two losses, silence of 5 s, not resumable. The session is 0.
    ///
    /// # Errors
    /// That of the serialization of the op's values, such as its context.
    pub fn new<F: Op<M, T, R>, M, T, R>(op: OpBuilder<F, M, T, R>) -> Result<Self, String> {
        let data = postcard::to_allocvec(&facade::op_data(op));
        Ok(Self {
            program: Program::of::<F, T, R>(),
            data: data.map_err(|error| error.to_string())?,
            seed: None,
            session: 0,
            ack_wait: Duration::from_secs(5),
            node_losses: 2,
            resumable: false,
        })
    }

    /// Returns the message with this description.
    pub fn to_bytes(&self) -> Bytes {
        encode(self, &[])
    }

    /// Goes on with the run of an earlier leader, whose description these bytes are: takes its session.
    ///
    /// # Errors
    /// What differs, with both values.
    pub fn resume(mut self, earlier: &[u8]) -> Result<Self, String> {
        let Some(earlier) = decode_all::<Self>(earlier) else {
            return Err("its manifest is malformed".to_owned());
        };
        let differences = self.program.differences(&earlier.program);
        if self.seed != earlier.seed {
            return Err(format!("the seed is {:?}, and was {:?}", self.seed, earlier.seed));
        } else if self.data != earlier.data {
            return Err("the context is another one".to_owned());
        } else if !differences.is_empty() {
            return Err(differences);
        }
        self.session = earlier.session;
        Ok(self)
    }

    /// Sets in a node's builder the values that the leader decides: those of its op, and the seed.
    ///
    /// # Errors
    /// What differs between the programs of leader and node, with both values.
    pub fn apply<'m, F: Op<M, T, R>, M: Value + Sync, T: Value, R: Value>(
        &self,
        builder: Builder<'m, F, M, T, R>,
    ) -> Result<Builder<'m, F, M, T, R>, String> {
        let differences = Program::of::<F, T, R>().differences(&self.program);
        if !differences.is_empty() {
            return Err(differences);
        }
        let data = postcard::from_bytes(&self.data);
        let data = data.map_err(|error| format!("it cannot decode the context: {error}"))?;
        let builder = facade::with_op_data(builder, data);
        Ok(match self.seed {
            Some(root) => builder.seed(root),
            None => builder,
        })
    }

    /// Returns how long nodes wait for a silent leader.
    pub fn lease(&self) -> Duration {
        match self.resumable {
            true => Duration::from_secs(3600),
            false => (6 * self.ack_wait).max(Duration::from_secs(30)),
        }
    }
}

/// What leader and nodes must have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Program {
    /// The version of this crate.
    version: String,
    op: String,
    task: String,
    output: String,
}

impl Program {
    fn of<F, T, R>() -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            op: type_name::<F>().to_owned(),
            task: type_name::<T>().to_owned(),
            output: type_name::<R>().to_owned(),
        }
    }

    /// Describes each difference between a node's program, `self`, and the leader's.
    fn differences(&self, leader: &Self) -> String {
        let pairs = [
            ("version of cluster-run", &self.version, &leader.version),
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
    pub(crate) session: u64,
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
    pub(crate) failed: u64,
    pub(crate) worker_deaths: u64,
    /// The memory of the node's processes, each shared page counted once: only of a node that leaves.
    pub(crate) pss: Option<u64>,
}

/// Identifies a batch: successive tasks of a job, from `first` on. Each time that a task is sent again, its batch has another number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BatchId {
    pub(crate) job: u32,
    pub(crate) first: u64,
    pub(crate) number: u64,
}

/// Tasks of a batch, at these positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claim {
    pub(crate) batch: BatchId,
    pub(crate) from: u32,
    pub(crate) upto: u32,
}

/// What nodes send to the leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    Manifest,
    Join(Join),
    /// May the node run these tasks? They count as started from now on.
    Begin {
        node: u64,
        claims: Vec<Claim>,
    },
    /// Still alive, or about to leave.
    Beat {
        node: u64,
        counts: NodeCounts,
        leaves: bool,
    },
}

/// The leader's replies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reply {
    /// The description of the run.
    Manifest(Box<Manifest>),
    /// The node has joined, or goes on.
    Yes,
    /// For each of the tasks that it wants to begin, whether it may: not if another node has the batch, or it was answered.
    Begin(Vec<bool>),
    /// The leader does not know the node: it must join again.
    Unknown,
    /// The node would compute something else, for this reason.
    Refused(String),
    /// The run has ended.
    End,
}

impl Reply {
    /// Decodes the leader's reply to a request. Returns `None` if it is malformed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        decode_all(bytes)
    }
}

/// Tasks, as the engine has them. Their bytes follow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) session: u64,
    pub(crate) id: BatchId,
    /// The node must run nothing else at the same time: the tasks have cost a node before.
    pub(crate) alone: bool,
    pub(crate) lengths: Numbers,
}

/// What became of a batch that its node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum End {
    /// All of its tasks were run.
    Done,
    /// The node gives back the tasks that are not answered, because it stops. They have not started.
    Released,
    /// The node is lost.
    Lost,
}

/// A node's answers to one batch or several. The bytes of their outcomes follow, in the same order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answers<A = Answer> {
    pub(crate) session: u64,
    pub(crate) node: u64,
    /// [`Answer`]s, or references to them.
    pub(crate) answers: Vec<A>,
}

impl Answers {
    /// Returns each answer with the bytes of its outcomes, or `None` if the lengths are not those of the bytes.
    pub(crate) fn split<'a>(&self, mut bytes: &'a [u8]) -> Option<Vec<(&Answer, Items<'a>)>> {
        let answers = self.answers.iter().map(|answer| {
            let len = answer.outcomes.lengths.sum()?;
            let (own, rest) = bytes.split_at_checked(len)?;
            bytes = rest;
            let items = split(own, &answer.outcomes.lengths)?;
            answer.outcomes.is_consistent().then_some((answer, items))
        });
        let answers = answers.collect::<Option<Vec<_>>>()?;
        bytes.is_empty().then_some(answers)
    }
}

/// Outcomes of some of a batch's tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) batch: BatchId,
    /// The node's time for these tasks, in nanoseconds.
    pub(crate) took_ns: u64,
    /// It is the last one: all others are in the stream before it.
    pub(crate) end: Option<End>,
    pub(crate) outcomes: Outcomes,
}

/// Encodes a message, with the bytes that follow it.
pub(crate) fn encode<T: Serialize>(message: &T, payload: &[u8]) -> Bytes {
    encode_parts(message, &[payload])
}

/// Encodes a message, with all the bytes that follow it.
pub(crate) fn encode_parts<T: Serialize>(message: &T, payload: &[&[u8]]) -> Bytes {
    let len: usize = payload.iter().map(|part| part.len()).sum();
    let mut start = Vec::with_capacity(len + 256);
    start.push(VERSION);
    // Only a value that has no length known in advance, or a writer without room, can fail.
    let encoded = postcard::to_extend(message, start);
    let mut bytes = encoded.unwrap_or_else(|e| unreachable!("a message encodes: {e}"));
    payload.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes.into()
}

/// Decodes a message. Returns it, and the bytes that follow.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, &[u8])> {
    match bytes.split_first() {
        Some((&VERSION, value)) => postcard::take_from_bytes(value).ok(),
        _ => None,
    }
}

/// Decodes a message that no bytes follow.
pub(crate) fn decode_all<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (message, rest) = decode(bytes)?;
    rest.is_empty().then_some(message)
}

/// The encoded tasks or outputs of a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Items<'a> {
    /// They have one length, and that is not 0.
    Equal {
        bytes: &'a [u8],
        len: usize,
    },
    Each(Vec<&'a [u8]>),
}

impl<'a> Items<'a> {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Equal { bytes, len } => bytes.len() / len,
            Self::Each(items) => items.len(),
        }
    }

    pub(crate) fn get(&self, at: usize) -> &'a [u8] {
        match self {
            Self::Equal { bytes, len } => &bytes[at * len..(at + 1) * len],
            Self::Each(items) => items[at],
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &'a [u8]> {
        (0..self.len()).map(|at| self.get(at))
    }
}

/// Splits bytes into items of these lengths, if that is all of them, and there are not more than a message may have.
pub(crate) fn split<'a>(mut bytes: &'a [u8], lengths: &Numbers) -> Option<Items<'a>> {
    if lengths.len() > MOST_TASKS {
        return None;
    }
    if let Some(len) = lengths.equal().filter(|len| *len > 0) {
        let len = len as usize;
        return (len.checked_mul(lengths.len())? == bytes.len()).then_some(Items::Equal { bytes, len });
    }
    let items = lengths.iter().map(|len| {
        let (item, rest) = bytes.split_at_checked(len as usize)?;
        bytes = rest;
        Some(item)
    });
    let items = items.collect::<Option<Vec<_>>>()?;
    bytes.is_empty().then_some(Items::Each(items))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BATCH: BatchId = BatchId {
        job: 2,
        first: 5,
        number: 3,
    };

    #[test]
    fn messages_of_other_lengths_and_versions_are_refused() {
        let claim = Claim {
            batch: BATCH,
            from: 0,
            upto: 300,
        };
        let request = Request::Begin {
            node: u64::MAX,
            claims: vec![claim, claim],
        };
        let bytes = encode(&request, &[]);
        assert_eq!(decode_all(&bytes), Some(request));
        for len in 0..bytes.len() {
            assert_eq!(decode_all::<Request>(&bytes[..len]), None, "{len}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(decode_all::<Request>(&longer), None);
        let mut other = bytes.to_vec();
        other[0] = VERSION + 1;
        assert_eq!(decode_all::<Request>(&other), None);
    }

    #[test]
    fn items_are_split_if_their_lengths_are_those_of_all_bytes() {
        let bytes = [1, 2, 3];
        let split = |lengths: &[u32]| {
            let items = split(&bytes, &lengths.iter().copied().collect());
            items.map(|items| items.iter().collect::<Vec<_>>())
        };
        assert_eq!(split(&[2, 0, 1]), Some(vec![&bytes[..2], &[], &bytes[2..]]));
        assert_eq!(
            split(&[1, 1, 1]),
            Some(vec![&bytes[..1], &bytes[1..2], &bytes[2..]])
        );
        for lengths in [
            &[][..],
            &[2],
            &[4],
            &[1, 1],
            &[2, 2],
            &[3, 1],
            &[u32::MAX, u32::MAX],
        ] {
            assert_eq!(split(lengths), None, "{lengths:?}");
        }
        let (first, step, count) = (0, 0, u32::MAX);
        let endless = Numbers::Steps { first, step, count };
        assert_eq!(super::split(&[], &endless), None, "it would take all memory");
    }

    fn answer() -> Vec<u8> {
        let outcomes = [(4, 2), (5, 3), (7, 4)].map(|(at, len)| Outcome {
            at,
            hash: u64::MAX - 1,
            is_fault: at == 5,
            len,
        });
        let answer = |outcomes: &[Outcome]| Answer {
            batch: BATCH,
            took_ns: 9,
            end: Some(End::Done),
            outcomes: outcomes.iter().copied().collect(),
        };
        let answers = Answers {
            session: 1,
            node: 2,
            answers: vec![answer(&outcomes[..1]), answer(&[]), answer(&outcomes[1..])],
        };
        encode(&answers, b"123456789").to_vec()
    }

    /// Every byte of a message replaced by every value: the decoder returns, and never reads beyond.
    #[test]
    fn hostile_bytes_are_refused_or_decoded_but_never_more() {
        let batch = Batch {
            session: 1,
            id: BATCH,
            alone: false,
            lengths: [4, 5].into_iter().collect(),
        };
        let read = |bytes: &[u8]| match decode::<Batch>(bytes) {
            Some((batch, rest)) => split(rest, &batch.lengths).map(|it| it.iter().map(<[u8]>::len).sum()),
            None => None,
        };
        let read_answer = |bytes: &[u8]| {
            let (answers, rest) = decode::<Answers>(bytes)?;
            let mut len = 0;
            for (answer, items) in answers.split(rest)? {
                let outcomes = answer.outcomes.iter().zip(items.iter());
                let results = outcomes.map(|(it, bytes)| it.result(bytes));
                assert_eq!(results.count(), items.len());
                len += items.iter().map(<[u8]>::len).sum::<usize>();
            }
            Some(len)
        };
        type Read<'a> = &'a dyn Fn(&[u8]) -> Option<usize>;
        let cases: [(Vec<u8>, Read<'_>); 2] = [
            (encode(&batch, b"tasktasks").to_vec(), &read),
            (answer(), &read_answer),
        ];
        for (bytes, read) in cases {
            assert_eq!(read(&bytes), Some(9));
            let mut refused = 0;
            for (at, value) in (0..bytes.len()).flat_map(|at| (0..=u8::MAX).map(move |value| (at, value))) {
                let mut hostile = bytes.clone();
                hostile[at] = value;
                match read(&hostile) {
                    Some(len) => assert!(len <= bytes.len()),
                    None => refused += 1,
                }
            }
            assert!(refused > 500, "{refused}");
        }
    }
}
