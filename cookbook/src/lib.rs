//! The ground of the recipes: the size of their models, a generator of numbers, and the check of their memory.
//!
//! A recipe is a program in `src/bin`. It builds a model, runs a few hundred tasks in two worker processes, compares the outputs with
//! those of a plain computation, and calls [`check`].

mod memory;
mod random;
mod recipe;

pub use memory::private_bytes;
pub use random::Random;
pub use recipe::{Copies, WORKERS, check, scaled};
