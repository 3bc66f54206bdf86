//! Values of all shapes come back, and arbitrary bytes are errors after bounded work.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet, LinkedList, VecDeque};
use std::fmt::Debug;

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::*;

fn bytes_of<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = vec![7];
    encode(value, &mut bytes).expect("it can be encoded");
    bytes.split_off(1)
}

/// Checks the value as a whole encoding, within others, and with each wrong length. Returns the encoding.
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Vec<u8> {
    let bytes = bytes_of(value);
    let back: T = decode(&bytes).expect("it can be decoded");
    assert_eq!(back, *value);

    let mut whole = vec![7];
    <Native as Codec<T>>::encode(value, &mut whole).expect("it can be encoded");
    // At an odd address, too.
    let back = <Native as Codec<T>>::decode(&whole[1..]).expect("it can be decoded");
    assert_eq!(back, *value);
    assert!(<Native as Codec<T>>::as_bytes(value).is_none_or(|bytes| *bytes == whole[1..]));

    let around = (7_u8, value, 9_u32);
    let back: (u8, T, u32) = decode(&bytes_of(&around)).expect("it can be decoded");
    assert_eq!((back.0, &back.1, back.2), around);

    decode::<T>(&[&bytes[..], &[0]].concat()).expect_err("a byte too many");
    for len in 0..bytes.len().min(100) {
        decode::<T>(&bytes[..len]).expect_err("too few bytes");
    }
    bytes
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Default)]
struct Fields {
    id: u64,
    name: String,
    weights: Vec<f32>,
    nested: Option<Box<Fields>>,
    pair: (i8, char),
    unit: (),
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
enum Shape {
    Empty,
    Circle(f64),
    Box(f32, f32),
    Named { points: Vec<(u32, f32)>, wide: u128 },
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Wrapped(Vec<i64>);

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Empty;

#[test]
fn values_of_all_shapes_come_back() {
    check(&true);
    check(&'ü');
    check(&u128::MAX);
    check(&i64::MIN);
    check(&f32::NEG_INFINITY);
    check(&usize::MAX);
    check(&());
    check(&Empty);
    check(&Some(Some(3_u8)));
    check(&None::<u64>);
    check(&"text".to_owned());
    check(&"x".repeat(254));
    check(&"x".repeat(255));
    check(&"x".repeat(100_000));
    check(&Cow::<str>::Owned("owned".to_owned()));
    check(&[1.5_f32; 32]);
    check(&vec![[1_u16, 2]; 300]);
    check(&Wrapped(vec![1, -1]));
    check(&vec!["a".to_owned(), String::new()]);
    check(&HashMap::from([(1_u32, vec![2.0_f64]), (3, vec![])]));
    check(&BTreeMap::from([("key".to_owned(), Some(1_i16))]));
    check(&HashSet::from([1_u8, 2, 255]));
    check(&VecDeque::from([1_u64, 2]));
    check(&LinkedList::from(["one".to_owned()]));
    check(&Ok::<u8, String>(1));
    check(&std::time::Duration::from_nanos(1));
    for shape in [
        Shape::Empty,
        Shape::Circle(1.0),
        Shape::Box(1.0, 2.0),
        Shape::Named {
            points: vec![(1, 1.0); 3],
            wide: 1 << 100,
        },
    ] {
        check(&shape);
        check(&vec![shape; 2]);
    }
    let inner = Fields {
        name: "inner".to_owned(),
        ..Fields::default()
    };
    check(&Fields {
        id: 1,
        name: "outer".to_owned(),
        weights: vec![1.0; 1000],
        nested: Some(Box::new(inner)),
        pair: (-1, '\u{10ffff}'),
        unit: (),
    });
}

#[test]
fn vectors_of_numbers_are_their_length_and_their_memory() {
    macro_rules! check_all {
        ($($number:ty)*) => {$(
            for len in [0, 1, 3, 254, 255, 1000] {
                let vec: Vec<$number> = (0..len).map(|n| (n % 100) as $number).collect();
                let bytes = check(&vec);
                let memory: &[u8] = bytemuck::cast_slice(&vec);
                assert!(bytes.ends_with(memory));
                assert_eq!(bytes.len() - memory.len(), if len < 255 { 1 } else { 9 });
                // As a whole value, without its length.
                assert_eq!(<Native as Codec<Vec<$number>>>::as_bytes(&vec), Some(memory));
                // Boxed slices and vectors at any depth.
                assert_eq!(bytes_of(&vec.clone().into_boxed_slice()), bytes);
                check(&vec![vec.clone(); 2]);
                check(&Some((vec, "after".to_owned())));
            }
        )*};
    }
    check_all! { u8 u16 u32 u64 u128 usize i8 i16 i32 i64 i128 isize f32 f64 }
}

#[test]
fn a_whole_integer_lacks_its_zeros() {
    for integer in [0, 1, 255, 256, 1 << 47, 1 << 48, u64::MAX] {
        let mut bytes = Vec::new();
        <Native as Codec<u64>>::encode(&integer, &mut bytes).expect("it can be encoded");
        assert_eq!(bytes.len(), 8 - integer.leading_zeros() as usize / 8);
        assert_eq!(
            <Native as Codec<u64>>::decode(&bytes).expect("it can be decoded"),
            integer
        );
        let same = <Native as Codec<usize>>::decode(&bytes).expect("it can be decoded");
        assert_eq!(same as u64, integer);
    }
    <Native as Codec<u64>>::decode(&[0; 9]).expect_err("too many bytes");
}

#[test]
fn other_collections_read_and_write_the_same_bytes() {
    let bytes = bytes_of(&vec![1_u32, 2, 3]);
    assert_eq!(decode::<VecDeque<u32>>(&bytes).expect("a sequence"), [1, 2, 3]);
    assert_eq!(decode::<HashSet<u32>>(&bytes).expect("a sequence").len(), 3);
    let bytes = bytes_of(&VecDeque::from([1_u32, 2, 3]));
    assert_eq!(decode::<Vec<u32>>(&bytes).expect("a sequence"), [1, 2, 3]);
}

#[test]
fn a_visitor_of_the_users_own_sees_each_element() {
    /// Numbers, of which the negative ones are refused.
    #[derive(Serialize, PartialEq, Debug)]
    struct Positive(Vec<f32>);

    impl<'de> Deserialize<'de> for Positive {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Checked;
            impl<'de> Visitor<'de> for Checked {
                // The same as that of serde's visitor.
                type Value = Vec<f32>;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("positive numbers")
                }
                fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<f32>, A::Error> {
                    let mut all = Vec::new();
                    while let Some(next) = seq.next_element()? {
                        if next < 0.0 {
                            return Err(serde::de::Error::custom("it is negative"));
                        }
                        all.push(next);
                    }
                    Ok(all)
                }
            }
            deserializer.deserialize_seq(Checked).map(Positive)
        }
    }

