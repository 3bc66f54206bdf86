//! Collections behave as the standard library's, in this process, in an image and in JSON; damaged ones are refused or cause
//! wrong values only.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::error::Error;
use std::fmt::Debug;
use std::hash::Hash;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shm_buffers::collections::{CollectionError, Column, IntKey, Keys, Map, Set};
use shm_buffers::{
    Backing, Buffer, Image, IntMap, IntSet, Lists, LoadError, SegmentMut, StringMap, StringSet, Strings,
    share, share_move,
};

/// A deterministic generator (xorshift64*), so that failures are reproducible.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// Returns a string of up to 40 characters of one to four bytes. Short ones repeat.
    fn string(&mut self) -> String {
        let len = [0, 1, 2, 8, 16, 40][self.below(6) as usize];
        let alphabet = ['a', 'b', 'z', '0', ' ', '\0', 'ß', '猫', '🦀'];
        (0..self.below(len + 1))
            .map(|_| alphabet[self.below(9) as usize])
            .collect()
    }

    fn strings(&mut self, len: u64) -> Vec<String> {
        (0..len).map(|_| self.string()).collect()
    }

    fn list(&mut self) -> Vec<u32> {
        (0..self.below(7)).map(|_| self.next() as u32).collect()
    }
}

/// Returns the value after a way through an image, as another process would load it.
fn through_image<C: Serialize + DeserializeOwned>(value: C) -> Result<C, Box<dyn Error>> {
    let image = share_move(value, &Backing::Auto)?;
    Ok(Image::attach(&image.handle()?)?.load()?)
}

/// Returns the value after a way through JSON, which must be that of `std`.
fn through_json<C: Serialize + DeserializeOwned>(
    value: &C,
    std: &(impl Serialize + ?Sized),
) -> Result<C, Box<dyn Error>> {
    let json = serde_json::to_string(value)?;
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json)?,
        serde_json::to_value(std)?
    );
    Ok(serde_json::from_str(&json)?)
}

/// The sizes of random collections, with the borders of small tables.
const SIZES: [u64; 9] = [0, 1, 2, 3, 7, 16, 100, 1000, 5000];

#[test]
fn strings_are_those_of_a_vec() -> Result<(), Box<dyn Error>> {
    for size in SIZES {
        let std = Random(size + 1).strings(size);
        let built = Strings::from(std.clone());
        for strings in [built.clone(), through_json(&built, &std)?, through_image(built)?] {
            strings.validate()?;
            assert_eq!(strings.len(), std.len());
            assert_eq!(strings.is_empty(), std.is_empty());
            assert!(strings.iter().eq(&std));
            assert!(strings.iter().rev().eq(std.iter().rev()));
            assert_eq!(strings.iter().len(), std.len());
            assert_eq!(strings.iter().nth(5), std.get(5).map(|it| &**it));
            assert_eq!(strings.get(std.len()), None);
            assert_eq!(strings.get(usize::MAX), None);
            for (index, string) in std.iter().enumerate() {
                assert_eq!(strings.get(index), Some(&**string));
                assert_eq!(&strings[index], &**string);
            }
            assert_eq!(strings, Strings::from(&*std));
            assert_eq!(format!("{strings:?}"), format!("{std:?}"));
        }
    }
    assert_ne!(Strings::from(["ab", "c"]), Strings::from(["a", "bc"]));
    assert_eq!(Strings::default(), std::iter::empty::<&str>().collect());
    Ok(())
}

#[test]
fn lists_are_those_of_a_vec() -> Result<(), Box<dyn Error>> {
    for size in SIZES {
        let mut random = Random(size + 1);
        let std: Vec<Vec<u32>> = (0..size).map(|_| random.list()).collect();
        let built = Lists::from(std.clone());
        for lists in [built.clone(), through_json(&built, &std)?, through_image(built)?] {
            lists.validate()?;
            assert_eq!(lists.len(), std.len());
            assert!(lists.iter().eq(&std));
            assert!(lists.iter().rev().eq(std.iter().rev()));
            assert_eq!(lists.get(std.len()), None);
            assert_eq!(lists.get(usize::MAX), None);
            for (index, list) in std.iter().enumerate() {
                assert_eq!(lists.get(index), Some(&**list));
                assert_eq!(lists[index], **list);
            }
            assert_eq!(lists, Lists::from(&*std));
            assert_eq!(format!("{lists:?}"), format!("{std:?}"));
        }
    }
    Ok(())
}

