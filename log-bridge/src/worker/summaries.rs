//! The summaries of dropped events: one record for all dropped events of a callsite.

use crate::wire::record::EventHeader;

/// Callsites that have a pending summary at the same time.
const MAX_SUMMARIES: usize = 64;
/// Bytes of the records of all pending summaries.
const MAX_BYTES: usize = 64 * 1024;

/// The summaries that wait for room in the ring.
#[derive(Debug, Default)]
pub(super) struct Summaries {
    pending: Vec<Summary>,
    bytes: usize,
}

#[derive(Debug)]
struct Summary {
    /// Identifies the callsite.
    key: u64,
    level: usize,
    /// The number of dropped events.
    events: u32,
    /// The record of the first one.
    frame: Vec<u8>,
}

/// Whether a dropped event was counted in a summary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counted {
    Yes,
    /// Its callsite has no summary yet: the event has to be encoded, as the [first](Summaries::insert) of one.
    NoSummary,
    /// Its callsite has no summary, and there are too many for another one.
    Full,
}

impl Summaries {
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Returns how many summaries are pending.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Counts a dropped event if its callsite has a summary.
    pub(super) fn count(&mut self, key: u64) -> Counted {
        let full = self.pending.len() == MAX_SUMMARIES;
        match self.pending.iter_mut().find(|summary| summary.key == key) {
            Some(summary) => {
                summary.events = summary.events.saturating_add(1);
                Counted::Yes
            }
            None if full => Counted::Full,
            None => Counted::NoSummary,
        }
    }

    /// Adds a summary with the record of its callsite's first dropped event, if the bounds allow it.
    pub(super) fn insert(&mut self, key: u64, level: usize, frame: &[u8]) {
        if self.pending.len() < MAX_SUMMARIES && self.bytes + frame.len() <= MAX_BYTES {
            self.bytes += frame.len();
            self.pending.push(Summary {
                key,
                level,
                events: 1,
                frame: frame.to_vec(),
            });
        }
    }

    /// Passes the level and record of each summary to `write`, and removes it, until `write` returns `false`.
    pub(super) fn write_each(&mut self, mut write: impl FnMut(usize, &[u8]) -> bool) {
        let mut written = 0;
        for summary in &mut self.pending {
            EventHeader::make_summary(&mut summary.frame, summary.events);
            if !write(summary.level, &summary.frame) {
                break;
            }
            written += 1;
            self.bytes -= summary.frame.len();
        }
        self.pending.drain(..written);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_summaries_and_their_bytes_are_bounded() {
        let mut summaries = Summaries::default();
        let frame = EventHeader::default().encode();
        for key in 0..100 {
            summaries.insert(key, 3, &frame);
        }
        assert_eq!(summaries.count(5), Counted::Yes);
        assert_eq!(summaries.count(99), Counted::Full);
        let mut written = Vec::new();
        summaries.write_each(|level, frame| {
            written.push((level, frame[24]));
            written.len() < 60
        });
        assert_eq!((written.len(), written[5], written[6]), (60, (3, 2), (3, 1)));
        summaries.insert(5, 3, &vec![0; MAX_BYTES]);
        assert_eq!(summaries.count(5), Counted::NoSummary, "too large");
        summaries.write_each(|_, _| true);
        assert!(summaries.is_empty());
        summaries.insert(5, 3, &vec![0; MAX_BYTES]);
        assert_eq!(summaries.count(5), Counted::Yes);
    }
}
