//! The spans that a source's events are in, created again in the leader and kept while consecutive events share them.

use tracing_core::Dispatch;
use tracing_core::span::{Attributes, Id, Record as SpanValues};

use super::bridge_events;
use super::callsites::SourceCallsites;
use super::registry::RegisteredCallsite;
use super::values::with_value_set;
use crate::wire::error::Malformed;
use crate::wire::record::{EventRecord, SpanRecord};

/// Threads of a source whose spans are kept. Beyond this, the spans of the least recently used one are closed.
const MAX_THREADS: usize = 16;

/// The span of a source and, for each of its threads, the spans that its last event was in.
#[derive(Debug)]
pub(super) struct SourceSpans {
    source: u64,
    worker: Option<tracing::Span>,
    worker_entered: Option<Id>,
    /// The current thread is the last one.
    threads: Vec<ThreadSpans>,
    /// How many spans of the current thread are entered.
    entered: usize,
}

#[derive(Debug)]
struct ThreadSpans {
    thread: u64,
    /// From the outermost to the innermost.
    open: Vec<OpenSpan>,
}

#[derive(Debug)]
struct OpenSpan {
    /// That of the worker's span.
    uid: u64,
    /// The number of the last update that was replayed.
    version: u32,
    /// `None` if the subscriber does not want the span, or if its callsite cannot be registered any more.
    created: Option<(Id, &'static RegisteredCallsite)>,
}

impl OpenSpan {
    fn id(&self) -> Option<&Id> {
        self.created.as_ref().map(|(id, _)| id)
    }
}

impl SourceSpans {
    pub(super) fn new(source: u64) -> Self {
        Self {
            source,
            worker: None,
            worker_entered: None,
            threads: Vec::new(),
            entered: 0,
        }
    }

    /// Enters the source's own span. `dispatch` has to be this thread's default until [`exit`](Self::exit).
    pub(super) fn enter(&mut self, dispatch: &Dispatch) {
        // A panic of the subscriber may have left spans entered.
        self.exit(dispatch);
        // If no level let the span pass before, it may now: the subscriber may have been reloaded.
        let worker = match self.worker.take() {
            Some(worker) if !worker.is_none() => worker,
            _ => bridge_events::worker_span(self.source),
        };
        self.worker_entered = worker.id();
        self.worker = Some(worker);
        if let Some(id) = &self.worker_entered {
            dispatch.enter(id);
        }
    }

    /// Returns the id of the source's own span, if the subscriber wants that.
    pub(super) fn worker(&self) -> Option<Id> {
        self.worker.as_ref().and_then(tracing::Span::id)
    }

    /// Exits all spans but the source's own, the innermost first, without closing them.
    pub(super) fn exit_inner(&mut self, dispatch: &Dispatch) {
        self.exit_beyond(dispatch, 0);
    }

    /// Exits all spans, the innermost first, without closing them.
    pub(super) fn exit(&mut self, dispatch: &Dispatch) {
        self.exit_beyond(dispatch, 0);
        if let Some(id) = self.worker_entered.take() {
            dispatch.exit(&id);
        }
    }

    /// Enters exactly the spans of `record`, below the source's own. Returns how many of them were left out because their
    /// callsites cannot be registered any more.
    #[inline]
    pub(super) fn enter_spans_of(
        &mut self,
        dispatch: &Dispatch,
        record: &EventRecord<'_>,
        callsites: &mut SourceCallsites,
    ) -> Result<u64, Malformed> {
        self.select_thread(dispatch, record.header.thread);
        let count = usize::from(record.header.span_count);
        let open = &self.threads.last().map_or(&[][..], |thread| &thread.open);
        // How many are the same, counted from the outermost, and whether all are the same with the same values.
        let mut same = open.len().min(count);
        let mut unchanged = open.len() == count && self.entered == count;
        record.for_each_span(|index, span| {
            let depth = count - 1 - index;
            match open.get(depth) {
                Some(open) if open.uid == span.uid => unchanged &= open.version == span.version,
                _ => {
                    same = same.min(depth);
                    unchanged = false;
                }
            }
            Ok(())
        })?;
        match unchanged {
            true => Ok(0),
            false => self.replace_beyond(dispatch, record, callsites, same),
        }
    }

