//! [`SharedArray`]: an n-dimensional array over a [`Buffer`].

use std::fmt;

use bytemuck::Pod;
use ndarray::{Array, ArrayView, Dimension, IntoDimension, IxDyn, ShapeBuilder, ShapeError};
use serde::de::{Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};

use crate::buffer::{Buffer, out_of_band};
use crate::tensors::Order;

/// An immutable n-dimensional array over a [`Buffer`], as a part of a model. Cheap to clone.
///
/// Its elements are serialized as those of the buffer: out of band while a model is shared.
///
/// ```
/// use ndarray::{Array2, Ix2, array};
/// use shm_buffers::{Backing, SharedArray, share};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let factors = SharedArray::from(Array2::from_shape_fn((3, 4), |(i, j)| (10 * i + j) as f32));
/// let image = share(&factors, &Backing::Auto)?;
///
/// let theirs: SharedArray<f32, Ix2> = image.load()?; // in this or another process
/// assert_eq!(theirs.view().row(2), array![20.0, 21.0, 22.0, 23.0]);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SharedArray<T, D> {
    elements: Buffer<T>,
    dim: D,
    order: Order,
}

impl<T: Pod + Send + Sync, D: Dimension> SharedArray<T, D> {
    /// Creates an array of this shape from its elements.
    ///
    /// # Errors
    /// If the number of elements is not that of the shape.
    pub fn new(
        elements: Buffer<T>,
        shape: impl IntoDimension<Dim = D>,
        order: Order,
    ) -> Result<Self, ShapeError> {
        let dim = shape.into_dimension();
        let view = view(&elements, dim.clone(), order)?;
        if view.len() != elements.len() {
            return Err(ShapeError::from_kind(ndarray::ErrorKind::IncompatibleShape));
        }
        Ok(Self { elements, dim, order })
    }

    /// Returns the array as a view of `ndarray`. The time depends on the shape only.
    pub fn view(&self) -> ArrayView<'_, T, D> {
        // `new` has created the same view.
        view(&self.elements, self.dim.clone(), self.order).expect("a shape that fits its elements")
    }

    /// Returns the length of each axis.
    pub fn shape(&self) -> &[usize] {
        self.dim.slice()
    }

    /// Returns the order of the elements in memory.
    pub fn order(&self) -> Order {
        self.order
    }

    /// Returns the elements in their [order](Self::order).
    pub fn elements(&self) -> &Buffer<T> {
        &self.elements
    }
}

fn view<T, D: Dimension>(elements: &[T], dim: D, order: Order) -> Result<ArrayView<'_, T, D>, ShapeError> {
    match order {
        Order::C => ArrayView::from_shape(dim, elements),
        Order::Fortran => ArrayView::from_shape(dim.f(), elements),
    }
}

/// Takes over the memory of an array that is contiguous in one of the orders. Copies any other array (sliced, partly
/// transposed) in C order.
impl<T: Pod + Send + Sync, D: Dimension> From<Array<T, D>> for SharedArray<T, D> {
    fn from(array: Array<T, D>) -> Self {
        let dim = array.raw_dim();
        let order = match (array.is_standard_layout(), array.t().is_standard_layout()) {
            (true, _) => Some(Order::C),
            (false, true) => Some(Order::Fortran),
            (false, false) => None,
        };
        let len = array.len();
        let (elements, order) = match order {
            Some(order) => {
                let (mut elements, start) = array.into_raw_vec_and_offset();
                // The array may be a part of the vector that it owns.
                elements.truncate(start.unwrap_or(0) + len);
                elements.drain(..elements.len() - len);
                (elements, order)
            }
            None => (array.iter().copied().collect(), Order::C),
        };
        Self {
            elements: elements.into(),
            dim,
            order,
        }
    }
}

impl<T: Pod + Send + Sync + fmt::Debug, D: Dimension> fmt::Debug for SharedArray<T, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.view(), f)
    }
}

/// Arrays are equal if their shapes and elements are; their orders may differ.
impl<T: Pod + Send + Sync + PartialEq, D: Dimension> PartialEq for SharedArray<T, D> {
    fn eq(&self, other: &Self) -> bool {
        self.view() == other.view()
    }
}

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "SharedArray")]
#[serde(bound(serialize = "T: Pod + Send + Sync", deserialize = "T: Pod + Send + Sync"))]
struct ArrayRepr<T> {
    shape: Vec<usize>,
    order: Order,
    elements: Buffer<T>,
}

impl<T: Pod + Send + Sync, D: Dimension> Serialize for SharedArray<T, D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let repr = ArrayRepr {
            shape: self.shape().to_vec(),
            order: self.order,
            elements: self.elements.clone(),
        };
        repr.serialize(serializer)
    }
}

impl<'de, T: Pod + Send + Sync, D: Dimension> Deserialize<'de> for SharedArray<T, D> {
    fn deserialize<De: Deserializer<'de>>(deserializer: De) -> Result<Self, De::Error> {
        let repr = ArrayRepr::deserialize(deserializer)?;
        let axes = repr.shape.len();
        let dim = D::from_dimension(&IxDyn(&repr.shape)).ok_or_else(|| {
            let wanted = D::NDIM.unwrap_or_default();
            out_of_band::refused(format_args!("the array has {axes} axes, wanted are {wanted}"))
        })?;
        Self::new(repr.elements, dim, repr.order).map_err(out_of_band::refused)
    }
}
