//! Runs in which a part dies, stops, comes late or leaves: each ends with every task exactly once. `cargo xtask cluster test` runs them
//! with more seeds (`IT_SEEDS`); a seed chooses when the fault comes, and whom it hits.

use std::time::{Duration, Instant};

use invoker::{Fault, Invoker, TaskError};
use invoker_nats::{ClusterReport, Leader, NodeEnd};
use rustix::process::Signal;

use crate::ops::{self, Output, Task, Work};
use crate::runs::{lead, local};
use crate::support::{Process, Role, Server, share, wait_for_nodes, wait_until};

const ACK_WAIT: Duration = Duration::from_secs(1);
pub(crate) const TASKS: u64 = 1500;
/// 1,500 of these take 1.25 seconds on three nodes with two workers each.
const WORK: Work = Work::Sleep(Duration::from_millis(5));

/// The seeds of a test: one, or as many as `cargo xtask cluster test` asks for.
pub(crate) fn seeds() -> std::ops::Range<u64> {
    let count = std::env::var("IT_SEEDS")
        .ok()
        .and_then(|count| count.parse().ok());
    0..count.unwrap_or(1)
}

/// Returns a number below `below` that depends on the seed and on `what`.
pub(crate) fn choose(seed: u64, what: u64, below: u64) -> u64 {
    let mut mixed = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ what.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 29)) % below
}

fn nodes<const N: usize>(server: &Server, run: &str, leader: &Leader<Task, Output>) -> [Process; N] {
    let nodes = [(); N].map(|()| Process::node(server, run));
    wait_for_nodes(leader, &nodes);
    nodes
}

/// Runs the tasks, calls `fault` after `after` outputs, and compares all outputs with those of one machine. Returns the longest time
/// between two outputs.
pub(crate) fn run_with(leader: &Leader<Task, Output>, after: u64, mut fault: impl FnMut()) -> Duration {
    let tasks = || ops::numbers(TASKS, WORK);
    let (mut outputs, mut longest, mut last) = (Vec::new(), Duration::ZERO, Instant::now());
    for output in leader.map(tasks()) {
        longest = longest.max(last.elapsed());
        last = Instant::now();
        outputs.push(output.expect("no task fails"));
        if outputs.len() as u64 == after {
            fault();
        }
    }
    let quick = ops::numbers(TASKS, Work::None);
    assert!(outputs == local(quick), "every task exactly once");
    longest
}

pub(crate) fn print(what: &str, seed: u64, longest: Duration, report: &ClusterReport) {
    println!(
        "{what}, seed {seed}: longest pause {:.2} s, ack_wait {:.2} s, {} resent, {} duplicates",
        longest.as_secs_f64(),
        ACK_WAIT.as_secs_f64(),
        report.resent,
        report.duplicates,
    );
}

#[test]
fn killed_node_costs_no_task() {
    let _turn = share(60 + 30 * seeds().end);
    for seed in seeds() {
        let Some(server) = Server::start() else { return };
        let leader = lead(&server, "killed");
        let mut nodes: [Process; 3] = nodes(&server, "killed", &leader);
        let victim = choose(seed, 1, 3) as usize;
        let longest = run_with(&leader, 1 + choose(seed, 2, TASKS - 300), || nodes[victim].kill());
        let report = leader.finish().expect("a report");
        print("node killed", seed, longest, &report);
        assert_eq!(
            report
                .nodes
                .iter()
                .filter(|node| node.end == NodeEnd::Lost)
                .count(),
            1,
            "{report}"
        );
    }
}

#[test]
fn server_that_is_killed_and_comes_back_costs_no_task() {
    let _turn = share(60 + 30 * seeds().end);
    for seed in seeds() {
        let Some(mut server) = Server::start() else { return };
        let leader = lead(&server, "server");
        let _nodes: [Process; 3] = nodes(&server, "server", &leader);
        let longest = run_with(&leader, 1 + choose(seed, 2, TASKS - 1), || {
            server.kill();
            std::thread::sleep(Duration::from_secs(2));
            server.run();
        });
        let report = leader.finish().expect("a report");
        print("server killed for 2 s", seed, longest, &report);
    }
}

