//! Workers that connect by a handle: in this process, and in processes of their own.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use log_bridge::{
    Collector, ConnectError, Filter, LevelFilter, OpenError, Overflow, ParseSourceHandleError, SourceHandle,
    SourceOptions, WorkerFlushError, WorkerGuard,
};
use tracing::Dispatch;
use tracing::dispatcher::with_default;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::Capture;

const HANDLE: &str = "LOG_BRIDGE_TEST_HANDLE";
const WATCHDOG: Duration = Duration::from_secs(60);

fn worker(source: &SourceHandle) -> Dispatch {
    let layer = source.connect().unwrap().build().unwrap();
    Dispatch::new(tracing_subscriber::registry().with(layer))
}

/// Starts `test` in a process of its own, which finds the handle in its environment.
fn start(test: &str, source: &SourceHandle) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(HANDLE, source.to_string())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

/// Returns the handle in the environment of a process that [`start`] has started.
fn handle_of_child() -> Option<SourceHandle> {
    Some(std::env::var(HANDLE).ok()?.parse().unwrap())
}

#[test]
fn a_handle_is_one_word_and_survives_each_of_its_forms() {
    let mut collector = Collector::new();
    let filter = Filter::new(LevelFilter::WARN)
        .target("odd \"target\", ü", LevelFilter::TRACE)
        .spans(LevelFilter::DEBUG);
    let options = SourceOptions::new().ring_bytes(5000).filter(filter.clone());
    let source = collector.open_with(7, options).unwrap();
    assert_eq!(
        (source.id(), source.ring_bytes(), source.filter()),
        (7, 8192, &filter)
    );
    let text = source.to_string();
    assert!(
        text.bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\''),
        "{text}"
    );
    assert_eq!(text.parse::<SourceHandle>().unwrap(), source);
    let json = serde_json::to_string(&source).unwrap();
    assert_eq!(json, format!("\"{text}\""));
    assert_eq!(serde_json::from_str::<SourceHandle>(&json).unwrap(), source);
    let bytes = postcard::to_stdvec(&source).unwrap();
    assert_eq!(postcard::from_bytes::<SourceHandle>(&bytes).unwrap(), source);
}

#[test]
fn other_texts_are_errors_that_name_the_part() {
    let text = Collector::new().open(7).unwrap().to_string();
    let parse = |text: &str| text.parse::<SourceHandle>().unwrap_err();
    for (other, part) in [
        ("lb1", "id"),
        ("lb1.-1.1024.off,info.00", "id"),
        ("lb1.+1.1024.off,info.00", "id"),
        ("lb1.7.1000.off,info.00", "ring size"),
        ("lb1.7.18446744073709551615.off,info.00", "ring size"),
        ("lb1.7.1024.info.00", "filter"),
        ("lb1.7.1024.off,info", "region"),
        ("lb1.7.1024.off,info.zz", "region"),
        (&format!("{text}.more"), "region"),
    ] {
        assert_eq!(
            parse(other),
            ParseSourceHandleError::Malformed { part },
            "{other}"
        );
        assert!(parse(other).to_string().contains(part));
    }
    assert_eq!(parse(""), ParseSourceHandleError::Version);
    assert_eq!(
        parse(&text.replacen("lb1", "lb2", 1)),
        ParseSourceHandleError::Version
    );
    let long = format!("{text}{}", "0".repeat(1 << 20));
    assert_eq!(
        parse(&long),
        ParseSourceHandleError::TooLong { bytes: long.len() }
    );
    // No prefix of the part before the region is a handle, and none of them panics.
    let region = text.rfind('.').unwrap();
    assert!((0..=region).all(|len| text[..len].parse::<SourceHandle>().is_err()));
}

#[test]
fn a_second_connection_is_an_error() {
    let mut collector = Collector::new();
    let source = collector.open(7).unwrap();
    let first = source.connect().unwrap();
    let error = source.connect().unwrap_err();
    assert!(
        matches!(error, ConnectError::AlreadyConnected { id: 7 }),
        "{error:?}"
    );
    drop(first);
    assert!(
        source.connect().is_err(),
        "the ring may have records of the first one"
    );
    shm_buffers::assert_said_once(&error);
}

#[test]
fn a_handle_of_a_removed_source_is_an_error() {
    let mut collector = Collector::new();
    let source = collector.open(7).unwrap();
    collector.remove(7).unwrap();
    let error = source.connect().unwrap_err();
    assert!(
        matches!(error, ConnectError::LeaderEnded { id: 7, .. }),
        "{error:?}"
    );
    assert!(
        error.to_string().contains("let a running leader open one"),
        "{error}"
    );
    shm_buffers::assert_said_once(&error);
    // A worker that has connected before can still see it.
    let source = collector.open(8).unwrap();
    let layer = source.connect().unwrap().build().unwrap();
    let again = collector.open(8).unwrap();
    assert!(source.connect().is_err(), "its successor has removed it");
    assert!(again.connect().is_ok());
    drop(layer);
}

