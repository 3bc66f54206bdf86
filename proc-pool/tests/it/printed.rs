//! What workers print: captured line by line, also that of workers that die, and never in anybody's way.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proc_pool::{Builder, Cause, Fault, Observer, Redirect, Stream, WorkerId, Workers};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::support::{Alone, hang, has_children, is_alone, open_files, test_name, threads, watchdog};

type Lines = Vec<(Stream, String)>;

/// Collects lines by process.
#[derive(Default)]
struct Listener {
    live: Mutex<HashMap<WorkerId, Lines>>,
    ended: Mutex<Vec<(Cause, Lines)>>,
}

impl Listener {
    fn ended(&self) -> Vec<(Cause, Lines)> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Listener {
    fn started(&self, worker: WorkerId, _: Consumer, _: Slots) {
        let before = self.live.lock().unwrap().insert(worker, Vec::new());
        assert!(before.is_none(), "the one before has ended");
    }

    fn ended(&self, worker: WorkerId, cause: &Cause) -> Vec<String> {
        let lines = self.live.lock().unwrap().remove(&worker).expect("it was started");
        self.ended.lock().unwrap().push((cause.clone(), lines));
        vec!["a log".to_owned()]
    }

    fn printed(&self, worker: WorkerId, stream: Stream, line: &str) {
        let mut live = self.live.lock().unwrap();
        let lines = live.get_mut(&worker).expect("it is started, and has not ended");
        lines.push((stream, line.to_owned()));
    }
}

fn captured(listener: &Arc<Listener>) -> Builder {
    Builder::new()
        .workers(Workers::Count(1))
        .stdout(Redirect::Capture)
        .stderr(Redirect::Capture)
        .observer(listener.clone())
}

/// Prints, and at 13 dies in the middle of a line.
fn talk(task: u64) -> u64 {
    println!("out {task}");
    eprintln!("err {task}");
    if task == 13 {
        print!("half");
        std::io::stdout().flush().expect("somebody reads");
        crate::crash::Crash::KillSelf.suffer("");
    }
    task
}

#[test]
fn every_line_comes_and_the_last_with_the_error() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let (files, before) = (open_files(), threads());
    let listener = Arc::new(Listener::default());
    let pool = captured(&listener).build_op(talk).expect("it starts");
    let results: Vec<_> = pool.map(0..30).collect();
    for (task, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), task == 13);
    }
    let Fault::WorkerDied {
        last_logs,
        last_printed,
        ..
    } = &results[13].as_ref().expect_err("it died").fault
    else {
        panic!("{results:?}")
    };
    assert_eq!(*last_logs, ["a log"]);
    let (of_stdout, of_stderr) = last_printed.split_at(15);
    assert_eq!(of_stdout.last().map(String::as_str), Some("half"));
    assert_eq!(of_stdout[0], "out 0");
    assert_eq!((&*of_stderr[0], of_stderr.len()), ("err 0", 14));
    pool.shutdown(Duration::from_secs(20)).expect("it did not fail");
    let ended = listener.ended();
    let of = |stream: Stream| -> Vec<&str> {
        let lines = ended.iter().flat_map(|(_, lines)| lines);
        let lines = lines.filter(|line| line.0 == stream);
        lines.map(|line| &*line.1).collect()
    };
    let mut expected: Vec<String> = (0..30).map(|n| format!("out {n}")).collect();
    expected.insert(14, "half".to_owned());
    assert_eq!(of(Stream::Stdout), expected);
    let expected: Vec<String> = (0..30).map(|n| format!("err {n}")).collect();
    assert_eq!(of(Stream::Stderr), expected);
    assert_eq!(ended.len(), 2);
    // The watchdog's thread came before.
    assert!(!has_children());
    assert_eq!((open_files(), threads()), (files, before));
}

/// More than pipe and leader hold, in lines and in one.
#[test]
fn floods() {
    let _watchdog = watchdog(100);
    let listener = Arc::new(Listener::default());
    let pool = captured(&listener).build_op(|lines: usize| {
        for line in 0..lines {
            println!("{line} {}", "x".repeat(100));
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&vec![b'y'; 10 << 20]).expect("somebody reads");
        stdout.write_all(b"\nend\n").expect("somebody reads");
        lines
    });
    let pool = pool.expect("it starts");
    assert_eq!(pool.map([50_000]).filter(Result::is_ok).count(), 1);
    pool.shutdown(Duration::from_secs(20)).expect("it did not fail");
    let (_, lines) = listener.ended().pop().expect("one worker");
    assert_eq!(lines.len(), 50_002);
    for (index, (_, line)) in lines[..50_000].iter().enumerate() {
        assert!(line.starts_with(&format!("{index} x")) && line.len() > 100);
    }
    let cut = (10 << 20) - (16 << 10);
    assert!(lines[50_000].1.ends_with(&format!("y… ({cut} bytes more)")));
    assert_eq!(lines[50_001].1, "end");
}

