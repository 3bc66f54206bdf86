//! Other libraries: threads of rayon, a pool of procspawn, and a bare `ipc-channel` to two processes.

use std::collections::VecDeque;
use std::process::{Child, Command};
use std::thread;

use ipc_channel::ipc::{self, IpcOneShotServer, IpcReceiver, IpcSender};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::child::PART;
use crate::{Failure, WORKERS, null};

pub(crate) fn rayon() -> Result<rayon::ThreadPool, Failure> {
    Ok(rayon::ThreadPoolBuilder::new().num_threads(WORKERS).build()?)
}

pub(crate) struct Procspawn(procspawn::Pool);

impl Procspawn {
    pub(crate) fn start() -> Result<Self, Failure> {
        Ok(Self(procspawn::Pool::new(WORKERS)?))
    }

    /// Returns the sum of the outputs. 32 tasks are in flight, so that the workers always have one.
    pub(crate) fn run<T>(&self, tasks: impl Iterator<Item = T>, op: fn(T) -> u64) -> Result<u64, Failure>
    where
        T: Serialize + DeserializeOwned,
    {
        const AHEAD: usize = 32;
        let mut handles = VecDeque::new();
        let mut sum = 0;
        for task in tasks {
            if handles.len() == AHEAD {
                sum += handles.pop_front().map_or(Ok(0), procspawn::JoinHandle::join)?;
            }
            handles.push_back(self.0.spawn(task, op));
        }
        handles
            .into_iter()
            .try_fold(sum, |sum, handle| Ok(sum + handle.join()?))
    }
}

impl Drop for Procspawn {
    fn drop(&mut self) {
        self.0.kill();
    }
}

type Ends = (IpcSender<u64>, IpcReceiver<u64>);

/// Two workers with a channel in each direction; each task is a message.
pub(crate) struct Ipc(Vec<(Child, Ends)>);

impl Ipc {
    pub(crate) fn start() -> Result<Self, Failure> {
        let mut workers = Self(Vec::new());
        for _ in 0..WORKERS {
            let (server, name) = IpcOneShotServer::<Ends>::new()?;
            let child = Command::new(std::env::current_exe()?)
                .args([PART, "ipc", &name])
                .spawn()?;
            let (_, ends) = server.accept()?;
            workers.0.push((child, ends));
        }
        Ok(workers)
    }

    /// Returns the sum of the outputs of `0..tasks`.
    pub(crate) fn run(&mut self, tasks: u64) -> Result<u64, Failure> {
        let (inputs, outputs): (Vec<_>, Vec<_>) =
            self.0.iter_mut().map(|(_, (to, from))| (&*to, from)).unzip();
        thread::scope(|scope| {
            let readers: Vec<_> = (0..)
                .zip(outputs)
                .map(|(worker, output)| {
                    let share = (tasks + WORKERS as u64 - 1 - worker) / WORKERS as u64;
                    scope.spawn(move || {
                        (0..share).try_fold(0, |sum, _| Ok::<_, Failure>(sum + output.recv()?))
                    })
                })
                .collect();
            for (task, input) in (0..tasks).zip(inputs.iter().cycle()) {
                input.send(task)?;
            }
            readers.into_iter().try_fold(0, |sum, reader| {
                Ok(sum + reader.join().map_err(|_| "a reader panicked")??)
            })
        })
    }
}

impl Drop for Ipc {
    fn drop(&mut self) {
        for (child, _) in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The part of the workers of [`Ipc`].
pub(crate) fn ipc_worker(server: &str) -> Result<(), Failure> {
    let (to_worker, tasks) = ipc::channel::<u64>()?;
    let (outputs, to_leader) = ipc::channel::<u64>()?;
    IpcSender::<Ends>::connect(server.to_owned())?.send((to_worker, to_leader))?;
    // Until the leader ends.
    while let Ok(task) = tasks.recv() {
        outputs.send(null::op(task))?;
    }
    Ok(())
}
