//! Limits of the system: jobs that fit run, and others fail with an error that names the limit and the numbers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use invoker::{Backing, Buffer, Executor, Invoker, Processes};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const MODEL: usize = 250 << 20;
const WORD: u64 = 0x5A5A_5A5A_5A5A_5A5A;

/// A memory cgroup with a limit; removed when dropped.
struct Group(PathBuf);

impl Group {
    fn with_limit(bytes: usize) -> Result<Self, String> {
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (tree, file) = match v1.is_dir() {
            true => (v1, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let group = tree.join(format!("invoker-test-{}", std::process::id()));
        let failed = |e| format!("cannot create a cgroup with a limit in {}: {e}", tree.display());
        fs::create_dir(&group).map_err(failed)?;
        let group = Self(group);
        fs::write(group.0.join(file), bytes.to_string()).map_err(failed)?;
        Ok(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel removes processes from the cgroup a moment after their end.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Aborts this process if the test hangs.
fn watchdog() {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(120));
        eprintln!("the test did not end in 120 s");
        std::process::abort();
    });
}

fn at(model: &Buffer<u64>, n: usize) -> u64 {
    model[n]
}

#[test]
fn a_model_moves_within_a_limit_of_1_3_times_its_size() {
    fn leader((group, backing): (PathBuf, String)) -> String {
        watchdog();
        fs::write(group.join("cgroup.procs"), std::process::id().to_string())
            .expect("the process joins the cgroup");
        let model: Buffer<u64> = vec![WORD; MODEL / 8].into();
        let options = Processes::new().backing(match &*backing {
            "anonymous" => Backing::Anonymous,
            _ => Backing::Auto,
        });
        let builder = Invoker::builder(at).model(model).workers(2);
        let invoker = builder.executor(options).build();
        let invoker = invoker.expect("a move needs little more than the model");
        let tasks = (0..MODEL / 8).step_by(100_003);
        assert!(
            invoker
                .map(tasks)
                .all(|output| output.is_ok_and(|word| word == WORD))
        );
        invoker.finish().expect("no error").to_string()
    }
    for backing in ["anonymous", "auto"] {
        let group = match Group::with_limit(MODEL / 10 * 13) {
            Ok(group) => group,
            Err(reason) => return println!("skipped: {reason}"),
        };
        let report = invoker::run_isolated(leader, (group.0.clone(), backing.to_owned()));
        let report = report.expect("no process is killed");
        assert!(
            report.contains("250.0 MiB in anonymous memory, moved"),
            "{report}"
        );
    }
}

fn limit_file_sizes(bytes: Option<u64>) {
    let limits = getrlimit(Resource::Fsize);
    let current = bytes.or(limits.maximum);
    setrlimit(Resource::Fsize, Rlimit { current, ..limits }).expect("a soft limit can be changed");
}

/// Returns the messages of the error and its sources.
fn in_full(error: &(dyn std::error::Error + 'static)) -> String {
    let errors = std::iter::successors(Some(error), |e| e.source());
    errors.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[test]
fn a_file_size_limit_is_an_error_of_build_and_of_the_trace() {
    fn repeat(_: &Buffer<u64>, bytes: usize) -> Vec<u8> {
        vec![7; bytes]
    }
    fn leader(dir: PathBuf) -> Vec<String> {
        watchdog();
        let model = || Buffer::from(vec![WORD; 1 << 17]);
        let builder = || {
            let builder = Invoker::builder(repeat)
                .model(model())
                .executor(Executor::Processes);
            builder.workers(1)
        };
        let mut errors = Vec::new();
        // Too small for the model, and too small for the pool itself.
        for limit in [1000 << 10, 1 << 10, 0] {
            limit_file_sizes(Some(limit));
            errors.push(in_full(
                &builder().build().map(drop).expect_err("more than the limit"),
            ));
        }
        limit_file_sizes(Some(8 << 20));
        let invoker = builder().build().expect("there is room");
        let outputs: Vec<_> = invoker.map([10, 20 << 20, 30]).collect();
        // A large output is sent in pieces, each within the limit.
        assert!(outputs.iter().all(Result::is_ok));
        let report = invoker.finish().expect("no error");
        limit_file_sizes(Some(100));
        let error = report
            .write_trace(dir.join("trace.json"))
            .expect_err("more than the limit");
        errors.push(in_full(&error));
        errors
    }
    let dir = tempfile::tempdir().expect("a temporary directory");
    let errors = invoker::run_isolated(leader, dir.path().to_owned()).expect("the leader is not killed");
    assert_eq!(errors.len(), 4);
    for error in errors {
        assert!(
            error.contains("RLIMIT_FSIZE") && error.contains("ulimit -f"),
            "{error}"
        );
    }
}
