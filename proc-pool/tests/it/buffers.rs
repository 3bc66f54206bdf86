//! Buffers of outputs: they travel apart from the output, are copied when they are looked at, and outlive worker and pool.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use proc_pool::{Builder, EntryPoint, Fault, Pool};
use serde::{Deserialize, Serialize};
use shm_buffers::Buffer;

use crate::support::{builder, numbers, pids, pool, try_kill, watchdog};

/// An output with buffers at several depths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Scores {
    task: u64,
    scores: Buffer<f32>,
    by_name: BTreeMap<String, Named>,
    note: String,
}

/// A buffer of numbers, if there is one, and buffers of rows.
type Named = (Option<Buffer<u16>>, Vec<Buffer<[f64; 3]>>);

/// The lengths of a buffer, in bytes, that matter: none, inline, just below and at the limit for travelling apart, one block of the size
/// of a piece and more, and more than the largest block.
const LENGTHS: [usize; 10] = [
    0,
    40,
    8188,
    8192,
    8196,
    100_000,
    1 << 20,
    (1 << 20) + 4,
    5_000_000,
    (16 << 20) + 4,
];

/// Runs a test with pools that copy what workers send, and with pools that read it in place.
fn for_each_trust(test: impl Fn(Builder)) {
    test(builder(2));
    #[expect(unsafe_code, reason = "the ops have no way to write what was sent")]
    // SAFETY: no op has a pointer to the memory that its worker shares.
    let trusting = unsafe { builder(2).trust_workers() };
    test(trusting);
}

fn scores(task: u64) -> Scores {
    let bytes = LENGTHS[task as usize % LENGTHS.len()];
    let mut by_name = BTreeMap::new();
    for name in 0..task % 3 {
        let short = (name > 0).then(|| Buffer::from(vec![task as u16; bytes / 16]));
        let rows = (0..name).map(|row| Buffer::from(vec![[row as f64; 3]; bytes / 64]));
        by_name.insert(name.to_string(), (short, rows.collect()));
    }
    Scores {
        task,
        scores: numbers(task, bytes),
        by_name,
        note: "n".repeat(bytes % 10_000),
    }
}

#[test]
fn buffers_of_every_length_arrive_at_any_depth() {
    let _watchdog = watchdog(100);
    for_each_trust(|builder| {
        let pool = builder.build_op(scores).expect("the pool starts");
        for (task, output) in pool.map(0..50).enumerate() {
            assert_eq!(output.expect("no task fails"), scores(task as u64));
        }
        let mut kept: Vec<Scores> = pool
            .map_unordered(0..50)
            .map(|output| output.expect("no task fails"))
            .collect();
        kept.sort_by_key(|output| output.task);
        assert!(kept == (0..50).map(scores).collect::<Vec<_>>());
        assert_eq!(pool.submit(13).wait().expect("the task succeeds"), scores(13));
    });
}

/// More is kept than the memory that a worker shares with its leader.
#[test]
fn buffers_that_are_kept_do_not_stop_the_pool() {
    let _watchdog = watchdog(60);
    for_each_trust(|builder| {
        let pool = builder
            .build_op(|task: u64| numbers(task, 300_000))
            .expect("the pool starts");
        let kept: Vec<Buffer<f32>> = pool
            .map(0..200)
            .map(|output| output.expect("no task fails"))
            .collect();
        // These were not looked at, so their contents must not have been replaced by those of later ones.
        for (task, output) in (0..).zip(&kept) {
            assert!(*output == numbers(task, 300_000), "{task}");
        }
    });
}

#[test]
fn buffers_outlive_worker_and_pool() {
    let _watchdog = watchdog(60);
    for_each_trust(|builder| {
        let op = |task: u64| match task {
            9 => std::process::abort(),
            _ => numbers(task, 100_000),
        };
        let pool = builder.workers(1).build_op(op).expect("the pool starts");
        let mut outputs = pool.map(0..12);
        let before: Vec<Buffer<f32>> = outputs
            .by_ref()
            .take(9)
            .map(|output| output.expect("the worker lives"))
            .collect();
        let fault = outputs
            .next()
            .expect("an outcome")
            .expect_err("the worker dies")
            .fault;
        assert!(matches!(fault, Fault::WorkerDied { .. }), "{fault}");
        let after: Vec<Buffer<f32>> = outputs
            .map(|output| output.expect("its replacement lives"))
            .collect();
        let clones = before.clone();
        drop(pool);
        for (task, output) in (0..9).chain(10..12).zip(clones.iter().chain(&after)) {
            assert!(*output == numbers(task, 100_000), "{task}");
        }
        assert!(std::ptr::eq(&*clones[0], &*before[0]), "clones share one copy");
    });
}

/// Some outputs are kept until the end, and others are larger than the parts of the memory between them.
#[test]
fn outputs_go_on_while_half_of_the_memory_is_kept() {
    let _watchdog = watchdog(100);
    for_each_trust(|builder| {
        let op = |task: u64| match task % 2 {
            0 => numbers(task, 10_000),
            _ => numbers(task, 12 << 20),
        };
        let pool = builder.build_op(op).expect("the pool starts");
        let mut kept = Vec::new();
        for (task, output) in (0..100).zip(pool.map(0..100)) {
            let output = output.expect("no task fails");
            if task % 2 == 0 || kept.len() < 10 {
                kept.push((task, output));
            }
        }
        for (task, output) in kept {
            assert!(output == op(task), "{task}");
        }
    });
}

