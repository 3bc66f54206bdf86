//! serde: in a model that is shared, the buffers of a collection travel out of band. Otherwise it is a sequence or a map.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Pod;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::column::{Column, Keys};
use super::lists::Lists;
use super::map::Map;
use super::set::Set;
use super::strings::Strings;
use crate::buffer::{Buffer, out_of_band};

#[derive(serde::Serialize)]
#[serde(rename = "Lists")]
#[serde(bound = "T: Pod + Send + Sync + Serialize")]
struct ListsRef<'a, T> {
    offsets: &'a Buffer<u64>,
    elements: &'a Buffer<T>,
}

#[derive(serde::Deserialize)]
#[serde(rename = "Lists")]
#[serde(bound = "T: Pod + Send + Sync + Deserialize<'de>")]
struct ListsParts<T> {
    offsets: Buffer<u64>,
    elements: Buffer<T>,
}

impl<T: Pod + Send + Sync + Serialize> Serialize for Lists<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !out_of_band::is_sharing() {
            return serializer.collect_seq(self);
        }
        let (offsets, elements) = (self.offsets(), self.elements());
        ListsRef { offsets, elements }.serialize(serializer)
    }
}

impl<'de, T: Pod + Send + Sync + Deserialize<'de>> Deserialize<'de> for Lists<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !out_of_band::is_loading() {
            return deserializer.deserialize_seq(Sequence::<Vec<T>, _>::NEW);
        }
        let parts = ListsParts::deserialize(deserializer)?;
        Self::from_buffers(parts.offsets, parts.elements).map_err(out_of_band::refused)
    }
}

#[derive(serde::Serialize)]
#[serde(rename = "Strings")]
struct StringsRef<'a> {
    offsets: &'a Buffer<u64>,
    bytes: &'a Buffer<u8>,
}

#[derive(serde::Deserialize)]
#[serde(rename = "Strings")]
struct StringsParts {
    offsets: Buffer<u64>,
    bytes: Buffer<u8>,
}

impl Serialize for Strings {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !out_of_band::is_sharing() {
            return serializer.collect_seq(self);
        }
        let (offsets, bytes) = (self.offsets(), self.bytes());
        StringsRef { offsets, bytes }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Strings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !out_of_band::is_loading() {
            return deserializer.deserialize_seq(Sequence::<String, _>::NEW);
        }
        let parts = StringsParts::deserialize(deserializer)?;
        Self::from_buffers(parts.offsets, parts.bytes).map_err(out_of_band::refused)
    }
}

#[derive(serde::Serialize)]
#[serde(rename = "Set")]
struct SetRef<'a, K> {
    keys: &'a K,
    slots: &'a Buffer<u64>,
}

#[derive(serde::Deserialize)]
#[serde(rename = "Set")]
struct SetParts<K> {
    keys: K,
    slots: Buffer<u64>,
}

impl<K: Keys<Item: Serialize> + Serialize> Serialize for Set<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !out_of_band::is_sharing() {
            return serializer.collect_seq(self);
        }
        let (keys, slots) = (self.keys(), self.slots());
        SetRef { keys, slots }.serialize(serializer)
    }
}

impl<'de, K> Deserialize<'de> for Set<K>
where
    K: Keys<Owned: Deserialize<'de>> + FromIterator<K::Owned> + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !out_of_band::is_loading() {
            return deserializer.deserialize_seq(Sequence::<K::Owned, _>::NEW);
        }
        let parts = SetParts::deserialize(deserializer)?;
        Self::from_slots(parts.keys, parts.slots).map_err(out_of_band::refused)
    }
}

#[derive(serde::Serialize)]
#[serde(rename = "Map")]
struct MapRef<'a, K, V> {
    keys: &'a K,
    slots: &'a Buffer<u64>,
    values: &'a V,
}

#[derive(serde::Deserialize)]
#[serde(rename = "Map")]
struct MapParts<K, V> {
    keys: K,
    slots: Buffer<u64>,
    values: V,
}

impl<K, V> Serialize for Map<K, V>
where
    K: Keys<Item: Serialize> + Serialize,
    V: Column<Item: Serialize> + Serialize,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !out_of_band::is_sharing() {
            return serializer.collect_map(self);
        }
        let parts = MapRef {
            keys: self.key_set().keys(),
            slots: self.key_set().slots(),
            values: self.value_column(),
        };
        parts.serialize(serializer)
    }
}

impl<'de, K, V> Deserialize<'de> for Map<K, V>
where
    K: Keys<Owned: Deserialize<'de>> + FromIterator<K::Owned> + Deserialize<'de>,
    V: Column<Owned: Deserialize<'de>> + FromIterator<V::Owned> + Deserialize<'de>,
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !out_of_band::is_loading() {
            return deserializer.deserialize_map(Association(PhantomData));
        }
        let parts = MapParts::<K, V>::deserialize(deserializer)?;
        let keys = Set::from_slots(parts.keys, parts.slots);
        keys.and_then(|keys| Self::from_columns(keys, parts.values))
            .map_err(out_of_band::refused)
    }
}

/// Collects a sequence of `T` into `C`.
struct Sequence<T, C>(PhantomData<fn(T) -> C>);

impl<T, C> Sequence<T, C> {
    const NEW: Self = Self(PhantomData);
}

impl<'de, T: Deserialize<'de>, C: FromIterator<T>> Visitor<'de> for Sequence<T, C> {
    type Value = C;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<C, A::Error> {
        std::iter::from_fn(|| elements.next_element().transpose()).collect()
    }
}

/// Collects the entries of a map.
struct Association<K, V>(PhantomData<fn() -> Map<K, V>>);

impl<'de, K, V> Visitor<'de> for Association<K, V>
where
    K: Keys<Owned: Deserialize<'de>> + FromIterator<K::Owned>,
    V: Column<Owned: Deserialize<'de>> + FromIterator<V::Owned>,
{
    type Value = Map<K, V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        std::iter::from_fn(|| entries.next_entry::<K::Owned, V::Owned>().transpose()).collect()
    }
}