    /// Makes `thread` the current one.
    #[inline]
    fn select_thread(&mut self, dispatch: &Dispatch, thread: u64) {
        if self.threads.last().is_some_and(|last| last.thread == thread) {
            return;
        }
        self.exit_beyond(dispatch, 0);
        let selected = match self.threads.iter().position(|other| other.thread == thread) {
            Some(index) => self.threads.remove(index),
            None => {
                if self.threads.len() == MAX_THREADS {
                    close_beyond(dispatch, &mut self.threads.remove(0), 0);
                }
                ThreadSpans {
                    thread,
                    open: Vec::new(),
                }
            }
        };
        self.threads.push(selected);
    }

    /// Keeps the outermost `same` spans, replaces the others by those of `record`, and enters all.
    fn replace_beyond(
        &mut self,
        dispatch: &Dispatch,
        record: &EventRecord<'_>,
        callsites: &mut SourceCallsites,
        same: usize,
    ) -> Result<u64, Malformed> {
        let mut spans = Vec::with_capacity(record.header.span_count.into());
        record.for_each_span(|_, span| {
            spans.push(span);
            Ok(())
        })?;
        self.exit_beyond(dispatch, same);
        let Some(thread) = self.threads.last_mut() else {
            return Ok(0);
        };
        close_beyond(dispatch, thread, same);
        let mut left_out = 0;
        for (depth, span) in spans.iter().rev().enumerate() {
            if depth >= same {
                left_out += create(dispatch, thread, span, callsites)?;
            }
            let open = &mut thread.open[depth];
            if let Some((id, callsite)) = &open.created {
                span.for_each_update(|number, values| match number <= open.version {
                    true => Ok(()),
                    false => with_value_set(callsite, values, None, |values| {
                        dispatch.record(id, &SpanValues::new(values));
                    }),
                })?;
            }
            open.version = open.version.max(span.version);
            if depth >= self.entered {
                self.entered = depth + 1;
                if let Some(id) = open.id() {
                    dispatch.enter(id);
                }
            }
        }
        Ok(left_out)
    }

    /// Exits and closes all spans.
    pub(super) fn close(&mut self, dispatch: &Dispatch) {
        self.exit(dispatch);
        for thread in &mut self.threads {
            close_beyond(dispatch, thread, 0);
        }
        self.threads.clear();
        self.worker = None;
    }

    /// Exits the spans of the current thread except the outermost `depth`.
    fn exit_beyond(&mut self, dispatch: &Dispatch, depth: usize) {
        let open = self.threads.last().map_or(&[][..], |thread| &thread.open);
        while self.entered > depth {
            self.entered -= 1;
            if let Some(id) = open.get(self.entered).and_then(OpenSpan::id) {
                dispatch.exit(id);
            }
        }
    }
}

/// Creates a span from its first update; returns 1 if its callsite cannot be registered, else 0.
fn create(
    dispatch: &Dispatch,
    thread: &mut ThreadSpans,
    span: &SpanRecord<'_>,
    callsites: &mut SourceCallsites,
) -> Result<u64, Malformed> {
    let callsite = callsites.span(span.callsite)?.registered;
    let mut created = None;
    if let Some(callsite) = callsite.filter(|callsite| !callsite.is_never_enabled()) {
        span.for_each_update(|number, values| {
            if number == 0 && created.is_none() {
                let id = with_value_set(callsite, values, None, |values| {
                    let enabled = callsite.enabled(dispatch);
                    enabled.then(|| dispatch.new_span(&Attributes::new(callsite.metadata(), values)))
                })?;
                created = id.map(|id| (id, callsite));
            }
            Ok(())
        })?;
    }
    thread.open.push(OpenSpan {
        uid: span.uid,
        version: 0,
        created,
    });
    Ok(u64::from(callsite.is_none()))
}

/// Closes the spans of a thread except the outermost `depth`. None of them is entered.
fn close_beyond(dispatch: &Dispatch, thread: &mut ThreadSpans, depth: usize) {
    while thread.open.len() > depth {
        if let Some((id, _)) = thread.open.pop().and_then(|open| open.created) {
            dispatch.try_close(id);
        }
    }
}