/// Checks that `map` and its set of keys have the entries of `std`, and that `absent` keys are not found.
fn check<A: Hash + Eq, K: Keys, V: Column>(
    map: &Map<K, V>,
    std: &HashMap<A, V::Owned>,
    borrow: impl Fn(&A) -> &K::Item,
    value_of: impl Fn(&V::Owned) -> &V::Item,
    absent: impl IntoIterator<Item = A>,
) where
    K::Item: Debug + PartialEq,
    V::Item: Debug + PartialEq,
{
    map.validate().expect("the map is not damaged");
    let set = map.key_set();
    assert_eq!(
        (map.len(), set.len(), map.is_empty()),
        (std.len(), std.len(), std.is_empty())
    );
    for (key, value) in std {
        let (key, value) = (borrow(key), value_of(value));
        assert_eq!(map.get(key), Some(value), "of {key:?}");
        assert_eq!(&map[key], value);
        let position = set.position(key).expect("the key is in the set");
        assert_eq!(map.iter().nth(position), Some((key, value)));
        assert!(map.contains_key(key) && set.contains(key));
    }
    for key in absent {
        if !std.contains_key(&key) {
            let key = borrow(&key);
            assert_eq!((map.get(key), set.position(key)), (None, None), "of {key:?}");
        }
    }
    // All keys are different and in `std`, so these are all of its entries.
    assert!(map.iter().all(|(key, value)| map.get(key) == Some(value)));
    assert!(map.keys().eq(set) && map.into_iter().map(|(_, value)| value).eq(map.values()));
    assert_eq!(map.iter().len(), std.len());
}

#[test]
fn maps_of_strings_are_those_of_a_hash_map() -> Result<(), Box<dyn Error>> {
    for size in SIZES {
        let mut random = Random(size + 1);
        // Some strings repeat: the last one counts.
        let entries: Vec<(String, Vec<u32>)> = (0..size).map(|_| (random.string(), random.list())).collect();
        let std: HashMap<String, Vec<u32>> = entries.iter().cloned().collect();
        let built: StringMap<Lists<u32>> = entries.into_iter().collect();
        assert!(built == std.clone().into());
        for map in [built.clone(), through_json(&built, &std)?, through_image(built)?] {
            check(&map, &std, |key| key, |value| value, random.strings(1000));
        }

        let std: HashMap<String, f32> = random
            .strings(size)
            .into_iter()
            .zip((0..).map(|i| i as f32))
            .collect();
        let built = StringMap::<Buffer<f32>>::from(std.clone());
        for map in [built.clone(), through_json(&built, &std)?, through_image(built)?] {
            check(&map, &std, |key| key, |value| value, random.strings(1000));
        }
    }
    Ok(())
}

fn check_ints<K>(random: &mut Random, size: u64, key: impl Fn(u64) -> K) -> Result<(), Box<dyn Error>>
where
    K: IntKey + Hash + Debug + Ord + Serialize + DeserializeOwned,
{
    let entries: Vec<(K, String)> = (0..size).map(|_| (key(random.next()), random.string())).collect();
    let std: HashMap<K, String> = entries.iter().cloned().collect();
    let built: IntMap<K, Strings> = entries.into_iter().collect();
    let absent: Vec<K> = (0..1000).map(|_| key(random.next())).collect();
    check(&built, &std, |key| key, |value| value, absent.clone());
    check(&through_image(built)?, &std, |key| key, |value| value, absent);
    Ok(())
}

#[test]
fn maps_of_integers_are_those_of_a_hash_map() -> Result<(), Box<dyn Error>> {
    for size in SIZES {
        let random = &mut Random(size + 1);
        check_ints(random, size, |x| x)?;
        check_ints(random, size, |x| x % 100)?;
        check_ints(random, size, |x| x << 40)?;
        check_ints(random, size, |x| x as u8)?;
        check_ints(random, size, |x| x as i16)?;
        check_ints(random, size, |x| x as i64 >> 50)?;
        check_ints(random, size, |x| x as usize)?;
        check_ints(random, size, |x| [x as u32 % 50, (x >> 40) as u32 % 50])?;
    }
    let map: IntMap<i32, Buffer<u8>> = [(-1, 1), (5, 2), (i32::MIN, 3)].into_iter().collect();
    let std = BTreeMap::from([(-1, 1), (5, 2), (i32::MIN, 3)]);
    assert_eq!(through_json(&map, &std)?, std.into());
    Ok(())
}

