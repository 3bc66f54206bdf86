//! Floods: more events than the leader can replay.

use std::io;
use std::time::{Duration, Instant};

use log_bridge::{Collector, Source, Tally};
use tracing::{Dispatch, Level};
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;

use crate::Effort;
use crate::process::{self, Bridge, GO, LOST, NANOS, READY};
use crate::rows::median;
use crate::table::{Ratio, Table};

const RING: usize = 1 << 20;
const WORKERS: u64 = 2;
/// Bytes that the leader may use besides the rings: for callsites, last records and buffers.
const LEADER_BOUND: u64 = 16 << 20;
const INTERVAL: Duration = Duration::from_millis(25);
const LEVELS: [Level; 5] = [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE];

/// The case that workers run, the name of its row, and the name of the row for its counts.
const CASES: [(&str, &str, &str); 2] = [
    (
        "flood-bridge",
        "flood of 2 workers, dropped / fastest lossy logger",
        "  then emitted = delivered + dropped, per level",
    ),
    (
        "flood-batch",
        "flood of 2 workers, collapsed / same",
        "  then emitted = delivered + collapsed, per level",
    ),
];

/// One run of each, in turns.
struct Round {
    appender: f64,
    channel: f64,
    floods: [(f64, Tally); CASES.len()],
}

pub(crate) fn measure(effort: Effort, table: &mut Table) {
    let alone = |name| process::result(process::start(name, effort.flood, RING, None));
    let before = reset_peak_resident();
    let rounds: Vec<Round> = (0..effort.rounds)
        .map(|_| Round {
            appender: alone("flood-appender"),
            channel: alone("flood-channel"),
            floods: CASES.map(|(case, ..)| flood(case, effort.flood)),
        })
        .collect();
    for (index, (_, what, sum)) in CASES.iter().enumerate() {
        let [appender, channel, nanos] = [
            median(rounds.iter().map(|round| round.appender)),
            median(rounds.iter().map(|round| round.channel)),
            median(rounds.iter().map(|round| round.floods[index].0)),
        ];
        let detail =
            format!("{nanos:.0} ns an event; tracing-appender {appender:.0}, bare channel {channel:.0}");
        let ratios = rounds
            .iter()
            .map(|round| round.floods[index].0 / round.appender.min(round.channel));
        table.at_most(what, 1.1, Ratio::of(ratios), detail);
        let tallies = || rounds.iter().map(|round| &round.floods[index].1);
        let wrong = tallies().find(|tally| !adds_up(tally, effort.flood));
        let shown = wrong
            .or(tallies().next())
            .map_or_else(String::new, Tally::to_string);
        table.holds(sum, wrong.is_none(), shown);
    }
    if let (Some(before), Some(after)) = (before, peak_resident()) {
        let grown = after.saturating_sub(before);
        let bound = LEADER_BOUND + WORKERS * RING as u64;
        let detail = format!("grew by {} KiB at most, bound {} KiB", grown >> 10, bound >> 10);
        table.holds("  leader's memory stays within its bound", grown <= bound, detail);
    }
    killed(table);
    important(effort, table);
}

fn collector() -> Collector {
    let layer = fmt::layer().with_ansi(false).with_writer(io::sink);
    Collector::new().dispatch(Dispatch::new(tracing_subscriber::registry().with(layer)))
}

/// Returns the nanoseconds per event of the slower worker, and the counts of all events.
fn flood(case: &str, events: u64) -> (f64, Tally) {
    let leader = collector().spawn(INTERVAL).expect("a thread");
    let bridges: Vec<_> = (0..WORKERS).map(|_| Bridge::create(RING)).collect();
    let mut children = Vec::new();
    for (id, bridge) in bridges.iter().enumerate() {
        leader
            .add(Source::new(id as u64), bridge.consumer(), bridge.slots())
            .expect("enough slots");
        children.push(process::start(case, events, RING, Some(bridge)));
    }
    while bridges
        .iter()
        .any(|bridge| bridge.own().slot(READY).load_acquire() == 0)
    {
        std::thread::sleep(Duration::from_millis(1));
    }
    bridges
        .iter()
        .for_each(|bridge| bridge.own().slot(GO).store_release(1));
    for child in children {
        let done = child.wait_with_output().expect("the worker's end");
        assert!(done.status.success(), "a worker failed");
    }
    let slower = bridges
        .iter()
        .map(|bridge| bridge.own().slot(NANOS).load_acquire())
        .max();
    (slower.unwrap_or_default() as f64, leader.stop())
}

