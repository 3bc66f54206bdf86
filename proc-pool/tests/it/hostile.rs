//! A worker that writes anything anywhere in the memory it shares with its leader, and says anything that a message may
//! hold: errors may come of it, wrong outputs too, but the leader must not panic, hang or grow.
//!
//! `cargo xtask hostile --minutes N` does so for longer than the tests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proc_pool::{
    BoxError, Builder, Cause, Fault, Memory, Observer, PoolError, Worker, WorkerContext, WorkerId, Workers,
};
use serde::{Deserialize, Serialize};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::support::{Alone, is_alone, test_name, watchdog};
use crate::trip;

struct Scribbler;

impl Worker for Scribbler {
    type Op = ();
    type Init = u64;
    type Task = u64;
    type Output = Vec<u8>;

    fn start(_: &mut WorkerContext, (): (), seed: u64) -> Result<Self, BoxError> {
        let words = crate::crash::shared_words();
        let mut state = seed ^ u64::from(std::process::id()) << 20 | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        if random() % 3 == 0 {
            std::thread::spawn(move || trip::say_anything(trip::LEADER, seed));
        }
        std::thread::spawn(move || {
            // Some spare the data, some hit everything; some lie wildly, some by a little; some now and then only.
            let kind = random();
            loop {
                let near = [0, 16, 32, 48, 64][random() as usize % 5];
                let place = match kind % 3 {
                    0 => random() as usize,
                    // The heads of the three rings and what follows them.
                    1 => (random() % 3) as usize * (64 + (32 << 10)) + near + random() as usize % 2,
                    _ => 3 * (64 + (32 << 10)) + random() as usize % 64,
                };
                let word = &words[place % words.len()];
                let lie = match random() % 4 {
                    0 => random() >> (random() % 64),
                    1 => word.load(Ordering::Relaxed).wrapping_add(random() % 16),
                    2 => word.load(Ordering::Relaxed).wrapping_sub(random() % 16),
                    _ => u64::MAX,
                };
                word.store(lie, Ordering::Relaxed);
                for _ in 0..random() % (1 << (kind % 20)) {
                    std::hint::spin_loop();
                }
            }
        });
        Ok(Self)
    }

    fn run(&mut self, task: u64) -> Vec<u8> {
        vec![task as u8; task as usize % 3000]
    }
}

/// Reads side rings while they are scribbled upon, and what is left of them.
#[derive(Default)]
struct Reader {
    live: Mutex<HashMap<WorkerId, Consumer>>,
    frames: AtomicU64,
    corrupt: AtomicU64,
}

impl Reader {
    fn read(&self, side: &mut Consumer) {
        let mut frame = Vec::new();
        // Bounded: a ring that is written to all the time may never be empty.
        for _ in 0..100 {
            frame.clear();
            match side.pop(&mut frame) {
                Ok(Some(_)) => self.frames.fetch_add(1, Ordering::Relaxed),
                Ok(None) => return,
                Err(_) => {
                    self.corrupt.fetch_add(1, Ordering::Relaxed);
                    return;
                }
            };
        }
    }

    fn read_all(&self) {
        self.live
            .lock()
            .expect("nobody panics")
            .values_mut()
            .for_each(|side| self.read(side));
    }
}

impl Observer for Reader {
    fn started(&self, worker: WorkerId, side: Consumer, _: Slots) {
        self.live.lock().expect("nobody panics").insert(worker, side);
    }

    fn ended(&self, worker: WorkerId, _: &Cause) -> Vec<String> {
        if let Some(mut side) = self.live.lock().expect("nobody panics").remove(&worker) {
            self.read(&mut side);
        }
        Vec::new()
    }
}

/// For how many seconds.
const WISH: &str = "IT_HOSTILE";

