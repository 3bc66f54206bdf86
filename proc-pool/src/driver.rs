//! Who waits for the workers' bells.
//!
//! Whoever calls a pool and has to wait drives it: he listens to all doorbells at once and does what is to be done
//! for everybody. So a lone caller is woken by the worker itself, with no thread in between. Callers that find
//! somebody driving wait to be told. When nobody has called for a while, the pool's standby thread drives.

use std::collections::HashMap;
use std::ops::{ControlFlow, Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::core::{Abandoned, Core, Incarnation};
use crate::error::PoolError;
use crate::jobs::JobKey;
use crate::lane::{Armed, Wake};
use crate::os::{Heard, Listener, Origin, Waker as Wakeup};
use crate::panics::guarded;
use crate::protocol::Spin;
use crate::spin::{Spinner, pause};

/// Longest sleep: whatever goes wrong with bells is noticed then.
const NAP: Duration = Duration::from_secs(1);
/// Longest sleep for several outcomes at once, which should take far less: then the next one will do.
const SEVERAL: Duration = Duration::from_millis(10);
/// A short sleep, when something ought to be there at any moment.
const GLANCE: Duration = Duration::from_millis(1);
/// How often in a row something may seem to be there that is not, before that is not believed at once any more.
const FUTILE: u32 = 100;
/// How long a caller waits for who drives before he looks himself.
const FOLLOW: Duration = Duration::from_millis(50);
/// How long nobody may have driven before the standby does.
const STANDBY: Duration = Duration::from_millis(10);

/// The core, and who waits on it.
#[derive(Debug)]
pub(crate) struct Driver {
    core: Mutex<Core>,
    /// Something was finished, or who drives has left.
    changed: Condvar,
    selector: Mutex<Selector>,
    alarm: Alarm,
    /// Callers that wait now.
    callers: AtomicUsize,
    /// Waits begun by callers, and other signs of them, ever.
    waits: AtomicU64,
    /// Somebody awaits without a thread.
    wanted: AtomicBool,
    standby_drives: AtomicBool,
    stop: AtomicBool,
    /// For the standby's sleep.
    parked: (Mutex<()>, Condvar),
    cores: usize,
    /// The leader.
    origin: Origin,
}

struct Selector {
    listener: Listener,
    /// Whose notes come with that key.
    bells: HashMap<u64, Incarnation>,
    wake: Wake,
    /// Kept to be used again.
    heard: Vec<(u64, Heard)>,
    /// Times in a row that workers seemed to have something and had not: they lie, or died in the middle.
    futile: u32,
    spinner: Spinner,
}

impl std::fmt::Debug for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Selector")
            .field("bells", &self.bells)
            .finish_non_exhaustive()
    }
}

/// Rings at whoever drives.
#[derive(Debug)]
struct Alarm {
    wakeup: Wakeup,
    /// It was woken and has not looked yet: once is enough.
    rung: AtomicBool,
}

impl Alarm {
    fn ring(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.wakeup.wake();
        }
    }
}

/// The core, while it is locked. When it is let go, those are woken who await what has come meanwhile.
pub(crate) struct Held<'a>(Option<MutexGuard<'a, Core>>);

impl Held<'_> {
    /// Lets it go and sleeps until `changed`, or for `patience`.
    fn sleep(mut self, changed: &Condvar, patience: Duration) {
        let woken = self.jobs.take_woken();
        if let Some(core) = self.0.take() {
            drop(changed.wait_timeout(core, patience));
        }
        wake_all(woken);
    }
}

/// Wakes everything that awaits: user code, with nothing locked.
fn wake_all(woken: Vec<Waker>) {
    for waker in woken {
        // Its panic concerns neither this thread nor the other wakers.
        let _ = guarded(|| waker.wake());
    }
}

impl Deref for Held<'_> {
    type Target = Core;

    fn deref(&self) -> &Core {
        self.0.as_deref().expect(HELD)
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut Core {
        self.0.as_deref_mut().expect(HELD)
    }
}

const HELD: &str = "held until it is dropped";

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(mut core) = self.0.take() {
            let woken = core.jobs.take_woken();
            drop(core);
            wake_all(woken);
        }
    }
}

/// Counts a caller while he waits.
struct Waiting<'a>(&'a Driver);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.callers.fetch_sub(1, Ordering::SeqCst);
        // Somebody may have to take over.
        if self.0.callers.load(Ordering::SeqCst) > 0 {
            self.0.tell();
        }
    }
}

