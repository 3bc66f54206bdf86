//! A cluster on this machine, a server and three nodes with one worker each, against a local pool with three workers and against the
//! client alone, which sends the same bytes in batches of the same size through the same server and back.
//!
//! The nodes are this program again. Rounds alternate; a ratio compares the rates of one round, and the median of the ratios counts.

#[path = "../../benchmarks/rows.rs"]
mod rows;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, consumer::pull, stream};
use clap::Parser;
use futures_util::StreamExt;
use invoker::{BoxError, Invoker};
use invoker_nats::{Cluster, Leader};
use serde_json::json;

use crate::rows::{median, record};

const NODES: usize = 3;
/// Tasks of a batch of the client alone, besides those of the leader's size.
const BATCH: usize = 1024;

#[derive(Parser)]
struct Args {
    /// Run short rounds, just to see that it works
    #[arg(long)]
    quick: bool,
    /// Run only these
    #[arg(value_name = "AREA", value_parser = ["small", "equal", "short", "lost"])]
    areas: Vec<String>,
    /// Ignored: there is no model
    #[arg(long, hide = true)]
    bytes: Option<u64>,
    /// Passed by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
    /// Serve as a node
    #[arg(long, hide = true)]
    node: bool,
}

/// Computes for about the number of microseconds that is the model.
fn op(micros: &u64, task: u64) -> u64 {
    if *micros == 0 {
        return task + 1;
    }
    let (started, mut value) = (Instant::now(), task);
    while started.elapsed() < Duration::from_micros(*micros) {
        value = value.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
    }
    std::hint::black_box(value);
    task + 1
}

/// Processes that end with this one.
struct Processes(Vec<Child>);

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn main() -> Result<(), BoxError> {
    invoker::init();
    let args = Args::parse();
    if args.node {
        let micros = std::env::var("BENCH_MICROS")?.parse::<u64>()?;
        let node = Invoker::builder(op).model(micros).workers(1);
        Cluster::from_env()?.serve(node)?;
        return Ok(());
    }
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../nats-server/bin/nats-server");
    let server = std::env::var_os("NATS_SERVER").map_or(installed, PathBuf::from);
    if !server.is_file() {
        println!("cluster: no NATS server; `cargo xtask cluster install` installs one");
        return Ok(());
    }
    let dir = tempfile::tempdir()?;
    let port = std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port();
    let url = format!("nats://127.0.0.1:{port}");
    let mut command = Command::new(server);
    command.args(["--jetstream", "--addr", "127.0.0.1", "--port", &port.to_string()]);
    command
        .arg("--store_dir")
        .arg(dir.path())
        .arg("--log")
        .arg(dir.path().join("log"));
    let _server = Processes(vec![command.stdin(Stdio::null()).spawn()?]);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let (rounds, scale) = if args.quick { (1, 10) } else { (3, 1) };
    let chosen = |area: &str| args.areas.is_empty() || args.areas.iter().any(|it| it == area);
    if chosen("small") {
        small_tasks(&url, rounds, 2_000_000 / scale)?;
    }
    if chosen("equal") {
        equal_batches(&url, rounds, 4_000_000 / scale)?;
    }
    if chosen("short") {
        short_tasks(&url, rounds, 1_000_000 / scale)?;
    }
    if chosen("lost") {
        lost_node(&url, 1000, 3000)?;
        lost_node(&url, 8, 600_000)?;
    }
    Ok(())
}

