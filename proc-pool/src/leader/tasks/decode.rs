//! [`Decode`]: turns what a worker answered into an output.

use std::collections::VecDeque;

use shm_buffers::out_of_band::restore;

use crate::error::Fault;
use crate::leader::tasks::jobs::{Outcome, OutputApart, Run};
use crate::panics::guarded;
use crate::wire::bytes::{BuffersIn, Bytes};
use crate::wire::codec::Codec;
use crate::wire::owned_bytes::OwnedBytes;

/// The decoders for small outputs, which share a buffer, and for large outputs, which own theirs. These are two functions rather
/// than one on an enum, because the arguments of the small case then are passed in registers.
pub(crate) struct Decode<R> {
    slice: fn(&[u8]) -> Result<R, String>,
    large: fn(OwnedBytes) -> Result<R, String>,
    /// Decodes consecutive frames of the same length, up to the first that can't be decoded. `None` if that saves nothing.
    frames: Option<DecodeFrames<R>>,
    /// What the outputs of a job with this decoder are like.
    pub(crate) form: OutputForm,
}

type DecodeFrames<R> = fn(&[u8], usize, &mut VecDeque<R>) -> Result<(), String>;

/// What a job needs of its outputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutputForm {
    /// The alignment of the memory into which large outputs are received.
    pub(crate) alignment: usize,
    pub(crate) buffers: BuffersIn,
}

impl<R> Clone for Decode<R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<R> Copy for Decode<R> {}

impl Decode<Bytes> {
    /// Returns the bytes unchanged.
    pub(crate) const BYTES: Self = Self {
        slice: |bytes| Ok(Bytes::copied(bytes)),
        large: |bytes| Ok(Bytes::kept(bytes)),
        // Each is allocated, which takes longer than all that is saved.
        frames: None,
        form: OutputForm {
            alignment: 1,
            buffers: BuffersIn::Output,
        },
    };
}

impl<R> Decode<R> {
    /// Appends the outputs of a run to `outputs`. Some of what a single output costs is paid once for all of them. If one can't be decoded,
    /// those before it are appended, and its fault is returned. `None` if outputs of this type are decoded one by one.
    pub(crate) fn run(
        self,
        run: &Run,
        bytes: &[u8],
        outputs: &mut VecDeque<R>,
    ) -> Option<Result<(), Box<Fault>>> {
        let decode = self.frames?;
        Some(caught(|| decode(&bytes[run.frames()], run.frame_len(), outputs)))
    }

    /// Decodes with `C`.
    pub(crate) fn by<C: Codec<R>>() -> Self {
        Self {
            slice: |bytes| C::decode(bytes).map_err(|e| e.to_string()),
            large: |mut bytes| C::decode_owned(&mut bytes).map_err(|e| e.to_string()),
            frames: Some(|frames, len, outputs| {
                for frame in frames.chunks_exact(len) {
                    outputs.push_back(C::decode(&frame[1..]).map_err(|e| e.to_string())?);
                }
                Ok(())
            }),
            form: OutputForm {
                alignment: C::alignment(),
                buffers: BuffersIn::Blocks,
            },
        }
    }

    /// Returns the output or the fault, and the encoded size in bytes. A small output is a range of `bytes`.
    #[inline]
    pub(crate) fn outcome(self, outcome: Outcome, bytes: &[u8]) -> (Result<R, Box<Fault>>, usize) {
        match outcome {
            Outcome::Bytes { start, end } => (caught(|| (self.slice)(&bytes[start..end])), end - start),
            Outcome::Large(bytes) => {
                let len = bytes.len();
                (caught(|| (self.large)(bytes)), len)
            }
            Outcome::Apart(output) => self.apart(*output),
            Outcome::Fault(fault) => (Err(fault), 0),
        }
    }
}

impl<R> Decode<R> {
    #[cold]
    fn apart(self, output: OutputApart) -> (Result<R, Box<Fault>>, usize) {
        let len = output.len();
        let OutputApart { encoded, buffers } = output;
        let decoded = match self.form.buffers {
            BuffersIn::Blocks => caught(|| restore(buffers, || (self.large)(encoded))),
            BuffersIn::Output => Err(Box::new(read_as_bytes())),
        };
        (decoded, len)
    }
}

/// Returns the fault of an output that is read as bytes, and does not contain all of them.
#[cold]
pub(crate) fn read_as_bytes() -> Fault {
    Fault::Output("the worker has left out buffers of an output that is read as bytes".to_owned())
}

/// Runs a decoder. If it panics, that is the error of this task; the other tasks are not affected.
#[inline]
fn caught<R>(decode: impl FnOnce() -> Result<R, String>) -> Result<R, Box<Fault>> {
    guarded(decode)
        .unwrap_or_else(|message| Err(format!("decoding panicked: {message}")))
        .map_err(|reason| Box::new(Fault::Output(reason)))
}
