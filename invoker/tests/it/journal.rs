//! Runs with a journal: outputs that are read, tasks that run again, and jobs that are refused.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use invoker::{
    Buffer, Error, Fault, Interrupt, Invoker, Journal, JournalError, JournalFaults, Report, Salvage,
    TaskError, WithContext, task_seed,
};
use serde::{Deserialize, Serialize};

use crate::executors::EXECUTORS;

#[derive(Serialize, Deserialize)]
struct Scale {
    by: u64,
    /// Each run of an op appends a byte.
    runs: PathBuf,
    weights: Buffer<f64>,
}

fn scale(model: &Scale, n: u64) -> String {
    let file = OpenOptions::new().append(true).open(&model.runs);
    file.and_then(|mut file| file.write_all(b"."))
        .expect("the file is there");
    assert!(n != 13 || model.weights[0] < 1.0, "13 is unlucky");
    "x".repeat((n % 7) as usize) + &(n * model.by).to_string()
}

/// A directory with a journal and a count of runs.
struct Job {
    dir: tempfile::TempDir,
}

impl Job {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(dir.path().join("runs"), "").expect("it is writable");
        Self { dir }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn model(&self, by: u64) -> Scale {
        let runs = self.dir.path().join("runs");
        let weights = vec![2.0; 100].into();
        Scale { by, runs, weights }
    }

    /// Returns how often ops have run since the last call.
    fn runs(&self) -> usize {
        let path = self.dir.path().join("runs");
        let runs = std::fs::read(&path).expect("it is readable").len();
        std::fs::write(&path, "").expect("it is writable");
        runs
    }
}

fn journal_error(error: &TaskError) -> &JournalError {
    match &error.fault {
        Fault::Other(reason) => reason.downcast_ref().expect("the journal's"),
        other => panic!("{other}"),
    }
}

fn read(report: &Report) -> (u64, u64) {
    let journal = report.journal.as_ref().expect("there is one");
    (journal.read, journal.written)
}

#[test]
fn outputs_are_read_in_order_and_only_the_others_run() {
    let _watchdog = crate::watchdog::watchdog(300);
    let expected: Vec<String> = (0..1000)
        .filter(|n| *n != 13)
        .map(|n| "x".repeat((n % 7) as usize) + &(n * 3).to_string())
        .collect();
    for (executor, workers) in EXECUTORS {
        for is_ordered in [true, false] {
            let job = Job::new();
            let start = || {
                let builder = Invoker::builder(scale).model(job.model(3)).journal(job.journal());
                builder
                    .executor(executor)
                    .workers(workers)
                    .build()
                    .expect("it builds")
            };
            let run = |most: usize| {
                let invoker = start();
                let outputs = match is_ordered {
                    true => invoker.map(0..1000_u64),
                    false => invoker.map_unordered(0..1000_u64),
                };
                let (mut done, mut failed) = (Vec::new(), Vec::new());
                for output in outputs.take(most) {
                    match output {
                        Ok(output) => done.push(output),
                        Err(error) => failed.push(error.task),
                    }
                }
                (done, failed, invoker.finish().expect("it ends"))
            };
            let what = format!("{executor:?} {workers} {is_ordered}");
            let (first, _, report) = run(300);
            assert_eq!(read(&report).0, 0, "{what}");
            let (kept, ran) = (read(&report).1 as usize, job.runs());
            assert!(kept >= first.len() && ran >= kept, "{what}: {kept} of {ran}");
            let (mut all, failed, report) = run(usize::MAX);
            if !is_ordered {
                all.sort_by_key(|output| output.trim_start_matches('x').parse::<u64>().ok());
            }
            assert!(all == expected, "{what}");
            assert_eq!(failed, [13], "{what}");
            // The fault runs again.
            assert_eq!(read(&report), (kept as u64, 999 - kept as u64), "{what}");
            assert_eq!((report.tasks.done, report.tasks.failed), (999, 1), "{what}");
            assert_eq!(job.runs(), 1000 - kept, "{what}");
            let (_, failed, report) = run(usize::MAX);
            assert_eq!(read(&report), (999, 0), "{what}");
            assert_eq!((failed, job.runs()), (vec![13], 1), "{what}");
        }
    }
}

