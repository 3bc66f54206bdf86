//! The fault matrix: each phase of a worker's life × each fault × number of workers × order of the map.
//!
//! `cargo xtask faults` runs the whole matrix; the tests run a few cases, so that the code of the matrix stays tested. A
//! phase and a fault make a row. Each row has a leader process of its own, which runs its cases one after the other and
//! notices leaks of each case. [`faulty_worker`] injects the faults, [`row`] is the leader with its checks, [`report`] the
//! table.

mod faulty_worker;
mod payload_rows;
mod payload_worker;
mod report;
mod row;

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::support::{IsolatedTest, is_isolated, random, test_name, watchdog};

pub(crate) use faulty_worker::before_init;

/// The phase of a worker in which the fault occurs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Phase {
    /// The process runs, and has not called `init`.
    Spawn,
    /// `init` connects to the leader.
    Connect,
    /// `init` maps the shared memory and starts the service.
    Attach,
    /// The worker takes a task from its ring.
    Receive,
    /// The worker takes a piece of a task from its arena.
    ReceiveLarge,
    Decode,
    Run,
    Encode,
    /// The worker writes an outcome into its ring.
    SendSmall,
    /// The worker writes the pieces of an outcome into an arena.
    SendLarge,
    /// The service writes into its side ring.
    Log,
    /// The worker has nothing to do.
    Idle,
    /// The worker has read two pieces of a task from a full arena, and reads the third.
    ReadPiece,
    /// The worker has sent two pieces of an output, and writes the third.
    WritePiece,
    /// The worker has written the last piece of an output, and not yet the piece's frame.
    PublishPiece,
    /// A large task is half sent. This and the next phase are for faults of the leader.
    HalfTask,
    /// A large output is half received.
    HalfOutput,
}

const PHASES: [Phase; 17] = [
    Phase::Spawn,
    Phase::Connect,
    Phase::Attach,
    Phase::Receive,
    Phase::ReceiveLarge,
    Phase::Decode,
    Phase::Run,
    Phase::Encode,
    Phase::SendSmall,
    Phase::SendLarge,
    Phase::Log,
    Phase::Idle,
    Phase::ReadPiece,
    Phase::WritePiece,
    Phase::PublishPiece,
    Phase::HalfTask,
    Phase::HalfOutput,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Fault {
    Panic,
    Exit0,
    Exit3,
    Abort,
    Kill,
    Segv,
    Stop,
    /// An allocation that fails.
    Alloc,
    Emfile,
    Enospc,
    /// The leader drops the handle of a task. This and the following are faults of the leader.
    DropHandle,
    DropMap,
    Cancel,
    /// The leader cancels a task even if it is running.
    KillTask,
    Deadline,
    Shutdown,
    DropPool,
}

/// The faults of workers.
const FAULTS: [Fault; 10] = [
    Fault::Panic,
    Fault::Exit0,
    Fault::Exit3,
    Fault::Abort,
    Fault::Kill,
    Fault::Segv,
    Fault::Stop,
    Fault::Alloc,
    Fault::Emfile,
    Fault::Enospc,
];

const LEADER_FAULTS: [Fault; 7] = [
    Fault::DropHandle,
    Fault::DropMap,
    Fault::Cancel,
    Fault::KillTask,
    Fault::Deadline,
    Fault::Shutdown,
    Fault::DropPool,
];

const ALL_FAULTS: [Fault; 17] = {
    let mut all = [Fault::Panic; 17];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < FAULTS.len() {
            FAULTS[at]
        } else {
            LEADER_FAULTS[at - FAULTS.len()]
        };
        at += 1;
    }
    all
};

const WORKERS: [usize; 4] = [1, 2, 5, 13];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Ordered,
    Unordered,
}

