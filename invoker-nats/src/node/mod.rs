//! A node of a run: pulls batches, runs their tasks in its pool, and publishes the answers.

mod report;

pub use report::NodeReport;

use std::collections::{HashMap, VecDeque};
use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use async_nats::jetstream::{AckKind, Message};
use bytes::Bytes;
use cluster_run::{
    BatchId, Disposal, Engine, HeldBatch, LastAnswer, Manifest, NodeState, Reply, ServeEnd, Value,
    run_batches,
};
use futures_util::future::{Either, select};
use invoker::{Builder, Interrupt, Invoker, OnInterrupt, Op, PoolError, facade};
use log_bridge::relay::Relay;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::cluster::Cluster;
use crate::error::Error;
use crate::lead::random;
use crate::link::{Away, Link, Puller, TASKS};

/// Time between two questions for the leader.
pub(crate) const ASK: Duration = Duration::from_millis(200);
/// The most time between two reports to the leader. Its answers also report the end of the run to the node.
const BEAT: Duration = Duration::from_millis(250);
/// Time between two messages with records.
const RECORDS: Duration = Duration::from_millis(200);
/// Time between two looks at signals.
const LOOK: Duration = Duration::from_millis(20);
/// Time after which a batch is delivered again whose contents are not there.
const PAUSE: Duration = Duration::from_millis(100);

/// Why a node stops.
type Stop = Result<ServeEnd, PoolError>;

/// The state of a node, which its threads and the hidden thread have in common.
struct Node {
    state: NodeState,
    link: Link,
    handle: Handle,
    /// The messages of the batches that the node has: renewed until they are acknowledged.
    held: Mutex<HashMap<BatchId, Message>>,
    stop: watch::Sender<Option<Stop>>,
}

impl Cluster {
    /// Serves as a node of the run: waits for its leader, starts the workers of the builder, and runs tasks until the run ends. One
    /// process per machine.
    ///
    /// The builder has the model, and the options of worker processes; [seed](invoker::Builder::seed) and
    /// [context](invoker::OpBuilder::context) come from the leader. SIGTERM and Ctrl-C let the node leave: it finishes the tasks that
    /// have started, and gives back the others.
    ///
    /// # Errors
    /// [`Error::Connect`]; [`Error::NoLeader`] if none comes in [time](Self::wait); [`Error::Refused`] if op, types or the model differ
    /// from the leader's; [`Error::Invoker`] if the workers cannot start or fail.
    pub fn serve<F: Op<M, T, R>, M: Value + Sync, T: Value, R: Value>(
        &self,
        builder: Builder<'_, F, M, T, R>,
    ) -> Result<NodeReport, Error> {
        let (thread, link) = self.connect("node")?;
        let finding = async { Ok(timeout(self.wait, find_leader(&link)).await.ok()) };
        let manifest = thread.wait(link.permitted(finding));
        let manifest = manifest?.ok_or_else(|| Error::NoLeader {
            run: self.run.clone(),
            waited: self.wait,
        })?;
        let refused = |reason| Error::Refused {
            run: self.run.clone(),
            reason,
        };
        let builder = manifest.apply(builder).map_err(refused)?;
        let invoker = builder.on_interrupt(OnInterrupt::Finish).build()?;
        let node = Arc::new(Node {
            state: NodeState::new(manifest, random()?, &invoker)?,
            link,
            handle: thread.handle().clone(),
            held: Mutex::default(),
            stop: watch::Sender::new(None),
        });
        if let Reply::Refused(reason) = thread.wait(node.join()) {
            return Err(refused(reason));
        }
        let (relaying, relay) = (node.clone(), self.relay());
        thread.handle().spawn(async move {
            while relaying.stopped().is_none() {
                relaying.send_records(&relay).await;
                sleep(RECORDS).await;
            }
        });
        let batches = serve_until_stopped(&invoker, &node)?;
        let report = invoker.finish();
        thread.wait(async {
            // The last answers, unless the run is over.
            while !node.held().is_empty() {
                sleep(LOOK).await;
            }
        });
        let counted = report.as_ref().ok();
        let processes = counted.and_then(|report| report.processes.as_ref());
        let memory = counted.and_then(|report| report.memory.as_ref());
        let farewell = node.state.farewell(
            processes.map_or(0, |processes| processes.died),
            memory.map(|memory| memory.total_pss),
        );
        thread.wait(async {
            node.send_records(&self.relay).await;
            node.link.send("leader", farewell).await;
            let _ = timeout(Duration::from_secs(1), node.link.client.flush()).await;
        });
        Ok(NodeReport {
            end: node
                .stopped()
                .unwrap_or(Ok(ServeEnd::Interrupted))
                .map_err(invoker::Error::Pool)?,
            batches,
            report: report?,
        })
    }
}