#[test]
fn a_journal_of_one_executor_serves_the_others() {
    let _watchdog = crate::watchdog::watchdog(300);
    let job = Job::new();
    for (number, (executor, workers)) in EXECUTORS.into_iter().enumerate() {
        let builder = Invoker::builder(scale).model(job.model(3)).journal(job.journal());
        let invoker = builder
            .executor(executor)
            .workers(workers)
            .build()
            .expect("it builds");
        let tasks = 20..(20 + 50 * (number as u64 + 1));
        assert!(invoker.map(tasks.clone()).all(|output| output.is_ok()));
        // Another run of the same invoker.
        assert!(invoker.map(tasks).all(|output| output.is_ok()));
        let report = invoker.finish().expect("it ends");
        assert_eq!(read(&report), (100 * number as u64, 100), "{executor:?}");
    }
}

#[test]
fn faults_are_kept_if_asked() {
    let _watchdog = crate::watchdog::watchdog(300);
    let job = Job::new();
    let failures = |faults: JournalFaults| {
        let journal = Journal::new(job.journal()).faults(faults);
        let builder = Invoker::builder(scale).model(job.model(3)).journal(journal);
        let invoker = builder.workers(2).build().expect("it builds");
        let failed: Vec<TaskError> = invoker.map(0..50).filter_map(Result::err).collect();
        invoker.finish().expect("it ends");
        let [error] = &*failed else { panic!("{failed:?}") };
        assert_eq!(error.task, 13);
        (error.to_string(), job.runs())
    };
    let (text, runs) = failures(JournalFaults::Keep);
    assert!(text.contains("panicked in worker") && runs == 50, "{text}");
    let (kept, runs) = failures(JournalFaults::Keep);
    let fault = text.trim_start_matches("task 13: ");
    assert_eq!(
        kept,
        format!("task 13: an earlier run had this error, which the journal keeps: {fault}")
    );
    assert_eq!(runs, 0);
    let (text, runs) = failures(JournalFaults::RunAgain);
    assert!(text.starts_with("task 13: panicked") && runs == 1, "{text}");
}

#[test]
fn another_input_is_an_error_with_the_first_task_and_both_hashes() {
    let _watchdog = crate::watchdog::watchdog(300);
    for is_ordered in [true, false] {
        let job = Job::new();
        let run = |tasks: Vec<u64>| {
            let builder = Invoker::builder(scale).model(job.model(3)).journal(job.journal());
            let invoker = builder.workers(2).build().expect("it builds");
            let outputs: Vec<_> = match is_ordered {
                true => invoker.map(tasks).collect(),
                false => invoker.map_unordered(tasks).collect(),
            };
            invoker.finish().expect("it ends");
            outputs
        };
        assert_eq!(run((100..400).collect()).len(), 300);
        let mut other: Vec<u64> = (100..400).collect();
        other[200] = 7;
        let outputs = run(other);
        let (last, before) = outputs.split_last().expect("the error");
        assert!(before.iter().all(Result::is_ok));
        let error = last.as_ref().expect_err("the input differs");
        let JournalError::TaskDiffers {
            first,
            last,
            stored,
            found,
            ..
        } = journal_error(error)
        else {
            panic!("{error}")
        };
        assert!((first..=last).contains(&&200) && stored != found, "{error}");
        assert_eq!(before.len() as u64, *first);
        let text = error.to_string();
        assert!(
            text.contains(&format!("{stored:016x}")) && text.contains(&format!("{found:016x}")),
            "{text}"
        );
        assert!(text.contains("start again with the same input"), "{text}");

        let outputs = run((100..150).collect());
        let error = outputs
            .last()
            .expect("the error")
            .as_ref()
            .expect_err("it is shorter");
        assert!(
            matches!(journal_error(error), JournalError::InputEnds { stored: 299, .. }),
            "{error}"
        );
        // A longer input is a run that goes on.
        assert_eq!(run((100..450).collect()).len(), 350);
    }
}

fn double(model: &Scale, n: u64) -> String {
    (2 * n * model.by).to_string()
}