    // The derived implementation writes a newtype, the visitor reads a sequence: the same bytes.
    let good = bytes_of(&vec![1.0_f32, 2.0]);
    assert_eq!(decode::<Positive>(&good), Ok(Positive(vec![1.0, 2.0])));
    let error = decode::<Positive>(&bytes_of(&vec![1.0_f32, -2.0])).expect_err("one is negative");
    assert_eq!(error.to_string(), "it is negative");
}

#[test]
fn sequences_and_maps_of_unknown_length_come_back() {
    struct Unknown;
    impl Serialize for Unknown {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq((0..300_u16).filter(|n| n % 2 == 0))
        }
    }
    let even: Vec<u16> = decode(&bytes_of(&Unknown)).expect("it can be decoded");
    assert_eq!(even, (0..300).filter(|n| n % 2 == 0).collect::<Vec<_>>());
}

#[test]
fn a_wrong_announcement_and_a_field_left_out_are_errors() {
    struct Wrong;
    impl Serialize for Wrong {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut seq = serializer.serialize_seq(Some(2))?;
            seq.serialize_element(&1)?;
            seq.end()
        }
    }
    let error = encode(&Wrong, &mut Vec::new()).expect_err("one is missing");
    assert_eq!(
        error.to_string(),
        "a sequence or map announced 2 elements and has 1"
    );

    #[derive(Serialize, Deserialize)]
    struct Sparse {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        maybe: Option<u8>,
    }
    decode::<Sparse>(&bytes_of(&Sparse { maybe: Some(1) })).expect("nothing is left out");
    let error = encode(&Sparse { maybe: None }, &mut Vec::new()).expect_err("the reader would miss it");
    assert!(error.to_string().contains("`maybe`"), "{error}");
}