impl Driver {
    pub(crate) fn new(core: Core) -> Result<Self, PoolError> {
        let (listener, wakeup) = Listener::new().map_err(PoolError::io("listen to workers"))?;
        Ok(Self {
            core: Mutex::new(core),
            changed: Condvar::new(),
            selector: Mutex::new(Selector {
                listener,
                bells: HashMap::new(),
                wake: Wake::AtHalf,
                heard: Vec::new(),
                futile: 0,
                spinner: Spinner::default(),
            }),
            alarm: Alarm {
                wakeup,
                rung: AtomicBool::new(false),
            },
            callers: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            standby_drives: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            parked: (Mutex::new(()), Condvar::new()),
            cores: crate::workers::cores(),
            origin: Origin::here(),
        })
    }

    /// Whether this process is the leader. In a forked copy of it, nothing else here may be called. Costs next to nothing.
    #[inline]
    pub(crate) fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    /// The same with a system call, for what is not done for each task.
    ///
    /// # Errors
    /// [`PoolError::Forked`].
    pub(crate) fn check(&self) -> Result<(), PoolError> {
        match self.origin.is_surely_here() {
            true => Ok(()),
            false => Err(self.forked()),
        }
    }

    /// The error of everything that is asked of a forked copy.
    #[cold]
    pub(crate) fn forked(&self) -> PoolError {
        let pid = self.origin.pid();
        PoolError::Forked { pid }
    }

