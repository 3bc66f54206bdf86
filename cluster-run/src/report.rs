//! [`ClusterReport`], with a [`NodeRow`] for each node, and why nodes end.

use std::fmt;
use std::time::Duration;

use invoker::shm_buffers::Printable;

use crate::messages::Join;

/// The counts of a run on several machines, with a row for each node. `Display` prints it.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct ClusterReport {
    /// From the start of the leader to the report.
    pub elapsed: Duration,
    /// The nodes, in the order in which they have joined.
    pub nodes: Vec<NodeRow>,
    /// Number of outputs of nodes that were delivered.
    pub delivered: u64,
    /// Number of answers to tasks that were answered before: after a loss, a task may run twice.
    pub duplicates: u64,
    /// Number of answers that were ignored because they were malformed, or to no task of the run.
    pub invalid: u64,
    /// Number of messages of other runs that were ignored.
    pub foreign: u64,
    /// Number of batches that were sent again after a loss.
    pub resent: u64,
    /// How often a node was silent for longer than [`ack_wait`](crate::Manifest::ack_wait).
    pub nodes_lost: u64,
}

/// A node of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeRow {
    /// The name of its machine, and its process id.
    pub name: String,
    /// Number of its workers at its start.
    pub workers: u32,
    /// Number of its outputs that were delivered.
    pub delivered: u64,
    /// Number of its tasks that have failed.
    pub failed: u64,
    /// Number of its worker processes that died.
    pub worker_deaths: u64,
    /// Size of the model in bytes.
    pub model_bytes: u64,
    /// Memory of its processes in bytes, where shared pages count once, when it left.
    pub pss: Option<u64>,
    /// Number of records that its `Relay` has sent, and that have arrived.
    pub logs: u64,
    /// Number of records that it has dropped because there were too many, or that were lost on the way.
    pub logs_missing: u64,
    /// Its last records: of a node that is lost, its last words.
    pub last_records: Vec<String>,
    /// How it ended.
    pub end: NodeEnd,
}

impl NodeRow {
    pub(crate) fn new(join: Join) -> Self {
        Self {
            name: join.name,
            workers: join.workers,
            delivered: 0,
            failed: 0,
            worker_deaths: 0,
            model_bytes: join.model_bytes,
            pss: None,
            logs: 0,
            logs_missing: 0,
            last_records: Vec::new(),
            end: NodeEnd::Present,
        }
    }
}

/// How a node ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEnd {
    /// It was there until the report.
    Present,
    /// It was silent for too long, and did not return.
    Lost,
    /// It left in order.
    Left,
}

impl fmt::Display for NodeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Present => "present",
            Self::Lost => "lost",
            Self::Left => "left",
        })
    }
}

impl fmt::Display for ClusterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.elapsed.as_secs_f64();
        let rate = self.delivered as f64 / seconds.max(1e-9);
        let (outputs, nodes) = (self.delivered, self.nodes.len());
        writeln!(
            f,
            "cluster   {outputs} outputs of {nodes} nodes in {seconds:.1} s ({rate:.0}/s)"
        )?;
        writeln!(
            f,
            "losses    {} nodes lost, {} batches resent; ignored: {} duplicate, {} invalid, {} foreign answers",
            self.nodes_lost, self.resent, self.duplicates, self.invalid, self.foreign
        )?;
        write!(
            f,
            "{:<28} {:>7} {:>10} {:>7} {:>7} {:>9} {:>9}  end",
            "node", "workers", "outputs", "failed", "deaths", "model", "memory"
        )?;
        self.nodes.iter().try_for_each(|row| write!(f, "\n{row}"))
    }
}

impl fmt::Display for NodeRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
        write!(
            f,
            "{:<28} {:>7} {:>10} {:>7} {:>7} {:>9} {:>9}  {}",
            Printable(&self.name).to_string(),
            self.workers,
            self.delivered,
            self.failed,
            self.worker_deaths,
            mib(self.model_bytes),
            self.pss.map_or_else(|| "unknown".to_owned(), mib),
            self.end
        )?;
        if self.logs_missing > 0 {
            let (arrived, missing) = (self.logs, self.logs_missing);
            write!(f, "\n  {arrived} records of it arrived, {missing} did not")?;
        }
        let last_words = self.last_records.iter().filter(|_| self.end == NodeEnd::Lost);
        last_words
            .into_iter()
            .try_for_each(|record| write!(f, "\n  its last records: {}", Printable(record)))
    }
}

/// Why a node has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ServeEnd {
    /// The leader has ended the run.
    RunEnded,
    /// The node was asked to leave by SIGTERM or Ctrl-C: it has finished the tasks that had started, and given back the others.
    Interrupted,
    /// The leader was silent for too long.
    LeaderLost,
}

impl fmt::Display for ServeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RunEnded => "the run has ended",
            Self::Interrupted => "asked to leave",
            Self::LeaderLost => "the leader was silent for too long",
        })
    }
}
