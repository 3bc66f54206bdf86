//! The program that runs in a worker process: its start, its main loop, and the user's code that it calls. Only the leader's
//! `pool` imports this module, to name the functions that a worker shall run.
//!
//! | module | contents |
//! |---|---|
//! | `init` | where a process finds out that it is a worker |
//! | `startup`, `bootstrap` | the handshake with the leader, and its result |
//! | `main_loop` | receives tasks, runs them, sends outcomes |
//! | `entry_point`, `routine`, `op` | which code runs: as described by the user, as functions, as addresses |
//! | `service` | the traits of that code |
//! | `registry` | the ops of a separate worker program, by name |

pub(crate) mod bootstrap;
pub(crate) mod entry_point;
pub(crate) mod init;
pub(crate) mod main_loop;
pub(crate) mod op;
pub(crate) mod registry;
pub(crate) mod routine;
pub(crate) mod service;
pub(crate) mod startup;
