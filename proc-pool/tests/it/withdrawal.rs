//! Withdrawn tasks: a dropped handle, map or stream, a deadline or a kill takes back what no worker has started.

use std::path::Path;
use std::thread;
use std::time::Duration;

use proc_pool::{Builder, Fault, Pool, PoolError, Stats, Workers};
use serde::{Deserialize, Serialize};

use crate::support::{Dir, Ear, hear_from, pool, watchdog};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Task {
    number: u64,
    /// The socket to wait at.
    ask: String,
    /// The directory in which the run leaves a file.
    mark: String,
}

fn run(task: Task) -> u64 {
    if !task.mark.is_empty() {
        let path = Path::new(&task.mark).join(task.number.to_string());
        std::fs::File::create(path).expect("the directory exists");
    }
    if !task.ask.is_empty() {
        hear_from(&task.ask);
    }
    task.number
}

fn plain(number: u64) -> Task {
    Task {
        number,
        ..Task::default()
    }
}

fn blocker(ear: &Ear) -> Task {
    Task {
        ask: ear.path.clone(),
        ..plain(1_000_000)
    }
}

fn marked(dir: &Dir) -> impl Fn(u64) -> Task + use<> {
    let mark = dir.path().to_str().expect("it is UTF-8").to_owned();
    move |number| Task {
        mark: mark.clone(),
        ..plain(number)
    }
}

/// A pool of one worker that takes many tasks at a time.
fn warmed() -> Pool<Task, u64> {
    let pool = pool(1, run);
    assert_eq!(
        pool.map((0..20_000).map(plain)).filter_map(Result::ok).count(),
        20_000
    );
    pool
}

/// Ends the pool; every task is accounted for.
fn end(pool: Pool<Task, u64>) -> Stats {
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
    stats
}

fn let_go(mut asking: impl std::io::Write) {
    asking.write_all(&[1]).expect("the blocker listens");
}

#[test]
fn dropped_handles_withdraw_their_tasks_from_a_worker() {
    let _watchdog = watchdog(60);
    let (ear, dir) = (Ear::new(), Dir::new());
    let pool = warmed();
    let task = marked(&dir);
    let blocked = pool.submit(blocker(&ear));
    let asking = ear.accept();
    let handles: Vec<_> = (0..100).map(|n| pool.submit(task(n))).collect();
    let kept = pool.submit(plain(5));
    drop(handles);
    let_go(asking);
    assert_eq!(blocked.wait().expect("it runs"), 1_000_000);
    assert_eq!(kept.wait().expect("it runs"), 5);
    let stats = end(pool);
    assert_eq!(dir.entries(), Vec::<std::path::PathBuf>::new());
    assert_eq!((stats.submitted, stats.faulted, stats.deaths), (20_102, 100, 0));
}

#[test]
fn a_dropped_map_withdraws_its_tasks_from_a_worker() {
    let _watchdog = watchdog(60);
    for unordered in [false, true] {
        let (ear, dir) = (Ear::new(), Dir::new());
        let pool = warmed();
        let task = marked(&dir);
        // The first output comes before the blocker, so that all tasks behind it were sent by then.
        let mut tasks = [plain(0), blocker(&ear)].into_iter().chain((0..100).map(&task));
        thread::scope(|scope| {
            let tasks = &mut tasks;
            let pool = &pool;
            let mut map: Box<dyn Iterator<Item = _>> = match unordered {
                true => Box::new(pool.map_unordered(tasks)),
                false => Box::new(pool.map(tasks)),
            };
            assert_eq!(map.next().expect("an output").expect("it runs"), 0);
            let asking = scope.spawn(|| ear.accept());
            // A submission has the pool look after all of its workers.
            let other = pool.submit(plain(7));
            let asking = asking.join().expect("the blocker connects");
            drop(map);
            let_go(asking);
            assert_eq!(other.wait().expect("it runs"), 7);
        });
        drop(tasks);
        let stats = end(pool);
        assert_eq!(dir.entries(), Vec::<std::path::PathBuf>::new(), "{stats:?}");
        assert!(stats.faulted > 0 && stats.deaths == 0, "{stats:?}");
    }
}

