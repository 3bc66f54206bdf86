//! Which benchmarks there are, by area.
//!
//! What runs in one process is measured by criterion: write it as a benchmark, and its comparisons here. What spans
//! processes is a benchmark with `harness = false`, or an example, that takes `--quick` and `--bytes N`, measures against a
//! floor or a peer in turns with it, and tells its rows itself (`rows`); it needs a line here. Few rounds are enough:
//! everything is run in several passes (`passes`), each a new process, and the spread of a row is that of all of them.

/// What one crate, or one question, is measured by.
#[derive(Debug)]
pub(super) struct Area {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    pub(super) scenarios: &'static [Scenario],
}

/// A benchmark.
#[derive(Debug)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// The package of the workspace that holds it.
    pub(super) package: &'static str,
    pub(super) target: Target,
}

/// How cargo knows a benchmark.
#[derive(Debug)]
pub(super) enum Target {
    /// A `[[bench]]` with `harness = false`.
    Bench(&'static str),
    /// An example, run in release.
    Example(&'static str),
    /// A `[[bench]]` of criterion's, and the table that is made of what it finds.
    Criterion(&'static str, &'static str, &'static [Comparison]),
}

impl Target {
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Bench(name) | Self::Example(name) | Self::Criterion(name, ..) => name,
        }
    }
}

/// Two of criterion's benchmarks, by its names for them.
#[derive(Debug)]
pub(super) struct Comparison {
    pub(super) row: &'static str,
    pub(super) measured: &'static str,
    /// The floor or the peer.
    pub(super) against: &'static str,
    /// The first's time over the second's is to be at most that.
    pub(super) at_most: Option<f64>,
}

/// The areas, from the ground floor up.
pub(super) const AREAS: &[Area] = &[
    Area {
        name: "shm",
        about: "sharing and attaching a model",
        scenarios: &[
            Scenario {
                name: "memory",
                about: "share, move and attach a model, and what it occupies, against memcpy and the model's size",
                package: "shm-buffers",
                target: Target::Bench("memory"),
            },
            Scenario {
                name: "rings",
                about: "a frame through a ring, and a count in a slot, against copying and relaxed atomics",
                package: "shm-buffers",
                target: Target::Criterion("rings", "Rings and slots, within one process", RINGS),
            },
        ],
    },
    Area {
        name: "pool",
        about: "dispatch, start and waking, against threads, bare pipes and another pool",
        scenarios: &[Scenario {
            name: "pool",
            about: "tiny, short and large tasks, round trips, start, wake-ups, over workers and sizes, against their peers",
            package: "proc-pool",
            target: Target::Bench("pool"),
        }],
    },
    Area {
        name: "logs",
        about: "the cost of an event, and a flood",
        scenarios: &[Scenario {
            name: "logs",
            about: "an event filtered, delivered and dropped, floods and replay, against fmt into tracing-appender",
            package: "log-bridge",
            target: Target::Bench("logs"),
        }],
    },
    Area {
        name: "progress",
        about: "the cost of a tick",
        scenarios: &[
            Scenario {
                name: "count",
                about: "counting, against a bare load and store, an atomic addition, and indicatif",
                package: "progress",
                target: Target::Criterion("count", "Progress", COUNT),
            },
            Scenario {
                name: "drawing",
                about: "the processor time of drawing 100 bars",
                package: "progress",
                target: Target::Bench("drawing"),
            },
        ],
    },
    Area {
        name: "invoker",
        about: "the main job, against its peers",
        scenarios: &[Scenario {
            name: "batch",
            about: "recommendations for every user, against the same op on threads and in a rayon loop",
            package: "invoker",
            target: Target::Example("batch_bench"),
        }],
    },
];

const RINGS: &[Comparison] = &[
    against("frame of 7 bytes", "frame/ring/7", "frame/memcpy/7"),
    against("frame of 7 bytes", "frame/ring/7", "frame/crossbeam/7"),
    against("frame of 64 bytes", "frame/ring/64", "frame/memcpy/64"),
    against("frame of 64 bytes", "frame/ring/64", "frame/crossbeam/64"),
    against("frame of 4 KiB", "frame/ring/4096", "frame/memcpy/4096"),
    against("frame of 4 KiB", "frame/ring/4096", "frame/crossbeam/4096"),
    against("count in a slot", "count/slot", "count/load and store"),
    against("count in a slot", "count/slot", "count/relaxed addition"),
];

const COUNT: &[Comparison] = &[
    Comparison {
        at_most: Some(3.0),
        ..against("inc", "inc/counter", "inc/load and store")
    },
    Comparison {
        at_most: Some(1.0),
        ..against("inc", "inc/counter", "inc/relaxed addition")
    },
    Comparison {
        at_most: Some(1.0),
        ..against("inc", "inc/counter", "inc/indicatif hidden")
    },
    against("inc", "inc/counter", "inc/indicatif drawn"),
    against(
        "inc, the counter looked up each time",
        "inc/counter looked up",
        "inc/load and store",
    ),
    against("step within a task", "inc/step", "inc/load and store"),
];

/// Told for orientation.
const fn against(row: &'static str, measured: &'static str, against: &'static str) -> Comparison {
    Comparison {
        row,
        measured,
        against,
        at_most: None,
    }
}