#[test]
fn a_changed_ring_size_is_an_error() {
    let mut collector = Collector::new();
    let source = collector
        .open_with(7, SourceOptions::new().ring_bytes(1024))
        .unwrap();
    let text = source.to_string().replacen(".1024.", ".1073741824.", 1);
    let error = text.parse::<SourceHandle>().unwrap().connect().unwrap_err();
    assert!(
        matches!(error, ConnectError::WrongSize { id: 7, .. }),
        "{error:?}"
    );
    assert!(source.connect().is_ok(), "the error has claimed nothing");
}

#[test]
fn a_filter_that_does_not_fit_into_a_handle_is_an_error() {
    let long = Filter::off().target("x".repeat(1 << 16), LevelFilter::INFO);
    let error = Collector::new()
        .open_with(7, SourceOptions::new().filter(long))
        .unwrap_err();
    assert!(
        matches!(error, OpenError::FilterTooLong { id: 7, .. }),
        "{error:?}"
    );
}

#[test]
fn a_new_source_has_the_filter_of_its_collector_unless_it_has_its_own() {
    let mut collector = Collector::new();
    let one = Filter::new(LevelFilter::WARN).target("a", LevelFilter::TRACE);
    collector.set_filter(&one).unwrap();
    let handle = collector.spawn(Duration::from_secs(3600)).unwrap();
    assert_eq!(handle.open(1).unwrap().filter(), &one);
    let own = SourceOptions::new().filter(Filter::off());
    let source = handle.open_with(2, own).unwrap();
    assert_eq!(source.filter(), &Filter::off());
    let layer = source.connect().unwrap().build().unwrap();
    let mut watch = layer.filter_watch();
    assert_eq!(
        watch.refresh(),
        None,
        "the earlier filter does not replace its own"
    );
    handle.set_filter(&one).unwrap();
    assert_eq!(watch.refresh(), Some(one), "a later one does");
}

#[cfg(target_os = "linux")]
#[test]
fn the_descriptor_of_a_written_handle_is_collected() {
    use shm_buffers::descriptors::collect;
    let source = Collector::new().open(7).unwrap();
    let mut collector = Collector::new();
    let kept = collector.open(8).unwrap();
    let (_, found) = collect(|| kept.to_string());
    assert_eq!(found.len(), 1);
    let (_, found) = collect(|| serde_json::to_string(&kept).unwrap());
    assert_eq!(found.len(), 1);
    let (_, found) = collect(|| postcard::to_stdvec(&kept).unwrap());
    assert_eq!(found.len(), 1);
    let (_, found) = collect(|| source.to_string());
    assert!(found.is_empty(), "its memory does not exist any more");
}

#[test]
fn a_flood_before_an_immediate_exit_loses_no_count_and_no_summary() {
    const EVENTS: u64 = 20_000;
    const NAME: &str = "handles::a_flood_before_an_immediate_exit_loses_no_count_and_no_summary";
    if let Some(source) = handle_of_child() {
        let guard = source
            .connect()
            .unwrap()
            .overflow(Overflow::Collapse)
            .install()
            .unwrap();
        for n in 0..EVENTS {
            match n % 2 {
                0 => tracing::info!(n, "even"),
                // The reserved part of the ring is full as well.
                _ => tracing::warn!(n, "odd"),
            }
        }
        guard.flush(WATCHDOG).unwrap();
        std::process::exit(0);
    }
    let capture = Capture::default();
    let handle = Collector::new()
        .dispatch(capture.dispatch())
        .spawn(Duration::from_millis(20))
        .unwrap();
    let source = handle
        .open_with(7, SourceOptions::new().ring_bytes(4096))
        .unwrap();
    assert!(start(NAME, &source).wait().unwrap().success());
    let removed = handle.remove(7, WATCHDOG).unwrap();
    let total = removed.tally.total();
    assert_eq!(total.emitted, EVENTS);
    assert_eq!(total.emitted, total.delivered + total.dropped);
    assert!(total.dropped > 0);
    assert_eq!(
        removed.tally.collapsed(),
        total.dropped,
        "each dropped event is in a summary"
    );
    let seen = capture.take();
    for message in ["even", "odd"] {
        let is_summary = |fields: &str| fields.contains(message) && fields.contains("[repeats u64 ");
        assert!(seen.iter().any(|seen| is_summary(&seen.fields)), "{message}");
    }
}

/// Fills the ring of a source, so that a summary is pending.
fn flood(source: &SourceHandle) -> (Dispatch, WorkerGuard) {
    let layer = source
        .connect()
        .unwrap()
        .overflow(Overflow::Collapse)
        .build()
        .unwrap();
    let guard = layer.guard();
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(layer));
    with_default(&dispatch, || (0..1000).for_each(|n| tracing::error!(n, "flood")));
    (dispatch, guard)
}

fn small() -> SourceOptions {
    SourceOptions::new().ring_bytes(2048).filter(Filter::default())
}

