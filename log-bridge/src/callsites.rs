//! Callsites of workers as callsites of this process: interned, leaked, and therefore bounded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use tracing_core::callsite::{self, Callsite};
use tracing_core::field::FieldSet;
use tracing_core::{Dispatch, Interest, Kind, LevelFilter, Metadata, identify_callsite};

use crate::site::Site;
use crate::tally::LEVELS;
use crate::wire::{Flaw, level_of};

/// Callsites that a process interns at most, of `tracing`'s events and spans and of the records of `log` each; callsites
/// can't be freed.
const BOUND: usize = 2048;

/// How `tracing-log` names the records of `log`.
pub(crate) const LOG_RECORD: &str = "log event";

/// Fields of the callsites that stand in for those beyond the bound.
pub(crate) const STAND_IN: [&str; 4] = [
    "message",
    "original.target",
    "original.location",
    "original.fields",
];

/// The field that tells how many dropped events a summary stands for.
pub(crate) const REPEATS: &str = "repeats";

const NEVER: u8 = 0;
const SOMETIMES: u8 = 1;
const ALWAYS: u8 = 2;

/// One callsite, known to `tracing`.
#[derive(Debug)]
pub(crate) struct Interned {
    metadata: OnceLock<Metadata<'static>>,
    interest: AtomicU8,
    /// The same with one more field: for summaries.
    repeated: OnceLock<&'static Interned>,
}

impl Interned {
    pub(crate) fn leak(kind: Kind, site: &Site<'_>) -> &'static Self {
        let text = |text: &str| -> &'static str { Box::leak(Box::from(text)) };
        let fields = site.fields.iter().copied().map(text).collect();
        Self::leak_with(fields, |fields| {
            Metadata::new(
                text(site.name),
                text(site.target),
                level_of(site.level.into()),
                site.file.map(text),
                site.line,
                site.module_path.map(text),
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
            repeated: OnceLock::new(),
        }));
        let fields = FieldSet::new(Box::leak(fields.into_boxed_slice()), identify_callsite!(this));
        this.metadata.get_or_init(|| metadata(fields));
        this
    }

    /// The same callsite with a field `repeats` after all others.
    pub(crate) fn repeated(&'static self) -> &'static Self {
        self.repeated.get_or_init(|| {
            let like = self.metadata();
            let mut fields: Vec<_> = like.fields().iter().map(|field| field.name()).collect();
            fields.push(REPEATS);
            let repeated = Self::leak_with(fields, |fields| {
                let (file, module) = (like.file(), like.module_path());
                Metadata::new(
                    like.name(),
                    like.target(),
                    *like.level(),
                    file,
                    like.line(),
                    module,
                    fields,
                    Kind::EVENT,
                )
            });
            callsite::register(repeated);
            repeated
        })
    }

    pub(crate) fn metadata(&'static self) -> &'static Metadata<'static> {
        // Set by `leak` before anybody else sees it.
        self.metadata.get().expect("a callsite has metadata")
    }

    /// What `tracing`'s macros ask before they emit.
    pub(crate) fn enabled(&'static self, dispatch: &Dispatch) -> bool {
        let metadata = self.metadata();
        *metadata.level() <= LevelFilter::current()
            && match self.interest.load(Ordering::Relaxed) {
                NEVER => false,
                ALWAYS => true,
                _ => dispatch.enabled(metadata),
            }
    }
}

impl Callsite for Interned {
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

/// All that were interned, by kind and encoded metadata.
pub(crate) struct Callsites {
    events: Mutex<HashMap<Box<[u8]>, &'static Interned>>,
    /// Apart, because their targets may be any number of texts: they shall not take the places of others.
    records: Mutex<HashMap<Box<[u8]>, &'static Interned>>,
    spans: Mutex<HashMap<Box<[u8]>, &'static Interned>>,
    bound: usize,
}

impl Callsites {
    /// The one of this process.
    pub(crate) fn global() -> &'static Self {
        static GLOBAL: OnceLock<Callsites> = OnceLock::new();
        GLOBAL.get_or_init(|| Self::new(BOUND))
    }

    /// At most `bound` callsites of each kind.
    fn new(bound: usize) -> Self {
        Self {
            events: Mutex::default(),
            records: Mutex::default(),
            spans: Mutex::default(),
            bound,
        }
    }

    /// The callsite of an event; `None` if there are too many.
    pub(crate) fn event(&self, site: &[u8]) -> Result<Option<&'static Interned>, Flaw> {
        let known = match Site::decode_name(site)? {
            LOG_RECORD => &self.records,
            _ => &self.events,
        };
        self.intern(known, Kind::EVENT, site)
    }

    /// The callsite of a span; `None` if there are too many.
    pub(crate) fn span(&self, site: &[u8]) -> Result<Option<&'static Interned>, Flaw> {
        self.intern(&self.spans, Kind::SPAN, site)
    }

