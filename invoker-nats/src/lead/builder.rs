//! [`LeaderBuilder`]: configures and starts the leader of a run.

use std::any::type_name;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use invoker::{Op, OpBuilder, PlainOp, Render, Reporter};
use progress::{Bar, Total};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::shared::Shared;
use super::{Leader, actor};
use crate::accounting::Accounting;
use crate::batcher::Batcher;
use crate::cluster::Cluster;
use crate::error::Error;
use crate::link::{Keep, Link, Silence};
use crate::wire::{self, Manifest, Reply, Request};

/// Configures a [`Leader`]: made by [`Cluster::lead`].
#[must_use = "call `build`"]
pub struct LeaderBuilder<T, R> {
    cluster: Cluster,
    op: &'static str,
    /// The encoded values of the op, or why they can't be encoded.
    data: Result<Vec<u8>, String>,
    seed: Option<u64>,
    label: Option<String>,
    window: Option<usize>,
    node_losses: u32,
    keep: Keep,
    types: PhantomData<fn(T) -> R>,
}

impl<T, R> std::fmt::Debug for LeaderBuilder<T, R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LeaderBuilder")
            .field("cluster", &self.cluster)
            .finish_non_exhaustive()
    }
}

impl Cluster {
    /// Starts building the leader of the run, from the op. It needs no model: nodes have it.
    pub fn lead<M, T, R>(&self, op: fn(&M, T) -> R) -> LeaderBuilder<T, R>
    where
        M: Serialize + DeserializeOwned + Send + Sync + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        self.lead_op::<PlainOp<M, T, R>, M, T, R>(invoker::Invoker::builder(op))
    }

    /// Like [`lead`](Self::lead), for ops with a state or a view, a [context](OpBuilder::context), retries, or a
    /// [fold](OpBuilder::fold). Nodes take all of these values from the leader; those of their own builder are replaced.
    pub fn lead_op<F, M, T, R>(&self, op: OpBuilder<F, M, T, R>) -> LeaderBuilder<T, R>
    where
        F: Op<M, T, R>,
    {
        LeaderBuilder {
            cluster: self.clone(),
            op: type_name::<F>(),
            data: postcard::to_allocvec(&invoker::facade::op_data(op)).map_err(|e| e.to_string()),
            seed: None,
            label: None,
            window: None,
            node_losses: 2,
            keep: Keep {
                resumable: false,
                ack_wait: Duration::from_secs(5),
            },
            types: PhantomData,
        }
    }
}

