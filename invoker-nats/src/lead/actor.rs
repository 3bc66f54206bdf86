//! The hidden thread's tasks for a leader: it sends batches, reads answers, replies to nodes, and looks for lost ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use bytes::Bytes;
use futures_util::StreamExt;
use log_bridge::relay::Records;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::shared::Shared;
use crate::accounting::Finished;
use crate::link::{ANSWERS, Keep, Link, Puller};
use crate::wire::{self, Answer, Batch, Body, Broadcast, Reply, Request};

/// Batches that are on their way to the server at the same time.
const SENDING: usize = 16;
/// Time between two looks at nodes.
const TICK: Duration = Duration::from_millis(100);
/// Ticks between two signs of life to nodes.
const TICKS_PER_BEAT: u32 = 5;
/// How long the end of a run waits for nodes to leave.
const FAREWELL: Duration = Duration::from_secs(3);

/// Starts the tasks of a leader.
pub(super) fn start(
    handle: &Handle,
    link: &Link,
    shared: &Arc<Shared>,
    keep: Keep,
    commands: UnboundedReceiver<u64>,
    (requests, records): (Subscriber, Subscriber),
    leader: u64,
) {
    handle.spawn(send_batches(link.clone(), shared.clone(), commands));
    handle.spawn(read_answers(link.clone(), shared.clone(), keep));
    handle.spawn(reply_to_nodes(link.clone(), shared.clone(), requests));
    handle.spawn(repeat_records(shared.clone(), records));
    handle.spawn(look_after_nodes(link.clone(), shared.clone(), keep, leader));
}

async fn send_batches(link: Link, shared: Arc<Shared>, mut commands: UnboundedReceiver<u64>) {
    let permits = Arc::new(Semaphore::new(SENDING));
    while let Some(batch) = commands.recv().await {
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return;
        };
        let (link, shared) = (link.clone(), shared.clone());
        tokio::spawn(async move {
            send_batch(&link, &shared, batch).await;
            drop(permit);
        });
    }
}

async fn send_batch(link: &Link, shared: &Shared, batch: u64) {
    // It may have been answered, or abandoned.
    let Some((job, alone, body)) = shared.core().message(batch) else {
        return;
    };
    let over = || shared.core().ended || shared.core().accounting.kind(batch).is_none();
    let Some(body) = link.body(format!("tasks-{batch}"), &body, over).await else {
        return;
    };
    let session = shared.manifest.session;
    let message = wire::encode(&Batch {
        session,
        job,
        batch,
        alone,
        body,
    });
    // A number of its own for each time that the stream has lost it.
    let id = format!("{batch}-{}", shared.core().accounting.counts.resent);
    if link.publish("tasks", &id, message.into(), over).await.is_some() {
        shared.core().sent(batch);
    }
}

async fn read_answers(link: Link, shared: Arc<Shared>, keep: Keep) {
    let mut answers = Puller::new(ANSWERS, 256);
    while !shared.core().ended {
        match answers.next(&link).await {
            Some(message) => read_message(&link, &shared, &message).await,
            // The server is away, or has lost the streams.
            None if !shared.core().ended => drop(link.create(keep).await),
            None => {}
        }
    }
}

async fn read_message(link: &Link, shared: &Shared, message: &async_nats::jetstream::Message) {
    let sequence = message.info().map_or(0, |info| info.stream_sequence);
    read_answer(link, shared, &message.payload).await;
    shared.read_up_to(sequence);
    let _ = message.ack().await;
}

async fn read_answer(link: &Link, shared: &Shared, payload: &Bytes) {
    let answer = match wire::decode::<Answer<'_>>(payload) {
        Ok(answer) if answer.session == shared.manifest.session => answer,
        other => return shared.refuse(other.is_ok()),
    };
    let Some(contents) = link.contents(payload, &answer.body).await else {
        return shared.refuse(false);
    };
    shared.receive(
        answer.node,
        answer.job,
        Duration::from_nanos(answer.took_ns),
        &contents,
    );
    if let (Body::Stored(name), false) = (&answer.body, shared.resumable) {
        link.delete_object(name).await;
    }
}

