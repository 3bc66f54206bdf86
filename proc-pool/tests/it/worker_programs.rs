//! Workers that run another program than their leader, and call its ops by name.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
#[cfg(unix)]
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use std::time::Duration;

#[cfg(unix)]
use proc_pool::KillReason;
use proc_pool::{EntryPoint, ExitCause, Fault, Pod, PodVec, Pool, PoolError};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{
    IsolatedTest, TempDir, builder, has_children, is_isolated, kill_workers, run_one, test_name, watchdog,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_proc-pool-test-worker");

/// Builds a pool of two workers that run the op `name` of `program`.
fn pool<T, R, I>(program: impl AsRef<Path>, name: &str, init: &I) -> Result<Pool<T, R>, PoolError>
where
    T: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
    I: Serialize,
{
    builder(2).build(EntryPoint::named(program.as_ref(), name), init)
}

/// Returns why the workers did not start, and would not at another attempt.
fn refusal<T, R>(pool: Result<Pool<T, R>, PoolError>) -> String {
    match pool {
        Err(PoolError::Refused { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ops_are_called_by_name() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let square = pool::<u64, u64, _>(PROGRAM, "square", &()).expect("the pool starts");
    for (n, square) in (0..1000).zip(square.map(0..1000)) {
        assert_eq!(square.expect("no task fails"), n * n);
    }
    let add = pool::<u64, u64, _>(PROGRAM, "add", &100u64).expect("the pool starts");
    assert_eq!(run_one(&add, 1), 101);
    let reverse = builder(1)
        .build(EntryPoint::named_service(PROGRAM, "reverse"), &[])
        .expect("the pool starts");
    let large: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let reversed = reverse
        .map([&large])
        .next()
        .expect("one output")
        .expect("the task succeeds");
    assert!(reversed.iter().eq(large.iter().rev()));
    let sum = builder(1).build(EntryPoint::named(PROGRAM, "sum").codecs(PodVec, Pod), &());
    let sum: Pool<Vec<f32>, f32> = sum.expect("the pool starts");
    assert_eq!(run_one(&sum, vec![0.5, 1.5]), 2.0);
    let count = builder(1).build(EntryPoint::named::<_, (), u64>(PROGRAM, "count"), &5u64);
    let count = count.expect("the pool starts");
    assert_eq!((run_one(&count, ()), run_one(&count, ())), (5, 6));
    drop((square, add, reverse, sum, count));
    assert!(!has_children());
}

#[cfg(unix)]
#[test]
fn worker_programs_get_their_arguments() {
    let _watchdog = watchdog(60);
    let script = r#"test "$1 $2" = "two arguments" && exec "$0""#;
    let args = ["-c", script, PROGRAM, "two"];
    let shell = || EntryPoint::named("/bin/sh", "square").args(args);
    let square: Pool<u64, u64> = builder(1)
        .build(shell().args(["arguments"]), &())
        .expect("the pool starts");
    assert_eq!(run_one(&square, 7), 49);
    let refused = builder(1).build::<_>(shell(), &()).map(|_: Pool<u64, u64>| ());
    assert!(
        matches!(refused, Err(PoolError::NotAWorker { .. })),
        "{refused:?}"
    );
    let reverse = EntryPoint::named_service("/bin/sh", "reverse")
        .args(args)
        .args(["arguments"]);
    let reverse = builder(1).build(reverse, &[]).expect("the pool starts");
    assert_eq!(*reverse.submit(b"abc").wait().expect("it succeeds"), *b"cba");
}

#[test]
fn worker_programs_are_replaced() {
    let _watchdog = watchdog(60);
    let pool = pool::<i32, (), _>(PROGRAM, "exit", &()).expect("the pool starts");
    for code in 1..4 {
        let error = pool
            .map([code])
            .next()
            .expect("one output")
            .expect_err("the worker exits");
        let Fault::WorkerDied { cause, .. } = error.fault else {
            panic!("{error}")
        };
        assert_eq!(cause, ExitCause::Exited { code });
    }
    kill_workers(&pool);
    assert!(pool.map([7]).next().expect("one output").is_err());
}

/// The inner pool runs an op of the worker program that has no name.
#[test]
fn worker_program_can_have_a_pool() {
    let _watchdog = watchdog(60);
    let pool = pool::<u64, Result<u64, String>, _>(PROGRAM, "nested", &()).expect("the pool starts");
    assert_eq!(run_one(&pool, 41), Ok(42));
}

#[test]
fn error_says_what_leader_and_worker_disagree_on() {
    let _watchdog = watchdog(60);
    let unknown = refusal(pool::<u64, u64, _>(PROGRAM, "cube", &()));
    assert!(
        unknown.contains("no op \"cube\"; it has \"square\", \"exit\""),
        "{unknown}"
    );
    let other = refusal(pool::<u32, u64, _>(PROGRAM, "square", &()));
    assert!(
        other.contains("its task is u64 for the worker and u32 for the leader"),
        "{other}"
    );
    let init = refusal(pool::<u64, u64, _>(PROGRAM, "add", &()));
    assert!(
        init.contains("its initial value is u64") && !init.contains("task"),
        "{init}"
    );
    let codec = refusal(pool::<Vec<f32>, f32, _>(PROGRAM, "sum", &()));
    assert!(
        codec.contains("its outputs' codec is proc_pool::wire::codec::Pod "),
        "{codec}"
    );
    // An error of the worker's code may pass.
    match pool::<u64, u64, _>(PROGRAM, "add", &0u64) {
        Err(PoolError::Start {
            attempts: 3, reason, ..
        }) => assert!(reason.contains("failed to start: nothing to add"), "{reason}"),
        other => panic!("{other:?}"),
    }
    // This test binary has called `init`.
    let own = std::env::current_exe().expect("this program has a path");
    let own = refusal(pool::<u64, u64, _>(own, "square", &()));
    assert!(own.contains("called `init`"), "{own}");
}

/// Creates a file. Only Unix has the mode.
fn write(dir: &TempDir, name: &str, text: &str, #[cfg_attr(windows, expect(unused))] mode: u32) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("the file can be written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, permissions).expect("the mode can be changed");
    }
    path
}

#[test]
fn files_that_are_no_programs_are_refused() {
    let _watchdog = watchdog(60);
    let dir = TempDir::new();
    for path in [
        dir.path().join("missing"),
        dir.path().to_owned(),
        write(&dir, "text", "no program", 0o600),
        write(&dir, "marked", "no program", 0o700),
        write(&dir, "script", "#!/no/such/interpreter\n", 0o700),
    ] {
        // More than one attempt would take that long.
        let began = std::time::Instant::now();
        match pool::<u64, u64, _>(&path, "square", &()) {
            Err(PoolError::Program { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{path:?}: {other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(30));
    }
}

/// Such a program can be executed; one ends without a word, the others go on.
#[cfg(unix)]
#[test]
fn program_that_is_no_worker_program_is_reported_at_once_with_the_remedy() {
    let _watchdog = watchdog(60);
    let dir = TempDir::new();
    let sleeps = write(&dir, "sleeps", "#!/bin/sh\nexec sleep 1000\n", 0o700);
    let exited = |code| ExitCause::Exited { code };
    let late = ExitCause::Killed {
        reason: KillReason::StartTimeout,
    };
    for (program, expected) in [
        (Path::new("/bin/true"), exited(0)),
        (Path::new("/bin/false"), exited(1)),
        (&sleeps, late),
    ] {
        let starts = Arc::new(AtomicU32::new(0));
        let counted = starts.clone();
        let pool = builder(1)
            .start_timeout(Duration::from_secs(1))
            .worker_env(move |_| {
                counted.fetch_add(1, Ordering::Relaxed);
                None::<(String, String)>
            })
            .build(EntryPoint::named::<(), u64, u64>(program, "square"), &());
        let error = pool.map(drop).expect_err("it is no worker program");
        let text = error.to_string();
        match error {
            PoolError::NotAWorker {
                program: named,
                cause,
            } => {
                assert_eq!((&*named, cause), (program, expected));
            }
            other => panic!("{other}"),
        }
        assert!(text.contains(&*program.to_string_lossy()), "{text}");
        assert!(
            text.contains("`main` must first call `Registry::serve`"),
            "{text}"
        );
        assert_eq!(starts.load(Ordering::Relaxed), 1, "{text}");
    }
}

#[test]
fn path_of_the_program_is_relative_to_the_leaders_directory() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let program = Path::new(PROGRAM);
    let directory = program.parent().expect("the program is in a directory");
    std::env::set_current_dir(directory).expect("the directory exists");
    let builder = builder(1).current_dir("/");
    let name = program.file_name().expect("the program has a name");
    let pool = builder.build(EntryPoint::named::<_, u64, u64>(name, "square"), &());
    assert_eq!(run_one(&pool.expect("the pool starts"), 3), 9);
}

#[test]
fn worker_program_run_by_hand_explains_itself() {
    let _watchdog = watchdog(120);
    let output = Command::new(PROGRAM)
        .stdin(Stdio::null())
        .output()
        .expect("the program can be started");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"");
    let printed = String::from_utf8(output.stderr).expect("the output is UTF-8");
    for part in ["a worker program", "EntryPoint::named", "\"square\", \"exit\""] {
        assert!(printed.contains(part), "{printed}");
    }
}
