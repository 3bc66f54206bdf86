//! A worker whose payloads take several pieces each, and which fails or stops in the middle of them.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use proc_pool::{BoxError, CallError, OutputBuf, Service, WorkerContext};
use rustix::process::Signal;

use super::faulty_worker::rings;
use super::{ALL_FAULTS, Fault, PHASES, Phase};
use crate::support::fault_injection::{self, Trap};
use crate::support::{arena, shared_words, signal};

/// The length of a payload of six pieces.
pub(super) const LARGE: usize = 6 << 20;
/// The number of pieces that are sent before the first of them is taken.
const PIECES: u64 = 2;
/// A position in the middle of the second piece.
const SECOND_PIECE: usize = (1 << 20) + (512 << 10);
/// A position in the middle of the third piece.
const THIRD_PIECE: usize = (2 << 20) + (512 << 10);
const PAGE: usize = 4096;

/// Where a worker fails, and how.
pub(super) type Injection = (Phase, Fault);

/// A task: its number, what its worker injects, and the number of bytes of its own filler and of its output's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    pub(super) number: u64,
    pub(super) injection: Option<Injection>,
    pub(super) filler: usize,
    pub(super) output: usize,
}

const HEADER: usize = 4 * size_of::<u64>();

impl Task {
    /// Returns the bytes of a task: numbers, then filler.
    pub(super) fn encode(self) -> Vec<u8> {
        let injection = self.injection.map_or(0, |(phase, fault)| {
            let phase = PHASES.iter().position(|it| *it == phase);
            let fault = ALL_FAULTS.iter().position(|it| *it == fault);
            1 + phase.zip(fault).map_or(0, |(phase, fault)| phase * 256 + fault)
        });
        let numbers = [
            self.number,
            injection as u64,
            self.filler as u64,
            self.output as u64,
        ];
        let mut bytes = Vec::with_capacity(HEADER + self.filler);
        bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        bytes.resize(HEADER + self.filler, self.number as u8);
        bytes
    }

    /// Parses such bytes; `None` if they are not as they were.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, filler) = bytes.split_at_checked(HEADER)?;
        let (numbers, _) = header.as_chunks();
        let &[number, injection, len, output] = numbers else {
            return None;
        };
        let [number, injection, len, output] =
            [number, injection, len, output].map(|it| u64::from_le_bytes(it) as usize);
        let injection = injection
            .checked_sub(1)
            .map(|it| (PHASES[it / 256], ALL_FAULTS[it % 256]));
        (filler == vec![number as u8; len]).then_some(Self {
            number: number as u64,
            injection,
            filler: len,
            output,
        })
    }

    /// Returns the output of this task.
    pub(super) fn expected(self) -> Vec<u8> {
        let mut output = vec![self.number as u8; self.output];
        output.extend(self.number.to_le_bytes());
        output
    }
}

/// Outputs [`Task::expected`].
pub(super) struct PayloadWorker;

impl Service for PayloadWorker {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, BoxError> {
        Ok(Self)
    }

    fn call(&mut self, bytes: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        let task = Task::decode(bytes).ok_or(CallError::Task("it has changed".to_owned()))?;
        output.put(&task.expected());
        if let Some((phase, fault)) = task.injection {
            inject(phase, fault, output);
        }
        Ok(())
    }
}

fn inject(phase: Phase, fault: Fault, output: &OutputBuf) {
    let start = output.as_ptr().addr();
    let page_at = |offset: usize| start + offset..start + offset + 2 * PAGE;
    let Some(crash) = fault.crash() else {
        // A process without files could not even find its arenas, which takes a file.
        return fault.exhaust();
    };
    match phase {
        // All its tasks are sent, and the second piece of the next one has not been read.
        Phase::ReadPiece => {
            wait_for_pieces();
            let second = arena(0).start + SECOND_PIECE;
            let second = fault_injection::in_region(second..second + 2 * PAGE);
            fault_injection::trap(second, Trap::Crash(crash));
        }
        // The third piece of the output is being filled.
        Phase::WritePiece => fault_injection::trap(page_at(THIRD_PIECE), Trap::Crash(crash)),
        // The last piece is filled, and its frame is not written.
        Phase::PublishPiece => {
            let last = page_at(output.len() - 2 * PAGE);
            let [_, outcomes, _] = rings();
            // From the page on in which the ring begins: its first frames lie there.
            let outcomes = outcomes.start / PAGE * PAGE..outcomes.end;
            let next = Trap::Then(fault_injection::in_region(outcomes), crash);
            fault_injection::trap(last, next);
        }
        Phase::HalfOutput => fault_injection::trap(page_at(THIRD_PIECE), Trap::Stop),
        Phase::HalfTask => signal(std::process::id(), Signal::STOP),
        _ => unreachable!("no payloads of several pieces"),
    }
}

/// Waits until all pieces of the next task are sent that can be, or until no such task seems to come.
fn wait_for_pieces() {
    let published = || shared_words()[1].load(Ordering::Acquire);
    let (before, give_up) = (published(), Instant::now() + Duration::from_millis(300));
    while published() < before + PIECES && Instant::now() < give_up {
        std::thread::sleep(Duration::from_millis(1));
    }
}
