//! The callsites of one source as callsites of this process.

use std::sync::{Arc, Mutex, PoisonError};

use super::registry::{CallsiteRegistry, RegisteredCallsite};
use crate::leader::source::definitions::{DefinitionTable, Definitions};
use crate::leader::source::reader::RecordReader;
use crate::wire::callsite::CallsiteRef;
use crate::wire::error::Malformed;

/// Caches the registered callsites of one source. Resolving a callsite may register it, which calls subscribers.
#[derive(Debug)]
pub(super) struct SourceCallsites {
    reader: Arc<Mutex<RecordReader>>,
    /// By number.
    events: Vec<Option<Cached>>,
    spans: Vec<Option<Cached>>,
}

#[derive(Debug)]
struct Cached {
    metadata: Arc<[u8]>,
    registered: Option<&'static RegisteredCallsite>,
}

/// A callsite of a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resolved<'a> {
    /// The encoded metadata.
    pub(super) metadata: &'a [u8],
    /// `None` if too many callsites are registered already.
    pub(super) registered: Option<&'static RegisteredCallsite>,
}

impl SourceCallsites {
    pub(super) fn new(reader: Arc<Mutex<RecordReader>>) -> Self {
        Self {
            reader,
            events: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// Returns the index of an event's level. Calls no subscriber.
    #[inline]
    pub(super) fn event_level(&self, callsite: CallsiteRef<'_>) -> Result<usize, Malformed> {
        let level = |metadata: &[u8]| metadata.first().copied().map(usize::from);
        let level = match callsite {
            CallsiteRef::Inline(metadata) | CallsiteRef::Defines(_, metadata) => level(metadata),
            CallsiteRef::Number(number) => match self.events.get(usize::from(number)) {
                Some(Some(cached)) => level(&cached.metadata),
                _ => find(&self.reader, number, Definitions::events).and_then(|metadata| level(&metadata)),
            },
        };
        level.ok_or(Malformed::UnexpectedEnd { expected: 1, left: 0 })
    }

    /// Resolves the callsite of an event that the reader has taken.
    #[inline]
    pub(super) fn event<'a>(&'a mut self, callsite: CallsiteRef<'a>) -> Result<Resolved<'a>, Malformed> {
        let find = |number| find(&self.reader, number, Definitions::events);
        resolve(&mut self.events, callsite, find, CallsiteRegistry::event)
    }

    /// Resolves the callsite of a span that the reader has taken.
    #[inline]
    pub(super) fn span<'a>(&'a mut self, callsite: CallsiteRef<'a>) -> Result<Resolved<'a>, Malformed> {
        let find = |number| find(&self.reader, number, Definitions::spans);
        resolve(&mut self.spans, callsite, find, CallsiteRegistry::span)
    }
}

fn find(
    reader: &Mutex<RecordReader>,
    number: u16,
    table: impl FnOnce(&Definitions) -> &DefinitionTable,
) -> Option<Arc<[u8]>> {
    let reader = reader.lock().unwrap_or_else(PoisonError::into_inner);
    table(reader.definitions()).numbered(number).cloned()
}

type Register = fn(&CallsiteRegistry, &[u8]) -> Result<Option<&'static RegisteredCallsite>, Malformed>;

#[inline]
fn resolve<'a>(
    cache: &'a mut Vec<Option<Cached>>,
    callsite: CallsiteRef<'a>,
    find: impl FnOnce(u16) -> Option<Arc<[u8]>>,
    register: Register,
) -> Result<Resolved<'a>, Malformed> {
    let number = match callsite {
        CallsiteRef::Number(number) | CallsiteRef::Defines(number, _) => number,
        CallsiteRef::Inline(metadata) => {
            let registered = register(CallsiteRegistry::global(), metadata)?;
            return Ok(Resolved { metadata, registered });
        }
    };
    let index = usize::from(number);
    if !matches!(cache.get(index), Some(Some(_))) {
        let metadata = find(number).ok_or(Malformed::UndefinedCallsite(number))?;
        let registered = register(CallsiteRegistry::global(), &metadata)?;
        if cache.len() <= index {
            cache.resize_with(index + 1, || None);
        }
        cache[index] = Some(Cached { metadata, registered });
    }
    match &cache[index] {
        Some(Cached { metadata, registered }) => Ok(Resolved {
            metadata,
            registered: *registered,
        }),
        None => Err(Malformed::UndefinedCallsite(number)),
    }
}
