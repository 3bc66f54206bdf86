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
    /// Alignment of an element in bytes.
    pub(crate) align: usize,
}

impl Element {
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
            align: align_of::<T>(),
        }
    }

    /// Returns whether an element is a row of `size` bytes rather than one number of its `dtype`.
    pub(crate) fn is_struct(self) -> bool {
        self.dtype == Dtype::U8 && self.size > 1
    }
}
