//! [`Link`]: the connection to the server, and what leader and nodes do with it: streams, requests, objects.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::object_store::{self, ObjectStore};
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy};
use async_nats::jetstream::{self, Context};
use async_nats::{Client, Subscriber};
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::{FutureExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::wire::{self, Body, Broadcast, Reply, Request};

/// How long an acknowledged publication may take before it is sent again.
const PUBLISH: Duration = Duration::from_secs(3);
/// Time between attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the server keeps a request for messages open.
const PULL: Duration = Duration::from_secs(2);
/// The most bytes of tasks that lie in the server.
const MAX_TASK_BYTES: i64 = 512 << 20;
/// The most bytes of answers that lie in the server, unless the run can be resumed: then nodes wait.
const MAX_ANSWER_BYTES: i64 = 1 << 30;

/// A connection, and the names of a run.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) client: Client,
    pub(crate) context: Context,
    run: String,
    /// Counts connections: a new one means that requests to the server are lost.
    connections: watch::Receiver<u64>,
    /// The error of a request that the server has not permitted. Such a request has no reply.
    denied: watch::Receiver<Option<String>>,
}

/// How streams of a run are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Keep {
    /// Answers are kept until the end of the run.
    pub(crate) resumable: bool,
    pub(crate) ack_wait: Duration,
}

/// Why a request has no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// There is no leader.
    NoLeader,
    /// It does not reply in time.
    Late,
}

/// A stream of a run, and its consumer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Queue {
    stream: &'static str,
    consumer: &'static str,
}

pub(crate) const TASKS: Queue = Queue {
    stream: "TASKS",
    consumer: "nodes",
};
pub(crate) const ANSWERS: Queue = Queue {
    stream: "ANSWERS",
    consumer: "leader",
};

/// Requests messages of a queue, as they are needed.
pub(crate) struct Puller {
    queue: Queue,
    /// How many are requested at a time.
    most: usize,
    consumer: Option<Consumer<pull::Config>>,
    requested: Option<pull::Batch>,
}

impl Puller {
    pub(crate) fn new(queue: Queue, most: usize) -> Self {
        Self {
            queue,
            most,
            consumer: None,
            requested: None,
        }
    }

    /// Waits for the next message. Returns `None`, after a pause, if the server is away or has no such queue now.
    pub(crate) async fn next(&mut self, link: &Link) -> Option<jetstream::Message> {
        loop {
            if let Some(requested) = &mut self.requested {
                let next = timeout(PULL + Duration::from_secs(1), requested.next());
                match link.unless_reconnected(next).await {
                    Some(Ok(Some(Ok(message)))) => return Some(message),
                    // All messages that there were in its time.
                    Some(Ok(None)) => {}
                    // A status that is no message: the request was too large, or the consumer is gone. Or the server restarts.
                    _ => self.consumer = None,
                }
                self.requested = None;
            }
            if self.consumer.is_none() {
                self.consumer = link.consumer(self.queue).await;
            }
            let Some(consumer) = &self.consumer else {
                sleep(2 * PAUSE).await;
                return None;
            };
            // Enough for any single message.
            let bytes = (8 << 20).max(2 * link.client.max_payload());
            let request = consumer.batch().max_messages(self.most).max_bytes(bytes);
            match request.expires(PULL).messages().await {
                Ok(requested) => self.requested = Some(requested),
                Err(_) => self.consumer = None,
            }
        }
    }
}

impl Link {
    pub(crate) fn new(
        client: Client,
        run: &str,
        connections: watch::Receiver<u64>,
        denied: watch::Receiver<Option<String>>,
    ) -> Self {
        let context = ContextBuilder::new()
            .timeout(Duration::from_secs(3))
            .ack_timeout(PUBLISH)
            .build(client.clone());
        Self {
            client,
            context,
            run: run.to_owned(),
            connections,
            denied,
        }
    }

    /// Waits for the output of a future, unless the server denies a request: it does not reply to such a request.
    pub(crate) async fn permitted<T>(
        &self,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut denied = self.denied.clone();
        match select(pin!(work), pin!(denied.wait_for(Option::is_some))).await {
            Either::Left((result, _)) => result,
            Either::Right((reason, _)) => Err(Error::Denied {
                run: self.run.clone(),
                reason: reason.ok().and_then(|it| it.clone()).unwrap_or_default(),
            }),
        }
    }

    fn subject(&self, name: &str) -> String {
        format!("invoker.{}.{name}", self.run)
    }

    fn stream_name(&self, queue: Queue) -> String {
        format!("INVOKER_{}_{}", self.run, queue.stream)
    }

    fn bucket(&self) -> String {
        format!("INVOKER_{}", self.run)
    }

