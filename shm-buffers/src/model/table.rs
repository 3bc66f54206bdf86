//! [`Table`]: where the buffers of a model image are. It is binary and read in place, so that a million buffers cost a process
//! that loads the model neither time nor memory before they are used.
//!
//! ```text
//! records   24 bytes for each buffer, in the order of their indices: offset, bytes, number of its kind, number of its segment.
//!           Segment 0 is the image, and the offset counts from its first tensor
//! kinds     16 bytes for each type of elements: bytes per element, number of the type
//! names     the indices and names of buffers, in postcard's encoding
//! segments  the handles of the other segments, in postcard's encoding, or nothing
//! model     the rest of the model, in postcard's encoding
//! footer    64 bytes: the lengths of the sections before it, a hash of the header, the length of the image, a magic number
//! ```
//!
//! All numbers are little-endian. The sections are the tensor `skeleton`, the last one of the image.

use std::ops::Range;

use super::checksum;
use super::error::LoadError;
use super::external_segments::ExternalPolicy;
use super::header::{self, HeaderError};
use crate::buffer::element::Element;
use crate::buffer::out_of_band::{StoredBuffer, StoredBuffers};
use crate::segment::{Segment, SegmentHandle};

const RECORD: usize = 24;
const KIND: usize = 16;
pub(super) const FOOTER: usize = 64;
const MAGIC: [u8; 8] = *b"shm-buf\x02";

/// A table under construction.
#[derive(Debug, Default)]
pub(super) struct TableWriter {
    records: Vec<u8>,
    kinds: Vec<Element>,
    names: Vec<(u32, String)>,
}

/// The sections of a table, without its footer.
#[derive(Debug)]
pub(super) struct Sections {
    bytes: Vec<u8>,
    /// Bytes of the records, kinds, names, segments and the model.
    lens: [usize; 5],
}

impl TableWriter {
    pub(super) fn with_capacity(buffers: usize) -> Self {
        Self {
            records: Vec::with_capacity(buffers * RECORD),
            ..Self::default()
        }
    }

    /// Adds the next buffer: `bytes` bytes at `offset` of the segment with this number.
    pub(super) fn push(&mut self, element: Element, segment: u32, offset: usize, bytes: usize) {
        let known = self.kinds.iter().position(|it| *it == element);
        let kind = known.unwrap_or_else(|| {
            self.kinds.push(element);
            self.kinds.len() - 1
        });
        self.records.extend((offset as u64).to_le_bytes());
        self.records.extend((bytes as u64).to_le_bytes());
        self.records.extend((kind as u32).to_le_bytes());
        self.records.extend(segment.to_le_bytes());
    }

    /// Names the buffer that was added last.
    pub(super) fn name(&mut self, name: String) {
        let index = (self.records.len() / RECORD).saturating_sub(1);
        self.names.push((index as u32, name));
    }

    /// Returns the table of a model with buffers in these other segments.
    pub(super) fn finish(self, segments: &[SegmentHandle], model: &[u8]) -> Result<Sections, String> {
        let kinds: Vec<u8> = self.kinds.iter().flat_map(|kind| write_kind(*kind)).collect();
        let names = postcard::to_stdvec(&self.names).map_err(|e| e.to_string())?;
        let segments = match segments.is_empty() {
            true => Vec::new(),
            false => postcard::to_stdvec(segments).map_err(|e| e.to_string())?,
        };
        let sections = [&self.records[..], &kinds, &names, &segments, model];
        Ok(Sections {
            lens: sections.map(<[u8]>::len),
            bytes: sections.concat(),
        })
    }
}

impl Sections {
    /// Returns the number of bytes with the footer.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + FOOTER
    }

    /// Returns the table, with its footer, in an image of `len` bytes with this header.
    pub(super) fn with_footer(self, header: &[u8], len: usize) -> Vec<u8> {
        let Self { mut bytes, lens } = self;
        for len in lens {
            bytes.extend((len as u64).to_le_bytes());
        }
        bytes.extend(checksum::of_header(header).to_le_bytes());
        bytes.extend((len as u64).to_le_bytes());
        bytes.extend(MAGIC);
        bytes
    }
}

