//! [`CorePool`]: the pool of the leader.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use proc_pool::{
    Builder, BytePool, EntryPoint, FILES_PER_WORKER, Interrupt, NativeThreads, Pool, PoolError, Redirect,
    SystemInfo, Workers,
};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyIterator};
use run_journal::Order;
use shm_buffers::MemoryInfo;

use crate::ending::detached;
use crate::faults::{pool_error, value_error};
use crate::handles::Handle;
use crate::image::CoreImage;
use crate::journal::{self, Totals};
use crate::logs::{self, Hub};
use crate::outputs::{Outputs, Source, Tasks};
use crate::segment::CoreSegment;
use crate::task::{self, Encoded, Reply, ReplyCodec, TaskCodec};
use crate::worker::{SERVICE, initial_value};

/// How long the start of a pool waits before signals are handled.
const SIGNAL_CHECK: Duration = Duration::from_millis(20);

type Inner = Pool<Encoded, Reply>;

/// A pool of Python interpreters that run one op.
#[pyclass(frozen, module = "invokerpool._core")]
pub(crate) struct CorePool {
    /// `None` after it was closed.
    pool: RwLock<Option<Arc<Inner>>>,
    hub: Hub,
    /// The thread of the hub, which ends when the pool has.
    logs: Mutex<Option<JoinHandle<()>>>,
    journals: Arc<Totals>,
    pid: u32,
}

/// The options of a pool, as the package's Python code has checked them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Options {
    program: String,
    arguments: Vec<String>,
    workers: String,
    threads: Option<String>,
    env: Vec<(String, Option<String>)>,
    start_timeout: f64,
    deadline: Option<f64>,
    retries: u32,
    recycle_after: Option<u64>,
    recycle_above: Option<u64>,
    memory_limit: Option<u64>,
    max_output: Option<u64>,
    log_ring: usize,
    stdout: String,
    stderr: String,
}

impl Options {
    fn builder(&self) -> PyResult<Builder> {
        let workers: Workers = self.workers.parse().map_err(value_error)?;
        let mut builder = Builder::new()
            .workers(workers)
            .start_timeout(seconds(self.start_timeout)?)
            .retries(self.retries)
            .user_ring(self.log_ring)
            .stdout(redirect(&self.stdout)?)
            .stderr(redirect(&self.stderr)?);
        builder = builder.native_threads(match self.threads.as_deref() {
            None | Some("share") => NativeThreads::Share,
            Some("unlimited") => NativeThreads::Unlimited,
            Some(count) => NativeThreads::Count(count.parse().map_err(value_error)?),
        });
        for (name, value) in &self.env {
            builder = match value {
                Some(value) => builder.env(name, value),
                None => builder.env_remove(name),
            };
        }
        if let Some(deadline) = self.deadline {
            builder = builder.deadline(seconds(deadline)?);
        }
        if let Some(tasks) = self.recycle_after {
            builder = builder.recycle_after(tasks);
        }
        if let Some(bytes) = self.recycle_above {
            builder = builder.recycle_above(bytes);
        }
        if let Some(bytes) = self.memory_limit {
            builder = builder.memory_limit(bytes);
        }
        if let Some(bytes) = self.max_output {
            builder = builder.max_output(bytes);
        }
        Ok(builder)
    }
}

fn seconds(seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds).map_err(value_error)
}

fn redirect(name: &str) -> PyResult<Redirect> {
    match name {
        "inherit" => Ok(Redirect::Inherit),
        "null" => Ok(Redirect::Null),
        "capture" => Ok(Redirect::Capture),
        other => Err(value_error(format!(
            "{other:?} is not `inherit`, `null` or `capture`"
        ))),
    }
}

impl CorePool {
    fn get(&self, py: Python<'_>) -> PyResult<Arc<Inner>> {
        let pool = self.pool.read().unwrap_or_else(PoisonError::into_inner);
        pool.clone().ok_or_else(|| pool_error(py, &PoolError::ShutDown))
    }

