//! The protocol between leader and worker, used by both sides (`leader` and `worker`): the handshake, the layout of their
//! shared memory, and how tasks and outputs become frames.
//!
//! | module | contents |
//! |---|---|
//! | `handshake` | the first message to a worker, with everything that it needs to start |
//! | `value` | a value of the handshake: inline, or in a segment if it is large |
//! | `worker_values` | the values that the leader makes for one process |
//! | `entry` | which functions a worker runs, in a form that is valid in another process |
//! | `layout` | where rings, slots and arenas are in the memory that leader and worker share |
//! | `tags` | the first byte of a frame |
//! | `payload`, `pieces` | small payloads in a frame, large ones in pieces through an arena |
//! | `codec`, `native`, `encoding` | values to bytes and back: by choice, by default, in the handshake |
//! | `apart` | buffers that travel apart from the encoding of their value |
//! | `owned_bytes` | memory that is a vector and its encoding |
//! | `bytes` | the buffers that users of bytes see |

pub(crate) mod apart;
pub(crate) mod bytes;
pub(crate) mod codec;
pub(crate) mod encoding;
pub(crate) mod entry;
pub(crate) mod handshake;
pub(crate) mod layout;
pub(crate) mod native;
pub(crate) mod owned_bytes;
pub(crate) mod payload;
pub(crate) mod pieces;
pub(crate) mod tags;
pub(crate) mod value;
pub(crate) mod worker_values;
