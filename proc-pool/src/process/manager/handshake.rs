//! The handshake with a process that has connected: it gets its shared memory, its entry point and its initial value, and the
//! scheduler gets its connection.

use std::io;

use super::ProcessManager;
use crate::error::{KillReason, ProcessId};
use crate::leader::command::ConnectResult;
use crate::leader::connection::WorkerConnection;
use crate::leader::start_failure::StartFailure;
use crate::leader::supervisor::Event;
use crate::wire::handshake::Welcome;

impl ProcessManager {
    /// Welcomes a process that has connected. Kills it and reports a failed start if it could not connect.
    pub(super) fn shake_hands(&mut self, process_id: ProcessId, connection: ConnectResult) {
        let Some(process) = self.processes.iter_mut().find(|p| p.process_id == process_id) else {
            return;
        };
        let workers = self.event_loop.scheduler().wanted();
        let welcomed = connection.and_then(|connection| {
            let region = process.region.handle().map_err(|e| e.to_string())?;
            let welcome = Welcome {
                worker: process_id.worker,
                workers: workers as u32,
                generation: process_id.restarts(),
                entry: self.config.entry.clone(),
                region,
                sizes: process.sizes,
                init: self.config.init.payload(),
                values: process.values.encoded.payload(),
                spin: self.event_loop.worker_spin(workers),
                inherited: self.config.inherited,
            };
            let (bytes, region_descriptors) = welcome.encoded()?;
            let mut descriptors = vec![&region_descriptors];
            descriptors.extend(self.config.descriptors.iter().map(|of_init| &**of_init));
            descriptors.extend(&process.values.descriptors);
            match connection.welcome(&bytes, &descriptors) {
                Ok(ends) => Ok(Some(ends)),
                // The process has already ended: its exit status says more than this error.
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
        let mut scheduler = self.event_loop.scheduler();
        match welcomed {
            Ok(None) => {}
            Ok(Some((notes, to_worker, liveness))) => {
                process.connected = true;
                let connection = WorkerConnection::new(
                    process_id.worker,
                    &process.region,
                    process.sizes,
                    self.config.trust,
                    to_worker,
                    liveness,
                );
                scheduler.connected(process_id, process.pid, connection, notes);
            }
            Err(reason) => {
                scheduler.event(Event::StartFailed(
                    process_id.worker,
                    StartFailure::Failed(format!("did not connect: {reason}")),
                ));
                drop(scheduler);
                self.kill(KillReason::Disconnected, |p| p.process_id == process_id);
            }
        }
    }
}
