//! Large and small payloads, and callers that do not take their outputs.

use std::time::Duration;

use crate::ops::{Output, Task, Work};
use crate::runs::{lead, local};
use crate::support::{Process, Server, alone};

/// Sizes around the limits of the client and of this crate, and beyond: up to `IT_PAYLOAD` MiB.
fn sizes() -> impl Iterator<Item = usize> + Clone {
    let most = std::env::var("IT_PAYLOAD")
        .ok()
        .and_then(|mib| mib.parse().ok())
        .unwrap_or(4);
    let sizes = [0, 1, 4 << 10, 256 << 10, (512 << 10) - 1, (1 << 20) + 1];
    sizes.into_iter().chain([most << 20])
}

#[test]
fn payloads_of_all_sizes_come_and_go_unchanged() {
    let _turn = alone(300);
    let Some(server) = Server::start() else { return };
    let leader = lead(&server, "sizes");
    let _nodes = [(); 2].map(|()| Process::node(&server, "sizes"));
    let tasks = || {
        let payload = |len: usize| (0..len).map(|at| (at / 7) as u8).collect::<Vec<u8>>();
        let there = move |(number, len)| Task {
            number,
            work: Work::None,
            payload: payload(len),
        };
        let back = |(number, len)| Task::new(number, Work::Output(len));
        (0_u64..)
            .zip(sizes())
            .map(there)
            .chain((100_u64..).zip(sizes()).map(back))
    };
    let outputs: Vec<Output> = leader
        .map(tasks())
        .collect::<Result<_, _>>()
        .expect("no task fails");
    assert!(outputs == local(tasks()));
    let report = leader.finish().expect("a report");
    assert_eq!((report.invalid, report.duplicates), (0, 0), "{report}");
}

/// Each task brings 64 KiB there and back, and the caller takes no output for a while: what leader, node and server keep is bounded by
/// the window, although the input is endless.
#[cfg(target_os = "linux")]
#[test]
fn memory_is_bounded_while_the_caller_takes_no_outputs() {
    use crate::support::resident;

    let stall = std::env::var("IT_STALL")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(2);
    let _turn = alone(120 + stall);
    let Some(server) = Server::start() else { return };
    let leader = lead(&server, "stalled");
    let nodes = [(); 2].map(|()| Process::node(&server, "stalled"));
    let task = |number| Task {
        number,
        work: Work::None,
        payload: vec![1; 64 << 10],
    };
    let mut outputs = leader.map((0_u64..).map(task));
    let mut take = |count| outputs.by_ref().take(count).for_each(|it| assert!(it.is_ok()));
    // By then, buffers have their sizes.
    take(1500);
    let memory = || {
        let nodes = nodes.iter().map(|node| resident(node.pid())).max().unwrap_or(0);
        [resident(std::process::id()), nodes, server.memory()].map(|bytes| bytes >> 20)
    };
    let before = memory();
    std::thread::sleep(Duration::from_secs(stall));
    let after = memory();
    println!("MiB of leader, largest node, server: {before:?} before, {after:?} after {stall} s");
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + 150, "{before} to {after} MiB");
    }
    take(500);
}
