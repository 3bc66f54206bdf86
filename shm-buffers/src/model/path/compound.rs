//! [`Compound`]: the members of a value, each with its path.

use std::collections::HashMap;

use serde::ser::{self, Serialize};

use super::{AtPath, KeyOf, Path, SKIPPED, Step, fail};
use crate::model::account::{Members, NodeId, Place, Type};

/// A sequence, tuple, map or struct under construction at a path.
pub(super) struct Compound<'a, C> {
    inner: C,
    path: Path<'a>,
    of: Type,
    node: NodeId,
    variant: Option<&'static str>,
    members: Members,
    /// The index of the next element or entry.
    next: usize,
    sizes: Sizes,
}

/// Bytes of the members, without what they point to.
#[derive(Default)]
struct Sizes {
    sum: usize,
    largest: usize,
    largest_key: usize,
}

impl<'a, C> Compound<'a, C> {
    pub(super) fn new(
        inner: C,
        (path, of, node): (Path<'a>, Type, NodeId),
        variant: Option<&'static str>,
        members: Members,
    ) -> Self {
        Self {
            inner,
            path,
            of,
            node,
            variant,
            members,
            next: 0,
            sizes: Sizes::default(),
        }
    }

    /// Serializes one member with `put`, at the path of the compound plus `step`.
    fn member<T: ?Sized, R>(
        &mut self,
        step: Step<'_>,
        place: Place,
        value: &T,
        put: impl FnOnce(&mut C, &AtPath<'_, T>) -> R,
    ) -> R {
        let put = self.with_path(step, place, |inner, path| {
            let path = *path;
            put(inner, &AtPath { value, path })
        });
        // Collections serialize references to their elements, and each element has noted its size.
        let size = match Type::of(value).is_plain_reference() {
            true => self.path.account.size(),
            false => size_of_val(value),
        };
        let largest = match place {
            Place::Key => &mut self.sizes.largest_key,
            _ => &mut self.sizes.largest,
        };
        *largest = size.max(*largest);
        self.sizes.sum += size;
        put
    }

    /// Calls `run` with the path of a member.
    fn with_path<R>(&mut self, step: Step<'_>, place: Place, run: impl FnOnce(&mut C, &Path<'_>) -> R) -> R {
        let account = self.path.account;
        let container = self.node;
        let variant = self.variant.map(|name| Path {
            parent: Some(&self.path),
            step: Step::Field(name),
            account,
            container,
            place,
        });
        let parent = Some(variant.as_ref().unwrap_or(&self.path));
        let path = Path {
            parent,
            step,
            account,
            container,
            place,
        };
        run(&mut self.inner, &path)
    }

    fn index(&mut self) -> (Step<'static>, Place) {
        let index = self.next;
        self.next += 1;
        let place = match self.members {
            // The elements of a short tuple have different types.
            Members::Inline if index < 8 => Place::Index(index),
            _ => Place::Element,
        };
        (Step::Index(index), place)
    }

    /// Counts the members.
    fn count(&self) {
        let Sizes {
            sum,
            largest,
            largest_key,
        } = self.sizes;
        // Elements of an enum's type may be smaller than the enum.
        let (bytes, own) = match self.members {
            Members::Sequence => (self.next * largest, size_of::<Vec<u8>>()),
            Members::Map => (self.next * (largest + largest_key), size_of::<HashMap<u8, u8>>()),
            Members::Inline => (sum, sum),
        };
        let account = self.path.account;
        account.add_members(self.node, self.of, self.members, self.next, bytes);
        account.set_size(own);
    }
}

macro_rules! elements {
    ($($compound:ident: $method:ident),* $(,)?) => {
        $(impl<C: ser::$compound> ser::$compound for Compound<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                let (step, place) = self.index();
                self.member(step, place, value, |inner, value| inner.$method(value))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.count();
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
                self.member(Step::Field(key), Place::Field(key), value, |inner, value| {
                    inner.serialize_field(key, value)
                })
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                let of = self.of;
                self.with_path(Step::Field(key), Place::Field(key), |_, path| Err(fail(path, of, SKIPPED)))
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.count();
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
        self.member(Step::Field("key"), Place::Key, key, |inner, key| {
            inner.serialize_key(key)
        })
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let (step, place) = self.index();
        self.member(step, place, value, |inner, value| inner.serialize_value(value))
    }

    fn serialize_entry<K: Serialize + ?Sized, V: Serialize + ?Sized>(
        &mut self,
        key: &K,
        value: &V,
    ) -> Result<(), C::Error> {
        self.serialize_key(key)?;
        let (_, place) = self.index();
        let named = KeyOf(key);
        self.member(Step::Key(&named), place, value, |inner, value| {
            inner.serialize_value(value)
        })
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.count();
        self.inner.end()
    }
}