#[test]
fn leader_that_is_killed_and_resumed_takes_the_outputs_that_are_there() {
    let _turn = share(60 + 60 * seeds().end);
    for seed in seeds() {
        let Some(server) = Server::start() else { return };
        let variables = [("IT_TASKS", "1500"), ("IT_SLEEP_MS", "5")];
        let start = || Process::start(Role::Leader, &server, "resumed", &variables);
        let mut leader = start();
        let nodes = [(); 3].map(|()| Process::node(&server, "resumed"));
        let after = 100 + choose(seed, 2, 1000);
        leader.line(&format!("output {after} "));
        leader.kill();
        let killed = Instant::now();
        let (status, lines) = start().wait();
        assert!(status.success(), "{lines:?}");
        let outputs: Vec<&str> = lines
            .iter()
            .filter_map(|line| line.strip_prefix("output "))
            .collect();
        let expected = local(ops::numbers(1500, Work::None));
        let expected = expected
            .iter()
            .enumerate()
            .map(|(index, (value, seed, _))| format!("{index} {value} {seed}"));
        assert!(outputs.iter().copied().eq(expected), "every task exactly once");
        let report = lines
            .iter()
            .find(|line| line.starts_with("finished "))
            .expect("a report");
        let delivered: u64 = report
            .split_whitespace()
            .nth(2)
            .and_then(|it| it.parse().ok())
            .expect("a number");
        println!(
            "leader killed, seed {seed}: killed at {after} of 1500, {delivered} were left; all after {:?}",
            killed.elapsed()
        );
        assert!(delivered <= 1500 - after, "{report}");
        for node in nodes {
            assert!(node.wait().0.success());
        }
    }
}

#[test]
fn node_that_was_stopped_and_continues_doubles_no_output() {
    let _turn = share(120 + 60 * seeds().end);
    let stopped = std::env::var("IT_STOPPED")
        .ok()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(2);
    for seed in seeds() {
        let Some(server) = Server::start() else { return };
        let leader = lead(&server, "stopped");
        let nodes: [Process; 3] = nodes(&server, "stopped", &leader);
        let victim = choose(seed, 1, 3) as usize;
        let longest = run_with(&leader, 1 + choose(seed, 2, TASKS - 300), || {
            nodes[victim].signal(Signal::STOP)
        });
        std::thread::sleep(Duration::from_secs(stopped));
        nodes[victim].signal(Signal::CONT);
        // It is a node again.
        wait_until("the return of the node", || leader.nodes() == 3);
        let outputs: Vec<Output> = leader
            .map(ops::numbers(300, WORK))
            .map(|it| it.expect("no task fails"))
            .collect();
        assert!(outputs == local(ops::numbers(300, Work::None)));
        let report = leader.finish().expect("a report");
        print("node stopped", seed, longest, &report);
        assert_eq!(report.delivered, TASKS + 300, "{report}");
    }
}

#[test]
fn node_that_joins_late_takes_part() {
    let _turn = share(60 + 30 * seeds().end);
    for seed in seeds() {
        let Some(server) = Server::start() else { return };
        let leader = lead(&server, "late");
        let _first: [Process; 1] = nodes(&server, "late", &leader);
        let mut late = None;
        run_with(&leader, 1 + choose(seed, 2, 300), || {
            late = Some(Process::node(&server, "late"));
            wait_until("the second node", || leader.nodes() == 2);
        });
        let report = leader.finish().expect("a report");
        assert!(
            report.nodes.len() == 2 && report.nodes[1].delivered > 0,
            "{report}"
        );
    }
}

