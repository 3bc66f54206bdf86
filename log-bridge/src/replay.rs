//! How a replayed event differs from the original, and functions for layers.
//!
//! A replay happens later than the event, in another process and thread:
//!
//! | of an event or span | in the leader |
//! |---|---|
//! | level, target, name, file, line, module path | as in the worker; beyond 2048 callsites, in fields `original.…` of an event of target `log_bridge` |
//! | fields, with their types; errors with their sources | as in the worker; shortened if a record exceeds its [bound](crate::WorkerLayerBuilder::max_record) |
//! | the spans that an event is in | the same, from the root, below `worker{id=…}` |
//! | values recorded later (`Span::record`) | recorded before the next event of the span; of each field at least the newest value |
//! | time | that of the replay; [`current_timestamp`] returns, and [`EmissionTime`](crate::EmissionTime) prints, that of the worker |
//! | thread | that of the replay; [`current_thread`] returns that of the worker |
//! | a span without events | missing: spans travel with their events |
//! | explicit parents of spans | as in the worker |
//! | `follows_from` | missing |
//! | creating, entering and exiting a span (`FmtSpan::NEW`, `ENTER`, `EXIT`) | when the replay does it: it creates a span for the first event in it, and enters and exits it in each drain that has events in it |
//! | closing a span (`FmtSpan::CLOSE`, with `time.busy` and `time.idle`) | when the replay does it: before the next event of the same thread that is outside of the span, or when the source is removed; the times are those of the replay |
//! | `EnvFilter`, per-layer filters, by level, target, span or field | decide as for the leader's own events; all spans of an event are created first |
//! | layers that export traces (such as OpenTelemetry) | one span for each span that has events, created and closed once; parents and fields as in the worker, start and end those of the replay |
//!
//! If a source has more than 16 threads, the replay closes the spans of the least recently used one and creates them again
//! for its next event: such a layer sees the span twice then.
//!
//! The duration of a span does not travel. The worker would have to send a record for every span that closes, also for those
//! that no layer looks at, and `tracing` has no way to create a span with a given duration. Log a duration as a field of an
//! event instead: `tracing::info!(seconds = start.elapsed().as_secs_f64(), "loaded")`.

pub use crate::leader::replay::origin::{current_thread, current_timestamp};
