//! The format of a journal: a prologue, and blocks that are only appended.
//!
//! ```text
//! prologue   magic [8], version u32, process id of the last leader u32
//! block      marker [4], length of the payload u64, XXH3 of the payload u64 (seed: the block's position in the file), payload
//! payload    1, identity of the job (JSON); the first block
//!            2, varints: synced, run, workers, first task; then groups
//! group      varints: (tasks << 2 | one length << 1 | fault), tasks since the group before; the length of the outputs, or of each;
//!            hash of the tasks u64; the encoded outputs, or the text of the fault
//! ```
//!
//! Numbers are little-endian, varints LEB128. `synced` is the length of the file that was on the disk when the block was written. So a
//! reader can distinguish a tail that was lost with the power (after it) from damage (before it). The seed makes a block valid at its own
//! position only: outputs that contain a journal are not mistaken for blocks.
//!
//! Tasks whose outputs are small share a hash, up to [`MAX_GROUP`], so that the file has few more bytes than the outputs.

use std::ops::Range;

use crate::hash::{hash_at, hash_of_tasks};

pub(crate) const MAGIC: [u8; 8] = *b"\xc9invjrn\n";
pub(crate) const VERSION: u32 = 1;
/// The position of the process id of the leader.
pub(crate) const PID_AT: u64 = 12;
/// Bytes before the first block.
pub(crate) const PROLOGUE: usize = 16;
pub(crate) const MARKER: [u8; 4] = *b"\xf5JB\n";
/// Bytes of a block before its payload.
pub(crate) const BLOCK_HEAD: usize = 20;
/// A block with this many bytes is complete.
const BLOCK_TARGET: usize = 256 << 10;
/// The most tasks that share a hash.
pub(crate) const MAX_GROUP: usize = 128;

const IDENTITY: u8 = 1;
const OUTPUTS: u8 = 2;

/// The start of a file: the prologue, and the block with the identity of the job.
pub(crate) fn first_bytes(identity: &[u8], pid: u32) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&pid.to_le_bytes());
    push_block(&mut bytes, 0, |payload| {
        payload.push(IDENTITY);
        payload.extend_from_slice(identity);
    });
    bytes
}

/// Appends a block to bytes whose first one is at `position` of the file.
fn push_block(bytes: &mut Vec<u8>, position: u64, write: impl FnOnce(&mut Vec<u8>)) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; BLOCK_HEAD]);
    write(bytes);
    let (head, payload) = bytes[start..].split_at_mut(BLOCK_HEAD);
    head[..4].copy_from_slice(&MARKER);
    head[4..12].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    head[12..].copy_from_slice(&hash_at(position + start as u64, payload).to_le_bytes());
}

/// Appends a block of outputs that was read before, `rest` of its payload. All of the file before it is on the disk.
pub(crate) fn push_copy(bytes: &mut Vec<u8>, position: u64, rest: &[u8]) {
    push_block(bytes, position, |payload| {
        payload.push(OUTPUTS);
        push_varint(payload, position);
        payload.extend_from_slice(rest);
    });
}

/// Appends a block with any payload.
#[cfg(any(fuzzing, test))]
pub(crate) fn push_any(bytes: &mut Vec<u8>, position: u64, payload: &[u8]) {
    push_block(bytes, position, |into| into.extend_from_slice(payload));
}

/// A finished task, before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) run: u64,
    /// The number of workers for which the run's tasks were cut into chunks.
    pub(crate) workers: u64,
    pub(crate) task: u64,
    pub(crate) hash: u64,
    /// The bytes of the output are at this position of a buffer.
    pub(crate) start: usize,
    pub(crate) len: usize,
    pub(crate) kind: Kind,
}

/// The kind of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Output,
    /// The output of a task that has a record already, which stays alone: no group overlaps another one.
    Again,
    /// The text of a fault.
    Fault,
}

impl Record {
    fn is_followed_by(&self, next: &Self) -> bool {
        self.task.checked_add(1) == Some(next.task) && [self.kind, next.kind] == [Kind::Output; 2]
    }
}