impl<T, R> LeaderBuilder<T, R>
where
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    /// Derives a seed for each task from `root`, as [`Builder::seed`](invoker::Builder::seed) does: outputs are those of a single
    /// machine.
    pub fn seed(mut self, root: u64) -> Self {
        self.seed = Some(root);
        self
    }

    /// Shows progress under this label, with the number of nodes.
    pub fn progress(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets how many batches may be open (default: three for each node, and two). More hide a longer way to the server, and cost memory
    /// of the leader and the server.
    pub fn window(mut self, batches: usize) -> Self {
        self.window = Some(batches.max(1));
        self
    }

    /// Sets how many nodes a task may cost (default: 2). A task that had started on a node that is lost runs again, alone on its node,
    /// until this number of nodes was lost with it; then it fails with [`Fault::NodeLost`](invoker::Fault::NodeLost).
    ///
    /// With 1, all tasks fail that a lost node had started. With 0, too, and no task runs twice whatever happens: nodes wait for the
    /// leader before they begin tasks.
    pub fn node_losses(mut self, nodes: u32) -> Self {
        self.node_losses = nodes;
        self
    }

    /// Keeps answers in the server until the run has ended, so that the same program, started again after the leader died, takes them
    /// from there: outputs are delivered once more, but not computed again. Tasks are recognized by job (the calls of `map` and so on,
    /// in order), position and content.
    ///
    /// Meanwhile nodes work as far as the window reaches, and then wait, for up to an hour. The leader keeps in memory the answers that
    /// it found and has not delivered.
    pub fn resumable(mut self) -> Self {
        self.keep.resumable = true;
        self
    }

    /// Sets after which silence a node counts as lost (default: 5 s). Nodes report three times in that time. Shorter means that less
    /// time is lost with a node, and that a node that was only stopped or cut off for that time counts as lost.
    pub fn ack_wait(mut self, silence: Duration) -> Self {
        self.keep.ack_wait = silence.max(Duration::from_millis(300));
        self
    }

    /// Connects, and begins the run, or resumes it. Nodes may be there before, or come later.
    ///
    /// # Errors
    /// [`Error::Connect`] and [`Error::Server`]; [`Error::HasLeader`] if the run has a leader that is alive; [`Error::Resume`] if it was
    /// started by another program; [`Error::Context`]; [`Error::Unsupported`] for a resumable run without `node_losses`.
    pub fn build(self) -> Result<Leader<T, R>, Error> {
        if self.keep.resumable && self.node_losses == 0 {
            return Err(Error::Unsupported {
                what: "`node_losses(0)`",
                problem: "forbids that a task runs twice, which a resumed run may do",
                remedy: "leave out one of them",
            });
        }
        let data = self.data.map_err(Error::Context)?;
        let manifest = Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            op: self.op.to_owned(),
            task: type_name::<T>().to_owned(),
            output: type_name::<R>().to_owned(),
            seed: self.seed,
            data,
            session: random()?,
            ack_wait_ms: self.keep.ack_wait.as_millis() as u64,
            lease_ms: match self.keep.resumable {
                true => 3_600_000,
                false => (6 * self.keep.ack_wait.as_millis() as u64).max(30_000),
            },
            node_losses: self.node_losses,
        };
        let (thread, link) = self.cluster.connect("leader")?;
        if manifest.data.len() > link.max_inline() {
            let (is, most) = (manifest.data.len(), link.max_inline());
            return Err(Error::Context(format!(
                "it has {is} bytes, and the server takes {most}"
            )));
        }
        let keep = self.keep;
        let (run, on_thread) = (self.cluster.run.clone(), link.clone());
        let (manifest, last, requests) = thread.run(async move {
            let begun = begin(&on_thread, &run, manifest, keep);
            let (manifest, last) = on_thread.permitted(begun).await?;
            let requests = on_thread.subscribe("leader").await?;
            let records = on_thread.subscribe("logs").await?;
            Ok::<_, Error>((manifest, last, (requests, records)))
        })?;
        let reporter = match &self.label {
            None => None,
            Some(_) => {
                let reporter = Reporter::builder().render(Render::default()).start()?;
                reporter.install_panic_hook();
                Some(reporter)
            }
        };
        let bar = Bar::new(self.label.unwrap_or_default(), Total::Known(0));
        // Higher than those of an earlier leader, whose batches nodes may have.
        let first_batch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |it| it.as_nanos() as u64);
        let accounting = Accounting::new(self.node_losses, keep.ack_wait, first_batch);
        let batcher = Batcher::new(link.max_inline());
        let (send, commands) = mpsc::unbounded_channel();
        let shared = Shared::new(accounting, batcher, manifest, keep.resumable, send, bar);
        let shared = Arc::new(shared);
        actor::start(
            thread.handle(),
            &link,
            &shared,
            keep,
            commands,
            requests,
            random()?,
        );
        // All answers to an earlier leader are known before the first task is taken.
        let mut core = shared.core();
        while core.read < last {
            core = shared.wait(core);
        }
        drop(core);
        Ok(Leader::new(shared, link, thread, reporter, self.window))
    }
}

/// Creates the streams of the run, or finds those of a run to resume. Returns its manifest, and the number of its last answer.
async fn begin(link: &Link, run: &str, manifest: Manifest, keep: Keep) -> Result<(Manifest, u64), Error> {
    if !matches!(link.ask(&Request::Manifest).await, Err(Silence::NoLeader)) {
        return Err(Error::HasLeader { run: run.to_owned() });
    }
    if keep.resumable
        && let Some((bytes, last)) = link.reopen().await?
    {
        let refused = |reason: &str| Error::Resume {
            run: run.to_owned(),
            reason: reason.to_owned(),
        };
        let Ok(Reply::Manifest(earlier)) = wire::decode::<Reply>(&bytes) else {
            return Err(refused("its manifest is malformed"));
        };
        let mut reason = manifest.differences(&earlier);
        if manifest.seed != earlier.seed {
            reason = format!("the seed is {:?}, and was {:?}", manifest.seed, earlier.seed);
        } else if manifest.data != earlier.data {
            "the context is another one".clone_into(&mut reason);
        }
        if !reason.is_empty() {
            return Err(refused(&reason));
        }
        link.create(keep).await?;
        let session = earlier.session;
        return Ok((Manifest { session, ..manifest }, last));
    }
    // Of a leader that has died, and was not resumable.
    link.delete().await;
    link.create(keep).await?;
    if keep.resumable {
        let bytes = wire::encode(&Reply::Manifest(Box::new(manifest.clone())));
        link.publish(
            "manifest",
            &format!("manifest-{}", manifest.session),
            bytes.into(),
            || false,
        )
        .await;
    }
    Ok((manifest, 0))
}

pub(crate) fn random() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Error::Os {
        step: "get a random number",
        source: error.into(),
    })
}
