//! [`WithPaths`]: serializes a model and tracks the field path, so that each buffer gets a path such as
//! `layers.0.weights`, the memory of everything else is counted by field, and an error names its field.
//!
//! A serializer wraps another one. The path is a chain of references on the stack, and becomes text only for a buffer or an error;
//! for everything else the wrapper is nearly free. A buffer gets its path when it serializes its index, a `u32`.
//!
//! Formats that do not describe themselves can't read back what leaves out fields or lengths. The wrapper refuses it.

mod compound;

use std::cell::Cell;
use std::fmt::{self, Write as _};

use serde::ser::{self, Serialize, Serializer};

use self::compound::Compound;
use super::account::{Account, Members, NodeId, Place, Type};
use crate::buffer::{Buffer, out_of_band};

/// The path of a value in a model, and its place in the account.
#[derive(Clone, Copy)]
struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
    account: &'a Account,
    /// The account's node of the parent, and the place in it.
    container: NodeId,
    place: Place,
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

/// A model whose buffers get their paths, and whose memory is counted, while it is serialized.
pub(super) struct WithPaths<'a, T: ?Sized> {
    pub(super) model: &'a T,
    pub(super) account: &'a Account,
}

impl<T: Serialize + ?Sized> Serialize for WithPaths<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let path = Path {
            parent: None,
            step: Step::Root,
            account: self.account,
            container: NodeId::ROOT,
            place: Place::Root,
        };
        let value = self.model;
        self.account.start(Type::of(value));
        AtPath { value, path }.serialize(serializer)
    }
}

/// A value and its path.
struct AtPath<'a, T: ?Sized> {
    value: &'a T,
    path: Path<'a>,
}

impl<T: Serialize + ?Sized> Serialize for AtPath<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let path = self.path;
        let of = Type::of(self.value);
        let serialized = self.value.serialize(PathSerializer {
            inner: serializer,
            path,
            of,
        });
        serialized.inspect_err(|_| path.account.fail(&path, of.name, None))
    }
}

/// The serializer of a value at a path.
struct PathSerializer<'a, S> {
    inner: S,
    path: Path<'a>,
    of: Type,
}

impl<'a, S: Serializer> PathSerializer<'a, S> {
    fn node(&self) -> NodeId {
        let Path {
            account,
            container,
            place,
            ..
        } = self.path;
        account.node(container, place, self.of.name)
    }

    fn compound<C>(
        self,
        variant: Option<&'static str>,
        members: Members,
        open: impl FnOnce(S) -> Result<C, S::Error>,
    ) -> Result<Compound<'a, C>, S::Error> {
        let at = (self.path, self.of, self.node());
        Ok(Compound::new(open(self.inner)?, at, variant, members))
    }

    fn fail(&self, reason: &str) -> S::Error {
        fail(&self.path, self.of, reason)
    }

    /// Counts the allocation of a string or of bytes.
    fn count(&self, len: usize) {
        self.path.account.add_allocation(self.node(), len);
        self.path.account.set_size(size_of::<String>());
    }
}

/// Records why the value at `path` can't be serialized, and returns an error for the format, which may drop the reason.
fn fail<E: ser::Error>(path: &Path<'_>, of: Type, reason: &str) -> E {
    path.account.fail(path, of.name, Some(reason.to_owned()));
    E::custom(reason)
}

const NO_LENGTH: &str = "the number of its elements is not known in advance, which this format needs; collect it into a `Vec` first, \
     or serialize the value to bytes (as JSON, for example) and keep these in a `Buffer<u8>`";
const NO_ENTRIES: &str = "the number of its entries is not known in advance, which this format needs; if the type has \
     `#[serde(flatten)]`, remove the attribute, otherwise serialize the value to bytes (as JSON, for example) and keep these in a \
     `Buffer<u8>`";
const SKIPPED: &str = "it was left out, and no process could load the model then; remove `skip_serializing_if` from the field (`skip` \
     leaves a field out always)";

/// Text that notes its length when it is written.
struct Counted<'a, T: ?Sized> {
    value: &'a T,
    len: &'a Cell<usize>,
}

impl<T: fmt::Display + ?Sized> fmt::Display for Counted<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Counting<'a, 'f> {
            to: &'a mut fmt::Formatter<'f>,
            len: usize,
        }

        impl fmt::Write for Counting<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                self.len += text.len();
                self.to.write_str(text)
            }
        }

        let mut counting = Counting { to: f, len: 0 };
        write!(counting, "{}", self.value)?;
        self.len.set(counting.len);
        Ok(())
    }
}

macro_rules! forward {
    ($($method:ident: $type:ty),* $(,)?) => {
        $(fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.path.account.set_size(size_of::<$type>());
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
        serialize_f32: f32, serialize_f64: f64, serialize_char: char,
        serialize_unit_struct: &'static str,
    }

    fn serialize_u32(self, value: u32) -> Result<S::Ok, S::Error> {
        // Not within one borrow of the scope: the key of a map may run its own serde code.
        if out_of_band::needs_path(value) {
            out_of_band::set_path(value, self.path.to_string());
        }
        self.path.account.set_size(size_of::<u32>());
        self.inner.serialize_u32(value)
    }

    fn serialize_str(self, value: &str) -> Result<S::Ok, S::Error> {
        self.count(value.len());
        self.inner.serialize_str(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        self.count(value.len());
        self.inner.serialize_bytes(value)
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
        let serialized = self.inner.serialize_newtype_struct(name, &AtPath { value, path });
        if name == out_of_band::INDEX {
            path.account.set_size(size_of::<Buffer<u8>>());
        }
        serialized
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
            account: self.path.account,
            container: self.node(),
            place: Place::Field(variant),
        };
        self.inner
            .serialize_newtype_variant(name, index, variant, &AtPath { value, path })
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        if len.is_none() {
            return Err(self.fail(NO_LENGTH));
        }
        self.compound(None, Members::Sequence, |inner| inner.serialize_seq(len))
    }

    fn serialize_tuple(self, len: usize) -> Result<Self::SerializeTuple, S::Error> {
        self.compound(None, Members::Inline, |inner| inner.serialize_tuple(len))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        self.compound(None, Members::Inline, |inner| {
            inner.serialize_tuple_struct(name, len)
        })
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.compound(Some(variant), Members::Inline, |inner| {
            inner.serialize_tuple_variant(name, index, variant, len)
        })
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        if len.is_none() {
            return Err(self.fail(NO_ENTRIES));
        }
        self.compound(None, Members::Map, |inner| inner.serialize_map(len))
    }

    fn serialize_struct(self, name: &'static str, len: usize) -> Result<Self::SerializeStruct, S::Error> {
        self.compound(None, Members::Inline, |inner| inner.serialize_struct(name, len))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.compound(Some(variant), Members::Inline, |inner| {
            inner.serialize_struct_variant(name, index, variant, len)
        })
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let len = Cell::new(0);
        let (account, node) = (self.path.account, self.node());
        let serialized = self.inner.collect_str(&Counted { value, len: &len });
        account.add_allocation(node, len.get());
        account.set_size(size_of::<String>());
        serialized
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}
