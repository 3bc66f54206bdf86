//! [`Writer`]: appends finished tasks to a journal, behind the run, by one thread.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::error::JournalError;
use crate::format::{Kind, Record, write_blocks};
use crate::lock::LockedFile;
use crate::options::OnWriteError;

/// Bytes of outputs for which the thread is woken before its time.
const WAKE_BYTES: usize = 256 << 10;
/// A run waits while more than these bytes of outputs have not been written.
const MAX_QUEUED: usize = 8 << 20;
/// The size of a record without its output, for the two limits above.
const RECORD_BYTES: usize = 16;

/// When the journal is synced to the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SyncPolicy {
    /// The age of a record at which it is on the disk.
    pub(crate) interval: Duration,
    /// Bytes after which it is synced early.
    pub(crate) bytes: u64,
}

/// The end of a journal.
#[derive(Debug)]
pub(crate) struct Writer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
    /// The process whose thread it is.
    pid: u32,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    queue: Mutex<Queue>,
    /// The thread waits for records.
    filled: Condvar,
    /// Runs wait for room.
    emptied: Condvar,
    on_error: OnWriteError,
    /// Whether the thread has ended because of an error.
    failed: AtomicBool,
    written: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct Queue {
    records: Vec<Record>,
    outputs: Vec<u8>,
    /// Whether the thread waits without a limit, because there are no records.
    is_idle: bool,
    is_closed: bool,
    error: Option<JournalError>,
}

impl Queue {
    fn bytes(&self) -> usize {
        self.outputs.len() + RECORD_BYTES * self.records.len()
    }

    /// Returns whether an output of `len` bytes need not wait.
    fn has_room(&self, len: usize) -> bool {
        self.bytes() == 0 || self.bytes() + len <= MAX_QUEUED || self.error.is_some() || self.is_closed
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A finished task.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished<'a> {
    pub(crate) run: u64,
    pub(crate) workers: u64,
    pub(crate) task: u64,
    pub(crate) hash: u64,
    pub(crate) kind: Kind,
    /// The encoded output, or the text of the fault.
    pub(crate) bytes: &'a [u8],
}

impl Writer {
    /// Starts the thread. `file` has `len` bytes, all of them on the disk.
    pub(crate) fn start(
        file: LockedFile,
        len: u64,
        path: PathBuf,
        policy: SyncPolicy,
        on_error: OnWriteError,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            path,
            queue: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            on_error,
            failed: AtomicBool::new(false),
            written: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        });
        let appender = Appender {
            file,
            len,
            synced: len,
            oldest: None,
            policy,
            blocks: Vec::new(),
        };
        let of_thread = shared.clone();
        let thread = thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || run(&of_thread, appender))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
            pid: std::process::id(),
        })
    }

    /// Appends a finished task. Waits if the disk is slower than the run. Does nothing after an error, and after the end.
    pub(crate) fn append(&self, finished: Finished<'_>) {
        let mut queue = self.shared.queue();
        while !queue.has_room(finished.bytes.len()) && !self.is_forked() {
            let waited = self.shared.emptied.wait(queue);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
        }
        if queue.error.is_some() || queue.is_closed {
            return;
        }
        let was_below = queue.bytes() < WAKE_BYTES;
        let start = queue.outputs.len();
        queue.outputs.extend_from_slice(finished.bytes);
        queue.records.push(Record {
            run: finished.run,
            workers: finished.workers,
            task: finished.task,
            hash: finished.hash,
            start,
            len: finished.bytes.len(),
            kind: finished.kind,
        });
        let wake = queue.is_idle || was_below && queue.bytes() >= WAKE_BYTES;
        queue.is_idle = false;
        drop(queue);
        if wake {
            self.shared.filled.notify_one();
        }
    }

    /// Waits, for at most `timeout`, until [`append`](Self::append) of an output of `len` bytes would not wait. Returns whether that is so.
    pub(crate) fn wait_for_room(&self, len: usize, timeout: Duration) -> bool {
        let queue = self.shared.queue();
        if queue.has_room(len) || self.is_forked() {
            return true;
        }
        let no_room = |queue: &mut Queue| !queue.has_room(len);
        let waited = self.shared.emptied.wait_timeout_while(queue, timeout, no_room);
        waited.unwrap_or_else(PoisonError::into_inner).0.has_room(len)
    }

    /// Returns whether a run must end because the journal could not be written.
    #[inline]
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.failed.load(Ordering::Relaxed) && self.shared.on_error == OnWriteError::Fail
    }

    /// Returns why the journal could not be written, if that is so.
    pub(crate) fn error(&self) -> Option<JournalError> {
        self.shared.queue().error.clone()
    }

    /// Returns the number of written tasks, and their bytes in the file.
    pub(crate) fn written(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.shared.written), load(&self.shared.bytes))
    }

    /// Writes what is left, syncs it to the disk, and ends the thread.
    pub(crate) fn close(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(thread) = thread else {
            return;
        };
        if self.is_forked() {
            // The thread does not exist here.
            std::mem::forget(thread);
            return;
        }
        self.shared.queue().is_closed = true;
        self.shared.filled.notify_one();
        self.shared.emptied.notify_all();
        // Its errors are in the queue, and a panic is printed.
        let _ = thread.join();
    }

    fn is_forked(&self) -> bool {
        self.pid != std::process::id()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.close();
    }
}

