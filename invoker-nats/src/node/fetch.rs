//! Receives batches, renews them, and listens to the leader.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use async_nats::jetstream::{self, AckKind};
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::state::{Held, NodeShared, Stop};
use crate::link::Puller;
use crate::report::ServeEnd;
use crate::wire::{self, Batch, Body, Broadcast, Reply, Request};

/// Time after which a batch is delivered again whose contents are not there.
const PAUSE: Duration = Duration::from_millis(100);

/// Returns the next batch, or `None` when the node stops.
pub(super) async fn next(node: &NodeShared, tasks: &mut Puller) -> Option<Held> {
    let fetching = async {
        loop {
            if let Some(message) = tasks.next(&node.link).await
                && let Some(held) = hold(node, message).await
            {
                return held;
            }
        }
    };
    match select(pin!(node.wait_for_stop()), pin!(fetching)).await {
        Either::Left(_) => None,
        Either::Right((held, _)) => Some(held),
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

/// How long the leader may be silent. Time in which the node itself was stopped does not count: messages may wait to be read.
struct Lease {
    time: Duration,
    heard: Instant,
}

impl Lease {
    /// Returns how long to wait for the next message, at most.
    fn wait(&self, now: Instant) -> Duration {
        let silent = now.saturating_duration_since(self.heard);
        self.time.saturating_sub(silent).min(Duration::from_secs(1))
    }

    /// The node has waited since `from`, and wanted to wait for `wait`. Returns whether the lease is over.
    fn has_waited(&mut self, from: Instant, wait: Duration, now: Instant) -> bool {
        self.heard += now.saturating_duration_since(from).saturating_sub(wait);
        now.saturating_duration_since(self.heard) >= self.time
    }
}

/// Listens to the leader: it may end the run, be replaced, or be silent for too long.
pub(super) async fn listen(node: Arc<NodeShared>, mut messages: Subscriber) {
    let mut lease = Lease {
        time: Duration::from_millis(node.manifest.lease_ms),
        heard: Instant::now(),
    };
    let mut known = None;
    while node.stopped().is_none() {
        let from = Instant::now();
        let wait = lease.wait(from);
        let message = timeout(wait, messages.next()).await;
        let is_over = lease.has_waited(from, wait, Instant::now());
        match message {
            Ok(Some(message)) => match wire::decode::<Broadcast>(&message.payload) {
                Ok(Broadcast::Beat { session, leader }) if session == node.manifest.session => {
                    lease.heard = Instant::now();
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
            Err(_) if is_over => node.stop(Stop::Ended(ServeEnd::LeaderLost)),
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_ends_with_silence_but_not_while_the_node_is_stopped() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let (mut lease, mut now) = (
            Lease {
                time: 30 * second,
                heard: start,
            },
            start,
        );
        let mut wait = |time| {
            let (from, wait) = (now, lease.wait(now));
            assert!(wait <= second);
            now += time;
            lease.has_waited(from, wait, now)
        };
        assert!(!wait(3600 * second), "it was stopped for an hour");
        let waits = (1..).find(|_| wait(second));
        assert_eq!(waits, Some(29), "the first wait counts as a second");
    }
}
