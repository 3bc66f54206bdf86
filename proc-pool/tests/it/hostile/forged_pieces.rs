//! Workers that forge the pieces of large outputs, and the counts by which both sides share the arenas.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proc_pool::Fault;
use serde::{Deserialize, Serialize};
use shm_buffers::Buffer;

use super::{repeat_attacks, seconds};
use crate::support::{
    ARENA, EVENTS, IsolatedTest, add_write_seal, builder, connection, hang, is_isolated, open_files,
    punch_holes, random, shared_file, shared_words, test_name, watchdog,
};

/// The data that a worker forges instead of sending its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Forgery {
    /// Pieces at any offset, of any length, of a payload of any length.
    RandomPieces,
    /// A sequence of consecutive pieces that has no end.
    EndlessPieces,
    /// The same, with one byte in each piece.
    EndlessBytes,
    /// The first piece of a payload of the largest size, and nothing more.
    FirstPieceOnly,
    /// A piece that does not continue the one before.
    InconsistentPiece,
    /// A small output between the pieces of a large one.
    OutputBetweenPieces,
    /// Whole outputs that are overwritten while the leader reads them.
    OverwrittenPieces,
    /// A wrong count of the pieces of outputs that the leader must take, or release, before it wakes the worker.
    WantedCount,
    /// A wrong count of the pieces of tasks that the worker reads in place.
    InPlaceCount,
    /// Pieces of tasks are taken and released that were not sent, or twice, or the words say nothing.
    RandomEvents,
    /// Outputs of which all pieces lie in the same bytes, or overlap.
    OverlappingPieces,
    /// The pieces of outputs in another order.
    ShuffledPieces,
    /// Pieces of tasks are released twice.
    ReleasedTwice,
    /// Other sizes and seals of the shared memory, all of which the system must refuse.
    ResizedMemory,
    /// Blocks that are buffers of an output: announced or not, at any offset, of any length.
    RandomBlocks,
    /// Buffers of one output that have no end.
    EndlessBlocks,
    /// Buffers of outputs that are overwritten while the leader holds them.
    OverwrittenBlocks,
    /// An output, or a recalled task, in place of a buffer that was announced.
    MissingBlocks,
    /// For a moment, the pages of the arenas are returned to the system again and again.
    PunchedHoles,
}

const FORGERIES: [Forgery; 19] = [
    Forgery::RandomPieces,
    Forgery::EndlessPieces,
    Forgery::EndlessBytes,
    Forgery::FirstPieceOnly,
    Forgery::InconsistentPiece,
    Forgery::OutputBetweenPieces,
    Forgery::OverwrittenPieces,
    Forgery::WantedCount,
    Forgery::InPlaceCount,
    Forgery::RandomEvents,
    Forgery::OverlappingPieces,
    Forgery::ShuffledPieces,
    Forgery::ReleasedTwice,
    Forgery::ResizedMemory,
    Forgery::RandomBlocks,
    Forgery::EndlessBlocks,
    Forgery::OverwrittenBlocks,
    Forgery::MissingBlocks,
    Forgery::PunchedHoles,
];

/// The limit on an output in these tests.
const MAX_OUTPUT: u64 = 64 << 20;
/// The part of an arena, in words, that a worker overwrites.
const OVERWRITTEN: usize = (2 << 20) / 8;
const RING: usize = 256 << 10;
/// The number of words at the beginning of a ring: positions and marks, each in a pair of cache lines.
const HEADS: usize = 64;
/// The number of words of a ring.
const WORDS: usize = HEADS + RING / 8;
/// The worker's slots for the number of output pieces that it wants to be taken, and to be released.
const WANTED_TAKEN: usize = 3 * WORDS + 5;
const WANTED_RELEASED: usize = WANTED_TAKEN + 1;

/// The worker's ring of outcomes, written without the ring's own code.
struct Outcomes(&'static [AtomicU64]);

impl Outcomes {
    fn new() -> Self {
        Self(&shared_words()[WORDS..2 * WORDS])
    }

    /// Writes a frame; returns `false` if the ring is full.
    fn push(&self, frame: &[u8]) -> bool {
        let (tail, head) = (
            self.0[0].load(Ordering::Relaxed),
            self.0[16].load(Ordering::Relaxed),
        );
        let words = 1 + frame.len().div_ceil(8) as u64;
        let capacity = RING as u64 / 8;
        if tail.wrapping_sub(head).saturating_add(words) > capacity {
            return false;
        }
        let len = frame.len() as u64;
        let put = |at: u64, word: u64| {
            self.0[HEADS + ((tail + at) % capacity) as usize].store(word, Ordering::Relaxed);
        };
        put(0, len | u64::from(!(len as u32)) << 32);
        for (at, bytes) in (1..).zip(frame.chunks(8)) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            put(at, u64::from_le_bytes(word));
        }
        self.0[0].store(tail + words, Ordering::Release);
        self.0[1].fetch_add(1, Ordering::Release);
        true
    }

    /// Announces a piece: its offset in the arena, its length, and how many bytes of the payload follow it.
    fn push_piece(&self, offset: u64, len: u64, left: u64) -> bool {
        let numbers = [offset, len, left].map(u64::to_le_bytes);
        self.push(&[&[1][..], &numbers.concat()].concat())
    }

    /// Announces this number of buffers of an output.
    fn push_announcement(&self, buffers: u64) -> bool {
        self.push(&[&[7][..], &buffers.to_le_bytes()].concat())
    }

    /// Sends a buffer that is a block.
    fn push_block(&self, offset: u64, len: u64) -> bool {
        let numbers = [offset, len, 0].map(u64::to_le_bytes);
        self.push(&[&[8][..], &numbers.concat()].concat())
    }
}

