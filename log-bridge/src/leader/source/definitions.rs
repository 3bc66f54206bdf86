//! The callsites that one source has numbered.

use std::sync::Arc;

use crate::wire::callsite::{CallsiteInfo, CallsiteRef};
use crate::wire::error::Malformed;
use crate::wire::limits::MAX_CALLSITES_BYTES;
use crate::wire::record::EventRecord;

/// The encoded metadata of the callsites that one source has numbered.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    events: DefinitionTable,
    spans: DefinitionTable,
}

/// The numbered callsites of events, or of spans.
#[derive(Debug, Default)]
pub(crate) struct DefinitionTable {
    /// The encoded metadata by number.
    callsites: Vec<Option<Arc<[u8]>>>,
    bytes: usize,
}

impl Definitions {
    /// Adds the callsites that a record defines, and checks that those it refers to are defined.
    pub(super) fn learn(&mut self, record: &EventRecord<'_>) -> Result<(), Malformed> {
        self.events.learn(record.callsite)?;
        record.for_each_span(|_, span| self.spans.learn(span.callsite))
    }

    pub(crate) fn events(&self) -> &DefinitionTable {
        &self.events
    }

    pub(crate) fn spans(&self) -> &DefinitionTable {
        &self.spans
    }
}

impl DefinitionTable {
    #[inline]
    fn learn(&mut self, callsite: CallsiteRef<'_>) -> Result<(), Malformed> {
        match callsite {
            CallsiteRef::Inline(_) => Ok(()),
            CallsiteRef::Number(number) => match self.callsites.get(usize::from(number)) {
                Some(Some(_)) => Ok(()),
                _ => Err(Malformed::UndefinedCallsite(number)),
            },
            CallsiteRef::Defines(number, metadata) => self.define(number, metadata),
        }
    }

    fn define(&mut self, number: u16, metadata: &[u8]) -> Result<(), Malformed> {
        let index = usize::from(number);
        // The decoder has checked that numbers are below MAX_CALLSITES.
        if self.callsites.len() <= index {
            self.callsites.resize_with(index + 1, || None);
        }
        match &self.callsites[index] {
            // Two threads may define a callsite at the same time, and a record may be published late.
            Some(defined) if **defined == *metadata => Ok(()),
            Some(_) => Err(Malformed::RedefinedCallsite(number)),
            None => {
                CallsiteInfo::decode(metadata)?;
                self.bytes += metadata.len();
                if self.bytes > MAX_CALLSITES_BYTES {
                    return Err(Malformed::CallsitesTooLarge);
                }
                self.callsites[index] = Some(metadata.into());
                Ok(())
            }
        }
    }

    /// Returns the encoded metadata of a numbered callsite.
    pub(crate) fn numbered(&self, number: u16) -> Option<&Arc<[u8]>> {
        self.callsites.get(usize::from(number))?.as_ref()
    }

    /// Returns the encoded metadata of any callsite.
    pub(crate) fn metadata<'a>(&'a self, callsite: CallsiteRef<'a>) -> Option<&'a [u8]> {
        match callsite {
            CallsiteRef::Inline(metadata) | CallsiteRef::Defines(_, metadata) => Some(metadata),
            CallsiteRef::Number(number) => self.numbered(number).map(|metadata| &**metadata),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_callsite::leak_metadata;
    use crate::wire::callsite::encode_metadata;

    #[test]
    fn a_number_stands_for_the_metadata_that_it_was_defined_with() {
        let [one, other] = [1, 2].map(|line| encode_metadata(leak_metadata(line)).unwrap());
        let mut table = DefinitionTable::default();
        assert_eq!(
            table.learn(CallsiteRef::Number(5)),
            Err(Malformed::UndefinedCallsite(5))
        );
        assert_eq!(table.learn(CallsiteRef::Defines(5, &one)), Ok(()));
        assert_eq!(table.learn(CallsiteRef::Number(5)), Ok(()));
        assert_eq!(
            table.learn(CallsiteRef::Defines(5, &one)),
            Ok(()),
            "the same again"
        );
        let redefined = table.learn(CallsiteRef::Defines(5, &other));
        assert_eq!(redefined, Err(Malformed::RedefinedCallsite(5)));
        assert_eq!(table.metadata(CallsiteRef::Number(5)), Some(&*one));
        assert!(table.learn(CallsiteRef::Defines(6, b"malformed")).is_err());
    }
}
