//! What travels: sizes, codecs that fail, memory afterwards.

use proc_pool::{Builder, BytePool, CallError, Fault, Memory, OutputBuf, Service, WorkerContext, Workers};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::support::{pool, watchdog};

/// Gives back what it gets, reversed; errors on demand.
struct Reverse;

impl Service for Reverse {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, proc_pool::BoxError> {
        Ok(Self)
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        match task {
            b"bad task" => return Err(CallError::Task("t".repeat(100_000))),
            b"bad output" => {
                output.extend([1; 100_000]);
                return Err(CallError::Output("o".repeat(100_000)));
            }
            _ => output.extend(task.iter().rev()),
        }
        Ok(())
    }
}

fn bytes(workers: usize) -> BytePool {
    Builder::new()
        .workers(Workers::Count(workers))
        .build_bytes::<Reverse>(Vec::new())
        .expect("the pool starts")
}

fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 7 + size) as u8).collect()
}

#[test]
fn every_size_comes_back_whole() {
    let _watchdog = watchdog(60);
    const INLINE: usize = 32 << 10;
    let mut sizes: Vec<usize> = (0..20).collect();
    sizes.extend([100, 1000, INLINE - 2, INLINE - 1, INLINE, INLINE + 1, INLINE + 2]);
    sizes.extend([256 << 10, (256 << 10) + 1, 1 << 20, 5, 0]);
    let pool = bytes(2);
    let rounds: Vec<usize> = std::iter::repeat_n(sizes, 5).flatten().collect();
    let mut outputs = pool.map(rounds.iter().map(|&size| payload(size)));
    for &size in &rounds {
        let mut output = outputs
            .next()
            .expect("one for each")
            .expect("no task fails")
            .into_vec();
        output.reverse();
        assert!(output == payload(size), "{size}");
    }
    assert!(outputs.next().is_none());
    assert_eq!(
        pool.map_unordered(rounds.iter().map(|&size| payload(size)))
            .count(),
        rounds.len()
    );
}

/// Frames of 32 KiB fill the ring long before the window of tasks is used up: who waits for room must sleep.
#[cfg(target_os = "linux")]
#[test]
fn a_full_ring_is_waited_for_without_burning_a_core() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |(ms, filler): (u64, Vec<u8>)| {
        std::thread::sleep(std::time::Duration::from_millis(ms));
        filler.len()
    });
    // A wide window first.
    assert_eq!(
        pool.map((0..5000).map(|_| (0, vec![])))
            .filter(|r| *r.as_ref().unwrap() == 0)
            .count(),
        5000
    );
    let before = crate::support::thread_cpu_time();
    let slow = pool.map((0..10).map(|_| (50, vec![1; 32_000])));
    assert!(slow.map(|r| r.expect("no task fails")).eq([32_000; 10]));
    let used = crate::support::thread_cpu_time() - before;
    assert!(used.as_millis() < 150, "{used:?} of 500 ms");
}

#[test]
fn megabytes_there_and_back_and_no_memory_kept() {
    let _watchdog = watchdog(100);
    const SIZE: usize = 64 << 20;
    let pool = bytes(1);
    let before = worker_memory(&pool);
    for _ in 0..2 {
        let task = vec![7; SIZE];
        let output = pool.map([task]).next().expect("one").expect("no task fails");
        assert!(output.len() == SIZE && output[0] == 7 && output[SIZE - 1] == 7);
    }
    // The memory that it shares with its leader stays, and 4 MiB of each of its own buffers.
    assert_eq!(
        pool.map([b"ab"]).next().expect("one").expect("no task fails"),
        b"ba"
    );
    let after = worker_memory(&pool);
    assert!(
        after < before + (28 << 20)
            || crate::support::wine_lacks("HeapReAlloc keeps the pages of a block that shrinks"),
        "{before} before, {after} after"
    );
}

