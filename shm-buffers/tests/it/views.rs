//! Models with arrays and matrices of other crates.

#[cfg(any(feature = "ndarray", feature = "sprs", feature = "arrow"))]
use std::error::Error;

#[cfg(feature = "ndarray")]
#[test]
fn arrays_of_both_orders_are_shared() -> Result<(), Box<dyn Error>> {
    use ndarray::{Array, Array3, Ix2, Ix3, IxDyn, ShapeBuilder, s};
    use shm_buffers::{Backing, Buffer, Order, SharedArray, share, share_move};

    let value = |(i, j, k): (usize, usize, usize)| (100 * i + 10 * j + k) as f32;
    let c = Array3::from_shape_fn((2, 3, 4), value);
    let fortran = Array3::from_shape_fn((2, 3, 4).f(), value);
    let address = fortran.as_ptr();
    let shared = [SharedArray::from(c.clone()), SharedArray::from(fortran.clone())];
    assert_eq!(
        shared.each_ref().map(SharedArray::order),
        [Order::C, Order::Fortran]
    );
    let taken = SharedArray::from(fortran);
    assert_eq!(taken.elements().as_ptr(), address, "not copied");
    assert_eq!(shared[0], shared[1]);
    for array in shared {
        let json = serde_json::to_string(&array)?;
        let inline: SharedArray<f32, Ix3> = serde_json::from_str(&json)?;
        assert_eq!(inline.view(), c);
        assert!(serde_json::from_str::<SharedArray<f32, Ix2>>(&json).is_err());
        assert_eq!(
            serde_json::from_str::<SharedArray<f32, IxDyn>>(&json)?.shape(),
            [2, 3, 4]
        );

        let order = array.order();
        let image = share_move(array, &Backing::Auto)?;
        let theirs: SharedArray<f32, Ix3> = image.load()?;
        assert_eq!((theirs.view(), theirs.order()), (c.view(), order));
        assert!(theirs.elements().segment().is_some());
    }
    // An array in neither order, and one that is a part of its vector.
    let odd = c.clone().permuted_axes([1, 0, 2]);
    assert_eq!(SharedArray::from(odd.clone()).view(), odd);
    let part = c.slice_move(s![1.., .., ..]);
    assert_eq!(SharedArray::from(part.clone()).view(), part);
    let empty = SharedArray::from(Array::<u8, _>::zeros((3, 0)));
    assert_eq!(
        share(&empty, &Backing::Auto)?
            .load::<SharedArray<u8, Ix2>>()?
            .shape(),
        [3, 0]
    );

    let elements: Buffer<u16> = (0..6).collect();
    for shape in [(2, 2), (2, 4), (usize::MAX, 2)] {
        assert!(
            SharedArray::new(elements.clone(), shape, Order::C).is_err(),
            "{shape:?}"
        );
    }
    let columns = SharedArray::new(elements, (2, 3), Order::Fortran)?;
    assert_eq!(columns.view().column(1).to_vec(), [2, 3]);
    Ok(())
}

#[cfg(feature = "ndarray")]
#[test]
fn loading_another_number_of_axes_is_refused_with_a_reason() -> Result<(), Box<dyn Error>> {
    use ndarray::{Array2, Ix1, Ix2};
    use shm_buffers::{Backing, LoadError, SharedArray, share};

    let image = share(&SharedArray::from(Array2::<u8>::zeros((2, 3))), &Backing::Auto)?;
    let refused = image.load::<SharedArray<u8, Ix1>>();
    assert!(matches!(&refused, Err(LoadError::Decode { reason, .. }) if reason.contains("has 2 axes")));
    assert!(image.load::<SharedArray<u8, Ix2>>().is_ok());
    Ok(())
}

