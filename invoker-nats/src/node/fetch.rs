//! What a node receives: batches, which it renews, and the messages of the leader.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use async_nats::jetstream::{self, AckKind};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::state::{Held, NodeShared, Stop};
use crate::link::{Messages, Pulled, Queue};
use crate::report::ServeEnd;
use crate::wire::{self, Batch, Body, Broadcast, Reply, Request};

/// Time after which a missing consumer is looked for again.
const PAUSE: Duration = Duration::from_millis(100);

/// Fetches batches.
#[derive(Default)]
pub(super) struct Fetcher {
    consumer: Option<Messages>,
}

impl Fetcher {
    /// Returns the next batch, or `None` when the node stops.
    pub(super) async fn next(&mut self, node: &NodeShared) -> Option<Held> {
        match select(pin!(node.wait_for_stop()), pin!(self.fetch(node))).await {
            Either::Left(_) => None,
            Either::Right((held, _)) => Some(held),
        }
    }

    async fn fetch(&mut self, node: &NodeShared) -> Held {
        loop {
            let Some(consumer) = &self.consumer else {
                self.consumer = node.link.consumer(Queue::Tasks).await;
                if self.consumer.is_none() {
                    tokio::time::sleep(PAUSE).await;
                }
                continue;
            };
            let pulled = match node.link.pull(consumer, 1).await {
                Some(mut messages) => node.link.next(&mut messages).await,
                None => Pulled::Broken,
            };
            match pulled {
                Pulled::Message(message) => {
                    if let Some(held) = hold(node, *message).await {
                        return held;
                    }
                }
                Pulled::End => {}
                // The server may have restarted, with other consumers.
                Pulled::Broken => self.consumer = None,
            }
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
        let messages = node.held().clone();
        for message in messages.values() {
            let _ = message.ack_with(AckKind::Progress).await;
        }
        let beat = Request::Beat {
            node: node.join.node,
            held: messages.into_keys().collect(),
            counts: node.counts(),
        };
        node.link.notify(&beat).await;
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
