//! The bridge's own span for each worker, and its own events about a worker's stream.
//!
//! A filter for the program's targets should hide neither which worker an event came from, nor that events were lost. So
//! subscribers receive this span and these events without being asked about their target; they are left out only if no
//! subscriber enables their level.

use std::error::Error;
use std::sync::OnceLock;

use tracing_core::field::Value;
use tracing_core::{Dispatch, Event, Kind, LevelFilter, span};

use super::registry::RegisteredCallsite;
use crate::wire::callsite::CallsiteInfo;
use crate::wire::level::LEVELS;

const TARGET: &str = "log_bridge";
const ERROR: u8 = 0;
const WARN: u8 = 1;

type StaticCallsite = OnceLock<&'static RegisteredCallsite>;

fn callsite(
    registered: &'static StaticCallsite,
    kind: Kind,
    level: u8,
    name: &str,
    fields: &[&str],
) -> &'static RegisteredCallsite {
    registered.get_or_init(|| {
        RegisteredCallsite::register(
            kind,
            &CallsiteInfo {
                level,
                name,
                target: TARGET,
                module_path: None,
                file: None,
                line: None,
                fields: fields.to_vec(),
            },
        )
    })
}

/// Returns whether any subscriber enables the callsite's level.
fn level_enabled(callsite: &'static RegisteredCallsite) -> bool {
    *callsite.metadata().level() <= LevelFilter::current()
}

/// Returns a new span of a worker in this thread's default subscriber.
pub(crate) fn worker_span(id: u64) -> tracing::Span {
    static CALLSITE: StaticCallsite = StaticCallsite::new();
    let callsite = callsite(&CALLSITE, Kind::SPAN, ERROR, "worker", &["id"]);
    if !level_enabled(callsite) {
        return tracing::Span::none();
    }
    let fields = callsite.metadata().fields();
    tracing::Span::new_root(
        callsite.metadata(),
        &fields.value_set_all(&[Some(&id as &dyn Value)]),
    )
}

/// Emits a notice of how many events of each level were dropped.
pub(super) fn emit_drops(dispatch: &Dispatch, worker: Option<span::Id>, dropped: [u64; LEVELS]) {
    static CALLSITE: StaticCallsite = StaticCallsite::new();
    let fields = ["message", "error", "warn", "info", "debug", "trace"];
    let callsite = callsite(&CALLSITE, Kind::EVENT, WARN, "log events dropped", &fields);
    let [error, warn, info, debug, trace] = dropped;
    let values: [&dyn Value; 6] = [
        &format_args!("log events dropped"),
        &error,
        &warn,
        &info,
        &debug,
        &trace,
    ];
    emit(dispatch, worker, callsite, &values);
}

/// Emits why a stream was abandoned.
pub(super) fn emit_failure(dispatch: &Dispatch, worker: Option<span::Id>, error: &(dyn Error + 'static)) {
    static CALLSITE: StaticCallsite = StaticCallsite::new();
    let fields = ["message", "error"];
    let callsite = callsite(&CALLSITE, Kind::EVENT, ERROR, "log stream abandoned", &fields);
    let values: [&dyn Value; 2] = [&format_args!("log stream abandoned"), &error];
    emit(dispatch, worker, callsite, &values);
}

fn emit(
    dispatch: &Dispatch,
    worker: Option<span::Id>,
    callsite: &'static RegisteredCallsite,
    values: &[&dyn Value],
) {
    if !level_enabled(callsite) {
        return;
    }
    let values: Vec<_> = values.iter().copied().map(Some).collect();
    let values = callsite.metadata().fields().value_set_all(&values);
    dispatch.event(&Event::new_child_of(worker, callsite.metadata(), &values));
}
