//! [`TypeName`]: the name of a type, taken apart, and which type of this crate could stand in its place.

/// The name of a type and its arguments, without the paths of modules.
#[derive(Debug, Clone, Copy)]
pub(super) struct TypeName<'a> {
    full: &'a str,
    /// The last part of its path: `Vec`.
    base: &'a str,
    /// The text between its angle brackets.
    arguments: &'a str,
}

/// How a map or set stores its entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryStorage {
    /// It is no map or set of the standard library.
    None,
    Hash,
    Tree,
}

const NUMBERS: [&str; 14] = [
    "u8", "i8", "u16", "i16", "u32", "i32", "u64", "i64", "u128", "i128", "usize", "isize", "f32", "f64",
];
const INTEGERS: usize = 12;
/// Pointers that serde looks through.
const POINTERS: [&str; 4] = ["Box", "Arc", "Rc", "Cow"];

impl<'a> TypeName<'a> {
    /// Takes the name of a type apart. Pointers to it are left out.
    pub(super) fn parse(full: &'a str) -> Self {
        let full = full.trim().trim_start_matches("&mut ").trim_start_matches('&');
        let is_path = full.starts_with(|first: char| first.is_alphabetic() || first == '_');
        let (path, arguments) = match (full.find('<'), full.strip_suffix('>')) {
            (Some(open), Some(inner)) if is_path => (&full[..open], &inner[open + 1..]),
            _ => (full, ""),
        };
        let base = match is_path {
            true => path.rsplit("::").next().unwrap_or(path),
            false => path,
        };
        let this = Self {
            full,
            base,
            arguments,
        };
        match POINTERS.contains(&base) {
            true => this.argument(0).unwrap_or(this),
            false => this,
        }
    }

    fn argument(self, index: usize) -> Option<Self> {
        split(self.arguments).nth(index).map(Self::parse)
    }

    /// Returns a name without the paths of modules: `Vec<f32>` for `alloc::vec::Vec<f32>`.
    pub(super) fn shorten(full: &str) -> String {
        let is_path = |char: char| char.is_alphanumeric() || matches!(char, '_' | ':');
        let mut short = String::new();
        let mut rest = full.trim_start_matches("&mut ").trim_start_matches('&');
        loop {
            let end = rest.find(|char| !is_path(char)).unwrap_or(rest.len());
            let (path, after) = rest.split_at(end);
            short.push_str(path.rsplit("::").next().unwrap_or(path));
            let mut others = after.chars();
            match others.next() {
                Some(other) => short.push(other),
                None => return short,
            }
            rest = others.as_str();
        }
    }

    pub(super) fn storage(self) -> EntryStorage {
        match self.base {
            "HashMap" | "HashSet" => EntryStorage::Hash,
            "BTreeMap" | "BTreeSet" => EntryStorage::Tree,
            _ => EntryStorage::None,
        }
    }

    fn is_string(self) -> bool {
        matches!(self.base, "String" | "str")
    }

    fn is_number(self) -> bool {
        NUMBERS.contains(&self.full)
    }

    /// Returns the type of the elements, if this is a sequence of one allocation.
    fn element(self) -> Option<Self> {
        match self.base {
            "Vec" | "VecDeque" => self.argument(0),
            slice => slice
                .strip_prefix('[')?
                .strip_suffix(']')
                .filter(|inner| array(inner).is_none())
                .map(Self::parse),
        }
    }

    /// Returns whether this is a number, or an array of them of a fixed length.
    fn is_plain(self) -> bool {
        let inner = self
            .full
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        self.is_number()
            || inner
                .and_then(array)
                .is_some_and(|(of, _)| Self::parse(of).is_plain())
    }

    /// Returns the type of this crate that holds the same and stays in shared memory, if the whole type has one.
    pub(super) fn replacement(self) -> Option<String> {
        if self.is_string() || self.base == "ByteBuf" {
            return Some("Buffer<u8>".to_owned());
        }
        if let Some(element) = self.element() {
            return element.column();
        }
        let value = match self.base {
            "HashMap" | "BTreeMap" | "IndexMap" => self.argument(1)?.column()?,
            "HashSet" | "BTreeSet" | "IndexSet" => String::new(),
            _ => return None,
        };
        let key = self.argument(0)?;
        let kind = if value.is_empty() { "Set" } else { "Map" };
        let arguments = match (key.is_string(), key.integer_key(), value.is_empty()) {
            (true, _, true) => return Some("StringSet".to_owned()),
            (true, _, false) => return Some(format!("StringMap<{value}>")),
            (_, Some(key), true) => key,
            (_, Some(key), false) => format!("{key}, {value}"),
            _ => return None,
        };
        Some(format!("Int{kind}<{arguments}>"))
    }

    /// Returns the type that holds many values of this type.
    fn column(self) -> Option<String> {
        if self.is_string() {
            return Some("Strings".to_owned());
        }
        if self.is_plain() {
            return Some(format!("Buffer<{}>", Self::shorten(self.full)));
        }
        let element = match self.base {
            "Buffer" => self.argument(0)?,
            _ => self.element()?,
        };
        element
            .is_plain()
            .then(|| format!("Lists<{}>", Self::shorten(element.full)))
    }

