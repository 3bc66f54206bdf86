//! The bridge's own span for each worker, and its own events about the worker's stream.
//!
//! A filter for the program's own targets is not meant to hide from which worker an event came, nor that others were
//! lost. So subscribers get these without being asked by target; only the level has to be wanted by one of them.

use std::error::Error;
use std::sync::OnceLock;

use tracing_core::field::Value;
use tracing_core::{Dispatch, Event, Kind, LevelFilter, callsite, span};

use crate::callsites::Interned;
use crate::site::Site;
use crate::tally::LEVELS;

const TARGET: &str = "log_bridge";
const ERROR: u8 = 0;
const WARN: u8 = 1;

type Place = OnceLock<&'static Interned>;

fn site(place: &'static Place, kind: Kind, level: u8, name: &str, fields: &[&str]) -> &'static Interned {
    place.get_or_init(|| {
        let site = Site {
            level,
            name,
            target: TARGET,
            module_path: None,
            file: None,
            line: None,
            fields: fields.to_vec(),
        };
        let interned = Interned::leak(kind, &site);
        callsite::register(interned);
        interned
    })
}

/// Whether any subscriber wants the level.
fn is_wanted(site: &'static Interned) -> bool {
    *site.metadata().level() <= LevelFilter::current()
}

/// The span of a worker in this thread's default subscriber.
pub(crate) fn worker_span(id: u64) -> tracing::Span {
    static SITE: Place = Place::new();
    let site = site(&SITE, Kind::SPAN, ERROR, "worker", &["id"]);
    if !is_wanted(site) {
        return tracing::Span::none();
    }
    let fields = site.metadata().fields();
    tracing::Span::new_root(site.metadata(), &fields.value_set_all(&[Some(&id as &dyn Value)]))
}

/// Says how many events of each level were dropped.
pub(crate) fn tell_drops(dispatch: &Dispatch, worker: Option<span::Id>, dropped: [u64; LEVELS]) {
    static SITE: Place = Place::new();
    let fields = ["message", "error", "warn", "info", "debug", "trace"];
    let site = site(&SITE, Kind::EVENT, WARN, "log events dropped", &fields);
    let [error, warn, info, debug, trace] = dropped;
    let values: [&dyn Value; 6] = [
        &format_args!("log events dropped"),
        &error,
        &warn,
        &info,
        &debug,
        &trace,
    ];
    emit(dispatch, worker, site, &values);
}

/// Says why a stream was given up.
pub(crate) fn tell_failure(dispatch: &Dispatch, worker: Option<span::Id>, error: &(dyn Error + 'static)) {
    static SITE: Place = Place::new();
    let site = site(
        &SITE,
        Kind::EVENT,
        ERROR,
        "log stream given up",
        &["message", "error"],
    );
    emit(
        dispatch,
        worker,
        site,
        &[&format_args!("log stream given up"), &error],
    );
}

fn emit(dispatch: &Dispatch, worker: Option<span::Id>, site: &'static Interned, values: &[&dyn Value]) {
    if !is_wanted(site) {
        return;
    }
    let values: Vec<_> = values.iter().copied().map(Some).collect();
    let values = site.metadata().fields().value_set_all(&values);
    dispatch.event(&Event::new_child_of(worker, site.metadata(), &values));
}