/// The tasks that run after others were read have the seeds of their positions.
#[test]
fn seeds_do_not_depend_on_what_was_read() {
    let _watchdog = crate::watchdog::watchdog(300);
    for (executor, workers) in EXECUTORS {
        let job = Job::new();
        let run = |most: usize, path: PathBuf| {
            let op = |_: &(), n: u64| (n, task_seed());
            let builder = Invoker::builder(op).model(()).seed(7).journal(path);
            let invoker = builder
                .executor(executor)
                .workers(workers)
                .build()
                .expect("it builds");
            let outputs: Vec<_> = invoker.map(0..100).take(most).map(Result::ok).collect();
            invoker.finish().expect("it ends");
            outputs
        };
        let whole = run(100, job.dir.path().join("whole"));
        run(30, job.journal());
        assert_eq!(run(100, job.journal()), whole, "{executor:?}");
    }
}

fn refusal<T: std::fmt::Debug>(built: Result<T, Error>) -> JournalError {
    match built.expect_err("another job") {
        Error::Journal(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn another_job_is_refused_with_what_differs() {
    let _watchdog = crate::watchdog::watchdog(300);
    let job = Job::new();
    let threads = invoker::Executor::Threads;
    let build = |op: fn(&Scale, u64) -> String, by: u64, seed: Option<u64>| {
        let builder = Invoker::builder(op)
            .model(job.model(by))
            .journal(job.journal())
            .executor(threads);
        match seed {
            Some(seed) => builder.seed(seed).build(),
            None => builder.build(),
        }
    };
    build(scale, 3, None)
        .expect("it is new")
        .finish()
        .expect("it ends");
    build(scale, 3, None)
        .expect("it is the same")
        .finish()
        .expect("it ends");
    let differs = |error: JournalError| match error {
        JournalError::Differs {
            what,
            stored,
            current,
            remedy,
            ..
        } => {
            assert!(stored != current && !remedy.is_empty(), "{what}");
            what
        }
        other => panic!("{other}"),
    };
    assert_eq!(differs(refusal(build(double, 3, None))), "the op");
    assert_eq!(differs(refusal(build(scale, 4, None))), "the model");
    assert_eq!(differs(refusal(build(scale, 3, Some(1)))), "the seed");
    let other_types = Invoker::builder(|_: &Scale, n: u32| n)
        .model(job.model(3))
        .journal(job.journal());
    assert_eq!(
        differs(refusal(other_types.executor(threads).build())),
        "the type of tasks"
    );

    let with_context = |context: u64| {
        let op = |run: &WithContext<u64, u64>, n: u64| run.model + run.context + n;
        let builder = Invoker::builder(op).context(context).model(1);
        builder
            .journal(job.dir.path().join("context"))
            .executor(threads)
            .build()
    };
    with_context(7).expect("it is new").finish().expect("it ends");
    assert_eq!(differs(refusal(with_context(8))), "the context");
    let fold = |init: u64| {
        let builder = Invoker::builder(|_: &(), n: u64| n).fold(init, |sum, n| *sum += n);
        let builder = builder.model(()).journal(job.dir.path().join("fold"));
        builder.executor(threads).build().map(|invoker| {
            invoker
                .reduce(0..100_u64, |one, other| one + other)
                .expect("no task fails")
        })
    };
    fold(0).expect("it is new");
    assert_eq!(differs(refusal(fold(1))), "the context");
}

#[test]
fn names_identify_an_op_and_a_model() {
    let _watchdog = crate::watchdog::watchdog(300);
    let job = Job::new();
    let named = job.dir.path().join("named");
    let build = |op: fn(&Scale, u64) -> String, by: u64, journal: Journal| {
        let builder = Invoker::builder(op).model(job.model(by)).journal(journal);
        builder.executor(invoker::Executor::Inline).build()
    };
    let run = |invoker: Invoker<Scale, u64, String>| {
        let outputs: Vec<String> = invoker
            .map(20..40)
            .map(|output| output.expect("it runs"))
            .collect();
        invoker.finish().expect("it ends");
        outputs
    };
    let first = run(build(scale, 3, job.journal().into()).expect("it is new"));
    let journal = || Journal::new(&named).op("scale 1").model("three");
    let salvaged = Salvage::new()
        .op("scale 1")
        .model("three")
        .copy(job.journal(), &named)
        .expect("it is intact");
    assert_eq!((salvaged.tasks, salvaged.lost), (20, 0));
    job.runs();
    let invoker = build(double, 4, journal()).expect("it has the same names");
    assert_eq!((run(invoker), job.runs()), (first, 0));
    refusal(build(double, 4, journal().op("scale 2")));
    refusal(build(double, 4, journal().model("four")));
    refusal(build(scale, 3, Journal::new(&named)));
    assert!(Salvage::new().copy(job.journal(), &named).is_err(), "it exists");
}

#[test]
fn chunks_are_cut_as_in_the_first_run() {
    let _watchdog = crate::watchdog::watchdog(300);
    let job = Job::new();
    let sum = |workers: usize| {
        let builder = Invoker::builder(|_: &(), n: u64| n).fold(0, |sum: &mut u64, n| *sum += n);
        let builder = builder.model(()).journal(job.journal()).workers(workers);
        let invoker = builder
            .executor(invoker::Executor::Threads)
            .build()
            .expect("it builds");
        let chunks: Vec<u64> = invoker
            .map_chunks(0..100_000_u64)
            .map(|chunk| chunk.expect("it runs"))
            .collect();
        let total = invoker
            .reduce(0..100_000_u64, |one, other| one + other)
            .expect("it runs");
        assert_eq!((chunks.iter().sum(), total), (4_999_950_000, Some(4_999_950_000)));
        (chunks.len(), read(&invoker.finish().expect("it ends")))
    };
    let (chunks, (_, written)) = sum(2);
    let (again, counts) = sum(3);
    assert_eq!((again, counts), (chunks, (written, 0)));
}

#[test]
fn try_map_runs_errors_again() {
    let _watchdog = crate::watchdog::watchdog(300);
    let job = Job::new();
    let allowed = job.dir.path().join("allowed");
    let run = || {
        let op = |allowed: &PathBuf, n: u64| match n != 40 || allowed.exists() {
            true => Ok(n),
            false => Err(format!("{n} is not allowed")),
        };
        let builder = Invoker::builder(op).model(allowed.clone()).journal(job.journal());
        let invoker = builder.workers(2).build().expect("it builds");
        let result = invoker.try_map(0..60).collect::<Result<Vec<u64>, String>>();
        (result, read(&invoker.finish().expect("it ends")))
    };
    assert_eq!(run().0, Err("40 is not allowed".to_owned()));
    let (result, (read, _)) = run();
    assert_eq!(result, Err("40 is not allowed".to_owned()));
    assert!(read >= 40, "{read}");
    std::fs::write(&allowed, "").expect("it is writable");
    let (result, (read, _)) = run();
    assert_eq!(result, Ok((0..60).collect()));
    assert!((40..60).contains(&read), "{read}");
    assert_eq!(run(), (Ok((0..60).collect()), (60, 0)));
}

#[test]
fn the_second_leader_gets_the_process_id_of_the_first() {
    let _watchdog = crate::watchdog::watchdog(300);
    let job = Job::new();
    let build = || {
        let builder = Invoker::builder(scale).model(job.model(3)).journal(job.journal());
        builder.workers(1).build()
    };
    let first = build().expect("it is new");
    assert!(first.map(20..30).all(|output| output.is_ok()));
    let error = refusal(build());
    let pid = std::process::id();
    assert!(
        matches!(error, JournalError::InUse { pid: holder, .. } if holder == pid),
        "{error}"
    );
    assert!(
        error.to_string().contains(&format!("used by process {pid}")),
        "{error}"
    );
    // Its workers do not hold it.
    let worker = first.pids();
    assert_eq!(worker.len(), 1);
    drop(first);
    build().expect("it is free").finish().expect("it ends");
}

#[test]
fn an_interrupted_run_goes_on() {
    let _watchdog = crate::watchdog::watchdog(300);
    for (executor, workers) in EXECUTORS {
        let job = Job::new();
        let build = || {
            let builder = Invoker::builder(scale).model(job.model(3)).journal(job.journal());
            builder
                .executor(executor)
                .workers(workers)
                .build()
                .expect("it builds")
        };
        let invoker = build();
        let mut returned = 0;
        for output in invoker.map(20..) {
            returned += u64::from(output.is_ok());
            if returned == 50 {
                invoker.interrupter().interrupt(Interrupt::Finish);
            }
        }
        let written = read(&invoker.finish().expect("it ends")).1;
        assert_eq!(written, returned, "{executor:?}");
        let invoker = build();
        let outputs = invoker.map(20..).take(written as usize + 10);
        assert_eq!(outputs.filter(Result::is_ok).count() as u64, written + 10);
        assert_eq!(
            read(&invoker.finish().expect("it ends")).0,
            written,
            "{executor:?}"
        );
    }
}

#[test]
fn submitted_tasks_are_refused() {
    let _watchdog = crate::watchdog::watchdog(300);
    let job = Job::new();
    let builder = Invoker::builder(scale).model(job.model(3)).journal(job.journal());
    let invoker = builder
        .executor(invoker::Executor::Threads)
        .build()
        .expect("it builds");
    let error = invoker.submit(20).wait().expect_err("it is refused");
    assert!(
        matches!(journal_error(&error), JournalError::Unsupported(_)),
        "{error}"
    );
    assert_eq!(job.runs(), 0);
}

#[test]
fn large_outputs_and_outputs_without_bytes_come_back() {
    let _watchdog = crate::watchdog::watchdog(300);
    for (executor, workers) in EXECUTORS {
        let job = Job::new();
        let run = || {
            let op = |_: &(), n: usize| vec![n as f64; 2 * n * n];
            let builder = Invoker::builder(op).model(()).journal(job.journal());
            let invoker = builder
                .executor(executor)
                .workers(workers)
                .build()
                .expect("it builds");
            let outputs: Vec<Vec<f64>> = invoker
                .map(0..200)
                .map(|output| output.expect("it runs"))
                .collect();
            let sizes: Vec<usize> = outputs.iter().map(Vec::len).collect();
            assert!(
                outputs
                    .iter()
                    .enumerate()
                    .all(|(n, output)| output.iter().all(|it| *it == n as f64))
            );
            let units = Invoker::builder(|_: &(), _: u8| ()).model(());
            let units = units.journal(job.dir.path().join("units"));
            let units = units
                .executor(executor)
                .workers(workers)
                .build()
                .expect("it builds");
            assert_eq!(units.map(0..200).filter(Result::is_ok).count(), 200);
            let counts = [invoker.finish(), units.finish()].map(|report| read(&report.expect("it ends")));
            (sizes, counts)
        };
        let (first, counts) = run();
        assert_eq!(counts, [(0, 200); 2]);
        assert_eq!(run(), (first, [(200, 0); 2]), "{executor:?}");
    }
}

#[test]
fn a_file_that_is_no_journal_is_left_alone() {
    let job = Job::new();
    let build = |path: &Path| {
        let builder = Invoker::builder(scale).model(job.model(3)).journal(path);
        refusal(builder.executor(invoker::Executor::Inline).build())
    };
    let path = job.dir.path().join("notes");
    for contents in ["n", "notes that are longer than the start of a journal"] {
        std::fs::write(&path, contents).expect("it is writable");
        let error = build(&path);
        assert!(matches!(error, JournalError::NotAJournal { .. }), "{error}");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), contents);
    }
    let error = build(job.dir.path());
    assert!(matches!(error, JournalError::Os { step: "open", .. }), "{error}");
    let error = build(&job.dir.path().join("no/such/directory"));
    assert!(matches!(error, JournalError::Os { step: "open", .. }), "{error}");
}

/// Runs the tool, and returns its exit status and what it printed.
fn tool(args: &[&std::ffi::OsStr]) -> (Option<i32>, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_invoker-journal"));
    let output = command.args(args).output().expect("it runs");
    let printed = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8(printed).expect("it prints text"),
    )
}