/// One cell of the matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Case {
    phase: Phase,
    fault: Fault,
    workers: usize,
    order: Order,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Spawn => "spawn",
            Self::Connect => "connect",
            Self::Attach => "attach",
            Self::Receive => "receive",
            Self::Decode => "decode",
            Self::Run => "run",
            Self::Encode => "encode",
            Self::SendSmall => "send-small",
            Self::ReceiveLarge => "receive-large",
            Self::SendLarge => "send-large",
            Self::Log => "log",
            Self::Idle => "idle",
            Self::ReadPiece => "read-piece",
            Self::WritePiece => "write-piece",
            Self::PublishPiece => "publish-piece",
            Self::HalfTask => "half-task",
            Self::HalfOutput => "half-output",
        }
    }

    fn of(name: &str) -> Option<Self> {
        PHASES.into_iter().find(|it| it.name() == name)
    }
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Panic => "panic",
            Self::Exit0 => "exit0",
            Self::Exit3 => "exit3",
            Self::Abort => "abort",
            Self::Kill => "KILL",
            Self::Segv => "SEGV",
            Self::Stop => "STOP",
            Self::Alloc => "alloc",
            Self::Emfile => "EMFILE",
            Self::Enospc => "ENOSPC",
            Self::DropHandle => "drop-handle",
            Self::DropMap => "drop-map",
            Self::Cancel => "cancel",
            Self::KillTask => "kill-task",
            Self::Deadline => "deadline",
            Self::Shutdown => "shutdown",
            Self::DropPool => "drop-pool",
        }
    }

    fn of(name: &str) -> Option<Self> {
        ALL_FAULTS.into_iter().find(|it| it.name() == name)
    }
}

impl Order {
    fn name(self) -> &'static str {
        match self {
            Self::Ordered => "ordered",
            Self::Unordered => "unordered",
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phase, fault) = (self.phase.name(), self.fault.name());
        write!(f, "{phase}/{fault}/{}/{}", self.workers, self.order.name())
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('/');
        let mut part = |what: &str| parts.next().ok_or(format!("`{text}` has no {what}"));
        let case = Self {
            phase: Phase::of(part("phase")?).ok_or("no such phase")?,
            fault: Fault::of(part("fault")?).ok_or("no such fault")?,
            workers: part("number of workers")?.parse().map_err(|_| "no such number")?,
            order: match part("order")? {
                "ordered" => Order::Ordered,
                "unordered" => Order::Unordered,
                _ => Err("no such order")?,
            },
        };
        Ok(case)
    }
}

/// Returns why this fault cannot occur in this phase; `None` if it can.
fn impossible(phase: Phase, fault: Fault) -> Option<&'static str> {
    match (phase, fault) {
        (
            Phase::Connect
            | Phase::Receive
            | Phase::ReceiveLarge
            | Phase::SendSmall
            | Phase::SendLarge
            | Phase::ReadPiece
            | Phase::WritePiece
            | Phase::PublishPiece,
            Fault::Panic,
        ) => Some("no code of the user runs there, and the pool's code does not panic"),
        (Phase::HalfTask, Fault::DropMap) => Some("the map's caller waits for the outputs before that task"),
        (Phase::Attach, Fault::Enospc) => Some("the worker maps existing memory, which needs no space"),
        _ => None,
    }
}

/// Returns each phase with each fault of the side that it is about, possible or not.
fn pairs() -> impl Iterator<Item = (Phase, Fault)> {
    PHASES.into_iter().flat_map(|phase| {
        let faults = match phase {
            Phase::HalfTask | Phase::HalfOutput => &LEADER_FAULTS[..],
            _ => &FAULTS[..],
        };
        faults.iter().map(move |fault| (phase, *fault))
    })
}

fn rows() -> impl Iterator<Item = (Phase, Fault)> {
    let pairs = pairs();
    pairs.filter(|(phase, fault)| impossible(*phase, *fault).is_none())
}

fn cases_of((phase, fault): (Phase, Fault)) -> impl Iterator<Item = Case> {
    let numbers = WORKERS.into_iter();
    numbers.flat_map(move |workers| {
        [Order::Ordered, Order::Unordered].map(|order| Case {
            phase,
            fault,
            workers,
            order,
        })
    })
}

/// The variable that selects the cases to run.
const SELECTION: &str = "IT_FAULTS";

