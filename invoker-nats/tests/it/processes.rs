//! The processes that tests start: not tests themselves.

use invoker::Invoker;
use invoker_nats::Cluster;
use tracing_subscriber::prelude::*;

use crate::ops;

#[test]
#[ignore = "a node, which other tests start"]
fn node() {
    let cluster = match std::env::var_os("IT_INSECURE") {
        Some(_) => Cluster::from_env_insecure(),
        None => Cluster::from_env(),
    };
    let cluster = cluster.expect("its environment");
    tracing_subscriber::registry().with(cluster.relay()).init();
    let builder = Invoker::builder(ops::op).context(0_u64);
    let builder = match std::env::var_os("IT_MODEL") {
        Some(path) => builder.image(open(&path)),
        None => builder.model(ops::model()),
    };
    println!("starting");
    match cluster.serve(builder) {
        Ok(report) => println!("served {report}"),
        Err(error) => println!("error {error}"),
    }
}

#[allow(unsafe_code, reason = "maps a file")]
fn open(path: &std::ffi::OsStr) -> invoker::Image {
    // SAFETY: no test changes the file of a model while it exists.
    unsafe { invoker::Image::open(path) }.expect("an image")
}

#[test]
#[ignore = "a leader, which other tests start"]
fn leader() {
    let cluster = Cluster::from_env().expect("its environment");
    let number = |name: &str| -> Option<u64> { std::env::var(name).ok()?.parse().ok() };
    let tasks = number("IT_TASKS").expect("the number of tasks");
    let work = ops::Work::Sleep(std::time::Duration::from_millis(
        number("IT_SLEEP_MS").unwrap_or(1),
    ));
    let op = Invoker::builder(ops::op).context(7_u64);
    let run = cluster
        .lead_op(op)
        .seed(1)
        .resumable()
        .ack_wait(std::time::Duration::from_secs(1))
        .build();
    let run = run.expect("a leader");
    println!("leading");
    for (index, output) in (0_u64..).zip(run.map(ops::numbers(tasks, work))) {
        let (value, seed, _) = output.expect("no task fails");
        println!("output {index} {value} {seed}");
    }
    println!("finished {}", run.finish().expect("a report"));
}
