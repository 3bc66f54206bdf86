//! Counts vowels in worker processes. Only [`init`] shows that in the interface.
//!
//! This is an example of a library that uses `invoker` internally. Programs that use the library call its [`init`] first.

mod count;
mod count_async;

pub use count::count;
pub use count_async::{Counting, count_async};
pub use invoker::init;