/// A task of which pieces have been sent, and not all, is withdrawn as any other, and its worker goes on.
#[test]
fn a_task_is_withdrawn_while_it_is_sent() {
    use proc_pool::Cancelled;

    let _watchdog = watchdog(100);
    const SIZE: usize = 20 << 20;
    let ear = crate::support::Ear::new();
    let op = |(path, filler): (String, Vec<u8>)| {
        if !path.is_empty() {
            crate::support::hear_from(&path);
        }
        filler.len()
    };
    let pool = pool(1, op);
    let plain = |len| (String::new(), vec![1; len]);
    for round in 0..3 {
        let blocked = pool.submit((ear.path.clone(), vec![1; 50_000]));
        let mut asking = ear.accept();
        // More than fits beside each other.
        let large = pool.submit(plain(SIZE));
        let last = pool.submit(plain(100_000));
        match round {
            0 => drop(large),
            1 => assert_eq!(large.cancel(), Cancelled::Withdrawn),
            _ => assert_eq!(large.kill(), Cancelled::Withdrawn),
        }
        std::io::Write::write_all(&mut asking, &[1]).expect("the blocker listens");
        assert_eq!(blocked.wait().expect("it runs"), 50_000);
        assert_eq!(last.wait().expect("it runs"), 100_000);
    }
    let outputs = pool.map([plain(SIZE), plain(3), plain(40_000)]);
    assert!(
        outputs
            .map(|output| output.expect("no task fails"))
            .eq([SIZE, 3, 40_000])
    );
    let stats = pool.bytes().stats();
    assert_eq!((stats.submitted, stats.answered, stats.faulted), (12, 9, 3));
    assert_eq!(stats.deaths, 0);
}

/// A task of which pieces have been sent is sent again, whole, when its worker dies.
#[test]
fn a_task_whose_worker_dies_while_it_is_sent_is_sent_to_another() {
    let _watchdog = watchdog(100);
    const SIZE: usize = 20 << 20;
    let ear = crate::support::Ear::new();
    let op = |(path, filler): (String, Vec<u8>)| {
        if !path.is_empty() {
            crate::support::hear_from(&path);
            std::process::exit(7);
        }
        (filler.len(), filler.iter().all(|&byte| byte == 5))
    };
    let pool = pool(1, op);
    let doomed = pool.submit((ear.path.clone(), vec![1; 10]));
    let mut asking = ear.accept();
    let large = pool.submit((String::new(), vec![5; SIZE]));
    std::io::Write::write_all(&mut asking, &[1]).expect("it listens");
    assert!(doomed.wait().is_err());
    assert_eq!(large.wait().expect("it was not running"), (SIZE, true));
    assert_eq!(pool.bytes().stats().deaths, 1);
}

#[test]
fn an_output_beyond_the_limit_is_its_tasks_error() {
    let _watchdog = watchdog(60);
    for limit in [1000, 50_000, 3_000_000] {
        let pool = Builder::new()
            .workers(Workers::Count(1))
            .max_output(limit)
            .build_bytes::<Reverse>(Vec::new())
            .expect("the pool starts");
        let limit = limit as usize;
        let tasks = [limit + 1, limit, 10 * limit, 3];
        let results: Vec<_> = pool.map(tasks.map(payload)).collect();
        assert!(results[1].is_ok() && results[3].is_ok(), "{results:?}");
        for (place, len) in [(0, limit + 1), (2, 10 * limit)] {
            let error = results[place].as_ref().expect_err("it is too long").to_string();
            let told = [len.to_string(), limit.to_string(), "max_output".to_owned()];
            assert!(told.iter().all(|it| error.contains(it)), "{error}");
        }
        assert_eq!(pool.stats().deaths, 0);
    }
}

fn worker_memory(pool: &BytePool) -> u64 {
    let memory = pool.memory();
    let [(_, Memory { resident, .. })] = memory[..] else {
        panic!("{memory:?}")
    };
    resident
}

