//! [`LeaderBuilder`]: configures and starts the leader of a run.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::client::RequestErrorKind;
use cluster_run::{Jobs, LeaderState, Limits, Manifest, NodeState, Value};
use invoker::facade::RunProgress;
use invoker::{Op, OpBuilder, PlainOp, Render, Reporter};
use progress::{Bar, Total};
use tokio::sync::mpsc;

use super::{Leader, actor};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::link::{ANSWERS, Link, Puller};

/// Configures a [`Leader`]: made by [`Cluster::lead`].
#[must_use = "call `build`"]
pub struct LeaderBuilder<T, R> {
    cluster: Cluster,
    /// Or why the values of the op cannot be encoded.
    manifest: Result<Manifest, String>,
    label: Option<String>,
    max_batch: Option<usize>,
    types: PhantomData<fn(T) -> R>,
}

impl<T, R> std::fmt::Debug for LeaderBuilder<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LeaderBuilder({:?})", self.cluster)
    }
}

impl Cluster {
    /// Starts building the leader of the run, from the op. It needs no model: nodes have it.
    pub fn lead<M: Value + Sync, T: Value, R: Value>(&self, op: fn(&M, T) -> R) -> LeaderBuilder<T, R> {
        self.lead_op::<PlainOp<M, T, R>, M, T, R>(invoker::Invoker::builder(op))
    }

    /// Like [`lead`](Self::lead), for ops with a state or a view, a [context](OpBuilder::context), retries, or a
    /// [fold](OpBuilder::fold). Nodes take all of these values from the leader; those of their own builder are replaced.
    pub fn lead_op<F: Op<M, T, R>, M, T, R>(&self, op: OpBuilder<F, M, T, R>) -> LeaderBuilder<T, R> {
        LeaderBuilder {
            cluster: self.clone(),
            manifest: Manifest::new(op),
            label: None,
            max_batch: None,
            types: PhantomData,
        }
    }
}

impl<T: Value, R: Value> LeaderBuilder<T, R> {
    fn set(mut self, set: impl FnOnce(&mut Manifest)) -> Self {
        self.manifest.as_mut().map(set).ok();
        self
    }

    /// Derives a seed for each task from `root`, as [`Builder::seed`](invoker::Builder::seed) does: outputs are those of a single
    /// machine.
    pub fn seed(self, root: u64) -> Self {
        self.set(|manifest| manifest.seed = Some(root))
    }

