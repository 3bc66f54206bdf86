//! Runs without faults.

use std::time::Duration;

use invoker::{Executor, Invoker};
use invoker_nats::Leader;

use crate::ops::{self, Output, Task, Work};
use crate::support::{Process, Server, share};

/// The outputs of one machine.
pub(crate) fn local(tasks: impl IntoIterator<Item = Task>) -> Vec<Output> {
    let builder = Invoker::builder(ops::op)
        .context(7_u64)
        .model(ops::model())
        .seed(1);
    let invoker = builder.executor(Executor::Inline).build().expect("an invoker");
    invoker
        .map(tasks)
        .collect::<Result<_, _>>()
        .expect("no task fails")
}

pub(crate) fn lead(server: &Server, run: &str) -> Leader<Task, Output> {
    let op = Invoker::builder(ops::op).context(7_u64);
    let builder = server
        .cluster(run)
        .lead_op(op)
        .seed(1)
        .ack_wait(Duration::from_secs(1));
    builder.build().expect("a leader")
}

#[test]
fn outputs_equal_those_of_one_machine_in_order_and_as_they_complete() {
    let _turn = share(120);
    let Some(server) = Server::start() else { return };
    let nodes = [(); 2].map(|()| Process::node(&server, "equal"));
    let run = lead(&server, "equal");
    let tasks = || ops::numbers(20_000, Work::None);
    let outputs: Vec<Output> = run.map(tasks()).collect::<Result<_, _>>().expect("no task fails");
    let expected = local(tasks());
    assert!(outputs == expected);
    let mut unordered: Vec<Output> = run
        .map_unordered(tasks())
        .map(|it| it.expect("no task fails"))
        .collect();
    let mut sorted = expected;
    unordered.sort_unstable();
    sorted.sort_unstable();
    assert!(unordered == sorted);
    let report = run.finish().expect("a report");
    assert_eq!(report.delivered, 40_000, "{report}");
    assert_eq!(
        (report.nodes_lost, report.invalid, report.foreign),
        (0, 0, 0),
        "{report}"
    );
    println!("{report}");
    for node in nodes {
        let (status, lines) = node.wait();
        assert!(
            status.success() && lines.iter().any(|line| line.contains("the run has ended")),
            "{lines:?}"
        );
    }
}
