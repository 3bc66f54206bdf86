//! A node of a run: its description of itself, and the batches that it has.

mod answers;
mod room;
mod run;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use invoker::{Invoker, PoolError, facade};
use log_bridge::relay::Relay;
use proc_pool::BytePool;

use crate::messages::{self, Batch, BatchId, Claim, Items, Join, Manifest, NodeCounts, Reply, Request};
use crate::value::Value;
pub use answers::LastAnswer;
use room::{Occupied, Room};
pub use run::run_batches;

/// The work that a node announces to the leader before it starts it: the tasks that count as started if the node is lost.
const ANNOUNCED: Duration = Duration::from_millis(50);
/// The most batches that run together.
const MOST_TOGETHER: usize = 16;

/// The engine that connects a node to the leader, as the node needs it while it runs a batch.
pub trait Engine: Sync {
    /// A message that was published, and is on its way.
    type Sending;

    /// Sends a request to the leader, and waits for the reply: for a few seconds, or until it is known that no reply comes.
    fn ask(&self, request: &Bytes) -> Option<Reply>;

    /// Returns the most bytes of an answer, unless a single output has more.
    fn max_message(&self) -> usize;

    /// Begins to publish an answer until the engine has taken it. The id is that of no other answer of the run.
    fn publish(&self, id: String, answer: Bytes) -> Self::Sending;

    /// Waits until the engine has taken an answer, or the run is [over](Self::is_over).
    fn wait(&self, sending: Self::Sending);

    /// Stops the node, because its pool has failed.
    fn fail(&self, error: PoolError);

    /// Returns whether the node stops: no further tasks begin.
    fn stops(&self) -> bool;

    /// Returns whether the run has ended or the leader is lost: running tasks are of no use.
    fn is_over(&self) -> bool;
}

/// The state of a node: the run, itself, and the batches that it has.
pub struct NodeState {
    manifest: Manifest,
    join: Join,
    failed: AtomicU64,
    /// Nanoseconds per task, as measured last.
    task_ns: AtomicU64,
    next_answer: AtomicU64,
    /// Held for writing by a batch that must run alone.
    gate: RwLock<()>,
    /// Held by the batch whose tasks go to the workers: the next one follows when all of them have.
    turn: Mutex<()>,
    room: Arc<Room>,
}

impl fmt::Debug for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeState({:?})", self.join)
    }
}