fn write_kind(element: Element) -> [u8; KIND] {
    let mut bytes = [0; KIND];
    bytes[..8].copy_from_slice(&(element.size as u64).to_le_bytes());
    bytes[8] = element.code();
    bytes
}

fn read_kind(bytes: &[u8]) -> Option<Element> {
    let (size, code) = bytes.split_first_chunk::<8>()?;
    let size = usize::try_from(u64::from_le_bytes(*size)).ok()?;
    Element::from_code(*code.first()?, size)
}

/// Where a buffer is.
struct Record {
    offset: u64,
    bytes: u64,
    kind: u32,
    segment: u32,
}

impl Record {
    fn read(bytes: &[u8; RECORD]) -> Self {
        let [a, b, c] = [0, 8, 16].map(|at| u64::from_le_bytes(std::array::from_fn(|i| bytes[at + i])));
        Self {
            offset: a,
            bytes: b,
            kind: c as u32,
            segment: (c >> 32) as u32,
        }
    }
}

/// The table of an image. Its sections lie inside of the image. Each record is checked when it is used.
#[derive(Debug)]
pub(super) struct Table {
    image: Segment,
    /// The offset of the first tensor.
    data: usize,
    kinds: Vec<Element>,
    records: Range<usize>,
    names: Range<usize>,
    segments: Range<usize>,
    pub(super) model: Range<usize>,
}

impl Table {
    /// Reads the table of an image that [has one](header::has_table) and a header of at most `limit` bytes.
    pub(super) fn read(image: &Segment, limit: usize) -> Result<Self, HeaderError> {
        let data = header::end(image, image.len(), limit)?;
        let (rest, footer) = image
            .split_last_chunk::<FOOTER>()
            .ok_or("it is too short for its table of buffers")?;
        let number = |index: usize| u64::from_le_bytes(std::array::from_fn(|i| footer[8 * index + i]));
        if footer[FOOTER - MAGIC.len()..] != MAGIC || number(6) != image.len() as u64 {
            return Err("its table of buffers is not at its end: it was truncated or changed".into());
        }
        let header = image.get(..data).unwrap_or_default();
        if number(5) != checksum::of_header(header) {
            return Err(
                "its header has changed, so the positions of its buffers are unknown; load the \
                        tensors of a file that another program has written again with `load_safetensors`"
                    .into(),
            );
        }
        // From the last section to the first.
        let mut end = rest.len();
        let mut section = |index| {
            let len = usize::try_from(number(index)).ok()?;
            let start = end.checked_sub(len).filter(|start| *start >= data)?;
            Some(start..std::mem::replace(&mut end, start))
        };
        let mut section = |index| section(index).ok_or("its table of buffers does not fit into it");
        let [model, segments, names, kinds, records] =
            [section(4)?, section(3)?, section(2)?, section(1)?, section(0)?];
        let (kinds, odd) = image.get(kinds).unwrap_or_default().as_chunks::<KIND>();
        let kinds: Option<Vec<Element>> = kinds.iter().map(|kind| read_kind(kind)).collect();
        match kinds {
            Some(kinds) if odd.is_empty() && records.len().is_multiple_of(RECORD) => Ok(Self {
                image: image.clone(),
                data,
                kinds,
                records,
                names,
                segments,
                model,
            }),
            _ => Err("its table of buffers has unknown types of elements".into()),
        }
    }

    fn records(&self) -> &[[u8; RECORD]] {
        let records = self.image.get(self.records.clone());
        records.unwrap_or_default().as_chunks().0
    }