#[cfg(feature = "sprs")]
#[test]
fn matrices_by_rows_and_by_columns_are_shared() -> Result<(), Box<dyn Error>> {
    use shm_buffers::{Backing, Buffer, SharedCsMat, share_move};
    use sprs::{CompressedStorage, CsMatI, TriMatI};

    let mut triplets = TriMatI::<f64, u32>::new((50, 40));
    (0..50).for_each(|i| triplets.add_triplet(i, (7 * i) % 40, i as f64));
    let matrices: [CsMatI<f64, u32>; 2] = [triplets.to_csr(), triplets.to_csc()];
    for matrix in matrices {
        let shared = SharedCsMat::from(matrix.clone());
        let inline: SharedCsMat<f64, u32> = serde_json::from_str(&serde_json::to_string(&shared)?)?;
        assert_eq!(inline, shared);
        let theirs: SharedCsMat<f64, u32> = share_move(shared, &Backing::Auto)?.load()?;
        assert_eq!(theirs.view(), matrix.view());
        assert_eq!(theirs.storage(), matrix.storage());
        assert_eq!(theirs.get(49, 23), Some(&49.0));
    }
    // Invalid structures, which `sprs` would trust.
    let bad = |indptr: &[u32], indices: &[u32]| {
        let (indptr, indices): (Buffer<u32>, Buffer<u32>) = (indptr.to_vec().into(), indices.to_vec().into());
        let data = Buffer::from(vec![1.0; indices.len()]);
        SharedCsMat::new(CompressedStorage::CSR, (2, 3), indptr, indices, data).is_err()
    };
    assert!(!bad(&[0, 1, 2], &[0, 2]));
    assert!(bad(&[0, 1, 2], &[0, 3]), "a column that does not exist");
    assert!(bad(&[0, 2, 2], &[1, 0]), "unsorted");
    assert!(bad(&[0, 3, 2], &[0, 1]), "a row that ends before it starts");
    assert!(bad(&[0, 1], &[0]), "a row is missing");
    Ok(())
}

#[cfg(feature = "arrow")]
#[test]
fn arrow_arrays_are_shared() -> Result<(), Box<dyn Error>> {
    use std::sync::Arc;

    use arrow_array::{Array, ArrayRef, Int64Array, ListArray, StringArray, StructArray, types::Int32Type};
    use arrow_buffer::ScalarBuffer;
    use arrow_schema::{DataType, Field};
    use shm_buffers::{Backing, BufferMut, SharedArrow, share_move};

    let built = BufferMut::from_fn(&Backing::Auto, 1000, |i| i as i64)?.freeze()?;
    let address = built.as_ptr();
    let array = Int64Array::new(ScalarBuffer::from(built), None);
    assert_eq!(array.values().as_ptr(), address, "zero copy");
    assert_eq!(array.value(999), 999);

    let strings: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("ünï"), Some("")]));
    let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
        Some(vec![Some(4)]),
    ]));
    let both = StructArray::from(vec![
        (Arc::new(Field::new("s", DataType::Utf8, true)), strings.clone()),
        (
            Arc::new(Field::new("l", lists.data_type().clone(), true)),
            lists.clone(),
        ),
    ]);
    let arrays: Vec<ArrayRef> = vec![
        strings.clone(),
        strings.slice(1, 2),
        lists.slice(1, 3),
        lists,
        Arc::new(both),
        Arc::new(array),
    ];
    for array in arrays {
        let shared = SharedArrow::copy(&array);
        assert_eq!(
            (shared.len(), shared.data_type()),
            (array.len(), array.data_type())
        );
        let inline: SharedArrow = serde_json::from_str(&serde_json::to_string(&shared)?)?;
        assert_eq!(&inline.to_array()?, &array);
        let theirs: SharedArrow = share_move(shared, &Backing::Auto)?.load()?;
        assert_eq!(&theirs.to_array()?, &array);
    }
    // An invalid length, which Arrow would trust.
    let mut value = serde_json::to_value(SharedArrow::copy(&StringArray::from(vec!["abc"])))?;
    value["len"] = 1000.into();
    assert!(serde_json::from_value::<SharedArrow>(value)?.to_array().is_err());
    Ok(())
}