#[test]
fn errors_of_a_service_are_their_tasks_and_bounded() {
    let _watchdog = watchdog(60);
    let pool = bytes(1);
    for _ in 0..3 {
        let tasks = [&b"abc"[..], b"bad task", b"bad output", &[9; 100_000]];
        let results: Vec<_> = pool.map(tasks).collect();
        assert_eq!(results[0].as_ref().unwrap(), b"cba");
        let Err(Fault::Task(text)) = results[1].as_ref().map_err(|e| &e.fault) else {
            panic!("{:?}", results[1])
        };
        assert!(text.starts_with("ttt") && text.len() <= 32 << 10);
        let Err(Fault::Output(text)) = results[2].as_ref().map_err(|e| &e.fault) else {
            panic!("{:?}", results[2])
        };
        assert!(text.starts_with("ooo") && text.len() <= 32 << 10);
        assert_eq!(results[3].as_ref().unwrap(), &[9; 100_000]);
    }
}

/// A value that can't be encoded (odd) or decoded (7 and above).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Picky(u8);

impl Serialize for Picky {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 % 2 == 1 {
            return Err(serde::ser::Error::custom("odd"));
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Picky {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            200 => panic!("a decoder's bug"),
            n if n >= 100 => Err(serde::de::Error::custom("too large")),
            n => Ok(Self(n)),
        }
    }
}

#[test]
fn tasks_that_cannot_be_encoded_or_decoded() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |Picky(n): Picky| n);
    let tasks = || [2, 3, 100, 4, 5, 200, 6].map(Picky);
    let results: Vec<_> = pool.map(tasks()).collect();
    assert!([0, 3, 6].iter().all(|&i| results[i].is_ok()), "{results:?}");
    for unsendable in [1, 2, 4] {
        let fault = &results[unsendable].as_ref().unwrap_err().fault;
        assert!(matches!(fault, Fault::Task(_)), "{fault}");
    }
    let fault = &results[5].as_ref().unwrap_err().fault;
    assert!(matches!(fault, Fault::Panicked { .. }), "{fault}");
    assert_eq!(pool.map_unordered(tasks()).filter(Result::is_ok).count(), 3);
}

#[test]
fn outputs_that_cannot_be_encoded_or_decoded() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u8| Picky(n));
    for _ in 0..2 {
        let results: Vec<_> = pool.map([2, 3, 100, 4, 200, 6]).collect();
        assert!([0, 3, 5].iter().all(|&i| results[i].is_ok()), "{results:?}");
        for broken in [1, 2, 4] {
            let fault = &results[broken].as_ref().unwrap_err().fault;
            assert!(matches!(fault, Fault::Output(_)), "{fault}");
        }
    }
}

/// A large output for each task, once the ear answers that the task names.
#[cfg(target_os = "linux")]
struct Wide;

#[cfg(target_os = "linux")]
impl Service for Wide {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, proc_pool::BoxError> {
        Ok(Self)
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        if !task.is_empty() {
            crate::support::hear_from(std::str::from_utf8(task).expect("a path"));
        }
        output.resize(2 << 20, 0);
        Ok(())
    }
}

/// An ordered map that waits for one task does not collect all the others' outputs meanwhile.
#[cfg(target_os = "linux")]
#[test]
fn large_outputs_are_not_hoarded_behind_a_slow_one() {
    let _watchdog = watchdog(100);
    let ear = crate::support::Ear::new();
    let pool = Builder::new()
        .workers(Workers::Count(2))
        .build_bytes::<Wide>(Vec::new())
        .expect("the pool starts");
    let taken = std::cell::Cell::new(0);
    let tasks = (0..200).map(|n| {
        taken.set(n);
        if n == 0 { ear.path.clone() } else { String::new() }
    });
    let mut outputs = pool.map(tasks);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The worker that does not wait is done with what it was given when it sleeps for long.
            let pids: Vec<u32> = pool.pids().into_iter().map(|(_, pid)| pid).collect();
            crate::support::wait_until_all_sleep(&pids);
            ear.answer();
        });
        assert_eq!(
            outputs.next().expect("one").expect("no task fails").len(),
            2 << 20
        );
    });
    // 64 MiB are held back at most, and a few are under way: the rest is not even taken.
    assert!(taken.get() < 80, "{}", taken.get());
    assert_eq!(
        outputs
            .filter(|r| r.as_ref().is_ok_and(|o| o.len() == 2 << 20))
            .count(),
        199
    );
}
