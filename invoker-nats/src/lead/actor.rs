//! The hidden thread's tasks for a leader: it sends batches, reads answers, replies to nodes, and looks for lost ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use futures_util::{StreamExt, stream};
use log_bridge::relay::Records;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::shared::Shared;
use crate::link::{Link, Puller};
use crate::wire::{self, Batch, BatchId, Reply, Request};

/// Batches that are on their way to the server at the same time.
const SENDING: usize = 16;
/// Time between two looks at nodes.
const TICK: Duration = Duration::from_millis(100);
/// How long the end of a run waits for nodes to leave.
const FAREWELL: Duration = Duration::from_secs(3);

pub(super) async fn send_batches(link: Link, shared: Arc<Shared>, commands: UnboundedReceiver<BatchId>) {
    let batches = stream::unfold(commands, async |mut commands| {
        commands.recv().await.map(|batch| (batch, commands))
    });
    batches
        .for_each_concurrent(SENDING, |batch| send_batch(&link, &shared, batch))
        .await;
}

async fn send_batch(link: &Link, shared: &Shared, id: BatchId) {
    let (message, name) = {
        let mut core = shared.core();
        // A number of its own for each time that the stream has lost it.
        let name = format!("{}-{}", id.number, core.accounting.report.resent);
        // It may have been answered, or abandoned.
        let Some(batch) = core.accounting.batch(&id) else {
            return;
        };
        let message = Batch {
            session: shared.manifest.session,
            id,
            alone: batch.alone,
            lengths: batch.tasks.tasks.iter().map(|task| task.len).collect(),
        };
        (wire::encode(&message, &batch.tasks.encoded), name)
    };
    let is_over = || {
        let mut core = shared.core();
        core.ended || core.accounting.batch(&id).is_none()
    };
    if link.publish("tasks", &name, message, is_over).await {
        shared.core().accounting.sent(&id, Instant::now());
    }
}

/// Reads answers up to this number of the stream.
pub(super) async fn read_answers(link: &Link, shared: &Shared, answers: &mut Puller, upto: u64) {
    let mut read = 0;
    while read < upto && !shared.core().ended {
        let Some(message) = answers.next(link).await else {
            // The server is away, or has lost the streams.
            if !shared.core().ended {
                let _ = link.create(&shared.manifest).await;
            }
            continue;
        };
        read = message.info().map_or(read, |info| info.stream_sequence);
        match link.contents(&message).await {
            Some(contents) => shared.receive(&contents),
            None => shared.refuse(false),
        }
        if !shared.manifest.resumable {
            link.delete_object(&message).await;
        }
        let _ = message.ack().await;
    }
}

pub(super) async fn reply_to_nodes(link: Link, shared: Arc<Shared>, mut requests: Subscriber) {
    while let Some(message) = requests.next().await {
        let Some(request) = wire::decode_all::<Request>(&message.payload) else {
            shared.refuse(false);
            continue;
        };
        let reply = reply(&shared, request);
        if let Some(inbox) = message.reply {
            let _ = link.client.publish(inbox, wire::encode(&reply, &[])).await;
        }
    }
}

fn reply(shared: &Shared, request: Request) -> Reply {
    let now = Instant::now();
    let mut core = shared.core();
    let accounting = &mut core.accounting;
    let reply = match request {
        Request::Manifest => Reply::Manifest(Box::new(shared.manifest.clone())),
        Request::Join(join) if join.session != shared.manifest.session => {
            Reply::Refused("it belongs to an earlier run".to_owned())
        }
        Request::Join(join) => {
            let (is, expected) = (join.checksum, core.checksum.unwrap_or(join.checksum));
            if is != expected {
                return Reply::Refused(format!(
                    "its model has the checksum {is:016x}, and {expected:016x} is that of the run"
                ));
            }
            core.checksum = Some(is);
            core.accounting.join(join, now);
            Reply::Yes
        }
        Request::Begin {
            node,
            batch,
            from,
            upto,
        } => accounting.begin(node, batch, from as usize..upto as usize),
        Request::Beat { node, counts, leaves } => {
            let is_known = accounting.beat(node, Some(counts), now);
            if leaves {
                accounting.leave(node);
            }
            match (is_known, core.ending) {
                (false, _) => Reply::Unknown,
                (true, false) => Reply::Yes,
                (true, true) => Reply::End,
            }
        }
    };
    shared.changed(core);
    reply
}

/// Repeats what nodes log.
pub(super) async fn repeat_records(shared: Arc<Shared>, mut messages: Subscriber) {
    while let Some(message) = messages.next().await {
        let Some((node, records)) = wire::decode_all::<(u64, Records)>(&message.payload) else {
            shared.refuse(false);
            continue;
        };
        let counted = shared.core().accounting.count_records(node, &records);
        match counted {
            Some((name, missing)) => records.replay(&name, missing),
            None => shared.refuse(true),
        }
    }
}

pub(super) async fn look_after_nodes(link: Link, shared: Arc<Shared>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = Instant::now();
    while !shared.core().ended {
        ticks.tick().await;
        // Without a connection, nodes cannot be heard.
        if link.client.connection_state() != async_nats::connection::State::Connected {
            continue;
        }
        shared.update(|core| core.accounting.tick(Instant::now()));
        if looked.elapsed() < shared.manifest.ack_wait {
            continue;
        }
        // Batches that were sent, are with no node, and do not lie in the stream: the server has lost them.
        let before = std::mem::replace(&mut looked, Instant::now());
        match link.queued_tasks().await {
            Ok(0) => shared.update(|core| core.accounting.resend_unclaimed(before)),
            Ok(_) => {}
            Err(_) => drop(link.create(&shared.manifest).await),
        }
    }
}

/// Ends the run: nodes leave, and its streams are deleted.
pub(super) async fn end(link: &Link, shared: &Shared) {
    shared.core().ending = true;
    let farewell = async {
        while shared.core().accounting.present_nodes() > 0 {
            sleep(TICK / 4).await;
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
    shared.core().ended = true;
    link.delete().await;
    let _ = timeout(Duration::from_secs(1), link.client.flush()).await;
}
