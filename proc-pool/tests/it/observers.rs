//! Observers: they read the side ring and the slots of an ended worker, and add lines to the error of its task.

use std::sync::{Arc, Mutex};

use proc_pool::{BoxError, EntryPoint, ExitCause, Fault, Observer, Worker, WorkerContext, WorkerId};
use shm_buffers::ring::{Consumer, Producer};
use shm_buffers::slots::Slots;

use crate::support::{Crash, builder, watchdog};

struct Logger {
    side: Producer,
    slots: Slots,
}

impl Worker for Logger {
    type Op = ();
    type Init = ();
    type Task = u64;
    type Output = u64;

    fn start(context: &mut WorkerContext, (): (), (): ()) -> Result<Self, BoxError> {
        assert_eq!(context.slots().len(), 3);
        assert_eq!(context.workers(), 2);
        let side = context.take_user_ring().ok_or("no side ring")?;
        assert!(context.take_user_ring().is_none());
        let slots = context.slots().clone();
        Ok(Self { side, slots })
    }

    fn run(&mut self, task: u64) -> u64 {
        self.slots.slot(2).add(1);
        self.side
            .push(format!("begin {task}").as_bytes())
            .expect("the ring has room");
        if task == 13 {
            Crash::KillSelf.run("");
        }
        self.side
            .push(format!("end {task}").as_bytes())
            .expect("the ring has room");
        task
    }
}

#[derive(Default)]
struct Listener {
    live: Mutex<Vec<(WorkerId, Consumer, Slots)>>,
    /// The causes, frames and counts of ended workers.
    ended: Mutex<Vec<(ExitCause, Vec<String>, u64)>>,
}

impl Observer for Listener {
    fn started(&self, worker: WorkerId, side: Consumer, slots: Slots) {
        self.live.lock().unwrap().push((worker, side, slots));
    }

    fn ended(&self, worker: WorkerId, cause: &ExitCause) -> Vec<String> {
        let mut live = self.live.lock().unwrap();
        let index = live
            .iter()
            .position(|it| it.0 == worker)
            .expect("the worker was started");
        let (_, mut side, slots) = live.remove(index);
        let (mut frames, mut frame) = (Vec::new(), Vec::new());
        while side.pop(&mut frame).expect("the ring is not corrupt").is_some() {
            frames.push(String::from_utf8(std::mem::take(&mut frame)).unwrap());
        }
        let last = frames.iter().rev().take(2).rev().cloned().collect();
        self.ended
            .lock()
            .unwrap()
            .push((cause.clone(), frames, slots.slot(2).get()));
        last
    }
}

#[test]
fn frames_and_slots_of_a_killed_worker_are_not_lost() {
    let _watchdog = watchdog(60);
    let listener = Arc::new(Listener::default());
    let builder = builder(2).slots(3);
    let pool = builder
        .observer(listener.clone())
        .build(EntryPoint::worker::<Logger>(()), &())
        .expect("the pool starts");
    let results: Vec<_> = pool.map(0..30).collect();
    for (task, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), task == 13);
    }
    let Fault::WorkerDied {
        last_logs,
        cause,
        worker,
        pid,
        ..
    } = &results[13].as_ref().unwrap_err().fault
    else {
        panic!("{results:?}")
    };
    assert_eq!(last_logs.last().map(String::as_str), Some("begin 13"));
    let killed = |cause: &ExitCause| match cfg!(windows) {
        true => *cause == ExitCause::Exited { code: 1 },
        false => matches!(cause, ExitCause::Signal { number: 9, .. }),
    };
    assert!(killed(cause), "{cause}");
    assert!(worker.0 < 2 && *pid != std::process::id());
    let stats = pool
        .shutdown(std::time::Duration::from_secs(20))
        .expect("the pool works");
    let ended = listener.ended.lock().unwrap();
    // The other worker may have run all other tasks before the replacement started.
    assert!(
        ended.len() as u64 == stats.spawned && stats.spawned >= 2,
        "{stats:?}"
    );
    assert!(listener.live.lock().unwrap().is_empty());
    let started: usize = ended
        .iter()
        .map(|(_, frames, _)| frames.iter().filter(|f| f.starts_with("begin")).count())
        .sum();
    let completed: usize = ended
        .iter()
        .map(|(_, frames, _)| frames.iter().filter(|f| f.starts_with("end")).count())
        .sum();
    assert_eq!((started, completed), (30, 29));
    assert_eq!(ended.iter().map(|(_, _, count)| count).sum::<u64>(), 30);
}
