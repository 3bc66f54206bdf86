//! Items that the crate `invoker` needs to run ops without processes. They are not part of the public interface, and change
//! freely.
//!
//! A program that combines the crates by itself needs none of them: for worker processes, the facade uses the public interface only
//! (its example `by_hand` shows how). These are for another implementation of a pool, on threads, whose handles and
//! interrupters have the types of this crate: [`TaskSource`] and [`Interruptible`] are what these types are made of,
//! [`Subscription`] connects them with the one signal handler of the process, [`guarded`] and [`Origin`] are how this crate contains
//! panics and recognizes a fork, and [`Window`] is how many tasks a worker gets at a time. Two more are for a journal of outputs: [`Tap`] sees them as the workers
//! encoded them, and [`describe_code`] identifies an op. To publish them would fix the insides of those types.

pub use crate::leader::tasks::window::Window;
pub use crate::os::Origin;
pub use crate::panics::guarded;
pub use crate::pool::handle::TaskSource;
pub use crate::pool::interrupt::Interruptible;
pub use crate::pool::map::{Ready, ReadyRun, Taken, Tap};
pub use crate::pool::signals::Subscription;
pub use crate::worker::op::describe_code;
