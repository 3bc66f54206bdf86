//! [`TensorWriter`]: writes named tensors into a segment, as an [`Image`] without a model.

use std::collections::HashSet;

use safetensors::Dtype;

use super::external_segments::ExternalPolicy;
use super::header::{self, MAX_HEADER};
use super::image::Image;
use super::layout::Layout;
use super::names::{METADATA, PADDING};
use crate::adopt::Adoptable;
use crate::backing::Backing;
use crate::buffer::MAX_ALIGN;
use crate::model::error::ShareError;
use crate::segment::SegmentMut;

/// Named tensors that become one image in shared memory: a safetensors file without a model's skeleton.
///
/// It is for programs whose models are not serde types, such as those of other languages. [`Image::tensors`] returns the tensors in
/// place, also in another process and of a file that [`Image::save`] has written. Each starts at a multiple of 64 bytes.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use shm_buffers::{Backing, Dtype, Image, TensorWriter};
///
/// let weights: Vec<u8> = [0.5f32, 1.5].iter().flat_map(|it| it.to_le_bytes()).collect();
/// let mut writer = TensorWriter::new();
/// writer.add("names", Dtype::U8, &[9], b"bias,gain")?;
/// writer.add("weights", Dtype::F32, &[2], &weights)?;
/// let image = writer.write(&Backing::Auto)?;
///
/// let theirs = Image::attach(&image.handle()?)?.tensors()?;
/// assert_eq!(theirs.buffer::<f32>("weights")?, [0.5, 1.5]);
/// # Ok(()) }
/// ```
#[derive(Debug, Default)]
#[must_use = "a writer does nothing until it writes"]
pub struct TensorWriter<'a> {
    layout: Layout,
    names: HashSet<String>,
    parts: Vec<(usize, &'a [u8])>,
    adopted: Vec<(usize, Adoptable)>,
}

impl<'a> TensorWriter<'a> {
    /// Makes a writer without tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor: its name, the type of its elements, its length in each dimension, and its elements in row-major order, little-endian.
    ///
    /// # Errors
    /// [`ShareError::Layout`] if another tensor has this name, if the name is one of the format's own (`__metadata__`, `__pad__.`), or
    /// if the number of bytes is not that of the shape.
    pub fn add(
        &mut self,
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        bytes: &'a [u8],
    ) -> Result<(), ShareError> {
        let name = self.check(name.into(), dtype, shape, bytes.len())?;
        let offset = self.layout.add(name, dtype, shape.to_vec(), bytes.len());
        self.parts.push((offset, bytes));
        Ok(())
    }

    /// Adds a tensor whose memory becomes a view of the image. It starts at a multiple of 64 bytes, or where the memory itself does in its
    /// page.
    ///
    /// # Errors
    /// As [`add`](Self::add).
    pub fn add_adopted(
        &mut self,
        name: impl Into<String>,
        dtype: Dtype,
        shape: &[usize],
        memory: Adoptable,
    ) -> Result<(), ShareError> {
        let bytes = memory.bytes().len();
        let tensor = (
            self.check(name.into(), dtype, shape, bytes)?,
            dtype,
            shape.to_vec(),
        );
        #[cfg(target_os = "linux")]
        let (rest, modulus) = match memory.whole_pages() {
            Some(_) => (memory.page_offset(), rustix::param::page_size()),
            None => (0, MAX_ALIGN),
        };
        #[cfg(not(target_os = "linux"))]
        let (rest, modulus) = (0, MAX_ALIGN);
        let offset = self.layout.add_at(tensor, bytes, rest, modulus);
        self.adopted.push((offset, memory));
        Ok(())
    }

    /// Checks a tensor, and returns its name.
    fn check(
        &mut self,
        name: String,
        dtype: Dtype,
        shape: &[usize],
        bytes: usize,
    ) -> Result<String, ShareError> {
        if name == METADATA || name.starts_with(PADDING) {
            return Err(ShareError::Layout(format!(
                "the name `{name}` belongs to the format; choose another one"
            )));
        }
        let count = shape.iter().try_fold(1usize, |all, len| all.checked_mul(*len));
        let bits = count.and_then(|count| count.checked_mul(dtype.bitsize()));
        if bits != bytes.checked_mul(8) {
            return Err(ShareError::Layout(format!(
                "tensor `{name}` has {bytes} bytes, which are not {shape:?} elements {dtype}"
            )));
        }
        if !self.names.insert(name.clone()) {
            return Err(ShareError::Layout(format!("two tensors have the name `{name}`")));
        }
        Ok(name)
    }

    /// Copies the tensors into a new segment, on all cores.
    ///
    /// # Errors
    /// [`ShareError::Layout`] if there are too many tensors for a header; [`ShareError::Create`] and [`ShareError::Freeze`] for errors of
    /// memory.
    pub fn write(self, backing: &Backing) -> Result<Image, ShareError> {
        Ok(self.write_adopting(backing)?.0)
    }

    /// Like [`write`](Self::write). Returns the number of bytes that were [adopted](Self::add_adopted), too: those of whole pages which are
    /// in memory once. Only anonymous memory adopts.
    ///
    /// # Errors
    /// As [`write`](Self::write), and [`ShareError::Create`] if the system refuses to map the image. Memory that was adopted until then
    /// keeps its bytes.
    pub fn write_adopting(self, backing: &Backing) -> Result<(Image, u64), ShareError> {
        let align = match self.adopted.is_empty() {
            true => MAX_ALIGN,
            #[cfg(target_os = "linux")]
            false => rustix::param::page_size(),
            #[cfg(not(target_os = "linux"))]
            false => MAX_ALIGN,
        };
        let header = header::write_tensors(&self.layout.tensors, align).map_err(ShareError::Layout)?;
        let len = header.len() + self.layout.end;
        let mut segment = match self.adopted.is_empty() {
            true => SegmentMut::create(backing, len)?,
            false => SegmentMut::create_for_adoption(backing, len, &self.adopted)?,
        };
        segment[..header.len()].copy_from_slice(&header);
        for (offset, bytes) in self.parts {
            segment.copy_at(header.len() + offset, bytes);
        }
        let adopted = segment.adopt_all(header.len(), self.adopted)?;
        let image = Image {
            segment: segment.freeze()?,
            external: ExternalPolicy::Refuse,
            max_header: MAX_HEADER,
            shared_from: None,
        };
        Ok((image, adopted))
    }
}
