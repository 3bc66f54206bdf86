//! Buffers of tasks: they travel apart from the task, at any depth, and an op may keep them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proc_pool::{
    BoxError, CallError, CancelOutcome, Codec, EntryPoint, Fault, Native, OutputBuf, Pool, Service,
    WorkerContext,
};
use serde::{Deserialize, Serialize};
use shm_buffers::Buffer;
use shm_buffers::out_of_band::{Received, collect, restore};

use crate::support::{
    Rendezvous, builder, numbers, pids, pool, random, release, run_one, try_kill, wait_for_release, watchdog,
};

/// A task with buffers at several depths.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Job {
    number: u64,
    scores: Buffer<f32>,
    parts: Vec<Part>,
    by_name: BTreeMap<String, Named>,
    note: String,
}

/// A buffer of numbers, if there is one, and buffers of rows.
type Named = (Option<Buffer<u16>>, Vec<Buffer<[f64; 3]>>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Part {
    Nothing,
    Bytes(Buffer<u8>),
    Both {
        left: Buffer<u64>,
        right: Option<Box<Part>>,
    },
}

/// The lengths of a buffer, in bytes, that matter: none, inline, just below and at the limit for travelling apart, one block, and more
/// than a block.
const LENGTHS: [usize; 9] = [
    0,
    40,
    8188,
    8192,
    8196,
    100_000,
    1 << 20,
    (1 << 20) + 4,
    5_000_000,
];

/// Makes a task of random shape.
fn job(seed: u64) -> Job {
    let mut random = random(seed);
    let mut length = move |most: usize| {
        let bytes = LENGTHS[random() as usize % LENGTHS.len()];
        (bytes.min(most), random())
    };
    let mut part = |depth: u64| {
        let mut part = Part::Nothing;
        for _ in 0..depth {
            let (bytes, number) = length(300_000);
            part = match number % 3 {
                0 => Part::Bytes(Buffer::from(vec![number as u8; bytes])),
                _ => Part::Both {
                    left: Buffer::from(vec![number; bytes / 8]),
                    right: (number % 3 == 1).then(|| Box::new(part)),
                },
            };
        }
        part
    };
    let parts = (0..seed % 4).map(&mut part).collect();
    let mut by_name = BTreeMap::new();
    for name in 0..seed % 3 {
        let (bytes, number) = length(100_000);
        let short = (name > 0).then(|| Buffer::from(vec![number as u16; bytes / 2]));
        let rows = (0..name + 1).map(|row| Buffer::from(vec![[row as f64; 3]; bytes / 24]));
        by_name.insert(name.to_string(), (short, rows.collect()));
    }
    let (bytes, number) = length(usize::MAX);
    Job {
        number,
        scores: numbers(seed, bytes),
        parts,
        by_name,
        note: "n".repeat(length(20_000).0),
    }
}

fn echo(job: Job) -> Job {
    job
}

#[test]
fn buffers_of_every_length_arrive_at_any_depth() {
    let _watchdog = watchdog(100);
    let pool = pool(2, echo);
    for (seed, output) in pool.map((0..60).map(job)).enumerate() {
        assert_eq!(output.expect("no task fails"), job(seed as u64));
    }
    let mut kept: Vec<Job> = pool
        .map_unordered((60..100).map(job))
        .map(|output| output.expect("no task fails"))
        .collect();
    let mut expected: Vec<Job> = (60..100).map(job).collect();
    kept.sort_by_key(|job| job.number);
    expected.sort_by_key(|job| job.number);
    assert!(kept == expected);
    for (task, output) in pool.map_owned((100..120).map(job)).with_inputs() {
        assert_eq!(output.expect("no task fails"), task);
    }
    let handles: Vec<_> = (120..140).map(|seed| pool.submit(job(seed))).collect();
    for (seed, handle) in (120..140).zip(handles) {
        assert_eq!(handle.wait().expect("the task succeeds"), job(seed));
    }
}

/// The outputs are those of tasks whose encodings contain their buffers.
#[test]
fn outputs_are_those_of_tasks_that_contain_their_buffers() {
    fn digest(job: Job) -> Vec<u8> {
        let mut bytes = Vec::new();
        Native::encode(&job, &mut bytes).expect("it can be encoded");
        bytes
    }
    let _watchdog = watchdog(100);
    let pool = pool(2, digest);
    let encoded = (200..260).map(|seed| digest(job(seed)));
    let whole: Vec<_> = pool
        .bytes()
        .map(encoded)
        .map(|output| output.expect("no task fails").into_vec())
        .collect();
    for (seed, (whole, output)) in (200..).zip(whole.iter().zip(pool.map((200..260).map(job)))) {
        let output = output.expect("no task fails");
        assert!(output == *whole && output == digest(job(seed)), "{seed}");
    }
}

/// Counts the bytes of the encodings of tasks in this process.
struct Counted;

static ENCODED_BYTES: AtomicUsize = AtomicUsize::new(0);

impl<T> Codec<T> for Counted
where
    Native: Codec<T>,
{
    fn encode(value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
        let before = into.len();
        Native::encode(value, into)?;
        ENCODED_BYTES.fetch_add(into.len() - before, Ordering::Relaxed);
        Ok(())
    }

    fn decode(bytes: &[u8]) -> Result<T, BoxError> {
        Native::decode(bytes)
    }
}

#[test]
fn encodings_leave_out_large_buffers_and_contain_small_ones() {
    let _watchdog = watchdog(60);
    let op = EntryPoint::op(|buffer: Buffer<f32>| buffer.iter().sum::<f32>());
    let pool = builder(1)
        .build(op.codecs(Counted, Native), &())
        .expect("the pool starts");
    for (bytes, expected) in [(8188, 8188..9000), (8192, 1..64), (40 << 20, 1..64)] {
        ENCODED_BYTES.store(0, Ordering::Relaxed);
        let task = Buffer::from(vec![1.0_f32; bytes / 4]);
        assert_eq!(run_one(&pool, task), (bytes / 4) as f32);
        let encoded = ENCODED_BYTES.load(Ordering::Relaxed);
        assert!(expected.contains(&encoded), "{bytes}: {encoded}");
    }
}

/// Many buffers, each of which is too small to travel apart.
#[test]
fn many_small_buffers_and_a_long_encoding_arrive() {
    let _watchdog = watchdog(60);
    let pool = pool(1, |task: (Vec<Buffer<u8>>, String)| task);
    let task = |count: usize, long: usize| {
        let buffers = (0..count).map(|at| Buffer::from(vec![at as u8; at % 3000]));
        (buffers.collect::<Vec<_>>(), "x".repeat(long))
    };
    for (count, long) in [(1, 0), (1000, 0), (1000, 100_000), (0, 100_000)] {
        assert_eq!(run_one(&pool, task(count, long)), task(count, long));
    }
    let mut mixed = task(100, 50_000);
    mixed.0.push(Buffer::from(vec![7; 30_000]));
    mixed.0.extend(task(100, 0).0);
    assert_eq!(run_one(&pool, mixed.clone()), mixed);
}

/// More buffers than the ring has frames for, and more bytes than the arena holds.
#[test]
fn thousands_of_buffers_of_one_task_arrive() {
    let _watchdog = watchdog(60);
    let op = |buffers: Vec<Buffer<u32>>| -> Vec<u64> {
        let sum = |buffer: &Buffer<u32>| buffer.iter().map(|&n| u64::from(n)).sum();
        buffers.iter().map(sum).collect()
    };
    let pool = pool(2, op);
    let task: Vec<Buffer<u32>> = (0..5000).map(|n| Buffer::from(vec![n; 2100])).collect();
    let expected: Vec<u64> = (0..5000).map(|n| 2100 * n).collect();
    for output in pool.map([task.clone(), task[..3].to_vec(), task]) {
        let output = output.expect("no task fails");
        assert!(output == expected[..output.len()]);
    }
}

/// An op that keeps the buffers of its last tasks, and looks at the oldest one only before it drops it.
mod keeping {
    use super::*;

    static KEPT: Mutex<VecDeque<(u64, Buffer<f32>)>> = Mutex::new(VecDeque::new());

    /// Keeps the buffer, and returns how many kept ones had the wrong bytes. `most` are kept, and every fifth one for longer.
    pub(super) fn keep((number, bytes, most, buffer): (u64, usize, usize, Buffer<f32>)) -> (u64, usize) {
        let mut kept = KEPT.lock().expect("no op panics");
        kept.push_back((number, buffer));
        let mut wrong = 0;
        while kept.len() > most {
            let (old, buffer) = kept.pop_front().expect("one is kept");
            wrong += usize::from(buffer != numbers(old, bytes));
        }
        // In the middle, some are dropped that nothing has looked at.
        if number % 5 == 4 && kept.len() > 3 {
            let middle = kept.len() / 2;
            kept.remove(middle);
        }
        (number, wrong)
    }
}

#[test]
fn ops_may_keep_buffers_of_tasks() {
    let _watchdog = watchdog(100);
    for (bytes, most) in [(8192, 300), (100_000, 40), (1 << 20, 5), (3_000_000, 3)] {
        let pool = pool(2, keeping::keep);
        let tasks = (0..500).map(|number| (number, bytes, most, numbers(number, bytes)));
        for (number, output) in (0..).zip(pool.map(tasks)) {
            let output = output.expect("no task fails");
            assert_eq!(output, (number, 0), "{bytes} {most}");
        }
    }
}

/// A worker copies what its op keeps before its leader returns the memory to the system.
#[test]
fn kept_buffers_outlive_an_idle_time() {
    let _watchdog = watchdog(60);
    let pool = pool(1, keeping::keep);
    let task = |number| (number, 100_000, 8, numbers(number, 100_000));
    assert!(pool.map((0..8).map(task)).all(|output| output.is_ok()));
    let large: Pool<_, _> = pool;
    std::thread::sleep(Duration::from_millis(2500));
    for (number, output) in (8..30).zip(large.map((8..30).map(task))) {
        assert_eq!(output.expect("no task fails"), (number, 0));
    }
}

/// Buffers that an op keeps come back as outputs, much later.
#[test]
fn kept_buffers_come_back_as_outputs() {
    static KEPT: Mutex<Vec<Buffer<f32>>> = Mutex::new(Vec::new());
    fn exchange(buffer: Buffer<f32>) -> Option<Buffer<f32>> {
        let mut kept = KEPT.lock().expect("no op panics");
        kept.push(buffer);
        (kept.len() > 20).then(|| kept.remove(0))
    }
    let _watchdog = watchdog(60);
    let pool = pool(1, exchange);
    for (number, output) in (0..100).zip(pool.map((0..100).map(|number| numbers(number, 200_000)))) {
        match output.expect("no task fails") {
            None => assert!(number < 20),
            Some(output) => assert!(output == numbers(number - 20, 200_000), "{number}"),
        }
    }
}

/// Workers are killed at any moment, also while tasks are sent to them: each task runs again with the same bytes.
#[test]
fn tasks_are_sent_again_to_other_workers() {
    let _watchdog = watchdog(100);
    let op = |(number, buffers): (u64, Vec<Buffer<f32>>)| {
        let wrong = buffers
            .iter()
            .filter(|buffer| ***buffer != *numbers(number, 4 * buffer.len()));
        (number, buffers.len(), wrong.count())
    };
    let pool = builder(2).retries(100).build_op(op).expect("the pool starts");
    let lengths = |number: u64| match number % 3 {
        0 => vec![2_500_000, 9000, 0, 600_000],
        1 => vec![100_000; 3],
        _ => vec![8192],
    };
    let task = |number| {
        let buffers = lengths(number).into_iter().map(|bytes| numbers(number, bytes));
        (number, buffers.collect())
    };
    let mut killed = 0;
    for (number, output) in (0..300).zip(pool.map((0..300).map(task))) {
        let output = output.expect("it runs again");
        assert_eq!(output, (number, lengths(number).len(), 0));
        if number % 10 == 7 {
            killed += pids(&pool).into_iter().filter(|&pid| try_kill(pid)).count();
        }
    }
    assert!(killed > 20, "{killed}");
}

/// A task of which some buffers have been sent is sent again from its beginning when its worker dies, and its op gets the same bytes.
#[test]
fn a_task_is_sent_again_if_its_worker_dies_while_it_is_sent() {
    let _watchdog = watchdog(100);
    let rendezvous = Rendezvous::new();
    let op = |(path, filler): (String, Vec<Buffer<u8>>)| {
        if !path.is_empty() {
            wait_for_release(&path);
            std::process::exit(7);
        }
        filler.iter().all(|buffer| buffer.iter().all(|&byte| byte == 5))
    };
    let pool = pool(1, op);
    for filler in [vec![20 << 20], vec![500_000; 40]] {
        let deaths = pool.stats().deaths;
        let fatal = pool.submit((rendezvous.address.clone(), vec![Buffer::from(vec![1; 10_000])]));
        let waiting = rendezvous.accept();
        let buffers = filler.into_iter().map(|bytes| Buffer::from(vec![5; bytes]));
        let large = pool.submit((String::new(), buffers.collect()));
        release(waiting);
        assert!(fatal.wait().is_err());
        assert!(large.wait().expect("the task was not running"));
        assert_eq!(pool.stats().deaths, deaths + 1);
    }
}

/// A task of which some buffers have been sent is withdrawn like any other, and its worker continues.
#[test]
fn a_task_can_be_withdrawn_while_it_is_sent() {
    let _watchdog = watchdog(100);
    let rendezvous = Rendezvous::new();
    let op = |(path, filler): (String, Vec<Buffer<u8>>)| {
        if !path.is_empty() {
            wait_for_release(&path);
        }
        filler.iter().map(|buffer| buffer.len()).sum::<usize>()
    };
    let pool = pool(1, op);
    let plain = |lengths: &[usize]| {
        let buffers = lengths.iter().map(|&bytes| Buffer::from(vec![1; bytes]));
        (String::new(), buffers.collect::<Vec<_>>())
    };
    for round in 0..6 {
        let blocked = pool.submit((rendezvous.address.clone(), plain(&[50_000]).1));
        let waiting = rendezvous.accept();
        // More than the arena holds, in one buffer or in many.
        let large = pool.submit(match round % 2 {
            0 => plain(&[20 << 20]),
            _ => plain(&[300_000; 50]),
        });
        let last = pool.submit(plain(&[100_000, 10]));
        match round / 2 {
            0 => drop(large),
            1 => assert_eq!(large.cancel(), CancelOutcome::Withdrawn),
            _ => assert_eq!(large.kill(), CancelOutcome::Withdrawn),
        }
        release(waiting);
        assert_eq!(blocked.wait().expect("the task succeeds"), 50_000);
        assert_eq!(last.wait().expect("the task succeeds"), 100_010);
    }
    let stats = pool.stats();
    assert_eq!((stats.submitted, stats.answered, stats.failed), (18, 12, 6));
    assert_eq!(stats.deaths, 0);
}

#[test]
fn panics_with_buffers_fail_only_their_tasks() {
    let _watchdog = watchdog(60);
    let op = |(number, buffer): (u64, Buffer<f32>)| {
        assert!(number % 3 != 1, "a third of the tasks panics");
        buffer == numbers(number, 4 * buffer.len())
    };
    let pool = pool(2, op);
    let tasks = (0..200).map(|number| (number, numbers(number, LENGTHS[number as usize % 8])));
    for (number, output) in (0..200).zip(pool.map(tasks)) {
        match output.map_err(|error| error.fault) {
            Ok(right) => assert!(right && number % 3 != 1, "{number}"),
            Err(Fault::Panicked { .. }) => assert_eq!(number % 3, 1),
            Err(other) => panic!("{number}: {other}"),
        }
    }
}

/// A task that cannot be decoded takes its buffers with it.
#[test]
fn tasks_with_buffers_that_cannot_be_decoded_fail_alone() {
    /// A number below 100, or an error.
    #[derive(Serialize, Deserialize)]
    #[serde(try_from = "u8", into = "u8")]
    #[derive(Clone)]
    struct Small(u8);

    impl TryFrom<u8> for Small {
        type Error = &'static str;

        fn try_from(number: u8) -> Result<Self, &'static str> {
            match number {
                ..100 => Ok(Self(number)),
                _ => Err("too large"),
            }
        }
    }

    impl From<Small> for u8 {
        fn from(small: Small) -> u8 {
            small.0
        }
    }

    let _watchdog = watchdog(60);
    let pool = pool(
        1,
        |(before, Small(number), after): (Buffer<f32>, Small, Buffer<f32>)| {
            before.len() + after.len() + usize::from(number)
        },
    );
    let task = |number: u8| (numbers(0, 100_000), Small(number), numbers(1, 9000));
    let tasks = (0..100).map(|n| task(if n % 2 == 0 { 3 } else { 200 }));
    for (number, output) in pool.map(tasks).enumerate() {
        match output.map_err(|error| error.fault) {
            Ok(sum) => assert_eq!((number % 2, sum), (0, 25_000 + 2250 + 3)),
            Err(Fault::Task(text)) => assert!(number % 2 == 1 && text.contains("too large"), "{text}"),
            Err(other) => panic!("{other}"),
        }
    }
}