    /// Shows progress under this label, with the number of nodes.
    pub fn progress(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets how many nodes a task may cost (default: 2). A task that had started on a node that is lost runs again, alone on its node,
    /// until this number of nodes was lost with it; then it fails with [`Fault::NodeLost`](invoker::Fault::NodeLost).
    ///
    /// With 1, all tasks fail that a lost node had started. With 0, too, and no task runs twice whatever happens: nodes wait for the
    /// leader before they begin tasks.
    pub fn node_losses(self, nodes: u32) -> Self {
        self.set(|manifest| manifest.node_losses = nodes)
    }

    /// Keeps answers in the server until the run has ended, so that the same program, started again after the leader died, takes them
    /// from there: outputs are delivered once more, but not computed again. Tasks are recognized by job (the calls of `map` and so on,
    /// in order), position and content.
    ///
    /// Meanwhile nodes work as far as the window reaches, and then wait, for up to an hour. The leader keeps in memory the answers that
    /// it found and has not delivered.
    pub fn resumable(self) -> Self {
        self.set(|manifest| manifest.resumable = true)
    }

    /// Sets after which silence a node counts as lost (default: 5 s). Nodes report at least three times in that time. Shorter means that less
    /// time is lost with a node, and that a node that was only stopped or cut off for that time counts as lost.
    pub fn ack_wait(self, silence: Duration) -> Self {
        self.set(|manifest| manifest.ack_wait = silence.max(Duration::from_millis(300)))
    }

    /// Sets the most tasks of a batch (default: 65,536). By default, a batch has about 200 ms of a node's work. A smaller number brings the
    /// first outputs earlier, and costs more messages.
    pub fn max_batch(mut self, tasks: usize) -> Self {
        self.max_batch = Some(tasks);
        self
    }

    /// Connects, and begins the run, or resumes it. Nodes may be there before, or come later.
    ///
    /// # Errors
    /// [`Error::Connect`] and [`Error::Server`]; [`Error::HasLeader`] if the run has a leader that is alive; [`Error::Resume`] if it was
    /// started by another program; [`Error::Context`]; [`Unsupported`](invoker::Error::Unsupported) for a resumable run without
    /// `node_losses`.
    pub fn build(self) -> Result<Leader<T, R>, Error> {
        let mut manifest = self.manifest.map_err(Error::Context)?;
        if manifest.resumable && manifest.node_losses == 0 {
            return Err(Error::Invoker(invoker::Error::Unsupported {
                what: "a resumable run, which may run a task twice,",
                needs: "`node_losses` of 1 or more",
                remedy: "leave out one of them",
            }));
        }
        manifest.session = random()?;
        let (thread, link) = self.cluster.connect("leader")?;
        let (is, most) = (manifest.to_bytes().len(), link.max_inline());
        if is > most {
            return Err(Error::Context(format!(
                "with it, the description of the run has {is} bytes, and the server takes {most}"
            )));
        }
        let (manifest, last, requests, records) = thread.wait(async {
            let begun = begin(&link, &self.cluster.run, manifest);
            let (manifest, last) = link.permitted(begun).await?;
            let requests = link.subscribe("leader").await?;
            let records = link.subscribe("logs").await?;
            Ok::<_, Error>((manifest, last, requests, records))
        })?;
        let bar = Bar::new(self.label.clone().unwrap_or_default(), Total::Known(0));
        let reporter = self
            .label
            .map(|_| Reporter::builder().render(Render::default()).start());
        let reporter = reporter.transpose().map_err(invoker::Error::from)?.map(Arc::new);
        if let Some(reporter) = &reporter {
            reporter.install_panic_hook();
        }
        let progress = RunProgress::new(bar.clone(), reporter);
        // Higher than those of an earlier leader, whose batches nodes may have.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let first_number = now.map_or(1, |it| it.as_nanos() as u64);
        let (sender, commands) = mpsc::unbounded_channel();
        let send = move |batch| sender.send(batch).unwrap_or_default();
        let mut limits = Limits::new(most);
        limits.batch_tasks = self.max_batch.unwrap_or(limits.batch_tasks);
        let state = Arc::new(LeaderState::new(manifest, first_number, limits, bar, send));
        // All answers to an earlier leader are known before the first task is taken.
        let mut answers = Puller::new(ANSWERS, 256);
        thread.wait(actor::read_answers(&link, &state, &mut answers, last));
        let (handle, on_thread, to_read) = (thread.handle(), link.clone(), state.clone());
        handle.spawn(async move {
            actor::read_answers(&on_thread, &to_read, &mut answers, u64::MAX).await;
        });
        handle.spawn(actor::send_batches(link.clone(), state.clone(), commands));
        handle.spawn(actor::repeat_records(state.clone(), records));
        handle.spawn(actor::look_after_nodes(link.clone(), state.clone()));
        handle.spawn(actor::reply_to_nodes(link.clone(), state.clone(), requests));
        Ok(Leader {
            jobs: Jobs::new(state.clone(), progress),
            state,
            link,
            thread,
            finished: false,
        })
    }
}

/// Creates the streams of the run, or finds those of a run to resume. Returns its manifest, and the number of its last answer.
async fn begin(link: &Link, run: &str, manifest: Manifest) -> Result<(Manifest, u64), Error> {
    if link.ask(NodeState::ask_manifest()).await != Err(RequestErrorKind::NoResponders) {
        return Err(Error::HasLeader { run: run.to_owned() });
    }
    if manifest.resumable
        && let Some((bytes, last)) = link.reopen().await?
    {
        let resumed = manifest.resume(&bytes).map_err(|reason| Error::Resume {
            run: run.to_owned(),
            reason,
        })?;
        link.create(&resumed).await?;
        return Ok((resumed, last));
    }
    // Of a leader that has died, and was not resumable.
    link.delete().await;
    link.create(&manifest).await?;
    if manifest.resumable {
        let id = format!("manifest-{}", manifest.session);
        link.publish("manifest", &id, manifest.to_bytes(), || false).await;
    }
    Ok((manifest, 0))
}

pub(crate) fn random() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::os("get a random number", error.into()))
}
