//! [`Link`]: the connection to the server, and what leader and nodes do with it: streams, requests, objects.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::time::Duration;

use async_nats::client::RequestErrorKind;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::object_store::{self, ObjectStore};
use async_nats::jetstream::stream::{self, DiscardPolicy, RetentionPolicy};
use async_nats::jetstream::{Context, Message};
use async_nats::{Client, StatusCode, Subscriber};
use bytes::Bytes;
use cluster_run::{Manifest, Reply};
use futures_util::future::{Either, select};
use futures_util::{FutureExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::error::Error;

/// How long an acknowledged publication, or a request to the server, may take before it is sent again.
const REPLY: Duration = Duration::from_secs(3);
/// Time between attempts.
const PAUSE: Duration = Duration::from_millis(50);
/// How long the server keeps a request for messages open.
const PULL: Duration = Duration::from_secs(2);
/// The most bytes that are requested at a time.
const MAX_PULLED: usize = 8 << 20;
/// The most bytes of tasks that lie in the server.
const MAX_TASK_BYTES: i64 = 512 << 20;
/// The most bytes of answers that lie in the server, unless the run can be resumed: then nodes wait.
const MAX_ANSWER_BYTES: i64 = 1 << 30;
/// The header of a message whose contents are an object in the store: its name.
const OBJECT: &str = "Invoker-Object";

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

/// Requests messages of a queue when [`next`](Self::next) waits for them, and not before: the server delivers messages again that
/// are not acknowledged in time. (The streams of the client's library request the next messages while earlier ones are processed,
/// and its batches subscribe anew for each request.)
pub(crate) struct Puller {
    queue: Queue,
    /// How many are requested at a time.
    pub(crate) most: usize,
    /// Where the messages come to.
    inbox: Option<(String, Subscriber)>,
    /// The number of the last request.
    number: u64,
    /// How many messages it may still bring, and until when.
    open: Option<(usize, Instant)>,
}

/// The server is away, or has no such queue.
pub(crate) struct Away;

impl Puller {
    pub(crate) fn new(queue: Queue, most: usize) -> Self {
        Self {
            queue,
            most,
            inbox: None,
            number: 0,
            open: None,
        }
    }

    /// Returns whether messages are requested that have not come.
    pub(crate) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Waits for the next message. Returns `None`, after a pause, if the server is away or has no such queue now.
    pub(crate) async fn next(&mut self, link: &Link) -> Option<Message> {
        loop {
            match self.next_of_request(link).await {
                Ok(None) => {}
                Ok(message) => return message,
                Err(Away) => return None,
            }
        }
    }

    /// Like [`next`](Self::next), but also returns at the end of a request, without a message.
    pub(crate) async fn next_of_request(&mut self, link: &Link) -> Result<Option<Message>, Away> {
        let next = self.try_next(link).await;
        if next.is_err() {
            sleep(2 * PAUSE).await;
        }
        next.map_err(|()| Away)
    }

    /// Returns a message that was requested and has come already.
    pub(crate) fn take_received(&mut self, link: &Link) -> Option<Message> {
        self.open?;
        self.try_next(link).now_or_never()?.ok()?
    }

    async fn try_next(&mut self, link: &Link) -> Result<Option<Message>, ()> {
        if self.inbox.is_none() {
            let inbox = link.client.new_inbox();
            let messages = link.client.subscribe(format!("{inbox}.*")).await;
            self.inbox = Some((inbox, messages.map_err(drop)?));
        }
        let Some((inbox, messages)) = &mut self.inbox else {
            return Err(());
        };
        if self.open.is_none() {
            self.number += 1;
            let reply = format!("{inbox}.{}", self.number);
            link.request_messages(self.queue, self.most, reply).await?;
            // A server before 2.9.16 ends a request without a status if it expires while messages come.
            self.open = Some((self.most, Instant::now() + PULL + PAUSE));
        }
        let Some((left, end)) = self.open else {
            return Err(());
        };
        let message = match link.unless_reconnected(timeout_at(end, messages.next())).await {
            Some(Ok(Some(message))) => message,
            Some(Ok(None)) => {
                self.inbox = None;
                return Err(());
            }
            // The server has restarted, or is silent.
            Some(Err(_)) | None => {
                self.open = None;
                return Ok(None);
            }
        };
        let Some(status) = message.status else {
            self.open = Some((left - 1, end)).filter(|(left, _)| *left > 0);
            let context = link.context.clone();
            return Ok(Some(Message { message, context }));
        };
        // The end of an earlier request may come late.
        if !message.subject.ends_with(&format!(".{}", self.number)) {
            return Ok(None);
        }
        self.open = None;
        match status {
            StatusCode::NOT_FOUND | StatusCode::TIMEOUT => Ok(None),
            // The next message has more bytes than are left of the request.
            StatusCode::REQUEST_TERMINATED if left < self.most => Ok(None),
            // There is no such consumer.
            _ => Err(()),
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
        let context = ContextBuilder::new().timeout(REPLY).ack_timeout(REPLY);
        Self {
            context: context.build(client.clone()),
            client,
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

    /// The most bytes of a message; larger ones go through the object store.
    pub(crate) fn max_inline(&self) -> usize {
        self.client.max_payload() / 2
    }

    /// Creates what does not exist: both streams, their consumers, and the store of large objects.
    pub(crate) async fn create(&self, manifest: &Manifest) -> Result<(), Error> {
        let (retention, max_bytes) = match manifest.resumable {
            true => (RetentionPolicy::Limits, -1),
            false => (RetentionPolicy::WorkQueue, MAX_ANSWER_BYTES),
        };
        let tasks = (vec!["tasks"], RetentionPolicy::WorkQueue, MAX_TASK_BYTES);
        let answers = (vec!["answers", "manifest"], retention, max_bytes);
        let leader = Duration::from_secs(60);
        let queues = [(TASKS, tasks, manifest.ack_wait), (ANSWERS, answers, leader)];
        for (queue, (subjects, retention, max_bytes), ack_wait) in queues {
            // A consumer without a filter is faster.
            let filter_subject = match subjects[..] {
                [_] => String::new(),
                _ => self.subject(subjects[0]),
            };
            let consumer = pull::Config {
                durable_name: Some(queue.consumer.to_owned()),
                ack_wait,
                max_ack_pending: 1 << 16,
                filter_subject,
                ..pull::Config::default()
            };
            let stream = stream::Config {
                name: self.stream_name(queue),
                subjects: subjects.into_iter().map(|name| self.subject(name)).collect(),
                retention,
                max_bytes,
                discard: DiscardPolicy::New,
                ..stream::Config::default()
            };
            let failed = Error::server("create the streams of the run");
            let stream = self.context.get_or_create_stream(stream).await.map_err(failed)?;
            let created = stream.get_or_create_consumer(queue.consumer, consumer).await;
            created.map_err(Error::server("create the consumers of the run"))?;
        }
        self.create_store(self.bucket()).await.map(drop)
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
    pub(crate) async fn reopen(&self) -> Result<Option<(Bytes, u64)>, Error> {
        let Ok(answers) = self.context.get_stream(self.stream_name(ANSWERS)).await else {
            return Ok(None);
        };
        let last = async |name| answers.get_last_raw_message_by_subject(&self.subject(name)).await;
        let Ok(manifest) = last("manifest").await else {
            return Ok(None);
        };
        if let Ok(tasks) = self.context.get_stream(self.stream_name(TASKS)).await {
            let failed = Error::server("purge the stream of tasks");
            tasks.purge().await.map_err(failed)?;
        }
        let _ = answers.delete_consumer(ANSWERS.consumer).await;
        let last = last("answers").await.map_or(0, |last| last.sequence);
        Ok(Some((manifest.payload, last)))
    }

    /// Returns the number of messages in the stream of tasks.
    pub(crate) async fn queued_tasks(&self) -> Result<u64, Error> {
        let stream = self.context.get_stream(self.stream_name(TASKS)).await;
        let failed = Error::server("describe the stream of tasks");
        Ok(stream.map_err(failed)?.cached_info().state.messages)
    }

    /// Publishes until the server has confirmed it. `id` identifies a large message and its object: the server takes these once. After a lost
    /// confirmation it has other messages twice, and receivers notice that; the ids of all messages would cost it time and memory. Returns
    /// `false` if `is_over` says so between attempts.
    pub(crate) async fn publish(
        &self,
        name: &str,
        id: &str,
        message: Bytes,
        is_over: impl Fn() -> bool,
    ) -> bool {
        while self.try_publish(name, id, &message).await.is_none() {
            if is_over() {
                return false;
            }
            sleep(PAUSE).await;
        }
        true
    }

    async fn try_publish(&self, name: &str, id: &str, message: &Bytes) -> Option<()> {
        let mut publish = PublishMessage::build();
        if message.len() <= self.max_inline() {
            publish = publish.payload(message.clone());
        } else {
            let (store, mut unread) = (self.store().await?, &message[..]);
            self.unless_reconnected(store.put(id, &mut unread)).await?.ok()?;
            publish = publish.header(OBJECT, id).message_id(id);
        }
        let sent = self
            .context
            .send_publish(self.subject(name), publish)
            .await
            .ok()?;
        self.unless_reconnected(sent.into_future()).await?.ok().map(drop)
    }

    /// Waits for a reply of the server. Returns `None` if the server restarts in the meantime.
    async fn unless_reconnected<T>(&self, reply: impl Future<Output = T>) -> Option<T> {
        let mut connections = self.connections.clone();
        connections.mark_unchanged();
        match select(pin!(reply), pin!(connections.changed())).await {
            Either::Left((reply, _)) => Some(reply),
            Either::Right(_) => None,
        }
    }

    /// Asks the server for messages: at least one, whatever its size.
    async fn request_messages(&self, queue: Queue, most: usize, reply: String) -> Result<(), ()> {
        let max_bytes = MAX_PULLED.max(2 * self.client.max_payload());
        let expires = PULL.as_nanos();
        let request = format!(r#"{{"batch":{most},"max_bytes":{max_bytes},"expires":{expires}}}"#);
        let consumer = format!("{}.{}", self.stream_name(queue), queue.consumer);
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{consumer}");
        let sent = self.client.publish_with_reply(subject, reply, request.into());
        sent.await.map_err(drop)
    }

    /// Sends a request to the leader. Without a leader, the error is [`RequestErrorKind::NoResponders`].
    pub(crate) async fn ask(&self, request: Bytes) -> Result<Reply, RequestErrorKind> {
        let asking = self.client.request(self.subject("leader"), request);
        match timeout(Duration::from_secs(2), self.unless_reconnected(asking)).await {
            Ok(Some(Ok(reply))) => Reply::from_bytes(&reply.payload).ok_or(RequestErrorKind::Other),
            Ok(Some(Err(error))) => Err(error.kind()),
            _ => Err(RequestErrorKind::TimedOut),
        }
    }

    /// Sends a message that may be lost. Without a connection, the client's queue may be full.
    pub(crate) async fn send(&self, name: &str, message: Bytes) {
        let sending = self.client.publish(self.subject(name), message);
        let _ = timeout(Duration::from_secs(1), sending).await;
    }

    pub(crate) async fn subscribe(&self, name: &str) -> Result<Subscriber, Error> {
        let failed = Error::server("subscribe to the messages of the run");
        self.client.subscribe(self.subject(name)).await.map_err(failed)
    }

    async fn store(&self) -> Option<ObjectStore> {
        self.context.get_object_store(self.bucket()).await.ok()
    }

    /// Returns the contents of a message. `None` if they are an object that does not exist (any more), or the server does not return it.
    pub(crate) async fn contents(&self, message: &Message) -> Option<Bytes> {
        let Some(name) = object_of(message) else {
            return Some(message.payload.clone());
        };
        let mut contents = Vec::new();
        let mut object = self.store().await?.get(name).await.ok()?;
        // The client panics if the server does not reply in time.
        let read = AssertUnwindSafe(object.read_to_end(&mut contents)).catch_unwind();
        self.unless_reconnected(read).await?.ok()?.ok()?;
        Some(contents.into())
    }

    /// Deletes the object with the contents of a message, if there is one.
    pub(crate) async fn delete_object(&self, message: &Message) {
        if let Some(name) = object_of(message)
            && let Some(store) = self.store().await
        {
            let _ = store.delete(name).await;
        }
    }
}

/// Returns the name of the object with the contents of a message.
fn object_of(message: &Message) -> Option<&str> {
    Some(message.headers.as_ref()?.get(OBJECT)?.as_str())
}