/// The thread: writes records in batches, and syncs them in time.
fn run(shared: &Shared, mut appender: Appender) {
    let (mut records, mut outputs) = (Vec::new(), Vec::new());
    loop {
        let is_closed = wait(shared, &appender, &mut records, &mut outputs);
        let written = appender.write(&mut records, &outputs, is_closed);
        match written {
            Ok(bytes) => {
                let count = records.len() as u64;
                shared.written.fetch_add(count, Ordering::Relaxed);
                shared.bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => {
                fail(shared, error);
                return;
            }
        }
        records.clear();
        outputs.clear();
        // After a very large output.
        outputs.shrink_to(2 * MAX_QUEUED);
        if is_closed {
            return;
        }
    }
}

/// Ends the journal because of an error.
fn fail(shared: &Shared, error: io::Error) {
    let error = JournalError::Write {
        path: shared.path.clone(),
        source: error.into(),
    };
    if shared.on_error == OnWriteError::Continue {
        tracing::warn!(
            "{:#}; the run continues without it",
            shm_buffers::WithCauses(&error)
        );
    }
    let mut queue = shared.queue();
    queue.error = Some(error);
    queue.records = Vec::new();
    queue.outputs = Vec::new();
    drop(queue);
    shared.failed.store(true, Ordering::Relaxed);
    shared.emptied.notify_all();
}

/// Waits for records, for as long as the policy allows, and takes them. Returns whether these are the last ones.
fn wait(shared: &Shared, appender: &Appender, records: &mut Vec<Record>, outputs: &mut Vec<u8>) -> bool {
    let mut queue = shared.queue();
    let mut until = appender.due();
    let mut has_records = false;
    while !queue.is_closed && queue.bytes() < WAKE_BYTES {
        let now = Instant::now();
        if !has_records && !queue.records.is_empty() {
            has_records = true;
            // With the time until the batch is synced, it makes less than the interval.
            let batch = now.checked_add(appender.policy.interval / 4);
            until = until.into_iter().chain(batch).min();
        }
        if until.is_some_and(|until| until <= now) {
            break;
        }
        // Woken by the first record, for its time.
        queue.is_idle = !has_records;
        queue = match until {
            Some(until) => {
                let waited = shared.filled.wait_timeout(queue, until - now);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => shared.filled.wait(queue).unwrap_or_else(PoisonError::into_inner),
        };
    }
    queue.is_idle = false;
    std::mem::swap(&mut queue.records, records);
    std::mem::swap(&mut queue.outputs, outputs);
    let is_closed = queue.is_closed;
    drop(queue);
    shared.emptied.notify_all();
    is_closed
}

/// The file, at its end.
#[derive(Debug)]
struct Appender {
    file: LockedFile,
    len: u64,
    /// The part of the length that is on the disk.
    synced: u64,
    /// When the first bytes behind that were written.
    oldest: Option<Instant>,
    policy: SyncPolicy,
    blocks: Vec<u8>,
}

impl Appender {
    /// Returns when the file must be synced, if there is something to sync.
    fn due(&self) -> Option<Instant> {
        self.oldest?.checked_add(self.policy.interval / 2)
    }

    /// Writes the records, syncs the file if that is due, and returns the number of written bytes. After an error the file has what it
    /// had before.
    fn write(&mut self, records: &mut [Record], outputs: &[u8], is_last: bool) -> io::Result<u64> {
        self.blocks.clear();
        write_blocks(records, outputs, self.synced, self.len, &mut self.blocks);
        if let Err(error) = self.file.write_all(&self.blocks) {
            // If this fails, too, the next leader cuts the torn end.
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        let bytes = self.blocks.len() as u64;
        self.blocks.shrink_to(2 * MAX_QUEUED);
        self.len += bytes;
        if bytes > 0 && self.oldest.is_none() {
            self.oldest = Some(Instant::now());
        }
        let is_due = || self.due().is_some_and(|due| due <= Instant::now());
        if self.len > self.synced && (is_last || self.len - self.synced >= self.policy.bytes || is_due()) {
            self.file.sync_data()?;
            self.synced = self.len;
            self.oldest = None;
        }
        Ok(bytes)
    }
}

/// Moves to the end of a file that has `len` intact bytes, and cuts what follows.
pub(crate) fn cut(file: &mut File, len: u64) -> io::Result<()> {
    file.set_len(len)?;
    file.seek(SeekFrom::Start(len))?;
    file.sync_all()
}
