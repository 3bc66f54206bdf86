//! [`Watch`]: a worker's thread that notices when a task is about to run beyond its deadline, and sends the Python stacks to the leader.
//!
//! The interpreter may be busy in a C function then, so no Python code is run: a signal makes `faulthandler` write the stacks into a file
//! in memory. The leader kills the worker at the deadline.
#![allow(unsafe_code, reason = "sends a signal to this process")]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::logs::StackWriter;

/// The time that the signal's handler gets to write.
const WRITING: Duration = Duration::from_millis(20);
/// The longest text in bytes.
const MAX_TEXT: u64 = 16 << 10;

/// Knows when the current task was started.
pub(crate) struct Watch {
    started: Arc<AtomicU64>,
    origin: Instant,
}

impl Watch {
    /// Starts the thread. `file` is where `signal` makes the stacks appear.
    pub(crate) fn start(
        deadline: Duration,
        file: File,
        signal: i32,
        writer: StackWriter,
    ) -> std::io::Result<Self> {
        let started = Arc::new(AtomicU64::new(0));
        let origin = Instant::now();
        let theirs = started.clone();
        std::thread::Builder::new()
            .name("invokerpool stacks".into())
            .spawn(move || watch(deadline, file, signal, &writer, (&theirs, origin)))?;
        Ok(Self { started, origin })
    }

    /// Records that a task starts.
    pub(crate) fn task_starts(&self) {
        let now = self.origin.elapsed().as_nanos() as u64;
        self.started.store(now.max(1), Ordering::Relaxed);
    }

    /// Records that it has ended.
    pub(crate) fn task_ends(&self) {
        self.started.store(0, Ordering::Relaxed);
    }
}

fn watch(
    deadline: Duration,
    mut file: File,
    signal: i32,
    writer: &StackWriter,
    (started, origin): (&AtomicU64, Instant),
) {
    // A little before the deadline, after which the leader kills this process.
    let patience = deadline.mul_f64(0.9);
    let mut written = 0;
    loop {
        let start = started.load(Ordering::Relaxed);
        let now = origin.elapsed();
        let due = Duration::from_nanos(start) + patience;
        if start == 0 || start == written {
            std::thread::sleep(patience.min(Duration::from_millis(100)) / 4);
        } else if now < due {
            std::thread::sleep((due - now).min(Duration::from_millis(100)));
        } else {
            written = start;
            let before = file.seek(SeekFrom::End(0));
            let this = std::process::id().cast_signed();
            // SAFETY: sends a signal to this very process. It has a handler for it: `faulthandler` was registered before.
            let sent = unsafe { libc::kill(this, signal) };
            std::thread::sleep(WRITING);
            let mut text = Vec::new();
            let read = before.and_then(|before| {
                file.seek(SeekFrom::Start(before))?;
                (&mut file).take(MAX_TEXT).read_to_end(&mut text)
            });
            // If the task has ended since, these are not its stacks.
            if sent == 0 && read.is_ok() && started.load(Ordering::Relaxed) == start {
                writer.write(&text);
            }
        }
    }
}