/// Starts a leader and its nodes, with tasks of `micros` microseconds.
fn start(
    url: &str,
    run: &str,
    micros: u64,
    max_batch: Option<usize>,
) -> Result<(Leader<u64, u64>, Processes), BoxError> {
    let leader = Cluster::new(url, run)?.lead(op).ack_wait(Duration::from_secs(1));
    let leader = match max_batch {
        Some(tasks) => leader.max_batch(tasks).build()?,
        None => leader.build()?,
    };
    let mut nodes = Processes(Vec::new());
    for _ in 0..NODES {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("--node")
            .env("INVOKER_NATS", url)
            .env("INVOKER_RUN", run);
        nodes.0.push(
            command
                .env("BENCH_MICROS", micros.to_string())
                .stdin(Stdio::null())
                .spawn()?,
        );
    }
    while leader.nodes() < NODES {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok((leader, nodes))
}

/// Returns the tasks per second.
fn rate(tasks: u64, outputs: impl Iterator<Item = Result<u64, invoker::TaskError>>) -> f64 {
    let started = Instant::now();
    assert!(
        outputs
            .zip(1..)
            .all(|(output, expected)| output.is_ok_and(|output| output == expected))
    );
    tasks as f64 / started.elapsed().as_secs_f64()
}

fn compare(row: &str, peer: &str, target: Option<f64>, rates: &[(f64, f64)]) {
    let ratios = || rates.iter().map(|(ours, theirs)| ours / theirs);
    let (ours, theirs) = (
        median(rates.iter().map(|it| it.0)),
        median(rates.iter().map(|it| it.1)),
    );
    let ratio = median(ratios());
    let spread = ratios().fold((f64::MAX, 0.0_f64), |(low, high), it| (low.min(it), high.max(it)));
    println!(
        "{row}: {ours:.0} tasks/s, {peer} {theirs:.0}: {ratio:.2} ({:.2} to {:.2})",
        spread.0, spread.1
    );
    record(&json!({
        "table": "a cluster on one machine", "row": row, "measured": format!("{ours:.0} tasks/s"),
        "peer": peer, "floor": format!("{theirs:.0} tasks/s"), "ratio": ratio, "spread": spread,
        "target": target.map(|target| format!(">= {target}")), "met": target.map(|target| ratio >= target),
    }));
}

/// A row without a peer.
fn note(row: &str, measured: &str) {
    println!("{row}: {measured}");
    record(&json!({"table": "a cluster on one machine", "row": row, "measured": measured}));
}

fn small_tasks(url: &str, rounds: usize, tasks: u64) -> Result<(), BoxError> {
    let (leader, _nodes) = start(url, "small", 0, None)?;
    let local = Invoker::builder(op).model(0).workers(NODES).build()?;
    rate(tasks / 4, leader.map(0..tasks / 4)); // batches have their size after this
    let (mut bare, mut pool) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let ours = rate(tasks, leader.map(0..tasks));
        bare.push((ours, client_alone(url, tasks as usize, BATCH)?));
        pool.push((ours, rate(tasks, local.map(0..tasks))));
    }
    compare("u64 tasks", "client alone, batches of 1,024", Some(0.7), &bare);
    compare("u64 tasks", "local pool", None, &pool);
    let batches = Traffic::of(url, "invoker.small.tasks")?;
    rate(tasks, leader.map(0..tasks));
    let batch = (tasks / batches.end().0.max(1)) as usize;
    let mut equal = Vec::new();
    for _ in 0..rounds {
        let ours = rate(tasks, leader.map(0..tasks));
        equal.push((ours, client_alone(url, tasks as usize, batch)?));
    }
    println!("the leader's batches have about {batch} tasks");
    let peer = "client alone, batches as large as the leader's";
    compare("u64 tasks", peer, None, &equal);
    let latencies: Result<Vec<f64>, invoker::TaskError> = (0..200)
        .map(|_| {
            let started = Instant::now();
            leader
                .submit(1)
                .wait()
                .map(|_| started.elapsed().as_secs_f64() * 1e3)
        })
        .collect();
    note("one task alone", &format!("{:.2} ms", median(latencies?)));
    leader.finish()?;
    Ok(())
}

/// Batches of one size, ours and those of the client alone.
fn equal_batches(url: &str, rounds: usize, tasks: u64) -> Result<(), BoxError> {
    let (leader, _nodes) = start(url, "equal", 0, Some(BATCH))?;
    rate(tasks / 4, leader.map(0..tasks / 4));
    let mut bare = Vec::new();
    for _ in 0..rounds {
        let ours = rate(tasks, leader.map(0..tasks));
        bare.push((ours, client_alone(url, tasks as usize, BATCH)?));
    }
    compare(
        "u64 tasks, batches of 1,024",
        "client alone, batches of 1,024",
        Some(0.7),
        &bare,
    );
    leader.finish()?;
    Ok(())
}

fn short_tasks(url: &str, rounds: usize, tasks: u64) -> Result<(), BoxError> {
    let (leader, _nodes) = start(url, "short", 8, None)?;
    let local = Invoker::builder(op).model(8).workers(NODES).build()?;
    rate(tasks / 4, leader.map(0..tasks / 4));
    let bytes = Traffic::of(url, "invoker.short.>")?;
    let mut pool = Vec::new();
    for _ in 0..rounds {
        pool.push((
            rate(tasks, leader.map(0..tasks)),
            rate(tasks, local.map(0..tasks)),
        ));
    }
    let per_task = bytes.end().1 as f64 / (rounds as u64 * tasks) as f64;
    note("messages of a task of 8 µs", &format!("{per_task:.1} B"));
    compare("tasks of 8 µs", "local pool", Some(0.9), &pool);
    leader.finish()?;
    Ok(())
}