fn adds_up(tally: &Tally, events: u64) -> bool {
    let expected = [1, 1, 1, 6, 1].map(|tenths| WORKERS * events / 10 * tenths);
    LEVELS.iter().zip(expected).all(|(level, expected)| {
        let level = tally.level(*level);
        level.emitted == expected && level.delivered + level.dropped == expected
    })
}

/// Resets the peak that [`peak_resident`] returns; returns the bytes of this process that are resident now.
fn reset_peak_resident() -> Option<u64> {
    // "5" resets the peak; see proc_pid_clear_refs(5).
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    peak_resident()
}

/// Returns the peak of the resident bytes of this process.
fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

fn killed(table: &mut Table) {
    let (mut adds_up, mut cut_off, mut all) = (true, 0, 0);
    const KILLS: u64 = 20;
    for id in 0..KILLS {
        let leader = collector().spawn(INTERVAL).expect("a thread");
        let bridge = Bridge::create(RING);
        let own = bridge.own();
        leader
            .add(Source::new(id), bridge.consumer(), bridge.slots())
            .expect("enough slots");
        let mut child = process::start("kill", 0, RING, Some(&bridge));
        while own.slot(5).load_acquire() < 500 * (id + 1) {
            std::thread::yield_now();
        }
        child.kill().expect("the worker is our child");
        child.wait().expect("the worker is our child");
        let departed = leader
            .remove(id, Duration::from_secs(60))
            .expect("the worker was added");
        for (index, level) in LEVELS.iter().enumerate() {
            let level = departed.tally.level(*level);
            let (started, finished) = (own.slot(index).load_acquire(), own.slot(5 + index).load_acquire());
            adds_up &= level.emitted == level.delivered + level.dropped;
            adds_up &= (finished..=started).contains(&level.emitted);
            cut_off += started - finished;
            all += level.emitted;
        }
    }
    let detail = format!("{KILLS} kills, {all} events, {cut_off} of them cut off in the middle");
    table.holds(
        "the same after SIGKILL, by the worker's own count",
        adds_up,
        detail,
    );
}

fn important(effort: Effort, table: &mut Table) {
    let leader = collector().spawn(INTERVAL).expect("a thread");
    let bridge = Bridge::create(RING);
    leader
        .add(Source::new(0), bridge.consumer(), bridge.slots())
        .expect("enough slots");
    let start = Instant::now();
    let child = process::start("important", effort.flood / 50, RING, Some(&bridge));
    let done = child.wait_with_output().expect("the worker's end");
    assert!(done.status.success(), "the worker failed");
    let tally = leader.stop();
    let (warn, error, debug) = (
        tally.level(Level::WARN),
        tally.level(Level::ERROR),
        tally.level(Level::DEBUG),
    );
    let emitted = bridge.own().slot(LOST).load_acquire();
    let all = warn.delivered + error.delivered == emitted && debug.dropped > 0;
    let seconds = Duration::from_nanos(bridge.own().slot(NANOS).load_acquire()).as_secs_f64();
    let detail = format!(
        "{emitted} at {:.0} a second, among {} of DEBUG of which {} were dropped, in {:.1} s",
        emitted as f64 / seconds,
        debug.emitted,
        debug.dropped,
        start.elapsed().as_secs_f64()
    );
    table.holds("WARN and ERROR among a DEBUG flood all delivered", all, detail);
}
