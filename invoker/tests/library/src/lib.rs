//! Counts vowels, in worker processes: nothing in its interface says so, but for [`init`].
//!
//! It stands for any library that uses `invoker` inside. Programs that use the library call its [`init`] first.

mod count;

pub use count::count;
pub use invoker::init;