#[test]
fn a_worker_that_scribbles() {
    let seconds = seconds(5);
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(100 + seconds);
    let reader = Arc::new(Reader::default());
    let before = resident();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut pools, mut fine, mut faults) = (0u64, 0, 0);
    while Instant::now() < end {
        pools += 1;
        // Some of them are so quick that no pool of theirs gets ready.
        let builder = Builder::new()
            .workers(Workers::Count(2))
            .observer(reader.clone())
            .start_timeout(Duration::from_secs(2));
        let Ok(pool) = builder.build::<Scribbler>((), &pools.wrapping_mul(0x9e37_79b9_7f4a_7c15)) else {
            continue;
        };
        let tasks = 0..300;
        let results: Vec<_> = std::thread::scope(|scope| {
            let (done, warden) = std::sync::mpsc::channel::<()>();
            let (pool, reader) = (&pool, &reader);
            // One that says that it runs a task looks as one that hangs in it: somebody has to end it.
            scope.spawn(move || {
                let patience = Duration::from_millis(300);
                reader.read_all();
                while warden.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    for (_, pid) in pool.bytes().pids() {
                        crate::support::try_kill(pid);
                    }
                }
            });
            let results = match pools % 2 {
                0 => pool.map(tasks).collect(),
                _ => pool.map_unordered(tasks).collect(),
            };
            drop(done);
            results
        });
        assert_eq!(results.len(), 300);
        faults += results.iter().filter(|r| r.is_err()).count();
        fine += results.iter().filter(|r| r.is_ok()).count();
        let stats = pool.bytes().stats();
        assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
    }
    let (frames, corrupt) = (&reader.frames, &reader.corrupt);
    println!(
        "{pools} pools, {fine} outputs, {faults} faults; side rings: {frames:?} frames, {corrupt:?} corrupt"
    );
    assert!(faults > 0, "it was not hostile at all");
    let after = resident();
    assert!(after < before + (64 << 20), "{before} before, {after} after");
}

/// What a worker does with its connection, which its leader reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Talk {
    /// Bells, as fast as the system takes them.
    Bells,
    /// Any bytes, as fast as the system takes them.
    Noise,
    /// A part of a message of `ipc-channel`, which says that more is to come, and nothing more.
    HalfAMessage,
    /// A message of `ipc-channel` that says that it has 2^46 bytes.
    HugeMessage,
    /// Descriptors, with bells.
    Descriptors,
    /// That it gives up, and then does not.
    GivingUp,
    /// That it is ready, again.
    ReadyAgain,
    /// Nothing.
    Silence,
    /// Nothing, because it is stopped.
    Stop,
}

const TALKS: [Talk; 9] = [
    Talk::Bells,
    Talk::Noise,
    Talk::HalfAMessage,
    Talk::HugeMessage,
    Talk::Descriptors,
    Talk::GivingUp,
    Talk::ReadyAgain,
    Talk::Silence,
    Talk::Stop,
];

/// Talks to the leader through `socket` until this process ends.
fn talk(talk: Talk, socket: i32) -> ! {
    let frame = |bytes: usize, len: usize| [&bytes.to_ne_bytes()[..], &len.to_ne_bytes()].concat();
    match talk {
        Talk::Bells => loop {
            trip::say(socket, &[b'!'; 64]);
        },
        Talk::Noise => trip::say_anything(socket, 7),
        Talk::HalfAMessage => drop(trip::say(socket, &frame(1000, 1000))),
        Talk::HugeMessage => drop(trip::say(socket, &frame(64, 1 << 46))),
        Talk::Descriptors => loop {
            trip::say_with_descriptors(socket, b"!");
        },
        Talk::GivingUp => drop(trip::say(socket, b"Fno reason")),
        Talk::ReadyAgain => drop(trip::say(socket, b"RR")),
        Talk::Silence => {}
        Talk::Stop => crate::support::signal(std::process::id(), rustix::process::Signal::STOP),
    }
    crate::support::hang()
}

/// What a worker is to do instead of `init`.
const BEFORE_INIT: &str = "IT_TALK_BEFORE_INIT";

/// Before `init`, in workers.
pub(crate) fn before_init() {
    let wish = std::env::var(BEFORE_INIT).ok();
    let wish = wish.and_then(|wish| TALKS.into_iter().find(|talk| format!("{talk:?}") == wish));
    if let Some(it) = wish.filter(|_| crate::support::is_worker_before_init()) {
        talk(it, 0);
    }
}

/// How long a hostile peer goes on.
fn seconds(default: u64) -> u64 {
    let wish = std::env::var(WISH).ok().and_then(|wish| wish.parse().ok());
    wish.unwrap_or(default)
}

fn resident() -> u64 {
    Memory::of(std::process::id()).map_or(0, |memory| memory.resident)
}

