//! Payloads: tasks and outputs of every size, values that cannot be encoded or decoded, and the memory that stays in use.

use std::thread;
use std::time::{Duration, Instant};

use proc_pool::{BytePool, CallError, EntryPoint, Fault, OutputBuf, ProcessMemory, Service, WorkerContext};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::support::{Rendezvous, builder, pool, release, wait_for_release, watchdog, wine_lacks};
#[cfg(target_os = "linux")]
use crate::support::{policy, thread_cpu_time, wait_until_idle};

/// Outputs its task reversed, or an error if the task asks for one.
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

fn reversing_pool(workers: usize) -> BytePool {
    builder(workers)
        .build(EntryPoint::service::<Reverse>(), &[])
        .expect("the pool starts")
}

fn payload(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i * 7 + size) as u8).collect()
}

#[test]
fn payload_of_any_size_comes_back_whole() {
    let _watchdog = watchdog(60);
    const INLINE: usize = 4 << 10;
    let mut sizes: Vec<usize> = (0..20).collect();
    sizes.extend([100, 1000, INLINE - 2, INLINE - 1, INLINE, INLINE + 1, INLINE + 2]);
    sizes.extend([256 << 10, (256 << 10) + 1, 1 << 20, 5, 0]);
    let pool = reversing_pool(2);
    let rounds: Vec<usize> = std::iter::repeat_n(sizes, 5).flatten().collect();
    let mut outputs = pool.map(rounds.iter().map(|&size| payload(size)));
    for &size in &rounds {
        let mut output = outputs
            .next()
            .expect("one output for each task")
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

/// Frames of 4 KB fill the ring long before the window of tasks is used up: the thread that waits for room must sleep.
#[cfg(target_os = "linux")]
#[test]
fn waiting_for_room_in_a_full_ring_uses_no_cpu() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |(ms, filler): (u64, Vec<u8>)| {
        std::thread::sleep(std::time::Duration::from_millis(ms));
        filler.len()
    });
    // Widens the window.
    assert_eq!(
        pool.map((0..5000).map(|_| (0, vec![])))
            .filter(|r| *r.as_ref().unwrap() == 0)
            .count(),
        5000
    );
    let before = thread_cpu_time();
    let slow = pool.map((0..100).map(|_| (5, vec![1; 4_000])));
    assert!(slow.map(|r| r.expect("no task fails")).eq([4_000; 100]));
    let used = thread_cpu_time() - before;
    assert!(used.as_millis() < 150, "{used:?} of 500 ms");
}

/// A worker whose outputs wait for the leader must not interrupt it when it is woken.
#[test]
#[cfg(target_os = "linux")]
fn worker_gives_way_to_the_leader_while_it_waits_and_not_while_it_runs_an_op() {
    const BATCH: u64 = 3;
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .build_op(|_: u64| (policy("thread-self"), vec![7_u8; 1 << 20]))
        .expect("the pool starts");
    let own = policy("thread-self");
    let (mut ops, mut waits) = (Vec::new(), false);
    for output in pool.map_unordered(0..50) {
        let (policy_of_op, output) = output.expect("no task fails");
        assert_eq!(output.len(), 1 << 20);
        ops.push(policy_of_op);
        // The worker runs more tasks until its outputs have no room. The pool's own thread does not take them so soon.
        thread::sleep(Duration::from_millis(5));
        let pids = pool.pids();
        waits |= pids
            .iter()
            .any(|(_, pid)| policy(&pid.to_string()) == Some(BATCH));
    }
    assert!(waits || own != Some(0), "it never waited");
    assert_eq!(ops, vec![own; 50]);
}

#[test]
fn worker_returns_the_memory_of_large_payloads() {
    let _watchdog = watchdog(100);
    const SIZE: usize = 64 << 20;
    let pool = reversing_pool(1);
    let before = worker_memory(&pool);
    for _ in 0..2 {
        let task = vec![7; SIZE];
        let output = pool
            .map([task])
            .next()
            .expect("one output")
            .expect("the task succeeds");
        assert!(output.len() == SIZE && output[0] == 7 && output[SIZE - 1] == 7);
    }
    // The worker keeps the memory that it shares with its leader, and 4 MiB of each of its own buffers, a moment later.
    let kept = before + (28 << 20);
    let deadline = Instant::now() + Duration::from_secs(10);
    while worker_memory(&pool) >= kept && !wine_lacks("HeapReAlloc keeps the pages of a block that shrinks") {
        assert!(
            Instant::now() < deadline,
            "{before} before, {} after",
            worker_memory(&pool)
        );
        thread::sleep(Duration::from_millis(10));
    }
}

