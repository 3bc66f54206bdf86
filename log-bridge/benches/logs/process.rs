//! Starts cases in processes of their own, and shares memory with them.

use std::process::{Child, Command, Stdio};

use log_bridge::SLOTS;
use shm_buffers::ring::{Consumer, Producer};
use shm_buffers::slots::Slots;
use shm_buffers::{Backing, Layout, Region, RegionHandle, Span};

const CASE: &str = "LOG_BRIDGE_BENCH_CASE";
const REGION: &str = "LOG_BRIDGE_BENCH_REGION";
/// Slots of the benchmark itself: events started and finished per level, signals, and results.
const OWN: usize = 16;
pub(crate) const GO: usize = 10;
pub(crate) const READY: usize = 11;
pub(crate) const NANOS: usize = 12;
pub(crate) const LOST: usize = 13;

/// A case, and the number of events that it emits.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) events: u64,
    pub(crate) bridge: Option<Bridge>,
}

/// One worker's ring, counters, and the benchmark's own slots.
pub(crate) struct Bridge {
    region: Region,
    spans: [Span; 3],
}

impl Bridge {
    pub(crate) fn create(ring: usize) -> Self {
        let (layout, spans) = Self::layout(ring);
        let region = Region::create(&Backing::Auto, layout.byte_len()).expect("a shared region");
        Self { region, spans }
    }

    fn layout(ring: usize) -> (Layout, [Span; 3]) {
        let mut layout = Layout::new();
        let spans = [layout.ring(ring), layout.slots(SLOTS), layout.slots(OWN)];
        (layout, spans)
    }

    pub(crate) fn producer(&self) -> Producer {
        Producer::new(&self.region, self.spans[0])
    }

    pub(crate) fn consumer(&self) -> Consumer {
        Consumer::new(&self.region, self.spans[0])
    }

    pub(crate) fn slots(&self) -> Slots {
        Slots::new(&self.region, self.spans[1])
    }

    pub(crate) fn own(&self) -> Slots {
        Slots::new(&self.region, self.spans[2])
    }
}

/// Returns the case that this process runs, or `None` in the first process.
pub(crate) fn case() -> Option<Case> {
    let text = std::env::var(CASE).ok()?;
    let mut parts = text.split(' ');
    let mut part = || parts.next().expect("a case is NAME EVENTS RING");
    let (name, events, ring) = (part().to_owned(), part(), part());
    let bridge = std::env::var(REGION).ok().map(|handle| {
        let handle: RegionHandle = serde_json::from_str(&handle).expect("a handle");
        let region = Region::attach(&handle).expect("the region of the parent process");
        let (_, spans) = Bridge::layout(ring.parse().expect("bytes of the ring"));
        Bridge { region, spans }
    });
    Some(Case {
        name,
        events: events.parse().expect("a number of events"),
        bridge,
    })
}

/// Starts a case.
pub(crate) fn start(name: &str, events: u64, ring: usize, bridge: Option<&Bridge>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command
        .env(CASE, format!("{name} {events} {ring}"))
        .stdout(Stdio::piped());
    match bridge {
        Some(bridge) => {
            let handle = bridge
                .region
                .handle()
                .expect("a region that other processes can attach");
            command.env(REGION, serde_json::to_string(&handle).expect("a handle is text"))
        }
        None => command.env_remove(REGION),
    };
    command.spawn().expect("this program can be started again")
}

/// Waits for a case; returns the nanoseconds per event that it prints.
pub(crate) fn result(child: Child) -> f64 {
    let output = child.wait_with_output().expect("the case's output");
    assert!(output.status.success(), "a case failed: {}", output.status);
    let text = String::from_utf8(output.stdout).expect("a number");
    text.trim().parse().expect("a number")
}
