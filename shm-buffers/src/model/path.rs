//! [`WithPaths`]: serializes a model and tracks the field path, so that each buffer gets a path such as
//! `layers.0.weights`.
//!
//! A serializer wraps another one. The path is a chain of references on the stack, and becomes text only for a buffer; for
//! everything else the wrapper is nearly free. A buffer gets its path when it serializes its index, a `u32`.

use std::fmt;

use serde::ser::{self, Serialize, Serializer};

use crate::buffer::out_of_band;

/// The path of a value in a model.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'static str),
    Index(usize),
    Key(&'a dyn Key),
}

/// A map's key, which becomes text only if it is part of a buffer's path.
trait Key {
    fn text(&self) -> Option<String>;
}

struct KeyOf<'a, K: ?Sized>(&'a K);

impl<K: Serialize + ?Sized> Key for KeyOf<'_, K> {
    fn text(&self) -> Option<String> {
        match serde_json::to_value(self.0).ok()? {
            serde_json::Value::String(text) => Some(text),
            key @ (serde_json::Value::Number(_) | serde_json::Value::Bool(_)) => Some(key.to_string()),
            _ => None,
        }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The serializer has recursed as deep to get here, so this recursion does not overflow the stack.
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
            if !matches!(parent.step, Step::Root) {
                f.write_str(".")?;
            }
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Field(name) => f.write_str(name),
            Step::Index(index) => write!(f, "{index}"),
            Step::Key(key) => f.write_str(key.text().as_deref().unwrap_or("key")),
        }
    }
}

/// A model whose buffers get their paths while it is serialized.
pub(super) struct WithPaths<'a, T: ?Sized>(pub(super) &'a T);

impl<T: Serialize + ?Sized> Serialize for WithPaths<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let path = Path {
            parent: None,
            step: Step::Root,
        };
        self.0.serialize(PathSerializer {
            inner: serializer,
            path,
        })
    }
}

/// A value and its path.
struct AtPath<'a, T: ?Sized> {
    value: &'a T,
    path: Path<'a>,
}

impl<T: Serialize + ?Sized> Serialize for AtPath<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(PathSerializer {
            inner: serializer,
            path: self.path,
        })
    }
}

/// The serializer of a value at a path.
struct PathSerializer<'a, S> {
    inner: S,
    path: Path<'a>,
}

impl<'a, S> PathSerializer<'a, S> {
    fn compound<C, E>(
        self,
        variant: Option<&'static str>,
        open: impl FnOnce(S) -> Result<C, E>,
    ) -> Result<Compound<'a, C>, E> {
        Ok(Compound {
            inner: open(self.inner)?,
            path: self.path,
            variant,
            next: 0,
        })
    }
}

macro_rules! forward {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.inner.$method(value)
        })*
    };
}

impl<'a, S: Serializer> Serializer for PathSerializer<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = Compound<'a, S::SerializeSeq>;
    type SerializeTuple = Compound<'a, S::SerializeTuple>;
    type SerializeTupleStruct = Compound<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = Compound<'a, S::SerializeTupleVariant>;
    type SerializeMap = Compound<'a, S::SerializeMap>;
    type SerializeStruct = Compound<'a, S::SerializeStruct>;
    type SerializeStructVariant = Compound<'a, S::SerializeStructVariant>;

    forward! {
        serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u64: u64, serialize_u128: u128,
        serialize_f32: f32, serialize_f64: f64, serialize_char: char, serialize_str: &str, serialize_bytes: &[u8],
        serialize_unit_struct: &'static str,
    }

    fn serialize_u32(self, value: u32) -> Result<S::Ok, S::Error> {
        // Not within one borrow of the scope: the key of a map may run its own serde code.
        if out_of_band::needs_path(value) {
            out_of_band::set_path(value, self.path.to_string());
        }
        self.inner.serialize_u32(value)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.serialize_some(&AtPath {
            value,
            path: self.path,
        })
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_variant(name, index, variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let path = self.path;
        self.inner.serialize_newtype_struct(name, &AtPath { value, path })
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let path = Path {
            parent: Some(&self.path),
            step: Step::Field(variant),
        };
        self.inner
            .serialize_newtype_variant(name, index, variant, &AtPath { value, path })
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        self.compound(None, |inner| inner.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.compound(None, |inner| inner.serialize_tuple(len))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.compound(None, |inner| inner.serialize_tuple_struct(name, len))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.compound(Some(variant), |inner| {
            inner.serialize_tuple_variant(name, index, variant, len)
        })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        self.compound(None, |inner| inner.serialize_map(len))
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.compound(None, |inner| inner.serialize_struct(name, len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.compound(Some(variant), |inner| {
            inner.serialize_struct_variant(name, index, variant, len)
        })
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

/// A sequence, tuple, map or struct under construction at a path.
struct Compound<'a, C> {
    inner: C,
    path: Path<'a>,
    variant: Option<&'static str>,
    /// The index of the next element or entry.
    next: usize,
}

impl<C> Compound<'_, C> {
    /// Serializes one member with `put`, at the path of the compound plus `step`.
    fn member<T: ?Sized, R>(
        &mut self,
        step: Step<'_>,
        value: &T,
        put: impl FnOnce(&mut C, &AtPath<'_, T>) -> R,
    ) -> R {
        let variant = self.variant.map(|name| Path {
            parent: Some(&self.path),
            step: Step::Field(name),
        });
        let parent = Some(variant.as_ref().unwrap_or(&self.path));
        let path = Path { parent, step };
        put(&mut self.inner, &AtPath { value, path })
    }

    fn index(&mut self) -> Step<'static> {
        self.next += 1;
        Step::Index(self.next - 1)
    }
}

macro_rules! elements {
    ($($compound:ident: $method:ident),* $(,)?) => {
        $(impl<C: ser::$compound> ser::$compound for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                let index = self.index();
                self.member(index, value, |inner, value| inner.$method(value))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        })*
    };
}

elements! {
    SerializeSeq: serialize_element,
    SerializeTuple: serialize_element,
    SerializeTupleStruct: serialize_field,
    SerializeTupleVariant: serialize_field,
}

macro_rules! fields {
    ($($compound:ident),* $(,)?) => {
        $(impl<C: ser::$compound> ser::$compound for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), C::Error> {
                self.member(Step::Field(key), value, |inner, value| inner.serialize_field(key, value))
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        })*
    };
}

fields!(SerializeStruct, SerializeStructVariant);

impl<C: ser::SerializeMap> ser::SerializeMap for Compound<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.member(Step::Field("key"), key, |inner, key| inner.serialize_key(key))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let index = self.index();
        self.member(index, value, |inner, value| inner.serialize_value(value))
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), C::Error> {
        self.serialize_key(key)?;
        let named = KeyOf(key);
        self.member(Step::Key(&named), value, |inner, value| {
            inner.serialize_value(value)
        })
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}
