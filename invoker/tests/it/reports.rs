//! What an invoker tells of its run.

use std::sync::Arc;
use std::time::{Duration, Instant};

use invoker::{Error, Executor, Invoker, Render, Report, Reporter, Timing, Workers};
use serde_json::Value;

use crate::executors::Printed;

fn nap(_: &(), ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}

fn json(report: &Report) -> Value {
    serde_json::from_str(&report.to_json()).expect("it is JSON")
}

#[test]
fn a_bar_took_as_long_as_its_runs_whatever_came_afterwards() {
    let _watchdog = crate::watchdog::watchdog(120);
    for finished in [true, false] {
        let printed = Printed::default();
        let reporter = Reporter::builder()
            .render(Render::JsonLines)
            .output(printed.clone());
        let reporter = Arc::new(reporter.start().expect("a thread"));
        let begun = Instant::now();
        let builder = Invoker::builder(nap).model(()).executor(Executor::Threads);
        let builder = builder.progress_by(reporter.clone(), "nap");
        let invoker = builder.build().expect("it builds");
        assert_eq!(invoker.map([5, 5]).filter(Result::is_ok).count(), 2);
        let elapsed = begun.elapsed();
        // The program does something else, and the reporter is drawn late.
        std::thread::sleep(elapsed + Duration::from_millis(50));
        match finished {
            true => drop(invoker.finish().expect("it ends well")),
            false => drop(invoker),
        }
        std::thread::sleep(elapsed);
        Arc::into_inner(reporter).expect("the last").finish();
        let text = printed.text();
        let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("it is JSON");
        assert_eq!(
            (&last["state"], &last["done"]),
            (&"finished".into(), &2.into()),
            "{text}"
        );
        let told = last["elapsed_seconds"].as_f64().expect("a number");
        assert!(told <= elapsed.as_secs_f64(), "{told} s in {elapsed:?}");
    }
}

#[test]
fn times_agree_with_the_clock_on_every_executor() {
    let _watchdog = crate::watchdog::watchdog(120);
    for executor in [Executor::Processes, Executor::Threads, Executor::InProcess] {
        let begun = Instant::now();
        let builder = Invoker::builder(nap).model(()).executor(executor);
        let workers = if executor == Executor::InProcess { 1 } else { 2 };
        let invoker = builder
            .workers(Workers::Count(workers))
            .build()
            .expect("it builds");
        assert_eq!(invoker.map([5; 40]).filter(Result::is_ok).count(), 40);
        let live = invoker.report();
        assert_eq!((live.tasks.done, live.split.len()), (40, workers), "{executor:?}");
        let report = invoker.finish().expect("it ends well");
        let elapsed = begun.elapsed().as_secs_f64();
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
            0.0046 <= p50 && p50 <= p90 && p90 <= p99 && p99 <= max && max <= elapsed,
            "{latency:?}"
        );
        let run: f64 = report.split.iter().map(|worker| worker.run).sum();
        assert!(
            0.2 <= run && run <= elapsed * workers as f64,
            "{executor:?}: {run} s in {elapsed} s"
        );
        for worker in &report.split {
            let ready = worker.wait + worker.blocked + worker.decode + worker.run + worker.encode;
            assert!(
                worker.start + worker.attach + ready <= elapsed,
                "{executor:?}: {worker:?} in {elapsed}"
            );
        }
        let json = json(&report);
        assert_eq!(json["executor"], executor.name());
        assert_eq!(json["latency"]["tasks"], 40);
        assert_eq!(json["split"].as_array().map(Vec::len), Some(workers));
    }
}

fn fragile(_: &(), n: u64) -> u64 {
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
    let dir = tempfile::tempdir().expect("a directory can be made");
    let (target, link) = (dir.path().join("target"), dir.path().join("link"));
    std::fs::write(&target, "precious").expect("the directory is writable");
    std::os::unix::fs::symlink(&target, &link).expect("the directory is writable");
    let builder = || {
        Invoker::builder(|_: &(), n: u64| n)
            .model(())
            .executor(Executor::InProcess)
    };
    for path in [&*link, dir.path(), &dir.path().join("no/such/file")] {
        let refused = builder().trace(path).build().map(drop);
        assert!(matches!(refused, Err(Error::Os { .. })), "{refused:?}");
    }
    let invoker = builder().build().expect("it builds");
    let report = invoker.finish().expect("it ends well");
    let refused = report.write_trace(&link).expect_err("it is a link");
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert_eq!(std::fs::read(&target).expect("it is there"), b"precious");
    assert_eq!(std::fs::read_link(&link).expect("it is a link"), target);
    report.write_trace(&target).expect("it is a file");
    let text = std::fs::read_to_string(&target).expect("it was written");
    assert!(serde_json::from_str::<Value>(&text).is_ok());
}

