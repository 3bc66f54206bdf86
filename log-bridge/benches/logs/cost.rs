//! The cost of an event, for the worker and for the leader.

use std::io;
use std::time::Duration;

use log_bridge::{Collector, Source};
use tracing::Dispatch;
use tracing_subscriber::fmt;
use tracing_subscriber::layer::SubscriberExt;

use crate::Effort;
use crate::process::{self, Bridge, GO, READY};
use crate::rows::median;
use crate::table::{Ratio, Table};

const RING: usize = 8 << 20;
/// The ring of a worker whose leader never drains it: it is full after a few hundred events.
const SMALL: usize = 64 << 10;

pub(crate) fn measure(effort: Effort, table: &mut Table) {
    let mut rounds: Vec<[f64; 13]> = Vec::new();
    for _ in 0..effort.rounds {
        let alone = |name, events| process::result(process::start(name, events, RING, None));
        let bridged = |name, events| {
            let bridge = Bridge::create(SMALL);
            process::result(process::start(name, events, SMALL, Some(&bridge)))
        };
        rounds.push([
            alone("disabled-fmt", effort.events),
            bridged("disabled-bridge", effort.events),
            alone("target-fmt", effort.events),
            bridged("target-bridge", effort.events),
            alone("fmt", effort.events),
            drained("bridge", effort.events),
            bridged("overload", effort.events),
            bridged("overload-batch", effort.events),
            alone("fmt-span", effort.events),
            drained("bridge-span", effort.events),
            alone("direct", effort.events),
            alone("direct-span", effort.events),
            alone("replay", effort.events),
        ]);
    }
    let nanos = |case: Case| median(rounds.iter().map(|round| round[case as usize]));
    let over = |above: Case, below: Case| {
        Ratio::of(
            rounds
                .iter()
                .map(|round| round[above as usize] / round[below as usize]),
        )
    };
    let against = |ours: Case, theirs: Case| format!("{:.0} against {:.0} ns", nanos(ours), nanos(theirs));
    let fine = |ours: Case, theirs: Case| format!("{:.2} against {:.2} ns", nanos(ours), nanos(theirs));
    table.at_most(
        "disabled by the leader's filter / by fmt's own",
        1.2,
        over(Case::Filtered, Case::Disabled),
        fine(Case::Filtered, Case::Disabled),
    );
    table.at_most(
        "the same, by a directive for another target",
        1.2,
        over(Case::Target, Case::TargetFmt),
        fine(Case::Target, Case::TargetFmt),
    );
    for (what, most, case) in [
        ("delivered / fmt into tracing-appender", 0.5, Case::Delivered),
        ("overload, dropped / same", 0.2, Case::Overload),
        ("overload, collapsed / same", 0.2, Case::Batch),
    ] {
        table.at_most(what, most, over(case, Case::Fmt), against(case, Case::Fmt));
    }
    table.info(
        "delivered in a span / fmt in a span",
        over(Case::Span, Case::FmtSpan),
        against(Case::Span, Case::FmtSpan),
    );
    table.at_least(
        "rate of replay / of emission into the same subscriber",
        0.5,
        over(Case::Direct, Case::Replay),
        against(Case::Replay, Case::Direct),
    );
    table.info(
        "the same, emitted in a span like that of the worker",
        over(Case::DirectSpan, Case::Replay),
        against(Case::Replay, Case::DirectSpan),
    );
    for (name, case) in [
        ("disabled", Case::Filtered),
        ("dropped", Case::Overload),
        ("delivered", Case::Delivered),
        ("fmt, tracing-appender", Case::Fmt),
    ] {
        table.bar(name, nanos(case));
    }
}

/// The index of a case in a round.
#[derive(Clone, Copy)]
enum Case {
    Disabled,
    Filtered,
    TargetFmt,
    Target,
    Fmt,
    Delivered,
    Overload,
    Batch,
    FmtSpan,
    Span,
    Direct,
    DirectSpan,
    Replay,
}

/// Runs a case while the leader drains its ring all the time; returns the nanoseconds per event.
fn drained(name: &str, events: u64) -> f64 {
    let bridge = Bridge::create(RING);
    let own = bridge.own();
    let layer = fmt::layer().with_ansi(false).with_writer(io::sink);
    let mut collector = Collector::new().dispatch(Dispatch::new(tracing_subscriber::registry().with(layer)));
    collector
        .add(Source::new(3), bridge.consumer(), bridge.slots())
        .expect("enough slots");
    let mut child = process::start(name, events, RING, Some(&bridge));
    loop {
        let request = own.slot(READY).load_acquire();
        // The reply means that the ring is empty.
        if collector.drain().records == 0 {
            own.slot(GO).store_release(request);
            if child.try_wait().expect("the state of the worker").is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let tally = collector.remove(3).expect("the worker was added").tally;
    assert_eq!(tally.total().dropped, 0, "not all events were delivered");
    process::result(child)
}
