//! The hidden thread's tasks for a node: it fetches batches, renews them, and listens to the leader.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use async_nats::jetstream::{self, AckKind};
use crossbeam_channel::Sender;
use futures_util::StreamExt;
use futures_util::future::select;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::state::{Held, NodeShared, Stop};
use crate::link::{Messages, Pulled, Queue};
use crate::report::ServeEnd;
use crate::wire::{self, Batch, Body, Broadcast, Reply, Request};

/// Time after which a missing consumer is looked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// Fetches batches as the node has room for them, until it stops.
pub(super) async fn fetch(node: Arc<NodeShared>, batches: Sender<Held>) {
    let stopped = pin!(node.wait_for_stop());
    let fetching = pin!(fetch_batches(&node, &batches));
    select(stopped, fetching).await;
}

async fn fetch_batches(node: &NodeShared, batches: &Sender<Held>) {
    let mut consumer: Option<Messages> = None;
    loop {
        let Ok(room) = node.room.acquire().await else {
            return;
        };
        let Some(known) = &consumer else {
            consumer = node.link.consumer(Queue::Tasks).await;
            if consumer.is_none() {
                tokio::time::sleep(PAUSE).await;
            }
            continue;
        };
        let Some(mut messages) = node.link.pull(known, 1).await else {
            // The server may have restarted, with other consumers.
            consumer = None;
            continue;
        };
        match node.link.next(&mut messages).await {
            Pulled::Message(message) => {
                if let Some(held) = hold(node, *message).await {
                    // The runner returns the room.
                    room.forget();
                    let _ = batches.send(held);
                }
            }
            Pulled::End => {}
            Pulled::Broken => consumer = None,
        }
    }
}

/// Takes in a message of the stream of tasks.
async fn hold(node: &NodeShared, message: jetstream::Message) -> Option<Held> {
    let batch = match wire::decode::<Batch<'_>>(&message.payload) {
        Ok(batch) if batch.session == node.manifest.session => batch,
        // No node can run it.
        _ => {
            let _ = message.ack_with(AckKind::Term).await;
            return None;
        }
    };
    let Some(contents) = node.link.contents(&message.payload, &batch.body).await else {
        let _ = message.ack_with(AckKind::Nak(Some(PAUSE))).await;
        return None;
    };
    let object = match &batch.body {
        Body::Stored(name) => Some(name.clone()),
        Body::Inline(_) => None,
    };
    let redelivered = message.info().is_ok_and(|info| info.delivered > 1);
    let Batch {
        job, batch, alone, ..
    } = batch;
    node.held().insert(batch, message);
    Some(Held {
        job,
        batch,
        alone,
        contents,
        object,
        redelivered,
    })
}

/// Renews everything that the node has, and reports to the leader.
pub(super) async fn renew(node: Arc<NodeShared>) {
    let mut ticks = interval(Duration::from_millis(node.manifest.ack_wait_ms) / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if node.stopped().is_some() && node.held().is_empty() {
            return;
        }
        let held: Vec<(u64, jetstream::Message)> = node
            .held()
            .iter()
            .map(|(batch, message)| (*batch, message.clone()))
            .collect();
        for (_, message) in &held {
            let _ = message.ack_with(AckKind::Progress).await;
        }
        let held = held.into_iter().map(|(batch, _)| batch).collect();
        let (node_id, counts) = (node.join.node, node.counts());
        node.link
            .notify(&Request::Beat {
                node: node_id,
                held,
                counts,
            })
            .await;
    }
}

/// Listens to the leader: it may end the run, be replaced, or be silent for too long.
pub(super) async fn listen(node: Arc<NodeShared>, mut messages: Subscriber) {
    let lease = Duration::from_millis(node.manifest.lease_ms);
    let mut heard = Instant::now();
    let mut known = None;
    while node.stopped().is_none() {
        let left = lease.saturating_sub(heard.elapsed()).min(Duration::from_secs(1));
        match timeout(left, messages.next()).await {
            Ok(Some(message)) => match wire::decode::<Broadcast>(&message.payload) {
                Ok(Broadcast::Beat { session, leader }) if session == node.manifest.session => {
                    heard = Instant::now();
                    if known.replace(leader).is_some_and(|before| before != leader)
                        && let Some(Reply::Refused(_)) = node.join(super::ASK).await
                    {
                        node.stop(Stop::Ended(ServeEnd::RunEnded));
                    }
                }
                Ok(Broadcast::Beat { .. } | Broadcast::End) => node.stop(Stop::Ended(ServeEnd::RunEnded)),
                Err(wire::Malformed) => {}
            },
            Ok(None) => return,
            Err(_) if heard.elapsed() >= lease => node.stop(Stop::Ended(ServeEnd::LeaderLost)),
            Err(_) => {}
        }
    }
}
