//! [`Layout`]: the tensors of a model image, each at a multiple of 64 bytes. The format allows no gaps, so padding is a tensor.

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;

use super::names::{Names, PADDING};
use crate::buffer::MAX_ALIGN;
use crate::buffer::out_of_band::{MAX_NAMED, MIN_NAMED};

/// The tensors of an image, in the order of their positions.
#[derive(Debug, Default)]
pub(super) struct Layout {
    pub(super) tensors: Vec<(String, TensorInfo)>,
    /// The end of the last tensor, in bytes from the first one.
    pub(super) end: usize,
    paddings: usize,
}

impl Layout {
    /// Adds a tensor at the next multiple of 64 bytes, and returns its offset from the first tensor.
    pub(super) fn add(&mut self, name: String, dtype: Dtype, shape: Vec<usize>, bytes: usize) -> usize {
        self.add_at((name, dtype, shape), bytes, 0, MAX_ALIGN)
    }

    /// Adds a tensor at the next offset that is `rest` modulo `modulus`.
    pub(super) fn add_at(
        &mut self,
        (name, dtype, shape): (String, Dtype, Vec<usize>),
        bytes: usize,
        rest: usize,
        modulus: usize,
    ) -> usize {
        let start = self.end + (rest + modulus - self.end % modulus) % modulus;
        if start > self.end {
            let padding = start - self.end;
            let name = format!("{PADDING}{}", self.paddings);
            self.paddings += 1;
            self.push(name, Dtype::U8, vec![padding], padding);
        }
        self.push(name, dtype, shape, bytes);
        start
    }

    fn push(&mut self, name: String, dtype: Dtype, shape: Vec<usize>, bytes: usize) {
        let data_offsets = (self.end, self.end + bytes);
        self.end += bytes;
        let info = TensorInfo {
            dtype,
            shape,
            data_offsets,
        };
        self.tensors.push((name, info));
    }
}

/// The offsets of buffers that follow one another in one tensor, each at a multiple of 64 bytes.
#[derive(Debug, Default)]
pub(super) struct Packing {
    end: usize,
}

impl Packing {
    /// Adds a buffer, and returns its offset in the tensor.
    pub(super) fn add(&mut self, bytes: usize) -> usize {
        let start = self.end.next_multiple_of(MAX_ALIGN);
        self.end = start + bytes;
        start
    }

    /// Returns the bytes of the tensor.
    pub(super) fn len(&self) -> usize {
        self.end
    }
}

/// Returns the least bytes of a buffer that is a tensor of its own: 0 if the model has few buffers, and otherwise a power of two
/// that leaves few tensors.
pub(super) fn least_tensor(sizes: impl Iterator<Item = usize> + Clone) -> usize {
    if sizes.clone().count() <= MAX_NAMED {
        return 0;
    }
    let mut least = MIN_NAMED;
    while sizes.clone().filter(|size| *size >= least).count() > MAX_NAMED {
        least *= 2;
    }
    least
}

/// Returns the name of buffer `index` with this field path.
pub(super) fn name(names: &mut Names, index: usize, path: Option<&str>) -> String {
    match path {
        Some(path) => names.unique(path),
        None => names.unique(&format!("buffer.{index}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_aligned_and_follow_one_another() {
        let mut layout = Layout::default();
        let starts =
            [3, 64, 0, 1, 128].map(|bytes| layout.add("x".to_owned(), Dtype::U8, vec![bytes], bytes));
        assert_eq!(starts, [0, 64, 128, 128, 192]);
        assert_eq!(layout.end, 320);
        let tensor = || ("x".to_owned(), Dtype::U8, vec![10]);
        let starts = [(16, 4096), (16, 4096), (0, 64), (32, 4096)];
        let starts = starts.map(|(rest, modulus)| layout.add_at(tensor(), 10, rest, modulus));
        assert_eq!(starts, [4112, 8208, 8256, 12320]);
        let offsets = layout.tensors.iter().map(|(_, info)| info.data_offsets);
        let ends = std::iter::once(0).chain(offsets.clone().map(|(_, end)| end));
        assert!(offsets.zip(ends).all(|((start, _), end)| start == end));
        let paddings: Vec<&str> = layout
            .tensors
            .iter()
            .map(|(name, _)| name.as_str())
            .filter(|name| name.starts_with(PADDING))
            .collect();
        assert_eq!(paddings, [0, 1, 2, 3, 4, 5].map(|n| format!("__pad__.{n}")));
    }

    #[test]
    fn few_buffers_are_tensors_and_small_ones_of_many_are_packed() {
        let sizes = |count| std::iter::repeat_n(8, count);
        assert_eq!(least_tensor(sizes(MAX_NAMED)), 0);
        assert_eq!(least_tensor(sizes(MAX_NAMED + 1)), MIN_NAMED);
        let large = std::iter::repeat_n(MIN_NAMED, MAX_NAMED + 1);
        assert_eq!(least_tensor(large), 2 * MIN_NAMED);
    }
}