    /// The bucket of the model, which stays when the run has ended.
    pub(crate) fn model_bucket(&self) -> String {
        format!("INVOKER_{}_MODEL", self.run)
    }

    pub(crate) async fn model_store(&self) -> Option<ObjectStore> {
        self.context.get_object_store(self.model_bucket()).await.ok()
    }

    /// The most bytes of tasks or outcomes in a message; more go through the object store.
    pub(crate) fn max_inline(&self) -> usize {
        self.client.max_payload() / 2
    }

    /// Creates what does not exist: both streams, their consumers, and the store of large objects.
    pub(crate) async fn create(&self, keep: Keep) -> Result<(), Error> {
        let (retention, max_bytes) = match keep.resumable {
            true => (RetentionPolicy::Limits, -1),
            false => (RetentionPolicy::WorkQueue, MAX_ANSWER_BYTES),
        };
        let tasks = stream::Config {
            subjects: vec![self.subject("tasks")],
            retention: RetentionPolicy::WorkQueue,
            max_bytes: MAX_TASK_BYTES,
            ..stream::Config::default()
        };
        let nodes = pull::Config {
            ack_wait: keep.ack_wait,
            max_ack_pending: 1 << 14,
            ..pull::Config::default()
        };
        let answers = stream::Config {
            subjects: vec![self.subject("answers"), self.subject("manifest")],
            retention,
            max_bytes,
            ..stream::Config::default()
        };
        let leader = pull::Config {
            ack_wait: Duration::from_secs(60),
            max_ack_pending: 1 << 16,
            filter_subject: self.subject("answers"),
            ..pull::Config::default()
        };
        for (queue, stream, consumer) in [(TASKS, tasks, nodes), (ANSWERS, answers, leader)] {
            let stream = stream::Config {
                name: self.stream_name(queue),
                discard: DiscardPolicy::New,
                ..stream
            };
            let failed = Error::server("create the streams of the run");
            let stream = self.context.get_or_create_stream(stream).await.map_err(failed)?;
            let consumer = pull::Config {
                durable_name: Some(queue.consumer.to_owned()),
                ..consumer
            };
            let created = stream.get_or_create_consumer(queue.consumer, consumer).await;
            created.map_err(Error::server("create the consumers of the run"))?;
        }
        self.create_store(self.bucket()).await?;
        Ok(())
    }

    /// Returns a store of objects, and creates it if it does not exist.
    pub(crate) async fn create_store(&self, bucket: String) -> Result<ObjectStore, Error> {
        if let Ok(store) = self.context.get_object_store(&bucket).await {
            return Ok(store);
        }
        let config = object_store::Config {
            bucket,
            ..object_store::Config::default()
        };
        let failed = Error::server("create a store of objects");
        self.context.create_object_store(config).await.map_err(failed)
    }

    /// Deletes everything of the run.
    pub(crate) async fn delete(&self) {
        let _ = self.context.delete_stream(self.stream_name(TASKS)).await;
        let _ = self.context.delete_stream(self.stream_name(ANSWERS)).await;
        let _ = self.context.delete_object_store(self.bucket()).await;
    }

    /// Prepares the streams of an earlier leader of the run for another one: no task is queued, and all answers are read again. Returns
    /// the manifest of the run and the number of its last answer, if there is a run that can be resumed.
    pub(crate) async fn reopen(&self) -> Result<Option<(Vec<u8>, u64)>, Error> {
        let Ok(answers) = self.context.get_stream(self.stream_name(ANSWERS)).await else {
            return Ok(None);
        };
        let Ok(manifest) = answers
            .get_last_raw_message_by_subject(&self.subject("manifest"))
            .await
        else {
            return Ok(None);
        };
        if let Ok(tasks) = self.context.get_stream(self.stream_name(TASKS)).await {
            let failed = Error::server("purge the stream of tasks");
            tasks.purge().await.map_err(failed)?;
        }
        let _ = answers.delete_consumer(ANSWERS.consumer).await;
        let last = answers
            .get_last_raw_message_by_subject(&self.subject("answers"))
            .await;
        Ok(Some((
            manifest.payload.to_vec(),
            last.map_or(0, |last| last.sequence),
        )))
    }

    /// Returns the number of messages in the stream of tasks.
    pub(crate) async fn queued_tasks(&self) -> Result<u64, Error> {
        let failed = Error::server("describe the stream of tasks");
        let stream = self.context.get_stream(self.stream_name(TASKS)).await;
        Ok(stream.map_err(failed)?.cached_info().state.messages)
    }