/// Workers are killed while they write blocks, and while the caller holds some: the others are whole.
#[test]
fn killed_workers_cost_only_the_output_in_progress() {
    let _watchdog = watchdog(60);
    for_each_trust(|builder| {
        let pool = builder
            .build_op(|task: u64| numbers(task, 400_000))
            .expect("the pool starts");
        let (mut kept, mut lost) = (Vec::new(), 0);
        for (task, output) in (0..1500).zip(pool.map(0..1500)) {
            match output.map_err(|error| error.fault) {
                Ok(output) if task % 5 == 0 => kept.push((task, output)),
                Ok(output) if task % 5 == 1 => assert!(output == numbers(task, 400_000), "{task}"),
                Ok(_) => {}
                Err(Fault::WorkerDied { .. }) => lost += 1,
                Err(other) => panic!("{other}"),
            }
            if task % 50 == 7 {
                for pid in pids(&pool) {
                    try_kill(pid);
                }
            }
        }
        for (task, output) in &kept {
            assert!(*output == numbers(*task, 400_000), "{task}");
        }
        assert!(
            kept.len() > 200 && lost <= 2 * 30,
            "{} kept, {lost} lost",
            kept.len()
        );
    });
}

#[test]
fn buffers_are_dropped_and_looked_at_by_other_threads() {
    let _watchdog = watchdog(60);
    for_each_trust(|builder| {
        let pool = builder
            .build_op(|task: u64| numbers(task, 50_000))
            .expect("the pool starts");
        thread::scope(|scope| {
            let (sender, receiver) = std::sync::mpsc::channel::<(u64, Buffer<f32>)>();
            scope.spawn(move || {
                for (task, output) in receiver {
                    if task % 3 == 0 {
                        assert!(output == numbers(task, 50_000), "{task}");
                    }
                }
            });
            for (task, output) in (0..500).zip(pool.map(0..500)) {
                let output = output.expect("no task fails");
                sender.send((task, output)).expect("the thread lives");
            }
        });
    });
}

/// A worker that has been idle for a second does not share memory for outputs that are kept.
#[cfg(target_os = "linux")]
#[test]
fn kept_buffers_are_copied_when_the_pool_is_idle() {
    let _watchdog = watchdog(60);
    let shared = |pid: u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssShmem:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        kib.unwrap_or(0) << 10
    };
    let pool = pool(1, |task: u64| numbers(task, 1 << 20));
    let pid = pids(&pool)[0];
    let kept: Vec<Buffer<f32>> = pool
        .map(0..20)
        .map(|output| output.expect("no task fails"))
        .collect();
    assert!(shared(pid) > 16 << 20, "they are in shared memory");
    while shared(pid) > 4 << 20 {
        thread::sleep(Duration::from_millis(20));
    }
    for (task, output) in (0..).zip(&kept) {
        assert!(*output == numbers(task, 1 << 20), "{task}");
    }
}

/// Outputs that are read as bytes are complete, in one encoding.
#[test]
fn outputs_that_are_read_as_bytes_contain_their_buffers() {
    let _watchdog = watchdog(60);
    let pool: Pool<u64, Buffer<f32>> = pool(1, |task: u64| numbers(task, 20_000));
    let output = pool.submit(1).wait().expect("the task succeeds");
    assert_eq!(output, numbers(1, 20_000));
    let mut task = Vec::new();
    <proc_pool::Native as proc_pool::Codec<u64>>::encode(&2, &mut task).expect("a number");
    let expected = |task| {
        let mut bytes = Vec::new();
        <proc_pool::Native as proc_pool::Codec<_>>::encode(&numbers(task, 20_000), &mut bytes)
            .expect("numbers");
        bytes
    };
    let bytes = pool.bytes().submit(&task).wait().expect("the task succeeds");
    assert!(*bytes == *expected(2));
    let bytes = pool
        .bytes()
        .map([&task])
        .next()
        .expect("an output")
        .expect("the task succeeds");
    assert!(*bytes == *expected(2));
    // The pool's own outputs are as before.
    let output = pool.submit(3).wait().expect("the task succeeds");
    assert_eq!(output, numbers(3, 20_000));
}

#[test]
fn outputs_that_are_recorded_contain_their_buffers() {
    let _watchdog = watchdog(60);
    let pool: Pool<u64, Buffer<f32>> = pool(2, |task: u64| numbers(task, 20_000));
    assert!(pool.map(0..10).all(|output| output.is_ok()));
    let (sender, recorded) = std::sync::mpsc::channel();
    let mut outputs = pool.map(0..20);
    outputs.set_tap(Box::new(move |task, bytes| {
        sender.send((task, bytes.to_vec())).expect("the test waits");
    }));
    assert!(outputs.by_ref().all(|output| output.is_ok()));
    drop(outputs);
    let recorded: BTreeMap<u64, Vec<u8>> = recorded.iter().collect();
    assert_eq!(recorded.len(), 20);
    for (task, bytes) in recorded {
        let output = <proc_pool::Native as proc_pool::Codec<Buffer<f32>>>::decode(&bytes);
        assert_eq!(output.expect("the encoding of a buffer"), numbers(task, 20_000));
    }
}

#[test]
fn an_output_that_is_too_large_with_its_buffers_is_an_error() {
    let _watchdog = watchdog(60);
    let pool = builder(1)
        .max_output(100_000)
        .build(EntryPoint::op(|bytes: usize| (bytes, numbers(0, bytes))), &())
        .expect("the pool starts");
    let fault = pool.submit(200_000).wait().expect_err("too large").fault;
    assert!(
        fault.to_string().contains("exceeds the limit of 100000 bytes"),
        "{fault}"
    );
    assert_eq!(
        pool.submit(90_000).wait().expect("it fits"),
        (90_000, numbers(0, 90_000))
    );
}
