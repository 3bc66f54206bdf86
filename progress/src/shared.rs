//! What reporters, the thread that draws and the writers of log lines share: a screen.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock::Clock;
use crate::output::Output;
use crate::render::Renderer;
use crate::reporter::{End, Reporter, StartError};
use crate::stage::{Member, Stage};

#[derive(Debug)]
pub(crate) struct Shared {
    clock: Arc<Clock>,
    output: Output,
    stage: Mutex<Stage>,
    members: Mutex<Members>,
    stop: Mutex<Stop>,
    stopping: Condvar,
    process: u32,
}

/// The reporters of a screen.
#[derive(Debug)]
struct Members {
    next: u64,
    count: usize,
    /// Draws while there are any.
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    No,
    Yes,
}

impl Shared {
    pub(crate) fn new(clock: Clock, renderer: Renderer, output: Output) -> Arc<Self> {
        let clock = Arc::new(clock);
        let stage = Stage::new(renderer, output.clone(), Arc::clone(&clock));
        Arc::new(Self {
            clock,
            output,
            stage: Mutex::new(stage),
            members: Mutex::new(Members {
                next: 0,
                count: 0,
                thread: None,
            }),
            stop: Mutex::new(Stop::No),
            stopping: Condvar::new(),
            process: std::process::id(),
        })
    }

    /// One more reporter.
    pub(crate) fn join(self: Arc<Self>) -> Result<Reporter, StartError> {
        let mut members = lock(&self.members);
        if members.count == 0 {
            *lock(&self.stop) = Stop::No;
            members.thread = self.start().map_err(StartError::Thread)?;
        }
        let member = Member(members.next);
        members.next += 1;
        members.count += 1;
        drop(members);
        Ok(Reporter::new(self, member))
    }

    /// The thread that draws, if there is anything to draw ever. A held clock moves without it.
    fn start(self: &Arc<Self>) -> io::Result<Option<JoinHandle<()>>> {
        let Some(interval) = self.stage().interval() else {
            return Ok(None);
        };
        if self.clock.is_held() {
            return Ok(None);
        }
        // Before the thread's first turn: the process may be stopped between.
        self.clock.read_every(interval);
        let shared = Arc::clone(self);
        let thread = std::thread::Builder::new().name("progress".into());
        thread
            .spawn(move || shared.draw_until_stopped(interval))
            .inspect_err(|_| self.clock.rest())
            .map(Some)
    }

    /// One reporter less; after the last, nothing is drawn.
    pub(crate) fn leave(&self, member: Member, end: End) {
        self.output.end(|| {
            let mut members = lock(&self.members);
            members.count -= 1;
            if members.count == 0 {
                *lock(&self.stop) = Stop::Yes;
                self.stopping.notify_all();
                if let Some(thread) = members.thread.take() {
                    // It waits for nothing but the stage, and a panic in it is no reason for another.
                    let _ = thread.join();
                }
                self.clock.rest();
            }
            let now = self.clock.now();
            let mut stage = self.stage();
            if members.count == 0 {
                // What comes now are last lines, which nothing erases.
                stage.reclaim();
            }
            match end {
                End::Finish(ended) => stage.finish(now, ended, member),
                End::Abandon => stage.abandon(now, member),
            }
        });
    }

    pub(crate) fn is_of_this_process(&self) -> bool {
        self.process == std::process::id()
    }

    pub(crate) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// For a held clock.
    pub(crate) fn tick(&self, passed: Duration) {
        self.clock.advance(passed);
        self.stage().tick(self.clock.now());
    }

    pub(crate) fn rows(&self) -> Vec<String> {
        self.stage().rows().to_vec()
    }

    /// Writes whole lines above the bars. The output counts those that it cannot write.
    pub(crate) fn print(&self, lines: &[u8]) {
        let now = self.clock.now();
        let _ = self.stage().print(now, lines);
    }

    pub(crate) fn lost_lines(&self) -> u64 {
        self.output.lost_lines()
    }

    /// As [`Stage::suspend`], for a thread that may hold any lock; whether it could.
    pub(crate) fn try_suspend(&self, patience: Duration) -> bool {
        let begun = Instant::now();
        loop {
            match self.stage.try_lock() {
                Ok(mut stage) => {
                    stage.suspend();
                    return true;
                }
                Err(TryLockError::Poisoned(stage)) => {
                    stage.into_inner().suspend();
                    return true;
                }
                Err(TryLockError::WouldBlock) if begun.elapsed() < patience => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return false,
            }
        }
    }

    pub(crate) fn resume(&self) {
        let now = self.clock.now();
        self.stage().resume(now);
    }

    fn draw_until_stopped(&self, interval: Duration) {
        loop {
            let stop = self
                .stopping
                .wait_timeout_while(lock(&self.stop), interval, |stop| *stop == Stop::No);
            if *stop.unwrap_or_else(PoisonError::into_inner).0 == Stop::Yes {
                return;
            }
            // This reading comes before the wait for the stage: that wait is not a stop of the process.
            self.clock.now();
            self.stage().tick(self.clock.now());
        }
    }

    pub(crate) fn stage(&self) -> MutexGuard<'_, Stage> {
        // The next drawing starts over anyway.
        lock(&self.stage)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The terminal that standard error is. All reporters that draw bars on it share it, also one after the other as long as there
/// are writers of log lines for it: two that know nothing of each other erase each other's lines.
pub(crate) mod terminal {
    use std::sync::Weak;

    use super::*;

    static TERMINAL: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

    /// One more reporter of the terminal, which draws with `renderer` if it is the first.
    pub(crate) fn join(renderer: Renderer) -> Result<Reporter, StartError> {
        let mut terminal = lock(&TERMINAL);
        let shared = match terminal.upgrade() {
            Some(shared) if shared.is_of_this_process() => shared,
            _ => Shared::new(Clock::running(), renderer, Output::stderr()),
        };
        *terminal = Arc::downgrade(&shared);
        shared.join()
    }
}
