//! Events of nodes and their workers, as the leader repeats them.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use invoker_nats::NodeEnd;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;

use crate::ops::{self, Work};
use crate::runs::lead;
use crate::support::{Process, Server, share, wait_for_nodes, wait_until};

/// The events that were repeated in this process: level and fields.
static REPEATED: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

fn repeated() -> Vec<(Level, String)> {
    REPEATED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

struct Collect;

struct Fields(String);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0 += &format!("{}={value:?} ", field.name());
    }
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Collect {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "log_bridge::relay" {
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            let mut all = REPEATED.lock().unwrap_or_else(PoisonError::into_inner);
            all.push((*event.metadata().level(), fields.0));
        }
    }
}

#[test]
fn events_of_workers_come_to_the_leader_and_a_dead_node_has_last_words() {
    let _turn = share(120);
    let Some(server) = Server::start() else { return };
    tracing_subscriber::registry().with(Collect).init();
    let leader = lead(&server, "logs");
    let mut nodes = [(); 2].map(|()| Process::node(&server, "logs"));
    wait_for_nodes(&leader, &nodes);
    let names: Vec<String> = nodes.iter().map(|node| format!(":{}", node.pid())).collect();
    for output in leader.map(ops::numbers(200, Work::Log)) {
        output.expect("no task fails");
    }
    let from = |name: &str| {
        let of_node = |(level, fields): &&(Level, String)| {
            *level == Level::WARN && fields.contains(name) && fields.contains("source=\"it::ops\"")
        };
        repeated().iter().filter(of_node).count()
    };
    wait_until("events of both nodes", || names.iter().all(|name| from(name) > 0));
    nodes[0].kill();
    wait_until("the loss of the node", || leader.nodes() == 1);
    // The flood of one node: bounded, and counted.
    for output in leader.map(ops::numbers(3000, Work::Log)) {
        output.expect("no task fails");
    }
    let counted = |fields: &str| fields.contains("missing=");
    wait_until("what was dropped", || {
        repeated().iter().any(|(_, fields)| counted(fields))
    });
    let report = leader.finish().expect("a report");
    println!("{report}");
    let lost = report.nodes.iter().find(|row| row.end == NodeEnd::Lost);
    let lost = lost.expect("it was killed");
    let last = lost.last_records.last().expect("its last words");
    assert!(
        last.starts_with("WARN ") && last.contains("is under way"),
        "{last}"
    );
    let other = report
        .nodes
        .iter()
        .find(|row| row.end == NodeEnd::Left)
        .expect("it has left");
    assert!(other.logs > 0 && other.logs_missing > 0, "{report}");
    assert!(other.logs + other.logs_missing >= 3000, "{report}");
}
