//! Configuration: the caller's choices and the environment.

pub(crate) mod choices;
pub(crate) mod disable;
pub(crate) mod environment;