/// A worker that stays busy with small tasks doesn't keep the memory of a large one either.
#[test]
fn busy_worker_returns_the_memory_of_large_payloads() {
    let _watchdog = watchdog(100);
    let pool = reversing_pool(1);
    let before = worker_memory(&pool);
    let large = vec![7; 64 << 20];
    assert!(pool.map([large]).all(|output| output.is_ok()));
    let kept = before + (28 << 20);
    let deadline = Instant::now() + Duration::from_secs(30);
    // Never idle for as long as it takes to count as idle.
    while worker_memory(&pool) >= kept && !wine_lacks("HeapReAlloc keeps the pages of a block that shrinks") {
        assert!(
            pool.map((0..1000).map(|_| b"ab"))
                .all(|output| output.is_ok_and(|output| output == b"ba"))
        );
        assert!(
            Instant::now() < deadline,
            "{before} before, {} after",
            worker_memory(&pool)
        );
    }
}

/// A task of which some pieces have been sent is withdrawn like any other, and its worker continues.
#[test]
fn task_can_be_withdrawn_while_it_is_sent() {
    use proc_pool::CancelOutcome;

    let _watchdog = watchdog(100);
    const SIZE: usize = 20 << 20;
    let rendezvous = Rendezvous::new();
    let op = |(path, filler): (String, Vec<u8>)| {
        if !path.is_empty() {
            wait_for_release(&path);
        }
        filler.len()
    };
    let pool = pool(1, op);
    let plain = |len| (String::new(), vec![1; len]);
    for round in 0..3 {
        let blocked = pool.submit((rendezvous.address.clone(), vec![1; 50_000]));
        let waiting = rendezvous.accept();
        // More than the arena holds.
        let large = pool.submit(plain(SIZE));
        let last = pool.submit(plain(100_000));
        match round {
            0 => drop(large),
            1 => assert_eq!(large.cancel(), CancelOutcome::Withdrawn),
            _ => assert_eq!(large.kill(), CancelOutcome::Withdrawn),
        }
        release(waiting);
        assert_eq!(blocked.wait().expect("the task succeeds"), 50_000);
        assert_eq!(last.wait().expect("the task succeeds"), 100_000);
    }
    let outputs = pool.map([plain(SIZE), plain(3), plain(40_000)]);
    assert!(
        outputs
            .map(|output| output.expect("no task fails"))
            .eq([SIZE, 3, 40_000])
    );
    let stats = pool.bytes().stats();
    assert_eq!((stats.submitted, stats.answered, stats.failed), (12, 9, 3));
    assert_eq!(stats.deaths, 0);
}

/// A task of which some pieces have been sent is sent again from its beginning when its worker dies.
#[test]
fn task_is_sent_again_if_its_worker_dies_while_it_is_sent() {
    let _watchdog = watchdog(100);
    const SIZE: usize = 20 << 20;
    let rendezvous = Rendezvous::new();
    let op = |(path, filler): (String, Vec<u8>)| {
        if !path.is_empty() {
            wait_for_release(&path);
            std::process::exit(7);
        }
        (filler.len(), filler.iter().all(|&byte| byte == 5))
    };
    let pool = pool(1, op);
    let fatal = pool.submit((rendezvous.address.clone(), vec![1; 10]));
    let waiting = rendezvous.accept();
    let large = pool.submit((String::new(), vec![5; SIZE]));
    release(waiting);
    assert!(fatal.wait().is_err());
    assert_eq!(large.wait().expect("the task was not running"), (SIZE, true));
    assert_eq!(pool.bytes().stats().deaths, 1);
}