/// Runs batches. Returns their number.
fn serve_until_stopped<M: Send + Sync + 'static, T: Value, R: Value>(
    invoker: &Invoker<M, T, R>,
    node: &Arc<Node>,
) -> Result<u64, Error> {
    let (pool, _) = facade::pool(invoker)?;
    facade::start_run(invoker);
    let count = |done, failed| facade::count(invoker, done, failed);
    node.handle.spawn(report_to_leader(node.clone()));
    let (ended, to_answer) = mpsc::unbounded_channel();
    node.handle.spawn(send_last_answers(node.clone(), to_answer));
    // The client's subscriptions end in its runtime, also one that is dropped here.
    let _entered = node.handle.enter();
    let tasks = Mutex::new(Puller::new(TASKS, 1));
    let batches = thread::scope(|scope| {
        let runners: Vec<_> = (0..node.state.threads())
            .map(|_| {
                scope.spawn(|| {
                    take_batches(node, &tasks, &ended, |batches| {
                        run_batches(&node.state, node.as_ref(), pool, batches, &count)
                    })
                })
            })
            .collect();
        while node.stopped().is_none() {
            if invoker.interrupted().is_some() {
                node.stop(Ok(ServeEnd::Interrupted));
            }
            thread::sleep(LOOK);
        }
        if node.is_over() {
            // The running tasks are of no use, and may take long.
            pool.interrupt(Interrupt::Kill);
        }
        let joined = runners.into_iter().map(|runner| runner.join());
        joined
            .map(|number| number.unwrap_or_else(|panic| resume_unwind(panic)))
            .sum()
    });
    Ok(batches)
}

/// A batch that was run, and the last answer to it.
type Ended = (LastAnswer, HeldBatch);

/// Fetches batches and runs them until the node stops. Returns the number of those that were run.
fn take_batches(
    node: &Arc<Node>,
    tasks: &Mutex<Puller>,
    ended: &UnboundedSender<Vec<Ended>>,
    run: impl Fn(&[HeldBatch]) -> Vec<Disposal>,
) -> u64 {
    let mut number = 0;
    let next_batches = || {
        let mut tasks = tasks.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if !tasks.is_open() {
                tasks.most = node.state.wait_for_room(node.as_ref())?;
            }
            let batches = node.handle.block_on(node.next_batches(&mut tasks))?;
            if !batches.is_empty() {
                return Some(batches);
            }
        }
    };
    while let Some(batches) = next_batches() {
        let (disposals, mut answered) = (run(&batches), Vec::new());
        for (held, disposal) in batches.into_iter().zip(disposals) {
            let how = match disposal {
                Disposal::Done(last_answer) => {
                    answered.push((last_answer, held));
                    continue;
                }
                Disposal::Unwanted => AckKind::Ack,
                Disposal::GiveBack => AckKind::Nak(None),
            };
            node.handle.block_on(node.release(held, false, how));
        }
        number += answered.len() as u64;
        let _ = ended.send(answered);
    }
    number
}

