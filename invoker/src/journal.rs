//! The [journal](run_journal) of an invoker: the description of its job, and the calls that do not work with one.

mod identity;
mod refused;

pub(crate) use identity::open;
pub(crate) use refused::refused;
