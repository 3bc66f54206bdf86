//! Dropped events of one callsite, told as one.

use crate::wire::Header;

/// Callsites that are remembered at most, and the bytes of their records.
const MAX_CALLSITES: usize = 64;
const MAX_BYTES: usize = 64 * 1024;

/// What was dropped and is yet to be told, callsite by callsite.
#[derive(Debug, Default)]
pub(crate) struct Repeats {
    entries: Vec<Repeat>,
    bytes: usize,
}

/// The first of them stands for all.
#[derive(Debug)]
struct Repeat {
    key: u64,
    level: usize,
    count: u32,
    frame: Vec<u8>,
}

impl Repeats {
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Counts one more of a callsite of which there is one already.
    pub(crate) fn again(&mut self, key: u64) -> Known {
        let full = self.entries.len() == MAX_CALLSITES;
        match self.entries.iter_mut().find(|entry| entry.key == key) {
            Some(entry) => {
                entry.count = entry.count.saturating_add(1);
                Known::Yes
            }
            None if full => Known::TooMany,
            None => Known::No,
        }
    }

    /// Remembers the record of the first of a callsite, if there is room.
    pub(crate) fn first(&mut self, key: u64, level: usize, frame: &[u8]) {
        if self.entries.len() < MAX_CALLSITES && self.bytes + frame.len() <= MAX_BYTES {
            self.bytes += frame.len();
            self.entries.push(Repeat {
                key,
                level,
                count: 1,
                frame: frame.to_vec(),
            });
        }
    }

    /// Hands over the summaries, until one is not taken.
    pub(crate) fn tell(&mut self, mut take: impl FnMut(usize, &[u8]) -> bool) {
        let mut told = 0;
        for entry in &mut self.entries {
            Header::summarize(&mut entry.frame, entry.count);
            if !take(entry.level, &entry.frame) {
                break;
            }
            told += 1;
            self.bytes -= entry.frame.len();
        }
        self.entries.drain(..told);
    }
}

/// Whether a callsite has a record to be counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    Yes,
    No,
    TooMany,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_callsites_and_their_bytes_are_bounded() {
        let mut repeats = Repeats::default();
        let frame = Header::default().encode();
        for key in 0..100 {
            repeats.first(key, 3, &frame);
        }
        assert_eq!(repeats.again(5), Known::Yes);
        assert_eq!(repeats.again(99), Known::TooMany);
        let mut told = Vec::new();
        repeats.tell(|level, frame| {
            told.push((level, frame[24]));
            told.len() < 60
        });
        assert_eq!((told.len(), told[5], told[6]), (60, (3, 2), (3, 1)));
        repeats.first(5, 3, &vec![0; MAX_BYTES]);
        assert_eq!(repeats.again(5), Known::No, "too large");
        repeats.tell(|_, _| true);
        assert!(repeats.is_empty());
        repeats.first(5, 3, &vec![0; MAX_BYTES]);
        assert_eq!(repeats.again(5), Known::Yes);
    }
}
