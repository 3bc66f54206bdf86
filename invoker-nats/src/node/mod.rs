//! A node of a run: pulls batches, runs their tasks in its pool, and publishes the answers.

mod fetch;
mod run;
mod state;

use std::any::type_name;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use invoker::facade;
use invoker::{Builder, Interrupt, Invoker, OnInterrupt, Op};
use log_bridge::relay::Relay;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::cluster::Cluster;
use crate::error::Error;
use crate::lead::random;
use crate::link::Link;
use crate::report::{NodeReport, ServeEnd};
use crate::wire::{self, Join, Manifest, NodeCounts, Reply, Request};
use state::{NodeShared, Stop};

/// Batches that a node has at the same time: one can be fetched while the other runs.
const BATCHES: usize = 2;
/// Time between two questions for the leader.
pub(crate) const ASK: Duration = Duration::from_millis(200);
/// Time between two messages with records.
const RECORDS: Duration = Duration::from_millis(200);
/// Time between two looks at signals.
const LOOK: Duration = Duration::from_millis(20);

impl Cluster {
    /// Serves as a node of the run: waits for its leader, starts the workers of the builder, and runs tasks until the run ends. One
    /// process per machine.
    ///
    /// The builder has the model, and the options of worker processes; [seed](invoker::Builder::seed) and
    /// [context](invoker::OpBuilder::context) come from the leader. SIGTERM and Ctrl-C let the node leave: it finishes the tasks that
    /// have started, and gives back the others.
    ///
    /// # Errors
    /// [`Error::Connect`]; [`Error::NoLeader`] if none comes in [time](Self::wait); [`Error::Refused`] if op, types or the model differ
    /// from the leader's; [`Error::Invoker`] if the workers cannot start or fail.
    pub fn serve<F, M, T, R>(&self, builder: Builder<'_, F, M, T, R>) -> Result<NodeReport, Error>
    where
        F: Op<M, T, R>,
        M: Serialize + DeserializeOwned + Send + Sync + 'static,
        T: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let (thread, link) = self.connect("node")?;
        let (asking, wait) = (link.clone(), self.wait);
        let manifest = thread.run(async move { asking.permitted(find_leader(&asking, wait)).await });
        let manifest = manifest?.ok_or_else(|| Error::NoLeader {
            run: self.run.clone(),
            waited: self.wait,
        })?;
        let own = Manifest {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            op: type_name::<F>().to_owned(),
            task: type_name::<T>().to_owned(),
            output: type_name::<R>().to_owned(),
            ..manifest.clone()
        };
        let refused = |reason| Error::Refused {
            run: self.run.clone(),
            reason,
        };
        let differences = own.differences(&manifest);
        if !differences.is_empty() {
            return Err(refused(differences));
        }
        let data = postcard::from_bytes(&manifest.data)
            .map_err(|e| refused(format!("it cannot decode the context: {e}")))?;
        let builder = facade::with_op_data(builder, data).on_interrupt(OnInterrupt::Finish);
        let builder = match manifest.seed {
            Some(root) => builder.seed(root),
            None => builder,
        };
        let invoker = builder.build()?;
        let (_, image) = facade::pool(&invoker)?;
        let join = Join {
            node: random()?,
            name: format!("{}:{}", host_name(), std::process::id()),
            workers: invoker.workers() as u32,
            checksum: image.checksum(),
            model_bytes: image.byte_len(),
        };
        let shared = Arc::new(NodeShared::new(
            link.clone(),
            thread.handle().clone(),
            manifest,
            join,
        ));
        let joining = shared.clone();
        if let Some(Reply::Refused(reason)) = thread.run(async move { joining.join(ASK).await }) {
            return Err(refused(reason));
        }
        let (listening, subscribing) = (shared.clone(), link.clone());
        let messages = thread.run(async move { subscribing.subscribe("nodes").await })?;
        thread.handle().spawn(fetch::listen(listening, messages));
        let (relaying, relay) = (shared.clone(), self.relay());
        thread.handle().spawn(async move {
            while relaying.stopped().is_none() {
                relay_records(&relaying, &relay).await;
                tokio::time::sleep(RECORDS).await;
            }
        });
        let batches = serve_until_stopped(&invoker, &shared)?;
        let stop = shared.stopped();
        let report = invoker.finish();
        let mut counts = shared.counts();
        if let Ok(report) = &report {
            counts.worker_deaths = report.processes.as_ref().map_or(0, |processes| processes.died);
            counts.pss = report.memory.as_ref().map(|memory| memory.total_pss);
        }
        let (leaving, relay) = (shared.clone(), self.relay());
        thread.run(async move {
            relay_records(&leaving, &relay).await;
            leave(&leaving, counts).await;
        });
        let end = match stop {
            Some(Stop::Failed(error)) => return Err(invoker::Error::Pool(error).into()),
            Some(Stop::Ended(end)) => end,
            None => ServeEnd::Interrupted,
        };
        Ok(NodeReport {
            end,
            batches,
            report: report?,
        })
    }
}

/// Runs batches. Returns their number.
fn serve_until_stopped<M, T, R>(invoker: &Invoker<M, T, R>, shared: &Arc<NodeShared>) -> Result<u64, Error>
where
    M: Send + Sync + 'static,
    T: Serialize + DeserializeOwned + Send + 'static,
    R: Serialize + DeserializeOwned + Send + 'static,
{
    let (pool, _) = facade::pool(invoker)?;
    facade::start_run(invoker);
    let count = |done, failed| facade::count(invoker, done, failed);
    shared.handle.spawn(fetch::renew(shared.clone()));
    let batches = thread::scope(|scope| {
        let runners: Vec<_> = (0..BATCHES)
            .map(|_| scope.spawn(|| run::run_batches(shared, pool, &count)))
            .collect();
        while shared.stopped().is_none() {
            if invoker.interrupted().is_some() {
                shared.stop(Stop::Ended(ServeEnd::Interrupted));
            }
            thread::sleep(LOOK);
        }
        if shared.is_over() {
            // The running tasks are of no use, and may take long.
            pool.interrupt(Interrupt::Kill);
        }
        let joined = runners.into_iter().map(|runner| runner.join());
        joined
            .map(|number| number.unwrap_or_else(|panic| resume_unwind(panic)))
            .sum()
    });
    Ok(batches)
}

async fn find_leader(link: &Link, wait: Duration) -> Result<Option<Manifest>, Error> {
    let started = Instant::now();
    loop {
        if let Ok(Reply::Manifest(manifest)) = link.ask(&Request::Manifest).await {
            return Ok(Some(*manifest));
        }
        if started.elapsed() >= wait {
            return Ok(None);
        }
        tokio::time::sleep(ASK).await;
    }
}

/// Sends the records that wait.
async fn relay_records(shared: &NodeShared, relay: &Relay) {
    while let Some(records) = relay.take(shared.link.max_inline()) {
        shared
            .link
            .send("logs", wire::encode(&(shared.join.node, records)))
            .await;
    }
}

async fn leave(shared: &NodeShared, counts: NodeCounts) {
    let node = shared.join.node;
    shared.link.notify(&Request::Leave { node, counts }).await;
    let _ = tokio::time::timeout(Duration::from_secs(1), shared.link.client.flush()).await;
}

#[cfg(unix)]
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(not(unix))]
fn host_name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "node".to_owned())
}
