//! The functions of the tool `invoker-journal`: list a journal, and copy its intact blocks.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;

use crate::error::JournalError;
use crate::format::{first_bytes, push_copy};
use crate::identity::{Identity, named};
use crate::index::Index;
use crate::options::Journal;
use crate::scan::{OnDamage, ReadAt, scan};

/// The contents of a journal: see [`Journal::info`]. `Display` prints a list.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalInfo {
    /// The job: names (the op, the types, the codec, the model, the seed, the context) and their descriptions.
    pub job: Vec<(&'static str, String)>,
    /// The runs, in the order in which they were started.
    pub runs: Vec<JournalRun>,
    /// Bytes behind the last intact block: the torn end of a leader that was killed. The next leader cuts them.
    pub torn: u64,
    /// Damaged bytes before that. The next leader refuses the journal.
    pub damaged: u64,
}

/// One run in a journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct JournalRun {
    /// The number of the run, in the order in which they were started, from 0.
    pub run: u64,
    /// Number of tasks with an output or a fault.
    pub tasks: u64,
    /// Number of faults.
    pub faults: u64,
    /// The index of the last task with an output or a fault.
    pub last: u64,
}

impl Journal {
    /// Returns the contents of a journal. It may be read while a leader writes it.
    ///
    /// # Errors
    /// If it cannot be read, or is not a journal.
    pub fn info(path: impl AsRef<Path>) -> Result<JournalInfo, JournalError> {
        let path = path.as_ref();
        let file = std::fs::File::open(path).map_err(JournalError::os("open", path))?;
        info(&file, path)
    }
}

pub(crate) fn info(file: &impl ReadAt, path: &Path) -> Result<JournalInfo, JournalError> {
    let mut index = Index::default();
    let found = scan(file, path, OnDamage::Skip, |block, _, position| {
        index.add(&block, position);
        Ok(())
    })?;
    index.finish(path)?;
    let identity = Identity::from_json(&found.identity, path)?;
    let runs = index.runs().into_iter().map(|(run, stored)| JournalRun {
        run,
        tasks: stored.tasks(),
        faults: stored.faults(),
        last: stored.last().unwrap_or_default(),
    });
    Ok(JournalInfo {
        job: identity.rows().into(),
        runs: runs.collect(),
        torn: found.torn,
        damaged: found.damaged,
    })
}

impl fmt::Display for JournalInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.job {
            writeln!(f, "{name}\t{}", value.escape_debug())?;
        }
        for run in &self.runs {
            let JournalRun {
                run,
                tasks,
                faults,
                last,
            } = run;
            writeln!(
                f,
                "run {run}\t{tasks} tasks up to task {last}, {faults} of them faults"
            )?;
        }
        write!(f, "torn\t{} bytes\ndamaged\t{} bytes", self.torn, self.damaged)
    }
}

/// Copies the intact blocks of a journal, and may rename its job.
///
/// ```no_run
/// use run_journal::Salvage;
///
/// // The program was built again, with the same op.
/// Salvage::new().op("score 1").copy("damaged.journal", "intact.journal")?;
/// # Ok::<(), run_journal::JournalError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "call `copy`"]
pub struct Salvage {
    op: Option<String>,
    model: Option<String>,
}

/// The result of [`Salvage::copy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Salvaged {
    /// Number of tasks whose records were copied. Records that replace an earlier one count, too.
    pub tasks: u64,
    /// Bytes that were left out, because they are damaged or torn.
    pub lost: u64,
}

impl Salvage {
    /// Copies everything as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the op: see [`Journal::op`].
    pub fn op(mut self, name: impl Into<String>) -> Self {
        self.op = Some(name.into());
        self
    }

    /// Names the model: see [`Journal::model`].
    pub fn model(mut self, name: impl Into<String>) -> Self {
        self.model = Some(name.into());
        self
    }

    /// Copies the intact blocks of the journal `from` into a new one.
    ///
    /// # Errors
    /// If `from` cannot be read or does not say what it is for, or if `to` exists or cannot be written. No file is left then.
    pub fn copy(&self, from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<Salvaged, JournalError> {
        let (from, to) = (from.as_ref(), to.as_ref());
        let file = std::fs::File::open(from).map_err(JournalError::os("open", from))?;
        if to.exists() {
            let exists = io::Error::other("it exists; use the path of a new file");
            return Err(JournalError::os("create", to)(exists));
        }
        let mut result = None;
        let written = shm_buffers::replace_file(to, |out| {
            let mut out = io::BufWriter::new(out);
            result = Some(self.copy_to(&file, from, &mut out));
            match &result {
                Some(Ok(_)) => out.flush(),
                _ => Err(io::Error::other("there is nothing to write")),
            }
        });
        match (result, written) {
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(salvaged)), Ok(())) => Ok(salvaged),
            (_, Err(error)) => Err(JournalError::os("create", to)(error.into())),
            (None, Ok(())) => Err(JournalError::os("create", to)(io::Error::other(
                "nothing was written",
            ))),
        }
    }

    pub(crate) fn copy_to(
        &self,
        file: &impl ReadAt,
        path: &Path,
        out: &mut impl Write,
    ) -> Result<Salvaged, JournalError> {
        // The first pass finds the job.
        let found = scan(file, path, OnDamage::Skip, |_, _, _| Ok(()))?;
        let mut identity = Identity::from_json(&found.identity, path)?;
        if let Some(name) = &self.op {
            identity.op = named(name);
        }
        if let Some(name) = &self.model {
            identity.model = named(name);
        }
        let mut block = first_bytes(&identity.to_json(), 0);
        let (mut len, mut tasks) = (0, 0);
        let mut write = |block: &mut Vec<u8>| {
            len += block.len() as u64;
            let written = out.write_all(block);
            block.clear();
            written
                .map(|()| len)
                .map_err(JournalError::os("write the copy of", path))
        };
        let mut position = write(&mut block)?;
        scan(file, path, OnDamage::Skip, |outputs, payload, _| {
            push_copy(&mut block, position, &payload[outputs.rest..]);
            tasks += outputs.groups.iter().map(|group| group.tasks as u64).sum::<u64>();
            position = write(&mut block)?;
            Ok(())
        })?;
        Ok(Salvaged {
            tasks,
            lost: found.torn + found.damaged,
        })
    }
}
