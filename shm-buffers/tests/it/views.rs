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
