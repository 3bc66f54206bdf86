//! [`Trail`]: finds the path of the value that can't be loaded. It is used only after loading has failed, so it costs a model that
//! loads nothing.
//!
//! A deserializer wraps another one, as `WithPaths` wraps a serializer. The names of fields come from the type: images do not have
//! them.

use std::cell::RefCell;
use std::fmt;

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor,
};

/// The path of the value that is being loaded, and of the innermost one that failed.
#[derive(Debug, Default)]
pub(super) struct Trail {
    steps: RefCell<Vec<String>>,
    failed: RefCell<Option<String>>,
    /// The key that was read last.
    key: RefCell<Option<String>>,
}

impl Trail {
    pub(super) fn failed(self) -> Option<String> {
        self.failed.into_inner().filter(|path| !path.is_empty())
    }

    fn step<R, E>(&self, step: String, run: impl FnOnce() -> Result<R, E>) -> Result<R, E> {
        self.steps.borrow_mut().push(step);
        let result = run().inspect_err(|_| {
            let path = || self.steps.borrow().join(".");
            self.failed.borrow_mut().get_or_insert_with(path);
        });
        self.steps.borrow_mut().pop();
        result
    }
}

/// Something of serde, within the trail.
pub(super) struct Tracked<'a, D> {
    pub(super) inner: D,
    pub(super) trail: &'a Trail,
    pub(super) names: Names,
}

/// How the members of a value are called.
#[derive(Debug, Clone, Copy)]
pub(super) enum Names {
    /// By their numbers.
    Numbers,
    /// By the names of a struct's fields.
    Fields(&'static [&'static str]),
    /// The value is a key: its text becomes the name of the value after it.
    Key,
}

impl Names {
    fn of(self, index: usize) -> String {
        match self {
            Self::Fields(names) => names
                .get(index)
                .map_or_else(|| index.to_string(), |name| (*name).to_owned()),
            Self::Numbers | Self::Key => index.to_string(),
        }
    }
}

impl<'a, D> Tracked<'a, D> {
    fn with<T>(&self, inner: T, names: Names) -> Tracked<'a, T> {
        let trail = self.trail;
        Tracked { inner, trail, names }
    }

    /// Calls `run` with the wrapped thing, and `visitor` within the trail.
    fn visit<V, R>(self, visitor: V, names: Names, run: impl FnOnce(D, Tracked<'a, V>) -> R) -> R {
        let names = match self.names {
            Names::Key => Names::Key,
            _ => names,
        };
        let visitor = self.with(visitor, names);
        run(self.inner, visitor)
    }
}

macro_rules! deserialize {
    ($($method:ident),* $(,)?) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.visit(visitor, Names::Numbers, |inner, visitor| inner.$method(visitor))
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Tracked<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any, deserialize_bool, deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64, deserialize_i128,
        deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64, deserialize_u128, deserialize_f32, deserialize_f64,
        deserialize_char, deserialize_str, deserialize_string, deserialize_bytes, deserialize_byte_buf, deserialize_option,
        deserialize_unit, deserialize_seq, deserialize_map, deserialize_identifier, deserialize_ignored_any,
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.visit(visitor, Names::Numbers, |inner, visitor| {
            inner.deserialize_unit_struct(name, visitor)
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.visit(visitor, Names::Numbers, |inner, visitor| {
            inner.deserialize_newtype_struct(name, visitor)
        })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, D::Error> {
        self.visit(visitor, Names::Numbers, |inner, visitor| {
            inner.deserialize_tuple(len, visitor)
        })
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.visit(visitor, Names::Numbers, |inner, visitor| {
            inner.deserialize_tuple_struct(name, len, visitor)
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.visit(visitor, Names::Fields(fields), |inner, visitor| {
            inner.deserialize_struct(name, fields, visitor)
        })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.visit(visitor, Names::Numbers, |inner, visitor| {
            inner.deserialize_enum(name, variants, visitor)
        })
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method<E: de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.note_key(&value);
            self.inner.$method(value)
        })*
    };
}

impl<V> Tracked<'_, V> {
    fn note_key(&self, value: &impl fmt::Display) {
        if matches!(self.names, Names::Key) {
            *self.trail.key.borrow_mut() = Some(value.to_string());
        }
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Tracked<'_, V> {
    type Value = V::Value;

    visit! {
        visit_bool: bool, visit_i8: i8, visit_i16: i16, visit_i32: i32, visit_i64: i64, visit_i128: i128, visit_u8: u8,
        visit_u16: u16, visit_u32: u32, visit_u64: u64, visit_u128: u128, visit_f32: f32, visit_f64: f64, visit_char: char,
        visit_str: &str, visit_borrowed_str: &'de str, visit_string: String,
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_bytes<E: de::Error>(self, value: &[u8]) -> Result<V::Value, E> {
        self.inner.visit_bytes(value)
    }

    fn visit_borrowed_bytes<E: de::Error>(self, value: &'de [u8]) -> Result<V::Value, E> {
        self.inner.visit_borrowed_bytes(value)
    }

    fn visit_byte_buf<E: de::Error>(self, value: Vec<u8>) -> Result<V::Value, E> {
        self.inner.visit_byte_buf(value)
    }

    fn visit_none<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let inner = self.with(inner, self.names);
        self.inner.visit_some(inner)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let inner = self.with(inner, self.names);
        self.inner.visit_newtype_struct(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let tracked = self.with(inner, self.names);
        self.inner.visit_seq(Members { tracked, next: 0 })
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let tracked = self.with(inner, self.names);
        self.inner.visit_map(Members { tracked, next: 0 })
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.with(inner, self.names);
        self.inner.visit_enum(inner)
    }
}

/// The elements of a sequence, or the entries of a map.
struct Members<'a, A> {
    tracked: Tracked<'a, A>,
    next: usize,
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Tracked<'_, T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T::Value, D::Error> {
        let inner = self.with(inner, self.names);
        self.inner.deserialize(inner)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Members<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, A::Error> {
        let name = self.tracked.names.of(self.next);
        self.next += 1;
        let seed = self.tracked.with(seed, Names::Numbers);
        let (trail, inner) = (self.tracked.trail, &mut self.tracked.inner);
        trail.step(name, || inner.next_element_seed(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.tracked.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Members<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let seed = self.tracked.with(seed, Names::Key);
        let (trail, inner) = (self.tracked.trail, &mut self.tracked.inner);
        trail.step("key".to_owned(), || inner.next_key_seed(seed))
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        let key = self.tracked.trail.key.take();
        let seed = self.tracked.with(seed, Names::Numbers);
        let (trail, inner) = (self.tracked.trail, &mut self.tracked.inner);
        trail.step(key.unwrap_or_else(|| "*".to_owned()), || {
            inner.next_value_seed(seed)
        })
    }

    fn size_hint(&self) -> Option<usize> {
        self.tracked.inner.size_hint()
    }
}

impl<'a, 'de, A: EnumAccess<'de>> EnumAccess<'de> for Tracked<'a, A> {
    type Error = A::Error;
    type Variant = Tracked<'a, A::Variant>;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self::Variant), A::Error> {
        let trail = self.trail;
        let (value, inner) = self.inner.variant_seed(seed)?;
        let names = Names::Numbers;
        Ok((value, Tracked { inner, trail, names }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Tracked<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        let seed = self.with(seed, Names::Numbers);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.visit(visitor, Names::Numbers, |inner, visitor| {
            inner.tuple_variant(len, visitor)
        })
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.visit(visitor, Names::Fields(fields), |inner, visitor| {
            inner.struct_variant(fields, visitor)
        })
    }
}
