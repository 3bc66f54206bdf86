//! The typed values of fields.

use super::bytes::{ByteReader, unzigzag};
use super::error::Malformed;

pub(crate) const TAG_FALSE: u8 = 0;
pub(crate) const TAG_TRUE: u8 = 1;
pub(crate) const TAG_I64: u8 = 2;
pub(crate) const TAG_U64: u8 = 3;
pub(crate) const TAG_I128: u8 = 4;
pub(crate) const TAG_U128: u8 = 5;
pub(crate) const TAG_F64: u8 = 6;
pub(crate) const TAG_STR: u8 = 7;
pub(crate) const TAG_BYTES: u8 = 8;
pub(crate) const TAG_DEBUG: u8 = 9;
pub(crate) const TAG_ERROR: u8 = 10;

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Bool(bool),
    I64(i64),
    U64(u64),
    I128(i128),
    U128(u128),
    F64(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
    /// The output of `Debug` or `Display`.
    Debug(&'a str),
    /// The messages of an error and its sources.
    Error(ErrorMessages<'a>),
}

/// The messages of an error and of its sources, in order. Their bytes were checked when they were decoded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct ErrorMessages<'a>(&'a [u8]);

impl<'a> Iterator for ErrorMessages<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let mut reader = ByteReader::new(self.0);
        let message = reader.text().ok()?;
        self.0 = reader.rest();
        Some(message)
    }
}

/// The index of a field in its callsite's field set, and its value.
pub(crate) type FieldValue<'a> = (u64, Value<'a>);

/// The encoded values of an event, or of one update of a span.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    count: u16,
    bytes: &'a [u8],
}

impl<'a> Values<'a> {
    pub(crate) fn new(count: u16, bytes: &'a [u8]) -> Self {
        Self { count, bytes }
    }

    /// Returns how many values the record claims to have; [`for_each`](Self::for_each) finds as many, or fails.
    pub(crate) fn len(self) -> usize {
        self.count.into()
    }

    /// Decodes the values and passes each to `take`.
    #[inline]
    pub(crate) fn for_each(self, mut take: impl FnMut(FieldValue<'a>)) -> Result<(), Malformed> {
        let mut reader = ByteReader::new(self.bytes);
        for _ in 0..self.count {
            take(read_field_value(&mut reader)?);
        }
        reader.end()
    }
}

#[inline]
fn read_field_value<'a>(reader: &mut ByteReader<'a>) -> Result<FieldValue<'a>, Malformed> {
    let field = reader.varint()?;
    let value = match reader.u8()? {
        TAG_FALSE => Value::Bool(false),
        TAG_TRUE => Value::Bool(true),
        TAG_I64 => Value::I64(unzigzag(reader.varint()?)),
        TAG_U64 => Value::U64(reader.varint()?),
        TAG_I128 => Value::I128(i128::from_le_bytes(reader.array()?)),
        TAG_U128 => Value::U128(u128::from_le_bytes(reader.array()?)),
        TAG_F64 => Value::F64(f64::from_le_bytes(reader.array()?)),
        TAG_STR => Value::Str(reader.text()?),
        TAG_BYTES => {
            let len = reader.u16()?;
            Value::Bytes(reader.bytes(len.into())?)
        }
        TAG_DEBUG => Value::Debug(reader.text()?),
        TAG_ERROR => {
            let count = reader.u8()?;
            let whole = reader.rest();
            for _ in 0..count {
                reader.text()?;
            }
            Value::Error(ErrorMessages(&whole[..whole.len() - reader.rest().len()]))
        }
        tag => return Err(Malformed::ValueTag(tag)),
    };
    Ok((field, value))
}

/// Reads past one value; returns the index of its field.
pub(crate) fn skip_field_value(reader: &mut ByteReader<'_>) -> Result<u64, Malformed> {
    read_field_value(reader).map(|(field, _)| field)
}