    /// Takes the pool out, so that no later call finds it.
    fn take(&self) -> Option<Arc<Inner>> {
        self.pool.write().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until the records of workers that have ended are delivered. Detached.
    fn finish_logs(&self) {
        if self.pid != std::process::id() {
            return;
        }
        self.hub.stop();
        let thread = self.logs.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A handler of a record may be what ends the pool.
        if let Some(thread) = thread
            && thread.thread().id() != std::thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

impl Drop for CorePool {
    fn drop(&mut self) {
        let pool = self.take();
        // The pool's threads may wait for the interpreter while this one waits for them.
        let mut pool = Some(pool);
        let attached = Python::try_attach(|py| {
            let pool = pool.take();
            py.detach(|| {
                drop(pool);
                self.finish_logs();
            });
        });
        if attached.is_none() {
            drop(pool);
            self.hub.stop();
        }
    }
}

#[pymethods]
impl CorePool {
    /// Starts workers, and waits until all are ready. The image and the segments beside it are what `settings` refers to.
    #[new]
    fn new(
        py: Python<'_>,
        options: Options,
        settings: &Bound<'_, PyDict>,
        image: Option<Bound<'_, CoreImage>>,
        segments: Vec<Bound<'_, CoreSegment>>,
        deliver: Py<PyAny>,
    ) -> PyResult<Self> {
        let (hub, logs) = Hub::start(deliver)?;
        let mut this = Self {
            pool: RwLock::new(None),
            hub: hub.clone(),
            logs: Mutex::new(Some(logs)),
            journals: Arc::default(),
            pid: std::process::id(),
        };
        let mut builder = options.builder()?.observer(Arc::new(hub)).slots(logs::SLOTS);
        let (mut text, mut others) = (None, Vec::new());
        if let Some(image) = image {
            let (handle, handles, descriptors) = image.get().shared(&segments)?;
            builder = builder.pass_descriptors(descriptors);
            (text, others) = (Some(handle), handles);
        }
        settings.set_item("image", text)?;
        settings.set_item("segments", others)?;
        let init = initial_value(settings)?;
        let entry_point = EntryPoint::named_service(&options.program, SERVICE).args(&options.arguments);
        // A thread of its own, so that this one can react to signals.
        let (done, built) = crossbeam_channel::bounded(1);
        std::thread::Builder::new()
            .name("invokerpool start".into())
            .spawn(move || {
                let pool: Result<BytePool, PoolError> = builder.build(entry_point, &init);
                // If the caller was interrupted, this drops the pool.
                let _ = done.send(pool);
            })?;
        let pool = loop {
            match detached(py, || built.recv_timeout(SIGNAL_CHECK)) {
                Ok(pool) => break pool.map_err(|error| pool_error(py, &error))?,
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => py.check_signals()?,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                    return Err(pool_error(py, &PoolError::Internal));
                }
            }
        };
        let pool = Arc::new(pool.with_codecs(TaskCodec, ReplyCodec));
        this.pool = RwLock::new(Some(pool));
        Ok(this)
    }

    /// Returns an iterator over the outputs.
    #[expect(clippy::too_many_arguments, reason = "they have names in Python")]
    #[pyo3(signature = (tasks, *, ordered, return_errors, max_in_flight=None, progress=None, seed=None, journal=None))]
    fn map(
        &self,
        py: Python<'_>,
        tasks: Bound<'_, PyIterator>,
        ordered: bool,
        return_errors: bool,
        max_in_flight: Option<usize>,
        progress: Option<Py<PyAny>>,
        seed: Option<u64>,
        journal: Option<journal::Options>,
    ) -> PyResult<Outputs> {
        let pool = self.get(py)?;
        let order = match ordered {
            true => Order::Ordered,
            false => Order::AsCompleted,
        };
        let tasks = Tasks::new(tasks, seed);
        let input = tasks.input.clone();
        let (tasks, journaled) = match journal {
            None => (Source::All(tasks), None),
            Some(options) => {
                let about = (order, pool.workers(), pool.interrupter());
                let start = journal::Start::open(py, options, tasks, about, &self.journals)?;
                (Source::Journaled(start.input.clone()), Some(start))
            }
        };
        let mut map = match order {
            Order::Ordered => pool.map_owned(tasks),
            Order::AsCompleted => pool.map_unordered_owned(tasks),
        };
        if let Some(tasks) = max_in_flight {
            map.set_max_in_flight(tasks);
        }
        if let Some(start) = &journaled {
            map.set_tap(start.tap());
        }
        let journaled = journaled.map(|start| start.run);
        let progress = progress.map(|report| (report, self.hub.clone()));
        Ok(Outputs::new(input, map, journaled, return_errors, progress))
    }

    /// Submits one task.
    fn submit(&self, py: Python<'_>, task: &Bound<'_, PyAny>) -> PyResult<Handle> {
        let pool = self.get(py)?;
        let mut bytes = Vec::new();
        task::encode(task, &mut bytes)?;
        Ok(Handle::new(pool.submit(Encoded::take(&mut bytes))))
    }

    /// Lets the workers finish what was submitted, and ends them; after `timeout` seconds they are killed.
    fn shutdown(&self, py: Python<'_>, timeout: f64) -> PyResult<()> {
        let Some(pool) = self.take() else {
            return Ok(());
        };
        let timeout = seconds(timeout)?;
        let pool = match Arc::try_unwrap(pool) {
            Ok(pool) => pool,
            // Another thread is in a call.
            Err(pool) => {
                pool.interrupt(Interrupt::Finish);
                detached(py, || {
                    drop(pool);
                    self.finish_logs();
                });
                return Ok(());
            }
        };
        detached(py, || {
            // The failure of a pool was the error of its tasks.
            let _ = pool.shutdown(timeout);
            self.finish_logs();
        });
        Ok(())
    }

    /// Kills the workers.
    fn kill(&self, py: Python<'_>) {
        let pool = self.take();
        detached(py, || {
            if let Some(pool) = &pool {
                pool.interrupt(Interrupt::Kill);
            }
            drop(pool);
            self.finish_logs();
        });
    }

    /// Returns what became of the workers' log records: numbers of debug, info, warning and error records.
    fn log_counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = detached(py, || self.hub.counts());
        counts.to_dict(py)
    }

    /// Returns the counts of the journals of all maps; `None` without a journal.
    fn journal_counts<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        self.journals.to_dict(py)
    }