    /// Returns whether buffers are in other segments.
    pub(super) fn is_external(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Returns the number of buffers.
    pub(super) fn len(&self) -> usize {
        self.records.len() / RECORD
    }

    /// Returns the number of bytes of the buffers in each other segment, by its number. Memory that several buffers share counts
    /// once.
    pub(super) fn external_bytes(&self) -> Vec<(u32, u64)> {
        let records = self.records().iter().map(Record::read);
        let external = records.filter(|record| record.segment > 0);
        let end = |it: &Record| it.offset.saturating_add(it.bytes);
        let mut ranges: Vec<_> = external.map(|it| (it.segment, it.offset, end(&it))).collect();
        ranges.sort_unstable();
        let mut sums: Vec<(u32, u64)> = Vec::new();
        let mut counted = 0;
        for (segment, start, end) in ranges {
            match sums.last_mut().filter(|(last, _)| *last == segment) {
                Some((_, sum)) => {
                    *sum = sum.saturating_add(end.saturating_sub(start.max(counted)));
                    counted = counted.max(end);
                }
                None => {
                    sums.push((segment, end - start));
                    counted = end;
                }
            }
        }
        sums
    }

    /// Returns the names of the buffers that have one, by index in increasing order.
    pub(super) fn names(&self) -> Vec<(u32, String)> {
        let names = self.image.get(self.names.clone()).unwrap_or_default();
        // Names are for people only: an image whose names can't be read is loaded all the same.
        postcard::from_bytes(names).unwrap_or_default()
    }

    /// Returns the handles of the other segments.
    pub(super) fn handles(&self) -> Result<Vec<SegmentHandle>, String> {
        if !self.is_external() {
            return Ok(Vec::new());
        }
        let handles = self.image.get(self.segments.clone()).unwrap_or_default();
        postcard::from_bytes(handles)
            .map_err(|e| format!("its references to other segments can't be read: {e}"))
    }

    /// Attaches the other segments, if the policy allows that. The process that made the image has them already.
    pub(super) fn attach(self, policy: &ExternalPolicy) -> Result<TableBuffers, LoadError> {
        let segments = match (self.is_external(), policy) {
            (false, _) => Vec::new(),
            (true, ExternalPolicy::Refuse) => {
                let reason = "it has buffers in the memory of the process that made it";
                return Err(LoadError::Format(reason.to_owned()));
            }
            (true, ExternalPolicy::Own(segments)) => segments.clone(),
            (true, ExternalPolicy::Follow) => {
                let handles = self.handles().map_err(LoadError::Format)?;
                handles.iter().map(Segment::attach).collect::<Result<_, _>>()?
            }
        };
        Ok(TableBuffers {
            table: self,
            segments,
        })
    }
}

/// The buffers of an image with a table.
#[derive(Debug)]
pub(super) struct TableBuffers {
    pub(super) table: Table,
    segments: Vec<Segment>,
}

impl StoredBuffers for TableBuffers {
    fn count(&self) -> usize {
        self.table.len()
    }

    fn get(&self, index: usize) -> Result<StoredBuffer<'_>, String> {
        let table = &self.table;
        let record = table.records().get(index).map(Record::read);
        let record = record.ok_or_else(|| format!("the table has no record {index}"))?;
        let kind = table.kinds.get(record.kind as usize);
        let segment = match record.segment.checked_sub(1) {
            None => Some((&table.image, table.data as u64)),
            Some(number) => self.segments.get(number as usize).map(|segment| (segment, 0)),
        };
        let numbers = |start: u64| {
            let offset = usize::try_from(record.offset.checked_add(start)?).ok()?;
            Some((offset, usize::try_from(record.bytes).ok()?))
        };
        let place = segment.and_then(|(segment, start)| Some((segment, numbers(start)?)));
        match (kind, place) {
            (Some(element), Some((segment, (offset, bytes)))) => Ok(StoredBuffer {
                segment,
                element: *element,
                offset,
                bytes,
            }),
            _ => Err(format!("the record of buffer {} is invalid", self.name(index))),
        }
    }

    fn name(&self, index: usize) -> String {
        let names = self.table.names();
        let found = names.into_iter().find(|(it, _)| *it as usize == index);
        found.map_or_else(|| index.to_string(), |(_, name)| name)
    }
}
