//! The callsites of a layer: encoded once, numbered, and limited in their rate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};

use tracing_core::Metadata;

use super::rate_limit::{RateLimit, RateWindow};
use crate::wire::callsite::{CallsiteRef, encode_metadata};
use crate::wire::limits::{MAX_CALLSITES, MAX_CALLSITES_BYTES};

/// Callsites that a thread caches; a power of two.
const CACHED: usize = 128;
/// Attempts to get the table's lock.
const ATTEMPTS: usize = 64;

/// A callsite that has a number in one layer.
#[derive(Debug)]
pub(super) struct NumberedCallsite {
    number: u16,
    metadata: Box<[u8]>,
    /// A record that defines the number was published.
    defined: AtomicBool,
    window: RateWindow,
}

impl NumberedCallsite {
    /// Returns how the next record refers to the callsite.
    #[inline]
    pub(super) fn reference(&self) -> CallsiteRef<'_> {
        // Acquire: the thread that set it had published the definition, so our record comes after that.
        match self.defined.load(Ordering::Acquire) {
            true => CallsiteRef::Number(self.number),
            false => CallsiteRef::Defines(self.number, &self.metadata),
        }
    }

    /// Records that a record which defines the number was published.
    pub(super) fn set_defined(&self) {
        self.defined.store(true, Ordering::Release);
    }

    /// Counts an event at `now` (nanoseconds since the Unix epoch); returns whether it is within the limit.
    pub(super) fn admits(&self, limit: RateLimit, now: u64) -> bool {
        self.window.admits(limit, now)
    }
}

/// The callsites of one layer, by the address of their `'static` metadata.
#[derive(Debug)]
pub(super) struct CallsiteTable {
    /// Unique among the layers of this process.
    layer: u64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    numbered: HashMap<usize, Arc<NumberedCallsite>>,
    bytes: usize,
}

impl CallsiteTable {
    pub(super) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            layer: NEXT.fetch_add(1, Ordering::Relaxed),
            table: Mutex::default(),
        }
    }

    /// Returns the numbered callsite of `metadata`, which gets a number now if it has none.
    ///
    /// Returns `None` if there are too many callsites, if this one is too large, or if the table stays locked for longer
    /// than a short spin.
    #[cold]
    pub(super) fn find(&self, metadata: &'static Metadata<'static>) -> Option<Arc<NumberedCallsite>> {
        let mut table = (0..ATTEMPTS).find_map(|_| match self.table.try_lock() {
            Ok(table) => Some(table),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                std::hint::spin_loop();
                None
            }
        })?;
        let key = callsite_key(metadata);
        if let Some(callsite) = table.numbered.get(&key) {
            return Some(callsite.clone());
        }
        let encoded = encode_metadata(metadata)?;
        if table.numbered.len() >= MAX_CALLSITES || table.bytes + encoded.len() > MAX_CALLSITES_BYTES {
            return None;
        }
        table.bytes += encoded.len();
        let callsite = Arc::new(NumberedCallsite {
            number: table.numbered.len() as u16,
            metadata: encoded,
            defined: AtomicBool::new(false),
            window: RateWindow::default(),
        });
        table.numbered.insert(key, callsite.clone());
        Some(callsite)
    }
}

/// Returns a number that identifies a callsite within this process.
#[inline]
pub(super) fn callsite_key(metadata: &'static Metadata<'static>) -> usize {
    std::ptr::from_ref(metadata).addr()
}

/// The callsites that one thread has used last, in any layer.
#[derive(Debug)]
pub(super) struct CallsiteCache {
    entries: Vec<Option<CachedCallsite>>,
}

#[derive(Debug)]
struct CachedCallsite {
    layer: u64,
    key: usize,
    callsite: Arc<NumberedCallsite>,
}

impl CallsiteCache {
    pub(super) fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// As [`CallsiteTable::find`], without the table's lock if the callsite is cached.
    #[inline]
    pub(super) fn find(
        &mut self,
        table: &CallsiteTable,
        metadata: &'static Metadata<'static>,
    ) -> Option<&NumberedCallsite> {
        let key = callsite_key(metadata);
        if self.entries.is_empty() {
            self.entries.resize_with(CACHED, || None);
        }
        // Fibonacci hashing: the upper bits of the product.
        let index = ((key as u64 >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as usize;
        let entry = &mut self.entries[index % CACHED];
        if !matches!(entry, Some(entry) if entry.key == key && entry.layer == table.layer) {
            *entry = Some(CachedCallsite {
                layer: table.layer,
                key,
                callsite: table.find(metadata)?,
            });
        }
        entry.as_ref().map(|entry| &*entry.callsite)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_callsite::leak_metadata;

    #[test]
    fn records_define_a_callsite_until_a_definition_was_published() {
        let table = CallsiteTable::new();
        let (mut one, mut other) = (CallsiteCache::new(), CallsiteCache::new());
        let metadata = leak_metadata(1);
        let callsite = one.find(&table, metadata).unwrap();
        assert!(matches!(callsite.reference(), CallsiteRef::Defines(0, _)));
        assert!(matches!(
            other.find(&table, metadata).unwrap().reference(),
            CallsiteRef::Defines(0, _)
        ));
        callsite.set_defined();
        let defined = other.find(&table, metadata).unwrap();
        assert_eq!(defined.reference(), CallsiteRef::Number(0));
        let second = other.find(&table, leak_metadata(2)).unwrap();
        assert!(matches!(second.reference(), CallsiteRef::Defines(1, _)));
    }

    #[test]
    fn each_layer_defines_its_callsites_for_its_own_leader() {
        let mut cache = CallsiteCache::new();
        let metadata = leak_metadata(1);
        let first = CallsiteTable::new();
        cache.find(&first, metadata).unwrap().set_defined();
        let second = CallsiteTable::new();
        let callsite = cache.find(&second, metadata).unwrap();
        assert!(matches!(callsite.reference(), CallsiteRef::Defines(0, _)));
    }
}