/// Returns how many tasks share a hash, for outputs with a mean of `mean` bytes, so that the journal has at most a sixth more bytes
/// than they.
fn group_size(mean: f64) -> usize {
    // Head, gap and hash of a group, and the varints of its lengths.
    const GROUP: f64 = 12.0;
    const EACH: f64 = 1.0;
    let allowed = (0.16 * mean - EACH).max(GROUP / MAX_GROUP as f64);
    ((GROUP / allowed).ceil() as usize).clamp(1, MAX_GROUP)
}

/// Appends the records as blocks to `into`, whose first byte will be at `position` of the file. `synced` bytes of it are on the disk.
pub(crate) fn write_blocks(
    records: &mut [Record],
    outputs: &[u8],
    synced: u64,
    position: u64,
    into: &mut Vec<u8>,
) {
    // Stable, so that the last record of a task stays the last one.
    records.sort_by_key(|record| (record.run, record.task));
    let mut rest = &*records;
    while let Some(first) = rest.first() {
        let of_run = rest.partition_point(|record| record.run == first.run);
        let run;
        (run, rest) = rest.split_at(of_run);
        let bytes: usize = run.iter().map(|record| record.len).sum();
        let most = group_size(bytes as f64 / run.len() as f64);
        let mut run = run;
        while let Some(first) = run.first() {
            push_block(into, position, |payload| {
                let start = payload.len();
                payload.push(OUTPUTS);
                for number in [synced, first.run, first.workers, first.task] {
                    push_varint(payload, number);
                }
                let mut next = first.task;
                while let Some(first) = run.first()
                    && payload.len() - start < BLOCK_TARGET
                {
                    let following = run.windows(2).take_while(|pair| pair[0].is_followed_by(&pair[1]));
                    let group;
                    (group, run) = run.split_at(1 + following.take(most - 1).count());
                    // A record of the same task may have come before.
                    write_group(group, outputs, first.task.wrapping_sub(next), payload);
                    next = first.task + group.len() as u64;
                }
            });
        }
    }
}

fn write_group(group: &[Record], outputs: &[u8], gap: u64, into: &mut Vec<u8>) {
    let is_fault = group[0].kind == Kind::Fault;
    let has_one_length = group.iter().all(|record| record.len == group[0].len);
    let head = (group.len() as u64) << 2 | u64::from(has_one_length) << 1 | u64::from(is_fault);
    push_varint(into, head);
    push_varint(into, gap);
    let lengths = if has_one_length { &group[..1] } else { group };
    lengths
        .iter()
        .for_each(|record| push_varint(into, record.len as u64));
    let hashes: Vec<u64> = group.iter().map(|record| record.hash).collect();
    into.extend_from_slice(&hash_of_tasks(&hashes).to_le_bytes());
    for Record { start, len, .. } in group {
        into.extend_from_slice(&outputs[*start..*start + *len]);
    }
}

fn push_varint(into: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        into.push(number as u8 | 0x80);
        number >>= 7;
    }
    into.push(number as u8);
}

/// A block is invalid although its checksum is right: another program wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// The contents of a block.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Payload<'a> {
    /// The identity of the job, as JSON.
    Identity(&'a [u8]),
    Outputs(OutputsBlock),
}

/// Finished tasks of one run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct OutputsBlock {
    /// The length of the file that was on the disk when the block was written.
    pub(crate) synced: u64,
    pub(crate) run: u64,
    pub(crate) workers: u64,
    pub(crate) groups: Vec<Group>,
    /// What follows `synced` in the payload starts here.
    pub(crate) rest: usize,
}

/// Consecutive tasks that share a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) first: u64,
    pub(crate) tasks: usize,
    pub(crate) hash: u64,
    pub(crate) is_fault: bool,
    /// Lengths of the outputs; one if all are equal.
    pub(crate) lengths: Vec<usize>,
    /// All of the group, as a range of the payload.
    pub(crate) whole: Range<usize>,
    /// The outputs, as a range of the payload.
    pub(crate) bytes: Range<usize>,
}

impl Group {
    /// Parses the bytes of [`whole`](Self::whole). The group has its own number of the first task, because the bytes have none.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        Parser { bytes, position: 0 }.group(0)
    }

    /// Returns where the output at a position of the group is, from the start of [`bytes`](Self::bytes).
    pub(crate) fn range(&self, position: usize) -> Range<usize> {
        match *self.lengths {
            [len] => position * len..(position + 1) * len,
            ref lengths => {
                let start = lengths[..position].iter().sum();
                start..start + lengths[position]
            }
        }
    }
}

