//! The values of records as values that `tracing` records.

use std::error::Error;
use std::fmt;

use tracing_core::field::{DebugValue, Value as Field, ValueSet};

use super::registry::RegisteredCallsite;
use crate::wire::error::Malformed;
use crate::wire::value::{ErrorMessages, Value, Values};

/// Messages of an error and its sources that are replayed; a hostile worker may send more.
const MAX_MESSAGES: usize = 64;
/// The number of values that fit on the stack; more of them are allocated.
const FEW_VALUES: usize = 12;
/// The number of fields that a callsite of such values may have.
const FEW_FIELDS: usize = 32;

/// A text whose `Debug` output is the text itself.
pub(super) struct Verbatim<'a>(pub(super) &'a str);

impl fmt::Debug for Verbatim<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// An error of a worker: its message, and its sources.
struct ReplayedError {
    message: String,
    source: Option<Box<ReplayedError>>,
}

impl ReplayedError {
    fn new(messages: ErrorMessages<'_>) -> Self {
        let mut messages: Vec<&str> = messages.take(MAX_MESSAGES).collect();
        let mut source = None;
        while messages.len() > 1 {
            source = messages
                .pop()
                .map(|message| Box::new(Self::with_source(message, source)));
        }
        Self::with_source(messages.pop().unwrap_or_default(), source)
    }

    fn with_source(message: &str, source: Option<Box<Self>>) -> Self {
        Self {
            message: message.to_owned(),
            source,
        }
    }
}

impl fmt::Debug for ReplayedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Display for ReplayedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for ReplayedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A value of a type that implements tracing's `Value`. That trait is sealed, so each type has its own variant.
enum Recordable<'a> {
    Bool(bool),
    I64(i64),
    U64(u64),
    I128(i128),
    U128(u128),
    F64(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    Debug(DebugValue<Verbatim<'a>>),
    Error(Box<dyn Error + Send + Sync>),
}

impl<'a> Recordable<'a> {
    #[inline]
    fn new(value: Value<'a>) -> Self {
        match value {
            Value::Bool(value) => Self::Bool(value),
            Value::I64(value) => Self::I64(value),
            Value::U64(value) => Self::U64(value),
            Value::I128(value) => Self::I128(value),
            Value::U128(value) => Self::U128(value),
            Value::F64(value) => Self::F64(value),
            Value::Str(value) => Self::Str(value),
            Value::Bytes(value) => Self::Bytes(value),
            Value::Debug(text) => Self::Debug(tracing_core::field::debug(Verbatim(text))),
            Value::Error(messages) => Self::Error(Box::new(ReplayedError::new(messages))),
        }
    }

    #[inline]
    fn as_field(&self) -> &dyn Field {
        match self {
            Self::Bool(value) => value,
            Self::I64(value) => value,
            Self::U64(value) => value,
            Self::I128(value) => value,
            Self::U128(value) => value,
            Self::F64(value) => value,
            Self::Str(value) => value,
            Self::Bytes(value) => value,
            Self::Debug(value) => value,
            Self::Error(error) => error,
        }
    }
}

/// Calls `use_values` with `values` as values of the callsite's fields. `last` is the value of the last field, if that is
/// not among them.
#[inline]
pub(super) fn with_value_set<T>(
    callsite: &'static RegisteredCallsite,
    values: Values<'_>,
    last: Option<&dyn Field>,
    use_values: impl FnOnce(&ValueSet<'_>) -> T,
) -> Result<T, Malformed> {
    let fields = callsite.metadata().fields();
    if values.len() <= FEW_VALUES && fields.len() <= FEW_FIELDS {
        let mut few = [const { (0, Recordable::Bool(false)) }; FEW_VALUES];
        let mut count = 0;
        values.for_each(|(field, value)| {
            few[count] = (field, Recordable::new(value));
            count += 1;
        })?;
        let mut by_field = [None; FEW_FIELDS];
        let by_field = &mut by_field[..fields.len()];
        fill(by_field, &few[..count], last)?;
        Ok(use_values(&fields.value_set_all(by_field)))
    } else {
        let mut many = Vec::new();
        values.for_each(|(field, value)| many.push((field, Recordable::new(value))))?;
        let mut by_field = vec![None; fields.len()];
        fill(&mut by_field, &many, last)?;
        Ok(use_values(&fields.value_set_all(&by_field)))
    }
}

#[inline]
fn fill<'r>(
    by_field: &mut [Option<&'r dyn Field>],
    values: &'r [(u64, Recordable<'_>)],
    last: Option<&'r dyn Field>,
) -> Result<(), Malformed> {
    let fields = by_field.len();
    for (field, value) in values {
        let entry = usize::try_from(*field)
            .ok()
            .and_then(|index| by_field.get_mut(index));
        *entry.ok_or(Malformed::Field {
            field: *field,
            fields,
        })? = Some(value.as_field());
    }
    if let (Some(entry), Some(_)) = (by_field.last_mut(), last) {
        *entry = last;
    }
    Ok(())
}
