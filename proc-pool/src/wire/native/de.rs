//! [`Decoder`]: serde's deserializer for [`Native`](super::Native).

use serde::de::value::U32Deserializer;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};

use super::{Error, LONG, MAX_DEPTH, Reason, bulk};

/// Takes values from the front of bytes that may have any contents.
pub(super) struct Decoder<'de> {
    bytes: &'de [u8],
    /// Number of levels that may still be entered.
    levels: u32,
}

impl<'de> Decoder<'de> {
    #[inline]
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self {
            bytes,
            levels: MAX_DEPTH,
        }
    }

    /// Returns the number of bytes that were not taken.
    #[inline]
    pub(super) fn rest(&self) -> usize {
        self.bytes.len()
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'de [u8], Error> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or(Reason::TooShort)?;
        self.bytes = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or(Reason::TooShort)?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// Takes a byte that is 0 or 1.
    #[inline]
    fn bool(&mut self, what: &'static str) -> Result<bool, Error> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [found] => Err(Reason::Invalid {
                what,
                found: found.into(),
            }
            .into()),
        }
    }

    /// Takes a length or an index.
    #[inline]
    fn number(&mut self) -> Result<u64, Error> {
        match self.array()? {
            [LONG] => Ok(u64::from_ne_bytes(self.array()?)),
            [short] => Ok(short.into()),
        }
    }

    /// Takes a length. It is at most the number of bytes that follow.
    #[inline]
    fn len(&mut self) -> Result<usize, Error> {
        let len = usize::try_from(self.number()?).ok();
        Ok(len
            .filter(|len| *len <= self.bytes.len())
            .ok_or(Reason::TooShort)?)
    }

    #[inline]
    fn sized_bytes(&mut self) -> Result<&'de [u8], Error> {
        let len = self.len()?;
        self.take(len)
    }

    #[inline]
    fn str(&mut self) -> Result<&'de str, Error> {
        Ok(std::str::from_utf8(self.sized_bytes()?).map_err(|_| Reason::NotUtf8)?)
    }

    /// Calls `decode` one level deeper.
    #[inline]
    fn nested<T>(&mut self, decode: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.levels = self.levels.checked_sub(1).ok_or(Reason::TooDeep)?;
        let value = decode(self)?;
        self.levels += 1;
        Ok(value)
    }

    /// Takes elements with `visit`, and the zeros after them.
    #[inline]
    fn elements<T>(
        &mut self,
        visit: impl FnOnce(&mut Items<'_, 'de>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let len = self.len()?;
        let before = self.bytes.len();
        self.nested(|outer| {
            let mut decoder = Self { ..*outer };
            let mut items = Items {
                decoder: &mut decoder,
                left: len,
            };
            let value = visit(&mut items)?;
            if items.left > 0 {
                return Err(Reason::Custom(format!("{} elements were not taken", items.left)).into());
            }
            let taken = before - decoder.bytes.len();
            for &zero in decoder.take(len.saturating_sub(taken))? {
                if zero != 0 {
                    return Err(Reason::Invalid {
                        what: "byte after elements without bytes",
                        found: zero.into(),
                    }
                    .into());
                }
            }
            *outer = decoder;
            Ok(value)
        })
    }

    /// Takes `len` fields with `visitor`.
    #[inline]
    fn fields<V: Visitor<'de>>(&mut self, len: usize, visitor: V) -> Result<V::Value, Error> {
        // A copy whose address does not escape stays in registers.
        let mut decoder = Self { ..*self };
        let value = visitor.visit_seq(&mut Items {
            decoder: &mut decoder,
            left: len,
        })?;
        *self = decoder;
        Ok(value)
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident: $number:ty;)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(<$number>::from_ne_bytes(self.array()?))
        }
    )*};
}

macro_rules! refused {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
            Err(Reason::NotSelfDescribing(stringify!($method)).into())
        }
    )*};
}

impl<'de> de::Deserializer<'de> for &mut Decoder<'de> {
    type Error = Error;

    numbers! {
        deserialize_i8 visit_i8: i8;
        deserialize_i16 visit_i16: i16;
        deserialize_i32 visit_i32: i32;
        deserialize_i64 visit_i64: i64;
        deserialize_i128 visit_i128: i128;
        deserialize_u8 visit_u8: u8;
        deserialize_u16 visit_u16: u16;
        deserialize_u32 visit_u32: u32;
        deserialize_u64 visit_u64: u64;
        deserialize_u128 visit_u128: u128;
        deserialize_f32 visit_f32: f32;
        deserialize_f64 visit_f64: f64;
    }

    refused! { deserialize_any deserialize_identifier deserialize_ignored_any }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.bool("bool")?)
    }

    #[inline]
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let number = u32::from_ne_bytes(self.array()?);
        let char = char::from_u32(number).ok_or(Reason::Invalid {
            what: "char",
            found: number.into(),
        });
        visitor.visit_char(char?)
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.str()?)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_str(self.str()?)
    }

    #[inline]
    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.sized_bytes()?)
    }

    #[inline]
    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_borrowed_bytes(self.sized_bytes()?)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.bool("option's tag")? {
            false => visitor.visit_none(),
            true => self.nested(|decoder| visitor.visit_some(decoder)),
        }
    }

    #[inline]
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let vec = bulk::visited::<V>(|size| {
            let len = self.len()?;
            self.take(len.checked_mul(size).ok_or(Reason::TooShort)?)
        });
        match vec {
            Some(vec) => vec,
            None => self.elements(|items| visitor.visit_seq(items)),
        }
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.elements(|items| visitor.visit_map(items))
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.fields(len, visitor)
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.fields(len, visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.fields(fields.len(), visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.nested(|decoder| visitor.visit_enum(decoder))
    }

    #[inline]
    fn is_human_readable(&self) -> bool {
        false
    }
}

/// The elements of a sequence, the entries of a map, or fields.
struct Items<'d, 'de> {
    decoder: &'d mut Decoder<'de>,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        seed.deserialize(&mut *self.decoder).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        de::SeqAccess::next_element_seed(self, seed)
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(&mut *self.decoder)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> de::EnumAccess<'de> for &mut Decoder<'de> {
    type Error = Error;
    type Variant = Self;

    #[inline]
    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Error> {
        let found = self.number()?;
        let index = u32::try_from(found).map_err(|_| Reason::Invalid {
            what: "variant's index",
            found,
        })?;
        let index: U32Deserializer<Error> = index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for &mut Decoder<'de> {
    type Error = Error;

    #[inline]
    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        self.fields(len, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.fields(fields.len(), visitor)
    }
}
