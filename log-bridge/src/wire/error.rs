//! What can be wrong with a record.

use super::limits::{MAX_CALLSITE, MAX_CALLSITES_BYTES, MAX_FRAME, MAX_SPANS};

/// The first byte of every frame. Leader and worker are usually the same executable; if they are not, a version check
/// reports it instead of misreading records.
pub(crate) const VERSION: u8 = 3;

/// A record that no correct worker writes.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error(transparent)]
pub struct DecodeError(#[from] Malformed);

/// The reason behind a [`DecodeError`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("log record of {0} bytes exceeds the largest of {MAX_FRAME}")]
    TooLarge(usize),
    #[error("log record has version {0}, expected {VERSION}: leader and worker are different builds")]
    Version(u8),
    #[error("log record is of unknown kind {0}")]
    Kind(u8),
    #[error("log record ends early: {expected} more bytes expected, {left} are left")]
    UnexpectedEnd { expected: usize, left: usize },
    #[error("log record has {0} bytes too many")]
    TrailingBytes(usize),
    #[error("log record has {0} spans, at most {MAX_SPANS} are allowed")]
    TooManySpans(usize),
    #[error("log record has text that is not UTF-8")]
    Utf8,
    #[error("log record has a number of more than 64 bits")]
    Varint,
    #[error("log record has a value of unknown type {0}")]
    ValueTag(u8),
    #[error("log record has a callsite of unknown form {0}")]
    CallsiteForm(u8),
    #[error("log record refers to callsite {0}, which is not defined")]
    UndefinedCallsite(u16),
    #[error("log record defines callsite {0} again with other metadata")]
    RedefinedCallsite(u16),
    #[error("log record defines callsites of more than {MAX_CALLSITES_BYTES} bytes")]
    CallsitesTooLarge,
    #[error("callsite of {0} bytes exceeds the largest of {MAX_CALLSITE}")]
    CallsiteTooLarge(usize),
    #[error("callsite has unknown level {0}")]
    Level(u8),
    #[error("value for field {field} of a callsite with {fields} fields")]
    Field { field: u64, fields: usize },
}

shm_buffers::debug_with_causes!(DecodeError);
