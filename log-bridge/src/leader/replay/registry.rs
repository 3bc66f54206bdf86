//! Callsites of workers as callsites of this process. They can never be freed, so their number is bounded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_core::callsite::{self, Callsite};
use tracing_core::field::FieldSet;
use tracing_core::{Dispatch, Interest, Kind, LevelFilter, Metadata, identify_callsite};

use crate::wire::callsite::CallsiteInfo;
use crate::wire::error::Malformed;
use crate::wire::level::{LEVELS, level_from_index};
use crate::wire::record::REPEATS_FIELD;

/// The bound for each of three kinds of callsites: of events, of spans, and of records of `log`.
const MAX_REGISTERED: usize = 2048;

/// The name that `tracing-log` gives to the records of the `log` crate.
pub(super) const LOG_RECORD_NAME: &str = "log event";

/// The fields of a [`placeholder`].
pub(super) const PLACEHOLDER_FIELDS: [&str; 4] = [
    "message",
    "original.target",
    "original.location",
    "original.fields",
];

const NEVER: u8 = 0;
const SOMETIMES: u8 = 1;
const ALWAYS: u8 = 2;

/// A callsite that is registered with `tracing`, or is about to be.
#[derive(Debug)]
pub(crate) struct RegisteredCallsite {
    metadata: OnceLock<Metadata<'static>>,
    interest: AtomicU8,
    /// See [`summary`](Self::summary).
    summary: OnceLock<&'static RegisteredCallsite>,
}

impl RegisteredCallsite {
    /// Registers a callsite. Calls every subscriber.
    pub(super) fn register(kind: Kind, info: &CallsiteInfo<'_>) -> &'static Self {
        let callsite = Self::leak(kind, info);
        callsite::register(callsite);
        callsite
    }

    /// Returns a callsite that is not registered yet.
    fn leak(kind: Kind, info: &CallsiteInfo<'_>) -> &'static Self {
        let text = |text: &str| -> &'static str { Box::leak(Box::from(text)) };
        let fields = info.fields.iter().copied().map(text).collect();
        Self::leak_with(fields, |fields| {
            Metadata::new(
                text(info.name),
                text(info.target),
                level_from_index(info.level.into()),
                info.file.map(text),
                info.line,
                info.module_path.map(text),
                fields,
                kind,
            )
        })
    }

    fn leak_with(
        fields: Vec<&'static str>,
        metadata: impl FnOnce(FieldSet) -> Metadata<'static>,
    ) -> &'static Self {
        let this: &'static Self = Box::leak(Box::new(Self {
            metadata: OnceLock::new(),
            interest: AtomicU8::new(SOMETIMES),
            summary: OnceLock::new(),
        }));
        let fields = FieldSet::new(Box::leak(fields.into_boxed_slice()), identify_callsite!(this));
        this.metadata.get_or_init(|| metadata(fields));
        this
    }

    /// Returns the callsite for summaries of this callsite's events: it has one more field, `repeats`, as the last one.
    pub(super) fn summary(&'static self) -> &'static Self {
        self.summary.get_or_init(|| {
            let event = self.metadata();
            let mut fields: Vec<_> = event.fields().iter().map(|field| field.name()).collect();
            fields.push(REPEATS_FIELD);
            let summary = Self::leak_with(fields, |fields| {
                let (file, module) = (event.file(), event.module_path());
                Metadata::new(
                    event.name(),
                    event.target(),
                    *event.level(),
                    file,
                    event.line(),
                    module,
                    fields,
                    Kind::EVENT,
                )
            });
            callsite::register(summary);
            summary
        })
    }

    pub(super) fn metadata(&'static self) -> &'static Metadata<'static> {
        // `leak_with` sets it before it returns the callsite.
        self.metadata.get().expect("a callsite has metadata")
    }

    /// Returns whether no subscriber wants events or spans of this callsite, without asking any.
    pub(super) fn is_never_enabled(&'static self) -> bool {
        *self.metadata().level() > LevelFilter::current() || self.interest.load(Ordering::Relaxed) == NEVER
    }

    /// Returns whether the subscriber wants events or spans of this callsite, as the macros of `tracing` ask.
    pub(super) fn enabled(&'static self, dispatch: &Dispatch) -> bool {
        !self.is_never_enabled()
            && (self.interest.load(Ordering::Relaxed) == ALWAYS || dispatch.enabled(self.metadata()))
    }
}

impl Callsite for RegisteredCallsite {
    fn set_interest(&self, interest: Interest) {
        let interest = match interest {
            _ if interest.is_never() => NEVER,
            _ if interest.is_always() => ALWAYS,
            _ => SOMETIMES,
        };
        self.interest.store(interest, Ordering::Relaxed);
    }

