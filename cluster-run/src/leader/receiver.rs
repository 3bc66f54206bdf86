//! [`Receiver`]: decodes the outcomes of a job, and takes them to its caller.

use invoker::facade;
use proc_pool::Fault;

use crate::value::Value;

/// The output of a task, or its fault: boxed, because it is large, and most tasks have an output.
pub(super) type Output<R> = Result<R, Box<Fault>>;

/// Outputs of successive tasks.
pub(super) struct Run<R> {
    /// The index of the first task.
    pub(super) first: u64,
    pub(super) outputs: Vec<Output<R>>,
    /// The bytes of their encodings.
    pub(super) bytes: usize,
}

/// Takes the outcomes of a job to its caller.
pub(super) trait Receiver: Send {
    /// Takes the encoded output of a task, or its fault. Fails if the output cannot be decoded.
    fn put(&mut self, index: u64, result: Result<&[u8], Fault>) -> Result<(), String>;

    /// Ends a message.
    fn deliver(&mut self);
}

/// Decodes outputs, and calls `deliver` with those of a message. `deliver` takes them.
pub(super) struct Decoder<R, F> {
    decoded: Vec<Run<R>>,
    deliver: F,
}

impl<R: Value, F: FnMut(&mut Vec<Run<R>>) + Send> Decoder<R, F> {
    pub(super) fn new(deliver: F) -> Self {
        let decoded = Vec::new();
        Self { decoded, deliver }
    }
}

impl<R: Value, F: FnMut(&mut Vec<Run<R>>) + Send> Receiver for Decoder<R, F> {
    fn put(&mut self, index: u64, result: Result<&[u8], Fault>) -> Result<(), String> {
        let bytes = result.as_ref().map_or(0, |bytes| bytes.len());
        let output = decode(result)?;
        match self.decoded.last_mut() {
            Some(run) if run.first + run.outputs.len() as u64 == index => {
                run.outputs.push(output);
                run.bytes += bytes;
            }
            _ => self.decoded.push(Run::one(index, output, bytes)),
        }
        Ok(())
    }

    fn deliver(&mut self) {
        (self.deliver)(&mut self.decoded);
    }
}

impl<R> Run<R> {
    /// The output of one task.
    pub(super) fn one(index: u64, output: Output<R>, bytes: usize) -> Self {
        Self {
            first: index,
            outputs: vec![output],
            bytes,
        }
    }
}

/// Decodes an output. Fails if it cannot be decoded.
pub(super) fn decode<R: Value>(result: Result<&[u8], Fault>) -> Result<Output<R>, String> {
    match result.map(facade::decode_output) {
        Ok(output) => output.map(Ok).map_err(|error| error.to_string()),
        Err(fault) => Ok(Err(Box::new(fault))),
    }
}
