//! An engine that is a queue in memory, with the faults that a network has.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_run::{
    BatchId, ClusterReport, Disposal, Engine, HeldBatch, Jobs, LeaderState, Limits, Manifest, NodeState,
    Reply, Value, run_batches,
};
use invoker::facade::{self, RunProgress};
use invoker::{Invoker, PoolError};
use progress::{Bar, Total};

/// After this silence, a node is lost.
const ACK_WAIT: Duration = Duration::from_millis(300);
const LOOK: Duration = Duration::from_millis(5);

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Every third message comes twice.
    pub(crate) doubled: bool,
    /// Damaged copies of every answer come first.
    pub(crate) damaged: bool,
    /// The first node falls silent after this number of answers.
    pub(crate) lost_after: Option<u64>,
}

type Queue = Arc<Mutex<VecDeque<Bytes>>>;

/// A leader, and the threads of its engine.
pub(crate) struct Run<T, R> {
    pub(crate) jobs: Jobs<T, R>,
    pub(crate) state: Arc<LeaderState>,
    /// The number of batches that the engine is still to lose.
    pub(crate) drops: Arc<AtomicUsize>,
    queue: Queue,
    faults: Faults,
    threads: Threads,
}

/// Joined when they are dropped.
struct Threads(Vec<JoinHandle<()>>);

impl Drop for Threads {
    fn drop(&mut self) {
        for thread in self.0.drain(..) {
            thread.join().expect("no panic");
        }
    }
}

impl<T: Value, R: Value> Run<T, R> {
    pub(crate) fn start(op: fn(&u64, T) -> R, faults: Faults, set: impl FnOnce(&mut Manifest)) -> Self {
        let mut manifest = Manifest::new(Invoker::builder(op)).expect("no context");
        (manifest.session, manifest.ack_wait) = (17, ACK_WAIT);
        set(&mut manifest);
        let (sender, batches) = mpsc::channel::<BatchId>();
        let send = move |batch| sender.send(batch).unwrap_or_default();
        let (bar, mut limits) = (Bar::new("run", Total::Known(0)), Limits::new(1 << 20));
        limits.batch_tasks = 100;
        let state = Arc::new(LeaderState::new(manifest, 1, limits, bar.clone(), send));
        let (queue, drops) = (Queue::default(), Arc::new(AtomicUsize::new(0)));
        let (sending, into, lost) = (state.clone(), queue.clone(), drops.clone());
        let leader = thread::spawn(move || {
            let mut looked = Instant::now();
            while !sending.has_ended() {
                while let Ok(id) = batches.recv_timeout(LOOK) {
                    send_batch(&sending, &id, &into, &lost, faults.doubled);
                }
                sending.tick(Instant::now());
                if looked.elapsed() > ACK_WAIT {
                    let before = std::mem::replace(&mut looked, Instant::now());
                    if lock(&into).is_empty() {
                        sending.resend_unclaimed(before);
                    }
                }
            }
        });
        Self {
            jobs: Jobs::new(state.clone(), RunProgress::new(bar, None)),
            state,
            drops,
            queue,
            faults,
            threads: Threads(vec![leader]),
        }
    }

    /// Starts a node in a thread.
    pub(crate) fn node(
        &self,
        id: u64,
        start: impl FnOnce() -> Invoker<u64, T, R> + Send + 'static,
    ) -> JoinHandle<()> {
        let (leader, queue, faults) = (self.state.clone(), self.queue.clone(), self.faults);
        thread::spawn(move || {
            let invoker = start();
            let manifest = leader.reply(&NodeState::ask_manifest(), Instant::now());
            let Some(Reply::Manifest(manifest)) = manifest.as_deref().and_then(Reply::from_bytes) else {
                panic!("the description of the run");
            };
            let node = NodeState::new(*manifest, id, &invoker).expect("it has workers");
            let engine = Connection {
                leader,
                faults,
                is_first: id == 0,
                answers: AtomicU64::new(0),
                stops: AtomicBool::new(false),
            };
            assert_eq!(engine.ask(&node.ask_to_join()), Some(Reply::Yes));
            serve(&node, &engine, &queue, &invoker);
            if !engine.is_lost() {
                engine.ask(&node.farewell(0, None));
            }
        })
    }

