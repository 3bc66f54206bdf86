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
use crate::panics::guarded;
use crate::process::spawn;

impl ProcessManager {
    /// Spawns a process for `worker`, and reports it to the scheduler. The caller reports an error.
    pub(super) fn spawn(&mut self, worker: WorkerId) -> Result<(), StartFailure> {
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
            self.oom_kills.forget();
        }
        let values = self.config.hooks.call(worker)?;
        let start = os::now_ns();
        let command_sender = self.command_sender.clone();
        let spawned = spawn::spawn(&self.config.launch, &values.variables, move |connection| {
            // This fails only after the manager has ended.
            let _ = command_sender.send(Command::Connected(process_id, connection));
        });
        let (mut spawned, connection) = spawned?;
        // The process needs its shared memory last, so the memory is created while the process starts.
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