/// Returns the rows that [`SELECTION`] asks for: `all`, `sample SEED` (one case of each row) or `only CASE`; a few by
/// default.
fn selection() -> Vec<Vec<Case>> {
    let selection = std::env::var(SELECTION).unwrap_or_default();
    let mut words = selection.split(' ');
    match words.next().unwrap_or_default() {
        "all" => rows().map(|row| cases_of(row).collect()).collect(),
        "sample" => {
            let seed: u64 = words
                .next()
                .and_then(|seed| seed.parse().ok())
                .expect("`sample` has a seed");
            let mut random = random(seed);
            let mut one = |row| {
                let cases: Vec<Case> = cases_of(row)
                    .filter(|case| !case.ends_by_a_long_timeout())
                    .collect();
                vec![cases[random() as usize % cases.len()]]
            };
            rows().map(&mut one).collect()
        }
        "only" => {
            let case = words.next().unwrap_or_default();
            vec![vec![case.parse().unwrap_or_else(|why| panic!("{why}"))]]
        }
        // Each phase and each fault once, with two workers.
        _ => {
            let of_workers = PHASES.into_iter().zip(FAULTS.into_iter().cycle().skip(4));
            let of_leaders = [Phase::HalfOutput, Phase::HalfTask]
                .into_iter()
                .cycle()
                .zip(LEADER_FAULTS);
            let diagonal = of_workers
                .filter(|row| !matches!(row.0, Phase::HalfTask | Phase::HalfOutput))
                .chain(of_leaders);
            let diagonal = diagonal.filter(|(phase, fault)| impossible(*phase, *fault).is_none());
            let of_two = |row| cases_of(row).filter(|case| case.workers == 2).take(1).collect();
            diagonal.map(of_two).collect()
        }
    }
}

impl Case {
    /// Whether the worker runs on without memory, until it needs some.
    fn dies_at_the_next_allocation(self) -> bool {
        let in_the_pools_code = matches!(
            self.phase,
            Phase::Receive | Phase::ReceiveLarge | Phase::SendSmall | Phase::SendLarge | Phase::Log
        );
        self.fault == Fault::Alloc && in_the_pools_code
    }

    /// Whether the pool notices the fault only by a timeout of half a minute.
    fn ends_by_a_long_timeout(self) -> bool {
        self.fault == Fault::Stop
            && matches!(
                self.phase,
                Phase::Receive | Phase::ReceiveLarge | Phase::ReadPiece | Phase::Idle
            )
            && self.workers == 1
    }
}

#[test]
fn every_case_ends_as_expected() {
    if is_isolated() {
        return row::lead();
    }
    let test = test_name!();
    let queue = Mutex::new(selection());
    let report = Mutex::new(report::Report::default());
    let _watchdog = watchdog(3600);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(cases) = queue.lock().expect("the lock is not poisoned").pop() else {
                        return;
                    };
                    run_row(&test, cases, &report);
                }
            });
        }
    });
    let report = report.into_inner().expect("the lock is not poisoned");
    println!("{report}");
    assert_eq!(report.failures(), 0, "see above");
}

/// Runs the cases in a leader of their own. If it ends early, the case that it was running has failed, and another leader
/// runs the rest.
fn run_row(test: &str, mut cases: Vec<Case>, report: &Mutex<report::Report>) {
    while !cases.is_empty() {
        let list: Vec<String> = cases.iter().map(ToString::to_string).collect();
        let leader = IsolatedTest::new(test).env(row::CASES, list.join(" "));
        let (output, left) = leader.run_and_collect();
        let printed = String::from_utf8_lossy(&output.stdout);
        let mut report = report.lock().expect("the lock is not poisoned");
        for line in printed
            .lines()
            .filter_map(|line| line.split_once("<<").map(|(_, line)| line))
        {
            let done = report.add(line);
            cases.retain(|case| Some(*case) != done);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        if !cases.is_empty() {
            let tail: Vec<&str> = errors.lines().rev().take(8).collect();
            report.fail(
                cases.remove(0),
                &format!("its leader ended, {}: {tail:?}", output.status),
            );
        } else if !left.is_empty() {
            report.fail(
                list[0].parse().expect("it is a case"),
                &format!("the row left {left:?}"),
            );
        }
    }
}
