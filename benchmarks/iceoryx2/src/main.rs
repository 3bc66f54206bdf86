//! Outputs of two processes through iceoryx2: a peer of `cargo bench -p proc-pool --bench pool -- payloads`.
//!
//! `iceoryx2-peer BYTES` starts two children. For each line on standard input, a number of tasks, it has them make that many outputs of
//! `BYTES` bytes, and answers with a line: the sum of the outputs' first numbers: the tasks.
//!
//! This is iceoryx2 in its strong form. A child writes the numbers where its publisher will send them from, without a vector of its own. A
//! thread for each child copies them into a new vector, as all peers do, and polls: it yields where it would otherwise sleep. The
//! queue holds 4 MiB, and at least two outputs.

use std::error::Error;
use std::io::{self, BufRead, Read, Write};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

type Failure = Box<dyn Error + Send + Sync>;
/// Ports that other threads may use.
type Ports = ipc_threadsafe::Service;
type Outputs = Subscriber<Ports, [f32], ()>;

const WORKERS: u64 = 2;
/// The bytes that a queue holds.
const QUEUE: usize = 4 << 20;
/// A run takes less.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Failure> {
    set_log_level(LogLevel::Error);
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        [bytes] => lead(bytes.parse()?),
        ["child", root, worker, bytes] => publish(root, worker, bytes.parse()?),
        _ => Err("usage: iceoryx2-peer BYTES".into()),
    }
}

/// Returns a node whose files are in `root`.
fn node(root: &str) -> Result<Node<Ports>, Failure> {
    let mut config = Config::default();
    config
        .global
        .set_root_path(&iceoryx2::prelude::Path::new(root.as_bytes())?);
    Ok(NodeBuilder::new().config(&config).create()?)
}

/// Creates or opens the service of a worker.
fn service(node: &Node<Ports>, worker: &str, bytes: usize) -> Result<PortFactory<Ports, [f32], ()>, Failure> {
    let service = node
        .service_builder(&format!("outputs of {worker}").as_str().try_into()?)
        .publish_subscribe::<[f32]>()
        .enable_safe_overflow(false)
        .history_size(0)
        .subscriber_max_buffer_size((QUEUE / bytes).clamp(2, 256))
        .subscriber_max_borrowed_samples(1)
        .open_or_create()?;
    Ok(service)
}

/// The child: publishes the outputs of the ranges of tasks on standard input.
fn publish(root: &str, worker: &str, bytes: usize) -> Result<(), Failure> {
    let count = bytes / size_of::<f32>();
    let node = node(root)?;
    let service = service(&node, worker, bytes)?;
    let publisher = service
        .publisher_builder()
        .initial_max_slice_len(count)
        .max_loaned_samples(1)
        .backpressure_strategy(BackpressureStrategy::RetryUntilDelivered)
        .create()?;
    let mut input = io::stdin().lock();
    let mut range = [0; 16];
    let publish = |task: u64| -> Result<(), Failure> {
        let sample = publisher.loan_slice_uninit(count)?;
        let mut sample = sample.write_from_fn(|_| 0.5);
        sample.payload_mut()[0] = task as f32;
        match sample.send()? {
            1 => Ok(()),
            _ => Err(format!("output {task} has no receiver").into()),
        }
    };
    publish(0)?;
    while input.read_exact(&mut range).is_ok() {
        let numbers = range.as_chunks().0;
        for task in u64::from_ne_bytes(numbers[0])..u64::from_ne_bytes(numbers[1]) {
            publish(task)?;
        }
    }
    Ok(())
}

/// A child, and the thread that receives its outputs.
struct Reader {
    child: Child,
    ranges: ChildStdin,
    tasks: Sender<u64>,
    sums: Receiver<Result<u64, Failure>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn start(node: &Node<Ports>, root: &str, worker: u64, bytes: usize) -> Result<Self, Failure> {
        let service = service(node, &worker.to_string(), bytes)?;
        let outputs = service.subscriber_builder().create()?;
        let mut child = Command::new(std::env::current_exe()?)
            .args(["child", root, &worker.to_string(), &bytes.to_string()])
            .stdin(Stdio::piped())
            .spawn()?;
        let ranges = child.stdin.take().ok_or("no input")?;
        // The first output connects both sides: before, a publisher does not wait for room in the queue, and loses outputs.
        sum(&outputs, bytes, 1)?;
        let ((tasks, receiver), (sender, sums)) = (channel(), channel());
        let thread = thread::spawn(move || receive(&outputs, bytes, &receiver, &sender));
        Ok(Self {
            child,
            ranges,
            tasks,
            sums,
            thread,
        })
    }

    fn send(&mut self, range: Range<u64>) -> Result<(), Failure> {
        self.ranges.write_all(&range.start.to_ne_bytes())?;
        self.ranges.write_all(&range.end.to_ne_bytes())?;
        Ok(self.tasks.send(range.end - range.start)?)
    }

    /// Ends the child and the thread, so that they remove what they have created.
    fn end(mut self) -> Result<(), Failure> {
        drop((self.ranges, self.tasks));
        self.child.wait()?;
        self.thread.join().map_err(|_| "a reader panicked".into())
    }
}

/// Reads numbers of tasks, and answers each with the sum of that number of outputs, until the input ends.
fn receive(outputs: &Outputs, bytes: usize, tasks: &Receiver<u64>, sums: &Sender<Result<u64, Failure>>) {
    while let Ok(count) = tasks.recv() {
        let sum = sum(outputs, bytes, count);
        if sums.send(sum).is_err() {
            return;
        }
    }
}

fn sum(outputs: &Outputs, bytes: usize, count: u64) -> Result<u64, Failure> {
    let (started, mut sum, mut received) = (Instant::now(), 0, 0);
    while received < count {
        let Some(sample) = outputs.receive()? else {
            if started.elapsed() > PATIENCE {
                return Err("outputs are missing".into());
            }
            thread::yield_now();
            continue;
        };
        let output = sample.payload().to_vec();
        drop(sample);
        match output.first() {
            Some(first) if size_of_val(&output[..]) == bytes => sum += *first as u64,
            _ => return Err("an output has another length".into()),
        }
        received += 1;
    }
    Ok(sum)
}

/// A directory that is removed in the end.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn lead(bytes: usize) -> Result<(), Failure> {
    let root = Directory(std::env::temp_dir().join(format!("iceoryx2-peer-{}", std::process::id())));
    let path = root
        .0
        .to_str()
        .ok_or("the path of the temporary directory is not UTF-8")?;
    let node = node(path)?;
    let mut readers = Vec::new();
    for worker in 0..WORKERS {
        readers.push(Reader::start(&node, path, worker, bytes)?);
    }
    for line in io::stdin().lock().lines() {
        let tasks: u64 = line?.trim().parse()?;
        for (worker, reader) in (0..).zip(&mut readers) {
            reader.send(tasks * worker / WORKERS..tasks * (worker + 1) / WORKERS)?;
        }
        let mut sum = 0;
        for reader in &readers {
            sum += reader.sums.recv()??;
        }
        println!("{sum}");
    }
    readers.into_iter().try_for_each(Reader::end)
}