    fn metadata(&self) -> &Metadata<'_> {
        self.metadata.get().expect("a callsite has metadata")
    }
}

/// The registered callsites of workers, by kind and encoded metadata.
pub(super) struct CallsiteRegistry {
    events: Table,
    /// Apart from other events, because `log` allows any number of targets: they must not use up the bound of `events`.
    log_records: Table,
    spans: Table,
    /// The number of callsites that each table may have.
    max: usize,
}

type Table = Mutex<HashMap<Box<[u8]>, &'static RegisteredCallsite>>;

impl CallsiteRegistry {
    /// Returns the registry of this process.
    pub(super) fn global() -> &'static Self {
        static GLOBAL: OnceLock<CallsiteRegistry> = OnceLock::new();
        GLOBAL.get_or_init(|| Self::new(MAX_REGISTERED))
    }

    fn new(max: usize) -> Self {
        Self {
            events: Mutex::default(),
            log_records: Mutex::default(),
            spans: Mutex::default(),
            max,
        }
    }

    /// Returns the callsite of an event, and registers it first if it is new. Returns `None` if too many are registered.
    pub(super) fn event(&self, metadata: &[u8]) -> Result<Option<&'static RegisteredCallsite>, Malformed> {
        let table = match CallsiteInfo::decode_name(metadata)? {
            LOG_RECORD_NAME => &self.log_records,
            _ => &self.events,
        };
        self.find_or_register(table, Kind::EVENT, metadata)
    }

    /// As [`event`](Self::event), for a span.
    pub(super) fn span(&self, metadata: &[u8]) -> Result<Option<&'static RegisteredCallsite>, Malformed> {
        self.find_or_register(&self.spans, Kind::SPAN, metadata)
    }

    fn find_or_register(
        &self,
        table: &Table,
        kind: Kind,
        metadata: &[u8],
    ) -> Result<Option<&'static RegisteredCallsite>, Malformed> {
        let callsite = {
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(callsite) = table.get(metadata) {
                return Ok(Some(callsite));
            }
            let info = CallsiteInfo::decode(metadata)?;
            if table.len() >= self.max {
                return Ok(None);
            }
            let callsite = RegisteredCallsite::leak(kind, &info);
            table.insert(metadata.into(), callsite);
            callsite
        };
        // Calls every subscriber, so the table must not be locked.
        callsite::register(callsite);
        Ok(Some(callsite))
    }
}

/// Returns the callsite that all events of a level share which have no registered callsite of their own.
pub(super) fn placeholder(level: u8) -> &'static RegisteredCallsite {
    static PLACEHOLDERS: [OnceLock<&'static RegisteredCallsite>; LEVELS] =
        [const { OnceLock::new() }; LEVELS];
    PLACEHOLDERS[usize::from(level).min(LEVELS - 1)].get_or_init(|| {
        RegisteredCallsite::register(
            Kind::EVENT,
            &CallsiteInfo {
                level,
                name: "event of an unregistered callsite",
                target: "log_bridge",
                module_path: None,
                file: None,
                line: None,
                fields: PLACEHOLDER_FIELDS.to_vec(),
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_callsite::leak_metadata;
    use crate::wire::callsite::encode_metadata;

    fn encoded(line: u32) -> Box<[u8]> {
        encode_metadata(leak_metadata(line)).unwrap()
    }

    #[test]
    fn the_same_metadata_is_the_same_callsite() {
        let registry = CallsiteRegistry::new(8);
        let one = registry.event(&encoded(1)).unwrap().unwrap();
        let again = registry.event(&encoded(1)).unwrap().unwrap();
        let span = registry.span(&encoded(1)).unwrap().unwrap();
        assert!(std::ptr::eq(one, again));
        assert!(!std::ptr::eq(one, span));
        assert!(one.metadata().is_event() && span.metadata().is_span());
        assert_eq!(one.metadata().line(), Some(1));
        let fields: Vec<_> = one.metadata().fields().iter().map(|f| f.name()).collect();
        assert_eq!(fields, ["message", "a"]);
        let summary = one.summary().metadata();
        assert_eq!((summary.line(), summary.fields().len()), (Some(1), 3));
        assert!(std::ptr::eq(one.summary(), one.summary()));
    }

    #[test]
    fn the_number_of_callsites_is_bounded() {
        let registry = CallsiteRegistry::new(4);
        for line in 0..4 {
            assert!(registry.event(&encoded(line)).unwrap().is_some());
        }
        assert!(registry.event(&encoded(4)).unwrap().is_none());
        assert!(
            registry.event(&encoded(3)).unwrap().is_some(),
            "known callsites stay registered"
        );
        assert!(registry.event(&[1, 2]).is_err());
    }
}