#[test]
fn a_flush_waits_for_room_and_no_longer_than_its_timeout() {
    let capture = Capture::default();
    let mut collector = Collector::new().dispatch(capture.dispatch());
    let (dispatch, guard) = flood(&collector.open_with(7, small()).unwrap());
    let short = Duration::from_millis(5);
    let error = guard.flush(short).unwrap_err();
    assert!(
        matches!(error, WorkerFlushError::TimedOut { timeout, records: 2 } if timeout == short),
        "{error:?}"
    );
    let waiting = std::thread::spawn(move || guard.flush(WATCHDOG));
    while !waiting.is_finished() {
        collector.drain();
    }
    assert_eq!(waiting.join().unwrap(), Ok(()));
    drop(dispatch);
    let tally = collector.remove(7).unwrap().tally;
    assert_eq!(tally.collapsed(), tally.total().dropped);
}

#[test]
fn a_guard_keeps_summaries_after_its_layer_was_dropped() {
    let mut collector = Collector::new().dispatch(Capture::default().dispatch());
    let (dispatch, guard) = flood(&collector.open_with(7, small()).unwrap());
    drop(dispatch);
    collector.drain();
    drop(guard);
    let tally = collector.remove(7).unwrap().tally;
    assert!(tally.collapsed() > 0);
    assert_eq!(tally.collapsed(), tally.total().dropped);
}

#[test]
fn a_flush_ends_when_the_leader_has_removed_the_source_or_dropped_its_collector() {
    let mut collector = Collector::new().dispatch(Capture::default().dispatch());
    let ended = |guard: WorkerGuard| {
        let error = guard.flush(WATCHDOG).unwrap_err();
        assert!(matches!(error, WorkerFlushError::LeaderEnded { .. }), "{error:?}");
    };
    let (removed_worker, removed) = flood(&collector.open_with(7, small()).unwrap());
    let (dropped_worker, dropped) = flood(&collector.open_with(8, small()).unwrap());
    collector.remove(7).unwrap();
    // It fills the ring that nothing reads any more.
    with_default(&removed_worker, || {
        (0..1000).for_each(|n| tracing::error!(n, "flood"))
    });
    with_default(&removed_worker, || {
        (0..1000).for_each(|n| tracing::error!(n, "flood"))
    });
    ended(removed);
    drop(collector);
    ended(dropped);
    drop(dropped_worker);
}

#[cfg(target_os = "linux")]
#[test]
fn a_worker_sees_that_its_leader_was_killed() {
    const NAME: &str = "handles::a_worker_sees_that_its_leader_was_killed";
    const FILE: &str = "LOG_BRIDGE_TEST_FILE";
    if let Ok(file) = std::env::var(FILE) {
        let mut collector = Collector::new();
        let sources = [1, 2].map(|id| collector.open_with(id, small()).unwrap().to_string());
        std::fs::write(format!("{file}.new"), sources.join(" ")).unwrap();
        std::fs::rename(format!("{file}.new"), file).unwrap();
        loop {
            std::thread::park();
        }
    }
    let file = std::env::temp_dir().join(format!("log-bridge-test-{}", std::process::id()));
    let mut leader = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME, "--nocapture"])
        .env(FILE, &file)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let text = loop {
        match std::fs::read_to_string(&file) {
            Ok(text) => break text,
            Err(_) => assert!(leader.try_wait().unwrap().is_none(), "the leader has failed"),
        }
        std::thread::yield_now();
    };
    std::fs::remove_file(&file).unwrap();
    let sources: Vec<SourceHandle> = text.split(' ').map(|text| text.parse().unwrap()).collect();
    let (worker, guard) = flood(&sources[0]);
    leader.kill().unwrap();
    leader.wait().unwrap();
    let error = guard.flush(WATCHDOG).unwrap_err();
    assert!(matches!(error, WorkerFlushError::LeaderEnded { .. }), "{error:?}");
    let error = sources[1].connect().unwrap_err();
    assert!(
        matches!(error, ConnectError::LeaderEnded { source: Some(_), .. }),
        "{error:?}"
    );
    shm_buffers::assert_said_once(&error);
    drop(worker);
}

#[test]
fn events_of_connected_threads_arrive_below_their_workers() {
    let capture = Capture::default();
    let mut collector = Collector::new().dispatch(capture.dispatch());
    let options = || SourceOptions::new().filter(Filter::default());
    let sources = [3, 4].map(|id| collector.open_with(id, options()).unwrap());
    std::thread::scope(|scope| {
        for source in &sources {
            scope.spawn(|| with_default(&worker(source), || tracing::info!(id = source.id(), "text")));
        }
    });
    collector.drain();
    let seen = capture.take();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        let id = if seen.fields.contains("[id u64 3]") { 3 } else { 4 };
        assert!(seen.spans[0].ends_with(&format!("[id u64 {id}]")), "{seen:?}");
    }
}