#[test]
fn a_trace_shows_lives_deaths_and_tasks() {
    let _watchdog = crate::watchdog::watchdog(120);
    let dir = tempfile::tempdir().expect("a directory can be made");
    let path = dir.path().join("trace.json");
    let builder = Invoker::builder(fragile).model(()).workers(Workers::Count(2));
    let invoker = builder.trace(&path).build().expect("it builds");
    assert_eq!(invoker.map(0..200).filter(Result::is_err).count(), 1);
    let report = invoker.finish().expect("it ends well");
    let processes = report.processes.expect("there were processes");
    assert_eq!((processes.spawned, processes.died, processes.restarts), (3, 1, 1));

    let text = std::fs::read_to_string(&path).expect("it was written");
    let Value::Array(events) = serde_json::from_str(&text).expect("it is JSON") else {
        panic!("it is an array")
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
        ("ready", 3),
        ("restart", 1),
        ("died", 1),
        ("finished", 2),
    ] {
        assert_eq!(of(name).len(), count, "{name}");
    }
    assert_eq!(of("run").len(), 1);
    assert!(
        of("died")[0]["args"]["cause"]
            .as_str()
            .is_some_and(|cause| cause.contains("SIGABRT") || cause.contains("STATUS_STACK_BUFFER_OVERRUN"))
    );
    let end = report.times.total * 1e6;
    for event in &events {
        let number = |field: &str| event[field].as_f64().unwrap_or(f64::NAN);
        match event["ph"].as_str() {
            Some("M") => assert!(event["args"]["name"].is_string()),
            Some("i") => assert!((0.0..=end).contains(&number("ts")), "{event}"),
            Some("X") => assert!(
                number("ts") >= 0.0 && number("ts") + number("dur") <= end + 1.0,
                "{event}"
            ),
            _ => panic!("no such event: {event}"),
        }
    }
    // Each task takes longer than the time between two samples, and lies in its worker's life.
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
fn without_timing_there_are_counts_only() {
    let _watchdog = crate::watchdog::watchdog(120);
    let builder = Invoker::builder(fragile).model(()).workers(Workers::Count(1));
    let invoker = builder.timing(Timing::Off).build().expect("it builds");
    assert_eq!(invoker.map(0..20).filter(Result::is_ok).count(), 20);
    let report = invoker.finish().expect("it ends well");
    assert_eq!((report.tasks.done, report.latency), (20, None));
}

/// What the system counts of a process's pages in its memory map, in bytes.
#[cfg(target_os = "linux")]
fn rollup(pid: u32, key: &str) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("it is there");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .expect("it is told");
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
fn memory_agrees_with_the_system_and_the_model_is_there_once() {
    let _watchdog = crate::watchdog::watchdog(120);
    const LEN: usize = 8 << 20;
    let model: invoker::Buffer<u64> = (0..LEN as u64).collect();
    let sum = |model: &invoker::Buffer<u64>, _: u32| model.iter().sum::<u64>();
    let builder = Invoker::builder(sum).model(model).workers(Workers::Count(2));
    let invoker = builder.build().expect("it builds");
    // Everybody has touched it.
    assert_eq!(invoker.map(0..20).filter(Result::is_ok).count(), 20);
    let leader = || rollup(std::process::id(), "Pss:");
    let before = leader();
    let memory = invoker.report().memory.expect("Linux tells");
    let after = leader();
    let near = |told: u64, system: f64, what: &str| {
        let off = (told as f64 / system - 1.0).abs();
        assert!(off < 0.05, "{what}: {told} told, {system} by the system");
    };
    // Other tests of this process allocate meanwhile.
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