/// The longest pause of a run in which a node is killed. The tasks that the node had started run again, one by one.
fn lost_node(url: &str, micros: u64, tasks: u64) -> Result<(), BoxError> {
    let (leader, mut nodes) = start(url, "lost", micros, None)?;
    let (mut longest, mut last) = (Duration::ZERO, Instant::now());
    for (index, output) in (0..).zip(leader.map(0..tasks)) {
        output?;
        longest = longest.max(last.elapsed());
        last = Instant::now();
        if index == tasks / 3 {
            nodes.0[0].kill()?;
        }
    }
    let row = format!("a node is killed among tasks of {micros} µs: longest pause with an ack_wait of 1 s");
    note(&row, &format!("{:.2} s", longest.as_secs_f64()));
    leader.finish()?;
    Ok(())
}

/// Counts the bytes of a run's messages.
struct Traffic {
    stop: tokio::sync::oneshot::Sender<()>,
    /// The number of messages and of their bytes.
    thread: std::thread::JoinHandle<(u64, u64)>,
}

impl Traffic {
    fn of(url: &str, subject: &'static str) -> Result<Self, BoxError> {
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (url, runtime) = (url.to_owned(), runtime()?);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let client = async_nats::connect(url).await.expect("the server");
                let messages = client.subscribe(subject).await.expect("a subscription");
                let sizes = messages
                    .take_until(stopped)
                    .map(|message| message.payload.len() as u64);
                let add = |(count, sum), size| std::future::ready((count + 1, sum + size));
                sizes.fold((0, 0), add).await
            })
        });
        Ok(Self { stop, thread })
    }

    fn end(self) -> (u64, u64) {
        let _ = self.stop.send(());
        self.thread.join().expect("no panic")
    }
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Sends batches of numbers through a stream to three consumers, and back through another one. Returns the numbers per second.
fn client_alone(url: &str, tasks: usize, batch: usize) -> Result<f64, BoxError> {
    let batches = tasks.div_ceil(batch);
    let consumer = |name: &str| pull::Config {
        durable_name: Some(name.to_owned()),
        max_ack_pending: 1 << 14,
        ..pull::Config::default()
    };
    let runtime_of_leader = runtime()?;
    let url_here = url.to_owned();
    let context = async move { async_nats::connect(url_here).await.map(jetstream::new) };
    let context = runtime_of_leader.block_on(context)?;
    runtime_of_leader.block_on(async {
        for name in ["BARE_T", "BARE_R"] {
            let _ = context.delete_stream(name).await;
            let config = stream::Config {
                name: name.to_owned(),
                subjects: vec![name.to_lowercase()],
                retention: stream::RetentionPolicy::WorkQueue,
                ..stream::Config::default()
            };
            let stream = context.create_stream(config).await?;
            stream.create_consumer(consumer("all")).await?;
        }
        Ok::<(), async_nats::Error>(())
    })?;
    for _ in 0..NODES {
        let (url, runtime) = (url.to_owned(), runtime()?);
        std::thread::spawn(move || {
            let _ = runtime.block_on(async {
                let context = jetstream::new(async_nats::connect(url).await?);
                let stream = context.get_stream("BARE_T").await?;
                let consumer = stream.get_consumer::<pull::Config>("all").await?;
                // It ends with its stream.
                let mut messages = consumer.messages().await?;
                while let Some(Ok(message)) = messages.next().await {
                    context.publish("bare_r", message.payload.clone()).await?.await?;
                    message.ack().await?;
                }
                Ok::<(), async_nats::Error>(())
            });
        });
    }
    let started = Instant::now();
    runtime_of_leader.block_on(async {
        let stream = context.get_stream("BARE_R").await?;
        let mut answers = stream
            .get_consumer::<pull::Config>("all")
            .await?
            .messages()
            .await?;
        let payload = bytes::Bytes::from(vec![7_u8; 8 * batch]);
        let (mut sent, mut received) = (0, 0);
        // As many are open as the leader has with three nodes: 80 short batches and 1 MiB for each, and two.
        let open = if batch > BATCH { 11 } else { 242 };
        while received < batches {
            while sent < batches && sent - received < open {
                context.publish("bare_t", payload.clone()).await?.await?;
                sent += 1;
            }
            answers.next().await.ok_or("the stream has ended")??.ack().await?;
            received += 1;
        }
        for name in ["BARE_T", "BARE_R"] {
            context.delete_stream(name).await?;
        }
        Ok::<(), async_nats::Error>(())
    })?;
    Ok((batches * batch) as f64 / started.elapsed().as_secs_f64())
}
