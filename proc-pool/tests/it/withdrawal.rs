//! Withdrawn tasks: a dropped handle, map or stream takes back the tasks that no worker has started.

use std::path::Path;
use std::thread;
use std::time::Duration;

use proc_pool::{Pool, Stats};
use serde::{Deserialize, Serialize};

use crate::support::{Rendezvous, TempDir, pool, release, wait_for_release, watchdog};

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Task {
    number: u64,
    /// The rendezvous to wait at; none if empty.
    rendezvous: String,
    /// The directory in which the op creates a file; none if empty.
    marks: String,
}

fn run(task: Task) -> u64 {
    if !task.marks.is_empty() {
        let path = Path::new(&task.marks).join(task.number.to_string());
        std::fs::File::create(path).expect("the directory exists");
    }
    if !task.rendezvous.is_empty() {
        wait_for_release(&task.rendezvous);
    }
    task.number
}

fn plain(number: u64) -> Task {
    Task {
        number,
        ..Task::default()
    }
}

fn blocker(rendezvous: &Rendezvous) -> Task {
    Task {
        rendezvous: rendezvous.address.clone(),
        ..plain(1_000_000)
    }
}

/// Returns a function that makes tasks which leave a file in `dir` if they run.
fn marked(dir: &TempDir) -> impl Fn(u64) -> Task + use<> {
    let marks = dir.path().to_str().expect("the path is UTF-8").to_owned();
    move |number| Task {
        marks: marks.clone(),
        ..plain(number)
    }
}

/// Builds a pool of one worker with a window of many tasks.
fn pool_with_a_wide_window() -> Pool<Task, u64> {
    let pool = pool(1, run);
    assert_eq!(
        pool.map((0..20_000).map(plain)).filter_map(Result::ok).count(),
        20_000
    );
    pool
}

/// Shuts the pool down, and checks that every task is accounted for.
fn end(pool: Pool<Task, u64>) -> Stats {
    let stats = pool.shutdown(Duration::from_secs(30)).expect("the pool works");
    assert_eq!(stats.submitted, stats.answered + stats.failed, "{stats:?}");
    stats
}

#[test]
fn dropped_handle_withdraws_its_task_from_a_worker() {
    let _watchdog = watchdog(60);
    let (rendezvous, dir) = (Rendezvous::new(), TempDir::new());
    let pool = pool_with_a_wide_window();
    let task = marked(&dir);
    let blocked = pool.submit(blocker(&rendezvous));
    let waiting = rendezvous.accept();
    let handles: Vec<_> = (0..100).map(|n| pool.submit(task(n))).collect();
    let kept = pool.submit(plain(5));
    drop(handles);
    release(waiting);
    assert_eq!(blocked.wait().expect("the task succeeds"), 1_000_000);
    assert_eq!(kept.wait().expect("the task succeeds"), 5);
    let stats = end(pool);
    assert_eq!(dir.entries(), Vec::<std::path::PathBuf>::new());
    assert_eq!((stats.submitted, stats.failed, stats.deaths), (20_102, 100, 0));
}

#[test]
fn dropped_map_withdraws_its_tasks_from_a_worker() {
    let _watchdog = watchdog(60);
    for unordered in [false, true] {
        let (rendezvous, dir) = (Rendezvous::new(), TempDir::new());
        let pool = pool_with_a_wide_window();
        let task = marked(&dir);
        // The first task ends before the blocker, so the tasks behind the blocker have been sent when its output comes.
        let mut tasks = [plain(0), blocker(&rendezvous)]
            .into_iter()
            .chain((0..100).map(&task));
        thread::scope(|scope| {
            let tasks = &mut tasks;
            let pool = &pool;
            let mut map: Box<dyn Iterator<Item = _>> = match unordered {
                true => Box::new(pool.map_unordered(tasks)),
                false => Box::new(pool.map(tasks)),
            };
            assert_eq!(map.next().expect("an output").expect("the task succeeds"), 0);
            let waiting = scope.spawn(|| rendezvous.accept());
            // A submission makes the pool dispatch to all of its workers.
            let other = pool.submit(plain(7));
            let waiting = waiting.join().expect("no thread panics");
            drop(map);
            release(waiting);
            assert_eq!(other.wait().expect("the task succeeds"), 7);
        });
        drop(tasks);
        let stats = end(pool);
        assert_eq!(dir.entries(), Vec::<std::path::PathBuf>::new(), "{stats:?}");
        assert!(stats.failed > 0 && stats.deaths == 0, "{stats:?}");
    }
}

#[cfg(feature = "stream")]
#[test]
fn dropped_stream_withdraws_its_tasks_from_a_worker() {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use futures_core::Stream;
    use proc_pool::OutputStream;

    let _watchdog = watchdog(60);
    let (rendezvous, dir) = (Rendezvous::new(), TempDir::new());
    let pool = pool_with_a_wide_window();
    let task = marked(&dir);
    let tasks = std::iter::once(blocker(&rendezvous)).chain((0..100).map(&task));
    let mut outputs = OutputStream::as_completed(tasks.map(|task| pool.submit(task)), 101);
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(
        Pin::new(&mut outputs).poll_next(&mut context),
        Poll::Pending
    ));
    let waiting = rendezvous.accept();
    drop(outputs);
    release(waiting);
    assert_eq!(pool.submit(plain(7)).wait().expect("the task succeeds"), 7);
    let stats = end(pool);
    assert_eq!(dir.entries(), Vec::<std::path::PathBuf>::new());
    assert_eq!((stats.failed, stats.deaths), (100, 0));
}

#[test]
fn withdrawn_task_leaves_the_queue_before_its_turn() {
    let _watchdog = watchdog(60);
    let rendezvous = Rendezvous::new();
    let pool = pool_with_a_wide_window();
    let blocked = pool.submit(blocker(&rendezvous));
    let waiting = rendezvous.accept();
    let handles: Vec<_> = (0..10_000).map(|n| pool.submit(plain(n))).collect();
    drop(handles);
    let snapshot = pool.snapshot();
    assert!(snapshot.backlog < 100, "{snapshot}");
    release(waiting);
    assert_eq!(blocked.wait().expect("the task succeeds"), 1_000_000);
    assert_eq!(end(pool).failed, 10_000);
}
