//! Reports and traces.

use std::sync::Arc;
use std::time::{Duration, Instant};

use invoker::{Executor, Invoker, Processes, Render, Report, Reporter, Timing};
use serde_json::Value;

use crate::executors::Printed;

fn nap(_: &(), ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn json(report: &Report) -> Value {
    serde_json::from_str(&report.to_json()).expect("JSON")
}

#[test]
fn the_time_of_a_bar_ends_with_its_last_run() {
    let _watchdog = crate::watchdog::watchdog(120);
    for finished in [true, false] {
        let printed = Printed::default();
        let reporter = Reporter::builder()
            .render(Render::JsonLines)
            .output(printed.clone());
        let reporter = Arc::new(reporter.start().expect("a thread"));
        let started = Instant::now();
        let builder = Invoker::builder(nap).model(()).executor(Executor::Threads);
        let builder = builder.progress_by(reporter.clone(), "nap");
        let invoker = builder.build().expect("the invoker builds");
        assert_eq!(invoker.map([5, 5]).filter(Result::is_ok).count(), 2);
        let elapsed = started.elapsed();
        // The program does something else before the bar is finished.
        std::thread::sleep(elapsed + Duration::from_millis(50));
        match finished {
            true => drop(invoker.finish().expect("no error")),
            false => drop(invoker),
        }
        std::thread::sleep(elapsed);
        Arc::into_inner(reporter).expect("the last").finish();
        let text = printed.text();
        let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
        assert_eq!(
            (&last["state"], &last["done"]),
            (&"finished".into(), &2.into()),
            "{text}"
        );
        let shown = last["elapsed_seconds"].as_f64().expect("a number");
        assert!(shown <= elapsed.as_secs_f64(), "{shown} s in {elapsed:?}");
    }
}

#[test]
fn outputs_of_all_runs_are_counted_at_any_time() {
    let _watchdog = crate::watchdog::watchdog(120);
    let odd_panics = |_: &(), n: u64| assert!(n.is_multiple_of(2), "odd");
    for executor in [Executor::Processes, Executor::Threads, Executor::Inline] {
        let builder = Invoker::builder(odd_panics).model(()).executor(executor);
        let invoker = builder.build().expect("the invoker builds");
        let counts = || {
            let tasks = invoker.report().tasks;
            (tasks.done, tasks.failed)
        };
        let mut first = invoker.map(0..100);
        let mut second = invoker.map(0..100);
        for taken in 1..=30 {
            let _ = (first.next(), second.next());
            assert_eq!(
                counts(),
                (2 * u64::div_ceil(taken, 2), 2 * (taken / 2)),
                "{executor:?}"
            );
        }
        drop(first);
        assert_eq!(counts(), (30, 30), "{executor:?}");
        assert_eq!(second.count(), 70);
        assert_eq!(counts(), (30 + 35, 30 + 35), "{executor:?}");
    }
}

#[test]
fn times_agree_with_the_clock_with_every_executor() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads, Executor::Inline] {
        let started = Instant::now();
        let builder = Invoker::builder(nap).model(()).executor(executor);
        let workers = if executor == Executor::Inline { 1 } else { 2 };
        let invoker = builder.workers(workers).build().expect("the invoker builds");
        assert_eq!(invoker.map([5; 40]).filter(Result::is_ok).count(), 40);
        let live = invoker.report();
        assert_eq!(
            (live.tasks.done, live.worker_times.len()),
            (40, workers),
            "{executor:?}"
        );
        let report = invoker.finish().expect("no error");
        let elapsed = started.elapsed();
        assert!(report.times.total <= elapsed && live.times.total < report.times.total);
        assert!(
            report.times.start + report.times.run <= report.times.total,
            "{:?}",
            report.times
        );
        let latency = report.latency.expect("there were tasks");
        assert_eq!(latency.tasks, 40, "{executor:?}");
        let [p50, p90, p99, max] = [latency.p50, latency.p90, latency.p99, latency.max];
        assert!(
            Duration::from_micros(4600) <= p50 && p50 <= p90 && p90 <= p99 && p99 <= max && max <= elapsed,
            "{latency:?}"
        );
        let run: Duration = report.worker_times.iter().map(|worker| worker.run).sum();
        assert!(
            Duration::from_millis(200) <= run && run <= elapsed * workers as u32,
            "{executor:?}: {run:?} in {elapsed:?}"
        );
        for worker in &report.worker_times {
            let ready =
                worker.wait + worker.blocked + worker.decode + worker.run + worker.encode + worker.off_cpu;
            assert!(
                worker.start + worker.attach + worker.state + ready <= elapsed,
                "{executor:?}: {worker:?} in {elapsed:?}"
            );
        }
        let json = json(&report);
        assert_eq!(json["executor"], executor.to_string());
        assert_eq!(json["latency"]["tasks"], 40);
        assert_eq!(json["worker_times"].as_array().map(Vec::len), Some(workers));
        let back: Report = serde_json::from_value(json).expect("just serialized");
        assert_eq!((back.times, back.latency), (report.times, report.latency));
        assert_eq!(back.worker_times, report.worker_times);
        assert_eq!((back.memory, back.model), (report.memory, report.model));
    }
}

