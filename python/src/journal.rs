//! The journal of a map: its options as Python code gives them, and the counts of all journals of a pool.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use proc_pool::facade::Tap;
use proc_pool::{Interrupter, TryNext};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use run_journal::{
    Identity, Journal, JournalError, JournalFaults, JournalInput, OnWriteError, OpenJournal, Order, Recorder,
    Remedies, Replayed, Salvage, SharedInput, TaskRules,
};

use crate::ending::detached;
use crate::faults::{journal_error, value_error};
use crate::outputs::Tasks;
use crate::task::{self, Encoded, Reply};

/// For the parts of an [`Identity`].
const REMEDIES: Remedies = [
    "use the same version of invokerpool",
    "use the same version of invokerpool",
    "use the same version of invokerpool on the same kind of machine",
    "if it computes the same as before, name it with `python -m invokerpool.journal salvage FROM TO --op NAME` and `Journal(TO, op=NAME)`",
    "use the same version of invokerpool",
    "if it is the same (sets of strings have other pickles in each process), name it with `python -m \
     invokerpool.journal salvage FROM TO --model NAME` and `Journal(TO, model=NAME)`",
    "set it as before",
    "use the same version of invokerpool",
];

/// Bytes that must have room in the journal before outputs are taken. The map takes fewer small ones at a time.
const ROOM: usize = 4 << 20;
/// How long a wait for the disk lasts at most before its end is looked for again.
const DISK_CHECK: Duration = Duration::from_secs(1);

/// The options of a journal, as the package's Python code has checked them, and the job that it is for.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Options {
    path: PathBuf,
    /// The descriptions of the op and the model, or their names.
    op: String,
    op_name: Option<String>,
    model: String,
    model_name: Option<String>,
    seed: Option<u64>,
    keeps_faults: bool,
    goes_on: bool,
    sync_interval: f64,
    sync_bytes: u64,
}

impl Options {
    /// Opens the journal, or creates it.
    fn open(self, totals: &Arc<Totals>) -> PyResult<Result<Counted, JournalError>> {
        let interval = Duration::try_from_secs_f64(self.sync_interval).map_err(value_error)?;
        let mut journal = Journal::new(self.path)
            .sync_interval(interval)
            .sync_bytes(self.sync_bytes);
        if self.keeps_faults {
            journal = journal.faults(JournalFaults::Keep);
        }
        if self.goes_on {
            journal = journal.on_write_error(OnWriteError::Continue);
        }
        if let Some(name) = self.op_name {
            journal = journal.op(name);
        }
        if let Some(name) = self.model_name {
            journal = journal.model(name);
        }
        let identity = Identity {
            op: journal.described_op().unwrap_or(self.op),
            task_type: "objects of Python".to_owned(),
            output_type: "objects of Python".to_owned(),
            codec: Identity::describe_codec("invokerpool 1"),
            model_type: "an object of Python".to_owned(),
            model: journal.described_model().unwrap_or(self.model),
            seed: Identity::describe_seed(self.seed),
            context: "none".to_owned(),
        };
        Ok(OpenJournal::open(journal, &identity, &REMEDIES).map(|journal| {
            let journal = Arc::new(journal);
            totals.add(&journal);
            let totals = totals.clone();
            Counted { journal, totals }
        }))
    }
}

/// A journal whose counts are added to those of the pool when it is closed.
struct Counted {
    journal: Arc<OpenJournal>,
    totals: Arc<Totals>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Its error was raised, if the end of the run was asked for. Other threads of Python run while it waits for the disk.
        let mut close = Some(|| self.journal.close());
        let closed = Python::try_attach(|py| close.take().map(|close| detached(py, close)));
        if closed.is_none() {
            let _ = self.journal.close();
        }
        self.totals.close(&self.journal);
    }
}

/// The outputs of a map with a journal.
pub(crate) struct JournaledRun {
    pub(crate) replayed: Replayed<Reply, Tasks>,
    recorder: Arc<Recorder>,
    counted: Counted,
}

/// A map with a journal, before it starts.
pub(crate) struct Start {
    pub(crate) run: JournaledRun,
    pub(crate) input: SharedInput<Tasks>,
    recorder: Arc<Recorder>,
    keeps_faults: bool,
}

impl Start {
    /// Opens the journal of a map.
    pub(crate) fn open(
        py: Python<'_>,
        options: Options,
        tasks: Tasks,
        (order, workers, interrupter): (Order, usize, Interrupter),
        totals: &Arc<Totals>,
    ) -> PyResult<Self> {
        let counted = py.detach(|| options.open(totals))?;
        let counted = counted.map_err(|error| journal_error(py, &error))?;
        let keeps_faults = counted.journal.faults() == JournalFaults::Keep;
        let rules = TaskRules {
            encode: |task: &Encoded, into| {
                // A task that cannot be encoded fails again, and has no record.
                let start = into.len();
                let _ = task.append_to(into);
                Ok(task::normalize(into, start)?)
            },
            runs_again: (!keeps_faults).then_some(task::is_raised as fn(&[u8]) -> bool),
        };
        let (input, recorder) = JournalInput::start(&counted.journal, workers, tasks, rules);
        let decode = <crate::task::ReplyCodec as proc_pool::Codec<Reply>>::decode;
        let replayed = Replayed::new(input.clone(), recorder.clone(), interrupter, decode, order);
        Ok(Self {
            run: JournaledRun {
                replayed,
                recorder: recorder.clone(),
                counted,
            },
            input,
            recorder,
            keeps_faults,
        })
    }

