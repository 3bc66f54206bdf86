//! [`Element`]: the type of a buffer's elements, as a model image describes it.

use std::any::TypeId;

use bytemuck::Pod;
use safetensors::Dtype;

/// The type of a buffer's elements, as a model image describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element {
    /// The `safetensors` type. A struct is a row of bytes: `U8`.
    pub(crate) dtype: Dtype,
    /// Bytes of an element.
    pub(crate) size: usize,
}

/// The types of elements. Images contain their positions here, so none is ever moved or removed.
const DTYPES: [Dtype; 10] = [
    Dtype::U8,
    Dtype::I8,
    Dtype::U16,
    Dtype::I16,
    Dtype::U32,
    Dtype::I32,
    Dtype::U64,
    Dtype::I64,
    Dtype::F32,
    Dtype::F64,
];

impl Element {
    /// Returns the number of the type in an image.
    pub(crate) fn code(self) -> u8 {
        let position = DTYPES.iter().position(|dtype| *dtype == self.dtype);
        // `of` returns these types only.
        position.unwrap_or(0) as u8
    }

    /// Returns the element of `size` bytes whose type has this number.
    pub(crate) fn from_code(code: u8, size: usize) -> Option<Self> {
        let dtype = *DTYPES.get(code as usize)?;
        Some(Self { dtype, size })
    }

    pub(crate) fn of<T: Pod>() -> Self {
        let of = TypeId::of::<T>();
        let known = [
            (TypeId::of::<u8>(), Dtype::U8),
            (TypeId::of::<i8>(), Dtype::I8),
            (TypeId::of::<u16>(), Dtype::U16),
            (TypeId::of::<i16>(), Dtype::I16),
            (TypeId::of::<u32>(), Dtype::U32),
            (TypeId::of::<i32>(), Dtype::I32),
            (TypeId::of::<u64>(), Dtype::U64),
            (TypeId::of::<i64>(), Dtype::I64),
            (TypeId::of::<f32>(), Dtype::F32),
            (TypeId::of::<f64>(), Dtype::F64),
        ];
        let dtype = known
            .iter()
            .find(|(id, _)| *id == of)
            .map_or(Dtype::U8, |(_, dtype)| *dtype);
        Self {
            dtype,
            size: size_of::<T>(),
        }
    }

    /// Returns whether an element is a row of `size` bytes rather than one number of its `dtype`.
    pub(crate) fn is_struct(self) -> bool {
        self.dtype == Dtype::U8 && self.size > 1
    }
}