/// The queue of events of the worker as the reader of large tasks.
fn task_events() -> &'static [AtomicU64] {
    let words = shared_words();
    &words[words.len() - 2 * (EVENTS + ARENA / 8)..][16..EVENTS]
}

fn wake_leader() {
    connection::send(connection::to_leader(), b"!");
}

/// Forges this. Returns only if another thread continues the forgery; then the op returns its output as usual.
fn forge(forgery: Forgery, seed: u64) {
    let outcomes = Outcomes::new();
    let words = shared_words();
    let mut random = random(seed | 1);
    match forgery {
        Forgery::RandomPieces => {
            for _ in 0..1000 {
                let mut number = || match random() % 3 {
                    0 => random() >> (random() % 64),
                    1 => (random() % ARENA as u64) & !127,
                    _ => random() % 5000,
                };
                outcomes.push_piece(number(), number(), number());
                wake_leader();
            }
        }
        Forgery::EndlessPieces | Forgery::EndlessBytes => {
            let len = if forgery == Forgery::EndlessPieces {
                512 << 10
            } else {
                1
            };
            let mut left = MAX_OUTPUT;
            loop {
                left -= len;
                while !outcomes.push_piece((random() % 16) * (512 << 10), len, left.max(1)) {
                    wake_leader();
                    std::thread::yield_now();
                }
                left = left.max(len + 1);
            }
        }
        Forgery::FirstPieceOnly => drop(outcomes.push_piece(0, 8, MAX_OUTPUT - 8)),
        Forgery::InconsistentPiece => {
            outcomes.push_piece(0, 1000, 500);
            outcomes.push_piece(0, 400, random() % 100);
        }
        Forgery::OutputBetweenPieces => {
            outcomes.push_piece(0, 1000, 500);
            outcomes.push(&[0; 20]);
        }
        Forgery::OverwrittenPieces => {
            let arena = &words[words.len() - ARENA / 8..][..OVERWRITTEN];
            std::thread::spawn(move || {
                loop {
                    for word in arena {
                        word.store(random(), Ordering::Relaxed);
                    }
                }
            });
            for _ in 0..10 {
                outcomes.push_piece(0, 512 << 10, 0);
                wake_leader();
            }
        }
        Forgery::OverlappingPieces => {
            for round in 0..10 {
                let distance = [0, 128, 4096][round % 3];
                for piece in 0..20 {
                    outcomes.push_piece(piece * distance, 10_000, (19 - piece) * 10_000);
                }
                wake_leader();
            }
        }
        Forgery::ShuffledPieces => {
            let mut pieces: Vec<u64> = (0..8).collect();
            for at in 1..pieces.len() {
                pieces.swap(at, random() as usize % (at + 1));
            }
            if pieces.is_sorted() {
                pieces.reverse();
            }
            for piece in pieces {
                outcomes.push_piece(piece * 10_112, 10_000, (7 - piece) * 10_000);
            }
        }
        Forgery::RandomBlocks => {
            for _ in 0..1000 {
                let (kind, number) = (random() % 4, random() >> (random() % 64));
                let offset = (random() % ARENA as u64) & !127;
                match kind {
                    0 => outcomes.push_announcement(number),
                    1 => outcomes.push_block(number, random() % ARENA as u64),
                    2 => outcomes.push_block(offset, random() % (ARENA as u64 - offset)),
                    _ => outcomes.push(&[0; 20]),
                };
                wake_leader();
            }
        }
        Forgery::EndlessBlocks => {
            outcomes.push_announcement(u64::MAX);
            loop {
                while !outcomes.push_block((random() % 400) * 8192, 8192) {
                    wake_leader();
                    std::thread::yield_now();
                }
            }
        }
        Forgery::OverwrittenBlocks => {
            let arena = &words[words.len() - ARENA / 8..][..OVERWRITTEN];
            std::thread::spawn(move || {
                loop {
                    for word in arena {
                        word.store(random(), Ordering::Relaxed);
                    }
                }
            });
            for _ in 0..10 {
                outcomes.push_announcement(2);
                outcomes.push_block(0, 512 << 10);
                outcomes.push_block(0, 512 << 10);
                outcomes.push(&[0; 20]);
                wake_leader();
            }
        }
        Forgery::MissingBlocks => {
            outcomes.push_announcement(1 + random() % 2);
            outcomes.push(&[[0, 5][random() as usize % 2]; 20]);
        }
        Forgery::ReleasedTwice => {
            let events = task_events();
            std::thread::spawn(move || {
                loop {
                    for at in 1..events.len() {
                        // The lap is that of the place, in the upper bits.
                        let (before, event) = (&events[at - 1], &events[at]);
                        let lap = event.load(Ordering::Relaxed) >> 48;
                        let copy = before.load(Ordering::Relaxed) & ((1 << 48) - 1);
                        event.store((lap + random() % 2) << 48 | copy, Ordering::Relaxed);
                    }
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            return;
        }
        Forgery::ResizedMemory => {
            let file = shared_file().expect("the leader's descriptor can be opened");
            for len in [0, 4096, size_of_val(words) as u64 - 1, 1 << 40] {
                assert!(file.set_len(len).is_err(), "the memory has {len} bytes now");
            }
            assert!(!add_write_seal(&file), "the memory cannot be written any more");
            return;
        }
        Forgery::PunchedHoles => {
            std::thread::spawn(move || {
                let end = Instant::now() + Duration::from_millis(300);
                while Instant::now() < end {
                    punch_holes(&words[words.len() - 2 * (EVENTS + ARENA / 8)..]);
                }
            });
            return;
        }
        Forgery::RandomEvents => {
            let events = task_events();
            std::thread::spawn(move || {
                loop {
                    for event in events {
                        let offset = match random() % 3 {
                            0 => 0,
                            1 => (random() % ARENA as u64) / 128,
                            _ => random() >> (random() % 64),
                        };
                        event.store(
                            ((random() % 4) << 48) | ((random() % 2) << 47) | offset,
                            Ordering::Relaxed,
                        );
                    }
                    std::thread::yield_now();
                }
            });
            return;
        }
        Forgery::WantedCount | Forgery::InPlaceCount => {
            let slot = match forgery {
                Forgery::InPlaceCount => words.len() - 2 * (EVENTS + ARENA / 8),
                _ if seed.is_multiple_of(2) => WANTED_TAKEN,
                _ => WANTED_RELEASED,
            };
            std::thread::spawn(move || {
                loop {
                    words[slot].store(random() >> (random() % 64), Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
            return;
        }
    }
    wake_leader();
    hang()
}

/// One task forges; its worker may spoil the other tasks that it has, and no others.
#[test]
fn forged_pieces_do_not_harm_the_leader() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(200 + seconds(0));
    let op = |(seed, forgery, filler, buffer): (u64, Option<Forgery>, Vec<u8>, Buffer<u8>)| {
        if let Some(forgery) = forgery {
            forge(forgery, seed);
        }
        (seed, filler, buffer)
    };
    let builder = builder(2)
        .max_output(MAX_OUTPUT)
        .deadline(Duration::from_millis(700));
    let pool = builder.build_op(op).expect("the pool starts");
    // Some tasks are large or have large buffers, and are sent through the same arenas.
    let len = |n: u64| if n.is_multiple_of(7) { 100_000 } else { 10 };
    let tasks = |round: u64, forgery: Option<Forgery>| {
        let task = move |n| {
            let forgery = forgery.filter(|_| n == 20);
            let buffer = Buffer::from(vec![n as u8; len(n + 3)]);
            (n ^ round << 32, forgery, vec![n as u8; len(n)], buffer)
        };
        (0..60).map(task)
    };
    assert!(pool.map(tasks(0, None)).all(|result| result.is_ok()));
    let files = open_files();
    repeat_attacks(&FORGERIES, MAX_OUTPUT + (64 << 20), |round, forgery| {
        let (mut done, mut failed) = (0, 0);
        for result in pool.map(tasks(round, Some(forgery))) {
            match result.map_err(|error| error.fault) {
                Ok(_) => done += 1,
                Err(Fault::TimedOut { .. } | Fault::WorkerDied { .. } | Fault::Output(_)) => failed += 1,
                // The worker has returned the pages of tasks that were sent to it.
                Err(Fault::Task(_)) => failed += 1,
                Err(other) => panic!("{forgery:?}: {other}"),
            }
        }
        assert_eq!(done + failed, 60, "{forgery:?}");
        assert!(done >= 20, "{forgery:?}: {done}");
    });
    pool.bytes().wait_ready().expect("workers are replaced");
    assert!(open_files() <= files, "the leader has received descriptors");
}