/// Publishes the last answers to batches, those of short batches together, and acknowledges the batches then.
async fn send_last_answers(node: Arc<Node>, mut ended: UnboundedReceiver<Vec<Ended>>) {
    let most = node.link.max_inline();
    let mut waiting = VecDeque::new();
    while let Some(batches) = ended.recv().await {
        waiting.extend(batches);
        while !waiting.is_empty() {
            while let Ok(batches) = ended.try_recv() {
                waiting.extend(batches);
            }
            let mut len = 0;
            let fits = |(last, _): &&Ended| {
                len += last.byte_len();
                len <= most
            };
            let fitting = waiting.iter().take_while(fits).count();
            let group: Vec<_> = waiting.drain(..fitting.max(1)).collect();
            let (id, answers) = node.state.last_answers(group.iter().map(|(last, _)| last));
            node.publishing(id, answers).await;
            for (_, held) in group {
                node.release(held, true, AckKind::Ack).await;
            }
        }
    }
}

async fn find_leader(link: &Link) -> Manifest {
    loop {
        if let Ok(Reply::Manifest(manifest)) = link.ask(NodeState::ask_manifest()).await {
            return *manifest;
        }
        sleep(ASK).await;
    }
}

/// Renews everything that the node has, and reports to the leader, which may have ended the run, be replaced, or be silent for too long.
async fn report_to_leader(node: Arc<Node>) {
    let period = node.state.manifest().ack_wait / 4;
    let mut silent = Duration::ZERO;
    while node.stopped().is_none() || !node.held().is_empty() {
        let started = Instant::now();
        let messages: Vec<Message> = node.held().values().cloned().collect();
        let beat = node.state.beat();
        let exchange = async {
            for message in messages {
                let _ = message.ack_with(AckKind::Progress).await;
            }
            node.link.ask(beat).await
        };
        // Without a connection, the client's queue may be full.
        let reply = timeout(period, exchange).await;
        sleep(period.min(BEAT)).await;
        match reply {
            Ok(Ok(Reply::End)) => node.stop(Ok(ServeEnd::RunEnded)),
            Ok(Ok(Reply::Unknown)) => {
                let joined = node.link.ask(node.state.ask_to_join()).await;
                if let Ok(Reply::Refused(_)) = joined {
                    node.stop(Ok(ServeEnd::RunEnded));
                }
            }
            Ok(Ok(_)) => silent = Duration::ZERO,
            _ => silent = longer(silent, started.elapsed(), period),
        }
        if silent >= node.state.manifest().lease() {
            node.stop(Ok(ServeEnd::LeaderLost));
        }
    }
}

/// Returns how long the leader is silent, after another attempt that took `waited`. Time in which the node itself was stopped does not
/// count: messages may wait to be read.
fn longer(silent: Duration, waited: Duration, period: Duration) -> Duration {
    silent + waited.min(2 * period)
}

/// Returns whether a node stops because the run has ended, or the leader is lost: running tasks are then of no use.
fn is_over(stop: &Option<Stop>) -> bool {
    !matches!(stop, None | Some(Ok(ServeEnd::Interrupted)))
}