#[cfg(feature = "arrow")]
#[test]
fn record_batches_are_shared_with_their_schema() -> Result<(), Box<dyn Error>> {
    use std::collections::HashMap;
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Float64Array, RecordBatch, RecordBatchOptions, StringArray};
    use arrow_schema::{DataType, Field, Schema};
    use shm_buffers::{Backing, Image, SharedRecordBatch, share_move};

    let metadata = |key: &str| HashMap::from([(key.to_owned(), "value".to_owned())]);
    let fields = vec![
        Field::new("title", DataType::Utf8, true).with_metadata(metadata("key")),
        Field::new("score", DataType::Float64, false),
    ];
    let schema = Schema::new_with_metadata(fields, metadata("source"));
    let titles: ArrayRef = Arc::new(StringArray::from(vec![Some("Solaris"), None, Some("Stalker")]));
    let scores: ArrayRef = Arc::new(Float64Array::from(vec![8.0, 7.5, 8.1]));
    let batch = RecordBatch::try_new(schema.into(), vec![titles, scores])?;
    let rows = RecordBatchOptions::new().with_row_count(Some(3));
    let no_columns = RecordBatch::try_new_with_options(Schema::empty().into(), Vec::new(), &rows)?;
    for batch in [batch.clone(), batch.slice(1, 2), no_columns] {
        let image = share_move(SharedRecordBatch::copy(&batch), &Backing::Auto)?;
        let theirs: SharedRecordBatch = Image::attach(&image.handle()?)?.load()?;
        assert_eq!(theirs.to_batch()?, batch);
        assert_eq!(
            (theirs.rows(), theirs.schema()),
            (batch.num_rows(), &*batch.schema())
        );
        assert_eq!(theirs.columns().len(), batch.num_columns());
    }
    Ok(())
}

/// Returns the addresses of all bytes of the columns: of each buffer, also of nulls and nested values.
#[cfg(feature = "arrow")]
fn addresses(batch: &arrow_array::RecordBatch) -> Vec<std::ops::Range<usize>> {
    use arrow_array::Array;
    use arrow_data::ArrayData;

    fn add(data: &ArrayData, found: &mut Vec<std::ops::Range<usize>>) {
        let nulls = data.nulls().map(|nulls| nulls.inner().inner());
        for buffer in data.buffers().iter().chain(nulls) {
            let start = buffer.as_ptr().addr();
            found.push(start..start + buffer.len());
        }
        data.child_data().iter().for_each(|child| add(child, found));
    }
    let mut found = Vec::new();
    for column in batch.columns() {
        add(&column.to_data(), &mut found);
    }
    found
}

#[cfg(feature = "arrow")]
#[test]
fn arrow_memory_is_taken_over_and_read_in_the_segment() -> Result<(), Box<dyn Error>> {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, types::Int32Type};
    use shm_buffers::{Backing, Image, SharedRecordBatch, share_move};

    const ROWS: i32 = 10_000;
    let batch = || {
        let is_some = |row: &i32| row % 7 != 0;
        let numbers: Int64Array = (0..ROWS)
            .map(|row| Some(row).filter(is_some).map(i64::from))
            .collect();
        let words: StringArray = (0..ROWS)
            .map(|row| Some(row).filter(is_some).map(|row| format!("word {row}")))
            .collect();
        let lists = (0..ROWS).map(|row| is_some(&row).then(|| vec![Some(row), None]));
        let columns: [(&str, ArrayRef); 3] = [
            ("numbers", Arc::new(numbers)),
            ("words", Arc::new(words)),
            (
                "lists",
                Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)),
            ),
        ];
        RecordBatch::try_from_iter(columns)
    };
    let ours = batch()?;
    let (before, slice) = (addresses(&ours), ours.slice(8, 5000));
    assert_eq!(before.len(), 9);
    let of_slice = addresses(&slice);

    let shared = SharedRecordBatch::from(ours);
    assert_eq!(addresses(&shared.to_batch()?), before, "nothing is copied");
    let shared_slice = SharedRecordBatch::from(slice);
    assert_eq!(shared_slice.to_batch()?, batch()?.slice(8, 5000));
    let starts = |ranges: &[std::ops::Range<usize>]| ranges.iter().map(|it| it.start).collect::<Vec<_>>();
    let kept = starts(&addresses(&shared_slice.to_batch()?));
    let is_kept = kept
        .iter()
        .filter(|start| before.iter().any(|it| it.contains(start)));
    assert_eq!(is_kept.count(), of_slice.len(), "nothing is copied");
    let copied = addresses(&SharedRecordBatch::copy(&shared.to_batch()?).to_batch()?);
    let is_new = |it: &std::ops::Range<usize>| before.iter().all(|old| !old.contains(&it.start));
    assert!(copied.iter().all(is_new));

    let image = share_move(vec![shared, shared_slice], &Backing::Auto)?;
    let attached = Image::attach(&image.handle()?)?;
    let theirs: Vec<SharedRecordBatch> = attached.load()?;
    let expected = [batch()?, batch()?.slice(8, 5000)];
    let segment = attached.segment().as_ptr_range();
    let segment = segment.start.addr()..segment.end.addr();
    for (theirs, expected) in theirs.iter().zip(expected) {
        let theirs = theirs.to_batch()?;
        assert_eq!(theirs, expected);
        for bytes in addresses(&theirs) {
            assert!(
                segment.contains(&bytes.start) && bytes.end <= segment.end,
                "{bytes:?} is not in {segment:?}"
            );
            assert_eq!(bytes.start % 64, 0, "it is aligned");
        }
    }
    Ok(())
}

