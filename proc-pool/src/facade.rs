//! What the crate `invoker` uses to run ops without processes. It is not part of the public interface, and changes freely.

pub use crate::os::Origin;
pub use crate::panics::guarded;
pub use crate::pool::handle::TaskSource;
pub use crate::pool::interrupt::Interruptible;
pub use crate::pool::signals::Subscription;
