//! A run of tasks on several machines, whatever connects them: the messages of leader and nodes, the size of batches, the accounting of
//! open tasks, losses of nodes, and the report.
//!
//! There is no network here, and no thread. A crate for an engine (such as `invoker-nats`, for NATS JetStream) moves the messages, which
//! are bytes to it, and has the threads and the clock:
//!
//! - In the leader, [`LeaderState`] is the state that the callers and the engine have in common. The engine sends the
//!   [batches](LeaderState::message) that it is asked to send, brings [answers](LeaderState::receive), [requests](LeaderState::reply) and
//!   [records](LeaderState::receive_records) of nodes, and [ticks](LeaderState::tick). [`Jobs`] is the side of the callers: `map` and
//!   `submit`.
//! - In a node, [`NodeState`] has the node's description of itself, and [`run_batches`] runs batches in the node's pool. Its [`Engine`] asks
//!   the leader, publishes answers, and reports that the node stops. Last answers to batches are published
//!   [together](NodeState::last_answers).
//!
//! An engine must guarantee this: a batch that it has taken is delivered to at least one node, and again if that node has not
//! acknowledged it; an answer that it has taken reaches the leader at least once. Both may come twice, late, damaged, or from another
//! run: only the leader's accounting delivers outputs, and the first valid answer to a task wins.
//! [`LeaderState::resend_unclaimed`] sends batches again that the engine has lost for good.
//!
//! All calls return immediately, except those whose documentation says that they wait.

mod accounting;
mod batcher;
mod leader;
mod messages;
mod node;
mod report;
mod value;

pub use leader::{Jobs, LeaderState, Limits, Outputs};
pub use messages::{BatchId, Manifest, Reply};
pub use node::{Disposal, Engine, HeldBatch, LastAnswer, NodeState, run_batches};
pub use report::{ClusterReport, NodeEnd, NodeRow, ServeEnd};
pub use value::Value;