/// A process that talks instead of getting ready ends the start, in time, and leaves nothing.
#[test]
fn whatever_a_worker_says_instead_of_getting_ready_its_pool_fails_in_time() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(120 + seconds(0));
    drop(crate::support::pool(1, |n: u64| n));
    let files = crate::support::open_files();
    let end = Instant::now() + Duration::from_secs(seconds(0));
    let mut rounds = 0u64;
    loop {
        for talk in TALKS {
            let (before, began) = (resident(), Instant::now());
            let pool = Builder::new()
                .workers(Workers::Count(2))
                .start_timeout(Duration::from_millis(150))
                .env(BEFORE_INIT, format!("{talk:?}"))
                .build_op(|n: u64| n);
            match pool {
                Err(PoolError::Start { .. }) => {}
                // It has said that it is ready; nobody has asked it yet.
                Ok(pool) if [Talk::ReadyAgain, Talk::Noise].contains(&talk) => drop(pool),
                other => panic!("{talk:?}: {other:?}"),
            }
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{talk:?}: {:?}",
                began.elapsed()
            );
            let grown = resident().saturating_sub(before);
            assert!(
                grown < 16 << 20,
                "{talk:?}: the leader has grown by {grown} bytes"
            );
            assert!(!crate::support::has_children(), "{talk:?}");
            assert_eq!(crate::support::open_files(), files, "{talk:?}");
        }
        rounds += 1;
        if Instant::now() >= end {
            break;
        }
    }
    println!(
        "{rounds} rounds of {} kinds of talk before a worker was ready",
        TALKS.len()
    );
}

/// One worker talks and hangs, the other one works: the tasks of the first are late or its death's, the others are done, and
/// the leader neither waits beyond the deadline, nor grows, nor keeps a descriptor.
#[test]
fn whatever_a_worker_says_its_leader_neither_waits_nor_grows() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(120 + seconds(0));
    let end = Instant::now() + Duration::from_secs(seconds(0));
    let builder = Builder::new()
        .workers(Workers::Count(2))
        .deadline(Duration::from_millis(700));
    let pool = builder.build_op(|(n, hostile): (u64, Option<Talk>)| match hostile {
        Some(it) => talk(it, trip::LEADER),
        None => n,
    });
    let pool = pool.expect("it starts");
    let warm = |talk| (0..200).map(move |n| (n, (n == 50).then_some(talk)));
    assert_eq!(pool.map(warm(Talk::ReadyAgain)).filter(Result::is_err).count(), 1);
    pool.bytes().wait_ready().expect("workers are replaced");
    let files = crate::support::open_files();
    let mut rounds = 0u64;
    loop {
        for talk in TALKS {
            let (before, began) = (resident(), Instant::now());
            let (mut done, mut failed) = (0, 0);
            for result in pool.map(warm(talk)) {
                match result.map_err(|error| error.fault) {
                    Ok(_) => done += 1,
                    Err(Fault::TimedOut { .. } | Fault::WorkerDied { .. }) => failed += 1,
                    Err(other) => panic!("{talk:?}: {other}"),
                }
            }
            assert_eq!((done, failed), (199, 1), "{talk:?}");
            // A watchdog: the deadline is 0.7 s, and machines are busy.
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{talk:?}: {:?}",
                began.elapsed()
            );
            let grown = resident().saturating_sub(before);
            assert!(
                grown < 16 << 20,
                "{talk:?}: the leader has grown by {grown} bytes"
            );
        }
        pool.bytes().wait_ready().expect("workers are replaced");
        assert!(
            crate::support::open_files() <= files,
            "descriptors of a worker's have arrived"
        );
        rounds += 1;
        if Instant::now() >= end {
            break;
        }
    }
    println!("{rounds} rounds of {} kinds of talk", TALKS.len());
}

/// A worker that says what no correct worker says is replaced, whatever it does otherwise.
#[test]
fn a_worker_that_talks_nonsense_is_replaced() {
    let _watchdog = watchdog(60);
    let pool = crate::support::pool(1, |n: u32| {
        if n == 3 {
            trip::say(trip::LEADER, &[0xff]);
            crate::support::hang();
        }
        n
    });
    let results: Vec<_> = pool.map(0..10).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 9);
    let fault = results.into_iter().find_map(Result::err).map(|error| error.fault);
    let corrupt = Cause::Killed {
        reason: proc_pool::KillReason::Corrupt,
    };
    assert!(matches!(fault, Some(Fault::WorkerDied { cause, .. }) if cause == corrupt));
}
