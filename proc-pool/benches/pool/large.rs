//! 100 MB there and back, against two memcpys into fresh segments.
//!
//! Bytes are copied twice by the pool, too. Values are copied twice more: the op gets one of its own, and so does the caller;
//! with serde a third time on each side, because it writes to a buffer. What that costs is the pool's, because the caller
//! waits for it.

use std::fmt;
use std::time::Instant;

use proc_pool::{BoxError, Builder, CallError, OutputBuf, PodVec, Service, WorkerContext, Workers};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use shm_buffers::{Backing, SegmentMut};

use crate::report::{Report, Target, span};
use crate::rounds::Samples;
use crate::{Effort, Failure, WORKERS};

const LARGE: usize = 100_000_000;

/// Gives back what it gets.
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

/// Outputs the beginning of a buffer, of the length that the task names.
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

/// Outputs of several sizes, each dropped before the next one is taken, against a copy of as many bytes within the leader.
fn outputs(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    const BYTES: usize = 400_000_000;
    report.heading("400 MB of outputs, of two workers");
    let pool = Builder::new()
        .workers(Workers::Count(WORKERS))
        .build_bytes::<Wide>(Vec::new())?;
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
            let begun = Instant::now();
            for _ in 0..count {
                std::hint::black_box(source[..len].to_vec());
            }
            floor.push(begun.elapsed().as_nanos() as f64);

            let begun = Instant::now();
            for output in pool.map_unordered(std::iter::repeat_n(task, count)) {
                if output?.len() != len {
                    return Err("an output of another length".into());
                }
            }
            ours.push(begun.elapsed().as_nanos() as f64);
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

/// A value that is bytes to its codec, rather than a sequence of numbers.
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

fn same(bytes: Bytes) -> Bytes {
    bytes
}

pub(crate) fn measure(effort: Effort, report: &mut Report) -> Result<(), Failure> {
    report.heading("A task of 100 MB there and back, its op gives it back");
    let builder = Builder::new().workers(Workers::Count(WORKERS));
    let bytes = builder.clone().build_bytes::<Echo>(Vec::new())?;
    let plain = builder
        .clone()
        .build_op_with_codecs(|bytes: Vec<u8>| bytes, PodVec, PodVec)?;
    let typed = builder.build_op(same)?;
    let task: Vec<u8> = (0..LARGE).map(|n| n as u8).collect();
    let names = ["bytes", "plain old data", "serde and postcard"];
    let (mut floor, mut ours) = (Samples::new(), [const { Samples::new() }; 3]);
    for _ in 0..effort.repeats {
        let begun = Instant::now();
        let mut there = SegmentMut::create(&Backing::Auto, LARGE)?;
        there.copy_at(0, &task);
        let mut back = SegmentMut::create(&Backing::Auto, LARGE)?;
        back.copy_at(0, &there);
        floor.push(begun.elapsed().as_nanos() as f64);
        drop((there, back));

        let begun = Instant::now();
        let output = bytes.map_unordered([&task]).next().ok_or("no output")??;
        ours[0].push(begun.elapsed().as_nanos() as f64);
        check(&output, &task)?;
        drop(output);

        let value = task.clone();
        let begun = Instant::now();
        let output = plain.map_unordered([value]).next().ok_or("no output")??;
        ours[1].push(begun.elapsed().as_nanos() as f64);
        check(&output, &task)?;
        drop(output);

        let value = Bytes(task.clone());
        let begun = Instant::now();
        let output = typed.map_unordered([value]).next().ok_or("no output")??;
        ours[2].push(begun.elapsed().as_nanos() as f64);
        check(&output.0, &task)?;
    }
    // Values are for the record: theirs are more than two copies by nature.
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
        false => Err("what came back is not what was sent".into()),
    }
}
