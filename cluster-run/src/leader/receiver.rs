//! [`Receiver`]: decodes the outcomes of a job, and takes them to its caller.

use std::marker::PhantomData;
use std::sync::Arc;

use invoker::facade;
use proc_pool::facade::guarded;
use proc_pool::{Fault, catch_panic};

use crate::messages::{Answer, Items, Numbers};
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

/// Takes the outcomes of a job to its caller. User code runs in these calls: nothing may be locked.
pub(super) trait Receiver: Send + Sync {
    /// Decodes the outcomes of an answer.
    fn decode(&self, answer: &Answer, items: &Items<'_>) -> Box<dyn Decoded>;

    /// Takes the fault of a task to the caller.
    fn fail(&self, index: u64, fault: Fault);
}

/// The outcomes of an answer.
pub(super) trait Decoded {
    /// Accepts the outcome with this number. No user code runs.
    ///
    /// # Errors
    /// Why it could not be decoded.
    fn accept(&mut self, at: usize) -> Result<(), String>;

    /// Takes those that were accepted to the caller, and drops the others. User code runs: nothing may be locked.
    fn deliver(self: Box<Self>);
}

/// Decodes outputs, and calls `deliver` with those of an answer.
pub(super) struct Decoder<R, F> {
    deliver: Arc<F>,
    outputs: PhantomData<fn() -> R>,
}

impl<R: Value, F: Fn(Vec<Run<R>>) + Send + Sync + 'static> Decoder<R, F> {
    pub(super) fn new(deliver: F) -> Self {
        Self {
            deliver: Arc::new(deliver),
            outputs: PhantomData,
        }
    }
}

impl<R: Value, F: Fn(Vec<Run<R>>) + Send + Sync + 'static> Receiver for Decoder<R, F> {
    fn decode(&self, answer: &Answer, items: &Items<'_>) -> Box<dyn Decoded> {
        let (first, all) = (answer.batch.first, &answer.outcomes);
        let (mut outputs, mut errors) = (Vec::with_capacity(all.len()), Vec::new());
        while outputs.len() < all.len() {
            // As a rule, there is no panic, and this is done once.
            let decoding = catch_panic(|| {
                while outputs.len() < all.len() {
                    let at = outputs.len();
                    let bytes = items.get(at);
                    let result = match all.is_fault(at) {
                        true => all.get(at).result(bytes),
                        false => Ok(Ok(bytes)),
                    };
                    match result.and_then(try_decode::<R>) {
                        Ok(output) => outputs.push(output),
                        Err(reason) => return Err(reason),
                    }
                }
                Ok(())
            });
            if let Err(reason) = decoding.unwrap_or_else(|panic| Err(panic.to_string())) {
                errors.push((outputs.len(), reason));
                // It is never delivered.
                outputs.push(Err(Box::new(Fault::Cancelled)));
            }
        }
        Box::new(DecodedAnswer {
            is_accepted: vec![false; outputs.len()],
            positions: all.positions().clone(),
            lengths: all.lengths.clone(),
            first,
            outputs,
            errors,
            deliver: self.deliver.clone(),
        })
    }

    fn fail(&self, index: u64, fault: Fault) {
        (self.deliver)(vec![Run::one(index, Err(Box::new(fault)), 0)]);
    }
}

struct DecodedAnswer<R, F> {
    /// The index of the batch's first task, and where the tasks of the outcomes are in the batch.
    first: u64,
    positions: Numbers,
    outputs: Vec<Output<R>>,
    /// The bytes of each.
    lengths: Numbers,
    /// Why those with these numbers could not be decoded, in ascending order.
    errors: Vec<(usize, String)>,
    is_accepted: Vec<bool>,
    deliver: Arc<F>,
}

impl<R, F: Fn(Vec<Run<R>>)> Decoded for DecodedAnswer<R, F> {
    fn accept(&mut self, at: usize) -> Result<(), String> {
        if let Ok(error) = self.errors.binary_search_by_key(&at, |(number, _)| *number) {
            return Err(self.errors[error].1.clone());
        }
        self.is_accepted[at] = true;
        Ok(())
    }

    fn deliver(self: Box<Self>) {
        let Self { first, outputs, .. } = *self;
        let index = |at| first + u64::from(self.positions.get(at));
        let (mut runs, mut rejected) = (Vec::<Run<R>>::new(), Vec::new());
        if !self.is_accepted.contains(&false) && self.positions.successive_from().is_some() {
            // The usual case.
            runs.push(Run {
                first: index(0),
                bytes: self.lengths.sum().unwrap_or(0),
                outputs,
            });
        } else {
            for (at, (output, is_accepted)) in outputs.into_iter().zip(self.is_accepted).enumerate() {
                if !is_accepted {
                    rejected.push(output);
                    continue;
                }
                let (index, bytes) = (index(at), self.lengths.get(at) as usize);
                match runs.last_mut() {
                    Some(run) if run.first + run.outputs.len() as u64 == index => {
                        run.outputs.push(output);
                        run.bytes += bytes;
                    }
                    _ => runs.push(Run::one(index, output, bytes)),
                }
            }
        }
        if !runs.is_empty() {
            (self.deliver)(runs);
        }
        // Each by itself: a second panic while the first one unwinds would end the process.
        for output in rejected {
            let _ = guarded(|| drop(output));
        }
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
    catch_panic(|| try_decode(result)).unwrap_or_else(|panic| Err(panic.to_string()))
}

fn try_decode<R: Value>(result: Result<&[u8], Fault>) -> Result<Output<R>, String> {
    match result.map(facade::decode_output) {
        Ok(output) => output.map(Ok).map_err(|error| error.to_string()),
        Err(fault) => Ok(Err(Box::new(fault))),
    }
}
