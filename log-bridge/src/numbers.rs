//! The worker's callsites: encoded once, numbered, and limited in their rate.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, TryLockError};
use std::time::Duration;

use tracing_core::Metadata;

use crate::site::{SiteRef, blob_of};
use crate::wire::{MAX_SITES, MAX_SITES_BYTES};

/// Callsites that a thread remembers; a power of two.
const REMEMBERED: usize = 128;
const ATTEMPTS: usize = 64;

/// How many events one callsite may emit; what is beyond is dropped and counted.
///
/// ```
/// use std::time::Duration;
/// let limit = log_bridge::RateLimit::new(100, Duration::from_secs(1));
/// # let _ = limit;
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    events: u32,
    per: u64,
}

impl RateLimit {
    /// At most `events` in each window of length `per`. A window begins with the first event after the last one
    /// ended, so a burst across two windows may be twice as large.
    pub fn new(events: u32, per: Duration) -> Self {
        Self {
            events,
            per: u64::try_from(per.as_nanos()).unwrap_or(u64::MAX),
        }
    }
}

/// One callsite of this process, as one layer knows it.
#[derive(Debug)]
pub(crate) struct NumberedSite {
    number: u16,
    blob: Box<[u8]>,
    /// A record that defines the number is in the ring.
    defined: AtomicBool,
    /// When the present window of the rate limit began, and how many events it has seen.
    window: AtomicU64,
    seen: AtomicU64,
}

impl NumberedSite {
    /// How a record is to name it.
    #[inline]
    pub(crate) fn reference(&self) -> SiteRef<'_> {
        // Acquire: whoever set it had published the definition, so our record comes after it.
        match self.defined.load(Ordering::Acquire) {
            true => SiteRef::Known(self.number),
            false => SiteRef::Defines(self.number, &self.blob),
        }
    }

    /// To be called once a record that defines it was published.
    pub(crate) fn set_defined(&self) {
        self.defined.store(true, Ordering::Release);
    }

    /// Whether one more event at `now` is within the limit. Threads that race for a new window may exceed it by one
    /// each.
    pub(crate) fn admits(&self, limit: RateLimit, now: u64) -> bool {
        let began = self.window.load(Ordering::Relaxed);
        if now.wrapping_sub(began) >= limit.per
            && self
                .window
                .compare_exchange(began, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            self.seen.store(0, Ordering::Relaxed);
        }
        self.seen.fetch_add(1, Ordering::Relaxed) < limit.events.into()
    }
}

/// All callsites of one layer, by the address of their metadata, which lives for ever.
#[derive(Debug)]
pub(crate) struct Numbers {
    layer: u64,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<usize, Arc<NumberedSite>>,
    bytes: usize,
}

impl Numbers {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            layer: NEXT.fetch_add(1, Ordering::Relaxed),
            table: Mutex::default(),
        }
    }

    /// The number of a callsite; `None` if there are too many, it is too large, or the table is in use for longer
    /// than we wait.
    #[cold]
    fn find(&self, metadata: &'static Metadata<'static>) -> Option<Arc<NumberedSite>> {
        let mut table = (0..ATTEMPTS).find_map(|_| match self.table.try_lock() {
            Ok(table) => Some(table),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => {
                std::hint::spin_loop();
                None
            }
        })?;
        let key = key_of(metadata);
        if let Some(site) = table.known.get(&key) {
            return Some(site.clone());
        }
        let blob = blob_of(metadata)?;
        if table.known.len() >= MAX_SITES || table.bytes + blob.len() > MAX_SITES_BYTES {
            return None;
        }
        table.bytes += blob.len();
        let site = Arc::new(NumberedSite {
            number: table.known.len() as u16,
            blob,
            defined: AtomicBool::new(false),
            window: AtomicU64::new(0),
            seen: AtomicU64::new(0),
        });
        table.known.insert(key, site.clone());
        Some(site)
    }

    /// As [`Memory::find`] without a memory.
    pub(crate) fn of_span(&self, metadata: &'static Metadata<'static>) -> Option<Arc<NumberedSite>> {
        self.find(metadata)
    }
}

/// What tells a callsite from all others.
#[inline]
pub(crate) fn key_of(metadata: &'static Metadata<'static>) -> usize {
    std::ptr::from_ref(metadata).addr()
}

/// The callsites that one thread used last, of whichever layers.
#[derive(Debug)]
pub(crate) struct Memory {
    entries: Vec<Option<Remembered>>,
}

#[derive(Debug)]
struct Remembered {
    layer: u64,
    key: usize,
    site: Arc<NumberedSite>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// The number of a callsite; `None` if it has none.
    #[inline]
    pub(crate) fn find(
        &mut self,
        numbers: &Numbers,
        metadata: &'static Metadata<'static>,
    ) -> Option<&NumberedSite> {
        let key = key_of(metadata);
        if self.entries.is_empty() {
            self.entries.resize_with(REMEMBERED, || None);
        }
        // Fibonacci hashing: the upper bits of the product.
        let place = ((key as u64 >> 3).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 57) as usize;
        let entry = &mut self.entries[place % REMEMBERED];
        if !matches!(entry, Some(entry) if entry.key == key && entry.layer == numbers.layer) {
            *entry = Some(Remembered {
                layer: numbers.layer,
                key,
                site: numbers.find(metadata)?,
            });
        }
        entry.as_ref().map(|entry| &*entry.site)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::callsites::stand_in;

    #[test]
    fn a_callsite_is_defined_until_a_definition_was_published() {
        let numbers = Numbers::new();
        let (mut one, mut other) = (Memory::new(), Memory::new());
        let metadata = stand_in(2).metadata();
        let site = one.find(&numbers, metadata).unwrap();
        assert!(matches!(site.reference(), SiteRef::Defines(0, _)));
        assert!(matches!(
            other.find(&numbers, metadata).unwrap().reference(),
            SiteRef::Defines(0, _)
        ));
        site.set_defined();
        let there = other.find(&numbers, metadata).unwrap();
        assert_eq!(there.reference(), SiteRef::Known(0));
        let second = other.find(&numbers, stand_in(3).metadata()).unwrap();
        assert!(matches!(second.reference(), SiteRef::Defines(1, _)));
        // Another layer writes to another leader.
        let site = one.find(&Numbers::new(), metadata).unwrap();
        assert!(matches!(site.reference(), SiteRef::Defines(0, _)));
    }

    #[test]
    fn a_window_admits_so_many() {
        let numbers = Numbers::new();
        let site = numbers.of_span(stand_in(2).metadata()).unwrap();
        let limit = RateLimit::new(2, Duration::from_nanos(10));
        let admitted: Vec<bool> = [100, 101, 109, 110, 111, 112, 300]
            .map(|now| site.admits(limit, now))
            .into();
        assert_eq!(admitted, [true, true, false, true, true, false, true]);
    }
}
