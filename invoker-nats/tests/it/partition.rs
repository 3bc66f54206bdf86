//! Nodes in network namespaces that are cut off from the server: nothing arrives that they send, and no connection is closed.
//!
//! Needs Linux, `ip` (iproute2) and the permission to make network namespaces; elsewhere the tests say so, and do nothing.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use invoker_nats::{Leader, NodeEnd};

use crate::faults::{TASKS, choose, print, run_with, seeds};
use crate::ops::{self, Output, Task, Work};
use crate::runs::{lead, local};
use crate::support::{Process, Server, share, wait_for_nodes, wait_until};

/// A network namespace with a virtual cable to this one. Deleted at the end.
struct Namespace {
    name: String,
    cable: String,
    address: String,
}

fn ip(arguments: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(arguments.split_whitespace()).stdin(Stdio::null());
    let output = command.output().map_err(|e| format!("`ip`: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "`ip {arguments}`: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

impl Namespace {
    fn new() -> Result<Self, String> {
        // Tests run at the same time, in this process and in others.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = (4 * std::process::id() + COUNT.fetch_add(1, Ordering::Relaxed)) % 10_000;
        let name = format!("it-nats-{number}");
        ip(&format!("netns add {name}"))?;
        // From here on it is this test's own, to be deleted.
        let it = Self {
            name,
            cable: format!("itn{number}"),
            address: format!("10.213.{}.1", number % 250),
        };
        let Self { name, cable, address } = &it;
        let inner = address.trim_end_matches(".1").to_owned() + ".2";
        ip(&format!("link add {cable}a type veth peer name {cable}b"))?;
        ip(&format!("link set {cable}b netns {name}"))?;
        ip(&format!("address add {address}/24 dev {cable}a"))?;
        ip(&format!("link set {cable}a up"))?;
        ip(&format!("-n {name} address add {inner}/24 dev {cable}b"))?;
        ip(&format!("-n {name} link set {cable}b up"))?;
        Ok(it)
    }

    /// Starts a node in it.
    fn node(&self, server: &Server, run: &str) -> Process {
        let url = server.url().replace("127.0.0.1", &self.address);
        Process::node_in(&["ip", "netns", "exec", &self.name], &url, run)
    }

    fn set_cable(&self, state: &str) {
        ip(&format!("link set {}a {state}", self.cable)).expect("it is this test's own");
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The cable goes with it, and with a process in it only when that has ended.
        let _ = ip(&format!("link delete {}a", self.cable));
        let _ = ip(&format!("netns delete {}", self.name));
    }
}

fn namespace() -> Option<Namespace> {
    Namespace::new()
        .map_err(|reason| {
            eprintln!(
                "skipped: network namespaces are not permitted: {}",
                reason.trim_end()
            )
        })
        .ok()
}

/// How long a node is cut off: ten seconds with `cargo xtask cluster test`.
fn cut_off() -> Duration {
    let seconds = std::env::var("IT_CUT")
        .ok()
        .and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(3))
}

/// The server listens on all addresses: a namespace has its own loopback interface.
const ALL_ADDRESSES: [&str; 2] = ["--addr", "0.0.0.0"];

/// Namespace, server, leader and nodes, in the reverse order of their ends.
type Cluster = (Namespace, Server, Leader<Task, Output>, Vec<Process>);

/// Starts a server, a leader, and three nodes, of which the first one is in the namespace. Returns once all have joined.
fn cluster(run: &str) -> Option<Cluster> {
    let namespace = namespace()?;
    let server = Server::start_with(&ALL_ADDRESSES)?;
    let leader = lead(&server, run);
    let mut nodes = vec![namespace.node(&server, run)];
    nodes.extend([(); 2].map(|()| Process::node(&server, run)));
    wait_for_nodes(&leader, &nodes);
    Some((namespace, server, leader, nodes))
}

#[test]
fn node_that_is_cut_off_for_a_while_doubles_no_output() {
    let _turn = share(120 + 60 * seeds().end);
    for seed in seeds() {
        let Some((namespace, _server, leader, _nodes)) = cluster("cut") else {
            return;
        };
        let mut since = None;
        let longest = run_with(&leader, 1 + choose(seed, 2, TASKS - 300), || {
            namespace.set_cable("down");
            since = Some(Instant::now());
        });
        let cut = since.expect("it was cut off");
        wait_until("the loss of the node", || leader.nodes() == 2);
        std::thread::sleep(cut_off().saturating_sub(cut.elapsed()));
        namespace.set_cable("up");
        let back = Instant::now();
        // It is a node again.
        wait_until("the return of the node", || leader.nodes() == 3);
        let returned = back.elapsed();
        let more = leader.map(ops::numbers(300, Work::None));
        let outputs: Vec<Output> = more.map(|it| it.expect("no task fails")).collect();
        assert!(outputs == local(ops::numbers(300, Work::None)));
        let report = leader.finish().expect("a report");
        print(
            &format!("node cut off for {:?}", cut_off()),
            seed,
            longest,
            &report,
        );
        println!("it is a node again {:.2} s after", returned.as_secs_f64());
        assert_eq!(
            (report.delivered, report.nodes_lost),
            (TASKS + 300, 1),
            "{report}"
        );
    }
}

#[test]
fn node_that_is_cut_off_for_ever_costs_no_task() {
    let _turn = share(120 + 60 * seeds().end);
    for seed in seeds() {
        let Some((namespace, _server, leader, _nodes)) = cluster("severed") else {
            return;
        };
        let longest = run_with(&leader, 1 + choose(seed, 2, TASKS - 300), || {
            namespace.set_cable("down");
        });
        let report = leader.finish().expect("a report");
        print("node cut off for ever", seed, longest, &report);
        let lost = report.nodes.iter().filter(|node| node.end == NodeEnd::Lost);
        assert_eq!((lost.count(), report.delivered), (1, TASKS), "{report}");
    }
}
