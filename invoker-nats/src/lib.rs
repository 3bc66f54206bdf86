//! An invoker's op on many machines: a leader with the tasks, and one node process on each machine, which
//! [NATS JetStream](https://docs.nats.io/nats-concepts/jetstream) connects.
//!
//! Op, model type and task type are those of a single machine:
//!
//! ```no_run
//! use invoker::{Buffer, Image, Invoker};
//! use invoker_nats::Cluster;
//!
//! fn score(model: &Buffer<f64>, item: u32) -> f64 {
//!     model[item as usize]
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     invoker::init(); // a node's worker processes leave here
//!     let cluster = Cluster::from_env()?; // INVOKER_NATS, INVOKER_RUN
//!     if std::env::args().any(|argument| argument == "--node") {
//!         let image = Image::load_shared("model.safetensors", &invoker::Backing::Auto)?;
//!         let node = Invoker::builder(score).image(image);
//!         println!("{}", cluster.serve(node)?); // until the run ends; SIGTERM lets it leave
//!         return Ok(());
//!     }
//!     let run = cluster.lead(score).progress("score").build()?; // needs no model
//!     for score in run.map(0..1_000_000) {
//!         println!("{}", score?);
//!     }
//!     println!("{}", run.finish()?);
//!     Ok(())
//! }
//! ```
//!
//! - [`Cluster`] is the server, the name of the run, and how both are reached.
//! - [`Cluster::lead`] starts the leader: [`Leader::map`] and the other methods of an invoker. [`LeaderBuilder`] has the options: what a
//!   task may cost, and whether the run can be resumed.
//! - [`stage`] copies the file of a model to a disk of a node; [`Cluster::publish_model`] and [`Cluster::fetch_model`] bring it there by the
//!   server.
//! - [`Cluster::relay`] sends the events of nodes and their workers to the leader.
//! - [`Cluster::serve`] is a node: the builder of an invoker, with the model and the options of its worker processes.
//!
//! Outputs are delivered exactly once: the leader counts each task, and the first valid answer wins. Tasks run at least once if a node is
//! lost; [`LeaderBuilder::node_losses`] bounds that. The errors of tasks are those of a single machine, and
//! [`Fault::NodeLost`](invoker::Fault::NodeLost).
//!
//! This crate has no scheduler and no storage: that is NATS. Its threads are one for the client, and those of a node that wait for its pool.

mod cluster;
mod error;
mod hidden_thread;
mod lead;
mod link;
mod model_store;
mod node;

pub use cluster::{
    CA_VARIABLE, CERTIFICATE_VARIABLE, CREDENTIALS_VARIABLE, Cluster, KEY_VARIABLE, RUN_VARIABLE,
    URL_VARIABLE,
};
pub use cluster_run::{ClusterReport, NodeEnd, NodeRow, Outputs, ServeEnd, Value};
pub use error::Error;
pub use invoker::{StageError, stage};
pub use lead::{Leader, LeaderBuilder};
pub use log_bridge::relay::Relay;
pub use node::NodeReport;

/// The example of the README is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
