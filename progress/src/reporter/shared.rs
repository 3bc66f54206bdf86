//! The display that reporters, log writers and the drawing thread share.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::display::{Display, ReporterId};
use crate::output::Output;
use crate::render::Renderer;
use crate::time::clock::Clock;

/// A display with its clock and its drawing thread.
#[derive(Debug)]
pub(super) struct SharedDisplay {
    clock: Arc<Clock>,
    output: Output,
    display: Mutex<Display>,
    reporters: Mutex<Reporters>,
    drawing: Mutex<Drawing>,
    /// Wakes the drawing thread when it has to stop.
    stop: Condvar,
    process: u32,
}

/// The reporters of a display.
#[derive(Debug)]
struct Reporters {
    next_id: u64,
    count: usize,
    /// The drawing thread, which runs while there are reporters.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drawing {
    Enabled,
    Stopped,
}

/// How a reporter ends.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    /// Its bars end at this time, and get last lines.
    Finish(Instant),
    /// Its running bars are erased.
    Abandon,
}

impl SharedDisplay {
    pub(super) fn new(clock: Clock, renderer: Renderer, output: Output) -> Arc<Self> {
        let clock = Arc::new(clock);
        let display = Display::new(renderer, output.clone(), Arc::clone(&clock));
        Arc::new(Self {
            clock,
            output,
            display: Mutex::new(display),
            reporters: Mutex::new(Reporters {
                next_id: 0,
                count: 0,
                thread: None,
            }),
            drawing: Mutex::new(Drawing::Enabled),
            stop: Condvar::new(),
            process: std::process::id(),
        })
    }

    /// Returns the display of the terminal on standard error. The first reporter of a terminal creates it with
    /// `renderer`.
    ///
    /// All reporters that draw bars on the terminal share the display, because independent ones would erase each
    /// other's lines. It exists as long as a reporter or a log writer.
    pub(super) fn of_terminal(renderer: Renderer) -> Arc<Self> {
        static TERMINAL: Mutex<Weak<SharedDisplay>> = Mutex::new(Weak::new());

        let mut terminal = lock(&TERMINAL);
        let display = match terminal.upgrade() {
            Some(display) if display.is_of_this_process() => display,
            _ => Self::new(Clock::real(), renderer, Output::stderr()),
        };
        *terminal = Arc::downgrade(&display);
        display
    }

    /// Adds a reporter. The first one starts the drawing thread.
    pub(super) fn add_reporter(self: &Arc<Self>) -> io::Result<ReporterId> {
        let mut reporters = lock(&self.reporters);
        if reporters.count == 0 {
            *lock(&self.drawing) = Drawing::Enabled;
            reporters.thread = self.start_thread()?;
        }
        let id = ReporterId(reporters.next_id);
        reporters.next_id += 1;
        reporters.count += 1;
        Ok(id)
    }

    /// Starts the drawing thread, unless there is never anything to draw or the clock is manual.
    fn start_thread(self: &Arc<Self>) -> io::Result<Option<JoinHandle<()>>> {
        let Some(interval) = self.display().interval() else {
            return Ok(None);
        };
        if self.clock.is_manual() {
            return Ok(None);
        }
        // The reads begin before the thread does, because the process may be stopped between.
        self.clock.begin_regular_reads(interval);
        let display = Arc::clone(self);
        let thread = std::thread::Builder::new().name("progress".into());
        thread
            .spawn(move || display.draw_until_stopped(interval))
            .inspect_err(|_| self.clock.end_regular_reads())
            .map(Some)
    }

    /// Removes a reporter. After the last one, nothing is drawn.
    pub(super) fn remove_reporter(&self, id: ReporterId, end: End) {
        self.output.flush_after(|| {
            let mut reporters = lock(&self.reporters);
            reporters.count -= 1;
            if reporters.count == 0 {
                *lock(&self.drawing) = Drawing::Stopped;
                self.stop.notify_all();
                if let Some(thread) = reporters.thread.take() {
                    // The thread waits only for the display. If it panicked, this thread need not.
                    let _ = thread.join();
                }
                self.clock.end_regular_reads();
            }
            let now = self.clock.now();
            let mut display = self.display();
            if reporters.count == 0 {
                // Only last lines follow. They are never erased, so they are drawn even while the screen is suspended.
                display.end_suspensions();
            }
            match end {
                End::Finish(ended) => display.finish(now, ended, id),
                End::Abandon => display.abandon(now, id),
            }
        });
    }

    pub(super) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Advances a manual clock by `time`, and draws.
    pub(super) fn advance(&self, time: Duration) {
        self.clock.advance(time);
        self.display().draw(self.clock.now());
    }

    pub(super) fn lines_in_memory(&self) -> Vec<String> {
        self.display().lines_in_memory().to_vec()
    }

    /// Writes whole lines above the bars. The output counts lines that it cannot write.
    pub(super) fn print(&self, lines: &[u8]) {
        let now = self.clock.now();
        let _ = self.display().print(now, lines);
    }

    pub(super) fn lost_lines(&self) -> u64 {
        self.output.lost_lines()
    }

    /// Suspends the display, as [`Display::suspend`] does, for a thread that may hold any lock. Returns whether it did
    /// so within `timeout`.
    pub(super) fn try_suspend(&self, timeout: Duration) -> bool {
        let begin = Instant::now();
        loop {
            match self.display.try_lock() {
                Ok(mut display) => {
                    display.suspend();
                    return true;
                }
                Err(TryLockError::Poisoned(display)) => {
                    display.into_inner().suspend();
                    return true;
                }
                Err(TryLockError::WouldBlock) if begin.elapsed() < timeout => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return false,
            }
        }
    }

    pub(super) fn resume(&self) {
        let now = self.clock.now();
        self.display().resume(now);
    }

    fn draw_until_stopped(&self, interval: Duration) {
        loop {
            let drawing = lock(&self.drawing);
            let woken = self
                .stop
                .wait_timeout_while(drawing, interval, |drawing| *drawing == Drawing::Enabled);
            if *woken.unwrap_or_else(PoisonError::into_inner).0 == Drawing::Stopped {
                return;
            }
            // The clock is read before the wait for the display, so that it does not take this wait for a stop.
            self.clock.now();
            self.display().draw(self.clock.now());
        }
    }

    pub(super) fn display(&self) -> MutexGuard<'_, Display> {
        // After a panic, the next drawing replaces everything.
        lock(&self.display)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