#[cfg(feature = "rkyv")]
mod archives {
    use std::collections::{BTreeMap, HashMap};
    use std::error::Error;

    use serde::{Deserialize, Serialize};
    use shm_buffers::{
        AlignedBytes, ArchiveError, Backing, Buffer, Image, LoadError, SharedArchive, Validated, share,
        share_move,
    };

    #[derive(Clone, rkyv::Archive, rkyv::Serialize)]
    #[rkyv(derive(Debug))]
    struct Words {
        postings: HashMap<String, Vec<u32>>,
        tree: BTreeMap<u64, Option<Box<str>>>,
        wide: Vec<u128>,
    }

    /// Its root reads many strings where `Words` has other data.
    #[derive(rkyv::Archive, rkyv::Serialize)]
    #[rkyv(derive(Debug))]
    struct Numbers {
        numbers: [String; 200],
    }

    #[derive(Debug, Serialize, Deserialize)]
    #[serde(bound = "")]
    struct Model {
        scale: f64,
        words: SharedArchive<Names>,
        weights: Buffer<f32>,
    }

    #[derive(Debug, PartialEq, rkyv::Archive, rkyv::Serialize)]
    #[rkyv(derive(Debug, PartialEq))]
    struct Names(Vec<String>);

    fn words() -> Words {
        Words {
            postings: (0..1000)
                .map(|i| (format!("word {i}"), (0..i % 10).collect()))
                .collect(),
            tree: (0..100)
                .map(|i| (i, (i % 2 == 0).then(|| format!("{i}").into())))
                .collect(),
            wide: (0..10).collect(),
        }
    }

    fn assert_words(archive: &SharedArchive<Words>) {
        let words = words();
        assert_eq!(archive.postings.len(), words.postings.len());
        for (word, list) in &words.postings {
            assert_eq!(
                archive.postings.get(&**word).map(|list| list.as_slice().len()),
                Some(list.len())
            );
        }
        assert_eq!(archive.tree.len(), 100);
        assert_eq!(archive.wide.as_slice()[9], 9);
    }

