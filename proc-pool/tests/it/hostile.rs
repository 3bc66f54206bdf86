//! A worker that writes anything anywhere in the memory it shares with its leader, and says anything that a message may
//! hold: errors may come of it, wrong outputs too, but the leader must not panic, hang or grow.
//!
//! `cargo xtask faults --hostile-seconds N` does so for longer than the tests.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proc_pool::{BoxError, Builder, Cause, Memory, Observer, Worker, WorkerContext, WorkerId, Workers};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::support::{Alone, is_alone, test_name, watchdog};

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
            std::thread::spawn(move || crate::trip::say_anything(seed));
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
    let seconds = std::env::var(WISH).ok().and_then(|wish| wish.parse().ok());
    let seconds: u64 = seconds.unwrap_or(5);
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(100 + seconds);
    let reader = Arc::new(Reader::default());
    let own = || Memory::of(std::process::id()).map_or(0, |memory| memory.resident);
    let before = own();
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
    let after = own();
    assert!(after < before + (64 << 20), "{before} before, {after} after");
}

/// A message that promises more than comes is told by a panic in `ipc-channel`, which must not be the leader's.
#[test]
fn a_message_that_is_none() {
    let _watchdog = watchdog(60);
    let pool = crate::support::pool(2, |n: u32| {
        if n % 7 == 3 {
            crate::trip::say(1000, &[0; 8]);
        }
        n
    });
    for _ in 0..3 {
        assert!(pool.map(0..50).all(|output| output.is_ok()));
    }
    assert_eq!(pool.bytes().stats().deaths, 0);
}
