//! Items that the crate `invoker` needs to run ops without processes. They are not part of the public interface, and change
//! freely.

pub use crate::os::Origin;
pub use crate::panics::guarded;
pub use crate::pool::handle::TaskSource;
pub use crate::pool::interrupt::Interruptible;
pub use crate::pool::signals::Subscription;