/// An observer that never comes back has the lines, not the pool.
#[test]
fn an_observer_that_hangs() {
    struct Stuck;
    impl Observer for Stuck {
        fn started(&self, _: WorkerId, _: Consumer, _: Slots) {}
        fn ended(&self, _: WorkerId, _: &Cause) -> Vec<String> {
            Vec::new()
        }
        fn printed(&self, _: WorkerId, _: Stream, _: &str) {
            hang()
        }
    }
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let builder = captured(&Arc::default()).observer(Arc::new(Stuck));
    let pool = builder.build_op(talk).expect("it starts");
    assert_eq!(pool.map(0..30).filter(Result::is_ok).count(), 29);
    drop(pool);
    assert!(!has_children());
}

/// With programs and files of Linux's.
#[cfg(target_os = "linux")]
mod linux {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use proc_pool::{Builder, Cause, Fault, PoolError, Redirect, Stream, Workers};

    use super::{Listener, captured};
    use crate::support::{Alone, Dir, is_alone, open_files, test_name, threads, try_kill, watchdog};

    /// The pipe of a worker that has ended is held open by a child of its own.
    #[test]
    fn a_child_that_holds_the_pipe() {
        if !is_alone() {
            return Alone::new(&test_name!()).run();
        }
        let _watchdog = watchdog(60);
        let (files, before) = (open_files(), threads());
        let listener = Arc::new(Listener::default());
        let pool = captured(&listener).build_op(|(): ()| -> () {
            let mut child = Command::new("sleep");
            let child = child.arg("1000").stdin(Stdio::null()).spawn();
            println!("{}", child.expect("it starts").id());
            std::process::exit(3)
        });
        let pool = pool.expect("it starts");
        let error = pool.map([()]).next().expect("one").expect_err("it exits");
        let Fault::WorkerDied { last_printed, .. } = error.fault else {
            panic!("{error}")
        };
        let child = last_printed[0].parse().expect("a pid");
        drop(pool);
        assert_eq!((open_files(), threads()), (files, before));
        assert!(try_kill(child), "it lived longer than the pool");
    }

    /// Where a stream of this process leads to.
    fn target(fd: u32) -> String {
        let target = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        target.expect("it is open").display().to_string()
    }

    #[test]
    fn nowhere_or_where_the_leader_prints() {
        let _watchdog = watchdog(60);
        let builder = Builder::new().workers(Workers::Count(1));
        let targets = |builder: Builder| {
            let pool = builder
                .build_op(|(): ()| (target(1), target(2)))
                .expect("it starts");
            pool.map([()]).next().expect("one").expect("no task fails")
        };
        assert_eq!(targets(builder.clone()), (target(1), target(2)));
        let null = "/dev/null".to_owned();
        assert_eq!(
            targets(builder.clone().stdout(Redirect::Null)),
            (null.clone(), target(2))
        );
        assert_eq!(targets(builder.stderr(Redirect::Null)), (target(1), null));
    }

    /// What keeps a program from starting is often told on its standard error only.
    #[test]
    fn last_words_of_who_never_started() {
        let _watchdog = watchdog(60);
        let dir = Dir::new();
        let path = dir.path().join("program");
        std::fs::write(&path, "#!/bin/sh\necho no such library >&2\nexit 127\n").expect("it can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).expect("it is ours");
        let listener = Arc::new(Listener::default());
        let pool = captured(&listener).build_named::<u64, u64, _>(&path, "square", &());
        assert!(matches!(pool, Err(PoolError::Start { .. })), "{pool:?}");
        let ended = listener.ended();
        assert_eq!(ended.len(), 3);
        for (cause, lines) in ended {
            assert_eq!(cause, Cause::Exited { code: 127 });
            assert_eq!(lines, [(Stream::Stderr, "no such library".to_owned())]);
        }
    }
}