    /// Publishes until the server has confirmed it. Returns the sequence number, or `None` if `give_up` says so between attempts.
    pub(crate) async fn publish(
        &self,
        name: &str,
        id: &str,
        bytes: Bytes,
        give_up: impl Fn() -> bool,
    ) -> Option<u64> {
        let publish = || async {
            let message = PublishMessage::build().payload(bytes.clone()).message_id(id);
            let sent = self.context.send_publish(self.subject(name), message).await;
            let confirmed = self.unless_reconnected(sent.ok()?.into_future()).await?;
            Some(confirmed.ok()?.sequence)
        };
        retry(publish, give_up).await
    }

    /// Waits for a reply of the server. Returns `None` if the server restarts in the meantime.
    async fn unless_reconnected<T>(&self, reply: impl Future<Output = T>) -> Option<T> {
        let mut connections = self.connections.clone();
        connections.mark_unchanged();
        let reconnected = pin!(connections.changed());
        match select(pin!(reply), reconnected).await {
            Either::Left((reply, _)) => Some(reply),
            Either::Right(_) => None,
        }
    }

    async fn consumer(&self, queue: Queue) -> Option<Consumer<pull::Config>> {
        let stream = self
            .context
            .get_stream_no_info(self.stream_name(queue))
            .await
            .ok()?;
        stream.get_consumer(queue.consumer).await.ok()
    }

    /// Sends a request to the leader.
    pub(crate) async fn ask(&self, request: &Request) -> Result<Reply, Silence> {
        let payload = wire::encode(request).into();
        let reply = self.client.request(self.subject("leader"), payload);
        match timeout(Duration::from_secs(2), self.unless_reconnected(reply)).await {
            Ok(Some(Ok(reply))) => wire::decode(&reply.payload).map_err(|_| Silence::Late),
            Ok(Some(Err(error))) if error.kind() == RequestErrorKind::NoResponders => Err(Silence::NoLeader),
            _ => Err(Silence::Late),
        }
    }

    /// Sends a request whose reply is not needed.
    pub(crate) async fn notify(&self, request: &Request) {
        self.send("leader", wire::encode(request)).await;
    }

    pub(crate) async fn broadcast(&self, message: Broadcast) {
        self.send("nodes", wire::encode(&message)).await;
    }

    /// Sends a message that may be lost. Without a connection, the client's queue may be full.
    pub(crate) async fn send(&self, name: &str, message: Vec<u8>) {
        let sending = self.client.publish(self.subject(name), message.into());
        let _ = timeout(Duration::from_secs(1), sending).await;
    }

    pub(crate) async fn subscribe(&self, name: &str) -> Result<Subscriber, Error> {
        let failed = Error::server("subscribe to the messages of the run");
        self.client.subscribe(self.subject(name)).await.map_err(failed)
    }

    async fn store(&self) -> Option<ObjectStore> {
        self.context.get_object_store(self.bucket()).await.ok()
    }

    /// Returns contents as the body of a message: in the store, under this name, if they are too large for it. `None` if `give_up` says so
    /// between attempts.
    pub(crate) async fn body<'a>(
        &self,
        name: String,
        contents: &'a [u8],
        give_up: impl Fn() -> bool,
    ) -> Option<Body<'a>> {
        if contents.len() <= self.max_inline() {
            return Some(Body::Inline(contents.into()));
        }
        let put = || async {
            let (store, mut unread) = (self.store().await?, contents);
            let put = store.put(&*name, &mut unread);
            self.unless_reconnected(put).await?.ok().map(drop)
        };
        retry(put, give_up).await?;
        Some(Body::Stored(name))
    }

    /// Returns the contents of a body. `None` if an object does not exist (any more), or the server does not return it.
    pub(crate) async fn contents(&self, payload: &Bytes, body: &Body<'_>) -> Option<Bytes> {
        match body {
            Body::Inline(blob) => Some(payload.slice_ref(&blob.0)),
            Body::Stored(name) => {
                let mut contents = Vec::new();
                let mut object = self.store().await?.get(name).await.ok()?;
                // The client panics if the server does not reply in time.
                let read = AssertUnwindSafe(object.read_to_end(&mut contents)).catch_unwind();
                self.unless_reconnected(read).await?.ok()?.ok()?;
                Some(contents.into())
            }
        }
    }

    pub(crate) async fn delete_object(&self, name: &str) {
        if let Some(store) = self.store().await {
            let _ = store.delete(name).await;
        }
    }
}

/// Repeats an attempt until it succeeds, or `give_up` says so.
async fn retry<T, F>(attempt: impl Fn() -> F, give_up: impl Fn() -> bool) -> Option<T>
where
    F: Future<Output = Option<T>>,
{
    loop {
        if let Some(done) = attempt().await {
            return Some(done);
        }
        if give_up() {
            return None;
        }
        sleep(PAUSE).await;
    }
}