    /// Returns what is called with each encoded output: it writes them, but exceptions of the op only if faults are kept.
    pub(crate) fn tap(&self) -> Tap {
        let (recorder, keeps_faults) = (self.recorder.clone(), self.keeps_faults);
        Box::new(move |number, encoded| {
            if keeps_faults || !task::is_raised(encoded) {
                if !recorder.wait_for_room(encoded.len(), Duration::ZERO) {
                    wait_for_disk(&recorder, encoded.len());
                }
                recorder.record(number, encoded);
            }
        })
    }
}

/// Waits, while other threads of Python run, until an output has room.
#[cold]
fn wait_for_disk(recorder: &Recorder, len: usize) {
    Python::attach(|py| detached(py, || while !recorder.wait_for_room(len, DISK_CHECK) {}));
}

impl JournaledRun {
    /// Returns whether the disk has kept up with the outputs, after at most `timeout`. Detached, except without a timeout.
    pub(crate) fn has_room(&self, timeout: Duration) -> bool {
        self.recorder.wait_for_room(ROOM, timeout)
    }

    /// Returns the next output. `from_workers` returns that of the workers.
    pub(crate) fn try_next(&mut self, from_workers: impl FnMut() -> (u64, TryNext<Reply>)) -> TryNext<Reply> {
        self.replayed.try_next(from_workers).0
    }

    /// Writes everything to the disk. Detached.
    ///
    /// # Errors
    /// If it could not be written, and the run does not go on without it.
    pub(crate) fn close(&self) -> Result<(), JournalError> {
        self.counted.journal.close()
    }

    /// Logs a warning if the journal could not be written, and the run has gone on without it.
    pub(crate) fn log_failure(&self, py: Python<'_>) -> PyResult<()> {
        match self.counted.journal.error() {
            Some(error) if self.counted.journal.close().is_ok() => {
                let message = format!("{:#}", shm_buffers::WithCauses(&error));
                py.import("invokerpool._journal")?
                    .call_method1("log_failure", (message,))?;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The counts of a pool's journals.
#[derive(Default)]
pub(crate) struct Totals(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    open: Vec<Weak<OpenJournal>>,
    journals: u64,
    closed: Sums,
}

/// Outputs that were read and written, and bytes.
#[derive(Default, Clone)]
struct Sums {
    read: u64,
    written: u64,
    bytes: u64,
    torn: u64,
    failed: Option<String>,
}

impl Sums {
    fn add(&mut self, journal: &OpenJournal) {
        let (written, bytes) = journal.written();
        self.read += journal.read();
        self.written += written;
        self.bytes += bytes;
        self.torn += journal.torn();
        if let Some(error) = journal.error() {
            self.failed = Some(format!("{:#}", shm_buffers::WithCauses(&error)));
        }
    }
}

impl Totals {
    fn counts(&self) -> std::sync::MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, journal: &Arc<OpenJournal>) {
        let mut counts = self.counts();
        counts.journals += 1;
        counts.open.push(Arc::downgrade(journal));
    }

    fn close(&self, journal: &Arc<OpenJournal>) {
        let mut counts = self.counts();
        counts.open.retain(|open| open.as_ptr() != Arc::as_ptr(journal));
        counts.closed.add(journal);
    }

    /// Writes what the open journals have to the disk: the program ends. Detached.
    pub(crate) fn close_all(&self) {
        let open: Vec<_> = self.counts().open.iter().filter_map(Weak::upgrade).collect();
        for journal in open {
            let _ = journal.close();
        }
    }

    /// Returns the sums over all journals; `None` without a journal.
    pub(crate) fn to_dict<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        let counts = self.counts();
        if counts.journals == 0 {
            return Ok(None);
        }
        let mut sums = counts.closed.clone();
        let open: Vec<_> = counts.open.iter().filter_map(Weak::upgrade).collect();
        drop(counts);
        open.iter().for_each(|journal| sums.add(journal));
        let all = PyDict::new(py);
        for (name, count) in [
            ("read", sums.read),
            ("written", sums.written),
            ("bytes", sums.bytes),
            ("torn", sums.torn),
        ] {
            all.set_item(name, count)?;
        }
        all.set_item("failed", sums.failed)?;
        Ok(Some(all))
    }
}

/// Returns the contents of a journal as text.
#[pyfunction]
pub(crate) fn journal_info(py: Python<'_>, path: PathBuf) -> PyResult<String> {
    let info = py.detach(|| Journal::info(path));
    info.map(|info| info.to_string())
        .map_err(|error| journal_error(py, &error))
}

/// Copies what is intact of a journal into a new one, and may rename its job. Returns the number of copied tasks, and the bytes that were
/// left out.
#[pyfunction]
pub(crate) fn journal_salvage(
    py: Python<'_>,
    source: PathBuf,
    target: PathBuf,
    op: Option<String>,
    model: Option<String>,
) -> PyResult<(u64, u64)> {
    let mut salvage = Salvage::new();
    if let Some(op) = op {
        salvage = salvage.op(op);
    }
    if let Some(model) = model {
        salvage = salvage.model(model);
    }
    let salvaged = py.detach(|| salvage.copy(source, target));
    salvaged
        .map(|salvaged| (salvaged.tasks, salvaged.lost))
        .map_err(|error| journal_error(py, &error))
}