    /// Writes the journals of maps that have not ended to the disk: the program ends.
    fn close_journals(&self, py: Python<'_>) {
        detached(py, || self.journals.close_all());
    }

    /// Ends maps early: `finish`, `cancel` or `kill`.
    fn interrupt(&self, py: Python<'_>, how: &str) -> PyResult<()> {
        let how = match how {
            "finish" => Interrupt::Finish,
            "cancel" => Interrupt::Cancel,
            "kill" => Interrupt::Kill,
            other => {
                return Err(value_error(format!(
                    "{other:?} is not `finish`, `cancel` or `kill`"
                )));
            }
        };
        self.get(py)?.interrupt(how);
        Ok(())
    }

    /// Changes the number of workers.
    fn resize(&self, py: Python<'_>, workers: &str) -> PyResult<()> {
        let workers: Workers = workers.parse().map_err(value_error)?;
        self.get(py)?.resize(workers).map_err(|e| pool_error(py, &e))
    }

    /// Returns the number of workers.
    fn workers(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.get(py)?.workers())
    }

    /// Returns the process ids of the workers that are alive.
    fn pids(&self, py: Python<'_>) -> PyResult<Vec<(u32, u32)>> {
        let pids = self.get(py)?.pids();
        Ok(pids.into_iter().map(|(worker, pid)| (worker.0, pid)).collect())
    }

    /// Returns the memory of the workers that are alive: index, resident bytes, and bytes in proportion to those who share them.
    fn memory(&self, py: Python<'_>) -> PyResult<Vec<(u32, u64, Option<u64>)>> {
        let pool = self.get(py)?;
        let memory = detached(py, || pool.memory());
        let memory = memory.into_iter();
        Ok(memory
            .map(|(worker, memory)| (worker.0, memory.resident, memory.proportional))
            .collect())
    }

    /// Returns the counts of tasks and processes.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let stats = self.get(py)?.stats();
        let counts = [
            ("submitted", stats.submitted),
            ("answered", stats.answered),
            ("failed", stats.failed),
            ("resent", stats.resent),
            ("recalled", stats.recalled),
            ("retried", stats.retried),
            ("deaths", stats.deaths),
            ("recycled", stats.recycled),
            ("spawned", stats.spawned),
        ];
        let all = PyDict::new(py);
        for (name, count) in counts {
            all.set_item(name, count)?;
        }
        Ok(all)
    }

    /// Returns what the workers are doing, as text.
    fn snapshot(&self, py: Python<'_>) -> PyResult<String> {
        let pool = self.get(py)?;
        Ok(detached(py, || pool.snapshot().to_string()))
    }
}

/// Returns what the machine offers to pools; None for what is unknown.
#[pyfunction]
pub(crate) fn machine(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let (system, memory) = (SystemInfo::now(), MemoryInfo::now());
    let found = PyDict::new(py);
    found.set_item("cores", system.usable)?;
    found.set_item("online", system.online)?;
    found.set_item("quota", system.quota)?;
    found.set_item("open_files", system.open_files)?;
    found.set_item("files", system.files)?;
    found.set_item("files_per_worker", FILES_PER_WORKER)?;
    found.set_item("processes", system.processes)?;
    found.set_item("memory", memory.total)?;
    found.set_item("available", memory.available)?;
    Ok(found)
}
