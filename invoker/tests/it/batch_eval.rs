//! The example `batch_eval` from the command line.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Returns the executable of the example. Builds it, because `cargo test` may have built only these tests. Built with the whole workspace,
/// the dependencies have the features that they have in continuous integration, and are not built again.
pub(crate) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        // Built for another system, where there is no cargo.
        if let Some(path) = std::env::var_os("IT_BATCH_EVAL") {
            return path.into();
        }
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--workspace",
            "--example",
            "batch_eval",
            "--message-format=json",
        ]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        let output = build
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("cargo runs");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let messages = String::from_utf8(output.stdout).expect("cargo writes text");
        let built = messages
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let path = built
            .filter(|message| message["target"]["name"] == "batch_eval")
            .find_map(|message| message["executable"].as_str().map(PathBuf::from));
        path.expect("cargo names the executable")
    })
}

fn batch_eval(args: &[&str]) -> Output {
    Command::new(program()).args(args).output().expect("it runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("UTF-8")
}

/// Writes ratings that are small enough for a debug build: 60 users, 80 items.
pub(crate) fn ratings(dir: &Path) -> String {
    let mut csv = String::from("userId,movieId,rating,timestamp\n");
    for user in 1..=60u32 {
        for item in 1..=80u32 {
            let mix = user
                .wrapping_mul(2_654_435_761)
                .wrapping_add(item.wrapping_mul(40_503))
                >> 7;
            if mix.is_multiple_of(3) {
                csv += &format!(
                    "{user},{item},{}.{},{}\n",
                    1 + mix / 3 % 4,
                    5 * (mix / 5 % 2),
                    1000 + mix
                );
            }
        }
    }
    let path = dir.join("ratings.csv");
    std::fs::write(&path, csv).expect("writable");
    path.to_str().expect("UTF-8").to_owned()
}

struct Run {
    output: Output,
    recs: String,
}

fn run(dir: &Path, ratings: &str, more: &[&str]) -> Run {
    let recs = dir.join("recs.csv");
    let path = recs.to_str().expect("UTF-8");
    let mut args = vec![
        "--ratings",
        ratings,
        "--recs",
        path,
        "--log",
        "error",
        "--progress",
        "none",
    ];
    args.extend(more);
    let output = batch_eval(&args);
    Run {
        output,
        recs: std::fs::read_to_string(&recs).unwrap_or_default(),
    }
}

#[test]
fn recommendations_do_not_depend_on_the_executor() {
    let _watchdog = crate::watchdog::watchdog(300);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ratings = ratings(dir.path());
    let expected = run(dir.path(), &ratings, &["--executor", "inline"]);
    assert!(
        expected.output.status.success(),
        "{}",
        text(&expected.output.stderr)
    );
    assert!(expected.recs.lines().count() > 300, "{}", expected.recs);
    for how in ["processes 1", "processes 2", "processes 5", "threads 2"] {
        let (executor, workers) = how.split_once(' ').expect("two words");
        let got = run(
            dir.path(),
            &ratings,
            &["--executor", executor, "--workers", workers],
        );
        assert!(got.output.status.success(), "{how}: {}", text(&got.output.stderr));
        assert!(got.recs == expected.recs, "{how}");
    }
}

#[test]
fn the_report_has_counts_rates_and_memory() {
    let _watchdog = crate::watchdog::watchdog(300);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ratings = ratings(dir.path());
    let json = run(
        dir.path(),
        &ratings,
        &["--workers", "2", "--repeat", "3", "--report", "json"],
    )
    .output;
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).expect("JSON");
    let run_report = &report["run"];
    assert_eq!(run_report["tasks"]["done"], 180);
    assert_eq!(run_report["workers"], 2);
    assert!(
        run_report["users_per_second"]
            .as_f64()
            .is_some_and(|rate| rate > 0.0)
    );
    assert!(
        run_report["model"]["bytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 10_000),
        "{report}"
    );
    if cfg!(target_os = "linux") {
        assert_eq!(run_report["model"]["backing"], "anonymous");
        assert_eq!(
            run_report["memory"]["workers_pss"].as_array().map(Vec::len),
            Some(2)
        );
    }
    assert_eq!(run_report["logs"]["dropped"], 0);
    let plain = run(dir.path(), &ratings, &["--workers", "2"]).output;
    let plain = text(&plain.stdout);
    assert!(plain.contains("PSS") || !cfg!(target_os = "linux"), "{plain}");
    for word in [
        "nDCG@10",
        "recall@10",
        "MRR",
        "RMSE",
        "users/s",
        "2 workers",
        "delivered",
    ] {
        assert!(plain.contains(word), "{word} is missing\n{plain}");
    }
}

#[test]
fn a_crash_costs_only_its_user() {
    let _watchdog = crate::watchdog::watchdog(300);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let ratings = ratings(dir.path());
    let whole = run(dir.path(), &ratings, &["--workers", "2"]).recs;
    let Run { output, recs } = run(dir.path(), &ratings, &["--workers", "2", "--crash-user", "15"]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    let line = error
        .lines()
        .find(|line| line.contains("user 15"))
        .unwrap_or_else(|| panic!("{error}"));
    let abort = match cfg!(windows) {
        true => "STATUS_STACK_BUFFER_OVERRUN",
        false => "SIGABRT",
    };
    assert!(line.contains("worker ") && line.contains(abort), "{line}");
    let others: String = whole
        .split_inclusive('\n')
        .filter(|line| !line.starts_with("15,"))
        .collect();
    assert!(others.len() < whole.len());
    assert_eq!(recs, others);
}

/// Killed leaders and workers of a long run.
#[cfg(target_os = "linux")]
mod killed {
    use std::io::{BufRead, BufReader};
    use std::process::{Child, ChildStderr, Stdio};
    use std::time::{Duration, Instant};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// A watchdog, not an expectation.
    const LONG: Duration = Duration::from_secs(60);

    fn start(ratings: &str, repeat: &str, tmp: &Path) -> (Child, BufReader<ChildStderr>) {
        let mut command = Command::new(program());
        command.args([
            "--ratings",
            ratings,
            "--workers",
            "2",
            "--repeat",
            repeat,
            "--report",
            "json",
        ]);
        command
            .args(["--log", "debug", "--progress", "none"])
            .env("TMPDIR", tmp);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("it is piped"));
        // The workers have started when they log.
        let mut line = String::new();
        while !line.contains("evaluated") {
            line.clear();
            assert!(
                stderr.read_line(&mut line).expect("it writes text") > 0,
                "it ended early"
            );
        }
        (child, stderr)
    }

    fn workers(leader: u32) -> Vec<u32> {
        let children = std::fs::read_dir(format!("/proc/{leader}/task")).expect("it is alive");
        let lists = children
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        lists
            .flat_map(|list| {
                list.split_whitespace()
                    .filter_map(|pid| pid.parse().ok())
                    .collect::<Vec<u32>>()
            })
            .collect()
    }

    /// Returns whether the process runs. A zombie does not.
    fn runs(pid: u32) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        status
            .rsplit(')')
            .next()
            .is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with('Z'))
    }

    fn kill(pid: u32) {
        let pid = Pid::from_raw(pid as i32).expect("a pid");
        kill_process(pid, Signal::KILL).expect("it is alive");
    }

    #[test]
    fn a_killed_worker_costs_one_task_at_most() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ratings = ratings(dir.path());
        let (leader, mut stderr) = start(&ratings, "200", dir.path());
        kill(workers(leader.id())[0]);
        let drain = std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        let output = leader.wait_with_output().expect("no error");
        drain.join().expect("no panic").expect("it is readable");
        let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let tasks = &report["run"]["tasks"];
        let (done, failed) = (tasks["done"].as_u64(), tasks["failed"].as_u64());
        assert_eq!(
            done.zip(failed).map(|(done, failed)| done + failed),
            Some(200 * 60),
            "{report}"
        );
        assert!(failed <= Some(1), "{report}");
        assert_eq!(report["run"]["processes"]["died"], 1);
        let logs = &report["run"]["logs"];
        let sum = logs["delivered"]
            .as_u64()
            .zip(logs["dropped"].as_u64())
            .map(|(a, b)| a + b);
        assert_eq!(sum, logs["emitted"].as_u64(), "{report}");
    }

    /// Ten leaders are killed at random moments; the last one returns what one that was not disturbed returns.
    #[test]
    fn killed_leaders_are_resumed_byte_for_byte() {
        let _watchdog = crate::watchdog::watchdog(600);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ratings = ratings(dir.path());
        let report = |output: &Output| -> serde_json::Value {
            assert!(output.status.success(), "{}", text(&output.stderr));
            serde_json::from_slice(&output.stdout).expect("JSON")
        };
        let args = ["--workers", "2", "--repeat", "200", "--report", "json"];
        let started = Instant::now();
        let whole = run(dir.path(), &ratings, &args);
        let time = started.elapsed();
        let expected = report(&whole.output);
        assert_eq!(expected["run"]["tasks"]["done"], 12_000);

        let time_of_day = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970");
        let mut random = time_of_day.as_nanos() as u64;
        println!("seed {random}, undisturbed in {time:?}");
        let journal = dir.path().join("journal");
        let path = journal.to_str().expect("UTF-8");
        let recs = dir.path().join("recs.csv");
        let (mut stored, mut kills) = (0, 0);
        while kills < 10 {
            let mut leader = Command::new(program());
            leader.args(["--ratings", &ratings, "--resume", path, "--log", "error"]);
            leader
                .args(["--progress", "none", "--recs"])
                .arg(&recs)
                .args(args);
            let mut leader = leader.stdout(Stdio::null()).spawn().expect("it starts");
            // Up to a twelfth of the run, from the time when it has something to lose.
            let len = || journal.metadata().map_or(0, |metadata| metadata.len());
            let before = len();
            while len() == before && leader.try_wait().expect("no error").is_none() {
                std::thread::yield_now();
            }
            // SplitMix64.
            random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            std::thread::sleep(time.mul_f64((mixed >> 40) as f64 / f64::from(12 << 24)));
            if let Some(status) = leader.try_wait().expect("no error") {
                // It had little left to do. The next one starts from nothing.
                assert!(status.success(), "{status}");
                let ended = std::fs::read_to_string(&recs).expect("it is readable");
                assert!(ended == whole.recs, "the recommendations differ");
                std::fs::remove_file(&journal).expect("it is there");
                stored = 0;
                continue;
            }
            kills += 1;
            leader.kill().expect("it is alive");
            leader.wait().expect("no error");
            let info = invoker::Journal::info(&journal).expect("it is a journal");
            assert_eq!(info.damaged, 0);
            let tasks = info.runs.first().map_or(0, |run| run.tasks);
            assert!(tasks >= stored, "{info}");
            stored = tasks;
        }
        let resumed = run(dir.path(), &ratings, &[&args[..], &["--resume", path]].concat());
        let report = report(&resumed.output);
        println!("{stored} of 12000 outcomes were read");
        assert_eq!(report["run"]["journal"]["read"], stored);
        assert_eq!(report["run"]["journal"]["written"], 12_000 - stored);
        assert_eq!(report["run"]["tasks"]["done"], 12_000);
        assert_eq!(report["metrics"], expected["metrics"]);
        assert!(resumed.recs == whole.recs, "the recommendations differ");
    }

    #[test]
    fn a_killed_leader_leaves_no_processes_or_files() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let ratings = ratings(dir.path());
        let tmp = tempfile::tempdir().expect("a temporary directory");
        let (mut leader, _stderr) = start(&ratings, "100000", tmp.path());
        let workers = workers(leader.id());
        assert_eq!(workers.len(), 2);
        leader.kill().expect("it is alive");
        leader.wait().expect("no error");
        let killed = Instant::now();
        while workers.iter().any(|pid| runs(*pid)) {
            assert!(killed.elapsed() < LONG, "workers outlive their leader");
            std::thread::yield_now();
        }
        assert!(
            killed.elapsed() < Duration::from_secs(2),
            "{:?}",
            killed.elapsed()
        );
        let left: Vec<_> = std::fs::read_dir(tmp.path())
            .expect("it is there")
            .flatten()
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn bad_input_is_an_error_that_names_it() {
    let _watchdog = crate::watchdog::watchdog(300);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, content: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, content).expect("writable");
        path.to_str().expect("UTF-8").to_owned()
    };
    let header = "userId,movieId,rating,timestamp\n";
    let missing = dir.path().join("missing.csv");
    let cases = [
        (
            vec!["--ratings".to_owned(), missing.to_str().expect("text").to_owned()],
            "missing.csv",
        ),
        (
            vec![
                "--ratings".to_owned(),
                file("short.csv", &format!("{header}1,2,3.0,4\n1,3\n")),
            ],
            ":3: ",
        ),
        (
            vec![
                "--ratings".to_owned(),
                file("word.csv", &format!("{header}abc,2,3.0,4\n")),
            ],
            "`abc`",
        ),
        (vec!["--ratings".to_owned(), file("empty.csv", "")], "no ratings"),
        (vec!["--workers".to_owned(), "0".to_owned()], "--workers"),
        (vec!["--crash-user".to_owned(), "99999".to_owned()], "99999"),
        (vec!["--what".to_owned()], "--help"),
    ];
    for (args, named) in cases {
        let output = batch_eval(&args.iter().map(String::as_str).collect::<Vec<_>>());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(named), "{args:?}: {error}");
        let usage = error.contains("--help");
        assert!(usage || error.lines().count() == 1, "{args:?}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

#[test]
fn help_lists_all_options() {
    let _watchdog = crate::watchdog::watchdog(300);
    let output = batch_eval(&["--help"]);
    assert!(output.status.success());
    let help = text(&output.stdout);
    for option in [
        "--ratings",
        "--workers",
        "--executor",
        "--top",
        "--seed",
        "--holdout",
        "--no-holdout",
        "--resume",
        "--recs",
    ] {
        assert!(help.contains(option), "{option}");
    }
}