#[test]
fn output_beyond_the_limit_fails_only_its_task() {
    let _watchdog = watchdog(60);
    for limit in [1000, 50_000, 3_000_000] {
        let pool = builder(1)
            .max_output(limit)
            .build(EntryPoint::service::<Reverse>(), &[])
            .expect("the pool starts");
        let limit = limit as usize;
        let tasks = [limit + 1, limit, 10 * limit, 3];
        let results: Vec<_> = pool.map(tasks.map(payload)).collect();
        assert!(results[1].is_ok() && results[3].is_ok(), "{results:?}");
        for (index, len) in [(0, limit + 1), (2, 10 * limit)] {
            let error = results[index]
                .as_ref()
                .expect_err("the output is too long")
                .to_string();
            let named = [len.to_string(), limit.to_string(), "max_output".to_owned()];
            assert!(named.iter().all(|it| error.contains(it)), "{error}");
        }
        assert_eq!(pool.stats().deaths, 0);
    }
}

fn worker_memory(pool: &BytePool) -> u64 {
    let memory = pool.memory();
    let [(_, ProcessMemory { resident, .. })] = memory[..] else {
        panic!("{memory:?}")
    };
    resident
}

#[test]
fn services_error_fails_only_its_task_and_is_shortened() {
    let _watchdog = watchdog(60);
    let pool = reversing_pool(1);
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

/// A value that cannot be encoded if it is odd, nor decoded if it is 100 or more.
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
fn task_that_cannot_be_encoded_or_decoded_fails_alone() {
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
fn output_that_cannot_be_encoded_or_decoded_fails_alone() {
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

#[test]
fn outputs_that_cannot_be_decoded_fail_alone_among_thousands() {
    let _watchdog = watchdog(60);
    let pool = pool(2, |n: u32| {
        Picky(if n.is_multiple_of(97) {
            200
        } else {
            (n % 50 * 2) as u8
        })
    });
    for ordered in [true, false] {
        let mut map = match ordered {
            true => pool.map(0..5000),
            false => pool.map_unordered(0..5000),
        };
        let mut outputs = vec![None; 5000];
        for position in 0.. {
            let Some(result) = map.next() else {
                assert_eq!(position, 5000);
                break;
            };
            let task = map.last_task();
            assert!(!ordered || task == position);
            match result {
                Ok(Picky(output)) => assert_eq!(u64::from(output), task % 50 * 2),
                Err(error) => {
                    assert!(matches!(error.fault, Fault::Output(_)), "{error}");
                    assert_eq!((error.task, task % 97), (task, 0));
                }
            }
            assert!(outputs[task as usize].replace(()).is_none(), "task {task} twice");
        }
        assert!(outputs.iter().all(Option::is_some));
    }
}

/// Returns a large output for each task, once it is released by the rendezvous that the task names.
#[cfg(target_os = "linux")]
struct Wide;

#[cfg(target_os = "linux")]
impl Service for Wide {
    fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, proc_pool::BoxError> {
        Ok(Self)
    }

    fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
        if !task.is_empty() {
            wait_for_release(std::str::from_utf8(task).expect("an address is UTF-8"));
        }
        output.resize(2 << 20, 0);
        Ok(())
    }
}

/// An ordered map that waits for one task does not collect the outputs of all other tasks.
#[cfg(target_os = "linux")]
#[test]
fn ordered_map_buffers_a_bounded_number_of_large_outputs() {
    let _watchdog = watchdog(100);
    let rendezvous = Rendezvous::new();
    let pool = builder(2)
        .build(EntryPoint::service::<Wide>(), &[])
        .expect("the pool starts");
    let taken = std::cell::Cell::new(0);
    let tasks = (0..200).map(|n| {
        taken.set(n);
        if n == 0 {
            rendezvous.address.clone()
        } else {
            String::new()
        }
    });
    let mut outputs = pool.map(tasks);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // The worker that does not wait has run the tasks that it had when it sleeps for long.
            let pids: Vec<u32> = pool.pids().into_iter().map(|(_, pid)| pid).collect();
            wait_until_idle(&pids);
            rendezvous.release_next();
        });
        assert_eq!(
            outputs
                .next()
                .expect("one output")
                .expect("the task succeeds")
                .len(),
            2 << 20
        );
    });
    // At most 64 MiB are held back, and a few outputs are under way; the other tasks are not even taken from the input.
    assert!(taken.get() < 80, "{}", taken.get());
    assert_eq!(
        outputs
            .filter(|r| r.as_ref().is_ok_and(|o| o.len() == 2 << 20))
            .count(),
        199
    );
}
