//! The start of a process, up to its introduction.

use std::io;

use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use super::memory::share;
use super::process::Process;
use super::{Inquiry, Keeper, Order};
use crate::core::Incarnation;
use crate::error::{KillReason, PoolError, WorkerId};
use crate::lane::Lane;
use crate::os;
use crate::panics::guarded;
use crate::protocol::{Carried, Welcome};
use crate::spawn::{self, Introduction};
use crate::supervisor::Event;

impl Keeper {
    /// Starts a process for that worker.
    pub(super) fn spawn(&mut self, worker: WorkerId) -> Result<(), PoolError> {
        if self.stopping.is_some() || self.driver.core().is_stopping() {
            return Err(PoolError::ShutDown);
        }
        let number = self.numbers.entry(worker).or_default();
        *number += 1;
        let dead = |process: &Process| process.closed.is_some() || process.ended.is_some();
        if !self.processes.iter().any(dead) {
            self.oom.forget();
        }
        let incarnation = Incarnation {
            worker,
            number: *number,
        };
        let begun = os::now_ns();
        let to_self = self.to_self.clone();
        let spawned = spawn::spawn(&self.plan.launch, move |introduction| {
            // It fails only after the keeper has ended, which needs no answer.
            let _ = to_self.send(Order::Introduced(incarnation, introduction));
        });
        let (mut spawned, connection) = spawned?;
        // While the process starts: it needs that last.
        let workers = self.driver.core().wanted();
        let is_first = !std::mem::replace(&mut self.shared, true);
        let region = match share(&self.plan.backing, &mut self.plan.sizes, workers, is_first) {
            Ok(region) => region,
            Err(e) => {
                spawned.give_up();
                return Err(PoolError::os("create a worker's shared memory", e));
            }
        };
        let sizes = self.plan.sizes;
        let map = sizes.map();
        let side = Consumer::new(&region, map.side);
        let slots = Slots::new(&region, map.slots);
        let _ = guarded(|| self.observer.started(worker, side, slots));
        if let Some(reader) = &self.reader {
            reader.read(incarnation, &mut spawned.child);
        }
        let pid = spawned.child.id();
        let timing = Slots::new(&region, map.timing);
        self.driver.core().spawned(incarnation, pid, begun, timing);
        self.processes.push(Process {
            incarnation,
            spawned,
            pid,
            region,
            sizes,
            connected: false,
            killed: None,
            inquiry: Inquiry::default(),
            closed: None,
            ended: None,
        });
        if let Some(connection) = connection {
            self.welcome(incarnation, Ok(connection));
        }
        Ok(())
    }

    /// Introduces this process to a worker that is connected to it, or not.
    pub(super) fn welcome(&mut self, incarnation: Incarnation, introduction: Introduction) {
        let Some(process) = self.processes.iter_mut().find(|p| p.incarnation == incarnation) else {
            return;
        };
        let workers = self.driver.core().wanted();
        let welcomed = introduction.and_then(|connection| {
            let region = process.region.handle().map_err(|e| e.to_string())?;
            let init = match &self.init {
                None => Carried::Inline(self.plan.init.clone()),
                Some((_, handle)) => Carried::Segment(handle.clone()),
            };
            let welcome = Welcome {
                worker: incarnation.worker,
                workers: workers as u32,
                entry: self.plan.entry.clone(),
                region,
                sizes: process.sizes,
                init,
                spin: self.driver.worker_spin(workers),
                inherited: self.plan.inherited,
            };
            let (bytes, descriptors) = welcome.encoded()?;
            let mut given = vec![&descriptors];
            given.extend(self.plan.descriptors.iter().map(|given| &**given));
            match connection.welcome(&bytes, &given) {
                Ok(ends) => Ok(Some(ends)),
                // It has ended already: its status says more.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                    ) =>
                {
                    Ok(None)
                }
                Err(e) => Err(e.to_string()),
            }
        });
        let mut core = self.driver.core();
        match welcomed {
            Ok(None) => {}
            Ok(Some((notes, to_worker, liveness))) => {
                process.connected = true;
                let lane = Lane::new(
                    incarnation.worker,
                    &process.region,
                    process.sizes,
                    to_worker,
                    liveness,
                );
                core.connected(incarnation, process.pid, lane, notes);
            }
            Err(reason) => {
                core.event(Event::StartFailed(
                    incarnation.worker,
                    format!("did not connect: {reason}"),
                ));
                drop(core);
                self.kill(KillReason::Disconnected, |p| p.incarnation == incarnation);
            }
        }
    }
}
