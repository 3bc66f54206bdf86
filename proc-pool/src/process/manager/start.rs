//! Spawning a worker process, up to its connection; [`handshake`](super::handshake) goes on from there.

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use super::ProcessManager;
use super::pending_stack::PendingStack;
use super::process::ManagedProcess;
use super::region::create_region;
use crate::error::ProcessId;
use crate::error::{PoolError, WorkerId};
use crate::leader::command::Command;
use crate::leader::start_failure::StartFailure;
use crate::leader::supervisor::Event;
use crate::os;
use crate::os::introduction::Connection;
use crate::panics::guarded;
use crate::process::spawn::{self, Spawned};
use crate::process::worker_hooks::ProcessValues;

/// Number of processes that are launched before the first of them gets its shared memory. A process needs its memory only when
/// it has loaded its libraries, which takes longer than to launch a second one.
const LAUNCHED_AHEAD: usize = 2;

/// A process that was launched and does not have its shared memory yet.
pub(super) struct Launched {
    process_id: ProcessId,
    values: ProcessValues,
    /// When its start began, by [`now_ns`](os::now_ns).
    start: u64,
    spawned: Spawned,
    connection: Option<Connection>,
}

impl ProcessManager {
    /// Starts a process for `worker`, and for the workers of the spawn commands that follow immediately. Reports them, and
    /// errors, to the scheduler. Returns the command behind them that was received with them.
    pub(super) fn spawn(&mut self, worker: WorkerId) -> Option<Command> {
        let mut launched = vec![(worker, self.launch(worker))];
        let mut next = None;
        while launched.len() < LAUNCHED_AHEAD && next.is_none() {
            match self.commands.try_recv() {
                Ok(Command::Spawn(worker)) => launched.push((worker, self.launch(worker))),
                Ok(command) => next = Some(command),
                Err(_) => break,
            }
        }
        for (worker, launched) in launched {
            if let Err(failure) = launched.and_then(|launched| self.admit(launched)) {
                let event = Event::StartFailed(worker, failure);
                self.event_loop.scheduler().event(event);
            }
        }
        next
    }

    /// Launches a process for `worker`.
    fn launch(&mut self, worker: WorkerId) -> Result<Launched, StartFailure> {
        if self.stopping_since.is_some() || self.event_loop.scheduler().is_stopping() {
            return Err(PoolError::ShutDown.into());
        }
        let generation = self.generations.entry(worker).or_default();
        *generation += 1;
        let process_id = ProcessId {
            worker,
            generation: *generation,
        };
        let is_dead = |process: &ManagedProcess| process.disconnected_at.is_some() || process.ended.is_some();
        if !self.processes.iter().any(is_dead) {
            self.oom_kills.forget_earlier();
        }
        let values = self.config.hooks.call(worker)?;
        let start = os::now_ns();
        let command_sender = self.command_sender.clone();
        let spawned = spawn::spawn(&self.config.launch, &values.variables, move |connection| {
            // This fails only after the manager has ended.
            let _ = command_sender.send(Command::Connected(process_id, connection));
        });
        let (spawned, connection) = spawned?;
        Ok(Launched {
            process_id,
            values,
            start,
            spawned,
            connection,
        })
    }

    /// Creates the shared memory of a process, reports the process to the scheduler, and welcomes it if it has connected.
    fn admit(&mut self, launched: Launched) -> Result<(), StartFailure> {
        let Launched {
            process_id,
            values,
            start,
            mut spawned,
            connection,
        } = launched;
        let worker = process_id.worker;
        let region = match create_region(&self.config.backing, &mut self.config.sizes) {
            Ok(region) => region,
            Err(e) => {
                spawned.abort();
                return Err(PoolError::os("create a worker's shared memory", e).into());
            }
        };
        let sizes = self.config.sizes;
        let map = sizes.layout();
        let user_ring = Consumer::new(&region, map.user_ring);
        let slots = Slots::new(&region, map.slots);
        let _ = guarded(|| self.observer.started(worker, user_ring, slots));
        if let Some(reader) = &self.output_reader {
            reader.read(process_id, &mut spawned.child);
        }
        let pid = spawned.child.id();
        let timing = Slots::new(&region, map.timing);
        self.event_loop
            .scheduler()
            .spawned(process_id, pid, start, timing);
        self.processes.push(ManagedProcess {
            process_id,
            spawned,
            pid,
            region,
            sizes,
            values,
            connected: false,
            killed: None,
            stack: PendingStack::default(),
            disconnected_at: None,
            ended: None,
        });
        // This precedes the handshake, because a fast process is ready immediately after that.
        self.event_loop.scheduler().event(Event::Spawned(worker));
        if let Some(connection) = connection {
            self.shake_hands(process_id, Ok(connection));
        }
        Ok(())
    }
}
