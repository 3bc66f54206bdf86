//! Captured output of workers: every line reaches the observer, also the last lines of workers that die, and a slow
//! observer delays neither the pool nor its workers.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proc_pool::{Builder, ExitCause, Fault, Observer, Redirect, Stream, WorkerId};
use shm_buffers::ring::Consumer;
use shm_buffers::slots::Slots;

use crate::support::{
    Crash, IsolatedTest, builder, hang, has_children, is_isolated, open_files, test_name, threads, watchdog,
};

type Lines = Vec<(Stream, String)>;

/// Collects the lines of each process.
#[derive(Default)]
struct Listener {
    live: Mutex<HashMap<WorkerId, Lines>>,
    ended: Mutex<Vec<(ExitCause, Lines)>>,
}

impl Listener {
    fn ended(&self) -> Vec<(ExitCause, Lines)> {
        std::mem::take(&mut *self.ended.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Observer for Listener {
    fn started(&self, worker: WorkerId, _: Consumer, _: Slots) {
        let before = self.live.lock().unwrap().insert(worker, Vec::new());
        assert!(before.is_none(), "its predecessor has ended");
    }

    fn ended(&self, worker: WorkerId, cause: &ExitCause) -> Vec<String> {
        let lines = self
            .live
            .lock()
            .unwrap()
            .remove(&worker)
            .expect("the worker was started");
        self.ended.lock().unwrap().push((cause.clone(), lines));
        vec!["a log".to_owned()]
    }

    fn printed(&self, worker: WorkerId, stream: Stream, line: &str) {
        let mut live = self.live.lock().unwrap();
        let lines = live.get_mut(&worker).expect("the worker runs");
        lines.push((stream, line.to_owned()));
    }
}

fn captured(listener: &Arc<Listener>) -> Builder {
    builder(1)
        .stdout(Redirect::Capture)
        .stderr(Redirect::Capture)
        .observer(listener.clone())
}

/// Prints; task 13 dies in the middle of a line.
fn print(task: u64) -> u64 {
    println!("out {task}");
    eprintln!("err {task}");
    if task == 13 {
        print!("half");
        std::io::stdout().flush().expect("stdout is open");
        Crash::KillSelf.run("");
    }
    task
}

#[test]
fn every_line_reaches_the_observer_and_the_last_lines_are_in_the_error() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let (files, before) = (open_files(), threads());
    let listener = Arc::new(Listener::default());
    let pool = captured(&listener).build_op(print).expect("the pool starts");
    let results: Vec<_> = pool.map(0..30).collect();
    for (task, result) in results.iter().enumerate() {
        assert_eq!(result.is_err(), task == 13);
    }
    let Fault::WorkerDied {
        last_logs,
        last_printed,
        ..
    } = &results[13].as_ref().expect_err("the worker died").fault
    else {
        panic!("{results:?}")
    };
    assert_eq!(*last_logs, ["a log"]);
    let (of_stdout, of_stderr) = last_printed.split_at(15);
    assert_eq!(of_stdout.last().map(String::as_str), Some("half"));
    assert_eq!(of_stdout[0], "out 0");
    assert_eq!((&*of_stderr[0], of_stderr.len()), ("err 0", 14));
    pool.shutdown(Duration::from_secs(20)).expect("the pool works");
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
    // Counted with the watchdog's thread.
    assert!(!has_children());
    assert_eq!((open_files(), threads()), (files, before));
}

/// The output is larger than the pipe and the leader's buffer: many lines, and one long line.
#[test]
fn large_outputs_are_captured() {
    let _watchdog = watchdog(100);
    let listener = Arc::new(Listener::default());
    let pool = captured(&listener).build_op(|lines: usize| {
        for line in 0..lines {
            println!("{line} {}", "x".repeat(100));
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&vec![b'y'; 10 << 20]).expect("stdout is open");
        stdout.write_all(b"\nend\n").expect("stdout is open");
        lines
    });
    let pool = pool.expect("the pool starts");
    assert_eq!(pool.map([50_000]).filter(Result::is_ok).count(), 1);
    pool.shutdown(Duration::from_secs(20)).expect("the pool works");
    let (_, lines) = listener.ended().pop().expect("one worker has ended");
    assert_eq!(lines.len(), 50_002);
    for (index, (_, line)) in lines[..50_000].iter().enumerate() {
        assert!(line.starts_with(&format!("{index} x")) && line.len() > 100);
    }
    let cut = (10 << 20) - (16 << 10);
    assert!(lines[50_000].1.ends_with(&format!("y… ({cut} bytes more)")));
    assert_eq!(lines[50_001].1, "end");
}

#[test]
fn hanging_observer_does_not_block_the_pool() {
    struct Hanging;
    impl Observer for Hanging {
        fn started(&self, _: WorkerId, _: Consumer, _: Slots) {}
        fn ended(&self, _: WorkerId, _: &ExitCause) -> Vec<String> {
            Vec::new()
        }
        fn printed(&self, _: WorkerId, _: Stream, _: &str) {
            hang()
        }
    }
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let builder = captured(&Arc::default()).observer(Arc::new(Hanging));
    let pool = builder.build_op(print).expect("the pool starts");
    assert_eq!(pool.map(0..30).filter(Result::is_ok).count(), 29);
    drop(pool);
    assert!(!has_children());
}

/// Tests with programs and files of Linux.
#[cfg(target_os = "linux")]
mod linux {
    use std::os::unix::fs::PermissionsExt;
    use std::process::{Command, Stdio};
    use std::sync::Arc;

    use proc_pool::{Builder, EntryPoint, ExitCause, Fault, PoolError, Redirect, Stream};

    use super::{Listener, captured};
    use crate::support::{
        IsolatedTest, TempDir, builder, is_isolated, open_files, run_one, test_name, threads, try_kill,
        watchdog,
    };

    /// A child of an ended worker keeps the worker's pipe open.
    #[test]
    fn pipe_that_a_child_keeps_open_does_not_block_the_pool() {
        if !is_isolated() {
            return IsolatedTest::new(&test_name!()).run();
        }
        let _watchdog = watchdog(60);
        let (files, before) = (open_files(), threads());
        let listener = Arc::new(Listener::default());
        let pool = captured(&listener).build_op(|(): ()| -> () {
            let mut child = Command::new("sleep");
            let child = child.arg("1000").stdin(Stdio::null()).spawn();
            println!("{}", child.expect("the program can be started").id());
            std::process::exit(3)
        });
        let pool = pool.expect("the pool starts");
        let error = pool
            .map([()])
            .next()
            .expect("one output")
            .expect_err("the worker exits");
        let Fault::WorkerDied { last_printed, .. } = error.fault else {
            panic!("{error}")
        };
        let child = last_printed[0].parse().expect("the line is a pid");
        drop(pool);
        assert_eq!((open_files(), threads()), (files, before));
        assert!(try_kill(child), "the child outlives the pool");
    }

    /// Returns the file to which a stream of this process leads.
    fn target(fd: u32) -> String {
        let target = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        target.expect("the stream is open").display().to_string()
    }

    #[test]
    fn streams_are_inherited_or_discarded_as_configured() {
        let _watchdog = watchdog(60);
        let builder = builder(1);
        let targets = |builder: Builder| {
            let pool = builder
                .build_op(|(): ()| (target(1), target(2)))
                .expect("the pool starts");
            run_one(&pool, ())
        };
        assert_eq!(targets(builder.clone()), (target(1), target(2)));
        let null = "/dev/null".to_owned();
        assert_eq!(
            targets(builder.clone().stdout(Redirect::Null)),
            (null.clone(), target(2))
        );
        assert_eq!(targets(builder.stderr(Redirect::Null)), (target(1), null));
    }

    /// Often only standard error says why a program cannot start.
    #[test]
    fn output_of_a_process_that_never_became_a_worker_is_captured() {
        let _watchdog = watchdog(60);
        let dir = TempDir::new();
        let path = dir.path().join("program");
        std::fs::write(&path, "#!/bin/sh\necho no such library >&2\nexit 127\n")
            .expect("the file can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))
            .expect("the mode can be changed");
        let listener = Arc::new(Listener::default());
        let pool = captured(&listener).build(EntryPoint::named::<_, u64, u64>(&path, "square"), &());
        assert!(matches!(pool, Err(PoolError::NotAWorker { .. })), "{pool:?}");
        let ended = listener.ended();
        assert_eq!(ended.len(), 1);
        for (cause, lines) in ended {
            assert_eq!(cause, ExitCause::Exited { code: 127 });
            assert_eq!(lines, [(Stream::Stderr, "no such library".to_owned())]);
        }
    }
}
