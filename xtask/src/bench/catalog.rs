//! Which benchmarks there are, by area.
//!
//! To add one, write it as a benchmark with `harness = false`, or as an example, that takes `--quick` and `--bytes N`
//! and measures against a floor or a peer in the same run; then give it a line here.

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
}

/// The areas, from the ground floor up.
pub(super) const AREAS: &[Area] = &[
    Area {
        name: "shm",
        about: "sharing and attaching a model",
        scenarios: &[Scenario {
            name: "memory",
            about: "share, move and attach a model, and what it occupies, against memcpy and the model's size",
            package: "shm-buffers",
            target: Target::Bench("memory"),
        }],
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
        scenarios: &[Scenario {
            name: "cost",
            about: "counting, against a bare load and store, and drawing 100 bars",
            package: "progress",
            target: Target::Bench("cost"),
        }],
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