    fn intern(
        &self,
        known: &Mutex<HashMap<Box<[u8]>, &'static Interned>>,
        kind: Kind,
        site: &[u8],
    ) -> Result<Option<&'static Interned>, Flaw> {
        let interned = {
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(interned) = known.get(site) {
                return Ok(Some(interned));
            }
            let decoded = Site::decode(site)?;
            if known.len() >= self.bound {
                return Ok(None);
            }
            let interned = Interned::leak(kind, &decoded);
            known.insert(site.into(), interned);
            interned
        };
        // Asks every subscriber, which is code of others: not under our lock.
        callsite::register(interned);
        Ok(Some(interned))
    }
}

/// The callsite that stands in for all events of a level (0 is ERROR) that have none of their own.
pub(crate) fn stand_in(level: u8) -> &'static Interned {
    static STAND_INS: [OnceLock<&'static Interned>; LEVELS] = [const { OnceLock::new() }; LEVELS];
    STAND_INS[usize::from(level).min(LEVELS - 1)].get_or_init(|| {
        let interned = Interned::leak(
            Kind::EVENT,
            &Site {
                level,
                name: "event of an unregistered callsite",
                target: "log_bridge",
                module_path: None,
                file: None,
                line: None,
                fields: STAND_IN.to_vec(),
            },
        );
        callsite::register(interned);
        interned
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::blob_of;

    fn site(line: u32) -> Box<[u8]> {
        let metadata = Metadata::new(
            "name",
            "target",
            tracing_core::Level::WARN,
            Some("file"),
            Some(line),
            None,
            FieldSet::new(&["a", "b"], identify_callsite!(stand_in(0))),
            Kind::EVENT,
        );
        blob_of(&metadata).unwrap()
    }

    #[test]
    fn the_same_bytes_are_the_same_callsite() {
        let callsites = Callsites::new(8);
        let one = callsites.event(&site(1)).unwrap().unwrap();
        let again = callsites.event(&site(1)).unwrap().unwrap();
        let span = callsites.span(&site(1)).unwrap().unwrap();
        assert!(std::ptr::eq(one, again));
        assert!(!std::ptr::eq(one, span));
        assert!(one.metadata().is_event() && span.metadata().is_span());
        assert_eq!(one.metadata().line(), Some(1));
        let fields: Vec<_> = one.metadata().fields().iter().map(|f| f.name()).collect();
        assert_eq!(fields, ["a", "b"]);
        let repeated = one.repeated().metadata();
        assert_eq!((repeated.line(), repeated.fields().len()), (Some(1), 3));
        assert!(std::ptr::eq(one.repeated(), one.repeated()));
    }

    #[test]
    fn there_are_no_more_than_the_bound() {
        let callsites = Callsites::new(4);
        for line in 0..4 {
            assert!(callsites.event(&site(line)).unwrap().is_some());
        }
        assert!(callsites.event(&site(4)).unwrap().is_none());
        assert!(
            callsites.event(&site(3)).unwrap().is_some(),
            "known ones stay known"
        );
        assert!(callsites.event(&[1, 2]).is_err());
    }
}