#[test]
fn a_damaged_journal_is_refused_and_what_is_intact_is_salvaged() {
    let _watchdog = crate::watchdog::watchdog(300);
    let job = Job::new();
    let salvaged = job.dir.path().join("salvaged");
    let build = |path: &Path| {
        let builder = Invoker::builder(scale).model(job.model(3)).journal(path);
        builder.executor(invoker::Executor::Inline).build()
    };
    // Each leader writes blocks of its own.
    for end in [30, 40, 50] {
        let invoker = build(&job.journal()).expect("it builds");
        assert_eq!(
            invoker.map(20..end).filter(Result::is_ok).count() as u64,
            end - 20
        );
        invoker.finish().expect("it ends");
    }
    let mut bytes = std::fs::read(job.journal()).expect("it is readable");
    // The second of three blocks.
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(b"\xf5JB\n"))
        .collect();
    assert_eq!(starts.len(), 4);
    bytes[starts[2] + 40] ^= 1;
    std::fs::write(job.journal(), &bytes).expect("it is writable");
    let error = refusal(build(&job.journal()));
    assert!(
        matches!(error, JournalError::Damaged { offset, .. } if offset == starts[2] as u64),
        "{error}"
    );
    assert!(error.to_string().contains("invoker-journal salvage"), "{error}");

    let (journal, copy) = (job.journal(), salvaged.clone());
    let (status, list) = tool(&["list".as_ref(), journal.as_ref()]);
    assert_eq!(status, Some(0), "{list}");
    assert!(
        list.contains("run 0\t20 tasks up to task 29, 0 of them faults\n"),
        "{list}"
    );
    let damaged = starts[3] - starts[2];
    assert!(list.ends_with(&format!("damaged\t{damaged} bytes\n")), "{list}");
    let (status, text) = tool(&["salvage".as_ref(), journal.as_ref(), copy.as_ref()]);
    assert_eq!(status, Some(0), "{text}");
    assert!(
        text.contains(&format!("20 tasks from {}", journal.display())),
        "{text}"
    );
    job.runs();
    let invoker = build(&salvaged).expect("it is intact");
    let outputs: Vec<String> = invoker
        .map(20..50)
        .map(|output| output.expect("it runs"))
        .collect();
    let expected = (20..50).map(|n| "x".repeat((n % 7) as usize) + &(n * 3).to_string());
    assert!(expected.eq(outputs));
    assert_eq!(
        (read(&invoker.finish().expect("it ends")), job.runs()),
        ((20, 10), 10)
    );

    let (status, text) = tool(&["salvage".as_ref(), journal.as_ref(), copy.as_ref()]);
    assert!(status == Some(1) && text.contains("it exists"), "{text}");
    let (status, text) = tool(&["list".as_ref(), job.dir.path().join("runs").as_ref()]);
    assert!(status == Some(1) && text.contains("is not a journal"), "{text}");
    for wrong in [
        &["list"][..],
        &["list", "a", "b"],
        &["salvage", "a"],
        &["drop", "a"],
        &["list", "--op", "x", "a"],
        &[],
    ] {
        let args: Vec<_> = wrong.iter().map(|arg| (*arg).as_ref()).collect();
        let (status, text) = tool(&args);
        assert!(
            status == Some(2) && text.contains("invoker-journal help"),
            "{wrong:?}: {text}"
        );
    }
    let (status, text) = tool(&["help".as_ref()]);
    assert!(
        status == Some(0) && text.starts_with("Usage: invoker-journal list FILE"),
        "{text}"
    );
}

