//! What can be wrong with a record.

use std::error::Error;
use std::fmt;

use super::limits::{MAX_CALLSITE, MAX_CALLSITES_BYTES, MAX_FRAME, MAX_SPANS};

/// The first byte of every frame. Leader and worker are usually the same executable; if they are not, a version check
/// reports it instead of misreading records.
pub(crate) const VERSION: u8 = 3;

/// A record that no correct worker writes.
#[derive(Clone, PartialEq, Eq)]
pub struct DecodeError(Malformed);

impl From<Malformed> for DecodeError {
    fn from(malformed: Malformed) -> Self {
        Self(malformed)
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Error for DecodeError {}

/// The reason behind a [`DecodeError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Malformed {
    TooLarge(usize),
    Version(u8),
    Kind(u8),
    UnexpectedEnd { expected: usize, left: usize },
    TrailingBytes(usize),
    TooManySpans(usize),
    Utf8,
    Varint,
    ValueTag(u8),
    CallsiteForm(u8),
    UndefinedCallsite(u16),
    RedefinedCallsite(u16),
    CallsitesTooLarge,
    CallsiteTooLarge(usize),
    Level(u8),
    Field { field: u64, fields: usize },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(it) => write!(f, "log record of {it} bytes exceeds the largest of {MAX_FRAME}"),
            Self::Version(it) => write!(
                f,
                "log record has version {it}, expected {VERSION}: leader and worker are different builds"
            ),
            Self::Kind(it) => write!(f, "log record is of unknown kind {it}"),
            Self::UnexpectedEnd { expected, left } => write!(
                f,
                "log record ends early: {expected} more bytes expected, {left} are left"
            ),
            Self::TrailingBytes(it) => write!(f, "log record has {it} bytes too many"),
            Self::TooManySpans(it) => write!(f, "log record has {it} spans, at most {MAX_SPANS} are allowed"),
            Self::Utf8 => write!(f, "log record has text that is not UTF-8"),
            Self::Varint => write!(f, "log record has a number of more than 64 bits"),
            Self::ValueTag(it) => write!(f, "log record has a value of unknown type {it}"),
            Self::CallsiteForm(it) => write!(f, "log record has a callsite of unknown form {it}"),
            Self::UndefinedCallsite(it) => {
                write!(f, "log record refers to callsite {it}, which is not defined")
            }
            Self::RedefinedCallsite(it) => {
                write!(f, "log record defines callsite {it} again with other metadata")
            }
            Self::CallsitesTooLarge => write!(
                f,
                "log record defines callsites of more than {MAX_CALLSITES_BYTES} bytes"
            ),
            Self::CallsiteTooLarge(it) => {
                write!(f, "callsite of {it} bytes exceeds the largest of {MAX_CALLSITE}")
            }
            Self::Level(it) => write!(f, "callsite has unknown level {it}"),
            Self::Field { field, fields } => {
                write!(f, "value for field {field} of a callsite with {fields} fields")
            }
        }
    }
}

impl Error for Malformed {}

shm_buffers::debug_with_causes!(DecodeError);
