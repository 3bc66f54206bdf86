//! Writers in other processes, connected by handles.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use progress::shm_buffers::{Backing, Region};
use progress::{Bar, ConnectError, Counters, CountersHandle, Outcome, Total};

use super::WATCHDOG;

/// The variable that names the child's part.
const PART: &str = "PROGRESS_TEST_PART";
/// The variable with the child's handle.
const BAR: &str = "PROGRESS_TEST_BAR";

/// Returns a child of this binary that plays a part.
fn command(part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this binary"));
    command.args(["--exact", "remote::child", "--nocapture"]);
    command
        .env(PART, part)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Starts a child that counts by the handle.
fn start(part: &str, handle: &CountersHandle) -> Child {
    let mut command = command(part);
    command.env(BAR, handle.to_string()).spawn().expect("a process")
}

/// Not a test but the other process of the tests: without its variable, it does nothing.
#[test]
fn child() {
    let Ok(part) = std::env::var(PART) else {
        return;
    };
    let connect = || -> Counters {
        let handle = std::env::var(BAR).expect("a handle");
        handle
            .parse::<CountersHandle>()
            .expect("a handle")
            .connect()
            .expect("a bar")
    };
    match &*part {
        "counts" => {
            let counters = connect();
            for _ in 0..1_000 {
                counters.counter(Outcome::Done).inc();
            }
            counters.bytes().add(7);
        }
        "hangs" => {
            let counters = connect();
            counters.counter(Outcome::Done).add(400);
            counters.step(3, Total::Known(4));
            let _ = std::io::stdin().read(&mut [0]);
        }
        "leads" => {
            let (_source, handle) = Bar::new("leader", Total::Unknown)
                .remote_counters()
                .expect("memory");
            println!("\nHANDLE {handle}");
        }
        other => panic!("no part is called {other}"),
    }
}

/// Waits until the bar has counted `done` tasks.
fn wait_for(bar: &Bar, done: u64) {
    let start = Instant::now();
    while bar.counts().done < done {
        assert!(start.elapsed() < WATCHDOG, "{:?}", bar.counts());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn children_count_exactly_and_a_killed_one_keeps_its_counts() {
    let bar = Bar::new("children", Total::Known(2_400));
    let (killed_source, handle) = bar.labeled_remote_counters("killed").expect("memory");
    let mut killed = start("hangs", &handle);
    let opened = [0, 1].map(|_| bar.remote_counters().expect("memory"));
    let children = opened.map(|(source, handle)| (source, start("counts", &handle)));
    for (source, mut child) in children {
        assert!(child.wait().expect("ended").success());
        assert_eq!((source.counts().done, source.counts().bytes), (1_000, 7));
        source.retire();
    }
    wait_for(&bar, 2_400);
    killed.kill().expect("it runs");
    killed.wait().expect("ended");
    assert_eq!(killed_source.counts().done, 400);
    killed_source.retire();
    assert_eq!((bar.counts().done, bar.counts().bytes), (2_400, 14));
}

#[test]
fn child_of_a_dropped_source_is_counted() {
    let bar = Bar::new("detached", Total::Unknown);
    let (source, handle) = bar.remote_counters().expect("memory");
    drop(source);
    let mut child = start("counts", &handle);
    assert!(child.wait().expect("ended").success());
    assert_eq!(bar.counts().done, 1_000);
}

#[test]
fn only_one_writer_connects_with_a_handle() {
    let bar = Bar::new("once", Total::Unknown);
    let (source, handle) = bar.remote_counters().expect("memory");
    let connected = std::thread::scope(|scope| {
        let threads = [0; 8].map(|_| {
            scope.spawn(|| match handle.connect() {
                Ok(counters) => {
                    counters.counter(Outcome::Done).inc();
                    Some(counters)
                }
                Err(ConnectError::AlreadyConnected) => None,
                Err(other) => panic!("{other:?}"),
            })
        });
        threads.map(|thread| thread.join().expect("no panic"))
    });
    assert_eq!(connected.iter().flatten().count(), 1);
    drop(connected);
    // Also after the writer has ended.
    let error = handle.connect().expect_err("it was connected");
    assert!(matches!(error, ConnectError::AlreadyConnected), "{error:?}");
    source.retire();
    assert_eq!(bar.counts().done, 1);
}

#[test]
fn handle_of_an_ended_leader_does_not_connect() {
    let mut leader = command("leads").spawn().expect("a process");
    let output = BufReader::new(leader.stdout.take().expect("piped"));
    let lines = output.lines().map(|line| line.expect("text"));
    let text = lines
        .filter_map(|line| line.strip_prefix("HANDLE ").map(str::to_owned))
        .last()
        .expect("a handle");
    assert!(leader.wait().expect("ended").success());
    let handle: CountersHandle = text.parse().expect("a handle");
    let error = handle.connect().expect_err("its leader has ended");
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
    assert!(error.to_string().contains("keep its `Source`"), "{error}");
}

#[test]
fn handle_of_a_retired_source_does_not_connect() {
    let bar = Bar::new("retired", Total::Unknown);
    let (source, handle) = bar.remote_counters().expect("memory");
    source.retire();
    let error = handle.connect().expect_err("it is retired");
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn pools_that_collect_descriptors_send_the_counters() {
    use progress::shm_buffers::descriptors;

    let bar = Bar::new("pool", Total::Unknown);
    let opened = [0, 1].map(|_| bar.remote_counters().expect("memory"));
    let [(source, handle), (_other, by_serde)] = opened;
    let (text, displayed) = descriptors::collect(|| handle.to_string());
    let (json, serialized) = descriptors::collect(|| serde_json::to_string(&by_serde).expect("text"));
    assert_eq!((displayed.len(), serialized.len()), (1, 1));
    assert_eq!(
        serde_json::from_str::<CountersHandle>(&json).expect("a handle"),
        by_serde
    );
    // This process stands for a worker that received the descriptor.
    for fd in displayed.as_fds() {
        let fd = fd.try_clone_to_owned().expect("a free descriptor");
        descriptors::adopt(fd).expect("it is open");
    }
    source.retire();
    let handle: CountersHandle = text.parse().expect("a handle");
    let error = handle.connect().expect_err("it is retired");
    assert!(matches!(error, ConnectError::Retired), "{error:?}");
}

#[test]
fn memory_without_counters_does_not_connect() {
    for bytes in [8, 4096] {
        let region = Region::create(&Backing::Auto, bytes).expect("memory");
        let text = format!("counters:{}", region.handle().expect("its owner"));
        let handle: CountersHandle = text.parse().expect("a handle");
        let error = handle.connect().expect_err("no counters");
        assert!(matches!(error, ConnectError::OtherLayout), "{error:?}");
    }
}

#[test]
fn text_that_is_no_handle_is_an_error_with_the_remedy() {
    let bar = Bar::new("text", Total::Unknown);
    let (_source, handle) = bar.remote_counters().expect("memory");
    let text = handle.to_string();
    assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
    assert_eq!(text.parse(), Ok(handle));
    for end in 0..text.len() {
        // A shortened number is another number; no prefix panics.
        let _ = text[..end].parse::<CountersHandle>();
    }
    for wrong in [
        "",
        "counters:",
        "bar",
        "counters:region",
        "counters:region:x:y",
        "counters:é\0",
    ] {
        let error = wrong.parse::<CountersHandle>().expect_err(wrong);
        assert!(format!("{error:?}").contains("unchanged"), "{error:?}");
    }
}
