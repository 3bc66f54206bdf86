//! Side rings, slots and last words.

use std::sync::{Arc, Mutex};

use proc_pool::{BoxError, Builder, Cause, Fault, Observer, Worker, WorkerContext, WorkerId, Workers};
use shm_buffers::ring::{Consumer, Producer};
use shm_buffers::slots::Slots;

use crate::support::watchdog;

struct Talker {
    side: Producer,
    slots: Slots,
}

impl Worker for Talker {
    type Op = ();
    type Init = ();
    type Task = u64;
    type Output = u64;

    fn start(context: &mut WorkerContext, (): (), (): ()) -> Result<Self, BoxError> {
        assert_eq!(context.slots().len(), 3);
        assert_eq!(context.workers(), 2);
        let side = context.take_side().ok_or("no side ring")?;
        assert!(context.take_side().is_none());
        let slots = context.slots().clone();
        Ok(Self { side, slots })
    }

    fn run(&mut self, task: u64) -> u64 {
        self.slots.slot(2).add(1);
        self.side
            .push(format!("begin {task}").as_bytes())
            .expect("it has room");
        if task == 13 {
            crate::crash::Crash::KillSelf.suffer("");
        }
        self.side
            .push(format!("end {task}").as_bytes())
            .expect("it has room");
        task
    }
}

#[derive(Default)]
struct Listener {
    live: Mutex<Vec<(WorkerId, Consumer, Slots)>>,
    /// Frames and counts of the dead.
    heard: Mutex<Vec<(Cause, Vec<String>, u64)>>,
}

impl Observer for Listener {
    fn started(&self, worker: WorkerId, side: Consumer, slots: Slots) {
        self.live.lock().unwrap().push((worker, side, slots));
    }

    fn ended(&self, worker: WorkerId, cause: &Cause) -> Vec<String> {
        let mut live = self.live.lock().unwrap();
        let place = live.iter().position(|it| it.0 == worker).expect("it was started");
        let (_, mut side, slots) = live.remove(place);
        let (mut frames, mut frame) = (Vec::new(), Vec::new());
        while side.pop(&mut frame).expect("the worker is no liar").is_some() {
            frames.push(String::from_utf8(std::mem::take(&mut frame)).unwrap());
        }
        let last = frames.iter().rev().take(2).rev().cloned().collect();
        self.heard
            .lock()
            .unwrap()
            .push((cause.clone(), frames, slots.slot(2).get()));
        last
    }
}

#[test]
fn what_a_killed_worker_said_is_heard() {
    let _watchdog = watchdog(60);
    let listener = Arc::new(Listener::default());
    let builder = Builder::new().workers(Workers::Count(2)).slots(3);
    let pool = builder
        .observer(listener.clone())
        .build::<Talker>((), &())
        .expect("it starts");
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
    let killed = |cause: &Cause| match cfg!(windows) {
        true => *cause == Cause::Exited { code: 1 },
        false => matches!(cause, Cause::Signal { number: 9, .. }),
    };
    assert!(killed(cause), "{cause}");
    assert!(worker.0 < 2 && *pid != std::process::id());
    let stats = pool
        .shutdown(std::time::Duration::from_secs(20))
        .expect("it did not fail");
    let heard = listener.heard.lock().unwrap();
    // The other worker may have done all the rest before another one was started.
    assert!(
        heard.len() as u64 == stats.spawned && stats.spawned >= 2,
        "{stats:?}"
    );
    assert!(listener.live.lock().unwrap().is_empty());
    let begun: usize = heard
        .iter()
        .map(|(_, frames, _)| frames.iter().filter(|f| f.starts_with("begin")).count())
        .sum();
    let ended: usize = heard
        .iter()
        .map(|(_, frames, _)| frames.iter().filter(|f| f.starts_with("end")).count())
        .sum();
    assert_eq!((begun, ended), (30, 29));
    assert_eq!(heard.iter().map(|(_, _, count)| count).sum::<u64>(), 30);
}

/// An observer's bug is not the pool's end.
#[test]
fn an_observer_that_panics() {
    struct Bad;
    impl Observer for Bad {
        fn started(&self, _: WorkerId, _: Consumer, _: Slots) {
            panic!("an observer's bug, expected here");
        }
        fn ended(&self, _: WorkerId, _: &Cause) -> Vec<String> {
            panic!("an observer's bug, expected here");
        }
    }
    let _watchdog = watchdog(60);
    let builder = Builder::new().workers(Workers::Count(1)).observer(Arc::new(Bad));
    let pool = builder
        .build_op(|n: u64| if n == 3 { std::process::exit(1) } else { n })
        .expect("it starts");
    assert_eq!(pool.map(0..10).filter(Result::is_ok).count(), 9);
}