async fn reply_to_nodes(link: Link, shared: Arc<Shared>, mut requests: Subscriber) {
    while let Some(message) = requests.next().await {
        let Ok(request) = wire::decode::<Request>(&message.payload) else {
            shared.refuse(false);
            continue;
        };
        let reply = reply(&shared, request);
        if let Some(inbox) = message.reply {
            let _ = link.client.publish(inbox, wire::encode(&reply).into()).await;
        }
    }
}

/// Repeats what nodes log.
async fn repeat_records(shared: Arc<Shared>, mut messages: Subscriber) {
    while let Some(message) = messages.next().await {
        let Ok((node, records)) = wire::decode::<(u64, Records)>(&message.payload) else {
            shared.refuse(false);
            continue;
        };
        let known = {
            let mut core = shared.core();
            core.accounting
                .nodes
                .get_mut(&node)
                .map(|node| (node.join.name.clone(), node.logs.count(&records)))
        };
        let Some((name, missing)) = known else {
            shared.refuse(true);
            continue;
        };
        records.replay(&name, missing);
    }
}

fn reply(shared: &Shared, request: Request) -> Reply {
    let now = Instant::now();
    let mut core = shared.core();
    let known = |core: &super::shared::Core, node| core.accounting.nodes.contains_key(&node);
    match request {
        Request::Manifest => Reply::Manifest(Box::new(shared.manifest.clone())),
        Request::Join(join) => match core.checksum {
            Some(expected) if expected != join.checksum => Reply::Refused(format!(
                "its model has the checksum {:016x}, and {expected:016x} is that of the run",
                join.checksum
            )),
            _ => {
                core.checksum = Some(join.checksum);
                core.accounting.join(join, now);
                shared.changed(core);
                Reply::Welcome
            }
        },
        Request::Begin { node, .. } if !known(&core, node) => Reply::Unknown,
        Request::Begin {
            node,
            batch,
            from,
            upto,
        } => {
            let tasks = from as usize..upto as usize;
            let (grant, actions) = core.accounting.begin(node, batch, tasks, now);
            shared.perform(&core, actions);
            shared.changed(core);
            Reply::Grant(grant)
        }
        Request::Finish {
            node,
            batch,
            sequence,
            released,
        } => {
            let finished = Finished { sequence, released };
            core.accounting.finished(node, batch, finished);
            Reply::Noted
        }
        Request::Beat { node, held, counts } => match core.accounting.beat(node, &held, counts, now) {
            true => Reply::Noted,
            false => Reply::Unknown,
        },
        Request::Leave { node, counts } => {
            core.accounting.leave(node, counts);
            shared.changed(core);
            Reply::Noted
        }
    }
}

async fn look_after_nodes(link: Link, shared: Arc<Shared>, keep: Keep, leader: u64) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let session = shared.manifest.session;
    let mut looked = Instant::now();
    let mut count = 0_u32;
    loop {
        ticks.tick().await;
        if shared.core().ended {
            return;
        }
        if count.is_multiple_of(TICKS_PER_BEAT) {
            link.broadcast(Broadcast::Beat { session, leader }).await;
        }
        count = count.wrapping_add(1);
        // Without a connection, nodes cannot be heard.
        if link.client.connection_state() != async_nats::connection::State::Connected {
            continue;
        }
        shared.tick();
        if looked.elapsed() >= keep.ack_wait {
            looked = Instant::now();
            find_lost_batches(&link, &shared, keep).await;
        }
    }
}

/// Sends batches again that were sent, are with no node, and do not lie in the stream: the server has lost them.
async fn find_lost_batches(link: &Link, shared: &Shared, keep: Keep) {
    let Some(before) = Instant::now().checked_sub(keep.ack_wait) else {
        return;
    };
    if shared.core().accounting.unclaimed(before).is_empty() {
        return;
    }
    match link.queued_tasks().await {
        Ok(0) => shared.resend_unclaimed(before),
        Ok(_) => {}
        Err(_) => drop(link.create(keep).await),
    }
}

/// Ends the run: nodes leave, and its streams are deleted.
pub(super) async fn end(link: &Link, shared: &Shared) {
    let farewell = async {
        loop {
            link.broadcast(Broadcast::End).await;
            tokio::time::sleep(TICK / 2).await;
            if shared.core().accounting.present_nodes() == 0 {
                return;
            }
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
    shared.core().ended = true;
    link.delete().await;
    let _ = timeout(Duration::from_secs(1), link.client.flush()).await;
}
