//! [`Encoder`]: serde's serializer for [`Native`](super::Native).

use serde::ser::{self, Serialize};

use super::{Error, LONG, MAX_DEPTH, Reason, bulk};
use crate::os::append;

/// Appends the encodings of values to a buffer.
pub(super) struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    /// Number of levels that may still be entered.
    levels: u32,
}

impl<'a> Encoder<'a> {
    #[inline]
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self {
            out,
            levels: MAX_DEPTH,
        }
    }

    #[inline]
    fn put<const N: usize>(&mut self, bytes: [u8; N]) {
        self.out.extend_from_slice(&bytes);
    }

    /// Writes a length or an index.
    #[inline]
    fn len(&mut self, len: u64) {
        match u8::try_from(len) {
            Ok(len) if len != LONG => self.out.push(len),
            _ => {
                self.out.push(LONG);
                self.put(len.to_ne_bytes());
            }
        }
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        self.len(bytes.len() as u64);
        append(self.out, bytes);
    }

    /// Enters a level of nesting.
    #[inline]
    fn enter(&mut self) -> Result<(), Error> {
        self.levels = self.levels.checked_sub(1).ok_or(Reason::TooDeep)?;
        Ok(())
    }

    #[inline]
    fn leave(&mut self) {
        self.levels += 1;
    }

    #[inline]
    fn nested<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.enter()?;
        value.serialize(&mut *self)?;
        self.leave();
        Ok(())
    }

    fn elements<'e>(&'e mut self, len: Option<usize>) -> Result<Elements<'e, 'a>, Error> {
        self.enter()?;
        let len_at = self.out.len();
        match len {
            Some(len) => self.len(len as u64),
            None => {
                self.out.push(LONG);
                self.put([0; 8]);
            }
        }
        Ok(Elements {
            start: self.out.len(),
            len_at,
            announced: len,
            count: 0,
            encoder: self,
        })
    }
}

macro_rules! numbers {
    ($($method:ident: $number:ty;)*) => {$(
        #[inline]
        fn $method(self, value: $number) -> Result<(), Error> {
            self.put(value.to_ne_bytes());
            Ok(())
        }
    )*};
}

impl<'e, 'a> ser::Serializer for &'e mut Encoder<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Elements<'e, 'a>;
    type SerializeMap = Elements<'e, 'a>;
    type SerializeTuple = Fields<'e, 'a>;
    type SerializeTupleStruct = Fields<'e, 'a>;
    type SerializeTupleVariant = Fields<'e, 'a>;
    type SerializeStruct = Fields<'e, 'a>;
    type SerializeStructVariant = Fields<'e, 'a>;

    numbers! {
        serialize_i8: i8;
        serialize_i16: i16;
        serialize_i32: i32;
        serialize_i64: i64;
        serialize_i128: i128;
        serialize_u8: u8;
        serialize_u16: u16;
        serialize_u32: u32;
        serialize_u64: u64;
        serialize_u128: u128;
        serialize_f32: f32;
        serialize_f64: f64;
    }

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.put([u8::from(value)]);
        Ok(())
    }

    #[inline]
    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.put(u32::from(value).to_ne_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Error> {
        self.bytes(value.as_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.bytes(value);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Error> {
        self.put([0]);
        Ok(())
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        self.put([1]);
        self.nested(value)
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Error> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        Ok(())
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, index: u32, _: &'static str) -> Result<(), Error> {
        self.len(u64::from(index));
        Ok(())
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.len(u64::from(index));
        self.nested(value)
    }

    #[inline]
    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, Error> {
        self.elements(len)
    }

    #[inline]
    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, Error> {
        self.elements(len)
    }

    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Error> {
        Ok(Fields { encoder: self })
    }

    #[inline]
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, Error> {
        self.serialize_tuple(len)
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, Error> {
        self.len(u64::from(index));
        self.serialize_tuple(len)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Self::SerializeStruct, Error> {
        self.serialize_tuple(len)
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, Error> {
        self.len(u64::from(index));
        self.serialize_tuple(len)
    }

    #[inline]
    fn collect_seq<I>(self, iter: I) -> Result<(), Error>
    where
        I: IntoIterator<Item: Serialize>,
    {
        // Vectors and slices come here as a whole.
        let iter = match bulk::bytes_of(iter) {
            Ok((len, bytes)) => {
                self.len(len as u64);
                append(self.out, bytes);
                return Ok(());
            }
            Err(iter) => iter,
        };
        let mut iter = iter.into_iter();
        let exact = match iter.size_hint() {
            (low, Some(high)) if low == high => Some(low),
            _ => None,
        };
        let mut elements = self.elements(exact)?;
        iter.try_for_each(|element| ser::SerializeSeq::serialize_element(&mut elements, &element))?;
        elements.finish()
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a sequence, or the keys and values of a map.
pub(super) struct Elements<'e, 'a> {
    encoder: &'e mut Encoder<'a>,
    /// Where the length is.
    len_at: usize,
    /// Where the first element is.
    start: usize,
    announced: Option<usize>,
    count: usize,
}

impl Elements<'_, '_> {
    #[inline]
    fn finish(self) -> Result<(), Error> {
        let Self {
            encoder,
            len_at,
            start,
            announced,
            count,
        } = self;
        match announced {
            None => {
                // After the byte that says that it is long.
                let len = &mut encoder.out[len_at + 1..start];
                len.copy_from_slice(&(count as u64).to_ne_bytes());
            }
            Some(announced) if announced != count => {
                return Err(Reason::Custom(format!(
                    "a sequence or map announced {announced} elements and has {count}"
                ))
                .into());
            }
            Some(_) => {}
        }
        let fewest = start + count;
        if encoder.out.len() < fewest {
            encoder.out.resize(fewest, 0);
        }
        encoder.leave();
        Ok(())
    }
}

impl ser::SerializeSeq for Elements<'_, '_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.count += 1;
        value.serialize(&mut *self.encoder)
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeMap for Elements<'_, '_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.count += 1;
        key.serialize(&mut *self.encoder)
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        value.serialize(&mut *self.encoder)
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

/// The fields of a struct, tuple or array.
pub(super) struct Fields<'e, 'a> {
    encoder: &'e mut Encoder<'a>,
}

macro_rules! fields {
    ($($of:ident: $method:ident;)*) => {$(
        impl ser::$of for Fields<'_, '_> {
            type Ok = ();
            type Error = Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                value.serialize(&mut *self.encoder)
            }

            #[inline]
            fn end(self) -> Result<(), Error> {
                Ok(())
            }
        }
    )*};
}

fields! {
    SerializeTuple: serialize_element;
    SerializeTupleStruct: serialize_field;
    SerializeTupleVariant: serialize_field;
}

macro_rules! named_fields {
    ($($of:ident)*) => {$(
        impl ser::$of for Fields<'_, '_> {
            type Ok = ();
            type Error = Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(&mut self, _: &'static str, value: &T) -> Result<(), Error> {
                value.serialize(&mut *self.encoder)
            }

            /// A field that is left out would shift the ones after it.
            fn skip_field(&mut self, name: &'static str) -> Result<(), Error> {
                Err(Reason::Custom(format!(
                    "field `{name}` is left out (`skip_serializing_if`), which needs a format with names"
                ))
                .into())
            }

            #[inline]
            fn end(self) -> Result<(), Error> {
                Ok(())
            }
        }
    )*};
}

named_fields! { SerializeStruct SerializeStructVariant }
