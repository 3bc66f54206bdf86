//! Workers that are another program than their leader.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use proc_pool::{Builder, Cause, Fault, Pod, PodVec, Pool, PoolError, Workers};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::support::{Alone, Dir, has_children, is_alone, kill, test_name, watchdog};

const PROGRAM: &str = env!("CARGO_BIN_EXE_proc-pool-test-worker");

fn pool<T, R, I>(program: impl AsRef<Path>, name: &str, init: &I) -> Result<Pool<T, R>, PoolError>
where
    T: Serialize + DeserializeOwned,
    R: Serialize + DeserializeOwned,
    I: Serialize,
{
    let builder = Builder::new().workers(Workers::Count(2));
    builder.build_named(program, name, init)
}

fn one<T, R>(pool: &Pool<T, R>, task: T) -> R {
    pool.map([task]).next().expect("one").expect("no task fails")
}

fn reason<T, R>(pool: Result<Pool<T, R>, PoolError>) -> String {
    match pool {
        Err(PoolError::Start { reason, .. }) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ops_by_name() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let square = pool::<u64, u64, _>(PROGRAM, "square", &()).expect("it starts");
    for (n, square) in (0..1000).zip(square.map(0..1000)) {
        assert_eq!(square.expect("no task fails"), n * n);
    }
    let add = pool::<u64, u64, _>(PROGRAM, "add", &100u64).expect("it starts");
    assert_eq!(one(&add, 1), 101);
    let builder = Builder::new().workers(Workers::Count(1));
    let reverse = builder
        .build_named_bytes(PROGRAM, "reverse", vec![])
        .expect("it starts");
    let large: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    let reversed = reverse.map([&large]).next().expect("one").expect("no task fails");
    assert!(reversed.iter().eq(large.iter().rev()));
    let builder = Builder::new().workers(Workers::Count(1));
    let sum = builder.build_named_with_codecs(PROGRAM, "sum", &(), PodVec, Pod);
    let sum: Pool<Vec<f32>, f32> = sum.expect("it starts");
    assert_eq!(one(&sum, vec![0.5, 1.5]), 2.0);
    let builder = Builder::new().workers(Workers::Count(1));
    let count = builder.build_named::<(), u64, _>(PROGRAM, "count", &5u64);
    let count = count.expect("it starts");
    assert_eq!((one(&count, ()), one(&count, ())), (5, 6));
    drop((square, add, reverse, sum, count));
    assert!(!has_children());
}

/// They are replaced like any other.
#[test]
fn their_deaths() {
    let _watchdog = watchdog(60);
    let pool = pool::<i32, (), _>(PROGRAM, "exit", &()).expect("it starts");
    for code in 1..4 {
        let error = pool.map([code]).next().expect("one").expect_err("it exits");
        let Fault::WorkerDied { cause, .. } = error.fault else {
            panic!("{error}")
        };
        assert_eq!(cause, Cause::Exited { code });
    }
    for (_, pid) in pool.bytes().pids() {
        kill(pid);
    }
    assert!(pool.map([7]).next().expect("one").is_err());
}

/// A worker program may have pools itself, of its own ops without a name.
#[test]
fn a_pool_within() {
    let _watchdog = watchdog(60);
    let pool = pool::<u64, Result<u64, String>, _>(PROGRAM, "nested", &()).expect("it starts");
    assert_eq!(one(&pool, 41), Ok(42));
}

#[test]
fn reasons_are_told() {
    let _watchdog = watchdog(60);
    let unknown = reason(pool::<u64, u64, _>(PROGRAM, "cube", &()));
    assert!(
        unknown.contains("no op \"cube\"; it has \"square\", \"exit\""),
        "{unknown}"
    );
    let other = reason(pool::<u32, u64, _>(PROGRAM, "square", &()));
    assert!(
        other.contains("its task is u64 for the worker and u32 for the leader"),
        "{other}"
    );
    let init = reason(pool::<u64, u64, _>(PROGRAM, "add", &()));
    assert!(
        init.contains("its initial value is u64") && !init.contains("task"),
        "{init}"
    );
    let codec = reason(pool::<Vec<f32>, f32, _>(PROGRAM, "sum", &()));
    assert!(
        codec.contains("its outputs' codec is proc_pool::codec::Pod "),
        "{codec}"
    );
    let start = reason(pool::<u64, u64, _>(PROGRAM, "add", &0u64));
    assert!(start.contains("failed to start: nothing to add"), "{start}");
    // This test binary has called `init`.
    let own = std::env::current_exe().expect("it has a path");
    let own = reason(pool::<u64, u64, _>(own, "square", &()));
    assert!(own.contains("called `init`"), "{own}");
}

/// The mode is Unix's.
fn write(dir: &Dir, name: &str, text: &str, #[cfg_attr(windows, expect(unused))] mode: u32) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("it can be written");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(&path, permissions).expect("it is ours");
    }
    path
}

#[test]
fn programs_that_are_none() {
    let _watchdog = watchdog(60);
    let dir = Dir::new();
    for path in [
        dir.path().join("missing"),
        dir.path().to_owned(),
        write(&dir, "text", "no program", 0o600),
        write(&dir, "marked", "no program", 0o700),
        write(&dir, "script", "#!/no/such/interpreter\n", 0o700),
    ] {
        // A second attempt would take that long.
        let began = std::time::Instant::now();
        match pool::<u64, u64, _>(&path, "square", &()) {
            Err(PoolError::Program { path: named, .. }) => assert_eq!(named, path),
            other => panic!("{path:?}: {other:?}"),
        }
        assert!(began.elapsed() < Duration::from_secs(30));
    }
    // One that can be executed and knows nothing of pools.
    #[cfg(unix)]
    {
        let reason = reason(pool::<u64, u64, _>("/bin/true", "square", &()));
        assert!(reason.contains("exited with status 0"), "{reason}");
    }
}

/// A path is relative to the leader's directory, whatever the workers'.
#[test]
fn relative_paths() {
    if !is_alone() {
        return Alone::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let program = Path::new(PROGRAM);
    let directory = program.parent().expect("it is in one");
    std::env::set_current_dir(directory).expect("it exists");
    let builder = Builder::new().workers(Workers::Count(1)).current_dir("/");
    let name = program.file_name().expect("it has a name");
    let pool = builder.build_named::<u64, u64, _>(name, "square", &());
    assert_eq!(one(&pool.expect("it starts"), 3), 9);
}

#[test]
fn run_by_hand() {
    let _watchdog = watchdog(120);
    let output = Command::new(PROGRAM)
        .stdin(Stdio::null())
        .output()
        .expect("it can be started");
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(output.stdout, b"");
    let said = String::from_utf8(output.stderr).expect("it is text");
    for part in ["a worker program", "build_named", "\"square\", \"exit\""] {
        assert!(said.contains(part), "{said}");
    }
}