    /// Returns the key of an `IntMap` for this key: an integer, or an array for a tuple of equal ones.
    fn integer_key(self) -> Option<String> {
        let is_integer = |name: &str| NUMBERS[..INTEGERS].contains(&name);
        if is_integer(self.full) {
            return Some(self.full.to_owned());
        }
        let inner = self.full.strip_prefix('(')?.strip_suffix(')')?;
        let parts: Vec<&str> = split(inner).map(str::trim).collect();
        let first = *parts.first()?;
        let equal = is_integer(first) && parts.iter().all(|part| *part == first);
        equal.then(|| format!("[{first}; {}]", parts.len()))
    }

    /// Returns what to do about a collection for which no type is known.
    pub(super) fn advice(self) -> Option<String> {
        let short = |name: Self| Self::shorten(name.full);
        if let Some(element) = self.element() {
            let element = short(element);
            return Some(format!(
                "Buffer<{element}> if {element} is plain old data (bytemuck::Pod), or a Buffer, Strings or Lists for each of its fields"
            ));
        }
        match self.storage() {
            EntryStorage::None => None,
            _ => Some(
                "StringMap or IntMap from the keys to indices, and a Buffer, Strings or Lists for each field of the values"
                    .to_owned(),
            ),
        }
    }
}

/// Splits at commas outside of brackets.
fn split(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0;
    list.split(move |char| {
        match char {
            '<' | '(' | '[' => depth += 1,
            '>' | ')' | ']' => depth -= 1,
            _ => {}
        }
        char == ',' && depth == 0
    })
    .filter(|part| !part.trim().is_empty())
}

/// Splits the inside of an array's brackets into the type of its elements and their number.
fn array(inner: &str) -> Option<(&str, &str)> {
    let (of, len) = inner.rsplit_once(';')?;
    let len = len.trim();
    let is_number = !len.is_empty() && len.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((of, len))
}

#[cfg(test)]
mod tests {
    use std::any::type_name;
    use std::collections::{BTreeMap, HashMap, HashSet};
    use std::sync::Arc;

    use super::*;
    use crate::buffer::Buffer;

    struct Item;

    fn suggested<T: ?Sized>() -> (String, Option<String>) {
        let full = type_name::<T>();
        (TypeName::shorten(full), TypeName::parse(full).replacement())
    }

    #[test]
    fn each_type_of_the_standard_library_has_its_replacement() {
        let cases = [
            (suggested::<Vec<f32>>(), "Vec<f32>", "Buffer<f32>"),
            (suggested::<Box<[u64]>>(), "Box<[u64]>", "Buffer<u64>"),
            (suggested::<Arc<Vec<u8>>>(), "Arc<Vec<u8>>", "Buffer<u8>"),
            (suggested::<Vec<[f32; 3]>>(), "Vec<[f32; 3]>", "Buffer<[f32; 3]>"),
            (suggested::<String>(), "String", "Buffer<u8>"),
            (suggested::<Vec<String>>(), "Vec<String>", "Strings"),
            (suggested::<Vec<Vec<u32>>>(), "Vec<Vec<u32>>", "Lists<u32>"),
            (suggested::<Vec<Buffer<u32>>>(), "Vec<Buffer<u32>>", "Lists<u32>"),
            (
                suggested::<HashMap<String, Vec<u32>>>(),
                "HashMap<String, Vec<u32>>",
                "StringMap<Lists<u32>>",
            ),
            (
                suggested::<BTreeMap<u64, String>>(),
                "BTreeMap<u64, String>",
                "IntMap<u64, Strings>",
            ),
            (
                suggested::<HashMap<(u32, u32), f32>>(),
                "HashMap<(u32, u32), f32>",
                "IntMap<[u32; 2], Buffer<f32>>",
            ),
            (suggested::<HashSet<String>>(), "HashSet<String>", "StringSet"),
            (suggested::<HashSet<i64>>(), "HashSet<i64>", "IntSet<i64>"),
        ];
        for ((short, replacement), expected, wanted) in cases {
            assert_eq!((&*short, replacement.as_deref()), (expected, Some(wanted)));
        }
    }

    #[test]
    fn types_without_a_replacement_have_none() {
        let cases = [
            (suggested::<Vec<Item>>(), "Vec<Item>"),
            (suggested::<Vec<Vec<String>>>(), "Vec<Vec<String>>"),
            (suggested::<HashMap<String, Item>>(), "HashMap<String, Item>"),
            (
                suggested::<HashMap<(u32, u64), f32>>(),
                "HashMap<(u32, u64), f32>",
            ),
            (suggested::<Item>(), "Item"),
            (suggested::<(u8, f32)>(), "(u8, f32)"),
            (suggested::<[f32; 3]>(), "[f32; 3]"),
        ];
        for ((short, replacement), expected) in cases {
            assert_eq!((&*short, replacement), (expected, None));
        }
        let advice = TypeName::parse(type_name::<Vec<Item>>()).advice();
        assert!(advice.is_some_and(|advice| advice.starts_with("Buffer<Item> if Item is plain old data")));
    }
}
