//! The spans that a source's events are in, re-created in the leader and kept while they stay the same.

use tracing_core::Dispatch;
use tracing_core::span::{Attributes, Id, Record as SpanUpdate};

use crate::callsites::Interned;
use crate::known::LiveSites;
use crate::own;
use crate::replay::with_values;
use crate::wire::{Flaw, Record, SpanRecord};

/// Threads of a source whose paths are kept; of more the one that was used least lately starts afresh.
const MAX_THREADS: usize = 16;

/// For each thread of a source, the path from the source's own span to the leaf of the event replayed last.
#[derive(Debug)]
pub(crate) struct SpanPaths {
    source: u64,
    worker: Option<tracing::Span>,
    worker_entered: Option<Id>,
    /// The one in use is the last.
    paths: Vec<Path>,
    /// How many spans of it are entered on this thread.
    entered: usize,
}

#[derive(Debug)]
struct Path {
    thread: u64,
    open: Vec<Open>,
}

#[derive(Debug)]
struct Open {
    uid: u64,
    /// The number of the last batch of values that was replayed.
    version: u32,
    /// `None` for a span that the leader does not want, or whose callsite is beyond the bound.
    live: Option<(Id, &'static Interned)>,
}

impl Open {
    fn id(&self) -> Option<&Id> {
        self.live.as_ref().map(|(id, _)| id)
    }
}

impl SpanPaths {
    pub(crate) fn new(source: u64) -> Self {
        Self {
            source,
            worker: None,
            worker_entered: None,
            paths: Vec::new(),
            entered: 0,
        }
    }

    /// Enters the source's span. `dispatch` has to be the thread's default until [`leave`](Self::leave).
    pub(crate) fn enter(&mut self, dispatch: &Dispatch) {
        // After a subscriber's panic some may be entered still.
        self.leave(dispatch);
        // One that no level let through may be wanted now: the subscriber may have been reloaded.
        let worker = match self.worker.take() {
            Some(worker) if !worker.is_none() => worker,
            _ => own::worker_span(self.source),
        };
        self.worker_entered = worker.id();
        self.worker = Some(worker);
        if let Some(id) = &self.worker_entered {
            dispatch.enter(id);
        }
    }

    /// The source's own span, if it has one now.
    pub(crate) fn worker(&self) -> Option<Id> {
        self.worker.as_ref().and_then(tracing::Span::id)
    }

    /// Exits all but the source's own, innermost first, and keeps them open.
    pub(crate) fn leave_inner(&mut self, dispatch: &Dispatch) {
        self.leave_to(dispatch, 0);
    }

    /// Exits all, innermost first, and keeps them open.
    pub(crate) fn leave(&mut self, dispatch: &Dispatch) {
        self.leave_to(dispatch, 0);
        if let Some(id) = self.worker_entered.take() {
            dispatch.exit(&id);
        }
    }

    /// Enters the spans of `record`, and no others; gives how many have no callsite of their own and were left out.
    #[inline]
    pub(crate) fn follow(
        &mut self,
        dispatch: &Dispatch,
        record: &Record<'_>,
        sites: &mut LiveSites,
    ) -> Result<u64, Flaw> {
        self.select(dispatch, record.header.thread);
        let depth = usize::from(record.header.depth);
        let open = &self.paths.last().map_or(&[][..], |path| &path.open);
        // How many are the same, counted from the root, and whether they have the same values.
        let mut same = open.len().min(depth);
        let mut unchanged = open.len() == depth && self.entered == depth;
        record.each_span(|index, span| {
            let place = depth - 1 - index;
            match open.get(place) {
                Some(open) if open.uid == span.uid => unchanged &= open.version == span.version,
                _ => {
                    same = same.min(place);
                    unchanged = false;
                }
            }
            Ok(())
        })?;
        match unchanged {
            true => Ok(0),
            false => self.change(dispatch, record, sites, same),
        }
    }

    /// Makes the path of `thread` the one in use.
    #[inline]
    fn select(&mut self, dispatch: &Dispatch, thread: u64) {
        if self.paths.last().is_some_and(|path| path.thread == thread) {
            return;
        }
        self.leave_to(dispatch, 0);
        let path = match self.paths.iter().position(|path| path.thread == thread) {
            Some(index) => self.paths.remove(index),
            None => {
                if self.paths.len() == MAX_THREADS {
                    close(dispatch, &mut self.paths.remove(0), 0);
                }
                Path {
                    thread,
                    open: Vec::new(),
                }
            }
        };
        self.paths.push(path);
    }

    fn change(
        &mut self,
        dispatch: &Dispatch,
        record: &Record<'_>,
        sites: &mut LiveSites,
        same: usize,
    ) -> Result<u64, Flaw> {
        let mut spans = Vec::with_capacity(record.header.depth.into());
        record.each_span(|_, span| {
            spans.push(span);
            Ok(())
        })?;
        self.leave_to(dispatch, same);
        let Some(path) = self.paths.last_mut() else {
            return Ok(0);
        };
        close(dispatch, path, same);
        let mut left_out = 0;
        for (index, span) in spans.iter().rev().enumerate() {
            if index >= same {
                left_out += create(dispatch, path, span, sites)?;
            }
            let open = &mut path.open[index];
            if let Some((id, site)) = &open.live {
                span.batches(|number, batch| match number <= open.version {
                    true => Ok(()),
                    false => with_values(site, batch, None, |values| {
                        dispatch.record(id, &SpanUpdate::new(values));
                    }),
                })?;
            }
            open.version = open.version.max(span.version);
            if index >= self.entered {
                self.entered = index + 1;
                if let Some(id) = open.id() {
                    dispatch.enter(id);
                }
            }
        }
        Ok(left_out)
    }

    /// Closes all.
    pub(crate) fn close(&mut self, dispatch: &Dispatch) {
        self.leave(dispatch);
        for path in &mut self.paths {
            close(dispatch, path, 0);
        }
        self.paths.clear();
        self.worker = None;
    }

    fn leave_to(&mut self, dispatch: &Dispatch, entered: usize) {
        let open = self.paths.last().map_or(&[][..], |path| &path.open);
        while self.entered > entered {
            self.entered -= 1;
            if let Some(id) = open.get(self.entered).and_then(Open::id) {
                dispatch.exit(id);
            }
        }
    }
}

fn create(
    dispatch: &Dispatch,
    path: &mut Path,
    span: &SpanRecord<'_>,
    sites: &mut LiveSites,
) -> Result<u64, Flaw> {
    let site = sites.span(span.site)?.interned;
    let mut live = None;
    if let Some(site) = site.filter(|site| site.enabled(dispatch)) {
        span.batches(|number, batch| {
            if number == 0 && live.is_none() {
                let id = with_values(site, batch, None, |values| {
                    dispatch.new_span(&Attributes::new(site.metadata(), values))
                })?;
                live = Some((id, site));
            }
            Ok(())
        })?;
    }
    path.open.push(Open {
        uid: span.uid,
        version: 0,
        live,
    });
    Ok(u64::from(site.is_none()))
}

/// Closes the spans beyond `depth`, none of which is entered.
fn close(dispatch: &Dispatch, path: &mut Path, depth: usize) {
    while path.open.len() > depth {
        if let Some((id, _)) = path.open.pop().and_then(|open| open.live) {
            dispatch.try_close(id);
        }
    }
}