/// A service reads the whole encoding.
#[test]
fn services_of_pools_with_codecs_get_tasks_with_their_buffers() {
    struct Count;

    impl Service for Count {
        fn start(_: &mut WorkerContext, _: &[u8]) -> Result<Self, BoxError> {
            Ok(Self)
        }

        fn call(&mut self, task: &[u8], output: &mut OutputBuf) -> Result<(), CallError> {
            let buffer: Buffer<u8> = Native::decode(task).map_err(|e| CallError::Task(e.to_string()))?;
            output.extend_from_slice(&buffer);
            Ok(())
        }
    }

    let _watchdog = watchdog(60);
    let bytes = builder(1)
        .build(EntryPoint::service::<Count>(), &[])
        .expect("the pool starts");
    let pool: Pool<Buffer<u8>, Vec<u8>> = bytes.with_codecs(Native, Native);
    for len in [0, 100, 8192, 3_000_000] {
        assert_eq!(run_one(&pool, Buffer::from(vec![7; len])), vec![7; len]);
    }
}

/// Memory whose drop uses the pool.
struct Owner {
    bytes: Vec<u8>,
    pool: Arc<Pool<Buffer<u8>, usize>>,
    dropped: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // It needs the lock of the pool.
        let _ = self.pool.stats();
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// The pool drops a buffer of a task while it holds none of its locks.
#[test]
fn owners_of_buffers_may_use_the_pool_when_they_are_dropped() {
    let _watchdog = watchdog(60);
    let op = |buffer: Buffer<u8>| {
        if buffer[0] == 1 {
            std::process::abort();
        }
        buffer.len()
    };
    let pool = Arc::new(builder(2).retries(2).build_op(op).expect("the pool starts"));
    let dropped = Arc::new(AtomicUsize::new(0));
    let task = |first: u8, len: usize| -> Buffer<u8> {
        let mut bytes = vec![2; len];
        bytes[0] = first;
        let owner = Owner {
            bytes,
            pool: pool.clone(),
            dropped: dropped.clone(),
        };
        let mut encoded = Vec::new();
        let stand_in = Buffer::from(vec![0_u8; 10_000]);
        let collected = collect(1, || {
            encoded.clear();
            Native::encode(&stand_in, &mut encoded)
        });
        collected.result.expect("it can be encoded");
        restore(vec![Received::Bytes(Box::new(owner))], || {
            Native::decode(&encoded)
        })
        .expect("a buffer")
    };
    let outputs = pool.map((0..50).map(|number| task(2, 10_000 * number + 10_000)));
    assert!(
        outputs
            .zip(1..)
            .all(|(len, n)| len.expect("no task fails") == 10_000 * n)
    );
    // A worker dies, a map and handles are dropped.
    assert!(pool.submit(task(1, 100_000)).wait().is_err());
    let mut outputs = pool.map_unordered((0..50).map(|_| task(2, 400_000)));
    assert!(outputs.next().expect("an output").is_ok());
    drop(outputs);
    let handles: Vec<_> = (0..20).map(|_| pool.submit(task(2, 3_000_000))).collect();
    drop(handles);
    let deadline = Instant::now() + Duration::from_secs(30);
    assert!(pool.submit(task(2, 10_000)).wait().is_ok());
    pool.wait_ready().expect("the workers are replaced");
    while dropped.load(Ordering::SeqCst) < 51 || Arc::strong_count(&pool) > 1 {
        assert!(Instant::now() < deadline, "some are not dropped");
        let _ = run_one(&pool, Buffer::from(vec![2; 10]));
    }
}

/// A format that reads fields in another order than it writes them: those of `inner` come last.
#[test]
fn buffers_find_their_fields_in_any_order() {
    struct Json;

    impl<T: Serialize + serde::de::DeserializeOwned> Codec<T> for Json {
        fn encode(value: &T, into: &mut Vec<u8>) -> Result<(), BoxError> {
            Ok(serde_json::to_writer(into, value)?)
        }

        fn decode(bytes: &[u8]) -> Result<T, BoxError> {
            Ok(serde_json::from_slice(bytes)?)
        }
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Outer {
        #[serde(flatten)]
        inner: Inner,
        last: Buffer<u8>,
        either: Vec<Either>,
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Inner {
        first: Buffer<u8>,
        second: Buffer<u16>,
    }

    /// To read the second kind, the first one is tried before.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Either {
        Pair { one: Buffer<u8>, two: Buffer<u8> },
        Single { one: Buffer<u8> },
    }

    let _watchdog = watchdog(60);
    let op = EntryPoint::op(|task: Outer| task);
    let pool = builder(1)
        .build(op.codecs(Json, Json), &())
        .expect("the pool starts");
    let bytes = |byte: u8, len| Buffer::from(vec![byte; len]);
    for len in [100, 9000, 2_000_000] {
        let either = |n: u8| match n % 2 {
            0 => Either::Single { one: bytes(n, len) },
            _ => Either::Pair {
                one: bytes(n, len),
                two: bytes(n + 100, 20),
            },
        };
        let task = Outer {
            inner: Inner {
                first: bytes(1, len),
                second: Buffer::from(vec![2; len]),
            },
            last: bytes(3, len),
            either: (0..6).map(either).collect(),
        };
        assert_eq!(run_one(&pool, task.clone()), task);
    }
}
