//! The worker's layer: writes every event that its filter lets pass into the ring.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use shm_buffers::slots::Slots;
use tracing_core::{Event, Interest, LevelFilter, Metadata, Subscriber, span};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::callsites::{CallsiteTable, callsite_key};
use super::encoder::{EncodedSpan, EventContext, SpanUpdate, with_encoder};
use super::filter_watch::FilterWatch;
use super::rate_limit::RateLimit;
use super::ring_writer::Overflow;
use super::shared::Shared;
use crate::filter::Filter;
use crate::wire::level::level_index;

/// A [`tracing_subscriber::Layer`] that writes events, with the spans that they are in, into a ring.
///
/// It never blocks, and holds no lock while it formats a value: if the `Debug` of a value logs, only those events are
/// dropped, and counted. It is meant to be the only layer above a worker's registry: what its [`Filter`] rejects is disabled
/// for the whole subscriber, so that a rejected event costs only a level check.
///
/// A value that would make its record larger than [`max_record`](crate::WorkerLayerBuilder::max_record) is shortened,
/// marked and counted. If the spans of an event do not fit, the outermost ones are left out, and counted.
pub struct WorkerLayer {
    pub(super) shared: Arc<Shared>,
    pub(super) slots: Slots,
    pub(super) callsites: CallsiteTable,
    pub(super) overflow: Overflow,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) max_record: usize,
}

impl WorkerLayer {
    /// Returns a handle that applies the filters which the leader [sets](crate::Collector::set_filter) later.
    ///
    /// Take it before the layer is moved into a subscriber; [`install`](crate::WorkerLayerBuilder::install) does it itself.
    #[must_use]
    pub fn filter_watch(&self) -> FilterWatch {
        FilterWatch::new(&self.shared, &self.slots)
    }

    /// Returns how many bytes the values of one span may take: a quarter of a record.
    fn max_span(&self) -> usize {
        self.max_record / 4
    }
}

impl fmt::Debug for WorkerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerLayer")
            .field("filter", &self.shared.with_filter(Filter::clone))
            .field("max_record", &self.max_record)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for WorkerLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        match self.shared.with_filter(|filter| filter.enabled(metadata)) {
            true => Interest::always(),
            false => Interest::never(),
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.shared.with_filter(|filter| filter.enabled(metadata))
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.shared.with_filter(Filter::max_level))
    }

    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        // Values are encoded before the span's extensions are locked: a `Debug` may log.
        let first = with_encoder(|encoder| encoder.attributes(attributes, self.max_span()));
        let first = first.unwrap_or_else(SpanUpdate::lost);
        let encoded = EncodedSpan::new(&self.callsites, attributes.metadata(), first);
        if let (Some(span), Some(encoded)) = (context.span(id), encoded) {
            span.extensions_mut().replace(encoded);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        let update = with_encoder(|encoder| encoder.recorded(values, self.max_span()));
        if let Some(span) = context.span(id)
            && let Some(encoded) = span.extensions_mut().get_mut::<EncodedSpan>()
        {
            encoded.record(update.unwrap_or_else(SpanUpdate::lost), self.max_span());
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let metadata = event.metadata();
        let level = level_index(*metadata.level());
        let writer = &self.shared.writer;
        let log_metadata = log_metadata(event);
        let key = match &log_metadata {
            Some(metadata) if self.overflow == Overflow::Collapse => log_callsite_key(metadata),
            _ => callsite_key(metadata) as u64,
        };
        if writer.drops_early(level, key) {
            return;
        }
        let event_context = EventContext {
            callsites: &self.callsites,
            rate_limit: self.rate_limit,
            now: now(),
            max_record: self.max_record,
        };
        let for_each_span = |each: &mut dyn FnMut(&EncodedSpan) -> ControlFlow<()>| {
            for span in context.event_scope(event).into_iter().flatten() {
                if let Some(encoded) = span.extensions().get::<EncodedSpan>()
                    && each(encoded).is_break()
                {
                    break;
                }
            }
        };
        let publish = |frame: &[u8]| writer.write(level, key, frame);
        let encoded = with_encoder(|encoder| {
            encoder.event(
                event,
                log_metadata.as_ref(),
                &event_context,
                for_each_span,
                publish,
            )
        });
        // The thread is ending or is encoding another event, the metadata alone is too large, or the rate limit applies.
        if !matches!(encoded, Some(Ok(()))) {
            writer.drop_event(level);
        }
    }
}

/// Returns the time in nanoseconds since the Unix epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())
}

/// Returns the original metadata of a record of the `log` crate; the values of its event contain it.
#[cfg(feature = "log")]
#[inline]
fn log_metadata<'a>(event: &'a Event<'_>) -> Option<Metadata<'a>> {
    // Comparing names is much cheaper than finding the callsite, and other events hardly ever have this name.
    match event.metadata().name() {
        "log event" => tracing_log::NormalizeEvent::normalized_metadata(event),
        _ => None,
    }
}

#[cfg(not(feature = "log"))]
fn log_metadata(_: &Event<'_>) -> Option<Metadata<'static>> {
    None
}

/// As [`callsite_key`] for the `log` crate, whose records have no callsites of their own.
fn log_callsite_key(metadata: &Metadata<'_>) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    (
        metadata.level(),
        metadata.target(),
        metadata.file(),
        metadata.line(),
    )
        .hash(&mut hasher);
    hasher.finish()
}
