//! Workers that write random values anywhere into the memory that they share with their leader.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proc_pool::{BoxError, EntryPoint, ExitCause, Observer, Worker, WorkerContext, WorkerId};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use super::{resident, seconds};
use crate::support::connection::{send_random_bytes, to_leader};
use crate::support::{
    IsolatedTest, builder, is_isolated, pids, random, shared_words, test_name, try_kill, watchdog,
};

/// A worker that writes random values into the memory that it shares with its leader, and sometimes random bytes to its
/// connection.
struct Scribbler;

impl Worker for Scribbler {
    type Op = ();
    type Init = u64;
    type Task = u64;
    type Output = Vec<u8>;

    fn start(_: &mut WorkerContext, (): (), seed: u64) -> Result<Self, BoxError> {
        let words = shared_words();
        let mut random = random(seed ^ u64::from(std::process::id()) << 20);
        if random().is_multiple_of(3) {
            std::thread::spawn(move || send_random_bytes(to_leader(), seed));
        }
        std::thread::spawn(move || {
            // Where it writes: anywhere, to the heads of rings, or to the slots; and how often.
            let kind = random();
            loop {
                let near = [0, 16, 32, 48, 64][random() as usize % 5];
                let index = match kind % 3 {
                    0 => random() as usize,
                    // The heads of the three rings, and the first words of data.
                    1 => (random() % 3) as usize * (64 + (32 << 10)) + near + random() as usize % 2,
                    _ => 3 * (64 + (32 << 10)) + random() as usize % 64,
                };
                let word = &words[index % words.len()];
                let value = match random() % 4 {
                    0 => random() >> (random() % 64),
                    1 => word.load(Ordering::Relaxed).wrapping_add(random() % 16),
                    2 => word.load(Ordering::Relaxed).wrapping_sub(random() % 16),
                    _ => u64::MAX,
                };
                word.store(value, Ordering::Relaxed);
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

/// Reads side rings, while workers write to them at random and after the workers have ended.
#[derive(Default)]
struct Reader {
    live: Mutex<HashMap<WorkerId, Consumer>>,
    frames: AtomicU64,
    corrupt: AtomicU64,
}

impl Reader {
    fn read(&self, side: &mut Consumer) {
        let mut frame = Vec::new();
        // Bounded, because a ring that a worker keeps writing to may never be empty.
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
            .expect("the lock is not poisoned")
            .values_mut()
            .for_each(|side| self.read(side));
    }
}

impl Observer for Reader {
    fn started(&self, worker: WorkerId, side: Consumer, _: Slots) {
        self.live
            .lock()
            .expect("the lock is not poisoned")
            .insert(worker, side);
    }

    fn ended(&self, worker: WorkerId, _: &ExitCause) -> Vec<String> {
        if let Some(mut side) = self
            .live
            .lock()
            .expect("the lock is not poisoned")
            .remove(&worker)
        {
            self.read(&mut side);
        }
        Vec::new()
    }
}

#[test]
fn random_writes_do_not_harm_the_leader() {
    let seconds = seconds(5);
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(100 + seconds);
    let reader = Arc::new(Reader::default());
    let before = resident();
    let end = Instant::now() + Duration::from_secs(seconds);
    let (mut pools, mut outputs, mut faults) = (0u64, 0, 0);
    while Instant::now() < end {
        pools += 1;
        // Some workers destroy their pool before it is ready.
        let builder = builder(2)
            .observer(reader.clone())
            .start_timeout(Duration::from_secs(2));
        let Ok(pool) = builder.build(EntryPoint::worker::<Scribbler>(()), &pools) else {
            continue;
        };
        let tasks = 0..300;
        let results: Vec<_> = std::thread::scope(|scope| {
            let (done, is_done) = std::sync::mpsc::channel::<()>();
            let (pool, reader) = (&pool, &reader);
            // A worker that claims to run a task looks like one that hangs in it, and there is no deadline here.
            scope.spawn(move || {
                let timeout = Duration::from_millis(300);
                reader.read_all();
                while is_done.recv_timeout(timeout) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                    for pid in pids(pool) {
                        try_kill(pid);
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
        outputs += results.iter().filter(|r| r.is_ok()).count();
        let stats = pool.bytes().stats();
        assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
    }
    let (frames, corrupt) = (&reader.frames, &reader.corrupt);
    println!(
        "{pools} pools, {outputs} outputs, {faults} faults; side rings: {frames:?} frames, {corrupt:?} corrupt"
    );
    assert!(faults > 0, "the workers did no harm at all");
    let after = resident();
    assert!(after < before + (64 << 20), "{before} before, {after} after");
}
