//! The fault matrix: in which phase of a worker's life × what happens to it × how many workers × which order.
//!
//! `cargo xtask faults` runs it whole; the tests run a few cases, so that the matrix itself stays alive. Each phase and
//! fault is a row, which has a leader process of its own; its cases run there one after the other, so that what one of
//! them leaks is seen. [`victim`] is what fails, [`row`] what a leader looks at, [`report`] the table.

mod report;
mod row;
mod victim;

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use serde::{Deserialize, Serialize};

use crate::support::{Alone, is_alone, test_name, watchdog};

pub(crate) use victim::before_init;

/// What a worker does when it is struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Phase {
    /// The process runs, and has not come to `init`.
    Spawn,
    /// `init` connects to the leader.
    Connect,
    /// Shared memory is mapped and the service made.
    Attach,
    /// A task is taken from its ring.
    Receive,
    /// A piece of a task is taken from its arena.
    ReceiveLarge,
    Decode,
    Run,
    Encode,
    /// The outcome goes into its ring.
    SendSmall,
    /// The outcome goes into an arena, in pieces.
    SendLarge,
    /// The service writes into its side ring.
    Log,
    /// There is nothing to do.
    Idle,
}

const PHASES: [Phase; 12] = [
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
}

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
        }
    }

    fn of(name: &str) -> Option<Self> {
        FAULTS.into_iter().find(|it| it.name() == name)
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

/// Why the two don't go together, if they don't.
fn senseless(phase: Phase, fault: Fault) -> Option<&'static str> {
    match (phase, fault) {
        (
            Phase::Connect | Phase::Receive | Phase::ReceiveLarge | Phase::SendSmall | Phase::SendLarge,
            Fault::Panic,
        ) => Some("no code of the user's runs there, and the pool's own has nothing to panic for"),
        (Phase::Attach, Fault::Enospc) => Some("what is mapped is there already: no space is asked for"),
        _ => None,
    }
}

fn rows() -> impl Iterator<Item = (Phase, Fault)> {
    let pairs = PHASES
        .into_iter()
        .flat_map(|phase| FAULTS.map(|fault| (phase, fault)));
    pairs.filter(|(phase, fault)| senseless(*phase, *fault).is_none())
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

/// What is to be run.
const SELECTION: &str = "IT_FAULTS";

/// The rows that the environment asks for: `all`, `sample SEED` (each row once), `only CASE`; a few by default.
fn selection() -> Vec<Vec<Case>> {
    let wish = std::env::var(SELECTION).unwrap_or_default();
    let mut words = wish.split(' ');
    match words.next().unwrap_or_default() {
        "all" => rows().map(|row| cases_of(row).collect()).collect(),
        "sample" => {
            let seed: u64 = words.next().and_then(|seed| seed.parse().ok()).expect("a seed");
            let mut random = crate::support::random(seed);
            let mut one = |row| {
                let cases: Vec<Case> = cases_of(row).filter(|case| !case.waits_for_the_pool()).collect();
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
            let diagonal = PHASES.into_iter().zip(FAULTS.into_iter().cycle().skip(4));
            let diagonal = diagonal.filter(|(phase, fault)| senseless(*phase, *fault).is_none());
            let of_two = |row| cases_of(row).filter(|case| case.workers == 2).take(1).collect();
            diagonal.map(of_two).collect()
        }
    }
}

impl Case {
    /// Whether the worker lives on without memory, until it needs some.
    fn starves(self) -> bool {
        let at_the_pools_work = matches!(
            self.phase,
            Phase::Receive | Phase::ReceiveLarge | Phase::SendSmall | Phase::SendLarge | Phase::Log
        );
        self.fault == Fault::Alloc && at_the_pools_work
    }

    /// Whether it takes the pool half a minute to find out.
    fn waits_for_the_pool(self) -> bool {
        self.fault == Fault::Stop
            && matches!(self.phase, Phase::Receive | Phase::ReceiveLarge | Phase::Idle)
            && self.workers == 1
    }
}

#[test]
fn faults() {
    if is_alone() {
        return row::lead();
    }
    let queue = Mutex::new(selection());
    let report = Mutex::new(report::Report::default());
    let _watchdog = watchdog(3600);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(cases) = queue.lock().expect("nobody panics").pop() else {
                        return;
                    };
                    run_row(cases, &report);
                }
            });
        }
    });
    let report = report.into_inner().expect("nobody panics");
    println!("{report}");
    assert_eq!(report.failures(), 0, "see above");
}

/// Runs the cases in a leader of their own; in another one those that are left when it has ended before its time.
fn run_row(mut cases: Vec<Case>, report: &Mutex<report::Report>) {
    while !cases.is_empty() {
        let list: Vec<String> = cases.iter().map(ToString::to_string).collect();
        let leader = Alone::new(&test_name_of_faults()).env(row::CASES, list.join(" "));
        let (output, left) = leader.report();
        let said = String::from_utf8_lossy(&output.stdout);
        let mut report = report.lock().expect("nobody panics");
        for line in said
            .lines()
            .filter_map(|line| line.split_once("<<").map(|(_, line)| line))
        {
            let done = report.add(line);
            cases.retain(|case| Some(*case) != done);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        if !cases.is_empty() {
            let tail: Vec<&str> = complaint.lines().rev().take(8).collect();
            report.fail(
                cases.remove(0),
                &format!("its leader ended, {}: {tail:?}", output.status),
            );
        } else if !left.is_empty() {
            report.fail(list[0].parse().expect("ours"), &format!("the row left {left:?}"));
        }
    }
}

fn test_name_of_faults() -> String {
    let name = test_name!();
    name.replace("test_name_of_", "")
}