/// Leaders that are killed, and a disk that is full.
#[cfg(target_os = "linux")]
mod ends {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use invoker::OnWriteError;

    use super::*;

    /// The directory of a job, in a process that is the leader of it.
    const LEADER: &str = "IT_JOURNAL_LEADER";
    const TASKS: u64 = 60_000;
    const KILLS: u32 = 4;

    /// Starts this test again, as the leader of a job.
    fn command(job: &Job) -> Command {
        let name = std::thread::current().name().map(str::to_owned);
        let mut command = Command::new(std::env::current_exe().expect("the test has a path"));
        command
            .args([&*name.expect("tests have names"), "--exact", "--nocapture"])
            .env(LEADER, job.dir.path())
            .stdout(Stdio::null());
        command
    }

    fn runs(job: &Path) -> u64 {
        std::fs::metadata(job.join("runs")).expect("it is there").len()
    }

    /// Takes 100 microseconds and counts its run.
    fn slow((job, _): &(PathBuf, ()), n: u64) -> u64 {
        let started = Instant::now();
        let file = OpenOptions::new().append(true).open(job.join("runs"));
        file.and_then(|mut file| file.write_all(b"."))
            .expect("it is there");
        while started.elapsed() < Duration::from_micros(100) {
            std::hint::spin_loop();
        }
        n * n
    }