impl<'a> Payload<'a> {
    pub(crate) fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        let mut parser = Parser {
            bytes: payload,
            position: 0,
        };
        match parser.take(1)? {
            [IDENTITY] => Ok(Self::Identity(&payload[1..])),
            [OUTPUTS] => parser.outputs().map(Self::Outputs),
            _ => Err(Malformed),
        }
    }
}

struct Parser<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Parser<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let end = self.position.checked_add(len).ok_or(Malformed)?;
        let taken = self.bytes.get(self.position..end).ok_or(Malformed)?;
        self.position = end;
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return Err(Malformed);
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    fn length(&mut self) -> Result<usize, Malformed> {
        self.varint()?.try_into().map_err(|_| Malformed)
    }

    fn outputs(&mut self) -> Result<OutputsBlock, Malformed> {
        let synced = self.varint()?;
        let rest = self.position;
        let (run, workers) = (self.varint()?, self.varint()?);
        let mut next = self.varint()?;
        let mut groups = Vec::new();
        while self.position < self.bytes.len() {
            let group = self.group(next)?;
            next = group.first.checked_add(group.tasks as u64).ok_or(Malformed)?;
            groups.push(group);
        }
        Ok(OutputsBlock {
            synced,
            run,
            workers,
            groups,
            rest,
        })
    }

    fn group(&mut self, next: u64) -> Result<Group, Malformed> {
        let begin = self.position;
        let head = self.varint()?;
        let gap = self.varint()?;
        let tasks = usize::try_from(head >> 2).map_err(|_| Malformed)?;
        let is_fault = head & 1 != 0;
        if !(1..=MAX_GROUP).contains(&tasks) || (is_fault && tasks > 1) {
            return Err(Malformed);
        }
        let lengths: Vec<usize> = match head & 2 {
            0 => (0..tasks).map(|_| self.length()).collect::<Result<_, _>>()?,
            _ => vec![self.length()?],
        };
        let hash = self.take(8)?.try_into().map_err(|_| Malformed)?;
        let all = match *lengths {
            [len] => len.checked_mul(tasks),
            ref lengths => lengths.iter().try_fold(0_usize, |sum, len| sum.checked_add(*len)),
        };
        let start = self.position;
        self.take(all.ok_or(Malformed)?)?;
        Ok(Group {
            // The gap of a second record of the same task is -1.
            first: next.wrapping_add(gap),
            tasks,
            hash: u64::from_le_bytes(hash),
            is_fault,
            lengths,
            whole: begin..self.position,
            bytes: start..self.position,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(task: u64, len: usize, start: usize) -> Record {
        Record {
            run: 0,
            workers: 2,
            task,
            hash: task ^ 0x5555,
            start,
            len,
            kind: Kind::Output,
        }
    }

    /// A run, a task, and its output.
    type Read = (u64, u64, Kind, Vec<u8>);

    /// Writes records and reads them back. Returns the bytes of the file, too.
    fn round_trip(mut records: Vec<Record>, outputs: &[u8]) -> (usize, Vec<Read>) {
        let mut bytes = Vec::new();
        write_blocks(&mut records, outputs, 9, 100, &mut bytes);
        let (mut at, mut read) = (0, Vec::new());
        while at < bytes.len() {
            let len = u64::from_le_bytes(bytes[at + 4..at + 12].try_into().expect("8")) as usize;
            let payload = &bytes[at + BLOCK_HEAD..at + BLOCK_HEAD + len];
            assert_eq!(
                u64::from_le_bytes(bytes[at + 12..at + 20].try_into().expect("8")),
                hash_at(100 + at as u64, payload)
            );
            let Ok(Payload::Outputs(block)) = Payload::parse(payload) else {
                panic!("not a block of outputs")
            };
            assert_eq!(block.synced, 9);
            for group in block.groups {
                let kind = if group.is_fault { Kind::Fault } else { Kind::Output };
                for position in 0..group.tasks {
                    let output = payload[group.bytes.clone()][group.range(position)].to_vec();
                    read.push((block.run, group.first + position as u64, kind, output));
                }
            }
            at += BLOCK_HEAD + len;
        }
        (bytes.len(), read)
    }

    #[test]
    fn records_are_read_back_in_order_of_their_tasks() {
        let outputs: Vec<u8> = (0..200).collect();
        let mut records = vec![record(5, 3, 10), record(4, 0, 0), record(900, 100, 50)];
        records.push(Record {
            kind: Kind::Fault,
            ..record(6, 2, 7)
        });
        records.push(Record {
            kind: Kind::Again,
            ..record(5, 4, 20)
        });
        records.push(Record {
            run: 7,
            ..record(u64::MAX - 1, 1, 1)
        });
        let (_, read) = round_trip(records, &outputs);
        let expected = [
            (0, 4, Kind::Output, 0..0),
            (0, 5, Kind::Output, 10..13),
            (0, 5, Kind::Output, 20..24),
            (0, 6, Kind::Fault, 7..9),
            (0, 900, Kind::Output, 50..150),
            (7, u64::MAX - 1, Kind::Output, 1..2),
        ];
        assert_eq!(
            read,
            expected.map(|(run, task, kind, range)| (run, task, kind, outputs[range].to_vec()))
        );
    }

    #[test]
    fn the_file_has_at_most_a_fifth_more_bytes_than_outputs_of_one_length() {
        for len in [1, 2, 4, 8, 20, 41, 100, 1000] {
            let records: Vec<Record> = (0..20_000).map(|task| record(task, len, 0)).collect();
            let (bytes, read) = round_trip(records, &vec![3; len]);
            assert_eq!(read.len(), 20_000);
            let ratio = bytes as f64 / (20_000 * len) as f64;
            assert!(ratio <= 1.2, "{len}: {ratio}");
        }
        for len in [8, 12, 30, 60, 200] {
            let lengths = (0..20_000).map(|task| record(task, len - 1 + task as usize % 3, 0));
            let (bytes, _) = round_trip(lengths.collect(), &vec![3; len + 2]);
            let ratio = bytes as f64 / (20_000 * len) as f64;
            assert!(ratio <= 1.2, "about {len}: {ratio}");
        }
    }

    #[test]
    fn malformed_payloads_are_errors() {
        let block = |numbers: &[u64], rest: &[u8]| {
            let mut payload = vec![OUTPUTS];
            numbers
                .iter()
                .for_each(|number| push_varint(&mut payload, *number));
            payload.extend_from_slice(rest);
            Payload::parse(&payload).map(|_| ())
        };
        let hash = [0; 8];
        assert_eq!(block(&[0, 0, 0, 0, 1 << 2 | 2, 0, 0], &hash), Ok(()));
        for numbers in [
            // No task, too many, and several with one fault.
            &[0, 0, 0, 0, 2, 0, 0][..],
            &[0, 0, 0, 0, 129 << 2 | 2, 0, 0],
            &[0, 0, 0, 0, 2 << 2 | 3, 0, 0],
            // Lengths beyond the end, and beyond all numbers.
            &[0, 0, 0, 0, 1 << 2 | 2, 0, 1],
            &[0, 0, 0, 0, 2 << 2 | 2, 0, u64::MAX / 2 + 1],
            &[0, 0, 0, 0, 2 << 2, 0, u64::MAX, u64::MAX],
            // Tasks beyond the last number.
            &[0, 0, 0, u64::MAX, 1 << 2 | 2, 0, 0],
        ] {
            assert_eq!(block(numbers, &hash), Err(Malformed), "{numbers:?}");
        }
        assert_eq!(Payload::parse(&[]).map(|_| ()), Err(Malformed));
        assert_eq!(Payload::parse(&[9, 1]).map(|_| ()), Err(Malformed));
        assert_eq!(Payload::parse(&[OUTPUTS, 0xff]).map(|_| ()), Err(Malformed));
        let longest = [0xff; 9].into_iter().chain([2]);
        let bytes: Vec<u8> = std::iter::once(OUTPUTS).chain(longest).collect();
        assert_eq!(Payload::parse(&bytes).map(|_| ()), Err(Malformed), "66 bits");
    }
}
