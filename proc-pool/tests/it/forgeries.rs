//! A worker that forges the pieces of its outputs, and what it says of the pieces of its tasks: errors come of it, wrong outputs
//! too, but the leader must not panic, hang, wait beyond the deadline or grow.
//!
//! With `IT_HOSTILE=N` in the environment it goes on for N seconds.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proc_pool::{Builder, Fault, Memory, Workers};
use serde::{Deserialize, Serialize};

use crate::support::{Alone, is_alone, test_name, watchdog};

/// The ways in which a worker lies instead of answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Forgery {
    /// Blocks anywhere, of any length, of a payload of any length.
    Anything,
    /// Pieces that follow from each other, of which there is no end.
    NoEnd,
    /// The same, a byte each.
    Crumbs,
    /// A piece of a payload as large as may be, and nothing more.
    Promise,
    /// A piece that does not follow from the one before.
    Contradiction,
    /// An output of the ordinary kind in the middle of one in pieces.
    Interruption,
    /// Whole outputs that are written anew while they are read.
    Rewriting,
    /// Pieces of tasks are given back that were not sent, or not given back any more.
    Counts,
    /// Wishes to be rung for pieces that there never were.
    Wishes,
}

const FORGERIES: [Forgery; 9] = [
    Forgery::Anything,
    Forgery::NoEnd,
    Forgery::Crumbs,
    Forgery::Promise,
    Forgery::Contradiction,
    Forgery::Interruption,
    Forgery::Rewriting,
    Forgery::Counts,
    Forgery::Wishes,
];

/// Bytes of an output, at most, in these tests.
const MOST: u64 = 64 << 20;
const ARENA: usize = 8 << 20;
const RING: usize = 256 << 10;
/// Words of a ring before its data: positions and marks, a line pair each.
const HEADS: usize = 64;
/// Words of a ring.
const WORDS: usize = HEADS + RING / 8;
/// The slots of the worker's that say how many pieces of tasks it has taken, and how many of outputs it wants taken.
const TAKEN: usize = 3 * WORDS + 5;
const WANTED: usize = 3 * WORDS + 6;

/// The ring of outcomes, written by hand.
struct Outcomes(&'static [AtomicU64]);

impl Outcomes {
    fn new() -> Self {
        Self(&crate::crash::shared_words()[WORDS..2 * WORDS])
    }

    /// Writes a frame, unless the ring is full.
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

    fn piece(&self, offset: u64, len: u64, left: u64) -> bool {
        let numbers = [offset, len, left].map(u64::to_le_bytes);
        self.push(&[&[1][..], &numbers.concat()].concat())
    }
}

fn bell() {
    crate::trip::say(crate::trip::LEADER, b"!");
}

/// Forges until its process ends, or for a moment: then the task is answered in the ordinary way.
fn forge(forgery: Forgery, seed: u64) {
    let outcomes = Outcomes::new();
    let words = crate::crash::shared_words();
    let mut random = crate::support::random(seed | 1);
    match forgery {
        Forgery::Anything => {
            for _ in 0..1000 {
                let mut number = || match random() % 3 {
                    0 => random() >> (random() % 64),
                    1 => (random() % ARENA as u64) & !127,
                    _ => random() % 5000,
                };
                outcomes.piece(number(), number(), number());
                bell();
            }
        }
        Forgery::NoEnd | Forgery::Crumbs => {
            let len = if forgery == Forgery::NoEnd { 512 << 10 } else { 1 };
            let mut left = MOST;
            loop {
                left -= len;
                while !outcomes.piece((random() % 16) * (512 << 10), len, left.max(1)) {
                    bell();
                    std::thread::yield_now();
                }
                left = left.max(len + 1);
            }
        }
        Forgery::Promise => drop(outcomes.piece(0, 8, MOST - 8)),
        Forgery::Contradiction => {
            outcomes.piece(0, 1000, 500);
            outcomes.piece(0, 400, random() % 100);
        }
        Forgery::Interruption => {
            outcomes.piece(0, 1000, 500);
            outcomes.push(&[0; 20]);
        }
        Forgery::Rewriting => {
            let arena = &words[words.len() - ARENA / 8..];
            std::thread::spawn(move || {
                loop {
                    for word in &arena[..100_000] {
                        word.store(random(), Ordering::Relaxed);
                    }
                }
            });
            for _ in 0..10 {
                outcomes.piece(0, 512 << 10, 0);
                bell();
            }
        }
        Forgery::Counts | Forgery::Wishes => {
            let slot = if forgery == Forgery::Counts { TAKEN } else { WANTED };
            std::thread::spawn(move || {
                loop {
                    words[slot].store(random() >> (random() % 64), Ordering::Relaxed);
                    std::thread::yield_now();
                }
            });
            return;
        }
    }
    bell();
    crate::support::hang()
}

#[test]
fn whatever_a_worker_forges_its_leader_neither_waits_nor_grows() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let seconds = std::env::var("IT_HOSTILE")
        .ok()
        .and_then(|wish| wish.parse().ok());
    let seconds: u64 = seconds.unwrap_or(0);
    let _watchdog = watchdog(200 + seconds);
    let end = Instant::now() + Duration::from_secs(seconds);
    let peak = || Memory::of(std::process::id()).map_or(0, |memory| memory.resident);
    let op = |(seed, forgery, filler): (u64, Option<Forgery>, Vec<u8>)| {
        if let Some(forgery) = forgery {
            forge(forgery, seed);
        }
        (seed, filler)
    };
    let builder = Builder::new()
        .workers(Workers::Count(2))
        .max_output(MOST)
        .deadline(Duration::from_millis(700));
    let pool = builder.build_op(op).expect("it starts");
    // Large ones among them, which go through the same arenas.
    let len = |n: u64| if n.is_multiple_of(7) { 100_000 } else { 10 };
    let tasks = |round: u64, forgery: Option<Forgery>| {
        let task = move |n| {
            (
                n ^ round << 32,
                forgery.filter(|_| n == 20),
                vec![n as u8; len(n)],
            )
        };
        (0..60).map(task)
    };
    assert!(pool.map(tasks(0, None)).all(|result| result.is_ok()));
    let files = crate::support::open_files();
    let mut rounds = 0;
    loop {
        for forgery in FORGERIES {
            let (before, began) = (peak(), Instant::now());
            let (mut done, mut failed) = (0, 0);
            for result in pool.map(tasks(rounds, Some(forgery))) {
                match result.map_err(|error| error.fault) {
                    Ok(_) => done += 1,
                    Err(Fault::TimedOut { .. } | Fault::WorkerDied { .. } | Fault::Output(_)) => failed += 1,
                    Err(other) => panic!("{forgery:?}: {other}"),
                }
            }
            assert_eq!(done + failed, 60, "{forgery:?}");
            // A worker may spoil the tasks that it has, and no others.
            assert!(done >= 20, "{forgery:?}: {done}");
            // A watchdog: the deadline is 0.7 s, and machines are busy.
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{forgery:?}: {:?}",
                began.elapsed()
            );
            let grown = peak().saturating_sub(before);
            assert!(
                grown < MOST + (64 << 20),
                "{forgery:?}: the leader has grown by {grown} bytes"
            );
        }
        pool.bytes().wait_ready().expect("workers are replaced");
        assert!(crate::support::open_files() <= files, "descriptors have arrived");
        rounds += 1;
        if Instant::now() >= end {
            break;
        }
    }
    println!("{rounds} rounds of {} kinds of forgery", FORGERIES.len());
}