    #[test]
    fn any_archive_is_shared_saved_and_loaded() -> Result<(), Box<dyn Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("words.safetensors");
        let image = share(&SharedArchive::new(&words())?, &Backing::Auto)?;
        image.save(&path)?;
        let compressed = Image::load_shared(&path, &Backing::Auto)?;
        for image in [
            Image::attach(&image.handle()?)?,
            crate::mapped::open(&path)?,
            compressed,
            image,
        ] {
            let archive: SharedArchive<Words> = image.load()?;
            assert_words(&archive);
            let segment = archive.bytes().segment().ok_or("it is not on the heap")?;
            assert!(std::ptr::eq(&raw const **segment, &raw const **image.segment()));
            assert_words(&archive.clone());
        }
        Ok(())
    }

    #[test]
    fn an_archive_is_a_part_of_a_model_and_of_other_formats() -> Result<(), Box<dyn Error>> {
        let words = SharedArchive::new(&Names(vec!["a".to_owned(), "b".to_owned()]))?;
        let model = Model {
            scale: 0.5,
            words: words.clone(),
            weights: vec![1.0; 10].into(),
        };
        let json = serde_json::to_string(&model)?;
        let image = share_move(model, &Backing::Auto)?;
        assert_eq!(image.memory().buffers, 2);
        let loaded: Model = image.load()?;
        assert_eq!(
            (loaded.scale, &loaded.words, loaded.weights[9]),
            (0.5, &words, 1.0)
        );
        let loaded: Model = serde_json::from_str(&json)?;
        assert_eq!(loaded.words, words);
        let json = json.replace("\"words\":[", "\"words\":[1,");
        assert!(serde_json::from_str::<Model>(&json).is_err());
        Ok(())
    }

    #[test]
    fn bytes_of_another_type_are_refused() -> Result<(), Box<dyn Error>> {
        let image = share(&SharedArchive::new(&words())?, &Backing::Auto)?;
        let error = image.load::<SharedArchive<Numbers>>().expect_err("another type");
        assert!(matches!(error, LoadError::Decode { .. }));
        assert!(error.to_string().contains("not a valid archive of"), "{error}");
        // A proof for one type does not count for another type or another buffer.
        let (_, validated) = image.load_validating::<SharedArchive<Words>>()?;
        assert_ne!(validated, Validated::default());
        let sent: Validated = serde_json::from_str(&serde_json::to_string(&validated)?)?;
        assert_eq!(sent, validated);
        assert!(crate::mapped::load_validated::<SharedArchive<Numbers>>(&image, &sent).is_err());
        assert_words(&crate::mapped::load_validated(&image, &sent)?);
        // Buffers that are no bytes are refused.
        let numbers = share(&Buffer::from(vec![1u64; 100]), &Backing::Auto)?;
        assert!(numbers.load::<SharedArchive<Words>>().is_err());
        Ok(())
    }

    /// Whatever the bytes are, they are refused, or can be read without reading anything else.
    #[test]
    fn hostile_bytes_are_refused_or_harmless() -> Result<(), Box<dyn Error>> {
        let valid = SharedArchive::new(&words())?;
        let valid = valid.bytes();
        let mut refused = 0;
        let mut check = |bytes: &[u8]| {
            let bytes: Buffer<u8> = AlignedBytes::from(bytes).into();
            match SharedArchive::<Words>::from_bytes(bytes.clone()) {
                Ok(archive) => {
                    let lists = archive
                        .postings
                        .iter()
                        .map(|(word, list)| word.len() + list.len());
                    std::hint::black_box(lists.sum::<usize>());
                    let texts = archive
                        .tree
                        .iter()
                        .map(|(_, text)| text.as_ref().map_or(0, |text| text.len()));
                    std::hint::black_box(texts.sum::<usize>());
                }
                Err(ArchiveError::Invalid { len, .. }) => {
                    assert_eq!(len, bytes.len());
                    refused += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
        };
        // Truncated, and with each word of the root and some others changed.
        for len in [0, 1, 7, 8, valid.len() / 2, valid.len() - 16, valid.len() - 1] {
            check(&valid[..len]);
            check(&valid[valid.len() - len..]);
        }
        let root = (valid.len() - 64..valid.len()).step_by(4);
        for at in (0..valid.len() - 64).step_by(509).chain(root) {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut bytes = valid.to_vec();
                bytes[at..(at + 4).min(valid.len())].fill(value);
                check(&bytes);
            }
        }
        assert!(refused > 60, "{refused}");
        Ok(())
    }

    #[test]
    fn an_unaligned_archive_is_refused() -> Result<(), Box<dyn Error>> {
        let archive = SharedArchive::new(&words())?;
        let shifted = [&[0; 1], &archive.bytes()[..]].concat();
        let shifted: Buffer<u8> = AlignedBytes::from(&*shifted).into();
        let error = SharedArchive::<Words>::from_bytes(shifted.slice(1..)).expect_err("it is not aligned");
        shm_buffers::assert_said_once(&error);
        Ok(())
    }
}
