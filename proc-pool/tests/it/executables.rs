//! Executables that are replaced, removed or touched while a pool runs them.

use proc_pool::EntryPoint;
use std::fs::File;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::support::{
    IsolatedTest, TempDir, builder, is_isolated, kill_workers, pool, run_one, test_name, watchdog,
};

const PROGRAM: &str = env!("CARGO_BIN_EXE_proc-pool-test-worker");
/// The variable with the change that the test makes to its copy of this program.
const CHANGE: &str = "IT_CHANGE";

fn this_program() -> PathBuf {
    std::env::current_exe().expect("this program has a path")
}

/// Runs the test again from a copy of this program. The test changes that copy.
fn run_from_a_copy(test: &str, change: &str) {
    let dir = TempDir::new();
    let program = dir.path().join("it");
    std::fs::copy(this_program(), &program).expect("the program can be copied");
    IsolatedTest::with_program(test, &program)
        .env(CHANGE, change)
        .run();
}

/// Builds a pool, calls `change`, and checks that replacements and later pools start from the same executable.
fn workers_start_after(change: impl FnOnce()) {
    let first = pool(2, |n: u64| n);
    change();
    kill_workers(&first);
    assert_eq!(first.map(0..10).filter(Result::is_ok).count(), 10);
    drop(first);
    let another = pool(1, |n: u64| n + 1);
    assert_eq!(run_one(&another, 1), 2);
}

/// The path of the executable leads to nothing, or to another file.
#[test]
fn workers_start_from_an_executable_that_was_replaced_or_removed() {
    if !is_isolated() {
        for change in ["removed", "replaced"] {
            run_from_a_copy(&test_name!(), change);
        }
        return;
    }
    let _watchdog = watchdog(60);
    let program = this_program();
    workers_start_after(|| {
        std::fs::remove_file(&program).expect("the file can be removed");
        if std::env::var(CHANGE).as_deref() == Ok("replaced") {
            std::fs::write(&program, "#!/bin/false\n").expect("the file can be written");
        }
    });
}

/// A backup, a container's build or `touch` changes a file's times, but not its contents.
#[test]
fn workers_start_from_an_executable_that_was_touched() {
    if !is_isolated() {
        return run_from_a_copy(&test_name!(), "touched");
    }
    let _watchdog = watchdog(60);
    let file = File::open(this_program()).expect("the program can be opened");
    for time in [SystemTime::UNIX_EPOCH, SystemTime::now()] {
        workers_start_after(|| file.set_modified(time).expect("the times can be changed"));
    }
}

/// The worker program and the working directory are opened once: replacements of workers use them, whatever their paths
/// lead to later.
#[test]
fn replacements_use_the_program_and_directory_found_at_first() {
    if !is_isolated() {
        return IsolatedTest::new(&test_name!()).run();
    }
    let _watchdog = watchdog(60);
    let dir = TempDir::new();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("data")).expect("the directory can be created");
    std::fs::copy(PROGRAM, at("worker")).expect("the program can be copied");
    std::env::set_current_dir(dir.path()).expect("the directory exists");
    let builder = || builder(1).current_dir("data");
    let program = builder()
        .build(EntryPoint::named::<_, u64, u64>("worker", "square"), &())
        .expect("the pool starts");
    let own = builder()
        .build_op(|(): ()| std::fs::read_to_string("here").ok())
        .expect("the pool starts");
    std::fs::write(at("data/here"), "found").expect("the file can be written");
    std::fs::rename(at("data"), at("moved")).expect("the directory can be renamed");
    std::fs::create_dir(at("data")).expect("the directory can be created");
    std::fs::remove_file(at("worker")).expect("the file can be removed");
    std::fs::write(at("worker"), "no program").expect("the file can be written");
    std::env::set_current_dir("/").expect("the directory exists");
    for _ in 0..3 {
        assert_eq!(run_one(&program, 3), 9);
        let here = run_one(&own, ());
        assert_eq!(here.as_deref(), Some("found"));
        kill_workers(&program);
        kill_workers(&own);
    }
}
