//! Writes the values of fields, each bounded in size.

use std::error::Error;
use std::fmt;

use tracing_core::field::{Field, Visit};

use crate::wire::bytes::{prefix, put_varint, zigzag};
use crate::wire::value::{
    TAG_BYTES, TAG_DEBUG, TAG_ERROR, TAG_F64, TAG_FALSE, TAG_I64, TAG_I128, TAG_STR, TAG_TRUE, TAG_U64,
    TAG_U128,
};

/// Replaces the end of a text that is too long.
const MARKER: &str = "…[truncated]";
/// Bytes that a value may take besides its text.
const OVERHEAD: usize = 16;
/// Messages of an error and its sources that a record holds.
const MAX_MESSAGES: usize = 8;

/// Which fields are written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fields {
    All,
    /// The message of a record of the `log` crate; its other fields are metadata.
    OnlyFirst,
}

/// Appends the values of an event or span to a record.
pub(super) struct ValueWriter<'a> {
    out: &'a mut Vec<u8>,
    /// The length that `out` may reach.
    end: usize,
    fields: Fields,
    /// Values written.
    pub(super) count: u16,
    /// Values shortened or left out.
    pub(super) truncated: u16,
}

impl<'a> ValueWriter<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, end: usize, fields: Fields) -> Self {
        Self {
            out,
            end,
            fields,
            count: 0,
            truncated: 0,
        }
    }

    /// Appends a value, or removes it again if it does not fit.
    #[inline]
    fn value(&mut self, field: &Field, tag: u8, put: impl FnOnce(&mut Self)) {
        if self.fields == Fields::OnlyFirst && field.index() != 0 {
            return;
        }
        let start = self.out.len();
        put_varint(self.out, field.index() as u64);
        self.out.push(tag);
        put(self);
        if self.out.len() > self.end {
            self.out.truncate(start);
            self.truncated = self.truncated.saturating_add(1);
        } else {
            self.count += 1;
        }
    }

    /// Returns how many bytes one text may take: half of the space that is left, so that later fields get some.
    fn max_text(&self) -> usize {
        self.end.saturating_sub(self.out.len() + OVERHEAD) / 2
    }

    fn put_text(&mut self, text: &str, max: usize) {
        if text.len() <= max {
            self.out.extend_from_slice(&(text.len() as u16).to_le_bytes());
            self.out.extend_from_slice(text.as_bytes());
        } else {
            self.print(max, |out| out.write_str(text));
        }
    }

    /// Appends the length of what `print` prints, then the text, shortened to `max` bytes.
    #[inline]
    fn print(&mut self, max: usize, print: impl FnOnce(&mut dyn fmt::Write) -> fmt::Result) {
        self.out.extend_from_slice(&[0; 2]);
        let start = self.out.len();
        let mut bounded = BoundedText {
            max_len: start + max.saturating_sub(MARKER.len()),
            out: self.out,
            state: TextState::Complete,
        };
        // An error means that the bound was reached, or that a `Debug` failed: the text up to there is kept.
        let _ = print(&mut bounded);
        if bounded.state == TextState::Truncated {
            self.out.extend_from_slice(MARKER.as_bytes());
            self.truncated = self.truncated.saturating_add(1);
        }
        let len = (self.out.len() - start) as u16;
        self.out[start - 2..start].copy_from_slice(&len.to_le_bytes());
    }
}

impl Visit for ValueWriter<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.value(field, TAG_F64, |w| w.out.extend_from_slice(&value.to_le_bytes()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.value(field, TAG_I64, |w| put_varint(w.out, zigzag(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.value(field, TAG_U64, |w| put_varint(w.out, value));
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.value(field, TAG_I128, |w| w.out.extend_from_slice(&value.to_le_bytes()));
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.value(field, TAG_U128, |w| w.out.extend_from_slice(&value.to_le_bytes()));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.value(field, if value { TAG_TRUE } else { TAG_FALSE }, |_| {});
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let max = self.max_text();
        self.value(field, TAG_STR, |w| w.put_text(value, max));
    }

    fn record_bytes(&mut self, field: &Field, value: &[u8]) {
        let kept = value.len().min(self.max_text());
        if kept < value.len() {
            self.truncated = self.truncated.saturating_add(1);
        }
        self.value(field, TAG_BYTES, |w| {
            w.out.extend_from_slice(&(kept as u16).to_le_bytes());
            w.out.extend_from_slice(&value[..kept]);
        });
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        let max = self.max_text();
        self.value(field, TAG_ERROR, |w| {
            let start = w.out.len();
            w.out.push(0);
            for error in std::iter::successors(Some(value), |&error| error.source()).take(MAX_MESSAGES) {
                let left = (start + max).saturating_sub(w.out.len() + 2);
                if left <= MARKER.len() && w.out[start] > 0 {
                    w.truncated = w.truncated.saturating_add(1);
                    break;
                }
                w.print(left, |out| write!(out, "{error}"));
                w.out[start] += 1;
            }
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let max = self.max_text();
        self.value(field, TAG_DEBUG, |w| {
            w.print(max, |out| write!(out, "{value:?}"));
        });
    }
}

#[derive(PartialEq, Eq)]
enum TextState {
    Complete,
    Truncated,
}

/// Accepts text until `out` has `max_len` bytes, and then fails, so that a `Debug` that never ends is stopped.
struct BoundedText<'a> {
    out: &'a mut Vec<u8>,
    max_len: usize,
    state: TextState,
}

impl fmt::Write for BoundedText<'_> {
    #[inline]
    fn write_str(&mut self, part: &str) -> fmt::Result {
        let kept = prefix(part, self.max_len.saturating_sub(self.out.len()));
        self.out.extend_from_slice(kept.as_bytes());
        if kept.len() == part.len() {
            return Ok(());
        }
        self.state = TextState::Truncated;
        Err(fmt::Error)
    }
}