impl Node {
    fn held(&self) -> MutexGuard<'_, HashMap<BatchId, Message>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> Option<Stop> {
        self.stop.borrow().clone()
    }

    /// Stops the node. The first reason counts.
    fn stop(&self, reason: Stop) {
        self.stop.send_if_modified(|stop| {
            let is_first = stop.is_none();
            stop.get_or_insert(reason);
            is_first
        });
    }

    /// Joins the run.
    async fn join(&self) -> Reply {
        loop {
            match self.link.ask(self.state.ask_to_join()).await {
                Ok(reply) => return reply,
                Err(_) => sleep(ASK).await,
            }
        }
    }

    /// Sends the records that wait.
    async fn send_records(&self, relay: &Relay) {
        while let Some(message) = self.state.take_records(relay, self.link.max_inline()) {
            self.link.send("logs", message).await;
        }
    }

    /// Returns the next batch, if one comes while the request for batches lasts, or `None` when the node stops.
    async fn next_batch(&self, tasks: &mut Puller) -> Option<Option<HeldBatch>> {
        let fetching = async {
            match tasks.next_of_request(&self.link).await {
                Ok(Some(message)) => self.hold(message).await,
                Ok(None) | Err(Away) => None,
            }
        };
        let mut stop = self.stop.subscribe();
        match select(pin!(stop.wait_for(Option::is_some)), pin!(fetching)).await {
            Either::Left(_) => None,
            Either::Right((held, _)) => Some(held),
        }
    }

    /// Like [`next_batch`](Self::next_batch), with further ones that have come already and may run together with it.
    async fn next_batches(&self, tasks: &mut Puller) -> Option<Vec<HeldBatch>> {
        let mut batches = Vec::from_iter(self.next_batch(tasks).await?);
        while !batches.is_empty()
            && self.state.has_time_for_another(&batches)
            && let Some(message) = tasks.take_received(&self.link)
        {
            batches.extend(self.hold(message).await);
        }
        Some(batches)
    }

    /// Publishes answers until the server has them. Returns `false` if the run is over before.
    fn publishing(&self, id: String, answers: Bytes) -> impl Future<Output = bool> + use<> {
        let (link, stop) = (self.link.clone(), self.stop.subscribe());
        async move {
            let is_over = || is_over(&stop.borrow());
            link.publish("answers", &id, answers, is_over).await
        }
    }

    /// Acknowledges the message of a batch, of which tasks were run or not.
    async fn release(&self, held: HeldBatch, was_run: bool, how: AckKind) {
        let message = self.held().get(&held.id()).cloned();
        if let Some(message) = message {
            let _ = message.ack_with(how).await;
            if was_run {
                self.link.delete_object(&message).await;
            }
        }
        self.held().remove(&held.id());
    }

    /// Takes in a message of the stream of tasks.
    async fn hold(&self, message: Message) -> Option<HeldBatch> {
        let Some(contents) = self.link.contents(&message).await else {
            let _ = message.ack_with(AckKind::Nak(Some(PAUSE))).await;
            return None;
        };
        let is_again = message.info().is_ok_and(|info| info.delivered > 1);
        let Some(held) = HeldBatch::new(contents, &self.state, is_again) else {
            // No node can run it.
            let _ = message.ack_with(AckKind::Term).await;
            return None;
        };
        // A batch that the node has already was delivered again, because the node was silent: this message must be acknowledged.
        let is_new = self.held().insert(held.id(), message).is_none();
        is_new.then_some(held)
    }
}

impl Engine for Node {
    type Sending = JoinHandle<bool>;

    fn ask(&self, request: &Bytes) -> Option<Reply> {
        self.handle.block_on(self.link.ask(request.clone())).ok()
    }

    fn max_message(&self) -> usize {
        self.link.max_inline()
    }

    fn publish(&self, id: String, answer: Bytes) -> JoinHandle<bool> {
        self.handle.spawn(self.publishing(id, answer))
    }

    fn wait(&self, sending: JoinHandle<bool>) {
        let _ = self.handle.block_on(sending);
    }

    fn fail(&self, error: PoolError) {
        self.stop(Err(error));
    }

    fn stops(&self) -> bool {
        self.stopped().is_some()
    }

    fn is_over(&self) -> bool {
        is_over(&self.stop.borrow())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_adds_up_but_not_while_the_node_is_stopped() {
        let second = Duration::from_secs(1);
        assert!(
            longer(Duration::ZERO, 3600 * second, second) <= 2 * second,
            "it was stopped for an hour"
        );
        let silent = (0..29).fold(second, |silent, _| longer(silent, second, second));
        assert_eq!(silent, 30 * second);
    }
}