    /// The core, for a moment.
    pub(crate) fn core(&self) -> Held<'_> {
        // A panic while it was held would be a bug of ours; its state is consistent between statements.
        Held(Some(self.core.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    /// Somebody uses the pool, though he does not wait now: the standby need not drive.
    pub(crate) fn in_use(&self) {
        self.waits.fetch_add(1, Ordering::Relaxed);
    }

    /// Somebody waits without a thread: the standby is to drive.
    pub(crate) fn attend(&self) {
        if !self.standby_drives.load(Ordering::SeqCst) && !self.wanted.swap(true, Ordering::SeqCst) {
            self.parked.1.notify_all();
        }
    }

    /// The core, when everything that workers have said was heard.
    pub(crate) fn fresh_core(&self) -> Held<'_> {
        let mut core = self.core();
        // Somebody may sleep until what was just taken comes; who comes to wait later looks first.
        if core.pump() > 0 && self.callers.load(Ordering::SeqCst) > 0 {
            drop(core);
            self.nudge();
            core = self.core();
        }
        core
    }

    /// Ends a job that nothing waits for any more. Never waits for a worker.
    pub(crate) fn abandon(&self, job: JobKey) {
        if !self.is_here() {
            return;
        }
        let abandoned = self.core().abandon(job);
        let Some(Abandoned { job, pending }) = abandoned else {
            return;
        };
        // A shutdown may wait for just those tasks.
        if pending && self.callers.load(Ordering::SeqCst) > 0 {
            self.nudge();
        }
        // Its waker's drop is user code.
        let _ = guarded(|| drop(job));
    }

    /// Something changed that waiting callers, or who drives, must look at.
    pub(crate) fn nudge(&self) {
        self.tell();
        self.alarm.ring();
    }

    /// Wakes callers that wait for who drives. Through the lock, so that one who is about to sleep is not missed.
    fn tell(&self) {
        drop(self.core());
        self.changed.notify_all();
    }

    /// Whether workers may spin, given their number.
    pub(crate) fn worker_spin(&self, workers: usize) -> Spin {
        if workers < self.cores {
            Spin::Briefly
        } else {
            Spin::Never
        }
    }

    /// Waits until `ready` gives something, or `deadline`.
    pub(crate) fn wait<R>(
        &self,
        deadline: Option<Instant>,
        mut ready: impl FnMut(&mut Core) -> Option<R>,
    ) -> Option<R> {
        self.callers.fetch_add(1, Ordering::SeqCst);
        self.waits.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(self);
        loop {
            if let Some(result) = self.look(&mut ready) {
                return Some(result);
            }
            if deadline.is_some_and(|at| at <= Instant::now()) {
                return None;
            }
            match self.try_selector() {
                Some(mut selector) => {
                    if let Some(result) = self.spin(&mut selector.spinner, &mut ready) {
                        return Some(result);
                    }
                    self.drive(&mut selector, deadline);
                }
                None => {
                    if self.standby_drives.load(Ordering::SeqCst) {
                        self.alarm.ring();
                    }
                    let mut core = self.core();
                    // Looked at again under the lock, so that no news is missed.
                    if let Some(result) = ready(&mut core) {
                        return Some(result);
                    }
                    if self.try_selector().is_none() {
                        let unsure = std::mem::take(&mut core.unsure);
                        let patience = if unsure { GLANCE } else { FOLLOW };
                        core.sleep(&self.changed, patience);
                    }
                }
            }
        }
    }

    /// The right to drive, if nobody has it.
    fn try_selector(&self) -> Option<MutexGuard<'_, Selector>> {
        match self.selector.try_lock() {
            Ok(selector) => Some(selector),
            // A panic while it was held would be a bug of ours; it is still good for listening.
            Err(TryLockError::Poisoned(broken)) => Some(broken.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn look<R>(&self, ready: &mut impl FnMut(&mut Core) -> Option<R>) -> Option<R> {
        let mut core = self.core();
        if core.pump() > 0 {
            self.tell_others();
        }
        ready(&mut core)
    }

    fn tell_others(&self) {
        if self.callers.load(Ordering::SeqCst) > 1 {
            self.changed.notify_all();
        }
    }

    /// Looks on for a moment, where a core is free to do so.
    fn spin<R>(&self, spinner: &mut Spinner, ready: &mut impl FnMut(&mut Core) -> Option<R>) -> Option<R> {
        // Whoever was just woken may wait for this core: it is given away before anything else.
        let mut first = true;
        let found = spinner.look_on(|| {
            if !std::mem::take(&mut first) {
                pause();
            }
            let mut core = self.core();
            let busy = core.busy();
            if busy == 0 || busy >= self.cores {
                return ControlFlow::Break(None);
            }
            if core.has_outcomes() && core.pump() > 0 {
                self.tell_others();
                if let Some(result) = ready(&mut core) {
                    return ControlFlow::Break(Some(result));
                }
            }
            ControlFlow::Continue(())
        });
        found.flatten()
    }

    /// Sleeps until something happens, and does what is to be done about it.
    fn drive(&self, selector: &mut Selector, deadline: Option<Instant>) {
        let (armed, rescue) = {
            let mut core = self.core();
            for (incarnation, notes) in core.arrivals.drain(..) {
                // Without its bell, a worker is found to be dead or slow by the naps' end.
                if let Ok(id) = selector.listener.add(notes) {
                    selector.bells.insert(id, incarnation);
                }
            }
            let armed = core.arm(selector.wake);
            core.sleeping = true;
            let now = Instant::now();
            let looks = [core.rescue(now), core.rebalance(now)];
            (armed, looks.into_iter().flatten().min())
        };
        let longest = match armed {
            // Bells and closings are looked at in any case: a worker that lies must not keep us from them.
            Armed::Ready if selector.futile < FUTILE => Duration::ZERO,
            Armed::Ready => GLANCE,
            Armed::Several => SEVERAL,
            Armed::Next => NAP,
        };
        let longest = rescue.map_or(longest, |at| at.min(longest));
        let nap = deadline.map_or(longest, |at| {
            at.saturating_duration_since(Instant::now()).min(longest)
        });
        let mut heard = std::mem::take(&mut selector.heard);
        let waited = selector.listener.wait(nap, |key, it| heard.push((key, it)));
        self.alarm.rung.store(false, Ordering::SeqCst);
        if waited.is_err() {
            // A descriptor went bad or the like: don't spin on it.
            std::thread::sleep(Duration::from_millis(1));
        }
        let mut core = self.core();
        core.sleeping = false;
        core.disarm();
        let mut news = false;
        let silent = matches!(waited, Ok(false));
        for (key, it) in heard.drain(..) {
            match it {
                Heard::Note(note) => {
                    if let Some(&incarnation) = selector.bells.get(&key) {
                        news |= core.note(incarnation, note);
                    }
                }
                Heard::Closed => {
                    if let Some(incarnation) = selector.bells.remove(&key) {
                        core.closed(incarnation);
                    }
                }
            }
        }
        selector.heard = heard;
        let pumped = core.pump() > 0;
        if pumped || news {
            self.tell_others();
        }
        selector.wake = match armed {
            Armed::Several if silent && !pumped => Wake::AtOnce,
            _ if pumped => Wake::AtHalf,
            _ => selector.wake,
        };
        selector.futile = match armed {
            Armed::Ready if !pumped => selector.futile.saturating_add(1),
            _ => 0,
        };
    }

    /// The standby thread's life.
    pub(crate) fn stand_by(&self) {
        let mut seen = u64::MAX;
        while !self.stop.load(Ordering::SeqCst) {
            let waits = self.waits.load(Ordering::Relaxed);
            let wanted = self.wanted.swap(false, Ordering::SeqCst);
            let quiet = self.callers.load(Ordering::SeqCst) == 0 && (waits == seen || wanted);
            seen = waits;
            if quiet && let Some(mut selector) = self.try_selector() {
                self.standby_drives.store(true, Ordering::SeqCst);
                if self.callers.load(Ordering::SeqCst) == 0 {
                    self.drive(&mut selector, None);
                }
                self.standby_drives.store(false, Ordering::SeqCst);
                drop(selector);
                if self.callers.load(Ordering::SeqCst) > 0 {
                    self.tell();
                }
                continue;
            }
            let guard = self.parked.0.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.parked.1.wait_timeout(guard, STANDBY));
        }
    }

    /// Ends the standby thread.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.parked.1.notify_all();
        self.nudge();
    }
}