impl NodeState {
    /// Describes a node of this run. `id` is chosen at random.
    ///
    /// # Errors
    /// [`Unsupported`](invoker::Error::Unsupported) if the invoker has no worker processes.
    pub fn new<M: Send + Sync + 'static, T: Value, R: Value>(
        manifest: Manifest,
        id: u64,
        invoker: &Invoker<M, T, R>,
    ) -> Result<Self, invoker::Error> {
        let (_, image) = facade::pool(invoker)?;
        let join = Join {
            session: manifest.session,
            node: id,
            name: format!("{}:{}", host_name(), std::process::id()),
            workers: invoker.workers() as u32,
            checksum: image.checksum(),
            model_bytes: image.byte_len(),
        };
        Ok(Self {
            room: Room::new(invoker.workers()),
            manifest,
            join,
            failed: AtomicU64::new(0),
            task_ns: AtomicU64::new(0),
            next_answer: AtomicU64::new(0),
            gate: RwLock::new(()),
            turn: Mutex::new(()),
        })
    }

    /// Returns the description of the run.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Returns the request for the [description](Reply::Manifest) of a run.
    pub fn ask_manifest() -> Bytes {
        messages::encode(&Request::Manifest, &[])
    }

    /// Returns the request to join the run.
    pub fn ask_to_join(&self) -> Bytes {
        messages::encode(&Request::Join(self.join.clone()), &[])
    }

    /// Returns the request that reports to the leader that the node is alive. The reply is [`Reply::Unknown`] if it has to join again, and
    /// [`Reply::End`] when the run ends.
    pub fn beat(&self) -> Bytes {
        self.report(NodeCounts::default(), false)
    }

    /// Returns the last request of a node that leaves, with the number of its dead workers and the memory of its processes.
    pub fn farewell(&self, worker_deaths: u64, pss: Option<u64>) -> Bytes {
        let failed = 0;
        self.report(
            NodeCounts {
                failed,
                worker_deaths,
                pss,
            },
            true,
        )
    }

    fn report(&self, counts: NodeCounts, leaves: bool) -> Bytes {
        let (node, failed) = (self.join.node, self.failed.load(Ordering::Relaxed));
        let counts = NodeCounts { failed, ..counts };
        messages::encode(&Request::Beat { node, counts, leaves }, &[])
    }

    /// Returns a message with log records that wait, of at most about this number of bytes.
    pub fn take_records(&self, relay: &Relay, most: usize) -> Option<Bytes> {
        let records = relay.take(most)?;
        Some(messages::encode(&(self.join.node, records), &[]))
    }

    /// Returns the number of threads that each run batches. Most of them have none, unless batches have few tasks.
    pub fn threads(&self) -> usize {
        self.join.workers as usize + 2
    }

    /// Waits until the node has room for another batch: it has room for two, for as many as keep its workers busy, or for several short
    /// ones. Returns how many the engine may request, or `None` if the node stops. One thread at a time may wait and request, and only when
    /// it has taken all batches that were requested.
    pub fn wait_for_room(&self, engine: &impl Engine) -> Option<usize> {
        let task_ns = || self.task_ns.load(Ordering::Relaxed);
        self.room.wait(task_ns, || engine.stops())
    }

    /// Returns whether a thread that has taken these batches may also take the next one that the engine has already received, to run all
    /// of them together: they take next to no time.
    pub fn has_time_for_another(&self, taken: &[HeldBatch]) -> bool {
        taken.len() < MOST_TOGETHER && !taken.iter().any(|held| held.batch.alone) && self.is_short()
    }

    /// Returns whether all batches that the node has take next to no time.
    fn is_short(&self) -> bool {
        self.room.is_short(self.task_ns.load(Ordering::Relaxed))
    }

    /// Returns how many tasks the node announces at a time.
    fn announced(&self, pool: &BytePool) -> usize {
        let task_ns = self.task_ns.load(Ordering::Relaxed);
        let tasks = (ANNOUNCED.as_nanos() as u64).checked_div(task_ns).unwrap_or(0);
        // A few for each worker, so that none waits for the leader's reply.
        (tasks as usize).max(4 * pool.workers())
    }
}

/// A batch that a node has.
#[derive(Debug)]
pub struct HeldBatch {
    batch: Batch,
    /// The message: its end are the tasks.
    contents: Bytes,
    tasks: usize,
    /// Whether it was delivered before.
    is_again: bool,
    occupied: Occupied,
}

impl HeldBatch {
    /// Reads a message of the engine; `is_again` is whether it may have been delivered before, to this or another node. Returns `None`
    /// if it has no batch of this run: no node can run it.
    pub fn new(contents: Bytes, node: &NodeState, is_again: bool) -> Option<Self> {
        let (batch, tasks) = messages::decode::<Batch>(&contents)?;
        let (tasks, lengths) = (tasks.len(), batch.lengths.len());
        let held = Self {
            batch,
            tasks: contents.len() - tasks,
            occupied: node.room.occupy(lengths),
            contents,
            is_again,
        };
        (held.batch.session == node.manifest.session && held.tasks().is_some()).then_some(held)
    }

    /// Returns the engine's message.
    pub fn contents(&self) -> &Bytes {
        &self.contents
    }

    /// Returns what identifies the batch.
    pub fn id(&self) -> BatchId {
        self.batch.id
    }

    fn claim(&self, from: usize, upto: usize) -> Claim {
        Claim {
            batch: self.batch.id,
            from: from as u32,
            upto: upto as u32,
        }
    }

    fn tasks(&self) -> Option<Items<'_>> {
        messages::split(&self.contents[self.tasks..], &self.batch.lengths)
    }
}

/// What becomes of the engine's message with a batch.
#[derive(Debug)]
pub enum Disposal {
    /// Tasks were run: to acknowledge when the engine has taken the last answer, alone or [with those to other
    /// batches](NodeState::last_answers).
    Done(LastAnswer),
    /// Another node has the batch, or all of it was answered: to acknowledge.
    Unwanted,
    /// The node stops: another one is to get the batch.
    GiveBack,
}

#[cfg(unix)]
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "node".to_owned())
}
