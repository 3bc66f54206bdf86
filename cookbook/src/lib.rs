//! The ground of the recipes: the size of their models, a generator of numbers, a network, and the check of their memory.
//!
//! A recipe is a program in `src/bin`. It builds a model, runs a few hundred tasks in worker processes, compares the outputs with
//! those of a plain computation, and calls [`check`]. If each worker has a copy, it runs with threads as well.

mod memory;
mod network;
mod random;
mod recipe;

pub use memory::private_bytes;
pub use network::{Layer, Network};
pub use random::Random;
pub use recipe::{Copies, Measured, check, finish_threads, measure, scaled, workers};