    /// Runs the leader's job.
    fn lead(job: &Path) {
        let builder = Invoker::builder(slow).model((job.to_owned(), ())).workers(2);
        let invoker = builder.journal(job.join("journal")).build().expect("it builds");
        let mut outputs = 0;
        for (n, output) in (0..).zip(invoker.map(0..TASKS)) {
            assert_eq!(output.expect("no task fails"), n * n);
            outputs += 1;
        }
        assert_eq!(outputs, TASKS, "each task once");
        std::fs::write(job.join("done"), "").expect("it is writable");
        invoker.finish().expect("it ends");
    }

    /// Each leader is killed after more than a second, so that the bound of a second means something.
    #[test]
    fn tasks_run_twice_only_if_they_ran_in_the_last_second() {
        if let Some(job) = std::env::var_os(LEADER) {
            return lead(Path::new(&job));
        }
        let _watchdog = crate::watchdog::watchdog(600);
        let job = Job::new();
        let dir = job.dir.path().to_owned();
        let (mut ran, mut stored, mut kills) = (0, 0, 0);
        while !dir.join("done").exists() {
            let mut leader: Child = command(&job).spawn().expect("it starts");
            let (mut history, mut started) = (Vec::new(), None);
            let ended = loop {
                if let Some(status) = leader.try_wait().expect("no error") {
                    break Some(status);
                }
                let (now, total) = (Instant::now(), runs(&dir));
                history.push((now, total));
                if total > ran {
                    let started = *started.get_or_insert(now);
                    if kills < KILLS && now - started > Duration::from_millis(1500) {
                        break None;
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            };
            if let Some(status) = ended {
                assert!(status.success(), "{status}");
                continue;
            }
            leader.kill().expect("it is alive");
            leader.wait().expect("no error");
            let killed = Instant::now();
            kills += 1;
            // Its workers end, too.
            let mut last = (runs(&dir), Instant::now());
            while last.1.elapsed() < Duration::from_millis(300) {
                std::thread::sleep(Duration::from_millis(5));
                if runs(&dir) != last.0 {
                    last = (runs(&dir), Instant::now());
                }
            }
            let info = Journal::info(job.journal()).expect("it is a journal");
            let now_stored = info.runs.first().map_or(0, |run| run.tasks);
            let lost = (last.0 - ran) - (now_stored - stored);
            let second_ago = history
                .iter()
                .rfind(|(time, _)| killed - *time >= Duration::from_secs(1));
            let in_last_second = last.0 - second_ago.expect("it ran for more than a second").1;
            println!(
                "{lost} of {} runs lost, {in_last_second} in the last second",
                last.0 - ran
            );
            assert!(
                lost <= in_last_second,
                "{lost} lost, {in_last_second} in the last second"
            );
            (ran, stored) = (last.0, now_stored);
        }
        let info = Journal::info(job.journal()).expect("it is a journal");
        assert_eq!(info.runs.iter().map(|run| run.tasks).collect::<Vec<_>>(), [TASKS]);
        assert_eq!(
            runs(&dir) - ran,
            TASKS - stored,
            "the last leader runs what is left"
        );
        assert!(kills >= 1, "it was too fast");
    }

    /// Runs ten thousand tasks with outputs of a hundred bytes, in threads: the memory of worker processes counts as files, too.
    fn lead_to_the_limit(job: &Path) {
        let go_on = job.join("continue").exists();
        let is_limited = job.join("limited").exists();
        let on_error = match go_on {
            true => OnWriteError::Continue,
            false => OnWriteError::Fail,
        };
        let journal = Journal::new(job.join("journal")).on_write_error(on_error);
        let op = |_: &(), n: u64| vec![n as u8; 100];
        let builder = Invoker::builder(op)
            .model(())
            .journal(journal.sync_interval(Duration::from_millis(4)));
        let builder = builder.executor(invoker::Executor::Threads).workers(2);
        let invoker = builder.build().expect("it builds");
        let mut outputs = invoker.map(0..10_000);
        let mut returned = 0;
        let failure = loop {
            match outputs.next() {
                Some(Ok(output)) => assert_eq!(output, vec![returned as u8; 100]),
                Some(Err(error)) => break Some(error),
                None => break None,
            }
            returned += 1;
            // A batch that does not fit is lost as a whole, so the first one must be a small one.
            while returned == 1 && Journal::info(job.join("journal")).is_ok_and(|info| info.runs.is_empty()) {
                std::thread::yield_now();
            }
            // Most outputs were handed to the writer by now, which fails at a quarter of them, but perhaps later than this thread takes the rest.
            let has_failed = || {
                invoker
                    .report()
                    .journal
                    .is_some_and(|counts| counts.failed.is_some())
            };
            while returned == 9_000 && is_limited && !has_failed() {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        if is_limited && !go_on {
            let error = failure.expect("the journal is full");
            assert_eq!(error.task, returned);
            assert!(
                matches!(journal_error(&error), JournalError::Write { .. }),
                "{error}"
            );
            let system = error_number(&error);
            assert_eq!(system, Some(rustix::io::Errno::FBIG.raw_os_error()), "{error:?}");
            assert_eq!(outputs.count(), 0);
            let error = refusal(invoker.finish());
            assert!(matches!(error, JournalError::Write { .. }), "{error}");
            return;
        }
        assert!(failure.is_none() && returned == 10_000, "{failure:?}");
        drop(outputs);
        let report = invoker.finish().expect("it ends");
        let counts = report.journal.as_ref().expect("there is one");
        assert_eq!(counts.failed.is_some(), go_on, "{counts:?}");
        assert_eq!(
            report.to_string().contains("; stopped: cannot write the journal"),
            go_on
        );
        std::fs::write(job.join("read"), counts.read.to_string()).expect("it is writable");
    }

    fn error_number(error: &TaskError) -> Option<i32> {
        let source = std::error::Error::source(error)?;
        source.downcast_ref::<std::io::Error>()?.raw_os_error()
    }

    /// The limit of a process for the size of files, in place of a disk that is full.
    #[test]
    fn a_full_disk_ends_the_run_or_the_journal_and_keeps_what_was_written() {
        if let Some(job) = std::env::var_os(LEADER) {
            return lead_to_the_limit(Path::new(&job));
        }
        let _watchdog = crate::watchdog::watchdog(300);
        for go_on in [false, true] {
            let job = Job::new();
            let set = |name: &str| std::fs::write(job.dir.path().join(name), "").expect("it is writable");
            set("limited");
            if go_on {
                set("continue");
            }
            let leader = command(&job);
            // The signal of that limit is ignored, so that it is an error.
            let mut limited = Command::new("sh");
            limited.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\""]);
            limited.arg(leader.get_program()).args(leader.get_args());
            limited.env(LEADER, job.dir.path()).stdout(Stdio::null());
            assert!(limited.status().expect("sh runs").success(), "{go_on}");
            let info = Journal::info(job.journal()).expect("it stays readable");
            let [run] = &*info.runs else { panic!("{info}") };
            assert!(info.damaged == 0 && (1..10_000).contains(&run.tasks), "{info}");
            for name in ["limited", "continue"] {
                let _ = std::fs::remove_file(job.dir.path().join(name));
            }
            assert!(command(&job).status().expect("it runs").success(), "{go_on}");
            let read = std::fs::read_to_string(job.dir.path().join("read")).expect("it has ended");
            assert_eq!(read, run.tasks.to_string());
            let info = Journal::info(job.journal()).expect("it is readable");
            assert_eq!(info.runs[0].tasks, 10_000);
        }
    }
}