#[test]
fn node_that_is_asked_to_leave_gives_back_its_tasks() {
    let _turn = share(60 + 30 * seeds().end);
    for seed in seeds() {
        let Some(server) = Server::start() else { return };
        let leader = lead(&server, "leave");
        let [leaving, _others @ ..]: [Process; 3] = nodes(&server, "leave", &leader);
        let longest = run_with(&leader, 1 + choose(seed, 2, TASKS - 300), || {
            leaving.signal(Signal::TERM)
        });
        let (status, lines) = leaving.wait();
        assert!(
            status.success() && lines.iter().any(|line| line.contains("asked to leave")),
            "{lines:?}"
        );
        let report = leader.finish().expect("a report");
        print("node asked to leave", seed, longest, &report);
        assert_eq!((report.nodes_lost, report.nodes[0].failed), (0, 0), "{report}");
    }
}

#[test]
fn task_that_kills_its_nodes_fails_alone() {
    let _turn = share(60 + 60 * seeds().end);
    for seed in seeds() {
        let Some(server) = Server::start() else { return };
        let leader = lead(&server, "poison");
        let _nodes: [Process; 3] = nodes(&server, "poison", &leader);
        let poison = choose(seed, 1, TASKS);
        let task = |number| Task::new(number, if number == poison { Work::KillNode } else { WORK });
        let mut failed = Vec::new();
        for (number, output) in (0_u64..).zip(leader.map((0..TASKS).map(task))) {
            if let Err(TaskError { task, fault }) = output {
                assert_eq!(task, number);
                failed.push((task, fault));
            }
        }
        let [(index, Fault::NodeLost { losses: 2, .. })] = &failed[..] else {
            panic!("seed {seed}: {failed:?}");
        };
        assert_eq!(*index, poison);
        let report = leader.finish().expect("a report");
        println!(
            "poison task, seed {seed}: {} nodes lost, {} batches resent",
            report.nodes_lost, report.resent
        );
        assert_eq!((report.nodes_lost, report.delivered), (2, TASKS - 1), "{report}");
    }
}

#[test]
fn errors_of_tasks_are_those_of_one_machine() {
    let _turn = share(120);
    let Some(server) = Server::start() else { return };
    let leader = lead(&server, "errors");
    let _nodes: [Process; 2] = nodes(&server, "errors", &leader);
    let work = |number| match number % 50 {
        7 => Work::Panic,
        31 => Work::Exit,
        _ => Work::None,
    };
    let outputs = leader.map((0..200).map(|number| Task::new(number, work(number))));
    for (number, output) in (0_u64..).zip(outputs) {
        match (work(number), output) {
            (Work::None, Ok(_)) => {}
            (
                Work::Panic,
                Err(TaskError {
                    task,
                    fault: Fault::Panicked { message, .. },
                }),
            ) => {
                assert_eq!((task, message), (number, format!("task {number} panics")));
            }
            (
                Work::Exit,
                Err(TaskError {
                    task,
                    fault: Fault::WorkerDied { .. },
                }),
            ) => assert_eq!(task, number),
            (work, output) => panic!("task {number}, {work:?}: {:?}", output.map(|_| ())),
        }
    }
    let report = leader.finish().expect("a report");
    assert_eq!((report.nodes_lost, report.delivered), (0, 200), "{report}");
    assert_eq!(
        report.nodes.iter().map(|node| node.worker_deaths).sum::<u64>(),
        4,
        "{report}"
    );
}

#[test]
fn a_leader_without_a_run_to_end_is_replaced_by_the_next_one() {
    let _turn = share(120);
    let Some(server) = Server::start() else { return };
    let first = lead(&server, "again");
    let op = || Invoker::builder(ops::op).context(7_u64);
    let error = server
        .cluster("again")
        .lead_op(op())
        .build()
        .expect_err("there is a leader");
    assert!(error.to_string().contains("has a leader already"), "{error}");
    drop(first);
    let second = lead(&server, "again");
    let _nodes: [Process; 1] = nodes(&server, "again", &second);
    assert_eq!(
        second
            .map(ops::numbers(10, Work::None))
            .filter(Result::is_ok)
            .count(),
        10
    );
}
