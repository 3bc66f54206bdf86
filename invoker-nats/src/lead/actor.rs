//! The hidden thread's tasks for a leader: it sends batches, reads answers, replies to nodes, and looks for lost ones.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::Subscriber;
use cluster_run::{BatchId, LeaderState};
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use crate::link::{Link, Puller};

/// Batches that are on their way to the server at the same time.
const SENDING: usize = 16;
/// Time between two looks at nodes.
const TICK: Duration = Duration::from_millis(100);
/// How long the end of a run waits for nodes to leave.
const FAREWELL: Duration = Duration::from_secs(3);

pub(super) async fn send_batches(link: Link, state: Arc<LeaderState>, commands: UnboundedReceiver<BatchId>) {
    let batches = stream::unfold(commands, async |mut commands| {
        commands.recv().await.map(|batch| (batch, commands))
    });
    batches
        .for_each_concurrent(SENDING, |batch| send_batch(&link, &state, batch))
        .await;
}

async fn send_batch(link: &Link, state: &LeaderState, id: BatchId) {
    // It may have been answered, or abandoned.
    let Some((name, message)) = state.message(&id) else {
        return;
    };
    if link
        .publish("tasks", &name, message, || !state.is_wanted(&id))
        .await
    {
        state.sent(&id, Instant::now());
    }
}

/// Reads answers up to this number of the stream.
pub(super) async fn read_answers(link: &Link, state: &LeaderState, answers: &mut Puller, upto: u64) {
    let mut read = 0;
    while read < upto && !state.has_ended() {
        let Some(message) = answers.next(link).await else {
            // The server is away, or has lost the streams.
            if !state.has_ended() {
                let _ = link.create(state.manifest()).await;
            }
            continue;
        };
        read = message.info().map_or(read, |info| info.stream_sequence);
        match link.contents(&message).await {
            Some(contents) => state.receive(&contents),
            None => state.count_invalid(),
        }
        if !state.manifest().resumable {
            link.delete_object(&message).await;
        }
        let _ = message.ack().await;
    }
}

pub(super) async fn reply_to_nodes(link: Link, state: Arc<LeaderState>, mut requests: Subscriber) {
    while let Some(message) = requests.next().await {
        let reply = state.reply(&message.payload, Instant::now());
        if let (Some(reply), Some(inbox)) = (reply, message.reply) {
            let _ = link.client.publish(inbox, reply).await;
        }
    }
}

/// Repeats what nodes log.
pub(super) async fn repeat_records(state: Arc<LeaderState>, mut messages: Subscriber) {
    while let Some(message) = messages.next().await {
        state.receive_records(&message.payload);
    }
}

pub(super) async fn look_after_nodes(link: Link, state: Arc<LeaderState>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = Instant::now();
    while !state.has_ended() {
        ticks.tick().await;
        // Without a connection, nodes cannot be heard.
        if link.client.connection_state() != async_nats::connection::State::Connected {
            continue;
        }
        state.tick(Instant::now());
        if looked.elapsed() < state.manifest().ack_wait {
            continue;
        }
        // Batches that were sent, are with no node, and do not lie in the stream: the server has lost them.
        let before = std::mem::replace(&mut looked, Instant::now());
        match link.queued_tasks().await {
            Ok(0) => state.resend_unclaimed(before),
            Ok(_) => {}
            Err(_) => drop(link.create(state.manifest()).await),
        }
    }
}

/// Ends the run: nodes leave, and its streams are deleted.
pub(super) async fn end(link: &Link, state: &LeaderState) {
    state.begin_end();
    let farewell = async {
        while state.nodes() > 0 {
            sleep(TICK / 4).await;
        }
    };
    let _ = timeout(FAREWELL, farewell).await;
    state.end();
    link.delete().await;
    let _ = timeout(Duration::from_secs(1), link.client.flush()).await;
}
