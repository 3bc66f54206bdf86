//! The spans that a source's events are in, re-created in the leader and kept while they stay the same.

use tracing_core::Dispatch;
use tracing_core::span::{Attributes, Id, Record};

use crate::callsites::{Callsites, Interned};
use crate::replay::with_values;
use crate::wire::{DecodeError, SpanRecord};

/// The path from the source's own span to the leaf of the event replayed last.
#[derive(Debug)]
pub(crate) struct SpanPath {
    source: u64,
    worker: Option<tracing::Span>,
    open: Vec<Open>,
    /// How many are entered on this thread: the worker's span first, then those of the path.
    entered: usize,
}

#[derive(Debug)]
struct Open {
    uid: u64,
    batches: usize,
    /// `None` for a span that the leader does not want, or whose callsite is beyond the bound.
    live: Option<(Id, &'static Interned)>,
}

impl SpanPath {
    pub(crate) fn new(source: u64) -> Self {
        Self {
            source,
            worker: None,
            open: Vec::new(),
            entered: 0,
        }
    }

    /// Enters what is open. `dispatch` has to be the thread's default until [`leave`](Self::leave).
    pub(crate) fn enter(&mut self, dispatch: &Dispatch) {
        // After a subscriber's panic some may be entered still.
        self.leave(dispatch);
        let source = self.source;
        self.worker.get_or_insert_with(
            || tracing::error_span!(target: "log_bridge", parent: None, "worker", id = source),
        );
        for index in 0..=self.open.len() {
            self.enter_one(dispatch, index);
        }
    }

    /// Exits all, innermost first, and keeps them open.
    pub(crate) fn leave(&mut self, dispatch: &Dispatch) {
        self.leave_to(dispatch, 0);
    }

    /// Makes `spans`, leaf first, the path; gives how many have no callsite of their own and were left out.
    pub(crate) fn follow(
        &mut self,
        dispatch: &Dispatch,
        spans: &[SpanRecord<'_>],
    ) -> Result<u64, DecodeError> {
        let same = self
            .open
            .iter()
            .zip(spans.iter().rev())
            .take_while(|(open, span)| open.uid == span.uid)
            .count();
        self.close_to(dispatch, same);
        let mut left_out = 0;
        for (index, span) in spans.iter().rev().enumerate() {
            if index >= same {
                left_out += self.create(dispatch, span)?;
            }
            let open = &mut self.open[index];
            if let Some((id, site)) = &open.live {
                for batch in span.batches.iter().skip(open.batches) {
                    with_values(site, batch, |values| dispatch.record(id, &Record::new(values)))?;
                }
            }
            open.batches = open.batches.max(span.batches.len());
            if index >= same {
                self.enter_one(dispatch, index + 1);
            }
        }
        Ok(left_out)
    }

    /// Closes all.
    pub(crate) fn close(&mut self, dispatch: &Dispatch) {
        self.leave(dispatch);
        self.close_to(dispatch, 0);
        self.worker = None;
    }

    fn create(&mut self, dispatch: &Dispatch, span: &SpanRecord<'_>) -> Result<u64, DecodeError> {
        let site = Callsites::global().span(span.site)?;
        let mut live = None;
        if let Some(site) = site.filter(|site| site.enabled(dispatch)) {
            let first = span.batches.first().map_or(&[][..], |batch| batch);
            let id = with_values(site, first, |values| {
                dispatch.new_span(&Attributes::new(site.metadata(), values))
            })?;
            live = Some((id, site));
        }
        self.open.push(Open {
            uid: span.uid,
            batches: 1,
            live,
        });
        Ok(u64::from(site.is_none()))
    }

    fn id(&self, index: usize) -> Option<Id> {
        match index.checked_sub(1) {
            None => self.worker.as_ref().and_then(tracing::Span::id),
            Some(index) => self.open.get(index)?.live.as_ref().map(|(id, _)| id.clone()),
        }
    }

    fn enter_one(&mut self, dispatch: &Dispatch, index: usize) {
        self.entered = index + 1;
        if let Some(id) = self.id(index) {
            dispatch.enter(&id);
        }
    }

    fn leave_to(&mut self, dispatch: &Dispatch, entered: usize) {
        while self.entered > entered {
            self.entered -= 1;
            if let Some(id) = self.id(self.entered) {
                dispatch.exit(&id);
            }
        }
    }

    fn close_to(&mut self, dispatch: &Dispatch, depth: usize) {
        while self.open.len() > depth {
            self.leave_to(dispatch, self.open.len());
            if let Some((id, _)) = self.open.pop().and_then(|open| open.live) {
                dispatch.try_close(id);
            }
        }
    }
}
