//! [`NodeShared`]: the state of a node, which its threads and the hidden thread have in common.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use async_nats::jetstream;
use bytes::Bytes;
use invoker::PoolError;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::link::{Link, Silence};
use crate::report::ServeEnd;
use crate::wire::{Grant, Join, Manifest, NodeCounts, Reply, Request};

/// Why a node stops.
#[derive(Debug, Clone)]
pub(super) enum Stop {
    Ended(ServeEnd),
    Failed(PoolError),
}

/// A batch that the node has.
pub(super) struct Held {
    pub(super) job: u32,
    pub(super) batch: u64,
    pub(super) alone: bool,
    /// The list of its tasks.
    pub(super) contents: Bytes,
    /// The name of its object, if it is a large one.
    pub(super) object: Option<String>,
    /// Whether another node had it before.
    pub(super) redelivered: bool,
}

pub(super) struct NodeShared {
    pub(super) link: Link,
    pub(super) handle: Handle,
    pub(super) manifest: Manifest,
    pub(super) join: Join,
    /// The messages of the batches that the node has: renewed until they are acknowledged.
    held: Mutex<HashMap<u64, jetstream::Message>>,
    stop: watch::Sender<Option<Stop>>,
    over: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    /// Nanoseconds per task, as measured last.
    pub(super) task_ns: AtomicU64,
    /// Held for writing by a batch that must run alone.
    pub(super) gate: RwLock<()>,
    /// Held by the batch whose tasks go to the workers: the next one follows when all of them have.
    pub(super) turn: Mutex<()>,
    next_answer: AtomicU64,
}

impl NodeShared {
    pub(super) fn new(link: Link, handle: Handle, manifest: Manifest, join: Join) -> Self {
        Self {
            link,
            handle,
            manifest,
            join,
            held: Mutex::default(),
            stop: watch::Sender::new(None),
            over: AtomicBool::new(false),
            done: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            task_ns: AtomicU64::new(0),
            gate: RwLock::new(()),
            turn: Mutex::new(()),
            next_answer: AtomicU64::new(0),
        }
    }

    pub(super) fn held(&self) -> MutexGuard<'_, HashMap<u64, jetstream::Message>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stopped(&self) -> Option<Stop> {
        self.stop.borrow().clone()
    }

    /// Stops the node. The first reason counts.
    pub(super) fn stop(&self, reason: Stop) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            if first {
                let over = !matches!(reason, Stop::Ended(ServeEnd::Interrupted));
                self.over.store(over, Ordering::Relaxed);
                *stop = Some(reason);
            }
            first
        });
    }

    /// Returns whether the run has ended, or the leader is lost: running tasks are then of no use.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) async fn wait_for_stop(&self) {
        // It fails only without a sender, and this has one.
        let _ = self.stop.subscribe().wait_for(Option::is_some).await;
    }

    pub(super) fn count(&self, done: u64, failed: u64) {
        self.done.fetch_add(done, Ordering::Relaxed);
        self.failed.fetch_add(failed, Ordering::Relaxed);
    }

    pub(super) fn counts(&self) -> NodeCounts {
        NodeCounts {
            done: self.done.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            ..NodeCounts::default()
        }
    }

    /// Returns an identification for an answer that no other answer of any node has.
    pub(super) fn answer_id(&self) -> String {
        let number = self.next_answer.fetch_add(1, Ordering::Relaxed);
        format!("{:016x}-{number}", self.join.node)
    }

    /// Joins the run, again after the leader was replaced. Returns `None` if the node stops before there is a reply.
    pub(super) async fn join(&self, pause: Duration) -> Option<Reply> {
        loop {
            match self.link.ask(&Request::Join(self.join.clone())).await {
                Ok(reply) => return Some(reply),
                Err(_) if self.stopped().is_some() => return None,
                Err(_) => tokio::time::sleep(pause).await,
            }
        }
    }

    /// Asks the leader for permission to run these tasks of a batch. `None` if the node stops before there is a reply.
    pub(super) async fn begin(&self, batch: u64, from: u32, upto: u32, may_go_on: bool) -> Option<Grant> {
        let request = Request::Begin {
            node: self.join.node,
            batch,
            from,
            upto,
        };
        loop {
            match self.link.ask(&request).await {
                Ok(Reply::Grant(grant)) => return Some(grant),
                Ok(Reply::Unknown) => {
                    self.join(super::ASK).await?;
                }
                // While the leader is away, nodes go on with the batches that they have, unless a task might then run twice.
                Err(Silence::NoLeader | Silence::Late) if may_go_on => return Some(Grant::All),
                _ => tokio::time::sleep(super::ASK).await,
            }
            if self.stopped().is_some() {
                return None;
            }
        }
    }
}
