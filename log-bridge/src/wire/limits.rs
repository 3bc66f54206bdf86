//! The bounds of records: a worker writes nothing larger, and the leader refuses anything larger.

/// Bytes of one frame. The leader refuses a larger one before it decodes it.
pub(crate) const MAX_FRAME: usize = 64 * 1024;
/// Bytes of the encoded metadata of one callsite.
pub(crate) const MAX_CALLSITE: usize = 8 * 1024;
/// Callsites that one source may number: this bound applies to those of events, and to those of spans.
pub(crate) const MAX_CALLSITES: usize = 4096;
/// Bytes of the metadata of all numbered callsites of one source: of events, and again of spans.
pub(crate) const MAX_CALLSITES_BYTES: usize = 1 << 20;
/// Spans of one event. Beyond this, the worker leaves out the outermost ones.
pub(crate) const MAX_SPANS: usize = 64;