#[test]
fn types_that_need_names_are_errors() {
    #[derive(Serialize, Deserialize, Debug)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
    }
    let error = decode::<Untagged>(&bytes_of(&Untagged::Number(1))).expect_err("it has no tag");
    assert!(error.to_string().contains("untagged"), "{error}");
}

#[test]
fn elements_without_bytes_bound_the_work() {
    check(&vec![(); 1000]);
    check(&vec![vec![Empty; 3]; 3]);
    let mut forged = vec![LONG];
    forged.extend(u64::MAX.to_ne_bytes());
    decode::<Vec<()>>(&forged).expect_err("not that many bytes follow");
    // The zeros are part of the encoding.
    let mut bytes = bytes_of(&vec![(); 2]);
    bytes[1] = 1;
    decode::<Vec<()>>(&bytes).expect_err("not zero");
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Chain(Option<Box<Chain>>);

#[test]
fn nesting_is_limited_on_both_sides() {
    let chain = |len| (0..len).fold(Chain(None), |chain, _| Chain(Some(Box::new(chain))));
    check(&chain(MAX_DEPTH));
    let error = encode(&chain(MAX_DEPTH + 1), &mut Vec::new()).expect_err("too deep");
    assert!(error.to_string().contains("128 levels"), "{error}");
    // From a peer that knows no limit.
    let error = decode::<Chain>(&[1; 1 << 20]).expect_err("too deep");
    assert_eq!(error, Reason::TooDeep.into());
}

/// Calls `visit` with pseudo-random bytes, and with encodings of which a byte was changed.
fn for_each_corruption(valid: &[u8], mut visit: impl FnMut(&[u8])) {
    let mut random = 1_u64;
    let mut next = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (random >> 33) as usize
    };
    for round in 0..20_000 {
        let mut bytes = valid.to_vec();
        match round % 2 {
            0 => {
                for _ in 0..=next() % 3 {
                    let at = next() % bytes.len();
                    bytes[at] = [0, 1, LONG, next() as u8][next() % 4];
                }
            }
            _ => {
                bytes.truncate(next() % 64);
                bytes.iter_mut().for_each(|byte| *byte = next() as u8);
            }
        }
        visit(&bytes);
    }
}

#[test]
fn corrupt_bytes_are_errors_or_other_values() {
    type Whole = (
        Vec<Fields>,
        HashMap<String, Vec<Shape>>,
        Vec<Vec<u16>>,
        Option<Vec<()>>,
    );
    let field = Fields {
        name: "name".to_owned(),
        weights: vec![1.0; 3],
        ..Fields::default()
    };
    let whole: Whole = (
        vec![field; 2],
        HashMap::from([("key".to_owned(), vec![Shape::Empty, Shape::Box(1.0, 2.0)])]),
        vec![vec![1, 2, 3], vec![]],
        Some(vec![(); 3]),
    );
    let bytes = check(&whole);
    let mut refused = 0;
    for_each_corruption(&bytes, |bytes| {
        match decode::<Whole>(bytes) {
            // A decoded value is not larger than the bytes that were sent.
            Ok(value) => assert!(bytes_of(&value).len() <= bytes.len()),
            Err(_) => refused += 1,
        }
    });
    assert!(refused > 10_000, "{refused}");
}