#[test]
fn sets_are_those_of_a_hash_set() -> Result<(), Box<dyn Error>> {
    for size in SIZES {
        let mut random = Random(size + 1);
        let strings = random.strings(size);
        let std: HashSet<String> = strings.iter().cloned().collect();
        let built: StringSet = strings.iter().collect();
        let json: StringSet = serde_json::from_str(&serde_json::to_string(&built)?)?;
        for set in [built.clone(), json, through_image(built)?] {
            set.validate()?;
            assert_eq!(set.len(), std.len());
            assert!(
                set.iter()
                    .enumerate()
                    .all(|(index, key)| set.position(key) == Some(index))
            );
            let probes = strings.iter().cloned().chain(random.strings(1000));
            probes.for_each(|key| assert_eq!(set.contains(&key), std.contains(&key)));
            assert_eq!(set, std.clone().into());
        }
    }
    let set = IntSet::<u16>::from(BTreeSet::from([3, 1, 2]));
    assert_eq!(format!("{set:?}"), "{1, 2, 3}");
    assert_ne!(set, [1, 2].into_iter().collect());
    assert_ne!(set, [1, 2, 4].into_iter().collect());
    assert_eq!(IntSet::<u16>::default().len(), 0);
    Ok(())
}

#[test]
fn entries_keep_their_order_and_the_last_of_equal_keys_counts() {
    let map: StringMap<Buffer<u8>> = [("b", 1), ("a", 2), ("b", 3), ("c", 4), ("b", 5)]
        .into_iter()
        .collect();
    assert_eq!(map.iter().collect::<Vec<_>>(), [("a", &2), ("c", &4), ("b", &5)]);
    assert_eq!(format!("{map:?}"), r#"{"a": 2, "c": 4, "b": 5}"#);
    let again: StringMap<Buffer<u8>> = [("c", 4), ("b", 5), ("a", 2)].into_iter().collect();
    assert_eq!(map, again);
    let other: StringMap<Buffer<u8>> = [("c", 4), ("b", 5), ("a", 3)].into_iter().collect();
    assert_ne!(map, other);
}

#[test]
fn a_collection_is_shared_without_a_copy_of_its_clones() -> Result<(), Box<dyn Error>> {
    let map: StringMap<Lists<u32>> = [("a", vec![1]), ("b", vec![2, 3])].into_iter().collect();
    let (first, second): (StringMap<Lists<u32>>, StringMap<Lists<u32>>) =
        share(&(map.clone(), map), &Backing::Auto)?.load()?;
    assert!(std::ptr::eq(&first["b"], &second["b"]));
    Ok(())
}

#[test]
fn buffers_of_an_image_are_named_after_their_fields() -> Result<(), Box<dyn Error>> {
    #[derive(Serialize)]
    struct Model {
        names: Strings,
        postings: StringMap<Lists<u32>>,
    }
    let model = Model {
        names: ["x"].into(),
        postings: [("a", [1])].into_iter().collect(),
    };
    let image = share(&model, &Backing::Auto)?;
    let tensors = safetensors::SafeTensors::deserialize(image.segment())?;
    let is_padding = |name: &&str| name.starts_with("__pad__.");
    let names: BTreeSet<&str> = tensors
        .names()
        .into_iter()
        .filter(|name| !is_padding(name))
        .collect();
    let expected = [
        "names.bytes",
        "names.offsets",
        "postings.keys.bytes",
        "postings.keys.offsets",
        "postings.slots",
        "postings.values.elements",
        "postings.values.offsets",
        "skeleton",
    ];
    assert_eq!(names, expected.into());
    Ok(())
}

#[test]
fn columns_that_do_not_fit_are_refused() {
    let keys = || StringSet::from_keys(["a", "b"].into()).expect("the keys are different");
    assert!(matches!(
        StringMap::from_columns(keys(), Buffer::from(vec![1_u8])),
        Err(CollectionError::Lengths { keys: 2, values: 1 })
    ));
    for (offsets, end) in [
        (vec![0, 2], 2),
        (vec![0], 0),
        (vec![], 0),
        (vec![0, 1 << 60], 1 << 60),
    ] {
        let refused = Strings::from_buffers(offsets.into(), b"abc".to_vec().into());
        assert!(matches!(refused, Err(CollectionError::Cover { start: 0, end: e, len: 3 }) if e == end));
    }
    assert!(Strings::from_buffers(vec![1, 3].into(), b"abc".to_vec().into()).is_err());
}

#[test]
fn damaged_entries_are_empty_and_found_by_validate() -> Result<(), Box<dyn Error>> {
    let damaged = Lists::from_buffers(vec![0, 2, 1, 9, 3].into(), vec![7_u8, 8, 9].into())?;
    let got: Vec<Option<&[u8]>> = (0..4).map(|index| damaged.get(index)).collect();
    assert_eq!(got, [Some(&[7, 8][..]), None, None, None]);
    assert_eq!(damaged.iter().map(<[u8]>::len).collect::<Vec<_>>(), [2, 0, 0, 0]);
    assert!(matches!(
        damaged.validate(),
        Err(CollectionError::Offsets {
            index: 1,
            start: 2,
            end: 1,
            len: 3
        })
    ));

    let damaged = Strings::from_buffers(vec![0, 1, 2, 3].into(), b"a\xffc".to_vec().into())?;
    assert_eq!(
        (damaged.get(0), damaged.get(1), damaged.get(2)),
        (Some("a"), None, Some("c"))
    );
    assert_eq!(damaged.iter().collect::<Vec<_>>(), ["a", "", "c"]);
    let error = damaged.validate().expect_err("string 1 is damaged");
    assert!(matches!(&error, CollectionError::Utf8 { index: 1, .. }) && error.source().is_some());
    shm_buffers::assert_said_once(&error);
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Model {
    names: Strings,
    lists: Lists<u16>,
    by_name: StringMap<Lists<u16>>,
    by_number: IntMap<u64, Strings>,
    words: StringSet,
}

impl Model {
    fn small() -> Self {
        let words = || (0..12).map(|i| format!("word{i}"));
        Self {
            names: words().collect(),
            lists: (0..12_u16).map(|i| vec![i; usize::from(i % 4)]).collect(),
            by_name: words().zip((0..12).map(|i| vec![i; 2])).collect(),
            by_number: (0..12).map(|i| i * i).zip(words()).collect(),
            words: words().collect(),
        }
    }

    /// Uses each function that reads, with keys that are present and absent. Returns a digest of what was read.
    fn use_all(&self) -> usize {
        let mut digest = self.names.iter().map(str::len).sum::<usize>();
        digest += self.lists.iter().rev().map(<[u16]>::len).sum::<usize>();
        for index in 0..20 {
            digest +=
                self.names.get(index).map_or(0, str::len) + self.lists.get(index).map_or(0, <[u16]>::len);
        }
        for i in 0..20 {
            let word = format!("word{i}");
            digest += self.by_name.get(&word).map_or(0, <[u16]>::len);
            digest += self.by_number.get(&(i * i)).map_or(0, str::len);
            digest += self.words.position(&word).unwrap_or(0);
            if self.by_name.contains_key(&word) {
                digest += self.by_name[&*word].len();
            }
        }
        digest += self
            .by_name
            .iter()
            .map(|(key, value)| key.len() + value.len())
            .sum::<usize>();
        digest += self
            .by_number
            .iter()
            .map(|(key, value)| *key as usize % 7 + value.len())
            .sum::<usize>();
        digest += format!("{:?} {:?}", self.by_name, self.words).len();
        digest
            + usize::from(self.words == self.words.clone())
            + usize::from(self.by_name == self.by_name.clone())
    }

    fn validate(&self) -> Result<(), CollectionError> {
        self.names.validate()?;
        self.lists.validate()?;
        self.by_name.validate()?;
        self.by_number.validate()?;
        self.words.validate()
    }
}

/// Returns the image with these bytes, which may be damaged.
fn image_of(bytes: &[u8]) -> Result<Image, Box<dyn Error>> {
    let mut segment = SegmentMut::create(&Backing::Auto, bytes.len())?;
    segment.copy_from_slice(bytes);
    Ok(Image::from_segment(segment.freeze()?))
}

/// Each 8 bytes of the tensors and the skeleton get several values that are likely to break something. Other tests corrupt
/// the header.
#[test]
fn each_corrupted_word_is_refused_or_harmless() -> Result<(), Box<dyn Error>> {
    let bytes = share(&Model::small(), &Backing::Auto)?.segment().to_vec();
    let digest = image_of(&bytes)?.load::<Model>()?.use_all();
    let data = 8 + usize::try_from(u64::from_le_bytes(*bytes.first_chunk().ok_or("an empty image")?))?;
    let (mut refused, mut invalid, mut different) = (0, 0, 0);
    for at in (data..bytes.len() - 7).step_by(8) {
        let word = u64::from_le_bytes(*bytes[at..].first_chunk().ok_or("a word")?);
        let words = [
            0,
            1,
            u64::MAX,
            u64::MAX - 1,
            1 << 63,
            1 << 32,
            word.wrapping_add(1),
            word.wrapping_sub(1),
            word ^ 0x8080_8080_8080_8080,
            word.swap_bytes(),
        ];
        for corrupted in words {
            let mut bytes = bytes.clone();
            bytes[at..at + 8].copy_from_slice(&corrupted.to_le_bytes());
            match image_of(&bytes)?.load::<Model>() {
                Err(LoadError::Decode { .. } | LoadError::Format(_)) => refused += 1,
                Err(error) => panic!("word {at}: {error:?}"),
                Ok(model) => {
                    different += usize::from(model.use_all() != digest);
                    invalid += usize::from(model.validate().is_err());
                }
            }
        }
    }
    // Corrupted offsets, texts and slots make a collection invalid; corrupted numbers are other numbers.
    assert!(
        refused > 100 && invalid > 500 && different > 500,
        "{refused} {invalid} {different}"
    );
    Ok(())
}

#[test]
fn a_contradiction_of_lengths_is_refused_with_its_reason() -> Result<(), Box<dyn Error>> {
    /// Serializes as a [`StringMap<Buffer<u8>>`] does, with other lengths.
    #[derive(Serialize)]
    struct Parts {
        offsets: Buffer<u64>,
        bytes: Buffer<u8>,
        slots: Buffer<u64>,
        values: Buffer<u8>,
    }
    let reason = |offsets: &[u64], slots: usize, values: usize| -> Result<String, Box<dyn Error>> {
        let parts = Parts {
            offsets: offsets.to_vec().into(),
            bytes: b"abc".to_vec().into(),
            slots: vec![u64::MAX; slots].into(),
            values: vec![1; values].into(),
        };
        match share(&parts, &Backing::Auto)?.load::<StringMap<Buffer<u8>>>() {
            Err(LoadError::Decode { reason, .. }) => Ok(reason),
            Err(error) => Err(error.into()),
            Ok(map) => Ok(format!("{} entries", map.len())),
        }
    };
    assert_eq!(reason(&[0, 2, 3], 4, 2)?, "2 entries");
    assert!(reason(&[0, 2, 4], 4, 2)?.contains("cover 0..4, but there are 3"));
    assert!(reason(&[0, 2, 3], 3, 2)?.contains("3 slots for 2 keys: it needs 4"));
    assert!(reason(&[0, 2, 3], 4, 3)?.contains("2 keys and 3 values"));
    Ok(())
}

#[test]
fn full_and_sorted_tables_of_an_attacker_end_each_lookup() -> Result<(), Box<dyn Error>> {
    // Each slot has the greatest hash below the empty slot's, or refers to a key that does not exist.
    for slot in [0, 1 << 63, u64::MAX - 1, 0xffff_ffff_ffff_0000] {
        let keys = Buffer::from((0..1000_u64).collect::<Vec<_>>());
        let image = share(&(keys, Buffer::from(vec![slot; 2000])), &Backing::Auto)?;
        let set: Set<Buffer<u64>> = image.load()?;
        assert!((0..2000).filter(|key| set.contains(key)).count() < 1000);
        assert!(matches!(set.validate(), Err(CollectionError::Lost { .. })));
    }
    Ok(())
}

#[test]
fn collections_are_send_and_sync() {
    fn check<T: Send + Sync + Clone>() {}
    check::<Strings>();
    check::<Lists<f64>>();
    check::<StringMap<Lists<u32>>>();
    check::<IntMap<u64, Strings>>();
    check::<StringSet>();
}