#[cfg(feature = "stream")]
#[test]
fn a_dropped_stream_withdraws_its_tasks_from_a_worker() {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use futures_core::Stream;
    use proc_pool::OutputStream;

    let _watchdog = watchdog(60);
    let (ear, dir) = (Ear::new(), Dir::new());
    let pool = warmed();
    let task = marked(&dir);
    let tasks = std::iter::once(blocker(&ear)).chain((0..100).map(&task));
    let mut outputs = OutputStream::as_completed(tasks.map(|task| pool.submit(task)), 101);
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(
        Pin::new(&mut outputs).poll_next(&mut context),
        Poll::Pending
    ));
    let asking = ear.accept();
    drop(outputs);
    let_go(asking);
    assert_eq!(pool.submit(plain(7)).wait().expect("it runs"), 7);
    let stats = end(pool);
    assert_eq!(dir.entries(), Vec::<std::path::PathBuf>::new());
    assert_eq!((stats.faulted, stats.deaths), (100, 0));
}

#[test]
fn withdrawn_tasks_leave_the_queue_before_their_turn() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = warmed();
    let blocked = pool.submit(blocker(&ear));
    let asking = ear.accept();
    let handles: Vec<_> = (0..10_000).map(|n| pool.submit(plain(n))).collect();
    drop(handles);
    let snapshot = pool.snapshot();
    assert!(snapshot.backlog < 100, "{snapshot}");
    let_go(asking);
    assert_eq!(blocked.wait().expect("it runs"), 1_000_000);
    assert_eq!(end(pool).faulted, 10_000);
}

/// Sleeps for `us` microseconds.
fn nap(us: u64) -> u64 {
    thread::sleep(Duration::from_micros(us));
    us
}

#[test]
fn a_deadline_charges_only_the_late_task() {
    // Long enough that a machine that does other things makes no other task late.
    const DEADLINE: u64 = 60_000;
    let _watchdog = watchdog(120);
    let pool = Builder::new()
        .workers(Workers::Count(1))
        .deadline(Duration::from_micros(DEADLINE))
        .build_op(nap)
        .expect("the pool starts");
    let mut late = 0;
    for round in 0..40 {
        // Shorter ones first, so that others are sent behind the one that is killed or is just over.
        let tasks = [10, 10, 10, 10, DEADLINE - 3000 + round * 600, 1000, 1000, 1000];
        for (task, result) in pool.map(tasks).enumerate() {
            match result {
                Ok(us) => assert_eq!(us, tasks[task]),
                Err(error) => {
                    assert!(
                        matches!(error.fault, Fault::TimedOut { .. }),
                        "round {round}: {error}"
                    );
                    assert_eq!(task, 4, "round {round}: {error}");
                    late += 1;
                }
            }
        }
    }
    assert!(late > 0);
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!(stats.submitted, stats.answered + stats.faulted, "{stats:?}");
}

#[test]
fn shutting_down_reports_a_failure_that_comes_meanwhile() {
    let _watchdog = watchdog(60);
    let ear = Ear::new();
    let pool = pool(1, run);
    let blocked = pool.submit(blocker(&ear));
    let asking = ear.accept();
    let interrupter = pool.bytes().interrupter();
    let ended = thread::scope(|scope| {
        let ended = scope.spawn(|| pool.shutdown(Duration::from_secs(30)));
        // Most likely it waits for the blocker by now; the result is the same if not.
        thread::sleep(Duration::from_millis(100));
        interrupter.interrupt(proc_pool::Interrupt::Kill);
        ended.join().expect("it does not panic")
    });
    drop(asking);
    assert!(matches!(ended, Err(PoolError::Interrupted)), "{ended:?}");
    let error = blocked.wait().expect_err("its worker is gone");
    assert!(
        matches!(error.fault, Fault::Pool(PoolError::Interrupted)),
        "{error}"
    );
}
