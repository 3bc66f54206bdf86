//! Large payloads. A task of 100 MB whose op returns it; floor: two memcpys into new segments. And 400 MB of outputs in
//! several sizes; floor: a copy of the same bytes within the leader.
//!
//! The pool copies bytes twice, too. It copies values twice more, because the op and the caller each own one; with serde
//! it copies a third time on each side, because serde writes to a buffer. All copies count, because the caller waits for
//! them.

use std::fmt;
use std::time::Instant;

use proc_pool::{
    BoxError, Builder, CallError, EntryPoint, OutputBuf, PodVec, Service, WorkerContext, Workers,
};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shm_buffers::{Backing, SegmentMut};

use crate::report::{Report, Target, span};
use crate::rounds::Samples;
use crate::{Effort, Failure, WORKERS};

const LARGE: usize = 100_000_000;

/// Outputs its task.
pub(crate) struct Echo;

impl Service for Echo {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        output.put(task);
        Ok(())
    }
}

/// Outputs the beginning of a buffer; the task is its length.
struct Wide(Vec<u8>);

impl Service for Wide {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, BoxError> {
        Ok(Self(vec![7; LARGE]))
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        let len = task.try_into().map(u64::from_le_bytes);
        let len = len.map_err(|_| CallError::Task("no length".to_owned()))? as usize;
        output.put(&self.0[..len]);
        Ok(())
    }
}

/// Measures outputs of several sizes, each dropped before the next one is taken.
fn outputs(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    const BYTES: usize = 400_000_000;
    report.heading("400 MB of outputs, of two workers");
    let pool = Builder::new()
        .workers(Workers::Count(WORKERS))
        .build(EntryPoint::service::<Wide>(), &[])?;
    let source = vec![7; LARGE];
    for (name, len) in [
        ("128 KiB each", 128 << 10),
        ("1 MiB each", 1 << 20),
        ("8 MiB each", 8 << 20),
        ("100 MB each", LARGE),
    ] {
        let count = BYTES / len;
        let task = (len as u64).to_le_bytes();
        let (mut floor, mut ours) = (Samples::new(), Samples::new());
        for _ in 0..effort.repeats {
            let started = Instant::now();
            for _ in 0..count {
                std::hint::black_box(source[..len].to_vec());
            }
            floor.push(started.elapsed().as_nanos() as f64);

            let started = Instant::now();
            for output in pool.map_unordered(std::iter::repeat_n(task, count)) {
                if output?.len() != len {
                    return Err("an output has another length".into());
                }
            }
            ours.push(started.elapsed().as_nanos() as f64);
        }
        report.row(
            name,
            span(ours.median()),
            ("copied once", span(floor.median())),
            &floor.over(&ours),
            Target::None,
        );
    }
    Ok(())
}

/// Bytes that serde encodes as bytes, not as a sequence of numbers.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Copied;
        impl Visitor<'_> for Copied {
            type Value = Bytes;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                Ok(Bytes(bytes.to_vec()))
            }
        }
        deserializer.deserialize_bytes(Copied)
    }
}

fn identity(bytes: Bytes) -> Bytes {
    bytes
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("A task of 100 MB there and back, its op gives it back");
    let builder = Builder::new().workers(Workers::Count(WORKERS));
    let bytes = builder.clone().build(EntryPoint::service::<Echo>(), &[])?;
    let plain = builder
        .clone()
        .build(EntryPoint::op(|bytes: Vec<u8>| bytes).codecs(PodVec, PodVec), &())?;
    let typed = builder.build_op(identity)?;
    let task: Vec<u8> = (0..LARGE).map(|n| n as u8).collect();
    let names = ["bytes", "plain old data", "serde and postcard"];
    let (mut floor, mut ours) = (Samples::new(), [const { Samples::new() }; 3]);
    for _ in 0..effort.repeats {
        let started = Instant::now();
        let mut task_copy = SegmentMut::create(&Backing::Auto, LARGE)?;
        task_copy.copy_at(0, &task);
        let mut output_copy = SegmentMut::create(&Backing::Auto, LARGE)?;
        output_copy.copy_at(0, &task_copy);
        floor.push(started.elapsed().as_nanos() as f64);
        drop((task_copy, output_copy));

        let started = Instant::now();
        let output = bytes.map_unordered([&task]).next().ok_or("no output")??;
        ours[0].push(started.elapsed().as_nanos() as f64);
        check(&output, &task)?;
        drop(output);

        let value = task.clone();
        let started = Instant::now();
        let output = plain.map_unordered([value]).next().ok_or("no output")??;
        ours[1].push(started.elapsed().as_nanos() as f64);
        check(&output, &task)?;
        drop(output);

        let value = Bytes(task.clone());
        let started = Instant::now();
        let output = typed.map_unordered([value]).next().ok_or("no output")??;
        ours[2].push(started.elapsed().as_nanos() as f64);
        check(&output.0, &task)?;
    }
    // Values have no target: they need more than two copies.
    let targets = [Target::AtLeast(0.5), Target::None, Target::None];
    for ((name, ours), target) in names.iter().zip(&ours).zip(targets) {
        report.row(
            name,
            span(ours.median()),
            ("two memcpys", span(floor.median())),
            &floor.over(ours),
            target,
        );
    }
    outputs(effort, report)
}

fn check(output: &[u8], task: &[u8]) -> Result<(), Failure> {
    match output == task {
        true => Ok(()),
        false => Err("the output differs from the task".into()),
    }
}