    pub(crate) fn finish(self) -> ClusterReport {
        let Self {
            jobs,
            state,
            mut threads,
            ..
        } = self;
        jobs.finish();
        state.begin_end();
        let started = Instant::now();
        while state.nodes() > 0 && started.elapsed() < Duration::from_secs(5) {
            thread::sleep(LOOK);
        }
        state.end();
        threads.0.drain(..).for_each(|it| it.join().expect("no panic"));
        state.report()
    }
}

fn send_batch(leader: &LeaderState, id: &BatchId, into: &Queue, lost: &AtomicUsize, doubled: bool) {
    let Some((_, message)) = leader.message(id).filter(|_| leader.is_wanted(id)) else {
        return;
    };
    let is_lost = lost.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
    if is_lost.is_err() {
        lock(into).push_back(message.clone());
        if doubled {
            lock(into).push_back(message);
        }
    }
    leader.sent(id, Instant::now());
}

/// Runs batches until the node stops.
fn serve<T: Value, R: Value>(
    node: &NodeState,
    engine: &Connection,
    queue: &Queue,
    invoker: &Invoker<u64, T, R>,
) {
    let (pool, _) = facade::pool(invoker).expect("it has workers");
    let pulling = Mutex::new(());
    let next_batches = || {
        let _turn = lock(&pulling);
        node.wait_for_room(engine)?;
        let mut taken = Vec::new();
        while !engine.stops() {
            while (taken.is_empty() || node.has_time_for_another(&taken))
                && let Some(message) = lock(queue).pop_front()
            {
                taken.push(HeldBatch::new(message, node, false).expect("a batch of this run"));
            }
            if !taken.is_empty() {
                return Some(taken);
            }
            thread::sleep(LOOK);
        }
        None
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            while !engine.is_lost() && engine.ask(&node.beat()) != Some(Reply::End) {
                thread::sleep(LOOK);
            }
            engine.stops.store(true, Ordering::Relaxed);
        });
        for _ in 0..node.threads() {
            scope.spawn(|| {
                while let Some(taken) = next_batches() {
                    let disposals = run_batches(node, engine, pool, &taken, &|_, _| {});
                    let mut last_answers = Vec::new();
                    for (held, disposal) in taken.iter().zip(disposals) {
                        match disposal {
                            Disposal::Done(last) => last_answers.push(last),
                            Disposal::Unwanted => {}
                            Disposal::GiveBack => lock(queue).push_back(held.contents().clone()),
                        }
                    }
                    if !last_answers.is_empty() {
                        let (id, answers) = node.last_answers(&last_answers);
                        engine.publish(id, answers);
                    }
                }
            });
        }
    });
}

/// What connects a node.
struct Connection {
    leader: Arc<LeaderState>,
    faults: Faults,
    is_first: bool,
    answers: AtomicU64,
    stops: AtomicBool,
}

impl Connection {
    fn is_lost(&self) -> bool {
        self.leader.has_ended()
            || self.is_first
                && self
                    .faults
                    .lost_after
                    .is_some_and(|most| self.answers.load(Ordering::Relaxed) >= most)
    }
}

impl Engine for Connection {
    type Sending = ();

    fn ask(&self, request: &Bytes) -> Option<Reply> {
        if self.is_lost() {
            return None;
        }
        let reply = self.leader.reply(request, Instant::now());
        reply.as_deref().and_then(Reply::from_bytes)
    }

    fn max_message(&self) -> usize {
        1 << 20
    }

    fn publish(&self, _id: String, answer: Bytes) {
        if self.is_lost() {
            return;
        }
        let number = self.answers.fetch_add(1, Ordering::Relaxed);
        if self.faults.damaged {
            // Cut, or with other bytes at its end: a changed output is an output, so that a network has checksums.
            let at = (number as usize * 7) % answer.len();
            self.leader.receive(&answer.slice(..at));
            self.leader.receive(&[&answer[..], b"more"].concat().into());
        }
        self.leader.receive(&answer);
        if self.faults.doubled && number.is_multiple_of(3) {
            self.leader.receive(&answer);
        }
    }

    fn wait(&self, (): ()) {}

    fn fail(&self, error: PoolError) {
        panic!("{error}");
    }

    fn stops(&self) -> bool {
        self.stops.load(Ordering::Relaxed) || self.is_lost()
    }

    fn is_over(&self) -> bool {
        self.is_lost()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