fn abort_once(_: &(), n: u64) -> u64 {
    if n == 30 {
        std::process::abort();
    }
    std::thread::sleep(Duration::from_micros(300));
    n
}

#[cfg(unix)]
#[test]
fn a_trace_is_not_written_through_a_symbolic_link() {
    let _watchdog = crate::watchdog::watchdog(120);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (target, link) = (dir.path().join("target"), dir.path().join("link"));
    std::fs::write(&target, "precious").expect("writable");
    std::os::unix::fs::symlink(&target, &link).expect("writable");
    let builder = || {
        Invoker::builder(|_: &(), n: u64| n)
            .model(())
            .executor(Executor::Inline)
    };
    for path in [&*link, dir.path(), &dir.path().join("no/such/file")] {
        let refused = builder().trace(path).build().map(drop);
        assert!(matches!(refused, Err(invoker::Error::Os { .. })), "{refused:?}");
    }
    let invoker = builder().build().expect("the invoker builds");
    let report = invoker.finish().expect("no error");
    let refused = report.write_trace(&link).expect_err("a symbolic link");
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(std::fs::read(&target).expect("it exists"), b"precious");
    assert_eq!(std::fs::read_link(&link).expect("a symbolic link"), target);
    report.write_trace(&target).expect("a regular file");
    let text = std::fs::read_to_string(&target).expect("just written");
    assert!(serde_json::from_str::<Value>(&text).is_ok());
}

#[test]
fn a_trace_has_processes_deaths_and_tasks() {
    let _watchdog = crate::watchdog::watchdog(120);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("trace.json");
    let builder = Invoker::builder(abort_once).model(()).workers(2);
    let invoker = builder.trace(&path).build().expect("the invoker builds");
    let memory = invoker.settings().model.clone().expect("it is shared");
    assert_eq!(invoker.map(0..200).filter(Result::is_err).count(), 1);
    let report = invoker.finish().expect("no error");
    let processes = report.processes.expect("there were processes");
    assert_eq!((processes.spawned, processes.died, processes.restarts), (3, 1, 1));

    let text = std::fs::read_to_string(&path).expect("just written");
    let Value::Array(events) = serde_json::from_str(&text).expect("JSON") else {
        panic!("not an array")
    };
    let of = |name: &str| {
        events
            .iter()
            .filter(|event| event["name"] == name)
            .collect::<Vec<_>>()
    };
    for (name, count) in [
        ("start", 3),
        ("attach", 3),
        ("state", 3),
        ("ready", 3),
        ("restart", 1),
        ("died", 1),
        ("finished", 2),
        ("model", 1),
    ] {
        assert_eq!(of(name).len(), count, "{name}");
    }
    assert_eq!(of("run").len(), 1);
    let bytes = serde_json::json!({ "shared": memory.shared, "mapped": 0, "copied": 0, "per_worker": memory.per_process });
    assert_eq!(of("model")[0]["args"], bytes);
    assert!(
        of("died")[0]["args"]["cause"]
            .as_str()
            .is_some_and(|cause| cause.contains("SIGABRT") || cause.contains("STATUS_STACK_BUFFER_OVERRUN"))
    );
    let end = report.times.total.as_secs_f64() * 1e6;
    for event in &events {
        let number = |field: &str| event[field].as_f64().unwrap_or(f64::NAN);
        match event["ph"].as_str() {
            Some("M") => assert!(event["args"]["name"].is_string()),
            Some("i") => assert!((0.0..=end).contains(&number("ts")), "{event}"),
            Some("X") => assert!(
                number("ts") >= 0.0 && number("ts") + number("dur") <= end + 1.0,
                "{event}"
            ),
            _ => panic!("unknown event: {event}"),
        }
    }
    // Each task takes longer than the time between two samples, and is within the life of its process.
    let tasks = of("task");
    assert_eq!(tasks.len(), 199);
    for task in tasks {
        let begin = task["ts"].as_f64().expect("a number");
        assert!(of("ready").iter().any(|life| {
            let ready = life["ts"].as_f64().expect("a number");
            let lived = life["dur"].as_f64().expect("a number");
            life["tid"] == task["tid"] && ready <= begin && begin <= ready + lived
        }));
    }
}

#[test]
fn without_timing_a_report_has_only_counts() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = Invoker::builder(abort_once).model(()).workers(1);
    let builder = builder.executor(Processes::new().timing(Timing::Off));
    let invoker = builder.build().expect("the invoker builds");
    assert_eq!(invoker.map(0..20).filter(Result::is_ok).count(), 20);
    let report = invoker.finish().expect("no error");
    assert_eq!((report.tasks.done, report.latency), (20, None));
}

/// Returns a number of the process's memory map in bytes, from the system.
#[cfg(target_os = "linux")]
fn rollup(pid: u32, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it exists");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .expect("the kernel reports it");
    let kib: f64 = line
        .trim()
        .trim_end_matches("kB")
        .trim()
        .parse()
        .expect("a number");
    kib * 1024.0
}

#[cfg(target_os = "linux")]
#[test]
fn memory_agrees_with_the_system_and_counts_the_model_once() {
    let _watchdog = crate::watchdog::watchdog(120);
    const LEN: usize = 8 << 20;
    let model: invoker::Buffer<u64> = (0..LEN as u64).collect();
    let sum = |model: &invoker::Buffer<u64>, _: u32| model.iter().sum::<u64>();
    let builder = Invoker::builder(sum).model(model).workers(2);
    let invoker = builder.build().expect("the invoker builds");
    // So that all workers have touched the model.
    assert_eq!(invoker.map(0..20).filter(Result::is_ok).count(), 20);
    let leader = || rollup(std::process::id(), "Pss:");
    let before = leader();
    let memory = invoker.report().memory.expect("Linux reports it");
    let after = leader();
    let near = |reported: u64, system: f64, what: &str| {
        let off = (reported as f64 / system - 1.0).abs();
        assert!(
            off < 0.05,
            "{what}: {reported} in the report, {system} from the system"
        );
    };
    // Other tests of this process allocate at the same time.
    let then = (memory.leader_pss as f64).clamp(before.min(after), before.max(after));
    near(memory.leader_pss, then, "PSS of the leader");
    let workers = |key| {
        invoker
            .pids()
            .iter()
            .map(|(_, pid)| rollup(*pid, key))
            .sum::<f64>()
    };
    near(
        memory.workers_pss.iter().sum(),
        workers("Pss:"),
        "PSS of the workers",
    );
    near(
        memory.workers_rss.iter().sum(),
        workers("Rss:"),
        "RSS of the workers",
    );
    let bytes = (LEN * size_of::<u64>()) as u64;
    assert!(memory.workers_rss.iter().all(|rss| *rss > bytes), "{memory:?}");
    assert!(
        memory.workers_pss.iter().sum::<u64>() < bytes + bytes / 2,
        "{memory:?}"
    );
}
